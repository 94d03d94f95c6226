//! The rules, with the numbers of the conformance suite where it has some (C8 and so on: its tests, in their order).

use super::*;
use crate::api::ClientIPConfig;
use crate::clusterset::service::Transport::{self, Sctp, Tcp, Udp};

pub(super) fn port(name: &str, protocol: Transport, port: u16) -> Port {
    Port { name: name.to_owned(), protocol, port, app_protocol: None }
}

/// The suite's service `hello`, exported at a time.
fn hello(created: i64) -> Exported {
    Exported {
        created,
        ports: vec![port("tcp", Tcp, 42), port("udp", Udp, 42)],
        ip_families: vec![Family::IPv4],
        session_affinity: Some("ClientIP".to_owned()),
        session_affinity_config: Some(timeout(Some(10))),
        internal_traffic_policy: Some("Cluster".to_owned()),
        traffic_distribution: Some("PreferClose".to_owned()),
        ..Exported::default()
    }
}

pub(super) fn timeout(seconds: Option<i32>) -> SessionAffinityConfig {
    SessionAffinityConfig { client_ip: Some(ClientIPConfig { timeout_seconds: seconds }) }
}

fn merged(exports: &[&Exported]) -> Merged {
    let clusters = ["c0", "c1", "c2", "c3", "c4"];
    let constituents: Vec<_> =
        clusters.iter().zip(exports).map(|(cluster, exported)| Constituent { cluster, exported }).collect();
    merge(&constituents).unwrap()
}

pub(super) fn reasons(merged: &Merged) -> Vec<&str> {
    merged.conflicts.iter().map(|conflict| conflict.reason).collect()
}

/// The name of the merged port that a source's slice port serves.
fn serves(merged: &Merged, source: &Exported, name: &str) -> Option<(String, u16)> {
    let slice_port = SlicePort { name: name.to_owned(), protocol: Tcp, port: 42, app_protocol: None };
    merged_name(merged, source, &slice_port).map(|port| (port.name.clone(), port.port))
}

#[test]
fn nothing_comes_of_nothing() {
    assert_eq!(merge(&[]), None);
}

#[test]
fn one_export_is_taken_as_it_is() {
    let hello = hello(5);
    let merged = merged(&[&hello]);
    assert_eq!(merged.clusters, ["c0"]);
    assert_eq!(merged.ports, hello.ports);
    assert_eq!(merged.ip_families, hello.ip_families);
    assert_eq!(merged.session_affinity, hello.session_affinity);
    assert_eq!(merged.session_affinity_config, hello.session_affinity_config);
    assert_eq!(merged.internal_traffic_policy, hello.internal_traffic_policy);
    assert_eq!(merged.traffic_distribution, hello.traffic_distribution);
    let condition = conflict_condition(&merged);
    assert_eq!(
        (condition.kind.as_str(), condition.status, condition.reason.as_str(), condition.message.as_str()),
        ("Conflict", Truth::False, "NoConflicts", "")
    );
}

#[test]
fn equal_exports_do_not_conflict_whatever_the_order_of_their_ports_and_families() {
    let mut one = hello(5);
    one.ip_families = vec![Family::IPv6, Family::IPv4];
    let mut other = hello(6);
    other.ports.reverse();
    other.ip_families = vec![Family::IPv4, Family::IPv6];
    let merged = merged(&[&one, &other]);
    assert_eq!(merged.conflicts, []);
    assert_eq!(merged.ports, one.ports);
    assert_eq!(merged.ip_families, one.ip_families);
}

#[test]
fn c8_ports_are_united_and_any_difference_is_a_conflict() {
    let mut c1 = hello(6);
    c1.ports = vec![port("tcp", Tcp, 42), port("stcp", Sctp, 142)];
    let merged = merged(&[&hello(5), &c1]);
    assert_eq!(merged.ports, [port("tcp", Tcp, 42), port("udp", Udp, 42), port("stcp", Sctp, 142)]);
    let condition = conflict_condition(&merged);
    assert_eq!((condition.status, condition.reason.as_str()), (Truth::True, "PortConflict"));
    assert_eq!(
        condition.message,
        "Conflicting ports. Using the union of 3 ports, with precedence for those from oldest service export in \
         \"c0\". 1/2 clusters disagree."
    );
}

#[test]
fn c9_of_two_ports_of_one_name_the_older_stays() {
    let mut c1 = hello(6);
    c1.ports = vec![port("tcp", Tcp, 43)];
    let merged = merged(&[&hello(5), &c1]);
    assert_eq!(merged.ports, hello(5).ports);
    assert_eq!(reasons(&merged), ["PortConflict"]);
    let left_out = " Port 43/TCP named \"tcp\" is not exposed: 42/TCP has that name.";
    assert!(merged.conflicts[0].message.ends_with(&format!("1/2 clusters disagree.{left_out}")));
    let c2 = Exported { created: 7, ..c1.clone() };
    let merged = self::merged(&[&hello(5), &c1, &c2]);
    assert!(merged.conflicts[0].message.ends_with(&format!("2/3 clusters disagree.{left_out}")), "said once");
}

