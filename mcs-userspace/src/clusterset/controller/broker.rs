//! What lies at the broker, and what lay there: a record that merely vanished is still what its source said last.
//!
//! ```text
//!             written                 tombstone                     deleted
//!   nothing ──────────► in force ───────────────► withdrawn ───────────────────► withdrawn
//!                        │    ▲
//!                 deleted│    │written again
//!                        ▼    │
//!                    vanished: in force ── its source says that this is no record of it ──► withdrawn
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::grouped::Grouped;
use crate::clusterset::event::Now;
use crate::clusterset::fault::{Fault, planted};
use crate::clusterset::local::Meta;
use crate::clusterset::record::{
    ExportRecordSpec, MemberSpec, ReservationSpec, SliceRecordSpec, Statement, export_name, member_namespace,
};
use crate::clusterset::service::{Endpoints, Exported};
use crate::clusterset::validate::{self, Limits};
use crate::clusterset::vip;
use crate::model::ObjectKey;
use crate::problem::{Problem, Severity};

/// A renewal that is seen within this time may have been made before what was seen already.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

/// An export record, as it was last seen.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) meta: Meta,
    pub(super) spec: ExportRecordSpec,
    /// What of it is usable; none if nothing ever was.
    pub(super) exported: Option<Exported>,
    pub(super) ips: Vec<IpAddr>,
    /// It is at the broker.
    pub(super) present: bool,
    /// Its source withdrew it.
    pub(super) withdrawn: bool,
}

/// A slice record, as it was last seen.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub(super) meta: Meta,
    pub(super) spec: SliceRecordSpec,
    content: Content,
    /// It is at the broker.
    pub(super) present: bool,
}

#[derive(Clone, Debug)]
enum Content {
    /// All of it is usable.
    AsWritten,
    /// This is.
    Part(Endpoints),
    /// Nothing is.
    Nothing,
}

impl Slice {
    /// What of it is usable.
    pub(super) const fn endpoints(&self) -> Option<&Endpoints> {
        match &self.content {
            Content::AsWritten => Some(&self.spec.slice),
            Content::Part(endpoints) => Some(endpoints),
            Content::Nothing => None,
        }
    }
}

/// A reserved address.
#[derive(Clone, Debug)]
pub(super) struct Reserved {
    pub(super) meta: Meta,
    pub(super) service: ObjectKey,
    pub(super) holder: String,
}

/// A member's lease.
#[derive(Clone, Debug, Default)]
pub(super) struct Lease {
    pub(super) uid: String,
    pub(super) version: u64,
    pub(super) statement: Statement,
    /// Renewals seen since something vanished, or since its records were listed.
    pub(super) witnesses: u8,
    /// Since when.
    since: Now,
}

