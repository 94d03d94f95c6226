//! Own exports to records at the broker, and to conditions.
//!
//! ```text
//!   valid, or held ─► ExportRecord + a SliceRecord for each EndpointSlice       one endpoint changes one record
//!   withdrawn      ─► ExportRecord as a tombstone ─► its SliceRecords go ─► after a while the tombstone goes
//! ```
//!
//! A slice that is no more is emptied before it is deleted: what only vanishes at the broker is in force for its readers.

use super::super::event::{Kind, Now, Op};
use super::super::local::{Condition, Meta, Regarding, Service, Truth};
use super::super::merge::{CONFLICT, NO_CONFLICTS, conflict_condition};
use super::super::record::{ExportRecordSpec, SliceRecordSpec, VERSION, export_name, member_namespace};
use super::super::service::{ChangedAt, Endpoints, Exported};
use super::super::slices::slice_record_name;
use super::broker::{EXPORT, SLICE, weight};
use super::own::Own;
use super::sinks::Merging;
use super::{Controller, condition, writes};
use crate::model::ObjectKey;

/// Types of the other conditions of a ServiceExport.
const VALID: &str = "Valid";
const READY: &str = "Ready";

impl Controller {
    /// What of this cluster's own should be at the broker.
    pub(super) fn publish(&mut self, key: &ObjectKey, me: &str, own: &Own, now: Now) {
        match own {
            Own::Absent => {
                self.unpublished.remove(key);
                self.mean(key, 0);
                self.withdraw(key, me, now);
            }
            Own::Live(exported) | Own::Held(Some(exported)) => {
                self.put_record(key, me, exported, now);
                let slices = self.put_slices(key, me, now);
                self.mean(key, slices.wrapping_add(weight(EXPORT, &export_name(key))));
            }
            // The broker has the record, if it was ever there: nothing of it is known yet.
            Own::Held(None) => self.mean(key, weight(EXPORT, &export_name(key))),
        }
    }

    /// This service adds so much to the digest of what is meant to be published.
    fn mean(&mut self, key: &ObjectKey, new: u64) {
        let old = if new == 0 { self.meant.remove(key) } else { self.meant.insert(key.clone(), new) };
        self.meant_total = self.meant_total.wrapping_sub(old.unwrap_or_default()).wrapping_add(new);
    }

    fn put_record(&mut self, key: &ObjectKey, me: &str, exported: &Exported, now: Now) {
        if !self.broker_known() {
            return;
        }
        let old = self.broker.record(key, me);
        let ips = self.local.our_import(key).map(|import| import.spec.ips.clone()).unwrap_or_default();
        let wanted = ExportRecordSpec {
            version: VERSION,
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            withdrawn: false,
            exported: exported.clone(),
            ips,
            other: old.map(|old| old.spec.other.clone()).unwrap_or_default(),
        };
        if old.is_some_and(|old| old.present && old.spec == wanted) {
            self.unpublished.remove(key);
            return;
        }
        self.unpublished.insert(key.clone());
        let meta = old.filter(|old| old.present).map(|old| old.meta.clone()).unwrap_or_default();
        let name = ObjectKey::new(member_namespace(me), export_name(key));
        self.writes.propose(key, Op::PutExportRecord(name, meta, Box::new(wanted)), now);
    }

    /// This cluster's own slices of a service, by the names of their records.
    pub(super) fn own_slices(&self, key: &ObjectKey, me: &str) -> Vec<(ObjectKey, Endpoints)> {
        let namespace = member_namespace(me);
        if self.endpoints_as_published(key) {
            let group = (me.to_owned(), key.clone());
            let slices = self.broker.slices.group(&group);
            return slices.map(|(name, slice)| (name.clone(), slice.spec.slice.clone())).collect();
        }
        let slices = self.local.source_slices.group(key);
        slices
            .map(|(name, slice)| {
                let record = slice_record_name(key, &name.name);
                (ObjectKey::new(namespace.as_str(), record), slice.clone())
            })
            .collect()
    }

