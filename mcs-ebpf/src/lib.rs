//! The contract between the kernel programs and the agent: every map, its key, its value, and what may be believed of it.
//!
//! ```text
//!  connect(VIP:port)
//!      │ inside a ClusterSet CIDR? (.rodata)                       no ─► untouched, no map was read
//!      ▼
//!  mcs_hints      ARRAY  [hash of Frontend] = service index, perhaps: what it leads to is compared
//!  mcs_frontends  HASH   Frontend ─► service index                 none ─► untouched
//!      ▼
//!  mcs_services   ARRAY  [index] = ServiceRow { word, frontend, … } word = base + count + flags, one atomic store
//!      ▼
//!  mcs_slots      ARRAY  [base + i] = Slot { address, port, alias, … } the block of a service: whom a new flow may get
//!      ▼
//!  mcs_members    ARRAY  [member] = MemberRow { state, generation, … } the identity of a (service, backend) for its life
//!  mcs_sources    ARRAY  [source] = SourceRow  a (service, source cluster), the unit that counts connections
//!  mcs_counters   ARRAY  [cpu × stride + source] = connections, or refusals for the service's own source
//!
//!  mcs_sockets    ARRAY  [cookie mod N] = four entries: which frontend a connected socket was translated from
//!  mcs_udp_flows  LRU    { cookie, service } ─► member: an unconnected socket stays on its backend
//!  mcs_udp_origins LRU   { cookie, backend } ─► frontend: its replies seem to come from the frontend
//!  mcs_affinity   LRU    { network namespace, service } ─► member, last use
//!
//!  mcs_names, mcs_clusters, mcs_agent, mcs_report, mcs_rules: only userspace reads these
//! ```
//!
//! What a reader may rely on, always, between any two stores of the agent:
//! * a frontend in `mcs_frontends` leads to a row that is complete; the row's own `frontend` tells whether it is still
//!   the one that was looked up, because hash elements and indexes are recycled;
//! * a row that names a frontend is complete, whether that is in `mcs_frontends` already or no longer: hints lead there;
//! * the block that a `word` names is complete, and stays until a grace period after the word was replaced;
//! * an id together with its generation names one thing for ever: a row with another generation is another thing.
//!
//! Layout rules: no padding, no `bool`, `enum` or `Option` in a map type; network order shows in the name (`_be`).

#![cfg_attr(target_arch = "bpf", no_std)]

pub mod addr;
pub mod pick;
pub mod sockets;

use core::mem::size_of;

pub use addr::{Addr, PortBe};

/// The version of everything in this file. Pins of another version lie in another directory and are never opened.
pub const ABI_VERSION: u32 = 1;

/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;

/// Names of the maps, as pinned and as the kernel shows them (at most 15 bytes).
pub mod map {
    #![allow(missing_docs, reason = "the contract's diagram says what each map is")]
    pub const FRONTENDS: &str = "mcs_frontends";
    pub const SERVICES: &str = "mcs_services";
    pub const SLOTS: &str = "mcs_slots";
    pub const MEMBERS: &str = "mcs_members";
    pub const SOURCES: &str = "mcs_sources";
    pub const COUNTERS: &str = "mcs_counters";
    pub const SOCKETS: &str = "mcs_sockets";
    pub const UDP_FLOWS: &str = "mcs_udp_flows";
    pub const UDP_ORIGINS: &str = "mcs_udp_origins";
    pub const AFFINITY: &str = "mcs_affinity";
    pub const NAMES: &str = "mcs_names";
    pub const CLUSTERS: &str = "mcs_clusters";
    pub const AGENT: &str = "mcs_agent";
    pub const REPORT: &str = "mcs_report";
    pub const RULES: &str = "mcs_rules";
}

/// How many ClusterSet CIDRs of each family a program can check. One more is an error of the agent's flags.
pub const MAX_CIDRS: usize = 4;

/// A service index must fit a socket entry's 20 bits.
pub const MAX_SERVICES: u32 = 1 << 20;
/// A source id must fit a slot's 20 bits.
pub const MAX_SOURCES: u32 = 1 << 20;
/// A member id must fit a slot's 24 bits.
pub const MAX_MEMBERS: u32 = 1 << 24;
/// A block's length must fit an alias' 20 bits.
pub const MAX_BLOCK: u32 = (1 << 20) - 1;

