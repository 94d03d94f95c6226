//! What a change needs, what there is, and the error when the one exceeds the other.

use std::fmt;

use mcs_ebpf::{MAX_BLOCK, map};

use super::Planner;
use crate::arena;

/// Rows that a change takes before it gives any back.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Needs {
    pub(super) services: u32,
    pub(super) sources: u32,
    pub(super) members: u32,
    pub(super) clusters: u32,
    /// Slots in use of a new block; 0 for none.
    pub(super) block: u32,
}

/// Which map is in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// `mcs_services`, and with it `mcs_frontends` and `mcs_names`.
    Services,
    /// `mcs_sources`.
    Sources,
    /// `mcs_members`.
    Members,
    /// `mcs_clusters`.
    Clusters,
    /// `mcs_slots` has no free block that is large enough.
    Slots,
    /// No block can be that large, however much is free.
    BlockTooLong,
}

/// A service does not fit. Nothing was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub struct NoRoom {
    /// What is full.
    pub full: Full,
    /// Rows needed there; for slots, the length of the block.
    pub needed: u32,
    /// Rows free there; for slots, the sum over blocks that are too small.
    pub free: u32,
    /// Whether a grace period frees some: [`Planner::grace_passed`].
    pub waiting: bool,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { full, needed, free, waiting: _ } = self;
        let map = match full {
            Full::Services => map::SERVICES,
            Full::Sources => map::SOURCES,
            Full::Members => map::MEMBERS,
            Full::Clusters => map::CLUSTERS,
            Full::Slots => {
                return write!(f, "{} is full: {needed} slots in one block needed, {free} free in all", map::SLOTS);
            }
            Full::BlockTooLong => return write!(f, "{}: {needed} backends do not fit in one block", map::SLOTS),
        };
        write!(f, "{map} is full: {needed} needed, {free} free")
    }
}

impl Planner {
    /// Whether all of it can be taken.
    pub(super) fn check(&self, needs: Needs) -> Result<(), NoRoom> {
        let Needs { services, sources, members, clusters, block } = needs;
        let rows = [
            (Full::Services, services, self.indexes.free(), self.indexes.limbo()),
            (Full::Sources, sources, self.sources.free(), self.sources.limbo()),
            (Full::Members, members, self.members.free(), self.members.limbo()),
            (Full::Clusters, clusters, self.clusters.free(), self.clusters.limbo()),
        ];
        for (full, needed, free, limbo) in rows {
            if needed > free {
                return Err(NoRoom { full, needed, free, waiting: limbo > 0 });
            }
        }
        if block == 0 {
            return Ok(());
        }
        // slots are counted in u32 everywhere
        let free = self.arena.free() as u32;
        match arena::order_for(block) {
            Some(order) if block <= MAX_BLOCK && 1 << order <= self.arena.largest() => {
                if self.arena.fits(order) {
                    return Ok(());
                }
                Err(NoRoom { full: Full::Slots, needed: 1 << order, free, waiting: self.arena.limbo() > 0 })
            }
            _ => Err(NoRoom { full: Full::BlockTooLong, needed: block, free, waiting: false }),
        }
    }

    /// Whether what stood in the way is there by now: planning the service again may succeed.
    #[must_use]
    pub fn has_room(&self, missed: &NoRoom) -> bool {
        match missed.full {
            Full::Services => missed.needed <= self.indexes.free(),
            Full::Sources => missed.needed <= self.sources.free(),
            Full::Members => missed.needed <= self.members.free(),
            Full::Clusters => missed.needed <= self.clusters.free(),
            Full::Slots => arena::order_for(missed.needed).is_some_and(|order| self.arena.fits(order)),
            Full::BlockTooLong => false,
        }
    }
}
