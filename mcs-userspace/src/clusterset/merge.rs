//! What the exports of one service make together (KEP-1645 "Constraints and Conflict Resolution"). A pure function of the
//! set of exports: every cluster computes the same, whatever the order in which it heard of them.
//!
//! ```text
//!  exports of all clusters ──sort by (created, cluster)──► the oldest decides what can be one thing only: type,
//!                                                          affinity, policies, labels, annotations
//!                                                      ──► ports and families are united, older ones first
//!                                                      ──► whoever differs from the oldest is counted in a conflict
//! ```
//!
//! A port is what clients dial, (protocol, port); its name is how slices say which of their ports belongs to it. A source
//! serves a merged port if its *Service* exposes that (protocol, port), under whatever name: a slice's own port name says
//! nothing of what its clients dial. [`merged_name`] is that rule, by which imported slices are renamed.

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::fault::{Fault, planted};
use super::local::{Condition, Truth};
use super::service::{Exported, Family, Port, SlicePort};
use crate::api::{ServiceImportType, SessionAffinityConfig};

/// Type of the condition of a ServiceExport that says whether clusters agree.
pub const CONFLICT: &str = "Conflict";

/// Its reason while they do.
pub const NO_CONFLICTS: &str = "NoConflicts";

/// How long `ClientIP` affinity lasts where a Service does not say (Kubernetes' default), seconds.
const DEFAULT_AFFINITY_SECS: i32 = 10800;

/// How many ports that came to nothing a message names.
const NAMED_PORTS: usize = 3;

/// One cluster's export of the service. A cluster has one at most.
#[derive(Clone, Copy, Debug)]
pub struct Constituent<'a> {
    /// The cluster's id.
    pub cluster: &'a str,
    /// What it exports.
    pub exported: &'a Exported,
}

/// What the exports of one service make together.
#[derive(Clone, PartialEq, Debug)]
pub struct Merged {
    /// Who exports it, sorted.
    pub clusters: Vec<String>,
    /// The oldest export's.
    pub kind: ServiceImportType,
    /// Names are unique (the empty one as well), and so are (protocol, port). Older exports' come first, each export's in
    /// its order: what a younger one adds moves nothing.
    pub ports: Vec<Port>,
    /// The families of any export, the oldest's first.
    pub ip_families: Vec<Family>,
    /// The oldest export's, as it is there.
    pub session_affinity: Option<String>,
    /// The oldest export's, as it is there.
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// The oldest export's, as it is there.
    pub internal_traffic_policy: Option<String>,
    /// The oldest export's, as it is there.
    pub traffic_distribution: Option<String>,
    /// The oldest export's, the whole set.
    pub labels: BTreeMap<String, String>,
    /// The oldest export's, the whole set.
    pub annotations: BTreeMap<String, String>,
    /// What the clusters do not agree about, in the order of the API's list of reasons.
    pub conflicts: Vec<Conflict>,
}

/// Something that the clusters do not agree about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// `PortConflict` and its like, as the API names them.
    pub reason: &'static str,
    /// What is used, from whom, and how many differ. Not who: users of one cluster need not know of another's.
    pub message: String,
}

/// Merges the exports of one service; none for no export.
#[must_use]
pub fn merge(exports: &[Constituent<'_>]) -> Option<Merged> {
    let mut exports = exports.to_vec();
    exports.sort_by_key(|export| (export.exported.created, export.cluster));
    let Constituent { cluster: _, exported: oldest } = *exports.first()?;

    let (ports, left_out) = united_ports(&exports);
    let mut clusters: Vec<String> = exports.iter().map(|export| export.cluster.to_owned()).collect();
    clusters.sort_unstable();
    Some(Merged {
        clusters,
        kind: oldest.kind,
        ip_families: united_families(&exports),
        session_affinity: oldest.session_affinity.clone(),
        session_affinity_config: oldest.session_affinity_config.clone(),
        internal_traffic_policy: oldest.internal_traffic_policy.clone(),
        traffic_distribution: oldest.traffic_distribution.clone(),
        labels: oldest.labels.clone(),
        annotations: oldest.annotations.clone(),
        conflicts: conflicts(&exports, &ports, &left_out),
        ports,
    })
}

/// The merged port that a source's port serves: the one with the (protocol, port) of the Service port that the slice's
/// port is named after. None if that Service port is not what the import has, or the slice names none of the Service's.
#[must_use]
pub fn merged_name<'m>(merged: &'m Merged, source: &Exported, slice_port: &SlicePort) -> Option<&'m Port> {
    let port = source.ports.iter().find(|port| port.name == slice_port.name && port.protocol == slice_port.protocol)?;
    merged
        .ports
        .iter()
        .find(|merged| same_number(merged, port) || planted(Fault::PortsByName) && merged.name == port.name)
}

/// The condition of every ServiceExport of the service, in all clusters alike.
#[must_use]
pub fn conflict_condition(merged: &Merged) -> Condition {
    let join =
        |part: fn(&Conflict) -> &str, separator| merged.conflicts.iter().map(part).collect::<Vec<_>>().join(separator);
    let kind = CONFLICT.to_owned();
    if merged.conflicts.is_empty() {
        return Condition { kind, status: Truth::False, reason: NO_CONFLICTS.to_owned(), message: String::new() };
    }
    Condition {
        kind,
        status: Truth::True,
        reason: join(|conflict| conflict.reason, ","),
        message: join(|conflict| &conflict.message, " "),
    }
}

/// Whether clients dial the same.
fn same_number(one: &Port, other: &Port) -> bool {
    (one.protocol, one.port) == (other.protocol, other.port)
}

/// A port that the import has not, and the port that keeps it out.
struct LeftOut<'a> {
    port: &'a Port,
    by: &'a Port,
}