/// The constants of a loaded program, `.rodata`'s `CONFIG`: the verifier knows them and drops what they make unreachable.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// How many of `v4` are in use.
    pub v4_count: u32,
    /// How many of `v6` are in use.
    pub v6_count: u32,
    /// ClusterSet CIDRs: network and mask, network order.
    pub v4: [Cidr4; MAX_CIDRS],
    /// ClusterSet CIDRs.
    pub v6: [Cidr6; MAX_CIDRS],
    /// Rows of `mcs_counters` for one CPU.
    pub counter_stride: u32,
    /// `mcs_sockets` has 2 to this power sets.
    pub socket_bits: u32,
}

/// An IPv4 CIDR as a program compares it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cidr4 {
    /// The network's address.
    pub net_be: u32,
    /// Ones for the bits that count.
    pub mask_be: u32,
}

/// An IPv6 CIDR as a program compares it: by halves.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cidr6 {
    /// The network's address.
    pub net_be: [u32; 4],
    /// Ones for the bits that count.
    pub mask_be: [u32; 4],
}

/// What a client dials: the key of `mcs_frontends`. Three whole words, as the kernel hashes and compares keys by words.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Frontend {
    /// The ClusterSetIP.
    pub addr: Addr,
    /// The service port.
    pub port_be: PortBe,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Always 0.
    pub zero: [u8; 5],
}

impl Frontend {
    /// From what a client dials.
    #[inline(always)]
    #[must_use]
    pub const fn new(addr: Addr, port_be: PortBe, protocol: u8) -> Self {
        Self { addr, port_be, protocol, zero: [0; 5] }
    }

    /// As programs hold and compare it; the last word, with the protocol, is 0 in no frontend.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; 3] {
        let [a, b, c, d] = self.addr.words_be;
        let last = self.port_be.0 as u64 | (self.protocol as u64) << 16;
        [a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32, last]
    }
}

/// `mcs_hints` has 2 to this power rows.
pub const HINT_BITS: u32 = 15;

/// Where the hint of a frontend lies, by its words: multiplications that do not wait for each other.
#[inline(always)]
#[must_use]
pub const fn hint(words: [u64; 3]) -> u32 {
    let [high, low, last] = words;
    let mixed = high.wrapping_mul(0xc4ce_b9fe_1a85_ec53)
        ^ low.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ last.wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed >> (64 - HINT_BITS)) as u32
}

/// One of `mcs_services`. 64 bytes, a cache line.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceRow {
    /// A [`ServiceWord`]; the only part that changes while the frontend lives and programs may see it.
    pub word: u64,
    /// What this row serves; all zero while the index is free.
    pub frontend: Frontend,
    /// How often this index was taken, from 1; kept while it is free. Socket entries hold its low ten bits.
    pub generation: u32,
    /// Idle seconds after which a client's affinity ends; read when [`ServiceWord::AFFINITY`] is set.
    pub affinity_secs: u32,
    /// The source that counts this service's refusals.
    pub refusals: u32,
    /// Endpoints that take new flows when asked (ready), for people.
    pub ready: u32,
    /// All endpoints of this frontend's port and family that the manifests name, for people.
    pub total: u32,
    /// Always 0.
    pub zero: [u32; 3],
}

/// Base, count and flags of a service's block in one word, so that one atomic store replaces all three.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceWord {
    /// First slot.
    pub base: u32,
    /// Slots in use, at most [`MAX_BLOCK`]; 0 refuses.
    pub count: u32,
    /// Bits named below.
    pub flags: u8,
}

impl ServiceWord {
    /// Slots carry alias thresholds: the choice is weighted.
    pub const WEIGHTED: u8 = 1;
    /// `sessionAffinity: ClientIP`.
    pub const AFFINITY: u8 = 2;

    /// From the word of a row.
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self { base: word as u32, count: (word >> 32) as u32 & 0xff_ffff, flags: (word >> 56) as u8 }
    }

    /// To the word of a row.
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.base as u64 | ((self.count as u64 & 0xff_ffff) << 32) | ((self.flags as u64) << 56)
    }
}

