//! The plan for one service: new, or changed.

use mcs_ebpf::sockets::GENERATION_MASK;
use mcs_ebpf::{MemberRow, ServiceName, ServiceRow, ServiceWord, Slot, SourceRow, UDP};

use super::diff::{self, Diff};
use super::room::{Full, Needs};
use super::{Held, HeldSource, NoRoom, Planner};
use crate::arena::{Block, order_for};
use crate::maps::{Maps, Op};
use crate::tables::{Service, name_bytes};

/// Where the service of a plan lies.
struct Place {
    index: u32,
    generation: u32,
    refusals: u32,
    /// The row as it is; all zero but for the generation when the service is new.
    row: ServiceRow,
    is_new: bool,
}

impl Planner {
    /// The stores after which the maps hold this service. Empty when they do already.
    ///
    /// Backends must be sorted by (cluster, address, port) without duplicates, sources by cluster, as
    /// [`crate::desired::desired`] makes them.
    ///
    /// # Errors
    /// [`NoRoom`]; the planner and the maps are as before.
    pub fn plan_service(&mut self, maps: &impl Maps, service: &Service) -> Result<Vec<Op>, NoRoom> {
        debug_assert!(
            service.backends.is_sorted_by(|a, b| (&a.cluster, a.addr, a.port) < (&b.cluster, b.addr, b.port)),
            "backends of {:?} are not sorted",
            service.frontend
        );
        let held = self.services.get(&service.frontend);
        let row = held.map(|held| maps.service(held.index)).unwrap_or_default();
        let is_new = held.is_none();
        let diff = Diff::new(maps, &self.clusters, held, &row, service);
        let old_word = ServiceWord::unpack(row.word);

        // with a new backend the block is another one for sure; without, it may be what is there already
        let same_block = diff.new_active == 0 && {
            let members: Vec<u32> = diff.matches.iter().map(|m| m.member.unwrap_or_default()).collect();
            let sources: Vec<u32> = diff.lanes.iter().map(|l| l.held.map(|h| h.id).unwrap_or_default()).collect();
            let (slots, weighted) = diff.block(service, &members, &sources);
            diff::is_block(maps, old_word, &slots, weighted)
        };
        let unheld = || diff.lanes.iter().filter(|lane| lane.wanted.is_some() && lane.held.is_none());
        // numbers of rows of this service, each at most a map's
        self.check(Needs {
            services: u32::from(is_new),
            sources: unheld().count() as u32 + u32::from(is_new),
            members: diff.new,
            clusters: unheld().filter(|lane| !self.clusters.knows(&lane.name)).count() as u32,
            block: if same_block { 0 } else { diff.active },
        })?;

        let mut ops = Vec::new();
        let place = match is_new {
            false => self.place(service, &row)?,
            true => self.new_place(maps, &mut ops)?,
        };
        let sources = self.plan_sources(maps, &diff, &place, &mut ops)?;
        let lane_ids: Vec<u32> = sources.iter().map(|s| s.map(|s| s.id).unwrap_or_default()).collect();
        let members = self.plan_members(maps, service, &diff, &place, &lane_ids, &mut ops)?;
        ops.extend(diff.wake.iter().map(|id| Op::MemberState { id: *id, state: MemberRow::ACTIVE }));

        let affinity = if service.affinity_secs.is_some() { ServiceWord::AFFINITY } else { 0 };
        let mut word = ServiceWord { flags: old_word.flags & ServiceWord::WEIGHTED | affinity, ..old_word };
        if !same_block {
            let (slots, weighted) = diff.block(service, &members, &lane_ids);
            word.base = self.plan_block(slots, &mut ops)?;
            word.count = diff.active;
            word.flags = affinity | if weighted { ServiceWord::WEIGHTED } else { 0 };
            if let Some(block) = Block::of_word(old_word.base, old_word.count) {
                self.arena.retire(block);
            }
        }
        plan_name(maps, place.index, service, &mut ops);
        plan_row(service, &place, word, &mut ops);
        self.plan_rest(&diff, &mut ops);

        let draining = service.backends.iter().zip(&members).filter(|(b, _)| b.weight == 0).map(|(_, id)| *id);
        let held =
            Held { index: place.index, sources: sources.into_iter().flatten().collect(), draining: draining.collect() };
        self.services.insert(service.frontend, held);
        self.udp += usize::from(place.is_new && service.frontend.protocol == UDP);
        Ok(ops)
    }

