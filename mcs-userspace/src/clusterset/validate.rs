//! What other members wrote, made safe to use. Members are trusted to run services, not to be free of faults: nothing they
//! write may cost another's service, or make the API server refuse the import that everybody's exports make together.
//!
//! ```text
//!  record ──► whose, of which service, which version? ──no──► refused as a whole, as one Problem
//!                      │ yes
//!                      ▼
//!             each port, label, endpoint … by itself ──bad──► left out, as one Problem
//!                      │ good
//!                      ▼
//!             checked value
//! ```
//!
//! A cluster checks its own exports by the same [`exported`], so that all compute the same import from them. Only what
//! the observer knows itself goes into a verdict: the namespace (which RBAC ties to its writer), the record, the broker's
//! settings.

mod export;
#[cfg(test)]
mod garbage;
mod report;
mod slice;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;

use self::report::Report;
use super::record::{
    ExportRecordSpec, MAX_CLUSTER_ID, MemberSpec, ReservationSpec, SliceRecordSpec, VERSION, export_name,
    member_namespace, reservation_name,
};
use super::service::{Endpoints, Exported};
use crate::manifest::{field, quoted};
use crate::model::ObjectKey;
use crate::problem::Problem;

/// The oldest version of records that this build reads: the one before its own, if there is one.
pub const OLDEST_VERSION: u32 = if VERSION > 1 { VERSION - 1 } else { VERSION };

/// How much one member may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Ports of a service, and of a slice: what the EndpointSlice API documents.
    pub ports: usize,
    /// Endpoints of a slice: what the EndpointSlice API allows.
    pub endpoints: usize,
    /// Exported labels of a service.
    pub labels: usize,
    /// Bytes of a service's exported annotations, keys and values: half of what Kubernetes allows an object.
    pub annotation_bytes: usize,
    /// Export records of a member, tombstones included: counted by the caller.
    pub exports: usize,
    /// Slice records of a member: counted by the caller.
    pub slices: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ports: 100, endpoints: 1000, labels: 64, annotation_bytes: 128 << 10, exports: 20_000, slices: 100_000 }
    }
}

/// What is usable of something untrusted, and what is not.
#[derive(Clone, PartialEq, Debug)]
pub struct Checked<T> {
    /// The usable part.
    pub value: T,
    /// What was left out of it.
    pub problems: Vec<Problem>,
}

/// A checked [`ExportRecordSpec`].
#[derive(Clone, PartialEq, Debug)]
pub struct ExportOf {
    /// Whose: the id in the name of the namespace.
    pub cluster: String,
    /// Which service.
    pub service: ObjectKey,
    /// A tombstone.
    pub withdrawn: bool,
    /// What is exported.
    pub exported: Exported,
    /// The ClusterSetIPs that the member's import carries; one of each family at most.
    pub ips: Vec<IpAddr>,
}

/// A checked [`SliceRecordSpec`].
#[derive(Clone, PartialEq, Debug)]
pub struct SliceOf {
    /// Whose: the id in the name of the namespace.
    pub cluster: String,
    /// Of which service.
    pub service: ObjectKey,
    /// The endpoints.
    pub slice: Endpoints,
}

/// A checked [`ReservationSpec`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReservationOf {
    /// The ClusterSetIP.
    pub address: IpAddr,
    /// Whose address it is.
    pub service: ObjectKey,
    /// The member that reserved it.
    pub holder: String,
}

/// Checks an export record.
///
/// `clusterset_cidrs` are where ClusterSetIPs lie: whoever does not know them yet checks again once it does.
///
/// # Errors
/// It says nothing: it lies in no member's namespace, is named after another service, or is of a version that this build
/// does not read. What the record said before is the caller's to keep.
pub fn export_record(
    limits: &Limits,
    clusterset_cidrs: &[IpNet],
    namespace: &str,
    name: &str,
    record: &ExportRecordSpec,
) -> Result<Checked<ExportOf>, Problem> {
    let mut report = Report::new(format!("ExportRecord {namespace}/{name}"));
    let cluster = writer(&report, namespace, record.version)?;
    let service = service_key(&record.namespace, &record.name).map_err(|why| report.problem("spec", why))?;
    if name != export_name(&service) {
        return Err(report.problem("metadata.name", format_args!("is not named after its service, {service}")));
    }
    let exported = export::check(limits, &record.exported, &export::IN_RECORD, &mut report);
    let ips = export::check_ips(&record.ips, clusterset_cidrs, &mut report);
    let value = ExportOf { cluster, service, withdrawn: record.withdrawn, exported, ips };
    Ok(Checked { value, problems: report.finish() })
}