/// One of `mcs_slots`: a backend as the hit path needs it. 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slot {
    /// The backend's address.
    pub addr: Addr,
    /// The backend's port.
    pub port_be: PortBe,
    /// Always 0.
    pub zero: u16,
    /// Of 2³² draws that hit this slot, how many stay; the others go to the alias. See [`pick`].
    pub threshold: u32,
    /// Alias, source and member: [`SlotIds`].
    pub ids: u64,
}

/// The three ids of a [`Slot`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SlotIds {
    /// Position in the block of the slot that takes the draws above the threshold.
    pub alias: u32,
    /// Who counts: index into `mcs_sources` and `mcs_counters`.
    pub source: u32,
    /// Index into `mcs_members`.
    pub member: u32,
}

impl SlotIds {
    /// From [`Slot::ids`].
    #[inline(always)]
    #[must_use]
    pub const fn unpack(ids: u64) -> Self {
        Self { alias: ids as u32 & 0xf_ffff, source: (ids >> 20) as u32 & 0xf_ffff, member: (ids >> 40) as u32 }
    }

    /// To [`Slot::ids`].
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.alias as u64 & 0xf_ffff) | ((self.source as u64 & 0xf_ffff) << 20) | ((self.member as u64) << 40)
    }
}

/// One of `mcs_members`: a backend of one service, for as long as it lives. 40 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemberRow {
    /// The backend's address.
    pub addr: Addr,
    /// The backend's port.
    pub port_be: PortBe,
    /// One of [`MemberRow::FREE`], [`MemberRow::ACTIVE`], [`MemberRow::DRAINING`].
    pub state: u8,
    /// Always 0.
    pub zero: u8,
    /// The service's index.
    pub service: u32,
    /// How often this id was taken, from 1; kept while it is free. Whoever is sticky holds it beside the id.
    pub generation: u32,
    /// The source cluster's row in `mcs_sources`.
    pub source: u32,
    /// Flows that were given to this backend.
    pub connections: u64,
}

impl MemberRow {
    /// Nobody's.
    pub const FREE: u8 = 0;
    /// Gets new flows.
    pub const ACTIVE: u8 = 1;
    /// Keeps the datagrams of sockets that it already has, gets no new flows: weight 0, or terminating.
    pub const DRAINING: u8 = 2;
}

/// One of `mcs_sources`: a source cluster of one service, or, with [`SourceRow::REFUSALS`], the service itself. 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SourceRow {
    /// The service's index.
    pub service: u32,
    /// Index into `mcs_clusters`, or [`SourceRow::REFUSALS`].
    pub cluster: u32,
    /// Ready endpoints of that cluster, for people.
    pub ready: u32,
    /// All endpoints of that cluster, for people.
    pub total: u32,
    /// The service's generation, so that a row left over by a crash is told apart.
    pub generation: u32,
    /// 1 while in use.
    pub used: u32,
}

impl SourceRow {
    /// The `cluster` of the row that counts a service's refusals.
    pub const REFUSALS: u32 = u32::MAX;
}

/// A name of at most 63 bytes, zero-filled.
pub type Name = [u8; 64];

/// One of `mcs_names`: which object a service index comes from. Only people read it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceName {
    /// The ServiceImport's namespace.
    pub namespace: Name,
    /// The ServiceImport's name.
    pub name: Name,
    /// The port's name; empty for an unnamed port.
    pub port: Name,
}

impl Default for ServiceName {
    fn default() -> Self {
        Self { namespace: [0; 64], name: [0; 64], port: [0; 64] }
    }
}

/// Key of `mcs_udp_flows`: one socket's datagrams to one frontend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UdpFlow {
    /// The socket's cookie.
    pub cookie: u64,
    /// The service's index.
    pub service: u32,
    /// The service's generation.
    pub generation: u32,
}

/// A member id and the generation in which it is meant: valid while the row agrees.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemberRef {
    /// Index into `mcs_members`.
    pub member: u32,
    /// [`MemberRow::generation`] at the time.
    pub generation: u32,
}

/// Key of `mcs_udp_origins`: a backend that an unconnected socket sent to by way of a frontend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UdpOrigin {
    /// The socket's cookie.
    pub cookie: u64,
    /// The backend's address.
    pub addr: Addr,
    /// The backend's port, as a word.
    pub port_be: u32,
    /// Always 0.
    pub zero: u32,
}

