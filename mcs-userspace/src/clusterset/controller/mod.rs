//! The state machine of one member's controller: events in, writes out.

mod report;

use std::time::Duration;

use super::event::{Event, Now, Op};
pub use report::{Held, MemberReport, Report};

/// What may be set. The defaults are the product's.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// How long a tombstone stays at the broker.
    pub tombstone: Duration,
    /// The longest wait between two tries of a write.
    pub retry_cap: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tombstone: Duration::from_secs(600), retry_cap: Duration::from_secs(5) }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Controller {
    leader: bool,
}

impl Controller {
    /// One that has heard nothing. `seed` is that of its jitter.
    #[must_use]
    pub fn new(_settings: Settings, _seed: u64) -> Self {
        Self { leader: false }
    }

    /// Takes in what the edge saw at `now`.
    pub fn handle(&mut self, event: Event, _now: Now) {
        if let Event::Leader(leader) = event {
            self.leader = leader;
        }
    }

    /// What should be written now. Every object has at most one write under way.
    pub fn ops(&mut self, _now: Now) -> Vec<Op> {
        Vec::new()
    }

    /// When [`Self::ops`] must be called again though nothing was heard.
    #[must_use]
    pub fn wake(&self) -> Option<Now> {
        None
    }

    /// How things stand.
    #[must_use]
    pub fn report(&self, _now: Now) -> Report {
        Report { leader: self.leader, ..Report::default() }
    }
}
