//! Packages of any Debian suite, without touching the system's own package lists.

pub(crate) mod sources;
pub(crate) mod suite;
