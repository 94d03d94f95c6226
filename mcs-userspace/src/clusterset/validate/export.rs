//! The parts of an export. What is left is what the API server takes in a ServiceImport, and the dataplane in its maps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Limits;
use super::report::Report;
use crate::api::{ClientIPConfig, SessionAffinityConfig};
use crate::clusterset::service::{Exported, Family, Port};
use crate::manifest::{field, quoted};

/// The longest affinity that Kubernetes allows, a day, in seconds.
const LONGEST_AFFINITY_SECS: i32 = 86400;

/// What the fields are called that are checked.
pub(super) struct Fields {
    service: &'static str,
    labels: &'static str,
    annotations: &'static str,
}

/// In an ExportRecord.
pub(super) const IN_RECORD: Fields =
    Fields { service: "spec.exported", labels: "spec.exported.labels", annotations: "spec.exported.annotations" };

/// In a Service and its ServiceExport.
pub(super) const IN_OBJECTS: Fields =
    Fields { service: "spec", labels: "spec.exportedLabels", annotations: "spec.exportedAnnotations" };

/// The good parts.
pub(super) fn check(limits: &Limits, exported: &Exported, fields: &Fields, report: &mut Report) -> Exported {
    let at = fields.service;
    Exported {
        created: exported.created,
        kind: exported.kind,
        ports: ports(limits, &exported.ports, at, report),
        ip_families: families(&exported.ip_families, at, report),
        session_affinity: report.text(
            format_args!("{at}.sessionAffinity"),
            exported.session_affinity.as_ref(),
            one_of(&["None", "ClientIP"]),
        ),
        session_affinity_config: affinity_config(exported.session_affinity_config.as_ref(), at, report),
        internal_traffic_policy: report.text(
            format_args!("{at}.internalTrafficPolicy"),
            exported.internal_traffic_policy.as_ref(),
            one_of(&["Cluster", "Local"]),
        ),
        // later versions of Kubernetes may know others: only the syntax is checked
        traffic_distribution: report.text(
            format_args!("{at}.trafficDistribution"),
            exported.traffic_distribution.as_ref(),
            name_part,
        ),
        labels: labels(limits, &exported.labels, fields.labels, report),
        annotations: annotations(limits, &exported.annotations, fields.annotations, report),
    }
}

/// The ClusterSetIPs that a member says its import has: one of each family at most.
pub(super) fn check_ips(ips: &[String], clusterset_cidrs: &[IpNet], report: &mut Report) -> Vec<IpAddr> {
    let mut good: Vec<IpAddr> = Vec::new();
    for (i, text) in report.capped("spec.ips", ips, Family::ALL.len()).iter().enumerate() {
        let at = format!("spec.ips[{i}]");
        let Some(ip) = report.ok(&at, field::address(text)) else { continue };
        if !clusterset_cidrs.iter().any(|cidr| cidr.contains(&ip)) {
            report.invalid(at, format_args!("{ip} is in no CIDR of the ClusterSet"));
        } else if good.iter().any(|first| Family::of(*first) == Family::of(ip)) {
            report.invalid(at, format_args!("{ip} is a second {} address", Family::of(ip)));
        } else {
            good.push(ip);
        }
    }
    good
}

/// Ports with unique names and unique (protocol, port), as a Service has them.
fn ports(limits: &Limits, ports: &[Port], at: &str, report: &mut Report) -> Vec<Port> {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut good = Vec::new();
    for (i, port) in report.capped(format_args!("{at}.ports"), ports, limits.ports).iter().enumerate() {
        let at = format!("{at}.ports[{i}]");
        if report.ok(&at, port_itself(&port.name, port.port)).is_none() {
            continue;
        }
        if names.contains(&port.name) {
            report.invalid(format_args!("{at}.name"), format_args!("a second port named {:?}", port.name));
        } else if !numbers.insert((port.protocol, port.port)) {
            report.invalid(format_args!("{at}.port"), format_args!("{}/{} is listed twice", port.port, port.protocol));
        } else {
            names.insert(&port.name);
            let app_protocol =
                report.text(format_args!("{at}.appProtocol"), port.app_protocol.as_ref(), qualified_name);
            good.push(Port { app_protocol, ..port.clone() });
        }
    }
    good
}

