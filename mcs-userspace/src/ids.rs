//! Who gets which row: a pool of ids in which the one that has been free for longest is taken first.
//!
//! Oldest first, because an id that lies still for long is one that nothing stale points at any more: elements of the
//! frontends' hash, sockets' entries and affinity all name rows by id, and a generation beside it has only so many bits.
//!
//! An id that is given up waits in limbo: a program that runs at that moment may still read its row. When a grace period
//! has passed, [`IdPool::grace_passed`] frees what was given up before the period began, which [`IdPool::mark`] noted.

use std::collections::VecDeque;

/// How many ids had been retired, ever, at some moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct IdMark(u64);

/// The ids `0..size`: in use (which the pool does not list), free, or in limbo.
#[derive(Clone, Debug)]
pub struct IdPool {
    size: u32,
    /// Ids from here on were never taken: the oldest free ones of all.
    untouched: u32,
    /// Free again, oldest first.
    free: VecDeque<u32>,
    /// Retired, oldest first.
    limbo: VecDeque<u32>,
    /// How many ids have left limbo, ever.
    released: u64,
}

impl IdPool {
    /// A pool in which nothing is in use.
    #[must_use]
    pub fn new(size: u32) -> Self {
        Self { size, untouched: 0, free: VecDeque::new(), limbo: VecDeque::new(), released: 0 }
    }

    /// A pool in which the ids are in use that `used` says; the others are free at once, so a grace period must pass
    /// between the last store of whoever ran before and the first [`IdPool::take`].
    ///
    /// `touched` tells whether a free id was ever in use: those are taken last, as nobody knows when they were freed.
    #[must_use]
    pub fn restore(size: u32, used: impl Fn(u32) -> bool, touched: impl Fn(u32) -> bool) -> Self {
        let untouched = (0..size).rev().find(|id| used(*id) || touched(*id)).map_or(0, |last| last + 1);
        let (mut never, once): (VecDeque<u32>, VecDeque<u32>) =
            (0..untouched).filter(|id| !used(*id)).partition(|id| !touched(*id));
        never.extend(once);
        Self { size, untouched, free: never, limbo: VecDeque::new(), released: 0 }
    }

    /// Takes the id that has been free for longest. None when there is none.
    pub fn take(&mut self) -> Option<u32> {
        if self.untouched < self.size {
            self.untouched += 1;
            Some(self.untouched - 1)
        } else {
            self.free.pop_front()
        }
    }

    /// Gives an id up. It becomes free after a grace period.
    pub fn retire(&mut self, id: u32) {
        debug_assert!(id < self.untouched, "id {id} was never taken");
        self.limbo.push_back(id);
    }

    /// How many ids can be taken now.
    #[must_use]
    pub fn free(&self) -> u32 {
        // both fit: an id is in one place only
        self.size - self.untouched + self.free.len() as u32
    }

    /// How many ids wait for a grace period.
    #[must_use]
    pub fn limbo(&self) -> u32 {
        self.limbo.len() as u32
    }

    /// Notes the moment before a grace period begins.
    #[must_use]
    pub fn mark(&self) -> IdMark {
        IdMark(self.released + self.limbo.len() as u64)
    }

    /// A grace period that began at `mark` has passed.
    pub fn grace_passed(&mut self, mark: IdMark) {
        while self.released < mark.0
            && let Some(id) = self.limbo.pop_front()
        {
            self.released += 1;
            self.free.push_back(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oldest_is_taken_first() {
        let mut pool = IdPool::new(4);
        assert_eq!((pool.take(), pool.take(), pool.take()), (Some(0), Some(1), Some(2)));
        pool.retire(1);
        pool.retire(0);
        assert_eq!(pool.take(), Some(3), "never taken, so free for longest");
        assert_eq!(pool.take(), None, "limbo is not free");
        pool.grace_passed(pool.mark());
        pool.retire(2);
        assert_eq!((pool.take(), pool.take(), pool.take()), (Some(1), Some(0), None));
    }

    #[test]
    fn what_is_retired_during_a_grace_period_waits_for_the_next() {
        let mut pool = IdPool::new(2);
        pool.take();
        pool.take();
        pool.retire(0);
        let mark = pool.mark();
        pool.retire(1);
        pool.grace_passed(mark);
        assert_eq!((pool.free(), pool.limbo()), (1, 1));
        pool.grace_passed(mark);
        assert_eq!((pool.free(), pool.limbo()), (1, 1), "a mark frees nothing twice");
        pool.grace_passed(pool.mark());
        assert_eq!((pool.free(), pool.limbo()), (2, 0));
    }

    #[test]
    fn restore_takes_the_never_used_first() {
        let mut pool = IdPool::restore(6, |id| id == 1 || id == 3, |id| id == 0 || id == 1 || id == 3);
        let taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(taken, [4, 5, 2, 0]);
    }

    proptest! {
        #[test]
        fn no_id_is_ever_in_two_places(ops in prop::collection::vec(0u8..4, 0..200)) {
            let mut pool = IdPool::new(12);
            let (mut used, mut limbo) = (Vec::new(), HashSet::new());
            for op in ops {
                match op {
                    0 | 1 => if let Some(id) = pool.take() {
                        prop_assert!(!used.contains(&id) && !limbo.contains(&id));
                        used.push(id);
                    },
                    2 => if !used.is_empty() {
                        let id = used.remove(0);
                        limbo.insert(id);
                        pool.retire(id);
                    },
                    _ => { pool.grace_passed(pool.mark()); limbo.clear(); }
                }
                prop_assert_eq!(pool.limbo() as usize, limbo.len());
                prop_assert_eq!(pool.free() as usize + used.len() + limbo.len(), 12);
            }
        }
    }
}
