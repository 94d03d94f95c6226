//! The kernel's maps: arrays through their mapped memory, hashes through system calls.

use std::io;
use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

use aya::maps::{HashMap, MapData, MapError as AyaMapError};
use mcs_ebpf::{Frontend, MemberRow, Name, ServiceName, ServiceRow, Slot, SourceRow, map};

use super::mapped::Mapped;
use super::{MapError, Maps, Op, Sizes};

/// What the planner needs of the pinned maps, open.
#[derive(Debug)]
pub struct BpfMaps {
    frontends: HashMap<MapData, Frontend, u32>,
    services: Mapped<ServiceRow>,
    slots: Mapped<Slot>,
    members: Mapped<MemberRow>,
    sources: Mapped<SourceRow>,
    counters: Mapped<u64>,
    names: Mapped<ServiceName>,
    clusters: Mapped<Name>,
}

/// Where a map's open file comes from: the loader, or a pin.
pub trait OpenMap {
    /// The map of that name.
    ///
    /// # Errors
    /// If there is none, or it cannot be opened or has another shape.
    fn open(&mut self, name: &'static str) -> anyhow::Result<MapData>;
}

impl BpfMaps {
    /// Maps the arrays and opens the hash.
    ///
    /// # Errors
    /// As [`OpenMap::open`], or when memory cannot be mapped.
    pub fn new(maps: &mut impl OpenMap, writable: bool) -> anyhow::Result<Self> {
        let frontends = aya::maps::Map::HashMap(maps.open(map::FRONTENDS)?).try_into()?;
        Ok(Self {
            frontends,
            services: mapped(maps, map::SERVICES, writable)?,
            slots: mapped(maps, map::SLOTS, writable)?,
            members: mapped(maps, map::MEMBERS, writable)?,
            sources: mapped(maps, map::SOURCES, writable)?,
            counters: mapped(maps, map::COUNTERS, writable)?,
            names: mapped(maps, map::NAMES, writable)?,
            clusters: mapped(maps, map::CLUSTERS, writable)?,
        })
    }

    /// Bytes of kernel memory that the arrays occupy, all of them mapped here.
    #[must_use]
    pub fn array_bytes(&self) -> u64 {
        fn bytes<T: aya::Pod>(map: &Mapped<T>) -> u64 {
            u64::from(map.rows()) * size_of::<T>() as u64
        }
        let Self { frontends: _, services, slots, members, sources, counters, names, clusters } = self;
        bytes(services)
            + bytes(slots)
            + bytes(members)
            + bytes(sources)
            + bytes(counters)
            + bytes(names)
            + bytes(clusters)
    }

    /// Whoever is sticky may look at the row right now, with the generation before: it must find the id free, or the new
    /// generation. So the generation comes first and the state last; programs read them the other way round.
    fn write_member(&mut self, id: u32, row: &MemberRow) -> bool {
        self.members.store_u32(id, offset_of!(MemberRow, generation), row.generation)
            && self.members.write(id, &MemberRow { state: MemberRow::FREE, ..*row })
            && self.members.store_u8(id, offset_of!(MemberRow, state), row.state)
    }

    fn zero_counters(&mut self, source: u32) {
        let stride = self.sources.rows();
        // Beyond the last source lie the counters of the next CPU.
        if source >= stride {
            return;
        }
        let mut row = source;
        while row < self.counters.rows() {
            self.counters.store_u64(row, 0, 0);
            row += stride;
        }
    }
}

/// Opens an array and maps all its rows.
///
/// # Errors
/// As [`OpenMap::open`], or what `mmap` says.
pub fn mapped<T: aya::Pod>(maps: &mut impl OpenMap, name: &'static str, writable: bool) -> anyhow::Result<Mapped<T>> {
    use anyhow::Context as _;
    let data = maps.open(name)?;
    let info = data.info().with_context(|| format!("map {name}: read its shape"))?;
    anyhow::ensure!(
        info.value_size() as usize == size_of::<T>(),
        "map {name}: a row has {} bytes where this version has {}",
        info.value_size(),
        size_of::<T>(),
    );
    Mapped::new(data.fd(), info.max_entries(), writable).with_context(|| format!("map {name}: map its memory"))
}

/// The system call's own error out of aya's.
fn io_error(error: AyaMapError) -> io::Error {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign, non-exhaustive list")]
    match error {
        AyaMapError::SyscallError(syscall) => syscall.io_error,
        AyaMapError::KeyNotFound => io::Error::from(io::ErrorKind::NotFound),
        other => io::Error::other(other),
    }
}

impl Maps for BpfMaps {
    fn sizes(&self) -> Sizes {
        Sizes {
            services: self.services.rows(),
            slots: self.slots.rows(),
            members: self.members.rows(),
            sources: self.sources.rows(),
            clusters: self.clusters.rows(),
        }
    }

