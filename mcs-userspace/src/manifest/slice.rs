//! An EndpointSlice's document to the model.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use mcs_ebpf::{Addr, PortBe};

use super::Verdict;
use super::field::{self, Transport};
use super::interner::Interner;
use super::lax::{Lax, quoted};
use super::report::{Report, Reported};
use super::shapes::{self, Conditions, Document, Labels, List, Port};
use crate::api;
use crate::model::{Endpoint, Object, ObjectKey, SctpPort, Slice, SliceNames, SlicePort};

/// The cluster of endpoints of which that is not said.
const UNKNOWN_CLUSTER: &str = "unknown";

/// Reads an EndpointSlice whose name is known. One without the label of an import is none of ours: a directory or a
/// cluster has many of those. Where `lenient`, the label of the source cluster may be missing: upstream's own example of
/// a controller gets along without.
pub(super) fn read(
    document: &Document<'_>,
    key: ObjectKey,
    lenient: bool,
    report: &mut Report<'_>,
    names: &mut Interner,
) -> Verdict {
    let labels = match &document.metadata {
        Lax::Good(metadata) => report.optional(&metadata.labels, "metadata.labels"),
        Lax::Absent | Lax::Bad(_) => Ok(None),
    };
    let labels = match labels {
        Ok(Some(labels)) if !matches!(labels.service_name, Lax::Absent) => labels,
        Ok(_) => return Verdict::Idle,
        Err(Reported) => return Verdict::Broken,
    };
    let Some((import, cluster)) = owner(labels, lenient, report) else { return Verdict::Broken };
    let Some(ipv4) = is_ipv4(&document.address_type, report) else { return Verdict::Broken };
    let mut only_names = SliceNames::default();
    let (Ok(ports), Ok(endpoints)) = (
        ports(&document.ports, &mut only_names.sctp, report, names),
        endpoints(&document.endpoints, ipv4, &mut only_names, report, names),
    ) else {
        return Verdict::Broken;
    };
    Verdict::Object(Object::Slice(Slice {
        key,
        import: names.get(import),
        cluster: names.get(cluster),
        ports,
        endpoints,
        names: only_names,
    }))
}

/// The import that the slice belongs to and the cluster that it comes from.
fn owner<'l>(labels: &'l Labels<'_>, lenient: bool, report: &mut Report<'_>) -> Option<(&'l str, &'l str)> {
    let service = format_args!("metadata.labels[{}]", api::SERVICE_NAME);
    let import = report.required(&labels.service_name, service)?;
    field::dns_label(import).map_err(|why| report.invalid(service, why)).ok()?;
    let source = format_args!("metadata.labels[{}]", api::SOURCE_CLUSTER);
    if lenient && matches!(labels.source_cluster, Lax::Absent) {
        report.notice(source, format_args!("missing: the endpoints count as those of a cluster {UNKNOWN_CLUSTER:?}"));
        return Some((import, UNKNOWN_CLUSTER));
    }
    let cluster = report.required(&labels.source_cluster, source)?;
    field::cluster_id(cluster).map_err(|why| report.invalid(source, why)).ok()?;
    Some((import, cluster))
}

fn is_ipv4(address_type: &Lax<Cow<'_, str>>, report: &mut Report<'_>) -> Option<bool> {
    match &**report.required(address_type, "addressType")? {
        "IPv4" => Some(true),
        "IPv6" => Some(false),
        other => {
            report.invalid("addressType", format_args!("{} is neither IPv4 nor IPv6", quoted(other)));
            None
        }
    }
}