/// Checks a slice record. Addresses are never what no pod has, and never ClusterSetIPs: traffic to them would go in a
/// circle. Where the broker's admin said where the member's pods are, all others are left out.
///
/// # Errors
/// As of [`export_record`].
pub fn slice_record(
    limits: &Limits,
    member: &MemberSpec,
    clusterset_cidrs: &[IpNet],
    namespace: &str,
    name: &str,
    record: &SliceRecordSpec,
) -> Result<Checked<SliceOf>, Problem> {
    let mut report = Report::new(format!("SliceRecord {namespace}/{name}"));
    let cluster = writer(&report, namespace, record.version)?;
    let service = service_key(&record.namespace, &record.name).map_err(|why| report.problem("spec", why))?;
    let own = name.strip_prefix(&export_name(&service)).and_then(|rest| rest.strip_prefix('.'));
    if own.is_none_or(str::is_empty) {
        return Err(report.problem("metadata.name", format_args!("is not named after its service, {service}")));
    }
    let allowed = slice::Allowed::new(member, clusterset_cidrs);
    let slice = slice::check(limits, &allowed, &record.slice, &mut report);
    Ok(Checked { value: SliceOf { cluster, service, slice }, problems: report.finish() })
}

/// Checks a reservation, which has no good part if any is bad. Whether the holder is a member is for the caller to ask.
///
/// # Errors
/// It reserves nothing: it is not named after its address, or names no service or no member.
pub fn reservation(name: &str, reservation: &ReservationSpec) -> Result<ReservationOf, Problem> {
    let report = Report::new(format!("Reservation {name}"));
    let address = field::address(&reservation.address).map_err(|why| report.problem("spec.address", why))?;
    if name != reservation_name(address) {
        return Err(report.problem("metadata.name", format_args!("is not named after its address, {address}")));
    }
    let (namespace, service) = reservation.service.split_once('/').unwrap_or_default();
    let service = service_key(namespace, service).map_err(|why| report.problem("spec.service", why))?;
    cluster_id(&reservation.holder).map_err(|why| report.problem("spec.holder", why))?;
    Ok(ReservationOf { address, service, holder: reservation.holder.clone() })
}

/// What is wrong with a member's settings. The broker's admin wrote them: a pod CIDR that is none allows no address.
#[must_use]
pub fn member(id: &str, member: &MemberSpec) -> Vec<Problem> {
    let mut report = Report::new(format!("Member {id}"));
    report.ok("metadata.name", cluster_id(id));
    for (i, cidr) in member.pod_cidrs.iter().enumerate() {
        report.ok(format_args!("spec.podCidrs[{i}]"), slice::cidr(cidr));
    }
    report.finish()
}

/// Checks what this cluster itself exports. `object` is what problems are reported of: the ServiceExport, as only what
/// that says is not checked by the API server already.
#[must_use]
pub fn exported(limits: &Limits, object: &str, exported: &Exported) -> Checked<Exported> {
    let mut report = Report::new(object.to_owned());
    let value = export::check(limits, exported, &export::IN_OBJECTS, &mut report);
    Checked { value, problems: report.finish() }
}

/// The problem of a record that is one too many of its member.
#[must_use]
pub fn too_many(kind: &str, namespace: &str, name: &str, limit: usize) -> Problem {
    Report::new(format!("{kind} {namespace}/{name}")).problem("", format_args!("the member has more than {limit}"))
}

/// The id of the member that alone writes this namespace of the broker.
///
/// # Errors
/// Why it is no member's namespace.
pub fn cluster_of(namespace: &str) -> Result<&str, String> {
    let prefix = member_namespace("");
    let Some(id) = namespace.strip_prefix(&prefix) else {
        return Err(format!("{} is no member's namespace: those begin with {prefix}", quoted(namespace)));
    };
    cluster_id(id)?;
    Ok(id)
}

/// An id that a member may have: one DNS label, as CoreDNS has no answer for names with dotted ones, which leaves room for
/// the prefix of its namespace.
///
/// # Errors
/// What is wrong with it.
pub fn cluster_id(id: &str) -> Result<(), String> {
    field::dns_label(id)?;
    if id.len() > MAX_CLUSTER_ID {
        return Err(format!("{} is no cluster id: longer than {MAX_CLUSTER_ID} characters", quoted(id)));
    }
    Ok(())
}

/// Who wrote the record, if this build reads it.
fn writer(report: &Report, namespace: &str, version: u32) -> Result<String, Problem> {
    let cluster = cluster_of(namespace).map_err(|why| report.problem("metadata.namespace", why))?;
    let refuse = |what| {
        let why = format_args!("version {version} is {what} than this build reads, {OLDEST_VERSION} to {VERSION}");
        Err(report.problem("spec.version", why))
    };
    match version {
        ..OLDEST_VERSION => refuse("older"),
        OLDEST_VERSION..=VERSION => Ok(cluster.to_owned()),
        _ => refuse("newer"),
    }
}

/// Kubernetes' rules for the names of namespaces and Services.
fn service_key(namespace: &str, name: &str) -> Result<ObjectKey, String> {
    field::dns_label(namespace)?;
    field::dns_label(name)?;
    Ok(ObjectKey::new(namespace, name))
}
