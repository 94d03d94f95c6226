//! A service as wanted beside the same service as it lies in the maps.

use std::sync::Arc;

use mcs_ebpf::{Addr, MemberRow, PortBe, ServiceRow, ServiceWord, Slot, SlotIds, pick};

use super::clusters::Clusters;
use super::{Held, HeldSource};
use crate::maps::Maps;
use crate::tables::Service;

/// One source cluster of a service, wanted, held or both.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: Arc<str>,
    /// Ready and all endpoints.
    pub(super) wanted: Option<(u32, u32)>,
    pub(super) held: Option<HeldSource>,
}

/// A member that the service has.
#[derive(Clone, Copy, Debug)]
struct Present {
    /// Its source's position among the lanes.
    lane: usize,
    addr: Addr,
    port: PortBe,
    id: u32,
    in_block: bool,
}

/// A backend that is wanted, and its member if it has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match {
    pub(super) lane: usize,
    pub(super) member: Option<u32>,
}

/// What is to be done about a service's members and sources.
#[derive(Debug)]
pub(super) struct Diff {
    /// Sorted by name.
    pub(super) lanes: Vec<Lane>,
    /// One for each backend of the service, in its order.
    pub(super) matches: Vec<Match>,
    /// Members to be activated before the flip.
    pub(super) wake: Vec<u32>,
    /// Members that drain after the flip.
    pub(super) drain: Vec<u32>,
    /// Members that are freed after the flip.
    pub(super) gone: Vec<u32>,
    /// How many backends get new flows, and how many of those have no member yet.
    pub(super) active: u32,
    pub(super) new_active: u32,
    /// How many backends have no member yet.
    pub(super) new: u32,
}

impl Diff {
    /// Compares. `held` and `row` are None and zero for a service that is not in the maps.
    pub(super) fn new(
        maps: &impl Maps,
        clusters: &Clusters,
        held: Option<&Held>,
        row: &ServiceRow,
        service: &Service,
    ) -> Self {
        let lanes = lanes(clusters, held, service);
        let present = held.map(|held| present(maps, &lanes, held, row)).unwrap_or_default();
        let mut diff = Self {
            lanes,
            matches: Vec::with_capacity(service.backends.len()),
            wake: Vec::new(),
            drain: Vec::new(),
            gone: Vec::new(),
            active: 0,
            new_active: 0,
            new: 0,
        };
        // a merge: both sides are sorted by (lane, address, port)
        let (mut lane, mut at) = (0, 0);
        for backend in &service.backends {
            while diff.lanes.get(lane).is_some_and(|l| l.name != backend.cluster) {
                lane += 1;
            }
            let key = (lane, backend.addr, backend.port);
            while let Some(p) = present.get(at)
                && (p.lane, p.addr, p.port) < key
            {
                diff.gone.push(p.id);
                at += 1;
            }
            let gets_flows = backend.weight > 0;
            let member = match present.get(at) {
                Some(p) if (p.lane, p.addr, p.port) == key => {
                    at += 1;
                    match (p.in_block, gets_flows) {
                        (true, false) => diff.drain.push(p.id),
                        (false, true) => diff.wake.push(p.id),
                        (true, true) | (false, false) => {}
                    }
                    Some(p.id)
                }
                _ => None,
            };
            diff.matches.push(Match { lane, member });
            diff.active += u32::from(gets_flows);
            diff.new += u32::from(member.is_none());
            diff.new_active += u32::from(gets_flows && member.is_none());
        }
        diff.gone.extend(present[at..].iter().map(|p| p.id));
        diff
    }