/// TCP and UDP ports with a number and unique names. The same number may serve several names: two ports of a Service
/// may have one target. SCTP ports go to `sctp`.
fn ports(
    list: &Lax<List<Port<'_>>>,
    sctp: &mut Vec<SctpPort>,
    report: &mut Report<'_>,
    names: &mut Interner,
) -> Result<Vec<SlicePort>, Reported> {
    let Some(list) = report.optional(list, "ports")? else { return Ok(Vec::new()) };
    let mut ports = Vec::new();
    let mut seen = HashSet::new();
    let mut valid = 0;
    for (i, port) in list.iter().enumerate() {
        let at = format_args!("ports[{i}]");
        let Some(port) = report.required(port, at) else { continue };
        let Some(port) = read_port(port, &at, report, names) else { continue };
        valid += 1;
        let port = match port {
            AnyPort::Programmed(port) => port,
            // that it is not programmed is said once, of the import
            AnyPort::Sctp(port) => {
                sctp.push(port);
                continue;
            }
            AnyPort::Numberless => continue,
        };
        if seen.insert(Arc::clone(&port.name)) {
            ports.push(port);
        } else {
            let why = format_args!("a second port named {}: only the first is used", quoted(&port.name));
            report.invalid(format_args!("{at}.name"), why);
        }
    }
    if valid == 0 && !list.is_empty() {
        report.invalid("ports", "no usable port");
        return Err(Reported);
    }
    Ok(ports)
}

/// A valid port.
enum AnyPort {
    Programmed(SlicePort),
    Sctp(SctpPort),
    Numberless,
}

/// A port by itself.
fn read_port(
    port: &Port<'_>,
    at: &std::fmt::Arguments<'_>,
    report: &mut Report<'_>,
    names: &mut Interner,
) -> Option<AnyPort> {
    let name = report.optional(&port.name, format_args!("{at}.name")).ok()?.map_or("", |name| name);
    if !name.is_empty() {
        field::dns_label(name).map_err(|why| report.invalid(format_args!("{at}.name"), why)).ok()?;
    }
    let protocol = report.optional(&port.protocol, format_args!("{at}.protocol")).ok()?;
    let protocol = field::protocol(protocol.map(|text| &**text))
        .map_err(|why| report.invalid(format_args!("{at}.protocol"), why))
        .ok()?;
    let Some(number) = report.optional(&port.port, format_args!("{at}.port")).ok()? else {
        report.notice(format_args!("{at}.port"), "a port without a number is not programmed");
        return Some(AnyPort::Numberless);
    };
    let number = field::port(*number).map_err(|why| report.invalid(format_args!("{at}.port"), why)).ok()?;
    Some(match protocol {
        Transport::Programmed(protocol) => {
            AnyPort::Programmed(SlicePort { name: names.get(name), protocol, port: PortBe::new(number) })
        }
        Transport::Sctp => AnyPort::Sctp(SctpPort { name: names.get(name), port: number }),
    })
}

fn endpoints(
    list: &Lax<List<shapes::Endpoint<'_>>>,
    ipv4: bool,
    only_names: &mut SliceNames,
    report: &mut Report<'_>,
    names: &mut Interner,
) -> Result<Vec<Endpoint>, Reported> {
    let Some(list) = report.optional(list, "endpoints")? else { return Ok(Vec::new()) };
    let mut endpoints = Vec::with_capacity(list.len());
    for (i, endpoint) in list.iter().enumerate() {
        let Some(endpoint) = report.required(endpoint, format_args!("endpoints[{i}]")) else { continue };
        let Some(valid) = read_endpoint(endpoint, i, ipv4, report, names) else { continue };
        let place = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
        endpoints.push(valid);
        only_names.hostnames.extend(hostname(endpoint, i, report, names).map(|name| (place, name)));
        only_names.further.extend(further_addresses(endpoint, i, ipv4, report).into_iter().map(|addr| (place, addr)));
    }
    if endpoints.is_empty() && !list.is_empty() {
        report.invalid("endpoints", "no usable endpoint");
        return Err(Reported);
    }
    Ok(endpoints)
}

