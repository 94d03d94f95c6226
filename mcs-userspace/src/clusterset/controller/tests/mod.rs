//! The controller as a whole, several of them around one broker.

mod fake;

mod addresses;
mod membership;
mod sinks;
mod sources;
mod writes;
