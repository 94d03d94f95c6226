//! The parts of a slice. What is left is what the API server takes in an EndpointSlice, and where traffic may go.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Limits;
use super::export::{name_part, port_itself, qualified_name};
use super::report::Report;
use crate::clusterset::record::MemberSpec;
use crate::clusterset::service::{Endpoint, Endpoints, Family, SlicePort};
use crate::manifest::{field, quoted};

/// Where a member's endpoints may be.
pub(super) struct Allowed<'a> {
    /// None: anywhere. An empty list: nowhere, as the CIDRs that were meant cannot be read.
    pods: Option<Vec<IpNet>>,
    clusterset: &'a [IpNet],
}

impl<'a> Allowed<'a> {
    pub(super) fn new(member: &MemberSpec, clusterset: &'a [IpNet]) -> Self {
        let given = !member.pod_cidrs.is_empty();
        let pods = given.then(|| member.pod_cidrs.iter().filter_map(|text| cidr(text).ok()).collect());
        Self { pods, clusterset }
    }

    fn check(&self, family: Family, ip: IpAddr) -> Result<(), String> {
        field::assignable(ip)?;
        let within = |cidrs: &[IpNet]| cidrs.iter().any(|cidr| cidr.contains(&ip));
        if Family::of(ip) != family {
            Err(format!("{ip} is no {family} address"))
        } else if within(self.clusterset) {
            Err(format!("{ip} is in a CIDR of ClusterSetIPs"))
        } else if self.pods.as_deref().is_some_and(|pods| !within(pods)) {
            Err(format!("{ip} is in no pod CIDR of the member"))
        } else {
            Ok(())
        }
    }
}

/// A member's pod CIDR.
///
/// # Errors
/// It is none.
pub(super) fn cidr(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_not_a_cidr| format!("{} is no CIDR", quoted(text)))
}

/// The good parts.
pub(super) fn check(limits: &Limits, allowed: &Allowed<'_>, slice: &Endpoints, report: &mut Report) -> Endpoints {
    let ports = ports(limits, &slice.ports, report);
    let mut endpoints = Vec::new();
    for (i, endpoint) in report.capped("spec.slice.endpoints", &slice.endpoints, limits.endpoints).iter().enumerate() {
        let at = format_args!("spec.slice.endpoints[{i}]");
        if report.ok(format_args!("{at}.address"), allowed.check(slice.family, endpoint.address)).is_none() {
            continue;
        }
        endpoints.push(Endpoint {
            hostname: report.text(format_args!("{at}.hostname"), endpoint.hostname.as_ref(), field::dns_label),
            node_name: report.text(format_args!("{at}.nodeName"), endpoint.node_name.as_ref(), field::dns_name),
            zone: report.text(format_args!("{at}.zone"), endpoint.zone.as_ref(), name_part),
            ..endpoint.clone()
        });
    }
    Endpoints { family: slice.family, ports, endpoints, changed_at: slice.changed_at }
}

/// Ports with unique names. One number may serve several names: two ports of a Service may have one target.
fn ports(limits: &Limits, ports: &[SlicePort], report: &mut Report) -> Vec<SlicePort> {
    let mut names = BTreeSet::new();
    let mut good = Vec::new();
    for (i, port) in report.capped("spec.slice.ports", ports, limits.ports).iter().enumerate() {
        let at = format_args!("spec.slice.ports[{i}]");
        if report.ok(at, port_itself(&port.name, port.port)).is_none() {
            continue;
        }
        if names.insert(&port.name) {
            let app_protocol =
                report.text(format_args!("{at}.appProtocol"), port.app_protocol.as_ref(), qualified_name);
            good.push(SlicePort { app_protocol, ..port.clone() });
        } else {
            report.invalid(format_args!("{at}.name"), format_args!("a second port named {:?}", port.name));
        }
    }
    good
}
