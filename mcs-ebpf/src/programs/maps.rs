//! The map definitions and the constants. Sizes here are the defaults; the agent's flags may set others at load.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use mcs_ebpf::{
    AffinityEntry, AffinityKey, AgentRow, Config, Frontend, MemberRef, MemberRow, Name, REPORT_BYTES, RuleKey,
    ServiceName, ServiceRow, Slot, SourceRow, UdpFlow, UdpOrigin, sockets,
};

/// `BPF_F_MMAPABLE`: the agent writes these rows in its own memory.
const MMAPABLE: u32 = 1 << 10;

#[unsafe(no_mangle)]
pub(crate) static CONFIG: Config = Config {
    v4_count: 0,
    v6_count: 0,
    v4: [mcs_ebpf::Cidr4 { net_be: 0, mask_be: 0 }; mcs_ebpf::MAX_CIDRS],
    v6: [mcs_ebpf::Cidr6 { net_be: [0; 4], mask_be: [0; 4] }; mcs_ebpf::MAX_CIDRS],
    counter_stride: 0,
    socket_bits: 0,
};

#[map(name = "mcs_frontends")]
pub(crate) static FRONTENDS: HashMap<Frontend, u32> = HashMap::with_max_entries(1 << 16, 0);

/// Indexes of services that programs found before, by the frontends' hashes: each is compared with what it leads to, so it
/// may be anybody's or long gone. A program's own, never pinned.
#[map(name = "mcs_hints")]
pub(crate) static HINTS: Array<u32> = Array::with_max_entries(1 << mcs_ebpf::HINT_BITS, 0);

#[map(name = "mcs_services")]
pub(crate) static SERVICES: Array<ServiceRow> = Array::with_max_entries(1 << 16, MMAPABLE);

#[map(name = "mcs_slots")]
pub(crate) static SLOTS: Array<Slot> = Array::with_max_entries(1 << 21, MMAPABLE);

#[map(name = "mcs_members")]
pub(crate) static MEMBERS: Array<MemberRow> = Array::with_max_entries(1 << 20, MMAPABLE);

#[map(name = "mcs_sources")]
pub(crate) static SOURCES: Array<SourceRow> = Array::with_max_entries(1 << 17, MMAPABLE);

#[map(name = "mcs_counters")]
pub(crate) static COUNTERS: Array<u64> = Array::with_max_entries(1 << 17, MMAPABLE);

#[map(name = "mcs_sockets")]
pub(crate) static SOCKETS: Array<sockets::Set> = Array::with_max_entries(1 << 16, MMAPABLE);

/// The state of each CPU's random numbers. A program's own, never pinned.
#[map(name = "mcs_draws")]
pub(crate) static DRAWS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[map(name = "mcs_udp_flows")]
pub(crate) static UDP_FLOWS: LruHashMap<UdpFlow, MemberRef> = LruHashMap::with_max_entries(1 << 16, 0);

#[map(name = "mcs_udp_origins")]
pub(crate) static UDP_ORIGINS: LruHashMap<UdpOrigin, Frontend> = LruHashMap::with_max_entries(1 << 16, 0);

#[map(name = "mcs_affinity")]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, AffinityEntry> = LruHashMap::with_max_entries(1 << 16, 0);

// Only userspace reads the rest. They are here so that one loader makes, sizes and pins all of them alike.

#[map(name = "mcs_names")]
pub(crate) static NAMES: Array<ServiceName> = Array::with_max_entries(1 << 16, MMAPABLE);

#[map(name = "mcs_clusters")]
pub(crate) static CLUSTERS: Array<Name> = Array::with_max_entries(1 << 12, MMAPABLE);

#[map(name = "mcs_agent")]
pub(crate) static AGENT: Array<AgentRow> = Array::with_max_entries(1, MMAPABLE);

#[map(name = "mcs_report")]
pub(crate) static REPORT: Array<[u8; REPORT_BYTES]> = Array::with_max_entries(1, MMAPABLE);

#[map(name = "mcs_rules")]
pub(crate) static RULES: HashMap<RuleKey, u32> = HashMap::with_max_entries(64, 0);
