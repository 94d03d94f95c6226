//! A planner from maps that somebody else wrote: the agent that ran before, killed after any store.
//!
//! A service is taken over whole when everything that programs read through its frontend fits together. What a cut plan
//! leaves behind is: rows that nothing leads to, which are given up, and members of a service that are not in its
//! block, which drain until the next plan for that service decides. A frontend whose rows contradict each other was
//! damaged by a bug or by another program; it is cut out, and comes back when its objects are read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mcs_ebpf::{Frontend, MAX_BLOCK, MemberRow, ServiceRow, ServiceWord, SlotIds, SourceRow, UDP};

use super::clusters::Clusters;
use super::{Held, HeldSource, Planner, freed};
use crate::arena::{Arena, Block};
use crate::ids::IdPool;
use crate::maps::{MapError, Maps, Op, Sizes};
use crate::tables::name_text;

/// A service whose rows are being looked at.
struct Found {
    frontend: Frontend,
    row: ServiceRow,
    word: ServiceWord,
    held: Held,
    /// Names beside `held.sources`.
    names: Vec<Arc<str>>,
    has_refusals: bool,
    /// Whether all fits together, as far as it has been looked at.
    sound: bool,
}

impl Planner {
    /// Takes over what the maps hold. The second value is what has to be mended: stores that no program run notices.
    ///
    /// Before the first plan the stores must be carried out and then a grace period waited for: all rows that are not
    /// in use count as free from the start, even if they were given up a moment ago.
    ///
    /// # Errors
    /// [`MapError::List`].
    pub fn adopt(maps: &impl Maps) -> Result<(Self, Vec<Op>), MapError> {
        let sizes = maps.sizes();
        let mut repairs = Vec::new();
        let mut found = find(maps, &mut repairs)?;
        let by_index: HashMap<u32, usize> = found.iter().enumerate().map(|(i, f)| (f.held.index, i)).collect();
        read_sources(maps, sizes, &by_index, &mut found);
        one_row_per_name(maps, &mut found, &mut repairs);
        let mut in_block = vec![false; sizes.members as usize];
        read_blocks(maps, sizes, &mut in_block, &mut found);
        for lost in found.iter().filter(|f| !f.sound) {
            repairs.push(Op::RemoveFrontend { frontend: lost.frontend });
        }
        let owner = |index: u32| by_index.get(&index).copied().filter(|i| found[*i].sound);

        for index in 0..sizes.services {
            let row = maps.service(index);
            if owner(index).is_none() && row != freed(&row) {
                repairs.push(Op::Service { index, row: freed(&row) });
            }
        }
        let indexes = IdPool::restore(
            sizes.services,
            |index| owner(index).is_some(),
            |index| maps.service(index).generation != 0,
        );

        let mut used = vec![false; sizes.sources as usize];
        for f in found.iter().filter(|f| f.sound) {
            used[f.row.refusals as usize] = true;
            f.held.sources.iter().for_each(|source| used[source.id as usize] = true);
        }
        for id in 0..sizes.sources {
            if !used[id as usize] && maps.source(id).used != 0 {
                repairs.push(Op::Source { id, row: SourceRow::default(), fresh: false });
            }
        }
        let sources = IdPool::restore(sizes.sources, |id| used[id as usize], |_| false);

        let draining = adopt_members(maps, sizes, &mut in_block, &found, owner, &mut repairs);
        // by now `in_block` says which members are in use at all
        let members = IdPool::restore(sizes.members, |id| in_block[id as usize], |id| maps.member(id).generation != 0);

        let sound = || found.iter().filter(|f| f.sound);
        let uses = sound().flat_map(|f| f.held.sources.iter().map(|s| s.cluster).zip(f.names.iter().cloned()));
        let clusters = Clusters::restore(sizes.clusters, uses, |row| maps.cluster(row)[0] != 0);
        // blocks that overlap were found to be damage before, so none is refused here
        let (arena, _) = Arena::restore(sizes.slots, sound().filter_map(block_of).collect());
        let udp = sound().filter(|f| f.frontend.protocol == UDP).count();

        let mut services: HashMap<Frontend, Held> = HashMap::with_capacity(found.len());
        let mut places: Vec<Option<Frontend>> = Vec::with_capacity(found.len());
        for f in found {
            places.push(f.sound.then_some(f.frontend));
            if f.sound {
                services.insert(f.frontend, f.held);
            }
        }
        for (place, id) in draining {
            if let Some(held) = places[place].and_then(|frontend| services.get_mut(&frontend)) {
                held.draining.push(id);
            }
        }
        Ok((Self { services, udp, indexes, sources, members, clusters, arena }, repairs))
    }
}

/// The frontends whose rows are theirs, sorted by block. Others are of no use to any program and are removed.
fn find(maps: &impl Maps, repairs: &mut Vec<Op>) -> Result<Vec<Found>, MapError> {
    let sizes = maps.sizes();
    let mut found = Vec::new();
    let mut frontends = maps.frontends()?;
    frontends.sort_unstable();
    for (frontend, index) in frontends {
        let row = maps.service(index);
        if index >= sizes.services || row.frontend != frontend {
            repairs.push(Op::RemoveFrontend { frontend });
            continue;
        }
        let word = ServiceWord::unpack(row.word);
        let in_range =
            u64::from(word.base) + u64::from(word.count) <= u64::from(sizes.slots) && word.count <= MAX_BLOCK;
        let sound = in_range && (word.count == 0 || Block::of_word(word.base, word.count).is_some());
        let held = Held { index, sources: Vec::new(), draining: Vec::new() };
        found.push(Found { frontend, row, word, held, names: Vec::new(), has_refusals: false, sound });
    }
    found.sort_by_key(|f| f.word.base);
    let mut end = 0;
    for f in found.iter_mut().filter(|f| f.sound) {
        let Some(block) = block_of(f) else { continue };
        let after = u64::from(block.base) + u64::from(block.slots());
        f.sound = u64::from(block.base) >= end && after <= u64::from(sizes.slots);
        if f.sound {
            end = after;
        }
    }
    Ok(found)
}

