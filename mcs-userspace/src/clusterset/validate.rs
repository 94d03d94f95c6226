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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::record::{
    ExportRecordSpec, MAX_CLUSTER_ID, MemberSpec, SliceRecordSpec, VERSION, export_name, member_namespace,
};
use super::service::{Endpoint, Endpoints, Exported, Family, Port, SlicePort};
use crate::api::{ClientIPConfig, SessionAffinityConfig};
use crate::manifest::{field, quoted};
use crate::model::ObjectKey;
use crate::problem::{Problem, Severity};

/// The oldest version of records that this build reads: the one before its own, if there is one.
pub const OLDEST_VERSION: u32 = if VERSION > 1 { VERSION - 1 } else { VERSION };

/// How many problems of one object are told one by one.
const TOLD: usize = 8;

/// The longest affinity that Kubernetes allows, a day, in seconds.
const LONGEST_AFFINITY_SECS: i32 = 86400;

/// How much one member may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Ports of a service, and of a slice: what the EndpointSlice API documents.
    pub ports: usize,
    /// Endpoints of a slice: what the EndpointSlice API allows.
    pub endpoints: usize,
    /// Exported labels of a service.
    pub labels: usize,
    /// Bytes of a service's exported annotations, keys and values; half of what one object may have.
    pub annotation_bytes: usize,
    /// Export records of a member, tombstones included: counted by the reader.
    pub exports: usize,
    /// Slice records of a member: counted by the reader.
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

/// The id of the member that alone writes this namespace of the broker.
///
/// # Errors
/// Why it is no member's namespace.
pub fn cluster_of(namespace: &str) -> Result<&str, String> {
    let id = namespace.strip_prefix(&member_namespace("")).ok_or_else(|| {
        format!("{} is no member's namespace: those begin with {}", quoted(namespace), member_namespace(""))
    })?;
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
        return Err(format!("{} is longer than {MAX_CLUSTER_ID} characters", quoted(id)));
    }
    Ok(())
}

/// Checks an export record.
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
    let (cluster, service) =
        identity(&report, namespace, record.version, &record.namespace, &record.name, |of| name == of)?;
    let exported = check_exported(limits, &record.exported, &mut report);
    let ips = clusterset_ips(&record.ips, clusterset_cidrs, &mut report);
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
    let (cluster, service) = identity(&report, namespace, record.version, &record.namespace, &record.name, |of| {
        name.strip_prefix(of).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| !rest.is_empty())
    })?;
    let allowed = Allowed { pods: pod_cidrs(member).0, anywhere: member.pod_cidrs.is_empty(), clusterset_cidrs };
    let slice = check_slice(limits, &allowed, &record.slice, &mut report);
    Ok(Checked { value: SliceOf { cluster, service, slice }, problems: report.finish() })
}

/// What is wrong with a member's settings. Its admin wrote them: a pod CIDR that is none allows no address.
#[must_use]
pub fn member(id: &str, member: &MemberSpec) -> Vec<Problem> {
    let mut report = Report::new(format!("Member {id}"));
    if let Err(why) = cluster_id(id) {
        report.invalid("metadata.name", why);
    }
    for (i, why) in pod_cidrs(member).1 {
        report.invalid(format_args!("spec.podCidrs[{i}]"), why);
    }
    report.finish()
}

/// Checks what is exported: of a record, or of this cluster itself. `object` is what problems are reported of.
#[must_use]
pub fn exported(limits: &Limits, object: &str, exported: &Exported) -> Checked<Exported> {
    let mut report = Report::new(object.to_owned());
    let value = check_exported(limits, exported, &mut report);
    Checked { value, problems: report.finish() }
}

/// The problem of a record that is one too many of its member.
#[must_use]
pub fn too_many(kind: &str, namespace: &str, name: &str, limit: usize) -> Problem {
    Report::new(format!("{kind} {namespace}/{name}")).problem("", format_args!("the member has more than {limit}"))
}

/// What is found wrong with one object.
struct Report {
    object: String,
    problems: Vec<Problem>,
    untold: usize,
}

impl Report {
    const fn new(object: String) -> Self {
        Self { object, problems: Vec::new(), untold: 0 }
    }

