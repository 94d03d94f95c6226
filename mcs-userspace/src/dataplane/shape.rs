//! The shape of every map: what is made on a fresh pin directory, and what a pinned one must look like to be used.

use anyhow::{Context as _, ensure};
use aya::maps::{MapData, MapType};
use mcs_ebpf::{
    AffinityEntry, AffinityKey, AgentRow, Frontend, MAX_MEMBERS, MAX_SERVICES, MAX_SOURCES, MemberRef, MemberRow, Name,
    REPORT_BYTES, RuleKey, ServiceName, ServiceRow, Slot, SourceRow, UdpFlow, UdpOrigin, map, sockets,
};

use super::pins::PinDir;

/// How much room the maps have. Fixed when the pins are first made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// Frontends.
    pub services: u32,
    /// (service, backend) pairs; there are twice as many block slots.
    pub backends: u32,
    /// Pairs of service and source cluster, and one more for each service.
    pub sources: u32,
    /// Source clusters.
    pub clusters: u32,
    /// Connected sockets whose frontend is remembered.
    pub sockets: u32,
    /// Unconnected UDP sockets times the frontends that they send to.
    pub udp_flows: u32,
    /// Clients with affinity times services.
    pub affinity: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            services: 1 << 16,
            backends: 1 << 20,
            sources: 1 << 17,
            clusters: 1 << 12,
            sockets: 1 << 18,
            udp_flows: 1 << 16,
            affinity: 1 << 16,
        }
    }
}

/// A map's name and shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    pub(super) entries: u32,
}

impl Capacity {
    /// The number of sets of `mcs_sockets`.
    pub(super) fn socket_sets(&self) -> u32 {
        (self.sockets / 4).max(1).next_power_of_two()
    }

    /// All maps, for this many CPUs.
    ///
    /// # Errors
    /// When a number does not fit the contract's bit fields.
    pub(super) fn shapes(&self, cpus: u32) -> anyhow::Result<Vec<Shape>> {
        let Self { services, backends, sources, clusters, sockets: _, udp_flows, affinity } = *self;
        for (what, is, most) in [
            ("services", services, MAX_SERVICES),
            ("backends", backends, MAX_MEMBERS),
            ("sources", sources, MAX_SOURCES),
        ] {
            ensure!((1..=most).contains(&is), "maximum of {what}: {is} is not in 1..={most}");
        }
        let counters = sources.checked_mul(cpus).context("sources times CPUs: too many counters")?;
        let array = |name, value, entries| Shape { name, kind: MapType::Array, key: 4, value, entries };
        Ok(vec![
            Shape {
                name: map::FRONTENDS,
                kind: MapType::Hash,
                key: size_of::<Frontend>(),
                value: 4,
                entries: services,
            },
            array(map::SERVICES, size_of::<ServiceRow>(), services),
            array(map::SLOTS, size_of::<Slot>(), backends.saturating_mul(2)),
            array(map::MEMBERS, size_of::<MemberRow>(), backends),
            array(map::SOURCES, size_of::<SourceRow>(), sources),
            array(map::COUNTERS, size_of::<u64>(), counters),
            array(map::SOCKETS, size_of::<sockets::Set>(), self.socket_sets()),
            Shape {
                name: map::UDP_FLOWS,
                kind: MapType::LruHash,
                key: size_of::<UdpFlow>(),
                value: size_of::<MemberRef>(),
                entries: udp_flows,
            },
            Shape {
                name: map::UDP_ORIGINS,
                kind: MapType::LruHash,
                key: size_of::<UdpOrigin>(),
                value: size_of::<Frontend>(),
                entries: udp_flows,
            },
            Shape {
                name: map::AFFINITY,
                kind: MapType::LruHash,
                key: size_of::<AffinityKey>(),
                value: size_of::<AffinityEntry>(),
                entries: affinity,
            },
            array(map::NAMES, size_of::<ServiceName>(), services),
            array(map::CLUSTERS, size_of::<Name>(), clusters),
            array(map::AGENT, size_of::<AgentRow>(), 1),
            array(map::REPORT, REPORT_BYTES, 1),
            Shape { name: map::RULES, kind: MapType::Hash, key: size_of::<RuleKey>(), value: 4, entries: 64 },
        ])
    }

    /// The room of the maps that are pinned, which the flags of a later start do not change.
    ///
    /// # Errors
    /// When a pin cannot be opened.
    pub(super) fn of_pinned(pins: &PinDir) -> anyhow::Result<Self> {
        let entries = |name: &str| -> anyhow::Result<u32> {
            let path = pins.map(name);
            let what = || format!("{}: open the pinned map", path.display());
            Ok(MapData::from_pin(&path).with_context(what)?.info().with_context(what)?.max_entries())
        };
        Ok(Self {
            services: entries(map::SERVICES)?,
            backends: entries(map::MEMBERS)?,
            sources: entries(map::SOURCES)?,
            clusters: entries(map::CLUSTERS)?,
            sockets: entries(map::SOCKETS)?.saturating_mul(4),
            udp_flows: entries(map::UDP_FLOWS)?,
            affinity: entries(map::AFFINITY)?,
        })
    }
}

impl Shape {
    /// Compares a pinned map with what this version would make. aya 0.14 opens a pin without looking.
    ///
    /// # Errors
    /// When it cannot be opened or is another kind of map: it must not be read then.
    pub(super) fn check(&self, pins: &PinDir) -> anyhow::Result<()> {
        let path = pins.map(self.name);
        let data = MapData::from_pin(&path).with_context(|| format!("{}: open the pinned map", path.display()))?;
        let info = data.info().with_context(|| format!("{}: read its shape", path.display()))?;
        let kind = info.map_type().with_context(|| format!("{}: read its kind", path.display()))?;
        let Self { name: _, kind: want_kind, key, value, entries } = *self;
        ensure!(
            kind == want_kind
                && info.key_size() as usize == key
                && info.value_size() as usize == value
                && info.max_entries() == entries,
            "{}: pinned with another layout ({kind:?}, key {}, value {}, {} entries; this version has {want_kind:?}, key \
             {key}, value {value}, {entries} entries): not used; `mcs detach` removes it",
            path.display(),
            info.key_size(),
            info.value_size(),
            info.max_entries(),
        );
        Ok(())
    }
}