    /// The block for the service, given the member of each backend and the source of each lane; and whether the choice
    /// among its slots is weighted.
    pub(super) fn block(&self, service: &Service, members: &[u32], sources: &[u32]) -> (Vec<Slot>, bool) {
        let active = || service.backends.iter().zip(&self.matches).zip(members).filter(|((b, _), _)| b.weight > 0);
        let mut weights = active().map(|((b, _), _)| b.weight);
        let first = weights.next();
        let weighted = weights.any(|w| Some(w) != first);
        let table = if weighted {
            pick::alias_table(&active().map(|((b, _), _)| b.weight).collect::<Vec<_>>())
        } else {
            Vec::new()
        };
        let mut slots = Vec::with_capacity(self.active as usize);
        for (i, ((backend, found), member)) in active().enumerate() {
            // a block's positions fit 20 bits: checked before
            let (threshold, alias) = table.get(i).copied().unwrap_or((u32::MAX, i as u32));
            let source = sources.get(found.lane).copied().unwrap_or_default();
            slots.push(Slot {
                addr: backend.addr,
                port_be: backend.port,
                zero: 0,
                threshold,
                ids: SlotIds { alias, source, member: *member }.pack(),
            });
        }
        (slots, weighted)
    }
}

/// Whether the block that `word` names has these slots and this way of choice.
pub(super) fn is_block(maps: &impl Maps, word: ServiceWord, slots: &[Slot], weighted: bool) -> bool {
    if word.count as usize != slots.len() || (word.flags & ServiceWord::WEIGHTED != 0) != weighted {
        return false;
    }
    slots.iter().zip(word.base..).all(|(slot, at)| {
        let there = maps.slot(at);
        if weighted {
            return there == *slot;
        }
        // without the flag nobody reads threshold and alias, and a block that was shrunk in place has stale ones
        let ids = (SlotIds::unpack(there.ids), SlotIds::unpack(slot.ids));
        (there.addr, there.port_be, ids.0.source, ids.0.member) == (slot.addr, slot.port_be, ids.1.source, ids.1.member)
    })
}

fn lanes(clusters: &Clusters, held: Option<&Held>, service: &Service) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = service
        .sources
        .iter()
        .map(|s| Lane { name: Arc::clone(&s.cluster), wanted: Some((s.ready, s.total)), held: None })
        .collect();
    for source in held.iter().flat_map(|held| &held.sources) {
        let name = clusters.name(source.cluster);
        match lanes.iter_mut().find(|lane| lane.name == name) {
            Some(lane) => lane.held = Some(*source),
            None => lanes.push(Lane { name, wanted: None, held: Some(*source) }),
        }
    }
    // every cluster of a backend is among the sources, or it becomes one that has no endpoints to show
    for group in service.backends.chunk_by(|a, b| a.cluster == b.cluster) {
        let name = &group[0].cluster;
        match lanes.iter_mut().find(|lane| lane.name == *name) {
            Some(lane) => drop(lane.wanted.get_or_insert((0, 0))),
            None => lanes.push(Lane { name: Arc::clone(name), wanted: Some((0, 0)), held: None }),
        }
    }
    lanes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    lanes
}

/// The members that the service has, sorted.
fn present(maps: &impl Maps, lanes: &[Lane], held: &Held, row: &ServiceRow) -> Vec<Present> {
    let word = ServiceWord::unpack(row.word);
    let lane_of = |source: u32| {
        let of_source = |lane: &Lane| lane.held.is_some_and(|held| held.id == source);
        lanes.iter().position(of_source).unwrap_or(lanes.len())
    };
    let mut present = Vec::with_capacity(word.count as usize + held.draining.len());
    let mut last = (u32::MAX, lanes.len());
    for i in 0..word.count {
        let slot = maps.slot(word.base + i);
        let ids = SlotIds::unpack(slot.ids);
        if last.0 != ids.source {
            last = (ids.source, lane_of(ids.source));
        }
        present.push(Present { lane: last.1, addr: slot.addr, port: slot.port_be, id: ids.member, in_block: true });
    }
    for id in held.draining.iter().copied() {
        let MemberRow { addr, port_be, source, .. } = maps.member(id);
        present.push(Present { lane: lane_of(source), addr, port: port_be, id, in_block: false });
    }
    present.sort_unstable_by_key(|p| (p.lane, p.addr, p.port, !p.in_block));
    present
}