    fn problem(&self, field: impl fmt::Display, reason: impl fmt::Display) -> Problem {
        Problem {
            object: self.object.clone(),
            file: None,
            field: field.to_string(),
            reason: reason.to_string(),
            severity: Severity::Invalid,
        }
    }

    fn invalid(&mut self, field: impl fmt::Display, reason: impl fmt::Display) {
        if self.problems.len() < TOLD {
            let problem = self.problem(field, reason);
            self.problems.push(problem);
        } else {
            self.untold += 1;
        }
    }

    /// The value, or none and a problem.
    fn ok<T>(&mut self, field: impl fmt::Display, result: Result<T, String>) -> Option<T> {
        result.map_err(|why| self.invalid(field, why)).ok()
    }

    fn finish(mut self) -> Vec<Problem> {
        if self.untold > 0 {
            let more = self.problem("", format_args!("{} more problems", self.untold));
            self.problems.push(more);
        }
        self.problems
    }
}

/// Whose record it is, and of which service.
fn identity(
    report: &Report,
    namespace: &str,
    version: u32,
    service_namespace: &str,
    service_name: &str,
    is_named_after: impl Fn(&str) -> bool,
) -> Result<(String, ObjectKey), Problem> {
    let refuse = |field: &'static str| move |why: String| report.problem(field, why);
    let cluster = cluster_of(namespace).map_err(refuse("metadata.namespace"))?;
    if !(OLDEST_VERSION..=VERSION).contains(&version) {
        let why = format!("version {version} is not in {OLDEST_VERSION}..={VERSION}, which this build reads");
        return Err(report.problem("spec.version", why));
    }
    field::dns_label(service_namespace).map_err(refuse("spec.namespace"))?;
    field::dns_label(service_name).map_err(refuse("spec.name"))?;
    let service = ObjectKey::new(service_namespace, service_name);
    if !is_named_after(&export_name(&service)) {
        return Err(report.problem("metadata.name", format_args!("is not named after its service, {service}")));
    }
    Ok((cluster.to_owned(), service))
}

fn check_exported(limits: &Limits, exported: &Exported, report: &mut Report) -> Exported {
    let in_spec = |name: &str| format!("spec.exported.{name}");
    Exported {
        created: exported.created,
        kind: exported.kind,
        ports: service_ports(limits, &exported.ports, report),
        ip_families: families(&exported.ip_families, report),
        session_affinity: one_of(&exported.session_affinity, &["None", "ClientIP"])
            .map_or_else(|why| report.ok(in_spec("sessionAffinity"), Err(why)), |value| value),
        session_affinity_config: affinity_config(exported.session_affinity_config.as_ref(), report),
        internal_traffic_policy: one_of(&exported.internal_traffic_policy, &["Cluster", "Local"])
            .map_or_else(|why| report.ok(in_spec("internalTrafficPolicy"), Err(why)), |value| value),
        traffic_distribution: exported.traffic_distribution.clone().filter(|text| {
            // later Kubernetes versions may know more of them: only the syntax is checked
            report.ok(in_spec("trafficDistribution"), name_part(text)).is_some()
        }),
        labels: labels(limits, &exported.labels, report),
        annotations: annotations(limits, &exported.annotations, report),
    }
}

/// Ports with unique names and unique (protocol, port).
fn service_ports(limits: &Limits, ports: &[Port], report: &mut Report) -> Vec<Port> {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut checked = Vec::new();
    for (i, port) in capped(ports, limits.ports, "spec.exported.ports", report).iter().enumerate() {
        let at = format!("spec.exported.ports[{i}]");
        if report.ok(&at, port_itself(&port.name, port.port)).is_none() {
            continue;
        }
        if !names.insert(&port.name) {
            report.invalid(format_args!("{at}.name"), format_args!("a second port named {:?}", port.name));
        } else if !numbers.insert((port.protocol, port.port)) {
            report.invalid(format_args!("{at}.port"), format_args!("{}/{} is listed twice", port.port, port.protocol));
        } else {
            checked.push(Port { app_protocol: app_protocol(&port.app_protocol, &at, report), ..port.clone() });
        }
    }
    checked
}

