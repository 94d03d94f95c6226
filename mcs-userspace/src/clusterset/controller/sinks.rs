//! Everybody's exports to imports and their EndpointSlices.
//!
//! ```text
//!   own, from here ─────────────┐
//!   others', from the broker ───┼─► merge ─► ServiceImport ─► an EndpointSlice for each slice of each cluster
//!   ghosts, from the import ────┘                              │
//!                                               dead members': without the ports that others serve
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::event::{Kind, Now, Op};
use super::super::fault::{Fault, planted};
use super::super::local::{Condition, EXPORTED_KEYS, Import, ImportedSlice, Regarding, STALE, Truth, WITHDRAWAL_HELD};
use super::super::merge::{Constituent, Merged, merge};
use super::super::service::{Endpoints, Exported, Family, Port, Transport};
use super::super::slices::{imported, imported_name, serves};
use super::addresses::Addressing;
use super::own::Own;
use super::writes::{has_conditions, same_import};
use super::{Controller, condition, local};
use crate::api::v1beta1::ServiceImportSpec;
use crate::api::{ServiceImportType, ServicePort};
use crate::model::ObjectKey;

/// What the exports of a service make together.
#[derive(Debug)]
pub(super) struct Merging {
    pub(super) own: Own,
    /// Everybody's that is known.
    parts: BTreeMap<String, Exported>,
    /// Clusters that the import names and that nobody told of yet.
    pub(super) ghosts: BTreeSet<String>,
    /// None if nobody exports it.
    pub(super) merged: Option<Merged>,
    /// Those that are known, the oldest first.
    pub(super) exporters: Vec<String>,
}

/// The keys of labels and annotations that come from exports.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct ExportedKeys {
    labels: BTreeSet<String>,
    annotations: BTreeSet<String>,
}

/// A (family, name of a merged port), or a family alone.
type Served = BTreeSet<(Family, Option<String>)>;

impl Controller {
    /// Everybody's exports of a service.
    pub(super) fn merged(&mut self, key: &ObjectKey, me: &str) -> Merging {
        let own = self.own(key, me);
        let mut parts = BTreeMap::new();
        let mut ghosts = BTreeSet::new();
        let import = self.local.our_import(key);
        match &own {
            Own::Absent => {}
            Own::Live(exported) | Own::Held(Some(exported)) => {
                let mut exported = exported.clone();
                if planted(Fault::OwnExportWinsTies) {
                    exported.created -= 1;
                }
                parts.insert(me.to_owned(), exported);
            }
            Own::Held(None) => _ = ghosts.insert(me.to_owned()),
        }
        for (cluster, record) in self.broker.records(key) {
            if let Some(exported) = &record.exported
                && cluster != me
                && !record.withdrawn
                && self.broker.counts(cluster)
                && !self.departed.contains(cluster)
            {
                parts.insert(cluster.to_owned(), exported.clone());
            }
        }
        let slices = self.local.imported_slices.group(key).map(|(_, slice)| &slice.cluster);
        for cluster in import.iter().flat_map(|import| &import.clusters).chain(slices.filter(|_| import.is_some())) {
            let told = cluster == me
                || parts.contains_key(cluster)
                || self.departed.contains(cluster)
                || self.broker.revoked(cluster)
                || self.broker.record(key, cluster).is_some_and(|record| record.withdrawn)
                || self.broker.complete(cluster) && self.broker.record(key, cluster).is_none();
            if !told {
                ghosts.insert(cluster.clone());
            }
        }
        let remnant = import.filter(|_| !ghosts.is_empty()).map(remnant);
        let mut constituents: Vec<Constituent<'_>> =
            parts.iter().map(|(cluster, exported)| Constituent { cluster, exported }).collect();
        if let Some(remnant) = &remnant {
            constituents.extend(ghosts.iter().map(|cluster| Constituent { cluster, exported: remnant }));
        }
        let merged = merge(&constituents);
        let mut exporters: Vec<(i64, String)> =
            parts.iter().map(|(cluster, exported)| (exported.created, cluster.clone())).collect();
        exporters.sort();
        let exporters = exporters.into_iter().map(|(_, cluster)| cluster).collect();
        Merging { own, parts, ghosts, merged, exporters }
    }