    fn place(&self, service: &Service, row: &ServiceRow) -> Result<Place, NoRoom> {
        let held = self.services.get(&service.frontend).ok_or_else(|| ran_out(Full::Services))?;
        let ServiceRow { generation, refusals, .. } = *row;
        Ok(Place { index: held.index, generation, refusals, row: *row, is_new: false })
    }

    /// Takes an index and the source that counts refusals.
    fn new_place(&mut self, maps: &impl Maps, ops: &mut Vec<Op>) -> Result<Place, NoRoom> {
        let index = self.indexes.take().ok_or_else(|| ran_out(Full::Services))?;
        let refusals = self.sources.take().ok_or_else(|| ran_out(Full::Sources))?;
        let generation = next_generation(maps.service(index).generation);
        let row = SourceRow { service: index, cluster: SourceRow::REFUSALS, ready: 0, total: 0, generation, used: 1 };
        ops.push(Op::Source { id: refusals, row, fresh: true });
        Ok(Place { index, generation, refusals, row: ServiceRow { generation, ..ServiceRow::default() }, is_new: true })
    }

    /// Rows of `mcs_clusters` and `mcs_sources`. Returns the source of each lane that is wanted.
    fn plan_sources(
        &mut self,
        maps: &impl Maps,
        diff: &Diff,
        place: &Place,
        ops: &mut Vec<Op>,
    ) -> Result<Vec<Option<HeldSource>>, NoRoom> {
        let mut sources = Vec::with_capacity(diff.lanes.len());
        for lane in &diff.lanes {
            let Some((ready, total)) = lane.wanted else {
                sources.push(None);
                continue;
            };
            let source = match lane.held {
                Some(held) => held,
                None => {
                    let (cluster, fresh) = self.clusters.hold(&lane.name).ok_or_else(|| ran_out(Full::Clusters))?;
                    if fresh {
                        ops.push(Op::Cluster { index: cluster, name: name_bytes(&lane.name) });
                    }
                    HeldSource { cluster, id: self.sources.take().ok_or_else(|| ran_out(Full::Sources))? }
                }
            };
            let Place { index, generation, .. } = *place;
            let row = SourceRow { service: index, cluster: source.cluster, ready, total, generation, used: 1 };
            let fresh = lane.held.is_none();
            if fresh || maps.source(source.id) != row {
                ops.push(Op::Source { id: source.id, row, fresh });
            }
            sources.push(Some(source));
        }
        Ok(sources)
    }

    /// Rows of `mcs_members` for backends that are new. Returns the member of each backend.
    fn plan_members(
        &mut self,
        maps: &impl Maps,
        service: &Service,
        diff: &Diff,
        place: &Place,
        sources: &[u32],
        ops: &mut Vec<Op>,
    ) -> Result<Vec<u32>, NoRoom> {
        let mut members = Vec::with_capacity(diff.matches.len());
        for (backend, found) in service.backends.iter().zip(&diff.matches) {
            let id = match found.member {
                Some(id) => id,
                None => {
                    let id = self.members.take().ok_or_else(|| ran_out(Full::Members))?;
                    let row = MemberRow {
                        addr: backend.addr,
                        port_be: backend.port,
                        state: if backend.weight > 0 { MemberRow::ACTIVE } else { MemberRow::DRAINING },
                        zero: 0,
                        service: place.index,
                        // 0 names nobody
                        generation: maps.member(id).generation.wrapping_add(1).max(1),
                        source: sources.get(found.lane).copied().unwrap_or_default(),
                        connections: 0,
                    };
                    ops.push(Op::Member { id, row });
                    id
                }
            };
            members.push(id);
        }
        Ok(members)
    }

