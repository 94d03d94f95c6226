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

mod records;
mod reservations;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::grouped::Grouped;
use crate::clusterset::event::Now;
use crate::clusterset::local::Meta;
use crate::clusterset::record::{
    ExportRecordSpec, MemberSpec, SliceRecordSpec, Statement, export_name, member_namespace,
};
use crate::clusterset::service::{Endpoints, Exported};
use crate::clusterset::validate::Limits;
use crate::model::ObjectKey;
use crate::problem::Problem;

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
    /// When the last renewal was seen; none if this process saw none.
    pub(super) renewed: Option<Now>,
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