    /// Makes the import and its slices what they should be.
    pub(super) fn import(&mut self, key: &ObjectKey, me: &str, merging: &Merging, addressing: &Addressing, now: Now) {
        if !self.sink_known() {
            return;
        }
        let Some(merged) = &merging.merged else {
            self.stale.remove(key);
            // An export that is not known yet may be another cluster's.
            if self.newcomer_exports(key, me, now) || self.names_nobody_yet(key, me) {
                self.writes.remind(key, now + self.settings.timings.renew / 5);
            } else if self.broker_known() && (self.own_known() || self.exports_gone()) {
                self.clear(key, now);
            }
            return;
        };
        if !self.local.has_namespace(&key.namespace) {
            self.stale.remove(key);
            return;
        }
        let stale = self.slices(key, me, merging, merged, now);
        let seen = self.local.imports.get(key);
        if seen.is_some_and(|seen| !local::ours(seen)) {
            return;
        }
        if seen.is_some() || self.broker_known() && (self.own_known() || self.exports_gone()) {
            let wanted = self.wanted(key, me, merged, addressing, &stale);
            if seen.is_none_or(|seen| !same_import(&wanted, seen)) {
                let bad = wanted.conditions.iter().filter(|condition| is_bad(condition));
                let news: Vec<Condition> = bad
                    .filter(|bad| !seen.is_some_and(|seen| has_conditions(&seen.conditions, std::slice::from_ref(bad))))
                    .cloned()
                    .collect();
                for bad in news {
                    self.tell(Regarding::Import(key.clone()), true, &bad.reason, &bad.message, now);
                }
                self.writes.propose(key, Op::PutImport(key.clone(), Box::new(wanted)), now);
            }
        }
        if stale.is_empty() {
            self.stale.remove(key);
        } else {
            self.stale.insert(key.clone(), stale);
        }
    }

    /// Whether the import is one whose status was not written yet, and not every member has said that no record is missing
    /// here: the process before this one, which made it, knew for whom.
    fn names_nobody_yet(&self, key: &ObjectKey, me: &str) -> bool {
        let mut others = self.broker.members.keys().filter(|id| *id != me && self.broker.counts(id));
        self.local.our_import(key).is_some_and(|import| import.clusters.is_empty())
            && others.any(|id| !self.broker.complete(id))
    }

    /// Whether a record is there of a cluster that is not known as a member and may have joined meanwhile: the members are
    /// being listed, or the cluster renews its lease, which the broker lets only members do.
    fn newcomer_exports(&self, key: &ObjectKey, me: &str, now: Now) -> bool {
        let known = |cluster: &str| {
            cluster == me
                || self.broker.members.contains_key(cluster)
                || self.broker.revoked(cluster)
                || self.departed.contains(cluster)
        };
        let renews = |cluster: &str| {
            let lease = self.broker.leases.get(cluster).filter(|lease| !lease.statement.left);
            let renewed = lease.and_then(|lease| lease.renewed);
            renewed.is_some_and(|at| now.saturating_sub(at) < self.settings.timings.dead)
        };
        let listing = !self.lists.settled(&[Kind::Members]);
        let mut records = self.broker.records(key).filter(|(cluster, record)| !record.withdrawn && !known(cluster));
        records.any(|(cluster, _)| listing || renews(cluster))
    }