#[test]
fn c26_the_same_name_with_another_number_is_not_the_port() {
    let mut c1 = hello(6);
    c1.ports = vec![port("tcp", Tcp, 4242)];
    let merged = merged(&[&hello(5), &c1]);
    assert_eq!(serves(&merged, &hello(5), "tcp"), Some(("tcp".to_owned(), 42)));
    assert_eq!(serves(&merged, &c1, "tcp"), None, "its pods listen on 42, its clients dial 4242");
}

#[test]
fn c27_each_port_is_served_by_who_exposes_it() {
    let mut c1 = hello(6);
    c1.ports = vec![port("tcp2", Tcp, 4242)];
    let merged = merged(&[&hello(5), &c1]);
    assert_eq!(merged.ports, [port("tcp", Tcp, 42), port("udp", Udp, 42), port("tcp2", Tcp, 4242)]);
    assert_eq!(serves(&merged, &hello(5), "tcp"), Some(("tcp".to_owned(), 42)));
    assert_eq!(serves(&merged, &c1, "tcp2"), Some(("tcp2".to_owned(), 4242)));
    assert_eq!(serves(&merged, &hello(5), "tcp2"), None);
    assert_eq!(serves(&merged, &c1, "tcp"), None);
}

#[test]
fn a_port_under_another_name_is_the_port() {
    let mut c1 = hello(6);
    c1.ports = vec![port("web", Tcp, 42), port("udp", Udp, 42)];
    let merged = merged(&[&hello(5), &c1]);
    assert_eq!(merged.ports, hello(5).ports);
    assert_eq!(reasons(&merged), ["PortConflict"]);
    assert!(!merged.conflicts[0].message.contains("not exposed"));
    assert_eq!(serves(&merged, &c1, "web"), Some(("tcp".to_owned(), 42)));
}

#[test]
fn swapped_names_are_swapped_back() {
    let one = Exported { created: 1, ports: vec![port("a", Tcp, 80), port("b", Tcp, 81)], ..Exported::default() };
    let other = Exported { created: 2, ports: vec![port("b", Tcp, 80), port("a", Tcp, 81)], ..Exported::default() };
    let merged = merged(&[&one, &other]);
    assert_eq!(merged.ports, one.ports);
    assert_eq!(serves(&merged, &other, "b"), Some(("a".to_owned(), 80)));
    assert_eq!(serves(&merged, &other, "a"), Some(("b".to_owned(), 81)));
}

#[test]
fn what_one_name_keeps_out_another_name_brings_in() {
    let one = Exported { created: 1, ports: vec![port("tcp", Tcp, 42)], ..Exported::default() };
    let two = Exported { created: 2, ports: vec![port("tcp", Tcp, 4242)], ..Exported::default() };
    let three = Exported { created: 3, ports: vec![port("tcp2", Tcp, 4242)], ..Exported::default() };
    let merged = merged(&[&one, &two, &three]);
    assert_eq!(merged.ports, [port("tcp", Tcp, 42), port("tcp2", Tcp, 4242)]);
    assert_eq!(serves(&merged, &two, "tcp"), Some(("tcp2".to_owned(), 4242)));
    assert_eq!(
        merged.conflicts[0].message,
        "Conflicting ports. Using the union of 2 ports, with precedence for those from oldest service export in \
         \"c0\". 2/3 clusters disagree."
    );
}

#[test]
fn the_name_of_no_name_is_a_name() {
    let one = Exported { created: 1, ports: vec![port("", Tcp, 80)], ..Exported::default() };
    let other = Exported { created: 2, ports: vec![port("", Tcp, 81)], ..Exported::default() };
    let merged = merged(&[&one, &other]);
    assert_eq!(merged.ports, one.ports);
    assert_eq!(serves(&merged, &other, ""), None);
}

#[test]
fn one_number_of_two_protocols_is_two_ports() {
    let dns = Exported { created: 1, ports: vec![port("dns", Udp, 53)], ..Exported::default() };
    let tcp = Exported { created: 2, ports: vec![port("dns-tcp", Tcp, 53)], ..Exported::default() };
    assert_eq!(merged(&[&dns, &tcp]).ports, [port("dns", Udp, 53), port("dns-tcp", Tcp, 53)]);
}

#[test]
fn another_application_protocol_is_a_conflict() {
    let mut other = hello(6);
    other.ports[0].app_protocol = Some("kubernetes.io/h2c".to_owned());
    let merged = merged(&[&hello(5), &other]);
    assert_eq!(merged.ports[0].app_protocol, None);
    assert_eq!(reasons(&merged), ["PortConflict"]);
}

#[test]
fn many_ports_that_nobody_can_dial_are_counted() {
    let all = |base: u16| (0..10).map(|i| port(&format!("p{i}"), Tcp, base + i)).collect::<Vec<_>>();
    let one = Exported { created: 1, ports: all(100), ..Exported::default() };
    let other = Exported { created: 2, ports: all(200), ..Exported::default() };
    let message = merged(&[&one, &other]).conflicts[0].message.clone();
    assert_eq!(message.matches("has that name").count(), NAMED_PORTS);
    assert!(message.ends_with(" 7 more are not exposed."), "{message}");
}

