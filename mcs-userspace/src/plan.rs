//! The stores that lead from what the maps hold to what a service should be, in an order in which every prefix is valid.
//!
//! ```text
//!  Service ──► diff (against the rows in the maps) ──► room? ──► take rows ──► Op, Op, Op
//!                                                      no: NoRoom, nothing was taken
//! ```
//!
//! A plan goes: rows of what is new, the block, the service's details, the flip of its word, then what the flip made
//! superfluous. So a program run sees the old block or the new one, all of whose members are active; and whatever is
//! sticky keeps its member, because a (service, backend) keeps its id and generation through flips and drains.
//!
//! Realized rows are read from the maps and not kept a second time. Kept is what they cannot tell quickly: where the
//! service of a frontend lies, its sources, its draining members, and which rows are free.
//!
//! All ops of a plan must have been carried out, in order, before the next plan is asked for. When one failed, the
//! planner is ahead of the maps: throw it away and [`Planner::adopt`] them again.

mod adopt;
mod change;
mod clusters;
mod diff;
mod room;
mod shrink;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mcs_ebpf::{Frontend, ServiceRow, ServiceWord, SourceRow, UDP};

use self::clusters::Clusters;
pub use self::room::{Full, NoRoom};
use crate::arena::{Arena, Block, BlockMark};
use crate::ids::{IdMark, IdPool};
use crate::maps::{Maps, Op, Sizes};
use crate::tables::{Service, name_text};

/// Where everything lies.
#[derive(Debug)]
pub struct Planner {
    services: HashMap<Frontend, Held>,
    /// How many of the services are UDP.
    udp: usize,
    indexes: IdPool,
    sources: IdPool,
    members: IdPool,
    clusters: Clusters,
    arena: Arena,
}

/// What a service has in the maps, beside what its own row and block tell.
#[derive(Clone, Debug)]
struct Held {
    /// Row of `mcs_services`.
    index: u32,
    /// Sorted by the cluster's name.
    sources: Vec<HeldSource>,
    /// Members that are not in the block, in no order.
    draining: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct HeldSource {
    /// Row of `mcs_clusters`.
    cluster: u32,
    /// Row of `mcs_sources`.
    id: u32,
}

/// What had been given up at some moment, in all maps.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    indexes: IdMark,
    sources: IdMark,
    members: IdMark,
    clusters: IdMark,
    blocks: BlockMark,
}

/// Free rows of each map; [`Sizes`] when all of it is.
pub type Free = Sizes;

impl Planner {
    /// Makes a frontend's service unreachable and gives up its rows. Empty when there is no such service.
    pub fn plan_removal(&mut self, maps: &impl Maps, frontend: &Frontend) -> Vec<Op> {
        let Some(held) = self.services.remove(frontend) else { return Vec::new() };
        let Held { index, sources, draining } = held;
        let row = maps.service(index);
        let word = ServiceWord::unpack(row.word);
        let mut ops = vec![Op::RemoveFrontend { frontend: *frontend }, Op::Service { index, row: freed(&row) }];
        let active = (0..word.count).map(|i| mcs_ebpf::SlotIds::unpack(maps.slot(word.base + i).ids).member);
        for id in active.chain(draining) {
            ops.push(Op::MemberState { id, state: mcs_ebpf::MemberRow::FREE });
            self.members.retire(id);
        }
        ops.push(Op::Source { id: row.refusals, row: SourceRow::default(), fresh: false });
        self.sources.retire(row.refusals);
        for HeldSource { cluster, id } in sources {
            ops.push(Op::Source { id, row: SourceRow::default(), fresh: false });
            self.sources.retire(id);
            self.clusters.release(cluster);
        }
        if let Some(block) = Block::of_word(word.base, word.count) {
            self.arena.retire(block);
        }
        self.indexes.retire(index);
        self.udp -= usize::from(frontend.protocol == UDP);
        ops
    }

    /// The frontends that have a service, in no order.
    pub fn frontends(&self) -> impl Iterator<Item = &Frontend> {
        self.services.keys()
    }

    /// The namespace of the import that a frontend's service comes from; empty when there is no such service.
    #[must_use]
    pub fn namespace(&self, maps: &impl Maps, frontend: &Frontend) -> Arc<str> {
        self.services.get(frontend).map_or_else(|| "".into(), |held| name_text(&maps.name(held.index).namespace))
    }

    /// How many services there are.
    #[must_use]
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// Whether a frontend has a service.
    #[must_use]
    pub fn has(&self, frontend: &Frontend) -> bool {
        self.services.contains_key(frontend)
    }

    /// Whether a service, if it became this, would no longer give flows to a backend that gets some now.
    #[must_use]
    pub fn would_lose(&self, maps: &impl Maps, service: &Service) -> bool {
        let Some(held) = self.services.get(&service.frontend) else { return false };
        let word = ServiceWord::unpack(maps.service(held.index).word);
        let stays: HashSet<_> = service.backends.iter().filter(|b| b.weight > 0).map(|b| (b.addr, b.port)).collect();
        (0..word.count).map(|i| maps.slot(word.base + i)).any(|slot| !stays.contains(&(slot.addr, slot.port_be)))
    }

    /// Whether any frontend is a UDP one.
    #[must_use]
    pub fn has_udp(&self) -> bool {
        self.udp > 0
    }

    /// Notes what has been given up so far. To be called before [`Maps::grace`], when all plans have been carried out.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            indexes: self.indexes.mark(),
            sources: self.sources.mark(),
            members: self.members.mark(),
            clusters: self.clusters.mark(),
            blocks: self.arena.mark(),
        }
    }

    /// A grace period that began after `mark` was taken has passed: what was given up before it is free.
    pub fn grace_passed(&mut self, mark: Mark) {
        let Mark { indexes, sources, members, clusters, blocks } = mark;
        self.indexes.grace_passed(indexes);
        self.sources.grace_passed(sources);
        self.members.grace_passed(members);
        self.clusters.grace_passed(clusters);
        self.arena.grace_passed(blocks);
    }

    /// Whether a grace period would free anything.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        let rows = [&self.indexes, &self.sources, &self.members];
        rows.iter().any(|pool| pool.limbo() > 0) || self.clusters.limbo() > 0 || self.arena.limbo() > 0
    }

    /// What can be taken now, without what waits for a grace period.
    #[must_use]
    pub fn free(&self) -> Free {
        Free {
            services: self.indexes.free(),
            // slots are counted in u32 everywhere
            slots: self.arena.free() as u32,
            members: self.members.free(),
            sources: self.sources.free(),
            clusters: self.clusters.free(),
        }
    }
}

/// The row of an index that is given up: the generation is all that stays.
fn freed(row: &ServiceRow) -> ServiceRow {
    ServiceRow { generation: row.generation, ..ServiceRow::default() }
}

#[cfg(test)]
pub(crate) mod tests;
