//! What events mean: what is known, which services they touch.

use super::super::brake::Brake;
use super::super::event::{CrdState, Event, Kind, Now, Object};
use super::super::fault::{Fault, planted};
use super::super::liveness::Token;
use super::super::local::{Meta, Service};
use super::super::record::{LEASE, Statement};
use super::super::validate;
use super::{Controller, writes};
use crate::model::ObjectKey;
use crate::problem::{Problem, Severity};

impl Controller {
    pub(super) fn hear(&mut self, event: Event, now: Now) {
        match event {
            Event::ListStarted(kind) => {
                if kind.at_broker() && self.lists.known(kind) {
                    // It may be another content: what was said of the one before does not count.
                    self.liveness.broker_replaced();
                }
                self.lists.started(kind);
                if Brake::KINDS.contains(&kind) {
                    self.brake.list_started(kind);
                }
                if kind == Kind::Properties {
                    self.properties.list_started();
                }
            }
            Event::Applied(kind, key, object) => {
                self.lists.heard(kind, &key, true);
                self.writes.seen(kind, &key, Some(&object));
                self.applied(kind, &key, *object, now);
            }
            Event::Deleted(kind, key) => {
                self.lists.heard(kind, &key, false);
                self.writes.seen(kind, &key, None);
                self.gone(kind, &key, true, now);
            }
            Event::Listed(kind, resource_version) => self.listed(kind, resource_version, now),
            Event::Interrupted(kind) => {
                if planted(Fault::PruneOnInterruptedList) {
                    self.listed(kind, 0, now);
                }
                self.lists.interrupted(kind);
                if Brake::KINDS.contains(&kind) {
                    self.brake.interrupted(kind);
                }
                if kind == Kind::Leases {
                    self.liveness.broker_lost();
                }
            }
            Event::Crd(Kind::Exports, state) => {
                self.brake.crd(state.clone());
                if self.export_crd.replace(state.clone()) != Some(state) {
                    self.judge();
                }
            }
            Event::Crd(Kind::Properties, state) => {
                let change = self.properties.crd(state);
                self.moved(change);
            }
            Event::Crd(..) => {}
            Event::ClusterUid(uid) => {
                self.brake.cluster_uid(&uid);
                if self.cluster_uid != uid {
                    self.cluster_uid = uid;
                    self.stand();
                    self.judge();
                }
            }
            Event::Leader(leader) => {
                if leader && !self.leader {
                    self.writes.forget();
                    // The one before may have heard more, and what it wrote shows it.
                    self.broker.doubt();
                    self.all_dirty = true;
                    self.renewed = None;
                    self.remembered = None;
                }
                self.leader = leader;
            }
            Event::Failed(op, failure) => self.writes.failed(&op, failure, now),
            Event::WithdrawalApproved => self.approve(),
            Event::Remembered(dead) => {
                self.liveness.remember_dead(dead);
                self.weigh();
            }
        }
    }

    fn applied(&mut self, kind: Kind, key: &ObjectKey, object: Object, now: Now) {
        match object {
            Object::Namespace { terminating } => {
                if self.local.namespaces.insert(key.clone(), terminating) != Some(terminating) {
                    self.touch_namespace(&key.name);
                }
            }
            Object::Service(service) => {
                let unexportable = matches!(service, Service::Unexportable { .. });
                self.local.services.insert(key.clone(), service);
                if unexportable {
                    self.known_unexported(key);
                }
                self.came_back(key);
                self.dirty.insert(key.clone());
            }
            Object::Export(export) => {
                self.brake.applied(Kind::Exports, export.meta.resource_version);
                self.local.exports.insert(key.clone(), export);
                self.came_back(key);
                self.dirty.insert(key.clone());
            }
            Object::SourceSlice(slice) => {
                let touched = self.local.put_source_slice(key, slice);
                self.endpoints_changed(touched);
            }
            Object::Import(import) => {
                self.local.put_import(key, import);
                self.dirty.insert(key.clone());
            }
            Object::ImportedSlice(slice) => {
                let touched = self.local.put_imported_slice(key, slice);
                self.dirty.extend(touched.into_iter().flatten());
            }
            Object::Property(value) => {
                let change = self.properties.applied(&key.name, &value);
                self.moved(change);
            }
            Object::ClusterSet(_, spec) => {
                self.broker.clustersets_present.insert(key.name.to_string());
                self.broker.clustersets.insert(key.name.to_string(), spec.cidrs);
                self.read_cidrs();
            }
            Object::Member(meta, spec) => self.put_member(key, &meta.uid, spec),
            Object::Reservation(meta, spec) => {
                let touched = self.broker.put_reservation(key, Some((meta, &spec)));
                self.dirty.extend(touched);
            }
            Object::ExportRecord(meta, spec) => {
                if let Some(service) = self.broker.put_record(key, meta, spec) {
                    self.own_record_seen(key, &service);
                    self.dirty.insert(service);
                }
            }
            Object::SliceRecord(meta, spec) => {
                if let Some(service) = self.broker.put_slice(key, meta, spec) {
                    self.dirty.insert(service);
                }
            }
            Object::Lease(meta, statement) => self.put_lease(key, &meta, statement, now),
            Object::Unreadable { reason } => {
                if kind == Kind::Reservations {
                    let touched = self.broker.put_reservation(key, None);
                    self.dirty.extend(touched);
                }
                let problem = Problem {
                    object: format!("{kind:?} {key}"),
                    file: None,
                    field: String::new(),
                    reason,
                    severity: Severity::Invalid,
                };
                self.broker.note(unreadable(kind), key, vec![problem]);
                return;
            }
        }
        self.broker.problems.remove(&(unreadable(kind), key.clone()));
    }

