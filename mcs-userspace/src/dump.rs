//! What the maps hold, read back: for `mcs dump` and `mcs services`, with or without an agent, and for tests.
//!
//! Rows that lead nowhere are left out, as the kernel programs leave them out; a dump never fails on damaged rows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mcs_ebpf::{MemberRow, ServiceRow, ServiceWord, SlotIds, SourceRow, pick};

use crate::maps::{MapError, Maps};
use crate::model::ObjectKey;
use crate::tables::{Backend, RealizedBackend, RealizedService, Service, Source, Tables, name_text};

/// Reads all services, with ids and counters.
///
/// # Errors
/// [`MapError::List`].
pub fn dump(maps: &impl Maps) -> Result<Tables, MapError> {
    let sizes = maps.sizes();
    let mut frontends = maps.frontends()?;
    frontends.retain(|(frontend, index)| maps.service(*index).frontend == *frontend);
    let rows: HashMap<u32, ServiceRow> = frontends.iter().map(|(_, index)| (*index, maps.service(*index))).collect();

    let mut sources: HashMap<u32, Vec<(u32, SourceRow)>> = HashMap::new();
    for id in 0..sizes.sources {
        let row = maps.source(id);
        let is_live = rows.get(&row.service).is_some_and(|service| service.generation == row.generation);
        if row.used != 0 && row.cluster != SourceRow::REFUSALS && is_live {
            sources.entry(row.service).or_default().push((id, row));
        }
    }
    let mut draining: HashMap<u32, Vec<u32>> = HashMap::new();
    for id in 0..sizes.members {
        let row = maps.member(id);
        if row.state == MemberRow::DRAINING && rows.contains_key(&row.service) {
            draining.entry(row.service).or_default().push(id);
        }
    }

    let mut clusters = HashMap::new();
    let services = frontends.into_iter().map(|(frontend, index)| {
        let of_service = sources.remove(&index).unwrap_or_default();
        let drains = draining.remove(&index).unwrap_or_default();
        (frontend, service(maps, index, &rows[&index], &of_service, &drains, &mut clusters))
    });
    Ok(Tables { services: services.collect::<BTreeMap<_, _>>() })
}

/// What the programs counted.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Flows {
    /// Flows that were sent to a backend, by import and the backend's cluster.
    pub connections: BTreeMap<(ObjectKey, Arc<str>), u64>,
    /// Flows that were refused, by import.
    pub refusals: BTreeMap<ObjectKey, u64>,
}

/// Reads just the counters, over all frontends of an import together. It costs a look at each source's row.
#[must_use]
pub fn flows(maps: &impl Maps) -> Flows {
    let mut flows = Flows::default();
    let (mut imports, mut clusters) = (HashMap::<u32, ObjectKey>::new(), HashMap::<u32, Arc<str>>::new());
    for id in 0..maps.sizes().sources {
        let row = maps.source(id);
        if row.used == 0 || maps.service(row.service).generation != row.generation {
            continue;
        }
        let import = imports.entry(row.service).or_insert_with(|| {
            let name = maps.name(row.service);
            ObjectKey::new(name_text(&name.namespace), name_text(&name.name))
        });
        let count = maps.counter(id);
        if row.cluster == SourceRow::REFUSALS {
            *flows.refusals.entry(import.clone()).or_default() += count;
        } else {
            let cluster = clusters.entry(row.cluster).or_insert_with(|| name_text(&maps.cluster(row.cluster)));
            *flows.connections.entry((import.clone(), Arc::clone(cluster))).or_default() += count;
        }
    }
    flows
}