/// The union of all ports, unique by name and by (protocol, port), older ones first; and those that are dialled on none
/// of them, each once.
fn united_ports<'a>(exports: &[Constituent<'a>]) -> (Vec<Port>, Vec<LeftOut<'a>>) {
    let mut united: Vec<&Port> = Vec::new();
    let mut left_out: Vec<LeftOut<'_>> = Vec::new();
    for port in exports.iter().flat_map(|export| &export.exported.ports) {
        if united.iter().any(|first| same_number(first, port)) {
            // the same port under whatever name: it is renamed
        } else if let Some(&by) = united.iter().find(|first| first.name == port.name) {
            if !left_out.iter().any(|out| same_number(out.port, port)) {
                left_out.push(LeftOut { port, by });
            }
        } else {
            united.push(port);
        }
    }
    // a younger export may have added under another name what an older one's name kept out
    left_out.retain(|out| !united.iter().any(|port| same_number(port, out.port)));
    (united.into_iter().cloned().collect(), left_out)
}

/// The families of any export.
fn united_families(exports: &[Constituent<'_>]) -> Vec<Family> {
    let mut families = Vec::new();
    for family in exports.iter().flat_map(|export| &export.exported.ip_families) {
        if !families.contains(family) {
            families.push(*family);
        }
    }
    families
}

/// Everything that any export says otherwise than the oldest.
fn conflicts(exports: &[Constituent<'_>], merged_ports: &[Port], left_out: &[LeftOut<'_>]) -> Vec<Conflict> {
    let Some(first) = exports.first() else { return Vec::new() };
    let oldest = first.exported;
    let mut conflicts = Vec::new();
    let mut check = |reason, field: &str, used: fmt::Arguments<'_>, differs: &dyn Fn(&Exported) -> bool| {
        let disagree = exports.iter().filter(|export| differs(export.exported)).count();
        if disagree > 0 {
            let (winner, all) = (first.cluster, exports.len());
            let message = format!(
                "Conflicting {field}. Using {used} from oldest service export in {winner:?}. \
                 {disagree}/{all} clusters disagree."
            );
            conflicts.push(Conflict { reason, message });
        }
    };

    let used = format_args!("the union of {} ports, with precedence for those", merged_ports.len());
    let ports = port_set(oldest);
    check("PortConflict", "ports", used, &|other| port_set(other) != ports);
    let used = format_args!("{:?}", kind_name(oldest.kind));
    check("TypeConflict", "type", used, &|other| other.kind != oldest.kind);
    let used = format_args!("{:?}", affinity(oldest));
    check("SessionAffinityConflict", "session affinity", used, &|other| affinity(other) != affinity(oldest));
    let secs = affinity_secs(oldest);
    let used = format_args!("a timeout of {} s", secs.unwrap_or_default());
    check("SessionAffinityConfigConflict", "session affinity config", used, &|other| {
        // who has no affinity at all disagrees about just that
        secs.is_some() && affinity_secs(other).is_some_and(|other| Some(other) != secs)
    });
    check("LabelsConflict", "labels", format_args!("those"), &|other| other.labels != oldest.labels);
    let used = format_args!("those");
    check("AnnotationsConflict", "annotations", used, &|other| other.annotations != oldest.annotations);
    let used = format_args!("{:?}", policy(oldest));
    check("InternalTrafficPolicyConflict", "internal traffic policy", used, &|other| policy(other) != policy(oldest));
    let used = format_args!("{:?}", oldest.traffic_distribution.as_deref().unwrap_or("none"));
    check("TrafficDistributionConflict", "traffic distribution", used, &|other| {
        other.traffic_distribution != oldest.traffic_distribution
    });
    let used = format_args!("the union of all families, with precedence for those");
    let families = family_set(oldest);
    check("IPFamilyConflict", "IP families", used, &|other| family_set(other) != families);

    // ports can only be left out where they differ, and that conflict is the first
    if let Some(conflict) = conflicts.first_mut() {
        conflict.message.push_str(&not_exposed(left_out));
    }
    conflicts
}

/// The ports that nobody can dial.
fn not_exposed(left_out: &[LeftOut<'_>]) -> String {
    let mut text = String::new();
    for LeftOut { port, by } in left_out.iter().take(NAMED_PORTS) {
        text.push_str(&format!(
            " Port {}/{} named {:?} is not exposed: {}/{} has that name.",
            port.port, port.protocol, port.name, by.port, by.protocol
        ));
    }
    if let more @ 1.. = left_out.len().saturating_sub(NAMED_PORTS) {
        text.push_str(&format!(" {more} more are not exposed."));
    }
    text
}

fn port_set(exported: &Exported) -> BTreeSet<&Port> {
    exported.ports.iter().collect()
}

fn family_set(exported: &Exported) -> BTreeSet<Family> {
    exported.ip_families.iter().copied().collect()
}

const fn kind_name(kind: ServiceImportType) -> &'static str {
    match kind {
        ServiceImportType::ClusterSetIP => "ClusterSetIP",
        ServiceImportType::Headless => "Headless",
    }
}

/// Session affinity, with Kubernetes' default.
fn affinity(exported: &Exported) -> &str {
    exported.session_affinity.as_deref().unwrap_or("None")
}

/// How long it lasts; none without affinity.
fn affinity_secs(exported: &Exported) -> Option<i32> {
    let client_ip = || exported.session_affinity_config.as_ref()?.client_ip.as_ref()?.timeout_seconds;
    (affinity(exported) == "ClientIP").then(|| client_ip().unwrap_or(DEFAULT_AFFINITY_SECS))
}

/// Internal traffic policy, with Kubernetes' default.
fn policy(exported: &Exported) -> &str {
    exported.internal_traffic_policy.as_deref().unwrap_or("Cluster")
}
