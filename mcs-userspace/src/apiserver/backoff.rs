//! Pauses between tries.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(200);

/// The longest pause: everything converges within seconds of an API server's return, however long it was away.
pub(crate) const MOST: Duration = Duration::from_secs(5);

/// Doubling pauses with jitter, so that many clients do not come back at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause before the next try: between half of what was doubled so far and all of it.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(MOST);
        jittered(pause)
    }

    /// It worked: start over.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

/// Between half of `pause` and all of it.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let share = (random() >> 40) as f64 / f64::from(1u32 << 24);
    pause.mul_f64(0.5 + share / 2.0)
}

/// 64 bits that no other process, and no other call, has.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::time::Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_most_and_start_over() {
        let mut backoff = Backoff::new();
        for expected in [200, 400, 800, 1600, 3200, 5000, 5000] {
            let pause = backoff.pause();
            let expected = Duration::from_millis(expected);
            assert!(pause >= expected / 2 && pause <= expected, "{pause:?} {expected:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