    /// What they add to the digest.
    fn put_slices(&mut self, key: &ObjectKey, me: &str, now: Now) -> u64 {
        if !self.broker_known() {
            return 0;
        }
        let wanted = self.own_slices(key, me);
        let mut digest = 0_u64;
        for (name, slice) in &wanted {
            digest = digest.wrapping_add(weight(SLICE, &name.name));
            let old = self.broker.slices.get(name);
            if old.is_some_and(|old| old.present && old.spec.slice == *slice && old.spec.version == VERSION) {
                continue;
            }
            let op = self.put_slice(key, name, slice.clone());
            self.writes.propose(key, op, now);
        }
        if self.endpoints_as_published(key) {
            return digest;
        }
        let group = (me.to_owned(), key.clone());
        let surplus: Vec<(ObjectKey, Option<Endpoints>)> = self
            .broker
            .slices
            .group(&group)
            .filter(|(name, _)| !wanted.iter().any(|(wanted, _)| wanted == *name))
            .map(|(name, slice)| {
                let Endpoints { family, ports, endpoints, changed_at: _ } = &slice.spec.slice;
                let emptied = Endpoints {
                    family: *family,
                    ports: ports.clone(),
                    endpoints: Vec::new(),
                    changed_at: ChangedAt::default(),
                };
                (name.clone(), (!endpoints.is_empty()).then_some(emptied))
            })
            .collect();
        for (name, emptied) in surplus {
            if let Some(emptied) = emptied {
                let op = self.put_slice(key, &name, emptied);
                self.writes.propose(key, op, now);
            } else {
                self.delete_slice(key, &name, now);
            }
        }
        digest
    }

    fn put_slice(&self, key: &ObjectKey, name: &ObjectKey, slice: Endpoints) -> Op {
        let old = self.broker.slices.get(name);
        let spec = SliceRecordSpec {
            version: VERSION,
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            slice,
            other: old.map(|old| old.spec.other.clone()).unwrap_or_default(),
        };
        let meta = old.filter(|old| old.present).map(|old| old.meta.clone()).unwrap_or_default();
        Op::PutSliceRecord(name.clone(), meta, Box::new(spec))
    }

    fn delete_slice(&mut self, key: &ObjectKey, name: &ObjectKey, now: Now) {
        let Some(old) = self.broker.slices.get(name) else { return };
        if old.present {
            self.writes.propose(key, Op::DeleteSliceRecord(name.clone(), old.meta.clone()), now);
        } else {
            self.broker.forget_slice(name);
        }
    }

    /// Withdraws what `me`, this cluster as it is or was named, published of a service.
    pub(super) fn withdraw(&mut self, key: &ObjectKey, me: &str, now: Now) {
        if !self.broker_known() {
            return;
        }
        let name = ObjectKey::new(member_namespace(me), export_name(key));
        let Some(old) = self.broker.record(key, me) else {
            self.tombstones.remove(&name);
            self.delete_slices(key, me, now);
            if self.untold.contains(key) {
                let wanted = ExportRecordSpec {
                    version: VERSION,
                    namespace: key.namespace.to_string(),
                    name: key.name.to_string(),
                    withdrawn: true,
                    ..ExportRecordSpec::default()
                };
                self.writes.propose(key, Op::PutExportRecord(name, Meta::default(), Box::new(wanted)), now);
            }
            return;
        };
        self.untold.remove(key);
        let meta = if old.present { old.meta.clone() } else { Meta::default() };
        if !old.spec.withdrawn {
            // Others may still have what vanished here: they are told all the same.
            let wanted = ExportRecordSpec { version: VERSION, withdrawn: true, ips: Vec::new(), ..old.spec.clone() };
            return self.writes.propose(key, Op::PutExportRecord(name, meta, Box::new(wanted)), now);
        }
        if !old.present {
            self.tombstones.remove(&name);
            let named = self.local.our_import(key).is_some_and(|import| import.clusters.iter().any(|of| of == me));
            if !named {
                self.broker.forget_record(key, me);
            }
            return self.delete_slices(key, me, now);
        }
        let since = *self.tombstones.entry(name.clone()).or_insert(now);
        self.delete_slices(key, me, now);
        let until = since + self.settings.tombstone;
        if until <= now {
            self.writes.propose(key, Op::DeleteExportRecord(name, meta), now);
        } else {
            self.writes.remind(key, until);
        }
    }