#[test]
fn c13_the_type_is_the_oldests() {
    let mut headless = hello(6);
    headless.kind = ServiceImportType::Headless;
    let merged = merged(&[&hello(5), &headless]);
    assert_eq!(merged.kind, ServiceImportType::ClusterSetIP);
    let condition = conflict_condition(&merged);
    assert_eq!(condition.reason, "TypeConflict");
    assert_eq!(
        condition.message,
        "Conflicting type. Using \"ClusterSetIP\" from oldest service export in \"c0\". 1/2 clusters disagree."
    );
}

#[test]
fn headless_services_without_ports_are_merged_too() {
    let database = |created, families: &[Family]| Exported {
        created,
        kind: ServiceImportType::Headless,
        ip_families: families.to_vec(),
        ..Exported::default()
    };
    let merged = merged(&[&database(1, &[Family::IPv6]), &database(2, &[Family::IPv4])]);
    assert_eq!(merged.kind, ServiceImportType::Headless);
    assert_eq!(merged.ports, []);
    assert_eq!(merged.ip_families, [Family::IPv6, Family::IPv4]);
    assert_eq!(reasons(&merged), ["IPFamilyConflict"]);
}

#[test]
fn c16_labels_and_annotations_are_the_oldests_as_a_whole() {
    let set = |key: &str| BTreeMap::from([(key.to_owned(), "dummy".to_owned())]);
    let one = Exported { labels: set("a"), annotations: set("b"), ..hello(5) };
    let other = Exported { labels: set("c"), annotations: set("d"), ..hello(6) };
    let merged = merged(&[&one, &other]);
    assert_eq!((&merged.labels, &merged.annotations), (&one.labels, &one.annotations));
    assert_eq!(conflict_condition(&merged).reason, "LabelsConflict,AnnotationsConflict");
}

#[test]
fn a_default_that_is_not_written_is_no_conflict() {
    let written = Exported { session_affinity_config: Some(timeout(Some(10800))), ..hello(5) };
    let unwritten = Exported { session_affinity_config: None, internal_traffic_policy: None, ..hello(6) };
    assert_eq!(merged(&[&written, &unwritten]).conflicts, []);
    let none = Exported { session_affinity: Some("None".to_owned()), session_affinity_config: None, ..hello(5) };
    let absent = Exported { session_affinity: None, session_affinity_config: None, ..hello(6) };
    assert_eq!(merged(&[&none, &absent]).conflicts, []);
}

#[test]
fn affinity_and_how_long_it_lasts_are_two_conflicts() {
    let longer = Exported { session_affinity_config: Some(timeout(Some(20))), ..hello(6) };
    let merged_with_longer = merged(&[&hello(5), &longer]);
    assert_eq!(merged_with_longer.session_affinity_config, Some(timeout(Some(10))));
    assert_eq!(reasons(&merged_with_longer), ["SessionAffinityConfigConflict"]);
    assert!(merged_with_longer.conflicts[0].message.contains("Using a timeout of 10 s from"));
    let without = Exported { session_affinity: Some("None".to_owned()), session_affinity_config: None, ..hello(6) };
    assert_eq!(reasons(&merged(&[&hello(5), &without])), ["SessionAffinityConflict"]);
    assert_eq!(merged(&[&without, &hello(7)]).session_affinity.as_deref(), Some("None"));
}

#[test]
fn everything_at_once_is_told_in_the_apis_order() {
    let other = Exported {
        created: 1,
        kind: ServiceImportType::Headless,
        ports: Vec::new(),
        ip_families: vec![Family::IPv6],
        session_affinity_config: Some(timeout(None)),
        internal_traffic_policy: Some("Local".to_owned()),
        traffic_distribution: None,
        labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        ..hello(1)
    };
    let merged = merged(&[&hello(5), &hello(6), &other]);
    let condition = conflict_condition(&merged);
    assert_eq!(
        condition.reason,
        "PortConflict,TypeConflict,SessionAffinityConfigConflict,LabelsConflict,AnnotationsConflict,\
         InternalTrafficPolicyConflict,TrafficDistributionConflict,IPFamilyConflict"
    );
    assert!(condition.message.matches("from oldest service export in \"c2\". 2/3 clusters disagree.").count() == 8);
    assert!(condition.message.contains("Using \"none\" from"), "{}", condition.message);
}

#[test]
fn a_tie_goes_to_the_first_cluster_id() {
    let (one, other) = (hello(5), Exported { kind: ServiceImportType::Headless, ..hello(5) });
    let of = |cluster, exported| Constituent { cluster, exported };
    let first = merge(&[of("b", &one), of("a", &other)]).unwrap();
    assert_eq!(first.kind, ServiceImportType::Headless);
    assert_eq!(first.clusters, ["a", "b"]);
    assert_eq!(merge(&[of("a", &other), of("b", &one)]), Some(first));
}