    fn wanted(
        &self,
        key: &ObjectKey,
        me: &str,
        merged: &Merged,
        addressing: &Addressing,
        stale: &BTreeSet<String>,
    ) -> Import {
        let nothing = Import::default();
        let seen = self.local.imports.get(key).unwrap_or(&nothing);
        let old: ExportedKeys =
            seen.annotations.get(EXPORTED_KEYS).and_then(|keys| serde_json::from_str(keys).ok()).unwrap_or_default();
        let keys = ExportedKeys {
            labels: merged.labels.keys().cloned().collect(),
            annotations: merged.annotations.keys().filter(|key| *key != EXPORTED_KEYS).cloned().collect(),
        };
        let replaced = |seen: &BTreeMap<String, String>, old: &BTreeSet<String>, new: &BTreeMap<String, String>| {
            let mut all = seen.clone();
            all.retain(|key, _| !old.contains(key));
            all.extend(new.iter().map(|(key, value)| (key.clone(), value.clone())));
            all
        };
        let labels = replaced(&seen.labels, &old.labels, &merged.labels);
        let mut annotations = replaced(&seen.annotations, &old.annotations, &merged.annotations);
        annotations.insert(EXPORTED_KEYS.to_owned(), serde_json::to_string(&keys).unwrap_or_default());
        let mut conditions = vec![ready(merged, addressing, !self.awaited().is_empty())];
        if let Some(held) = self.brake.held().get(key).filter(|_| merged.clusters.iter().any(|of| of == me)) {
            conditions.push(condition(
                WITHDRAWAL_HELD,
                Truth::True,
                held.reason.code(),
                format!(
                    "{}: the export stays as it was published until it is back, or `mcs approve-withdrawal {me}`",
                    held.reason
                ),
            ));
        }
        if !stale.is_empty() {
            let clusters = stale.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!("no other cluster serves what these dead ones do: {clusters}");
            conditions.push(condition(STALE, Truth::True, "ClusterDead", message));
        }
        Import {
            meta: seen.meta.clone(),
            labels,
            annotations,
            spec: spec(merged, addressing),
            clusters: merged.clusters.clone(),
            conditions,
            slices_present: true,
        }
    }

    /// Makes the slices what they should be. The dead members that still have some.
    fn slices(&mut self, key: &ObjectKey, me: &str, merging: &Merging, merged: &Merged, now: Now) -> BTreeSet<String> {
        let mut contents: Vec<(&str, &Exported, ObjectKey, Endpoints)> = Vec::new();
        for (cluster, exported) in &merging.parts {
            if cluster == me {
                let own = self.own_slices(key, me);
                contents.extend(own.into_iter().map(|(name, slice)| (cluster.as_str(), exported, name, slice)));
            } else {
                let group = (cluster.clone(), key.clone());
                let theirs = self.broker.slices.group(&group);
                contents.extend(theirs.filter_map(|(name, slice)| {
                    Some((cluster.as_str(), exported, name.clone(), slice.endpoints()?.clone()))
                }));
            }
        }
        let dead: BTreeSet<&String> = merged.clusters.iter().filter(|of| *of != me && self.is_dead(of)).collect();
        let alive = if dead.is_empty() { Served::new() } else { self.alive(key, merging, merged, &contents, &dead) };
        let is_dead = |cluster: &str| dead.iter().any(|dead| *dead == cluster);
        let mut wanted: BTreeMap<ObjectKey, ImportedSlice> = BTreeMap::new();
        for (cluster, exported, name, slice) in contents {
            let stale = is_dead(cluster);
            let leave_out =
                |port: Option<&Port>| stale && alive.contains(&(slice.family, port.map(|port| port.name.clone())));
            let Some((ports, endpoints)) = imported(merged, exported, &slice, &leave_out) else { continue };
            let name = imported_name(&key.name, cluster, &name.name);
            let slice = ImportedSlice {
                meta: Default::default(),
                import: key.name.to_string(),
                cluster: cluster.to_owned(),
                family: slice.family,
                ports,
                endpoints,
                changed_at: slice.changed_at,
                stale,
            };
            wanted.insert(ObjectKey::new(std::sync::Arc::clone(&key.namespace), name), slice);
        }
        let mut surplus = Vec::new();
        for (name, seen) in self.local.imported_slices.group(key) {
            if wanted.contains_key(name) {
                continue;
            }
            match self.keep(key, me, merging, seen).then(|| kept(seen, is_dead(&seen.cluster), &alive)).flatten() {
                Some(slice) => _ = wanted.insert(name.clone(), slice),
                None => surplus.push((name.clone(), seen.meta.clone())),
            }
        }
        let stale = wanted.values().filter(|slice| slice.stale).map(|slice| slice.cluster.clone()).collect();
        // The import comes before its endpoints.
        if self.local.our_import(key).is_some() {
            for (name, mut slice) in wanted {
                if let Some(seen) = self.local.imported_slices.get(&name) {
                    slice.meta = seen.meta.clone();
                    if slice == *seen {
                        continue;
                    }
                }
                self.writes.propose(key, Op::PutImportedSlice(name, Box::new(slice)), now);
            }
        }
        for (name, meta) in surplus {
            self.writes.propose(key, Op::DeleteImportedSlice(name, meta), now);
        }
        stale
    }