fn read_endpoint(
    endpoint: &shapes::Endpoint<'_>,
    i: usize,
    ipv4: bool,
    report: &mut Report<'_>,
    names: &mut Interner,
) -> Option<Endpoint> {
    let addr = first_address(&endpoint.addresses, i, ipv4, report)?;
    let conditions = report.optional(&endpoint.conditions, format_args!("endpoints[{i}].conditions")).ok()?;
    let none = Conditions::default();
    let Conditions { ready, serving, terminating } = conditions.unwrap_or(&none);
    let mut condition = |value: &Lax<bool>, name: &str| {
        report.optional(value, format_args!("endpoints[{i}].conditions.{name}")).map(Option::<&bool>::copied)
    };
    // a condition that cannot be read might say that the endpoint must not be used
    let ready = condition(ready, "ready").ok()?.unwrap_or(true);
    let serving = condition(serving, "serving").ok()?.unwrap_or(ready);
    let terminating = condition(terminating, "terminating").ok()?.unwrap_or(false);
    let mut place = |value: &Lax<Cow<'_, str>>, name: &str| {
        let text = report.optional(value, format_args!("endpoints[{i}].{name}")).ok().flatten()?;
        (!text.is_empty()).then(|| names.get(text))
    };
    let (node, zone) = (place(&endpoint.node, "nodeName"), place(&endpoint.zone, "zone"));
    Some(Endpoint { addr, ready, serving, terminating, node, zone })
}

/// The endpoint's name below its cluster's, where it has one of its own.
fn hostname(
    endpoint: &shapes::Endpoint<'_>,
    i: usize,
    report: &mut Report<'_>,
    names: &mut Interner,
) -> Option<Arc<str>> {
    let field = format_args!("endpoints[{i}].hostname");
    let name = report.optional(&endpoint.hostname, field).ok()??;
    if name.is_empty() {
        return None;
    }
    field::dns_label(name).map_err(|why| report.invalid(field, why)).ok()?;
    Some(names.get(name))
}

/// The addresses after the first, as far as they are valid: names lead to all of them.
fn further_addresses(endpoint: &shapes::Endpoint<'_>, i: usize, ipv4: bool, report: &mut Report<'_>) -> Vec<Addr> {
    let Lax::Good(addresses) = &endpoint.addresses else { return Vec::new() };
    let mut further = Vec::new();
    for (j, address) in addresses.iter().enumerate().skip(1) {
        let Some(text) = report.required(address, format_args!("endpoints[{i}].addresses[{j}]")) else { continue };
        match field::address(text) {
            Ok(ip) if ip.is_ipv4() == ipv4 => further.push(Addr::from(ip)),
            Ok(ip) => report.invalid(
                format_args!("endpoints[{i}].addresses[{j}]"),
                format_args!("{ip} is {}, not of the slice's addressType", field::family(&ip)),
            ),
            Err(why) => report.invalid(format_args!("endpoints[{i}].addresses[{j}]"), why),
        }
    }
    further
}

/// The address that counts. Kubernetes: the addresses of one endpoint are interchangeable, consumers use the first.
fn first_address(addresses: &Lax<List<Cow<'_, str>>>, i: usize, ipv4: bool, report: &mut Report<'_>) -> Option<Addr> {
    let addresses = report.required(addresses, format_args!("endpoints[{i}].addresses"))?;
    let Some(first) = addresses.first() else {
        report.invalid(format_args!("endpoints[{i}].addresses"), "empty: an address belongs here");
        return None;
    };
    let field = format_args!("endpoints[{i}].addresses[0]");
    let text = report.required(first, field)?;
    let ip: IpAddr = field::address(text).map_err(|why| report.invalid(field, why)).ok()?;
    if ip.is_ipv4() != ipv4 {
        let wanted = if ipv4 { "IPv4" } else { "IPv6" };
        report.invalid(field, format_args!("{ip} is {}, the slice's addressType is {wanted}", field::family(&ip)));
        return None;
    }
    if addresses.len() > 1 {
        let why = "only an endpoint's first address gets connections";
        report.notice(format_args!("endpoints[{i}].addresses[1]"), why);
    }
    Some(Addr::from(ip))
}
