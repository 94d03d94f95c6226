//! What came of a call.

use crate::maps::MapError;

/// What a call of the programmer did, and what is left.
#[derive(Default, Debug)]
pub struct Outcome {
    /// Services that are new or another than before.
    pub changed: usize,
    /// Services that are gone.
    pub removed: usize,
    /// Services that are not in the maps as their objects want, for want of room; each has a problem.
    pub unprogrammed: usize,
    /// Whether any UDP frontend is in the maps.
    pub has_udp: bool,
    /// Whether [`super::Programmer::problems`] are others than before.
    pub problems_changed: bool,
    /// Stores that failed in this call.
    pub failures: Vec<Failure>,
    /// Whether something is left that [`super::Programmer::retry`] may be able to do.
    pub retry: bool,
    /// Whether all objects have been read and all that fits is in the maps.
    pub settled: bool,
}

/// Why something was not done. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A store, a list or a grace period.
    #[error(transparent)]
    Maps(#[from] MapError),
    /// What has to happen before the first UDP frontend.
    #[error("prepare for UDP frontends: {0}")]
    Udp(#[source] Box<dyn std::error::Error + Send + Sync>),
}
