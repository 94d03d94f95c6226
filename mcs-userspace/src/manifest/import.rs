//! A ServiceImport's document to the model.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::field::{self, Transport};
use super::interner::Interner;
use super::lax::{Lax, quoted};
use super::report::{Report, Reported};
use super::shapes::{AffinityConfig, Annotations, Document, List, Metadata, Port, Spec};
use super::{Verdict, created};
use crate::api;
use crate::model::{Distribution, Import, ImportPort, Object, ObjectKey, SctpPort};

/// `sessionAffinityConfig.clientIP.timeoutSeconds` where it is not written.
const DEFAULT_AFFINITY_SECS: u32 = 10800;
/// The longest affinity that Kubernetes allows, a day.
const LONGEST_AFFINITY_SECS: i64 = 86400;
/// The greatest share of a cluster. Shares are ratios: this is room enough, and sums of products stay far from 2⁶⁴.
const GREATEST_WEIGHT: i64 = 1_000_000;

/// Reads a ServiceImport whose name is known.
pub(super) fn read(document: &Document<'_>, key: ObjectKey, report: &mut Report<'_>, names: &mut Interner) -> Verdict {
    let Some(spec) = report.required(&document.spec, "spec") else { return Verdict::Broken };
    let Some(kind) = report.required(&spec.kind, "spec.type") else { return Verdict::Broken };
    match &**kind {
        "ClusterSetIP" => {}
        "Headless" => return Verdict::Object(Object::Headless(key)),
        other => {
            report.invalid("spec.type", format_args!("{} is neither ClusterSetIP nor Headless", quoted(other)));
            return Verdict::Broken;
        }
    }
    let (Ok(vips), Ok((ports, sctp))) = (vips(&spec.ips, report), ports(&spec.ports, report, names)) else {
        return Verdict::Broken;
    };
    let metadata = match &document.metadata {
        Lax::Good(metadata) => metadata,
        Lax::Absent | Lax::Bad(_) => &Metadata::default(),
    };
    Verdict::Object(Object::Import(Import {
        key,
        created: created(metadata, report),
        vips,
        ports,
        affinity_secs: affinity(spec, report),
        local_only: local_only(&spec.traffic_policy, report),
        distribution: distribution(&spec.distribution, report),
        cluster_weights: weights(&metadata.annotations, report, names),
        sctp,
    }))
}

/// At most one address of each family.
fn vips(ips: &Lax<List<std::borrow::Cow<'_, str>>>, report: &mut Report<'_>) -> Result<Vec<IpAddr>, Reported> {
    let Some(ips) = report.optional(ips, "spec.ips")? else { return Ok(Vec::new()) };
    let mut vips: Vec<IpAddr> = Vec::new();
    for (i, ip) in ips.iter().enumerate() {
        let Some(text) = report.required(ip, format_args!("spec.ips[{i}]")) else { continue };
        match field::address(text) {
            Ok(ip) => match vips.iter().find(|vip| vip.is_ipv4() == ip.is_ipv4()) {
                None => vips.push(ip),
                Some(first) => report.invalid(
                    format_args!("spec.ips[{i}]"),
                    format_args!("{ip} is a second {} address beside {first}", field::family(&ip)),
                ),
            },
            Err(why) => report.invalid(format_args!("spec.ips[{i}]"), why),
        }
    }
    if vips.is_empty() && !ips.is_empty() {
        report.invalid("spec.ips", "no usable address");
        return Err(Reported);
    }
    Ok(vips)
}

/// TCP and UDP ports with unique names and unique (protocol, port), and SCTP ports.
///
/// An unnamed port may stand beside named ones if it is the only one of its kind: a Service could not have that, but
/// an import is the union of several clusters' Services (KEP-1645: names are unique "including empty").
fn ports(
    list: &Lax<List<Port<'_>>>,
    report: &mut Report<'_>,
    names: &mut Interner,
) -> Result<(Vec<ImportPort>, Vec<SctpPort>), Reported> {
    let Some(list) = report.optional(list, "spec.ports")? else { return Ok((Vec::new(), Vec::new())) };
    let mut ports: Vec<ImportPort> = Vec::new();
    let mut sctp = Vec::new();
    let (mut seen_names, mut seen_ports) = (HashSet::new(), HashSet::new());
    let mut valid = 0;
    for (i, port) in list.iter().enumerate() {
        let at = format_args!("spec.ports[{i}]");
        let Some(port) = report.required(port, at) else { continue };
        let Some(port) = read_port(port, &at, report, names) else { continue };
        valid += 1;
        let port = match port {
            AnyPort::Programmed(port) => port,
            AnyPort::Sctp(port) => {
                report.notice(at, "SCTP is not programmed");
                sctp.push(port);
                continue;
            }
        };
        if !seen_names.insert(Arc::clone(&port.name)) {
            let what = if port.name.is_empty() {
                "a second port without a name".to_owned()
            } else {
                format!("a second port named {}", port.name)
            };
            report.invalid(format_args!("{at}.name"), format_args!("{what}: only the first is used"));
        } else if !seen_ports.insert((port.protocol, port.port)) {
            report.invalid(
                format_args!("{at}.port"),
                format_args!("{}/{} is listed twice: only the first is used", port.port, port.protocol),
            );
        } else {
            ports.push(port);
        }
    }
    if valid == 0 && !list.is_empty() {
        report.invalid("spec.ports", "no usable port");
        return Err(Reported);
    }
    Ok((ports, sctp))
}

/// A valid port.
enum AnyPort {
    Programmed(ImportPort),
    Sctp(SctpPort),
}

