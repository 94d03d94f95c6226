//! What holds of any exports.

use proptest::prelude::*;

use super::tests::{port, reasons, timeout};
use super::*;
use crate::clusterset::service::Transport::{Sctp, Tcp, Udp};

fn any_port() -> impl Strategy<Value = Port> {
    let name = prop::sample::select(vec!["", "a", "b", "c"]);
    let protocol = prop::sample::select(vec![Tcp, Udp, Sctp]);
    (name, protocol, 1_u16..5).prop_map(|(name, protocol, number)| port(name, protocol, number))
}

/// A Service's ports: names and (protocol, port) are unique.
fn any_ports() -> impl Strategy<Value = Vec<Port>> {
    prop::collection::vec(any_port(), 0..5).prop_map(|all| {
        let mut ports: Vec<Port> = Vec::new();
        for port in all {
            if !ports.iter().any(|first| first.name == port.name || same_number(first, &port)) {
                ports.push(port);
            }
        }
        ports
    })
}

fn any_exported() -> impl Strategy<Value = Exported> {
    let kind = prop::sample::select(vec![ServiceImportType::ClusterSetIP, ServiceImportType::Headless]);
    let families = prop::sample::select(vec![vec![Family::IPv4], vec![Family::IPv6], vec![Family::IPv6, Family::IPv4]]);
    let text = prop::option::of(prop::sample::select(vec!["None".to_owned(), "ClientIP".to_owned()]));
    let seconds = prop::option::of(1..3_i32);
    let labels = prop::collection::btree_map("[ab]", "[ab]", 0..2);
    (0..3_i64, kind, any_ports(), families, text, seconds, labels).prop_map(
        |(created, kind, ports, ip_families, session_affinity, seconds, labels)| Exported {
            created,
            kind,
            ports,
            ip_families,
            session_affinity,
            session_affinity_config: seconds.map(|seconds| timeout(Some(seconds))),
            labels,
            ..Exported::default()
        },
    )
}

fn any_exports() -> impl Strategy<Value = Vec<(String, Exported)>> {
    prop::collection::btree_map("[a-e]", any_exported(), 1..6).prop_map(|map| map.into_iter().collect())
}

fn constituents(exports: &[(String, Exported)]) -> Vec<Constituent<'_>> {
    exports.iter().map(|(cluster, exported)| Constituent { cluster, exported }).collect()
}

/// The age that decides.
fn age(export: &(String, Exported)) -> (i64, &str) {
    (export.1.created, &export.0)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_of_hearing_decides_nothing((sorted, shuffled) in any_exports().prop_flat_map(|exports| {
        (Just(exports.clone()), Just(exports).prop_shuffle())
    })) {
        prop_assert_eq!(merge(&constituents(&sorted)), merge(&constituents(&shuffled)));
    }

    #[test]
    fn every_port_is_unique_and_somebodys(exports in any_exports()) {
        let merged = merge(&constituents(&exports)).unwrap();
        for (i, port) in merged.ports.iter().enumerate() {
            for other in &merged.ports[..i] {
                prop_assert!(other.name != port.name && !same_number(other, port));
            }
            prop_assert!(exports.iter().any(|(_, exported)| exported.ports.contains(port)));
        }
    }

    #[test]
    fn only_a_name_keeps_a_port_out(exports in any_exports()) {
        let merged = merge(&constituents(&exports)).unwrap();
        for port in exports.iter().flat_map(|(_, exported)| &exported.ports) {
            prop_assert!(merged.ports.iter().any(|merged| same_number(merged, port) || merged.name == port.name));
        }
    }

    #[test]
    fn a_source_serves_what_its_service_exposes_and_nothing_else(exports in any_exports()) {
        let merged = merge(&constituents(&exports)).unwrap();
        for (_, source) in &exports {
            let served: BTreeSet<&Port> = source.ports.iter().filter_map(|port| {
                let name = port.name.clone();
                let slice_port = SlicePort { name, protocol: port.protocol, port: 9, app_protocol: None };
                merged_name(&merged, source, &slice_port)
            }).collect();
            let exposed = |port: &&Port| source.ports.iter().any(|own| same_number(own, port));
            prop_assert_eq!(served, merged.ports.iter().filter(exposed).collect::<BTreeSet<_>>());
        }
    }

    #[test]
    fn a_younger_export_changes_nothing_that_is_used(exports in any_exports()) {
        let mut exports = exports;
        exports.sort_by(|one, other| age(one).cmp(&age(other)));
        let all = merge(&constituents(&exports)).unwrap();
        exports.pop();
        if let Some(before) = merge(&constituents(&exports)) {
            prop_assert!(all.ports.starts_with(&before.ports));
            prop_assert!(all.ip_families.starts_with(&before.ip_families));
            let still = Merged {
                clusters: all.clusters.clone(),
                ports: all.ports.clone(),
                ip_families: all.ip_families.clone(),
                conflicts: all.conflicts.clone(),
                ..before
            };
            prop_assert_eq!(all, still);
        }
    }

    #[test]
    fn a_conflict_is_a_difference_and_a_difference_a_conflict(exports in any_exports()) {
        let merged = merge(&constituents(&exports)).unwrap();
        let differ = |differs: &dyn Fn(&Exported, &Exported) -> bool| {
            exports.iter().any(|(_, one)| exports.iter().any(|(_, other)| differs(one, other)))
        };
        let expected: Vec<&str> = [
            ("PortConflict", differ(&|one, other| port_set(one) != port_set(other))),
            ("TypeConflict", differ(&|one, other| one.kind != other.kind)),
            ("SessionAffinityConflict", differ(&|one, other| affinity(one) != affinity(other))),
            ("LabelsConflict", differ(&|one, other| one.labels != other.labels)),
            ("IPFamilyConflict", differ(&|one, other| family_set(one) != family_set(other))),
        ].into_iter().filter_map(|(reason, differs)| differs.then_some(reason)).collect();
        let found: Vec<&str> =
            reasons(&merged).into_iter().filter(|reason| *reason != "SessionAffinityConfigConflict").collect();
        prop_assert_eq!(found, expected);
    }
}