    /// An object is not there: its deletion was seen, or it is absent from a list.
    fn gone(&mut self, kind: Kind, key: &ObjectKey, live: bool, now: Now) {
        self.broker.problems.remove(&(unreadable(kind), key.clone()));
        match kind {
            Kind::Namespaces => {
                self.local.namespaces.remove(key);
                self.touch_namespace(&key.name);
            }
            Kind::Services => {
                let published = self.local.exported(key).is_some() || self.is_published(key);
                self.local.services.remove(key);
                if live && published && self.local.exports.contains_key(key) {
                    self.deletion_seen(key);
                }
                self.dirty.insert(key.clone());
            }
            Kind::Exports => {
                let published = self.local.exported(key).is_some() || self.is_published(key);
                self.local.exports.remove(key);
                if live && published {
                    self.deletion_seen(key);
                }
                self.problems.remove(key);
                self.dirty.insert(key.clone());
            }
            Kind::SourceSlices => {
                if let Some((service, _)) = self.local.source_slices.remove(key) {
                    if live {
                        self.endpoints_changed([Some(service), None]);
                    } else {
                        self.dirty.insert(service);
                    }
                }
            }
            Kind::Imports => {
                self.local.drop_import(key);
                self.dirty.insert(key.clone());
                // Its address may be what others lack.
                self.dirty.extend(self.exhausted.keys().cloned());
            }
            Kind::ImportedSlices => {
                if let Some((import, _)) = self.local.imported_slices.remove(key) {
                    self.dirty.insert(import);
                }
            }
            Kind::Properties => {
                if live {
                    let change = self.properties.deleted(&key.name);
                    self.moved(change);
                }
            }
            // What it said stays: a ClusterSet's CIDRs are never others.
            Kind::ClusterSets => _ = self.broker.clustersets_present.remove(&*key.name),
            Kind::Members => {
                self.broker.members_present.remove(&*key.name);
                if live || self.same_members() {
                    self.removed.insert(key.name.to_string(), now);
                }
            }
            Kind::Reservations => {
                let touched = self.broker.drop_reservation(key);
                self.dirty.extend(touched);
                self.dirty.extend(self.exhausted.keys().cloned());
                if let Some(address) = super::broker::address_of(&key.name) {
                    self.dirty.extend(self.local.carriers(address).cloned());
                }
            }
            Kind::ExportRecords => {
                let service = self.broker.drop_record(key, planted(Fault::DeletionIsWithdrawal));
                self.dirty.extend(service);
            }
            Kind::SliceRecords => {
                let service = self.broker.drop_slice(key);
                self.dirty.extend(service);
            }
            // Its member is silent.
            Kind::Leases => {}
        }
    }

    fn listed(&mut self, kind: Kind, resource_version: u64, now: Now) {
        self.writes.answered(kind.at_broker());
        let Some(delivered) = self.lists.complete(kind) else { return };
        if kind == Kind::Members {
            self.members_listed = resource_version;
        }
        for key in self.held_of(kind) {
            if !delivered.contains(&key) {
                self.writes.seen(kind, &key, None);
                self.gone(kind, &key, false, now);
            }
        }
        match kind {
            Kind::Leases => {
                self.liveness.broker_answered(now);
                self.broker.relisted();
            }
            Kind::ExportRecords | Kind::SliceRecords => self.broker.relisted(),
            Kind::Properties => {
                let change = self.properties.listed();
                self.moved(change);
            }
            Kind::Members => {
                self.cast_anchor();
                self.stand();
            }
            Kind::Exports | Kind::Services | Kind::SourceSlices => self.brake.listed(kind, resource_version),
            Kind::Namespaces | Kind::Imports | Kind::ImportedSlices | Kind::ClusterSets | Kind::Reservations => {}
        }
        if kind.at_broker() {
            self.stand();
            self.recall();
        }
        // Of the broker's any: nothing is decided before the last of them was listed, whichever that is.
        if Brake::KINDS.contains(&kind) || kind.at_broker() || kind == Kind::Imports {
            self.judge();
        }
        self.all_dirty = true;
    }