/// A port by itself.
fn read_port(
    port: &Port<'_>,
    at: &std::fmt::Arguments<'_>,
    report: &mut Report<'_>,
    names: &mut Interner,
) -> Option<AnyPort> {
    let number = report.required(&port.port, format_args!("{at}.port"))?;
    let number = field::port(*number).map_err(|why| report.invalid(format_args!("{at}.port"), why)).ok()?;
    let name = report.optional(&port.name, format_args!("{at}.name")).ok()?.map_or("", |name| name);
    if !name.is_empty() {
        field::dns_label(name).map_err(|why| report.invalid(format_args!("{at}.name"), why)).ok()?;
    }
    let protocol = report.optional(&port.protocol, format_args!("{at}.protocol")).ok()?;
    let protocol = field::protocol(protocol.map(|text| &**text))
        .map_err(|why| report.invalid(format_args!("{at}.protocol"), why))
        .ok()?;
    Some(match protocol {
        Transport::Programmed(protocol) => {
            AnyPort::Programmed(ImportPort { name: names.get(name), protocol, port: number })
        }
        Transport::Sctp => AnyPort::Sctp(SctpPort { name: names.get(name), port: number }),
    })
}

fn affinity(spec: &Spec<'_>, report: &mut Report<'_>) -> Option<u32> {
    match report.optional(&spec.affinity, "spec.sessionAffinity").ok()?.map(|text| &**text) {
        None | Some("" | "None") => None,
        Some("ClientIP") => Some(affinity_secs(&spec.affinity_config, report)),
        Some(other) => {
            let why = format_args!("{} is neither None nor ClientIP: treated as None", quoted(other));
            report.invalid("spec.sessionAffinity", why);
            None
        }
    }
}

fn affinity_secs(config: &Lax<AffinityConfig>, report: &mut Report<'_>) -> u32 {
    const FIELD: &str = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    let secs = report
        .optional(config, "spec.sessionAffinityConfig")
        .ok()
        .flatten()
        .and_then(|config| report.optional(&config.client_ip, "spec.sessionAffinityConfig.clientIP").ok().flatten())
        .and_then(|client_ip| report.optional(&client_ip.timeout_secs, FIELD).ok().flatten());
    match secs {
        None => DEFAULT_AFFINITY_SECS,
        Some(secs) => match u32::try_from(*secs) {
            Ok(valid) if (1..=LONGEST_AFFINITY_SECS).contains(secs) => valid,
            _ => {
                let why = format_args!("{secs} is not in 1..={LONGEST_AFFINITY_SECS}: {DEFAULT_AFFINITY_SECS} is used");
                report.invalid(FIELD, why);
                DEFAULT_AFFINITY_SECS
            }
        },
    }
}

fn local_only(policy: &Lax<std::borrow::Cow<'_, str>>, report: &mut Report<'_>) -> bool {
    const FIELD: &str = "spec.internalTrafficPolicy";
    match report.optional(policy, FIELD).ok().flatten().map(|text| &**text) {
        None | Some("" | "Cluster") => false,
        Some("Local") => true,
        Some(other) => {
            report.invalid(FIELD, format_args!("{} is neither Cluster nor Local: treated as Cluster", quoted(other)));
            false
        }
    }
}

fn distribution(text: &Lax<std::borrow::Cow<'_, str>>, report: &mut Report<'_>) -> Distribution {
    const FIELD: &str = "spec.trafficDistribution";
    match report.optional(text, FIELD).ok().flatten().map(|text| &**text) {
        None | Some("") => Distribution::Anywhere,
        Some("PreferClose" | "PreferSameZone") => Distribution::SameZone,
        Some("PreferSameNode") => Distribution::SameNode,
        // a hint by its definition, and the list of values grows: not the user's mistake
        Some(other) => {
            report.notice(FIELD, format_args!("{} is not known here: all endpoints are alike", quoted(other)));
            Distribution::Anywhere
        }
    }
}

/// The shares of clusters. One wrong share makes the whole annotation wrong: shares mean something only together.
fn weights(
    annotations: &Lax<Annotations<'_>>,
    report: &mut Report<'_>,
    names: &mut Interner,
) -> Option<BTreeMap<Arc<str>, u32>> {
    const IGNORED: &str = "the annotation is ignored, all endpoints are alike";
    let field = format_args!("metadata.annotations[{}]", api::CLUSTER_WEIGHTS);
    let annotations = report.optional(annotations, "metadata.annotations").ok()??;
    let text = report.optional(&annotations.cluster_weights, field).ok()??;
    let shares: BTreeMap<String, Lax<i64>> = match serde_json::from_str(text) {
        Ok(shares) => shares,
        Err(error) => {
            report.invalid(field, format_args!("{} is no JSON object ({error}): {IGNORED}", quoted(text)));
            return None;
        }
    };
    let mut weights = BTreeMap::new();
    for (cluster, share) in &shares {
        let why = match (field::cluster_id(cluster), share) {
            (Err(why), _) => why,
            (Ok(()), Lax::Good(share)) => match u32::try_from(*share) {
                Ok(weight) if *share <= GREATEST_WEIGHT => {
                    weights.insert(names.get(cluster), weight);
                    continue;
                }
                _ => format!("the share {share} of {cluster} is not in 0..={GREATEST_WEIGHT}"),
            },
            (Ok(()), Lax::Bad(found)) => format!("the share of {cluster} is {found}, no whole number"),
            (Ok(()), Lax::Absent) => format!("the share of {cluster} is null, no whole number"),
        };
        report.invalid(field, format_args!("{why}: {IGNORED}"));
        return None;
    }
    Some(weights)
}
