//! How long this process may still write, as the leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Until when this process is the leader, shared with those who write. Another may take over once the lease ran out, and
/// a process that was stopped for a while does not know that it did.
#[derive(Clone, Debug)]
pub(super) struct Tenure {
    origin: Instant,
    /// Milliseconds after `origin`.
    until: Arc<AtomicU64>,
}

impl Tenure {
    /// Of one that does not lead.
    pub(super) fn none() -> Self {
        Self { origin: Instant::now(), until: Arc::default() }
    }

    /// Whether it lasts.
    pub(super) fn lasts(&self) -> bool {
        self.millis(Instant::now()) < self.until.load(Ordering::Acquire)
    }

    /// It lasts for `time` after `from`.
    pub(super) fn extend(&self, from: Instant, time: Duration) {
        self.until.store(self.millis(from + time), Ordering::Release);
    }

    /// It is over.
    pub(super) fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_until_it_is_over() {
        let tenure = Tenure::none();
        assert!(!tenure.lasts());
        tenure.extend(Instant::now(), Duration::from_secs(60));
        assert!(tenure.clone().lasts());
        tenure.end();
        assert!(!tenure.lasts());
        let tenure = Tenure { origin: Instant::now() - Duration::from_secs(100), ..tenure };
        tenure.extend(Instant::now() - Duration::from_secs(20), Duration::from_secs(10));
        assert!(!tenure.lasts(), "it ran out before anybody looked");
    }
}