    fn delete_slices(&mut self, key: &ObjectKey, me: &str, now: Now) {
        let group = (me.to_owned(), key.clone());
        let names: Vec<ObjectKey> = self.broker.slices.group(&group).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.delete_slice(key, &name, now);
        }
    }

    /// The conditions of this cluster's ServiceExport.
    pub(super) fn judge_export(&mut self, key: &ObjectKey, of: Option<(&str, &Merging)>, now: Now) {
        if of.is_none() {
            self.tell_trouble(now);
        }
        let Some(export) = self.local.exports.get(key) else { return };
        if !self.lists.known(Kind::Services) {
            return;
        }
        let (meta, generation, seen) = (export.meta.clone(), export.generation, export.conditions.clone());
        let valid = self.validity(key);
        let is_valid = valid.status == Truth::True;
        let ready = if is_valid {
            self.readiness(key, of.map(|(me, _)| me))
        } else {
            condition(READY, Truth::False, "Pending", "the export is not valid")
        };
        let conflict = match of.filter(|_| is_valid).map(|(_, merging)| merging) {
            // Of those who have not told yet nobody knows whether they agree: what was known stays.
            Some(merging) if !merging.ghosts.is_empty() => seen.iter().find(|seen| seen.kind == CONFLICT).cloned(),
            Some(merging) => merging.merged.as_ref().map(conflict_condition),
            None => None,
        };
        let conflict = conflict.unwrap_or_else(|| condition(CONFLICT, Truth::False, NO_CONFLICTS, ""));
        let wanted = vec![valid, ready, conflict];
        if writes::has_conditions(&seen, &wanted) {
            return;
        }
        for (wanted, bad) in wanted.iter().zip([Truth::False, Truth::False, Truth::True]) {
            let told = seen.iter().any(|seen| seen.kind == wanted.kind && seen.reason == wanted.reason);
            if wanted.status == bad && !told && wanted.reason != "Pending" {
                let about = Regarding::Export(key.clone());
                self.tell(about, true, &event_reason(&wanted.reason, &wanted.kind), &wanted.message, now);
            }
        }
        self.writes.propose(key, Op::SetExportConditions(key.clone(), meta, generation, wanted), now);
    }

    fn validity(&self, key: &ObjectKey) -> Condition {
        match self.local.services.get(key) {
            Some(Service::Exportable(_)) => condition(VALID, Truth::True, "Valid", "the Service is exported"),
            Some(Service::Unexportable { kind }) => condition(
                VALID,
                Truth::False,
                "InvalidServiceType",
                format!("a Service of type {kind} cannot be exported"),
            ),
            None => condition(VALID, Truth::False, "NoService", format!("there is no Service {key}")),
        }
    }

    fn readiness(&self, key: &ObjectKey, me: Option<&str>) -> Condition {
        let pending = |message: String| condition(READY, Truth::False, "Pending", message);
        let Some(me) = me else {
            return pending(
                self.trouble.clone().unwrap_or_else(|| "the cluster is no member of a ClusterSet".to_owned()),
            );
        };
        let target = (Kind::ExportRecords, ObjectKey::new(member_namespace(me), export_name(key)));
        if let Some(refusal) = self.writes.refusal(&target) {
            return condition(READY, Truth::False, "Failed", format!("the broker refuses the export: {refusal}"));
        }
        match self.broker.record(key, me) {
            Some(record) if !record.spec.withdrawn => {
                condition(READY, Truth::True, "Exported", "the ClusterSet knows of the export")
            }
            _ if !self.broker_known() => pending("the broker has not been reached yet".to_owned()),
            _ => match self.writes.broker_trouble() {
                Some(_) => pending("the broker cannot be reached".to_owned()),
                None => pending("the export is on its way to the broker".to_owned()),
            },
        }
    }
}

/// The reason of an event: one word, though conditions may have several.
fn event_reason(reason: &str, kind: &str) -> String {
    if reason.contains(',') { kind.to_owned() } else { reason.to_owned() }
}
