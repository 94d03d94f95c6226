//! `internalTrafficPolicy`, `trafficDistribution` and `--prefer-local-cluster`: who is reached from node `a1` in zone `z1`.

use std::collections::BTreeSet;

use mcs_tests::identity::Protocol;
use mcs_tests::manifest::{Endpoint, EndpointSlice, ServiceImport};
use mcs_tests::{Family, Fleet, require_root};
use serde_json::Value;

use crate::sockets::{Kind, try_dial};
use crate::world::{PORT, TARGET, World, combinations, vip, vips};

/// Pod, `nodeName`, zone. One of cluster b's nodes has the same name as the client's: node names are unique in a cluster
/// only. Zones are the same all over a region.
const ENDPOINTS: [(&str, &str, &str); 6] = [
    ("a1p2", "a1", "z1"),
    ("a2p1", "a2", "z1"),
    ("a2p2", "a2", "z2"),
    ("b1p1", "a1", "z1"),
    ("b1p2", "a1", "z2"),
    ("b2p1", "b2", "z3"),
];

fn world(prefer_local_cluster: bool) -> World {
    let fleet = Fleet::builder().clusters(2).nodes(2).pods(2).build().unwrap();
    World::on(fleet, |options| {
        options.zone = Some("z1".to_owned());
        options.arguments.extend(prefer_local_cluster.then(|| "--prefer-local-cluster".to_owned()));
    })
}

/// The service, without endpoints of the pods in `unready`.
fn objects(world: &World, change: &dyn Fn(ServiceImport) -> ServiceImport, unready: &[&str]) -> Vec<Value> {
    let import = vips(1).into_iter().fold(ServiceImport::new("web"), ServiceImport::ip);
    let import = import.port("tcp", Protocol::Tcp, PORT).port("udp", Protocol::Udp, PORT);
    let mut objects = vec![change(import).into()];
    for family in Family::BOTH {
        for cluster in ["a", "b"] {
            let slice = EndpointSlice::new("web", cluster, family);
            let slice = slice.port("tcp", Protocol::Tcp, TARGET).port("udp", Protocol::Udp, TARGET);
            let own = ENDPOINTS.iter().filter(|(pod, ..)| pod.starts_with(cluster));
            let endpoint = |(name, node, zone): &(&str, &str, &str)| {
                let endpoint = Endpoint::pod(world.fleet.pod(name), family).node(node).zone(zone);
                if unready.contains(name) { endpoint.not_ready() } else { endpoint }
            };
            objects.push(slice.endpoints(own.map(endpoint)).into());
        }
    }
    objects
}

type Change = Box<dyn Fn(ServiceImport) -> ServiceImport>;

fn assert_reached(world: &World, what: &str, change: &Change, unready: &[&str], expected: &[&str]) {
    world.put("web", &objects(world, change, unready));
    let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
    for (protocol, family) in combinations() {
        if expected.is_empty() {
            let error = world.client().run(|| try_dial(protocol, vip(family, 1))).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{what}, without {unready:?}");
            continue;
        }
        // One of six is missed once in 10⁸ times.
        let reached = world.reached(protocol, vip(family, 1), 128);
        assert_eq!(reached, expected, "{what}, without {unready:?}: {protocol} {family:?}");
    }
}

fn plain() -> Change {
    Box::new(|import| import)
}

fn local() -> Change {
    Box::new(ServiceImport::local_only)
}

fn distribution(value: &'static str) -> Change {
    Box::new(move |import| import.distribution(value))
}

const ALL: [&str; 6] = ["a1p2", "a2p1", "a2p2", "b1p1", "b1p2", "b2p1"];

#[test]
fn policies_choose_from_near_to_far() {
    require_root!();
    let world = world(false);
    let zone = ["a1p2", "a2p1", "b1p1"];
    for (what, change, unready, expected) in [
        ("Cluster", plain(), &[][..], &ALL[..]),
        ("Local", local(), &[], &["a1p2"]),
        // Not the endpoints on cluster b's node of the same name.
        ("Local", local(), &["a1p2"], &[]),
        ("PreferSameZone", distribution("PreferSameZone"), &[], &zone),
        ("PreferClose", distribution("PreferClose"), &["a1p2", "a2p1"], &["b1p1"]),
        ("PreferClose", distribution("PreferClose"), &zone, &["a2p2", "b1p2", "b2p1"]),
        ("PreferSameNode", distribution("PreferSameNode"), &[], &["a1p2"]),
        ("PreferSameNode", distribution("PreferSameNode"), &["a1p2"], &["a2p1", "b1p1"]),
        ("PreferSameNode", distribution("PreferSameNode"), &zone, &["a2p2", "b1p2", "b2p1"]),
        ("a value from the future", distribution("PreferMoon"), &[], &ALL),
    ] {
        assert_reached(&world, what, &change, unready, expected);
    }
    // A mapped socket is one of the IPv4 frontend.
    world.put("web", &objects(&world, &local(), &[]));
    assert_eq!(world.reached(Protocol::Tcp, Kind::Mapped.vip(1), 64), BTreeSet::from(["a1p2".to_owned()]));
}

#[test]
fn the_local_cluster_is_preferred_when_the_agent_is_told_so() {
    require_root!();
    let world = world(true);
    let own = ["a1p2", "a2p1", "a2p2"];
    let weights = || -> Change { Box::new(|import| import.annotation(mcs::api::CLUSTER_WEIGHTS, r#"{"a":1,"b":1}"#)) };
    for (what, change, unready, expected) in [
        ("local cluster", plain(), &[][..], &own[..]),
        ("local cluster", plain(), &["a1p2"], &["a2p1", "a2p2"]),
        ("local cluster", plain(), &own, &["b1p1", "b1p2", "b2p1"]),
        ("local cluster, zone", distribution("PreferSameZone"), &[], &["a1p2", "a2p1"]),
        ("local cluster, zone", distribution("PreferSameZone"), &["a1p2", "a2p1"], &["a2p2"]),
        ("weights override", weights(), &[], &ALL),
    ] {
        assert_reached(&world, what, &change, unready, expected);
    }
}
