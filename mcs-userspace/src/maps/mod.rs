//! The maps behind an interface: the planner reads rows and emits [`Op`]s, an implementation carries them out.
//!
//! Two implementations: [`bpf`] on the kernel's maps and [`fake`] in memory, which can be told to fail. One contract
//! suite runs on both. Rows are read from the maps themselves: in the kernel's case they lie in memory that is mapped
//! into the agent, so reading is free and there is no second copy of the realized state to disagree with it.

pub mod bpf;
pub mod fake;
pub mod grace;
pub mod mapped;

use mcs_ebpf::{Frontend, MemberRow, Name, ServiceName, ServiceRow, Slot, SourceRow};

/// How many rows each map has.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sizes {
    /// `mcs_services`, `mcs_names` and `mcs_frontends`.
    pub services: u32,
    /// `mcs_slots`.
    pub slots: u32,
    /// `mcs_members`.
    pub members: u32,
    /// `mcs_sources`, and `mcs_counters` for each CPU.
    pub sources: u32,
    /// `mcs_clusters`.
    pub clusters: u32,
}

/// One store, in the order in which a plan wants them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Names a cluster, before a source does.
    Cluster {
        /// Row of `mcs_clusters`.
        index: u32,
        /// The cluster's id.
        name: Name,
    },
    /// Writes a source's row. `fresh` also zeroes its counters: the id was somebody else's.
    Source {
        /// Row of `mcs_sources`.
        id: u32,
        /// The row.
        row: SourceRow,
        /// Whether the id was just taken.
        fresh: bool,
    },
    /// Writes a whole member row: the id was just taken, nobody can hold it yet.
    Member {
        /// Row of `mcs_members`.
        id: u32,
        /// The row.
        row: MemberRow,
    },
    /// Changes a member's state with one byte's store; the counter goes on.
    MemberState {
        /// Row of `mcs_members`.
        id: u32,
        /// The new state.
        state: u8,
    },
    /// Fills a block that no word names.
    Block {
        /// First slot.
        base: u32,
        /// The slots.
        slots: Vec<Slot>,
    },
    /// Writes a whole service row: the index was just taken, or is given up (a zero frontend and word).
    Service {
        /// Row of `mcs_services`.
        index: u32,
        /// The row.
        row: ServiceRow,
    },
    /// Writes what people call the service.
    Name {
        /// Row of `mcs_names`.
        index: u32,
        /// The names.
        name: Box<ServiceName>,
    },
    /// Changes affinity timeout and the counts for people, which programs tolerate at any moment.
    ServiceDetails {
        /// Row of `mcs_services`.
        index: u32,
        /// [`ServiceRow::affinity_secs`].
        affinity_secs: u32,
        /// [`ServiceRow::ready`].
        ready: u32,
        /// [`ServiceRow::total`].
        total: u32,
    },
    /// The flip: one atomic store of the word.
    Flip {
        /// Row of `mcs_services`.
        index: u32,
        /// The new [`mcs_ebpf::ServiceWord`], packed.
        word: u64,
    },
    /// Makes a complete service reachable.
    InsertFrontend {
        /// What clients dial.
        frontend: Frontend,
        /// Row of `mcs_services`.
        index: u32,
    },
    /// Makes a service unreachable.
    RemoveFrontend {
        /// What clients dial.
        frontend: Frontend,
    },
}

/// A store that failed. Only `mcs_frontends` needs system calls, so only its ops can.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The kernel said no to a change of a frontend.
    #[error("{map}: {op} {frontend:?}")]
    Frontend {
        /// The map.
        map: &'static str,
        /// `insert` or `remove`.
        op: &'static str,
        /// What it was about.
        frontend: Frontend,
        /// The system call's error.
        #[source]
        source: std::io::Error,
    },
    /// The frontends could not be read.
    #[error("{map}: list")]
    List {
        /// The map.
        map: &'static str,
        /// The system call's error.
        #[source]
        source: std::io::Error,
    },
    /// The grace period could not be waited for.
    #[error("wait for a grace period")]
    Grace {
        /// The system call's error.
        #[source]
        source: std::io::Error,
    },
}

/// The maps. Rows beyond [`Sizes`] read as zero and are never written: a bug must not become a wild store.
pub trait Maps {
    /// How many rows there are.
    fn sizes(&self) -> Sizes;
    /// All of `mcs_frontends`, in no order.
    ///
    /// # Errors
    /// [`MapError::List`].
    fn frontends(&self) -> Result<Vec<(Frontend, u32)>, MapError>;
    /// A row of `mcs_services`.
    fn service(&self, index: u32) -> ServiceRow;
    /// A row of `mcs_slots`.
    fn slot(&self, index: u32) -> Slot;
    /// A row of `mcs_members`.
    fn member(&self, id: u32) -> MemberRow;
    /// A row of `mcs_sources`.
    fn source(&self, id: u32) -> SourceRow;
    /// A row of `mcs_names`.
    fn name(&self, index: u32) -> ServiceName;
    /// A row of `mcs_clusters`.
    fn cluster(&self, index: u32) -> Name;
    /// The sum over CPUs of a source's row in `mcs_counters`.
    fn counter(&self, source: u32) -> u64;
    /// Carries out one store.
    ///
    /// # Errors
    /// [`MapError::Frontend`]; nothing has changed then.
    fn apply(&mut self, op: &Op) -> Result<(), MapError>;
    /// Returns when every program run that could have seen a row before the call has ended (RCU).
    ///
    /// # Errors
    /// [`MapError::Grace`]; nothing may be reused then.
    fn grace(&mut self) -> Result<(), MapError>;
}