/// Ports with unique names. The same number may serve several names.
fn slice_ports(limits: &Limits, ports: &[SlicePort], report: &mut Report) -> Vec<SlicePort> {
    let mut names = BTreeSet::new();
    let mut checked = Vec::new();
    for (i, port) in capped(ports, limits.ports, "spec.slice.ports", report).iter().enumerate() {
        let at = format!("spec.slice.ports[{i}]");
        if report.ok(&at, port_itself(&port.name, port.port)).is_none() {
            continue;
        }
        if names.insert(&port.name) {
            checked.push(SlicePort { app_protocol: app_protocol(&port.app_protocol, &at, report), ..port.clone() });
        } else {
            report.invalid(format_args!("{at}.name"), format_args!("a second port named {:?}", port.name));
        }
    }
    checked
}

fn port_itself(name: &str, number: u16) -> Result<(), String> {
    if !name.is_empty() {
        field::dns_label(name)?;
    }
    field::port(i64::from(number)).map(|_| ())
}

fn app_protocol(app_protocol: &Option<String>, at: &str, report: &mut Report) -> Option<String> {
    let text = app_protocol.as_ref()?;
    report.ok(format_args!("{at}.appProtocol"), qualified_name(text))?;
    Some(text.clone())
}

fn families(families: &[Family], report: &mut Report) -> Vec<Family> {
    let mut checked = Vec::new();
    for family in families {
        if checked.contains(family) {
            report.invalid("spec.exported.ipFamilies", format_args!("{family} is listed twice"));
        } else {
            checked.push(*family);
        }
    }
    checked
}

fn one_of(value: &Option<String>, known: &[&str]) -> Result<Option<String>, String> {
    match value {
        Some(text) if !known.contains(&text.as_str()) => {
            Err(format!("{} is none of {}", quoted(text), known.join(", ")))
        }
        Some(_) | None => Ok(value.clone()),
    }
}

fn affinity_config(config: Option<&SessionAffinityConfig>, report: &mut Report) -> Option<SessionAffinityConfig> {
    let client_ip = config?.client_ip.as_ref().map(|client_ip| {
        let seconds = client_ip.timeout_seconds.filter(|seconds| {
            let valid = (1..=LONGEST_AFFINITY_SECS).contains(seconds);
            if !valid {
                let field = "spec.exported.sessionAffinityConfig.clientIP.timeoutSeconds";
                report.invalid(field, format_args!("{seconds} is not in 1..={LONGEST_AFFINITY_SECS}"));
            }
            valid
        });
        ClientIPConfig { timeout_seconds: seconds }
    });
    Some(SessionAffinityConfig { client_ip })
}

fn labels(limits: &Limits, labels: &BTreeMap<String, String>, report: &mut Report) -> BTreeMap<String, String> {
    let mut checked = BTreeMap::new();
    for (key, value) in labels {
        let at = format_args!("spec.exported.labels[{}]", quoted(key)).to_string();
        let syntax = qualified_name(key).and_then(|()| if value.is_empty() { Ok(()) } else { name_part(value) });
        if checked.len() == limits.labels {
            report.invalid(at, format_args!("more than {} labels", limits.labels));
        } else if report.ok(at, syntax).is_some() {
            checked.insert(key.clone(), value.clone());
        }
    }
    checked
}

fn annotations(limits: &Limits, set: &BTreeMap<String, String>, report: &mut Report) -> BTreeMap<String, String> {
    let mut checked = BTreeMap::new();
    let mut bytes = 0;
    for (key, value) in set {
        let at = format_args!("spec.exported.annotations[{}]", quoted(key)).to_string();
        bytes += key.len() + value.len();
        if bytes > limits.annotation_bytes {
            report.invalid(at, format_args!("more than {} bytes of annotations", limits.annotation_bytes));
        } else if report.ok(at, qualified_name(&key.to_ascii_lowercase())).is_some() {
            checked.insert(key.clone(), value.clone());
        }
    }
    checked
}

