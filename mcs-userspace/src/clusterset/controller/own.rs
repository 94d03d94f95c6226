//! What of this cluster's own exports is there, what is missing, and what of that may be withdrawn.

use std::collections::BTreeSet;

use super::super::brake::{Brake, Decision, Part};
use super::super::event::Kind;
use super::super::local::Service;
use super::super::service::Exported;
use super::super::validate::{self, Limits};
use super::Controller;
use crate::model::ObjectKey;

/// This cluster's own export of a service.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Own {
    /// There is none.
    Absent,
    /// It is there, and valid.
    Live(Exported),
    /// It was published, is missing, and nobody may withdraw it; what was published, if that is known.
    Held(Option<Exported>),
}

impl Controller {
    /// This cluster's own export of a service.
    pub(super) fn own(&mut self, key: &ObjectKey, me: &str) -> Own {
        if let Some(exported) = self.local.exported(key) {
            let checked = validate::exported(&Limits::default(), &format!("Service {key}"), &exported);
            if checked.problems.is_empty() {
                self.problems.remove(key);
            } else {
                self.problems.insert(key.clone(), checked.problems);
            }
            return Own::Live(checked.value);
        }
        if self.withdrawn.contains(key) || !self.published(key, me) {
            return Own::Absent;
        }
        Own::Held(self.broker.record(key, me).and_then(|record| record.exported.clone()))
    }

    /// Whether its endpoints are those that were published, because those that are here are not to be believed.
    pub(super) fn endpoints_as_published(&self, key: &ObjectKey) -> bool {
        let unknown = !self.lists.known(Kind::SourceSlices);
        !self.local.has_endpoints(key)
            && (unknown || self.pending.contains_key(key) || self.local.exported(key).is_none())
    }

    /// Whether a service was published as ours.
    pub(super) fn published(&self, key: &ObjectKey, me: &str) -> bool {
        let record = self.broker.record(key, me).is_some_and(|record| !record.withdrawn);
        let import = self.local.our_import(key);
        record || import.is_some_and(|import| import.clusters.iter().any(|cluster| cluster == me))
    }

    pub(super) fn is_published(&self, key: &ObjectKey) -> bool {
        self.identity.as_ref().is_some_and(|identity| self.published(key, &identity.cluster))
    }

    /// Whether a published export had endpoints.
    fn published_endpoints(&self, key: &ObjectKey, me: &str) -> bool {
        let group = (me.to_owned(), key.clone());
        let mut records = self.broker.slices.group(&group);
        let mut imported = self.local.imported_slices.group(key).filter(|(_, slice)| slice.cluster == me);
        records.any(|(_, slice)| !slice.spec.slice.endpoints.is_empty())
            || imported.any(|(_, slice)| !slice.endpoints.is_empty())
    }

    /// What of a published export is missing.
    fn missing(&self, key: &ObjectKey, me: &str) -> Option<Part> {
        if self.withdrawn.contains(key) {
            return None;
        }
        if self.local.exported(key).is_none() {
            return Some(Part::Export);
        }
        let emptied = !self.local.has_endpoints(key) && !self.emptied.contains(key);
        (emptied && self.published_endpoints(key, me)).then_some(Part::Endpoints)
    }

    /// Looks at all that was published, after a list.
    pub(super) fn judge(&mut self) {
        let Some(me) = self.identity.as_ref().map(|identity| identity.cluster.clone()) else { return };
        if !self.own_known() && !self.exports_gone() {
            return;
        }
        let ours = self.local.imports.keys().filter(|key| self.published(key, &me)).cloned();
        let mut published: BTreeSet<ObjectKey> = ours.collect();
        let records = self.broker.services_of(&me).filter(|(_, record)| !record.withdrawn);
        published.extend(records.map(|(service, _)| service.clone()));
        published.retain(|key| !self.withdrawn.contains(key));
        let before = std::mem::take(&mut self.pending);
        self.pending = published.iter().filter_map(|key| Some((key.clone(), self.missing(key, &me)?))).collect();
        if self.marked && self.broker_known() {
            for (key, part) in self.brake.decide(published.len(), &self.pending) {
                self.pending.remove(&key);
                match part {
                    Part::Export => {
                        if self.broker.record(&key, &me).is_none() {
                            self.untold.insert(key.clone());
                        }
                        self.withdrawn.insert(key.clone());
                    }
                    Part::Endpoints => _ = self.emptied.insert(key.clone()),
                }
                self.dirty.insert(key);
            }
        }
        self.dirty.extend(before.into_keys());
        self.dirty.extend(self.pending.keys().cloned());
    }