/// Key of `mcs_affinity`: a client is a network namespace, so a pod (all host-network pods of a node are one client).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AffinityKey {
    /// `bpf_get_netns_cookie`.
    pub client: u64,
    /// The service's index.
    pub service: u32,
    /// The service's generation.
    pub generation: u32,
}

/// Value of `mcs_affinity`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AffinityEntry {
    /// Whom the client gets.
    pub member: MemberRef,
    /// Nanoseconds of CLOCK_MONOTONIC at the last use, noted once in a sixteenth of the timeout, at most once a second.
    pub last_ns: u64,
}

/// One row, `mcs_agent[0]`: the agent that wrote these maps last. Only userspace reads it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AgentRow {
    /// [`ABI_VERSION`], written last of all when the maps are first made; 0 means that their making was cut short.
    pub abi: u32,
    /// Process id, in the agent's own pid namespace.
    pub pid: u32,
    /// Random, another one for each start of an agent.
    pub instance: u64,
    /// 1 once this instance has all valid objects of its source in the kernel.
    pub synced: u32,
    /// Services that should be in the maps and are not, for want of room.
    pub unprogrammed: u32,
    /// Objects that were named in a warning and skipped.
    pub invalid: u32,
    /// Rows of `mcs_counters` for one CPU.
    pub counter_stride: u32,
    /// CLOCK_REALTIME nanoseconds when the maps last changed.
    pub changed_ns: u64,
}

/// `mcs_report[0]`: JSON that the agent writes for `mcs status`; length, then text.
pub const REPORT_BYTES: usize = 1 << 16;

/// Key of `mcs_rules`: a rule that the agent added in a network namespace, so that `mcs detach` can take it away.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RuleKey {
    /// Inode of the namespace's `/proc/<pid>/ns/net`.
    pub netns_inode: u64,
    /// The CIDR's address.
    pub addr: Addr,
    /// The CIDR's prefix length in the address's own family.
    pub prefix_len: u32,
    /// The rule's priority.
    pub priority: u32,
}

const _: () = {
    assert!(size_of::<Config>() == 176);
    assert!(size_of::<Frontend>() == 24);
    assert!(size_of::<ServiceRow>() == 64);
    assert!(size_of::<Slot>() == 32);
    assert!(size_of::<MemberRow>() == 40);
    assert!(size_of::<SourceRow>() == 24);
    assert!(size_of::<ServiceName>() == 192);
    assert!(size_of::<UdpFlow>() == 16);
    assert!(size_of::<UdpOrigin>() == 32);
    assert!(size_of::<AffinityKey>() == 16);
    assert!(size_of::<AffinityEntry>() == 16);
    assert!(size_of::<AgentRow>() == 40);
    assert!(size_of::<RuleKey>() == 32);
    assert!(size_of::<sockets::Entry>() == 16);
    assert!(size_of::<sockets::Set>() == 64);
};

#[cfg(not(target_arch = "bpf"))]
mod pod {
    use super::*;

    macro_rules! pod {
        ($($t:ty),* $(,)?) => { $(
            // SAFETY: `repr(C)` of integers only, without padding (the size asserts above), so every byte pattern is valid.
            unsafe impl aya::Pod for $t {}
        )* };
    }

    pod!(
        Config,
        Frontend,
        ServiceRow,
        Slot,
        MemberRow,
        SourceRow,
        ServiceName,
        UdpFlow,
        MemberRef,
        UdpOrigin,
        AffinityKey,
        AffinityEntry,
        AgentRow,
        RuleKey,
        sockets::Entry,
        sockets::Set,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_ids_survive_packing() {
        for (base, count, flags) in [(0, 0, 0), (u32::MAX, MAX_BLOCK, 3), (7, 1, 2)] {
            let word = ServiceWord { base, count, flags };
            assert_eq!(ServiceWord::unpack(word.pack()), word);
        }
        for (alias, source, member) in [(0, 0, 0), (MAX_BLOCK, MAX_SOURCES - 1, MAX_MEMBERS - 1), (1, 2, 3)] {
            let ids = SlotIds { alias, source, member };
            assert_eq!(SlotIds::unpack(ids.pack()), ids);
        }
    }
}
