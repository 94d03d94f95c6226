//! Telling whoever waits that something goes on: on stderr, so that the tables on stdout can be kept.

use std::time::{Duration, Instant};

/// How often a line appears.
const EVERY: Duration = Duration::from_secs(5);

/// Says what begins.
pub(crate) fn say(what: &str) {
    eprintln!("  … {what}");
}

/// Counts rounds.
pub(crate) struct Progress {
    what: String,
    total: usize,
    started: Instant,
    next: Duration,
}

impl Progress {
    pub(crate) fn new(what: impl Into<String>, total: usize) -> Self {
        let what = what.into();
        say(&format!("{what}: {total} rounds"));
        Self { what, total, started: Instant::now(), next: EVERY }
    }

    /// So many rounds are done.
    pub(crate) fn at(&mut self, done: usize) {
        let elapsed = self.started.elapsed();
        if elapsed >= self.next && done < self.total {
            self.next = elapsed + EVERY;
            eprintln!("    {}: {done} of {} rounds, {:.0} s", self.what, self.total, elapsed.as_secs_f64());
        }
    }
}