    /// A published export's ServiceExport or Service was seen deleted.
    pub(super) fn deletion_seen(&mut self, key: &ObjectKey) {
        if self.withdrawn.contains(key) {
            return;
        }
        match self.brake.deleted(key) {
            Decision::Withdraw => {
                self.pending.remove(key);
                self.withdrawn.insert(key.clone());
            }
            Decision::Hold(_) => _ = self.pending.insert(key.clone(), Part::Export),
        }
        self.dirty.insert(key.clone());
    }

    /// The Service of an export is of a type that cannot be exported: so it is not. What a list says is no knowledge, it is
    /// judged with the rest: an API server that was restored lists what was.
    pub(super) fn known_unexported(&mut self, key: &ObjectKey) {
        if self.lists.all_current(&Brake::KINDS) && self.local.exports.contains_key(key) && self.is_published(key) {
            self.withdrawn.insert(key.clone());
            self.pending.remove(key);
            self.brake.came_back(key, None);
        }
    }

    /// A ServiceExport or a Service is there.
    pub(super) fn came_back(&mut self, key: &ObjectKey) {
        if self.local.exported(key).is_none() {
            self.known_unexported_export(key);
            return;
        }
        self.withdrawn.remove(key);
        self.untold.remove(key);
        if !self.pending.contains_key(key) {
            return;
        }
        let Some(me) = self.identity.as_ref().map(|identity| identity.cluster.clone()) else { return };
        let missing = self.missing(key, &me);
        self.brake.came_back(key, missing);
        match missing {
            Some(part) => _ = self.pending.insert(key.clone(), part),
            None => _ = self.pending.remove(key),
        }
        self.dirty.insert(key.clone());
    }

    /// The export of a Service that cannot be exported came.
    fn known_unexported_export(&mut self, key: &ObjectKey) {
        if matches!(self.local.services.get(key), Some(Service::Unexportable { .. })) {
            self.known_unexported(key);
        }
    }

    /// Slices of these Services changed.
    pub(super) fn endpoints_changed(&mut self, services: [Option<ObjectKey>; 2]) {
        for service in services.into_iter().flatten() {
            if self.local.has_endpoints(&service) {
                self.emptied.remove(&service);
                if self.pending.get(&service) == Some(&Part::Endpoints) {
                    self.pending.remove(&service);
                    self.brake.came_back(&service, None);
                }
            } else if self.lists.settled(&[Kind::SourceSlices]) && !self.pending.contains_key(&service) {
                self.emptied.insert(service.clone());
            }
            self.dirty.insert(service);
        }
    }

    /// A record of ours was seen: one that nobody expects is judged.
    pub(super) fn own_record_seen(&mut self, record: &ObjectKey, service: &ObjectKey) {
        let Some(me) = self.identity.as_ref().map(|identity| identity.cluster.clone()) else { return };
        if *record.namespace != *super::super::record::member_namespace(&me)
            || !self.lists.settled(&[Kind::ExportRecords])
        {
            return;
        }
        let unexpected = self.own_known()
            && self.published(service, &me)
            && self.local.exported(service).is_none()
            && !self.withdrawn.contains(service)
            && !self.pending.contains_key(service);
        if unexpected {
            self.judge();
        }
    }
}