    /// Whether a slice that no record stands for stays: its cluster has not told of all its records yet.
    fn keep(&self, key: &ObjectKey, me: &str, merging: &Merging, slice: &ImportedSlice) -> bool {
        if merging.ghosts.contains(&slice.cluster) {
            return true;
        }
        if !merging.parts.contains_key(&slice.cluster) {
            return false;
        }
        if slice.cluster == me {
            let group = (me.to_owned(), key.clone());
            self.endpoints_as_published(key) && self.broker.slices.group(&group).next().is_none()
        } else {
            !self.broker.complete(&slice.cluster)
        }
    }

    /// What those that are not dead serve.
    fn alive(
        &self,
        key: &ObjectKey,
        merging: &Merging,
        merged: &Merged,
        contents: &[(&str, &Exported, ObjectKey, Endpoints)],
        dead: &BTreeSet<&String>,
    ) -> Served {
        let mut alive = Served::new();
        for (cluster, exported) in merging.parts.iter().filter(|(cluster, _)| !dead.contains(cluster)) {
            let slices = contents.iter().filter(|(of, ..)| of == cluster).map(|(.., slice)| slice);
            let served = serves(merged, exported, slices);
            alive.extend(served.into_iter().map(|(family, port)| (family, port.map(|port| port.name.clone()))));
        }
        for (_, slice) in self.local.imported_slices.group(key) {
            let ghost = merging.ghosts.contains(&slice.cluster) && !dead.contains(&slice.cluster);
            if ghost && slice.endpoints.iter().any(|endpoint| endpoint.ready) {
                alive.insert((slice.family, None));
                alive.extend(slice.ports.iter().map(|port| (slice.family, Some(port.name.clone()))));
            }
        }
        alive
    }

    /// Removes an import of ours, and its slices.
    pub(super) fn clear(&mut self, key: &ObjectKey, now: Now) {
        if !self.sink_known() {
            return;
        }
        if let Some(import) = self.local.our_import(key) {
            let meta = import.meta.clone();
            self.writes.propose(key, Op::DeleteImport(key.clone(), meta), now);
        }
        let slices: Vec<Op> = self
            .local
            .imported_slices
            .group(key)
            .map(|(name, slice)| Op::DeleteImportedSlice(name.clone(), slice.meta.clone()))
            .collect();
        for op in slices {
            self.writes.propose(key, op, now);
        }
    }
}

/// What an import shows of exports that are not known: they made it what it is, and outdo those that are known.
fn remnant(import: &Import) -> Exported {
    let keys: ExportedKeys =
        import.annotations.get(EXPORTED_KEYS).and_then(|keys| serde_json::from_str(keys).ok()).unwrap_or_default();
    let of = |all: &BTreeMap<String, String>, keys: &BTreeSet<String>| {
        all.iter().filter(|(key, _)| keys.contains(*key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let families = import.spec.ip_families.iter();
    Exported {
        created: i64::MIN,
        kind: import.spec.kind,
        ports: import.spec.ports.iter().filter_map(port).collect(),
        ip_families: families
            .filter_map(|text| Family::ALL.into_iter().find(|family| family.as_str() == text))
            .collect(),
        session_affinity: import.spec.session_affinity.clone(),
        session_affinity_config: import.spec.session_affinity_config.clone(),
        internal_traffic_policy: import.spec.internal_traffic_policy.clone(),
        traffic_distribution: import.spec.traffic_distribution.clone(),
        labels: of(&import.labels, &keys.labels),
        annotations: of(&import.annotations, &keys.annotations),
    }
}

fn port(port: &ServicePort) -> Option<Port> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Transport::Tcp,
        Some("UDP") => Transport::Udp,
        Some("SCTP") => Transport::Sctp,
        Some(_) => return None,
    };
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        port: u16::try_from(port.port).ok()?,
        app_protocol: port.app_protocol.clone(),
    })
}