    fn frontends(&self) -> Result<Vec<(Frontend, u32)>, MapError> {
        self.frontends
            .iter()
            .collect::<Result<_, _>>()
            .map_err(|e| MapError::List { map: map::FRONTENDS, source: io_error(e) })
    }

    fn service(&self, index: u32) -> ServiceRow {
        self.services.read(index).unwrap_or_default()
    }

    fn slot(&self, index: u32) -> Slot {
        self.slots.read(index).unwrap_or_default()
    }

    fn member(&self, id: u32) -> MemberRow {
        self.members.read(id).unwrap_or_default()
    }

    fn source(&self, id: u32) -> SourceRow {
        self.sources.read(id).unwrap_or_default()
    }

    fn name(&self, index: u32) -> ServiceName {
        self.names.read(index).unwrap_or_default()
    }

    fn cluster(&self, index: u32) -> Name {
        self.clusters.read(index).unwrap_or([0; 64])
    }

    fn counter(&self, source: u32) -> u64 {
        let stride = self.sources.rows();
        if source >= stride {
            return 0;
        }
        let cpus = self.counters.rows() / stride;
        (0..cpus).filter_map(|cpu| self.counters.read(cpu * stride + source)).fold(0, u64::wrapping_add)
    }

    fn apply(&mut self, op: &Op) -> Result<(), MapError> {
        let in_range = match op {
            Op::Cluster { index, name } => self.clusters.write(*index, name),
            Op::Source { id, row, fresh } => {
                if *fresh {
                    self.zero_counters(*id);
                }
                self.sources.write(*id, row)
            }
            Op::Member { id, row } => self.write_member(*id, row),
            Op::MemberState { id, state } => self.members.store_u8(*id, offset_of!(MemberRow, state), *state),
            Op::Block { base, slots } => slots.iter().zip(*base..).all(|(slot, index)| self.slots.write(index, slot)),
            Op::Service { index, row } => write_service(&mut self.services, *index, row),
            Op::Name { index, name } => self.names.write(*index, name),
            Op::ServiceDetails { index, affinity_secs, ready, total } => {
                self.services.store_u32(*index, offset_of!(ServiceRow, affinity_secs), *affinity_secs)
                    && self.services.store_u32(*index, offset_of!(ServiceRow, ready), *ready)
                    && self.services.store_u32(*index, offset_of!(ServiceRow, total), *total)
            }
            Op::Flip { index, word } => self.services.store_u64(*index, offset_of!(ServiceRow, word), *word),
            Op::InsertFrontend { frontend, index } => {
                self.frontends.insert(frontend, index, 0).map_err(|e| frontend_error("insert", *frontend, e))?;
                true
            }
            Op::RemoveFrontend { frontend } => {
                match self.frontends.remove(frontend).map_err(io_error) {
                    Ok(()) => {}
                    // gone already is what was asked for
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => {
                        return Err(MapError::Frontend {
                            map: map::FRONTENDS,
                            op: "remove",
                            frontend: *frontend,
                            source,
                        });
                    }
                }
                true
            }
        };
        if !in_range {
            // A bug of the planner, and not one that may become a wild store or a crash.
            tracing::error!(?op, "row out of range: not written");
        }
        Ok(())
    }

    fn grace(&mut self) -> Result<(), MapError> {
        super::grace::wait().map_err(|source| MapError::Grace { source })
    }
}

/// A hint may lead to a row at any time, so a row that names a frontend must be complete: its frontend goes first and comes
/// last, and the last of its three words, which is 0 in none, decides.
fn write_service(services: &mut Mapped<ServiceRow>, index: u32, row: &ServiceRow) -> bool {
    const FRONTEND: usize = offset_of!(ServiceRow, frontend);
    let [high, low, last] = row.frontend.words();
    let gone = services.store_u64(index, FRONTEND + 16, 0);
    fence(Ordering::SeqCst);
    gone && services.write(index, &ServiceRow { frontend: Frontend::default(), ..*row })
        && (row.frontend == Frontend::default()
            || services.store_u64(index, FRONTEND, high)
                && services.store_u64(index, FRONTEND + 8, low)
                && services.store_u64(index, FRONTEND + 16, last))
}

fn frontend_error(op: &'static str, frontend: Frontend, error: AyaMapError) -> MapError {
    MapError::Frontend { map: map::FRONTENDS, op, frontend, source: io_error(error) }
}