/// A port's name, which may be empty, and its number.
pub(super) fn port_itself(name: &str, number: u16) -> Result<(), String> {
    if !name.is_empty() {
        field::dns_label(name)?;
    }
    field::port(i64::from(number)).map(|_| ())
}

fn families(families: &[Family], at: &str, report: &mut Report) -> Vec<Family> {
    let mut good = Vec::new();
    for family in families {
        if good.contains(family) {
            report.invalid(format_args!("{at}.ipFamilies"), format_args!("{family} is listed twice"));
        } else {
            good.push(*family);
        }
    }
    good
}

fn one_of<'k>(known: &'k [&'k str]) -> impl Fn(&str) -> Result<(), String> + 'k {
    move |text| {
        if known.contains(&text) { Ok(()) } else { Err(format!("{} is none of {}", quoted(text), known.join(", "))) }
    }
}

fn affinity_config(
    config: Option<&SessionAffinityConfig>,
    at: &str,
    report: &mut Report,
) -> Option<SessionAffinityConfig> {
    let client_ip = config?.client_ip.as_ref().map(|client_ip| {
        let valid = |seconds: i32| match seconds {
            1..=LONGEST_AFFINITY_SECS => Ok(seconds),
            _ => Err(format!("{seconds} is not in 1..={LONGEST_AFFINITY_SECS}")),
        };
        let field = format_args!("{at}.sessionAffinityConfig.clientIP.timeoutSeconds");
        ClientIPConfig { timeout_seconds: client_ip.timeout_seconds.and_then(|secs| report.ok(field, valid(secs))) }
    });
    Some(SessionAffinityConfig { client_ip })
}

fn labels(
    limits: &Limits,
    labels: &BTreeMap<String, String>,
    at: &str,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let mut good = BTreeMap::new();
    for (key, value) in labels {
        let at = format_args!("{at}[{}]", quoted(key));
        let syntax = qualified_name(key).and_then(|()| if value.is_empty() { Ok(()) } else { name_part(value) });
        if good.len() == limits.labels {
            report.invalid(at, format_args!("one more than {}", limits.labels));
        } else if report.ok(at, syntax).is_some() {
            good.insert(key.clone(), value.clone());
        }
    }
    good
}

fn annotations(
    limits: &Limits,
    annotations: &BTreeMap<String, String>,
    at: &str,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let mut good = BTreeMap::new();
    let mut room = limits.annotation_bytes;
    for (key, value) in annotations {
        let at = format_args!("{at}[{}]", quoted(key));
        // Kubernetes does not mind capitals in the prefix of these
        if report.ok(at, qualified_name(&key.to_ascii_lowercase())).is_none() {
            continue;
        }
        match room.checked_sub(key.len() + value.len()) {
            Some(left) => {
                room = left;
                good.insert(key.clone(), value.clone());
            }
            None => report.invalid(at, format_args!("annotations have more than {} bytes", limits.annotation_bytes)),
        }
    }
    good
}

/// The name of a label (`shop.example/tier`), of an annotation, of an application protocol.
pub(super) fn qualified_name(text: &str) -> Result<(), String> {
    match text.split_once('/') {
        None => name_part(text),
        Some((prefix, name)) => field::dns_name(prefix).and_then(|()| name_part(name)),
    }
}

/// What a label's value may be, and its name after the prefix.
pub(super) fn name_part(text: &str) -> Result<(), String> {
    let at_ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    if text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && at_ends(text.bytes().next())
        && at_ends(text.bytes().next_back())
    {
        Ok(())
    } else {
        let rule = "1 to 63 of A-Z, a-z, 0-9, '-', '_' and '.', with a letter or digit at both ends";
        Err(format!("{} is not {rule}", quoted(text)))
    }
}