/// The spec of an import.
fn spec(merged: &Merged, addressing: &Addressing) -> ServiceImportSpec {
    let families: Vec<Family> = match merged.kind {
        ServiceImportType::Headless => merged.ip_families.clone(),
        ServiceImportType::ClusterSetIP => addressing.ips.iter().map(|ip| Family::of(*ip)).collect(),
    };
    ServiceImportSpec {
        ports: merged
            .ports
            .iter()
            .map(|port| ServicePort {
                name: (!port.name.is_empty()).then(|| port.name.clone()),
                protocol: Some(port.protocol.as_str().to_owned()),
                app_protocol: port.app_protocol.clone(),
                port: i32::from(port.port),
            })
            .collect(),
        ips: addressing.ips.iter().map(ToString::to_string).collect(),
        ip_families: families.iter().map(|family| family.as_str().to_owned()).collect(),
        kind: merged.kind,
        session_affinity: merged.session_affinity.clone(),
        session_affinity_config: merged.session_affinity_config.clone(),
        internal_traffic_policy: merged.internal_traffic_policy.clone(),
        traffic_distribution: merged.traffic_distribution.clone(),
    }
}

/// A slice that stays for want of information; none if others serve all that it does.
fn kept(slice: &ImportedSlice, dead: bool, alive: &Served) -> Option<ImportedSlice> {
    let mut kept = ImportedSlice { meta: Default::default(), stale: dead, ..slice.clone() };
    if dead {
        let served = |port: Option<&str>| alive.contains(&(slice.family, port.map(str::to_owned)));
        kept.ports.retain(|port| !served(Some(&port.name)));
        if kept.ports.is_empty() && (!slice.ports.is_empty() || served(None)) {
            return None;
        }
    }
    Some(kept)
}

/// The `Ready` condition of an import.
fn ready(merged: &Merged, addressing: &Addressing, awaited: bool) -> Condition {
    let families = |families: &[Family]| families.iter().map(|of| of.as_str()).collect::<Vec<_>>().join(", ");
    if addressing.unsupported {
        let message = format!("the ClusterSet has no addresses of the families {}", families(&merged.ip_families));
        return condition("Ready", Truth::False, "IPFamilyNotSupported", message);
    }
    if !addressing.exhausted.is_empty() {
        let message = format!("no {} address of the ClusterSet is left", families(&addressing.exhausted));
        return condition("Ready", Truth::False, "AddressesExhausted", message);
    }
    if !addressing.waiting.is_empty() {
        let what = families(&addressing.waiting);
        let until = if awaited { ", until all members have reserved theirs again" } else { "" };
        let message = format!("waits for its {what} address{until}");
        return condition("Ready", Truth::False, "Pending", message);
    }
    let unprogrammed: Vec<String> = merged
        .ports
        .iter()
        .filter(|port| port.protocol == Transport::Sctp)
        .map(|port| format!("{}/{}", port.port, port.protocol))
        .collect();
    let message =
        if unprogrammed.is_empty() { String::new() } else { format!("not programmed: {}", unprogrammed.join(", ")) };
    condition("Ready", Truth::True, "Ready", message)
}

/// Whether users are told of it.
fn is_bad(condition: &Condition) -> bool {
    match condition.kind.as_str() {
        "Ready" => condition.status == Truth::False && condition.reason != "Pending",
        _ => condition.status == Truth::True,
    }
}