fn service(
    maps: &impl Maps,
    index: u32,
    row: &ServiceRow,
    sources: &[(u32, SourceRow)],
    draining: &[u32],
    clusters: &mut HashMap<u32, Arc<str>>,
) -> Service {
    let mut cluster = |source: u32| {
        let row = maps.source(source).cluster;
        Arc::clone(clusters.entry(row).or_insert_with(|| name_text(&maps.cluster(row))))
    };
    let realized = |id: u32, row: &MemberRow| {
        Some(RealizedBackend { member: id, generation: row.generation, connections: row.connections })
    };
    let word = ServiceWord::unpack(row.word);
    let mut backends: Vec<Backend> = shares(maps, word)
        .into_iter()
        .zip(word.base..)
        .map(|(weight, at)| {
            let slot = maps.slot(at);
            let SlotIds { source, member, alias: _ } = SlotIds::unpack(slot.ids);
            let realized = realized(member, &maps.member(member));
            Backend { addr: slot.addr, port: slot.port_be, cluster: cluster(source), weight, realized }
        })
        .collect();
    backends.extend(draining.iter().map(|id| {
        let row = maps.member(*id);
        let realized = realized(*id, &row);
        Backend { addr: row.addr, port: row.port_be, cluster: cluster(row.source), weight: 0, realized }
    }));
    backends.sort_by(|a, b| (&a.cluster, a.addr, a.port).cmp(&(&b.cluster, b.addr, b.port)));
    let mut sources: Vec<Source> = sources
        .iter()
        .map(|(id, row)| Source {
            cluster: cluster(*id),
            ready: row.ready,
            total: row.total,
            connections: Some(maps.counter(*id)),
        })
        .collect();
    sources.sort_by(|a, b| a.cluster.cmp(&b.cluster));
    let name = maps.name(index);
    Service {
        frontend: row.frontend,
        import: ObjectKey::new(name_text(&name.namespace), name_text(&name.name)),
        port_name: name_text(&name.port),
        affinity_secs: (word.flags & ServiceWord::AFFINITY != 0).then_some(row.affinity_secs),
        backends,
        sources,
        realized: Some(RealizedService {
            index,
            generation: row.generation,
            base: word.base,
            refusals: maps.counter(row.refusals),
        }),
    }
}

/// The chance of each slot of a block.
fn shares(maps: &impl Maps, word: ServiceWord) -> Vec<u64> {
    // a damaged word may claim more than there is
    let count = word.count.min(maps.sizes().slots.saturating_sub(word.base));
    if word.flags & ServiceWord::WEIGHTED == 0 {
        return vec![1; count as usize];
    }
    let slots = (word.base..word.base + count).map(|at| maps.slot(at));
    shares_of_table(slots.map(|slot| (slot.threshold, SlotIds::unpack(slot.ids).alias)))
}

/// The chance of each slot given `(threshold, alias)` of each, in units of 2⁻³² of a slot's part. At least 1: 0 would say
/// that a backend drains.
fn shares_of_table(table: impl ExactSizeIterator<Item = (u32, u32)>) -> Vec<u64> {
    let mut shares = vec![0; table.len()];
    for (i, (threshold, alias)) in table.enumerate() {
        shares[i] += u64::from(threshold);
        if let Some(share) = shares.get_mut(alias as usize) {
            *share += (1 << 32) - u64::from(threshold);
        }
    }
    shares.iter().map(|share: &u64| (*share).max(1)).collect()
}

/// A service as [`dump`] would show it if it were in the maps: weights as chances, without ids and counters.
#[must_use]
pub fn as_dumped(mut service: Service) -> Service {
    let weights: Vec<u64> = service.backends.iter().map(|b| b.weight).filter(|w| *w > 0).collect();
    let alike = weights.iter().all(|w| *w == weights[0]);
    let shares = if alike { vec![1; weights.len()] } else { shares_of_table(pick::alias_table(&weights).into_iter()) };
    for (backend, share) in service.backends.iter_mut().filter(|b| b.weight > 0).zip(shares) {
        backend.weight = share;
    }
    without_ids(service)
}

/// A service without ids and counters, so that two dumps can be compared for what they offer.
#[must_use]
pub fn without_ids(mut service: Service) -> Service {
    service.realized = None;
    service.backends.iter_mut().for_each(|backend| backend.realized = None);
    service.sources.iter_mut().for_each(|source| source.connections = None);
    service
}