    /// The names of a kind's objects that are held to be there.
    fn held_of(&self, kind: Kind) -> Vec<ObjectKey> {
        match kind {
            Kind::Namespaces => self.local.namespaces.keys().cloned().collect(),
            Kind::Services => self.local.services.keys().cloned().collect(),
            Kind::Exports => self.local.exports.keys().cloned().collect(),
            Kind::SourceSlices => self.local.source_slices.keys().cloned().collect(),
            Kind::Imports => self.local.imports.keys().cloned().collect(),
            Kind::ImportedSlices => self.local.imported_slices.keys().cloned().collect(),
            Kind::Properties | Kind::Leases => Vec::new(),
            Kind::ClusterSets => shared(&self.broker.clustersets_present),
            Kind::Members => shared(&self.broker.members_present),
            Kind::Reservations => {
                let readable = self.broker.reservations.keys().map(|address| writes::reservation_key(*address));
                readable.chain(self.broker.unreadable_reservations.iter().cloned()).collect()
            }
            Kind::ExportRecords => self.broker.present_records().collect(),
            Kind::SliceRecords => self.broker.present_slices().collect(),
        }
    }

    fn touch_namespace(&mut self, namespace: &str) {
        self.dirty.extend(self.local.of_namespace(namespace));
        self.dirty.extend(self.broker.of_namespace(namespace));
    }

    pub(super) fn read_cidrs(&mut self) {
        let Some(identity) = &self.identity else { return };
        if self.broker.read_cidrs(&identity.clusterset) {
            self.broker.recheck();
            self.all_dirty = true;
        }
    }

    fn put_lease(&mut self, key: &ObjectKey, meta: &Meta, statement: Statement, now: Now) {
        let version = meta.resource_version;
        let Ok(cluster) = validate::cluster_of(&key.namespace).map(str::to_owned) else { return };
        if &*key.name != LEASE {
            return;
        }
        let ours = self.identity.as_ref().is_some_and(|identity| identity.cluster == cluster);
        if statement.left {
            self.liveness.member_removed(&cluster);
        } else if self.broker.counts(&cluster) && !ours {
            self.liveness.member_added(&cluster);
        }
        let lease = self.broker.leases.entry(cluster.clone()).or_default();
        if lease.uid != meta.uid && !lease.uid.is_empty() && self.verdict.health.contains_key(&cluster) {
            // Another lease: its versions have nothing to do with those of the one before.
            let dead = self.liveness.dead().contains(&cluster);
            self.liveness.member_removed(&cluster);
            self.liveness.member_added(&cluster);
            if dead {
                self.liveness.remember_dead([cluster.clone()].into());
            }
        }
        lease.uid.clone_from(&meta.uid);
        self.liveness.renewal_seen(&cluster, Token { version, serial: statement.serial }, now);
        let renewed = version > lease.version && lease.version != 0;
        if renewed {
            lease.renewed = Some(now);
        }
        lease.version = version;
        lease.statement = statement;
        if ours || self.departed.contains(&cluster) {
            self.writes.renewed();
            return;
        }
        if renewed && let Some(touched) = self.broker.witness(&cluster) {
            self.dirty.extend(touched);
            self.touch_cluster(&cluster);
        }
    }

    /// Services that have something of a cluster.
    pub(super) fn touch_cluster(&mut self, cluster: &str) {
        self.dirty.extend(self.broker.services_of(cluster).map(|(service, _)| service.clone()));
        let named = self.local.imports.iter().filter(|(_, import)| import.clusters.iter().any(|of| of == cluster));
        self.dirty.extend(named.map(|(key, _)| key.clone()));
        let slices = self.local.imported_slices.iter().filter(|(_, _, slice)| slice.cluster == cluster);
        self.dirty.extend(slices.map(|(import, ..)| import.clone()));
    }

    /// The CRD of ServiceExports is gone, or goes.
    pub(super) fn exports_gone(&self) -> bool {
        self.export_crd == Some(CrdState::Gone)
    }
}

fn shared(names: &std::collections::BTreeSet<String>) -> Vec<ObjectKey> {
    names.iter().map(|name| ObjectKey::new(super::super::record::SHARED_NAMESPACE, name.as_str())).collect()
}

/// The topic of problems of objects that cannot be read at all.
const fn unreadable(kind: Kind) -> &'static str {
    match kind {
        Kind::Namespaces => "namespace unreadable",
        Kind::Services => "service unreadable",
        Kind::Exports => "export unreadable",
        Kind::SourceSlices => "source slice unreadable",
        Kind::Imports => "import unreadable",
        Kind::ImportedSlices => "imported slice unreadable",
        Kind::Properties => "property unreadable",
        Kind::ClusterSets => "clusterset unreadable",
        Kind::Members => "member unreadable",
        Kind::Reservations => "reservation unreadable",
        Kind::ExportRecords => "export record unreadable",
        Kind::SliceRecords => "slice record unreadable",
        Kind::Leases => "lease unreadable",
    }
}