fn block_of(found: &Found) -> Option<Block> {
    Block::of_word(found.word.base, found.word.count)
}

/// Finds the sources of each service.
fn read_sources(maps: &impl Maps, sizes: Sizes, by_index: &HashMap<u32, usize>, found: &mut [Found]) {
    let mut names: HashMap<u32, Arc<str>> = HashMap::new();
    for id in 0..sizes.sources {
        let row = maps.source(id);
        let Some(f) = by_index.get(&row.service).map(|i| &mut found[*i]) else { continue };
        if row.used == 0 || row.generation != f.row.generation {
            continue;
        }
        if row.cluster == SourceRow::REFUSALS {
            f.has_refusals |= id == f.row.refusals;
        } else if row.cluster < sizes.clusters {
            let name = names.entry(row.cluster).or_insert_with(|| name_text(&maps.cluster(row.cluster)));
            if name.is_empty() || f.names.contains(name) {
                continue;
            }
            let at = f.names.partition_point(|n| n < name);
            f.names.insert(at, Arc::clone(name));
            f.held.sources.insert(at, HeldSource { cluster: row.cluster, id });
        }
    }
    for f in found {
        f.sound &= f.has_refusals;
    }
}

/// Leaves each cluster one row in `mcs_clusters`: of those that hold its name, the one that most sources use. A damaged
/// source may lead to a row that held the name before and was given up; it would keep that row from ever being free.
fn one_row_per_name(maps: &impl Maps, found: &mut [Found], repairs: &mut Vec<Op>) {
    let mut uses: HashMap<Arc<str>, BTreeMap<u32, u32>> = HashMap::new();
    for f in found.iter().filter(|f| f.sound) {
        for (name, source) in f.names.iter().zip(&f.held.sources) {
            *uses.entry(Arc::clone(name)).or_default().entry(source.cluster).or_default() += 1;
        }
    }
    let kept: HashMap<Arc<str>, u32> = uses
        .into_iter()
        .filter_map(|(name, rows)| Some((name, rows.into_iter().max_by_key(|(_, count)| *count)?.0)))
        .collect();
    for f in found.iter_mut().filter(|f| f.sound) {
        for (name, source) in f.names.iter().zip(&mut f.held.sources) {
            if let Some(&cluster) = kept.get(name)
                && source.cluster != cluster
            {
                source.cluster = cluster;
                let row = SourceRow { cluster, ..maps.source(source.id) };
                repairs.push(Op::Source { id: source.id, row, fresh: false });
            }
        }
    }
}

/// Finds the members in each service's block, and whether they are what the slots say.
fn read_blocks(maps: &impl Maps, sizes: Sizes, in_block: &mut [bool], found: &mut [Found]) {
    for f in found.iter_mut().filter(|f| f.sound) {
        let fits = |ids: SlotIds, i: u32| {
            let slot = maps.slot(f.word.base + i);
            let member = maps.member(ids.member);
            ids.member < sizes.members
                && !in_block[ids.member as usize]
                && member.state == MemberRow::ACTIVE
                && (member.service, member.source) == (f.held.index, ids.source)
                && (member.addr, member.port_be) == (slot.addr, slot.port_be)
                && f.held.sources.iter().any(|source| source.id == ids.source)
                && (f.word.flags & ServiceWord::WEIGHTED == 0 || ids.alias < f.word.count)
        };
        let ids_at = |i: u32| SlotIds::unpack(maps.slot(f.word.base + i).ids);
        f.sound = (0..f.word.count).all(|i| fits(ids_at(i), i));
        if f.sound {
            let mut twice = false;
            for i in 0..f.word.count {
                let seen = &mut in_block[ids_at(i).member as usize];
                twice |= std::mem::replace(seen, true);
            }
            f.sound = !twice;
        }
    }
}

/// Decides about members that are in no block. Returns those that drain, with the position of their service, and notes
/// them in `in_use`.
fn adopt_members(
    maps: &impl Maps,
    sizes: Sizes,
    in_use: &mut [bool],
    found: &[Found],
    owner: impl Fn(u32) -> Option<usize>,
    repairs: &mut Vec<Op>,
) -> Vec<(usize, u32)> {
    let mut draining = Vec::new();
    for id in 0..sizes.members {
        let row = maps.member(id);
        let service = owner(row.service);
        // the flag of a member that is twice in the block of a damaged service
        let active = in_use[id as usize] && service.is_some();
        in_use[id as usize] = active;
        if row.state == MemberRow::FREE || active {
            continue;
        }
        match service {
            Some(place) if found[place].held.sources.iter().any(|source| source.id == row.source) => {
                in_use[id as usize] = true;
                draining.push((place, id));
                if row.state != MemberRow::DRAINING {
                    repairs.push(Op::MemberState { id, state: MemberRow::DRAINING });
                }
            }
            _ => repairs.push(Op::MemberState { id, state: MemberRow::FREE }),
        }
    }
    draining
}