/// The ClusterSetIPs that a member says its import has.
fn clusterset_ips(ips: &[String], cidrs: &[IpNet], report: &mut Report) -> Vec<IpAddr> {
    let mut checked: Vec<IpAddr> = Vec::new();
    for (i, text) in capped(ips, 2, "spec.ips", report).iter().enumerate() {
        let at = format_args!("spec.ips[{i}]").to_string();
        let Some(ip) = report.ok(&at, field::address(text)) else { continue };
        if !cidrs.iter().any(|cidr| cidr.contains(&ip)) {
            report.invalid(at, format_args!("{ip} is in no CIDR of the ClusterSet"));
        } else if checked.iter().any(|first| Family::of(*first) == Family::of(ip)) {
            report.invalid(at, format_args!("{ip} is a second {} address", Family::of(ip)));
        } else {
            checked.push(ip);
        }
    }
    checked
}

/// Where a member's endpoints may be.
struct Allowed<'a> {
    pods: Vec<IpNet>,
    anywhere: bool,
    clusterset_cidrs: &'a [IpNet],
}

impl Allowed<'_> {
    fn check(&self, family: Family, ip: IpAddr) -> Result<(), String> {
        field::assignable(ip)?;
        if Family::of(ip) != family {
            return Err(format!("{ip} is no {family} address"));
        }
        if self.clusterset_cidrs.iter().any(|cidr| cidr.contains(&ip)) {
            return Err(format!("{ip} is in a CIDR of ClusterSetIPs"));
        }
        if !self.anywhere && !self.pods.iter().any(|cidr| cidr.contains(&ip)) {
            return Err(format!("{ip} is in no pod CIDR of the member"));
        }
        Ok(())
    }
}

/// The pod CIDRs of a member, and those that are none, by index.
fn pod_cidrs(member: &MemberSpec) -> (Vec<IpNet>, Vec<(usize, String)>) {
    let (mut cidrs, mut problems) = (Vec::new(), Vec::new());
    for (i, text) in member.pod_cidrs.iter().enumerate() {
        match text.parse::<IpNet>() {
            Ok(cidr) => cidrs.push(cidr),
            Err(_not_a_cidr) => problems.push((i, format!("{} is no CIDR", quoted(text)))),
        }
    }
    (cidrs, problems)
}

fn check_slice(limits: &Limits, allowed: &Allowed<'_>, slice: &Endpoints, report: &mut Report) -> Endpoints {
    let ports = slice_ports(limits, &slice.ports, report);
    let mut endpoints = Vec::new();
    for (i, endpoint) in capped(&slice.endpoints, limits.endpoints, "spec.slice.endpoints", report).iter().enumerate() {
        let at = format!("spec.slice.endpoints[{i}]");
        if report.ok(format_args!("{at}.address"), allowed.check(slice.family, endpoint.address)).is_none() {
            continue;
        }
        let mut keep = |name: &str, value: &Option<String>, rule: fn(&str) -> Result<(), String>| {
            let text = value.as_ref()?;
            report.ok(format_args!("{at}.{name}"), rule(text))?;
            Some(text.clone())
        };
        endpoints.push(Endpoint {
            hostname: keep("hostname", &endpoint.hostname, field::dns_label),
            node_name: keep("nodeName", &endpoint.node_name, field::dns_name),
            zone: keep("zone", &endpoint.zone, name_part),
            ..endpoint.clone()
        });
    }
    Endpoints { family: slice.family, ports, endpoints }
}

/// As many as are allowed.
fn capped<'a, T>(list: &'a [T], limit: usize, field: &str, report: &mut Report) -> &'a [T] {
    list.get(..limit).filter(|_| list.len() > limit).map_or(list, |first| {
        report.invalid(field, format_args!("{} is more than {limit}: the rest is left out", list.len()));
        first
    })
}

/// The name of a label (`shop.example/tier`), an annotation, or an application protocol.
fn qualified_name(text: &str) -> Result<(), String> {
    match text.split_once('/') {
        None => name_part(text),
        Some((prefix, name)) => field::dns_name(prefix).and_then(|()| name_part(name)),
    }
}

/// What a label's value may be, and its name after the prefix.
fn name_part(text: &str) -> Result<(), String> {
    let alphanumeric = |end: Option<u8>| end.is_some_and(|b| b.is_ascii_alphanumeric());
    let ends = alphanumeric(text.bytes().next()) && alphanumeric(text.bytes().next_back());
    if ends && text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        Ok(())
    } else {
        Err(format!(
            "{} is not 1 to 63 of A-Z, a-z, 0-9, '-', '_', '.' with a letter or digit at its ends",
            quoted(text)
        ))
    }
}
