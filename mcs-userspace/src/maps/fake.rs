//! Maps in memory, as strict as the kernel is not: a store that breaks what programs rely on panics.
//!
//! What it insists on: rows are only reused after a grace period, blocks that a word names are never written, ids get a
//! new generation, frontends lead to complete rows. It can be told to fail, and to show every state to an observer.

use std::collections::HashMap;

use mcs_ebpf::{Frontend, MemberRow, Name, ServiceName, ServiceRow, ServiceWord, Slot, SlotIds, SourceRow};

use super::{MapError, Maps, Op, Sizes};

/// Called after each op with the maps as they are then.
pub type Observer = Box<dyn FnMut(&FakeMaps, &Op)>;

/// Maps in memory.
#[derive(Default)]
pub struct FakeMaps {
    sizes: Sizes,
    /// `mcs_frontends`. Public like all rows, so that a test can damage them.
    pub frontends: HashMap<Frontend, u32>,
    /// `mcs_services`.
    pub services: Vec<ServiceRow>,
    /// `mcs_slots`.
    pub slots: Vec<Slot>,
    /// `mcs_members`.
    pub members: Vec<MemberRow>,
    /// `mcs_sources`.
    pub sources: Vec<SourceRow>,
    /// `mcs_counters`, summed over CPUs.
    pub counters: Vec<u64>,
    /// `mcs_names`.
    pub names: Vec<ServiceName>,
    /// `mcs_clusters`.
    pub clusters: Vec<Name>,
    /// How many grace periods there have been.
    pub graces: u64,
    /// How many ops have been carried out.
    pub ops: u64,
    /// So many more ops on frontends succeed, then one fails.
    pub fail_frontend_after: Option<u32>,
    /// Whether all ops on frontends fail.
    pub fail_frontends: bool,
    /// Whether the next grace period fails.
    pub fail_grace: bool,
    /// Sees every state.
    pub observer: Option<Observer>,
    retired: Retired,
}

/// For each row, the number of grace periods at the time when it was given up, plus one.
#[derive(Clone, Default)]
struct Retired {
    services: Vec<u32>,
    slots: Vec<u32>,
    members: Vec<u32>,
    sources: Vec<u32>,
    /// Slots that a word names.
    named: Vec<bool>,
}

