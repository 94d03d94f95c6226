//! Taking in records: exports and slices, each checked before anything of it counts.

use super::{Broker, Content, EXPORT, Record, SLICE, Slice, service_of_export, service_of_slice};
use crate::clusterset::fault::{Fault, planted};
use crate::clusterset::local::Meta;
use crate::clusterset::record::{ExportRecordSpec, MemberSpec, SliceRecordSpec};
use crate::clusterset::validate;
use crate::model::ObjectKey;

impl Broker {
    /// Takes in an export record. The service that it is of.
    pub(in crate::clusterset::controller) fn put_record(
        &mut self,
        key: &ObjectKey,
        meta: Meta,
        spec: ExportRecordSpec,
    ) -> Option<ObjectKey> {
        let cluster = validate::cluster_of(&key.namespace).ok()?.to_owned();
        let service = service_of_export(&key.name)?;
        let old = self.records.get_mut(&service).and_then(|of| of.remove(&cluster));
        let present = self.present.entry(cluster.clone()).or_default();
        if old.is_none() && present.exports >= self.limits.exports {
            let problem = validate::too_many("ExportRecord", &key.namespace, &key.name, self.limits.exports);
            self.problems.insert((EXPORT, key.clone()), vec![problem]);
            return None;
        }
        if old.is_none() {
            present.exports += 1;
        }
        self.count(
            &cluster,
            EXPORT,
            &key.name,
            old.as_ref().is_some_and(|old| old.present && !old.spec.withdrawn),
            !spec.withdrawn,
        );
        let mut record = Record { meta, exported: None, ips: Vec::new(), present: true, withdrawn: false, spec };
        if let Some(old) = old {
            self.unclaim(&service, &cluster, &old.ips);
            (record.exported, record.ips, record.withdrawn) = (old.exported, old.ips, old.withdrawn);
        }
        self.check_record(key, &mut record);
        self.claim(&service, &cluster, &record.ips);
        self.records.entry(service.clone()).or_default().insert(cluster, record);
        Some(service)
    }

    pub(super) fn check_record(&mut self, key: &ObjectKey, record: &mut Record) {
        let checked = validate::export_record(&self.limits, &self.cidrs, &key.namespace, &key.name, &record.spec);
        let problems = match checked {
            Ok(checked) => {
                record.withdrawn = checked.value.withdrawn && !planted(Fault::TombstoneIgnored);
                record.ips = if record.withdrawn { Vec::new() } else { checked.value.ips };
                record.exported = Some(checked.value.exported);
                checked.problems
            }
            // What it said before stays.
            Err(problem) => vec![problem],
        };
        self.note(EXPORT, key, problems);
    }

    /// An export record is not there any more. The service that it was of.
    pub(in crate::clusterset::controller) fn drop_record(
        &mut self,
        key: &ObjectKey,
        withdrawn: bool,
    ) -> Option<ObjectKey> {
        let cluster = validate::cluster_of(&key.namespace).ok()?.to_owned();
        let service = service_of_export(&key.name)?;
        self.problems.remove(&(EXPORT, key.clone()));
        let record = self.records.get_mut(&service)?.get_mut(&cluster)?;
        let counted = record.present && !record.spec.withdrawn;
        record.withdrawn |= withdrawn;
        let withdrawn = record.withdrawn;
        record.present = false;
        self.count(&cluster, EXPORT, &key.name, counted, false);
        if !withdrawn {
            self.vanished(&cluster);
        }
        Some(service)
    }

    /// Forgets a record that is withdrawn and gone, once nothing of it is left here either.
    pub(in crate::clusterset::controller) fn forget_record(&mut self, service: &ObjectKey, cluster: &str) {
        if let Some(of) = self.records.get_mut(service) {
            if of.get(cluster).is_some_and(|record| record.withdrawn && !record.present) {
                of.remove(cluster);
                if let Some(present) = self.present.get_mut(cluster) {
                    present.exports = present.exports.saturating_sub(1);
                }
            }
            if of.is_empty() {
                self.records.remove(service);
            }
        }
    }

    /// Takes in a slice record. The service that it is of.
    pub(in crate::clusterset::controller) fn put_slice(
        &mut self,
        key: &ObjectKey,
        meta: Meta,
        spec: SliceRecordSpec,
    ) -> Option<ObjectKey> {
        let cluster = validate::cluster_of(&key.namespace).ok()?.to_owned();
        let service = service_of_slice(&key.name)?;
        let old = self.slices.remove(key).map(|(_, slice)| slice);
        let present = self.present.entry(cluster.clone()).or_default();
        if old.is_none() && present.slices >= self.limits.slices {
            let problem = validate::too_many("SliceRecord", &key.namespace, &key.name, self.limits.slices);
            self.problems.insert((SLICE, key.clone()), vec![problem]);
            return None;
        }
        if old.is_none() {
            present.slices += 1;
        }
        self.count(&cluster, SLICE, &key.name, old.as_ref().is_some_and(|old| old.present), true);
        let content = old.map_or(Content::Nothing, |old| match old.content {
            Content::AsWritten => Content::Part(old.spec.slice),
            other @ (Content::Part(_) | Content::Nothing) => other,
        });
        let mut slice = Slice { meta, spec, content, present: true };
        self.check_slice(&cluster, key, &mut slice);
        self.slices.insert(key.clone(), (cluster, service.clone()), slice);
        Some(service)
    }

    pub(super) fn check_slice(&mut self, cluster: &str, key: &ObjectKey, slice: &mut Slice) {
        let nobody = MemberSpec::default();
        let member = self.members.get(cluster).unwrap_or(&nobody);
        let checked = validate::slice_record(&self.limits, member, &self.cidrs, &key.namespace, &key.name, &slice.spec);
        let problems = match checked {
            Ok(checked) => {
                let endpoints = checked.value.slice;
                slice.content =
                    if endpoints == slice.spec.slice { Content::AsWritten } else { Content::Part(endpoints) };
                checked.problems
            }
            Err(problem) => vec![problem],
        };
        self.note(SLICE, key, problems);
    }

    /// A slice record is not there any more. The service that it was of. One that its source had emptied is forgotten.
    pub(in crate::clusterset::controller) fn drop_slice(&mut self, key: &ObjectKey) -> Option<ObjectKey> {
        self.problems.remove(&(SLICE, key.clone()));
        let ((cluster, service), slice) = self.slices.get_mut(key)?;
        let (cluster, service) = (cluster.clone(), service.clone());
        let (counted, emptied) = (std::mem::replace(&mut slice.present, false), slice.spec.slice.endpoints.is_empty());
        self.count(&cluster, SLICE, &key.name, counted, false);
        if emptied {
            self.forget_slice(key);
        } else {
            self.vanished(&cluster);
        }
        Some(service)
    }

    /// Forgets a slice record.
    pub(in crate::clusterset::controller) fn forget_slice(&mut self, key: &ObjectKey) {
        if let Some(((cluster, _), _)) = self.slices.remove(key)
            && let Some(present) = self.present.get_mut(&cluster)
        {
            present.slices = present.slices.saturating_sub(1);
        }
    }
}