/// Whose slices, of which service.
pub(super) type SliceGroup = (String, ObjectKey);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Broker {
    limits: Limits,
    /// When something was last heard.
    pub(super) now: Now,
    /// By id.
    pub(super) clustersets: BTreeMap<String, Vec<String>>,
    /// Those that are there.
    pub(super) clustersets_present: BTreeSet<String>,
    /// Of the ClusterSet that the observer is in.
    pub(super) cidrs: Vec<IpNet>,
    /// By id: as last seen, whether it is there or merely vanished.
    pub(super) members: BTreeMap<String, MemberSpec>,
    /// Those that are there.
    pub(super) members_present: BTreeSet<String>,
    /// Removed by the broker's admin.
    pub(super) expelled: BTreeSet<String>,
    records: BTreeMap<ObjectKey, BTreeMap<String, Record>>,
    pub(super) slices: Grouped<SliceGroup, Slice>,
    pub(super) reservations: BTreeMap<IpAddr, Reserved>,
    reserved_for: BTreeMap<ObjectKey, BTreeSet<IpAddr>>,
    /// Names of reservations that cannot be read: their addresses are taken.
    pub(super) unreadable_reservations: BTreeSet<ObjectKey>,
    /// By cluster id.
    pub(super) leases: BTreeMap<String, Lease>,
    /// Digests of the names of the records that are there, tombstones left out, and how many there are of each kind.
    present: BTreeMap<String, Present>,
    /// Members of which everything that they mean to have at the broker was seen there.
    pub(super) proven: BTreeSet<String>,
    /// Members of which something vanished since.
    unsettled: BTreeSet<String>,
    /// Which services claim an address by a record.
    claims: BTreeMap<IpAddr, BTreeSet<(ObjectKey, String)>>,
    pub(super) problems: BTreeMap<(&'static str, ObjectKey), Vec<Problem>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Present {
    digest: u64,
    exports: usize,
    slices: usize,
}

/// The service of an export record's name.
pub(super) fn service_of_export(name: &str) -> Option<ObjectKey> {
    let (namespace, service) = name.split_once('.')?;
    Some(ObjectKey::new(namespace, service))
}

/// The service of a slice record's name.
pub(super) fn service_of_slice(name: &str) -> Option<ObjectKey> {
    let (service, _) = name.rsplit_once('.')?;
    service_of_export(service)
}

/// What a record adds to its member's digest.
pub(super) fn weight(kind: &str, name: &str) -> u64 {
    let bytes = kind.bytes().chain([b'/']).chain(name.bytes());
    let mut hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The kind of an export record in [`weight`].
pub(super) const EXPORT: &str = "export";
/// The kind of a slice record in [`weight`].
pub(super) const SLICE: &str = "slice";

impl Broker {
    /// The records of a service, by cluster.
    pub(super) fn records(&self, service: &ObjectKey) -> impl Iterator<Item = (&str, &Record)> {
        self.records.get(service).into_iter().flatten().map(|(cluster, record)| (cluster.as_str(), record))
    }

    /// A cluster's record of a service.
    pub(super) fn record(&self, service: &ObjectKey, cluster: &str) -> Option<&Record> {
        self.records.get(service)?.get(cluster)
    }

    /// All services that a cluster has a record of.
    pub(super) fn services_of<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = (&'a ObjectKey, &'a Record)> {
        self.records.iter().filter_map(move |(service, records)| Some((service, records.get(cluster)?)))
    }

    /// All services with records or reservations.
    pub(super) fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.records.keys().chain(self.reserved_for.keys())
    }

    /// All services of a namespace with records.
    pub(super) fn of_namespace(&self, namespace: &str) -> Vec<ObjectKey> {
        let first = ObjectKey::new(namespace, "");
        let inside = |key: &&ObjectKey| &*key.namespace == namespace;
        self.records.range(first..).map(|(key, _)| key).take_while(inside).cloned().collect()
    }

    /// Names of export records that are there.
    pub(super) fn present_records(&self) -> impl Iterator<Item = ObjectKey> {
        self.records.iter().flat_map(|(service, of)| {
            let present = of.iter().filter(|(_, record)| record.present);
            present.map(|(cluster, _)| ObjectKey::new(member_namespace(cluster), export_name(service)))
        })
    }

    /// Names of slice records that are there.
    pub(super) fn present_slices(&self) -> impl Iterator<Item = ObjectKey> {
        self.slices.iter().filter(|(_, _, slice)| slice.present).map(|(_, key, _)| key.clone())
    }

    /// The services that have reservations.
    pub(super) fn reserved(&self) -> impl Iterator<Item = &ObjectKey> {
        self.reserved_for.keys()
    }

    /// The addresses that are reserved for a service.
    pub(super) fn reserved_for(&self, service: &ObjectKey) -> impl Iterator<Item = (IpAddr, &Reserved)> {
        let addresses = self.reserved_for.get(service).into_iter().flatten();
        addresses.filter_map(|address| Some((*address, self.reservations.get(address)?)))
    }

    /// The services that claim an address by records, and whose records.
    pub(super) fn claims(&self, address: IpAddr) -> impl Iterator<Item = (&ObjectKey, &str)> {
        self.claims.get(&address).into_iter().flatten().map(|(service, cluster)| (service, cluster.as_str()))
    }

    /// Whether a cluster's records count.
    pub(super) fn counts(&self, cluster: &str) -> bool {
        self.members.get(cluster).is_some_and(|member| !member.revoked)
    }

    /// Whether the broker's admin took a cluster's records out of force.
    pub(super) fn revoked(&self, cluster: &str) -> bool {
        self.expelled.contains(cluster) || self.members.get(cluster).is_some_and(|member| member.revoked)
    }

    /// Takes in an export record. The service that it is of.
    pub(super) fn put_record(&mut self, key: &ObjectKey, meta: Meta, spec: ExportRecordSpec) -> Option<ObjectKey> {
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

    fn check_record(&mut self, key: &ObjectKey, record: &mut Record) {
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
    pub(super) fn drop_record(&mut self, key: &ObjectKey, withdrawn: bool) -> Option<ObjectKey> {
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
    pub(super) fn forget_record(&mut self, service: &ObjectKey, cluster: &str) {
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
    pub(super) fn put_slice(&mut self, key: &ObjectKey, meta: Meta, spec: SliceRecordSpec) -> Option<ObjectKey> {
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

    fn check_slice(&mut self, cluster: &str, key: &ObjectKey, slice: &mut Slice) {
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
    pub(super) fn drop_slice(&mut self, key: &ObjectKey) -> Option<ObjectKey> {
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
    pub(super) fn forget_slice(&mut self, key: &ObjectKey) {
        if let Some(((cluster, _), _)) = self.slices.remove(key)
            && let Some(present) = self.present.get_mut(&cluster)
        {
            present.slices = present.slices.saturating_sub(1);
        }
    }

    /// Takes in a reservation; an unreadable one, or none.
    pub(super) fn put_reservation(
        &mut self,
        key: &ObjectKey,
        found: Option<(Meta, &ReservationSpec)>,
    ) -> Vec<ObjectKey> {
        let mut touched = self.drop_reservation(key);
        let Some((meta, spec)) = found else {
            self.unreadable_reservations.insert(key.clone());
            return touched;
        };
        match validate::reservation(&key.name, spec) {
            Ok(of) => {
                self.reserved_for.entry(of.service.clone()).or_default().insert(of.address);
                touched.push(of.service.clone());
                touched.extend(self.claims(of.address).map(|(service, _)| service.clone()));
                let reserved = Reserved { meta, service: of.service, holder: of.holder };
                self.reservations.insert(of.address, reserved);
            }
            Err(problem) => {
                self.unreadable_reservations.insert(key.clone());
                self.note("reservation", key, vec![problem]);
            }
        }
        touched
    }

    /// A reservation is gone. The services that it matters to.
    pub(super) fn drop_reservation(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        self.unreadable_reservations.remove(key);
        self.problems.remove(&("reservation", key.clone()));
        let Some(address) = address_of(&key.name) else { return Vec::new() };
        let Some(old) = self.reservations.remove(&address) else { return Vec::new() };
        if let Some(addresses) = self.reserved_for.get_mut(&old.service) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.reserved_for.remove(&old.service);
            }
        }
        let mut touched: Vec<ObjectKey> = self.claims(address).map(|(service, _)| service.clone()).collect();
        touched.push(old.service);
        touched
    }

    /// The ClusterSet's CIDRs, or a member's settings, are others: everything is checked again.
    pub(super) fn recheck(&mut self) {
        let services: Vec<ObjectKey> = self.records.keys().cloned().collect();
        for service in services {
            let clusters: Vec<String> = self.records(&service).map(|(cluster, _)| cluster.to_owned()).collect();
            for cluster in clusters {
                let Some(mut record) = self.records.get_mut(&service).and_then(|of| of.remove(&cluster)) else {
                    continue;
                };
                let key = ObjectKey::new(member_namespace(&cluster), export_name(&service));
                self.unclaim(&service, &cluster, &record.ips);
                let gone = record.withdrawn;
                self.check_record(&key, &mut record);
                record.withdrawn |= gone;
                self.claim(&service, &cluster, &record.ips);
                self.records.entry(service.clone()).or_default().insert(cluster, record);
            }
        }
        let slices: Vec<ObjectKey> = self.slices.keys().cloned().collect();
        for key in slices {
            if let Some((group, mut slice)) = self.slices.remove(&key) {
                self.check_slice(&group.0, &key, &mut slice);
                self.slices.insert(key, group, slice);
            }
        }
    }

    /// A member's settings are others: its slices are checked again.
    pub(super) fn recheck_slices(&mut self, cluster: &str) {
        let of_cluster = self.slices.iter().filter(|((of, _), ..)| of == cluster);
        let slices: Vec<ObjectKey> = of_cluster.map(|(_, key, _)| key.clone()).collect();
        for key in slices {
            if let Some((group, mut slice)) = self.slices.remove(&key) {
                self.check_slice(&group.0, &key, &mut slice);
                self.slices.insert(key, group, slice);
            }
        }
    }

    /// Reads the CIDRs of the ClusterSet. Whether they are others now.
    pub(super) fn read_cidrs(&mut self, clusterset: &str) -> bool {
        let Some(texts) = self.clustersets.get(clusterset) else { return false };
        let key = ObjectKey::new("", clusterset);
        match vip::parse_cidrs(texts) {
            Ok(cidrs) => {
                self.problems.remove(&("clusterset", key));
                std::mem::replace(&mut self.cidrs, cidrs) != self.cidrs
            }
            Err(error) => {
                let problem = Problem {
                    object: format!("ClusterSet {clusterset}"),
                    file: None,
                    field: "spec.cidrs".to_owned(),
                    reason: error.to_string(),
                    severity: Severity::Invalid,
                };
                self.problems.insert(("clusterset", key), vec![problem]);
                false
            }
        }
    }

    /// Something of a member's is not there any more: only renewals from now on bear witness.
    fn vanished(&mut self, cluster: &str) {
        self.unsettled.insert(cluster.to_owned());
        if let Some(lease) = self.leases.get_mut(cluster) {
            (lease.witnesses, lease.since) = (0, self.now);
        }
    }

    /// Records were listed: only renewals from now on bear witness.
    pub(super) fn relisted(&mut self) {
        for lease in self.leases.values_mut() {
            (lease.witnesses, lease.since) = (0, self.now);
        }
    }

    /// A renewal was seen. If it is the second since anything vanished, or long after,
    /// and says that just what is there should be, then
    /// what is not there is withdrawn. Returns the services that this concerns; all of the member's if it is the first time.
    pub(super) fn witness(&mut self, cluster: &str) -> Option<Vec<ObjectKey>> {
        if self.proven.contains(cluster) && !self.unsettled.contains(cluster) {
            return None;
        }
        let lease = self.leases.get_mut(cluster)?;
        lease.witnesses = lease.witnesses.saturating_add(1);
        // One that was on its way already does not count.
        if lease.witnesses < 2 && self.now.saturating_sub(lease.since) < ON_ITS_WAY {
            return None;
        }
        let meant = lease.statement.published.clone()?;
        let present = self.present.get(cluster).copied().unwrap_or_default();
        if meant != digest_text(present.digest) {
            return None;
        }
        let mut touched = Vec::new();
        for (service, of) in &mut self.records {
            if let Some(record) = of.get_mut(cluster).filter(|record| !record.present && !record.withdrawn) {
                record.withdrawn = true;
                let ips = std::mem::take(&mut record.ips);
                for ip in ips {
                    if let Some(claims) = self.claims.get_mut(&ip) {
                        claims.remove(&(service.clone(), cluster.to_owned()));
                    }
                }
                touched.push(service.clone());
            }
        }
        let gone = self.slices.iter().filter(|((of, _), _, slice)| of == cluster && !slice.present);
        let gone: Vec<(ObjectKey, ObjectKey)> =
            gone.map(|((_, service), key, _)| (service.clone(), key.clone())).collect();
        for (service, key) in gone {
            self.forget_slice(&key);
            touched.push(service);
        }
        self.unsettled.remove(cluster);
        self.proven.insert(cluster.to_owned());
        Some(touched)
    }

    /// Whether nothing of a member's is remembered that is not there, and everything else was told.
    pub(super) fn complete(&self, cluster: &str) -> bool {
        self.proven.contains(cluster)
    }

    fn count(&mut self, cluster: &str, kind: &str, name: &str, before: bool, now: bool) {
        let present = self.present.entry(cluster.to_owned()).or_default();
        match (before, now) {
            (false, true) => present.digest = present.digest.wrapping_add(weight(kind, name)),
            (true, false) => present.digest = present.digest.wrapping_sub(weight(kind, name)),
            (true, true) | (false, false) => {}
        }
    }

    fn claim(&mut self, service: &ObjectKey, cluster: &str, ips: &[IpAddr]) {
        for ip in ips {
            self.claims.entry(*ip).or_default().insert((service.clone(), cluster.to_owned()));
        }
    }

    fn unclaim(&mut self, service: &ObjectKey, cluster: &str, ips: &[IpAddr]) {
        for ip in ips {
            if let Some(claims) = self.claims.get_mut(ip) {
                claims.remove(&(service.clone(), cluster.to_owned()));
                if claims.is_empty() {
                    self.claims.remove(ip);
                }
            }
        }
    }

    pub(super) fn note(&mut self, kind: &'static str, key: &ObjectKey, problems: Vec<Problem>) {
        if problems.is_empty() {
            self.problems.remove(&(kind, key.clone()));
        } else {
            self.problems.insert((kind, key.clone()), problems);
        }
    }
}

/// A digest as it is written.
pub(super) fn digest_text(digest: u64) -> String {
    format!("{digest:016x}")
}

/// The address of a reservation's name.
pub(super) fn address_of(name: &str) -> Option<IpAddr> {
    let parts = name.split('-').count();
    if parts == 4 { name.replace('-', ".").parse().ok() } else { name.replace('-', ":").parse().ok() }
}