    /// Fills a new block and returns its first slot; 0 for a service without active backends, which has no block.
    fn plan_block(&mut self, slots: Vec<Slot>, ops: &mut Vec<Op>) -> Result<u32, NoRoom> {
        // at most MAX_BLOCK: checked
        let Some(order) = order_for(slots.len() as u32) else { return Ok(0) };
        let block = self.arena.take(order).ok_or_else(|| ran_out(Full::Slots))?;
        ops.push(Op::Block { base: block.base, slots });
        Ok(block.base)
    }

    /// What the flip made superfluous.
    fn plan_rest(&mut self, diff: &Diff, ops: &mut Vec<Op>) {
        ops.extend(diff.drain.iter().map(|id| Op::MemberState { id: *id, state: MemberRow::DRAINING }));
        for id in diff.gone.iter().copied() {
            ops.push(Op::MemberState { id, state: MemberRow::FREE });
            self.members.retire(id);
        }
        for lane in diff.lanes.iter().filter(|lane| lane.wanted.is_none()) {
            let Some(HeldSource { cluster, id }) = lane.held else { continue };
            ops.push(Op::Source { id, row: SourceRow::default(), fresh: false });
            self.sources.retire(id);
            self.clusters.release(cluster);
        }
    }
}

/// What people call the service.
fn plan_name(maps: &impl Maps, index: u32, service: &Service, ops: &mut Vec<Op>) {
    let name = ServiceName {
        namespace: name_bytes(&service.import.namespace),
        name: name_bytes(&service.import.name),
        port: name_bytes(&service.port_name),
    };
    if maps.name(index) != name {
        ops.push(Op::Name { index, name: Box::new(name) });
    }
}

/// The service's own row: complete, then reachable; or details and the flip.
fn plan_row(service: &Service, place: &Place, word: ServiceWord, ops: &mut Vec<Op>) {
    let Place { index, generation, refusals, row, is_new } = place;
    let (index, word) = (*index, word.pack());
    let new = ServiceRow {
        word,
        frontend: service.frontend,
        generation: *generation,
        affinity_secs: service.affinity_secs.unwrap_or_default(),
        refusals: *refusals,
        ready: service.sources.iter().map(|s| s.ready).sum(),
        total: service.sources.iter().map(|s| s.total).sum(),
        zero: [0; 3],
    };
    if *is_new {
        ops.push(Op::Service { index, row: new });
        ops.push(Op::InsertFrontend { frontend: service.frontend, index });
        return;
    }
    let ServiceRow { affinity_secs, ready, total, .. } = new;
    let details = (affinity_secs, ready, total) != (row.affinity_secs, row.ready, row.total);
    let details = details.then_some(Op::ServiceDetails { index, affinity_secs, ready, total });
    let flip = (word != row.word).then_some(Op::Flip { index, word });
    // a timeout is there before the flag says so, and as long
    let affinity_ends = service.affinity_secs.is_none() && row.affinity_secs != 0;
    if affinity_ends {
        ops.extend(flip.into_iter().chain(details));
    } else {
        ops.extend(details.into_iter().chain(flip));
    }
}

/// The generation after this one. Socket entries hold its low bits, which must not be 0.
fn next_generation(generation: u32) -> u32 {
    let next = generation.wrapping_add(1);
    if next & GENERATION_MASK == 0 { next.wrapping_add(1) } else { next }
}

/// What cannot be: room was made sure of first. An error all the same, as a planner must not bring the agent down.
fn ran_out(full: Full) -> NoRoom {
    NoRoom { full, needed: 1, free: 0, waiting: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_have_low_bits() {
        assert_eq!(next_generation(0), 1);
        assert_eq!(next_generation(1023), 1025);
        assert_eq!(next_generation(u32::MAX), 1);
    }
}