impl FakeMaps {
    /// Empty maps.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        let Sizes { services, slots, members, sources, clusters } = sizes;
        let [services, slots, members, sources, clusters] =
            [services, slots, members, sources, clusters].map(|rows| rows as usize);
        Self {
            sizes,
            services: vec![ServiceRow::default(); services],
            slots: vec![Slot::default(); slots],
            members: vec![MemberRow::default(); members],
            sources: vec![SourceRow::default(); sources],
            counters: vec![0; sources],
            names: vec![ServiceName::default(); services],
            clusters: vec![[0; 64]; clusters],
            retired: Retired {
                services: vec![0; services],
                slots: vec![0; slots],
                members: vec![0; members],
                sources: vec![0; sources],
                named: vec![false; slots],
            },
            ..Self::default()
        }
    }

    fn now(&self) -> u32 {
        self.graces as u32 + 1
    }

    /// Moves the names of slots from the old word to the new one.
    fn rename(&mut self, old: u64, new: u64) {
        let (old, new) = (ServiceWord::unpack(old), ServiceWord::unpack(new));
        let now = self.now();
        // a word that a test damaged may reach outside
        for slot in old.base..old.base.saturating_add(old.count).min(self.sizes.slots) {
            self.retired.named[slot as usize] = false;
            self.retired.slots[slot as usize] = now;
        }
        for slot in new.base..new.base + new.count {
            assert!(!self.retired.named[slot as usize], "slot {slot} is in two blocks");
            self.retired.named[slot as usize] = true;
        }
    }

    /// The same maps once more, without the observer and the faults to come.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            sizes: self.sizes,
            frontends: self.frontends.clone(),
            services: self.services.clone(),
            slots: self.slots.clone(),
            members: self.members.clone(),
            sources: self.sources.clone(),
            counters: self.counters.clone(),
            names: self.names.clone(),
            clusters: self.clusters.clone(),
            graces: self.graces,
            ops: self.ops,
            fail_frontend_after: None,
            fail_frontends: false,
            fail_grace: false,
            observer: None,
            retired: self.retired.clone(),
        }
    }

    /// Makes the maps less strict after a test damaged rows: blocks count as named by the words that are there when
    /// these are replaced, and not before.
    pub fn forget(&mut self) {
        self.retired.named.fill(false);
    }

    fn may_fail(&mut self) -> bool {
        let now = match &mut self.fail_frontend_after {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if now {
            self.fail_frontend_after = None;
        }
        now || self.fail_frontends
    }

    fn store(&mut self, op: &Op) -> Result<(), MapError> {
        let now = self.now();
        let frontend_error = |op, frontend: &Frontend| MapError::Frontend {
            map: mcs_ebpf::map::FRONTENDS,
            op,
            frontend: *frontend,
            source: std::io::ErrorKind::OutOfMemory.into(),
        };
        match op {
            Op::Cluster { index, name } => {
                let users = || self.sources.iter().filter(|s| s.used == 1 && s.cluster == *index);
                assert!(users().next().is_none(), "cluster {index} is in use");
                self.clusters[*index as usize] = *name;
            }
            Op::Source { id, row, fresh } => {
                let at = *id as usize;
                if *fresh {
                    assert!(self.sources[at].used == 0, "source {id} is in use");
                    assert!(self.retired.sources[at] != now, "source {id} is reused without a grace period");
                    self.counters[at] = 0;
                }
                assert!(
                    row.used == 0 || row.cluster == SourceRow::REFUSALS || self.clusters[row.cluster as usize][0] != 0
                );
                if row.used == 0 {
                    self.retired.sources[at] = now;
                }
                self.sources[at] = *row;
            }
            Op::Member { id, row } => {
                let there = &mut self.members[*id as usize];
                assert!(there.state == MemberRow::FREE, "member {id} is in use");
                assert!(self.retired.members[*id as usize] != now, "member {id} is reused without a grace period");
                assert!(row.generation == there.generation + 1, "member {id} keeps its generation");
                *there = *row;
            }
            Op::MemberState { id, state } => {
                let there = &mut self.members[*id as usize];
                assert!(there.state != MemberRow::FREE, "member {id} is free");
                if *state == MemberRow::FREE {
                    self.retired.members[*id as usize] = now;
                }
                there.state = *state;
            }
            Op::Block { base, slots } => {
                for (slot, at) in slots.iter().zip(*base as usize..) {
                    assert!(!self.retired.named[at], "slot {at} is in use");
                    assert!(self.retired.slots[at] != now, "slot {at} is reused without a grace period");
                    assert!((SlotIds::unpack(slot.ids).member) < self.sizes.members);
                    self.slots[at] = *slot;
                }
            }
            Op::Service { index, row } => {
                let old = self.services[*index as usize];
                if row.frontend == Frontend::default() {
                    assert!(!self.frontends.values().any(|i| i == index), "service {index} is reachable");
                    assert!(row.generation == old.generation);
                    self.retired.services[*index as usize] = now;
                } else {
                    assert!(old.frontend == Frontend::default(), "service {index} is in use");
                    assert!(
                        self.retired.services[*index as usize] != now,
                        "service {index} is reused without a grace period"
                    );
                    assert!(row.generation > old.generation, "service {index} keeps its generation");
                }
                self.rename(old.word, row.word);
                self.services[*index as usize] = *row;
            }
            Op::Name { index, name } => self.names[*index as usize] = **name,
            Op::ServiceDetails { index, affinity_secs, ready, total } => {
                let row = &mut self.services[*index as usize];
                (row.affinity_secs, row.ready, row.total) = (*affinity_secs, *ready, *total);
            }
            Op::Flip { index, word } => {
                let old = self.services[*index as usize].word;
                self.rename(old, *word);
                self.services[*index as usize].word = *word;
            }
            Op::InsertFrontend { frontend, index } => {
                assert!(self.services[*index as usize].frontend == *frontend, "{frontend:?} leads to another's row");
                if self.may_fail() {
                    return Err(frontend_error("insert", frontend));
                }
                self.frontends.insert(*frontend, *index);
            }
            Op::RemoveFrontend { frontend } => {
                if self.may_fail() {
                    return Err(frontend_error("remove", frontend));
                }
                self.frontends.remove(frontend);
            }
        }
        Ok(())
    }
}

fn row<T: Copy>(rows: &[T], at: u32, none: T) -> T {
    rows.get(at as usize).copied().unwrap_or(none)
}

impl Maps for FakeMaps {
    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn frontends(&self) -> Result<Vec<(Frontend, u32)>, MapError> {
        Ok(self.frontends.iter().map(|(frontend, index)| (*frontend, *index)).collect())
    }

    fn service(&self, index: u32) -> ServiceRow {
        row(&self.services, index, ServiceRow::default())
    }

    fn slot(&self, index: u32) -> Slot {
        row(&self.slots, index, Slot::default())
    }

    fn member(&self, id: u32) -> MemberRow {
        row(&self.members, id, MemberRow::default())
    }

    fn source(&self, id: u32) -> SourceRow {
        row(&self.sources, id, SourceRow::default())
    }

    fn name(&self, index: u32) -> ServiceName {
        row(&self.names, index, ServiceName::default())
    }

    fn cluster(&self, index: u32) -> Name {
        row(&self.clusters, index, [0; 64])
    }

    fn counter(&self, source: u32) -> u64 {
        row(&self.counters, source, 0)
    }

    fn apply(&mut self, op: &Op) -> Result<(), MapError> {
        self.store(op)?;
        self.ops += 1;
        if let Some(mut observer) = self.observer.take() {
            observer(self, op);
            self.observer = Some(observer);
        }
        Ok(())
    }

    fn grace(&mut self) -> Result<(), MapError> {
        if std::mem::take(&mut self.fail_grace) {
            return Err(MapError::Grace { source: std::io::ErrorKind::Interrupted.into() });
        }
        self.graces += 1;
        Ok(())
    }
}
