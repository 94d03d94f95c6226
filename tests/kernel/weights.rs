//! Every backend gets its share of new flows: all alike, or as the import's cluster weights say.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mcs::api::CLUSTER_WEIGHTS;
use mcs_tests::identity::{Listen, Protocol, Server};
use mcs_tests::manifest::{Endpoint, EndpointSlice, ServiceImport};
use mcs_tests::{Family, Fleet, require_root};
use serde_json::Value;

use crate::chi::assert_shares;
use crate::sockets::{Kind, ask, dial, reconnect};
use crate::world::{PORT, TARGET, World, scaled, vip, vips};

/// Clusters and how many backends each has, all of them further addresses of one pod.
const CLUSTERS: [(&str, &str, u8); 3] = [("a", "a1p2", 3), ("b", "b1p1", 5), ("c", "c1p1", 4)];

/// Three clusters whose backends say `a0`, `a1`, `a2`, `b0`, ….
fn world() -> World {
    let fleet = Fleet::builder().clusters(3).pods(2).further_addresses().build().unwrap();
    let server = |(cluster, pod, count): (&str, &str, u8)| {
        let pod = fleet.pod(pod);
        let listen: Vec<Listen> = (0..count)
            .flat_map(|number| {
                let addresses = Family::BOTH.map(|family| SocketAddr::new(pod.further_ip(family, number), TARGET));
                addresses.map(Listen::both).into_iter().flatten().map(move |listen| (listen, number))
            })
            .map(|(listen, number)| listen.named(format!("{cluster}{number}")))
            .collect();
        Server::start(pod, cluster, &listen).unwrap()
    };
    let servers = CLUSTERS.map(server).into();
    World::around(fleet, servers, |_options| {})
}

/// Service 1 in front of all of them. `ready` tells which cluster's endpoints are.
fn objects(world: &World, weights: Option<&str>, ready: impl Fn(&str) -> bool) -> Vec<Value> {
    let mut import = vips(1).into_iter().fold(ServiceImport::new("web"), ServiceImport::ip);
    import = import.port("tcp", Protocol::Tcp, PORT).port("udp", Protocol::Udp, PORT);
    if let Some(weights) = weights {
        import = import.annotation(CLUSTER_WEIGHTS, weights);
    }
    let mut objects = vec![import.into()];
    for (cluster, pod, count) in CLUSTERS {
        for family in Family::BOTH {
            let endpoint = |number| {
                let endpoint = Endpoint::new(world.fleet.pod(pod).further_ip(family, number));
                if ready(cluster) { endpoint } else { endpoint.not_ready() }
            };
            let slice = EndpointSlice::new("web", cluster, family);
            let slice = slice.port("tcp", Protocol::Tcp, TARGET).port("udp", Protocol::Udp, TARGET);
            objects.push(slice.endpoints((0..count).map(endpoint)).into());
        }
    }
    objects
}

fn backends() -> Vec<String> {
    CLUSTERS.iter().flat_map(|(cluster, _, count)| (0..*count).map(move |n| format!("{cluster}{n}"))).collect()
}

/// How often each backend answered. The test asks the backends themselves, so that nothing here believes our counters.
fn count(world: &World, protocol: Protocol, kind: Kind, flows: usize) -> Vec<u64> {
    let to = kind.vip(1);
    let names = world.client().run(|| {
        let socket = kind.udp();
        let mut names = BTreeMap::<String, u64>::new();
        for _ in 0..flows {
            let name = match protocol {
                Protocol::Udp => reconnect(&socket, to),
                Protocol::Tcp => dial(protocol, to).0,
            };
            *names.entry(name).or_default() += 1;
        }
        names
    });
    assert!(names.keys().all(|name| backends().contains(name)), "{names:?}");
    backends().iter().map(|backend| names.get(backend).copied().unwrap_or(0)).collect()
}

/// The weight of each backend when each cluster has a share as a whole.
fn spread(shares: [f64; 3]) -> Vec<f64> {
    let of_cluster = |((_, _, count), share): (&(_, _, u8), f64)| {
        std::iter::repeat_n(share / f64::from(*count), usize::from(*count))
    };
    CLUSTERS.iter().zip(shares).flat_map(of_cluster).collect()
}

#[test]
fn without_weights_all_backends_of_all_clusters_are_alike() {
    require_root!();
    let world = world();
    world.put("web", &objects(&world, None, |_| true));
    let [many, some, few] = [scaled(20_000, 1_500), scaled(5_000, 600), scaled(2_000, 300)];
    let alike = vec![1.0; backends().len()];
    for (protocol, kind, flows) in [
        (Protocol::Udp, Kind::V4, many),
        (Protocol::Udp, Kind::V6, some),
        (Protocol::Tcp, Kind::V4, few),
        (Protocol::Tcp, Kind::V6, few),
    ] {
        let counts = count(&world, protocol, kind, flows);
        assert_shares(&format!("{protocol} {kind:?}"), &counts, &alike);
        assert_counters(&world, protocol, kind, &counts);
    }
}

/// The kernel's counters say the same as the backends.
fn assert_counters(world: &World, protocol: Protocol, kind: Kind, counts: &[u64]) {
    let shown = world.shown("dump", protocol, vip(kind.family(), 1));
    let number = |value: &Value| value["connections"].as_u64().unwrap();
    let of_backends: BTreeMap<&str, u64> = shown["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backend| (backend["address"].as_str().unwrap(), number(backend)))
        .collect();
    let mut rest = counts;
    for (source, (cluster, pod, count)) in shown["sources"].as_array().unwrap().iter().zip(CLUSTERS) {
        let (own, others) = rest.split_at(usize::from(count));
        rest = others;
        assert_eq!((&source["cluster"], number(source)), (&cluster.into(), own.iter().sum()), "{shown:#}");
        for (i, flows) in (0..count).zip(own) {
            let address = world.fleet.pod(pod).further_ip(kind.family(), i).to_string();
            assert_eq!(of_backends[&*address], *flows, "{cluster}{i}: {shown:#}");
        }
    }
}

#[test]
fn each_cluster_gets_its_share_as_a_whole_spread_over_its_backends() {
    require_root!();
    let world = world();
    let flows = scaled(5_000, 600);
    for (weights, shares) in [
        (r#"{"a":90,"b":10}"#, [90.0, 10.0, 0.0]),
        (r#"{"a":1,"b":1,"c":1}"#, [1.0, 1.0, 1.0]),
        (r#"{"a":20,"b":30,"c":50}"#, [20.0, 30.0, 50.0]),
        (r#"{"a":0,"b":100,"c":100}"#, [0.0, 100.0, 100.0]),
        (r#"{"c":7}"#, [0.0, 0.0, 1.0]),
    ] {
        world.put("web", &objects(&world, Some(weights), |_| true));
        let counts = count(&world, Protocol::Udp, Kind::V4, flows);
        assert_shares(weights, &counts, &spread(shares));
        let counts = count(&world, Protocol::Tcp, Kind::V6, scaled(1_000, 300));
        assert_shares(weights, &counts, &spread(shares));
    }
}

#[test]
fn the_share_of_a_cluster_without_ready_endpoints_falls_to_the_others() {
    require_root!();
    let world = world();
    let weights = r#"{"a":80,"b":15,"c":5}"#;
    world.put("web", &objects(&world, Some(weights), |cluster| cluster != "a"));
    let counts = count(&world, Protocol::Udp, Kind::V6, scaled(3_000, 600));
    assert_shares("without a", &counts, &spread([0.0, 15.0, 5.0]));
    world.put("web", &objects(&world, Some(weights), |_| true));
    let counts = count(&world, Protocol::Udp, Kind::V6, scaled(3_000, 600));
    assert_shares("with a", &counts, &spread([80.0, 15.0, 5.0]));
}

#[test]
fn a_cluster_that_is_drained_keeps_old_datagram_sockets_and_gets_no_new_ones() {
    require_root!();
    let world = world();
    world.put("web", &objects(&world, Some(r#"{"a":1}"#), |_| true));
    for kind in Kind::ALL {
        let to = kind.vip(1);
        let sockets: Vec<_> = world.client().run(|| (0..10).map(|_| kind.udp()).collect());
        let first: Vec<String> = sockets.iter().map(|socket| ask(socket, to).0).collect();
        assert!(first.iter().all(|name| name.starts_with('a')), "{first:?}");
        world.put("web", &objects(&world, Some(r#"{"a":0,"b":1}"#), |_| true));
        let again: Vec<String> = sockets.iter().map(|socket| ask(socket, to).0).collect();
        assert_eq!(first, again, "{kind:?}: weight 0 keeps what it has");
        let new = world.client().run(|| ask(&kind.udp(), to).0);
        assert!(new.starts_with('b'), "{kind:?}: {new}");
        // Neither does a socket come back to the drained cluster once it has been told to connect anew.
        let connected = sockets.iter().map(|socket| reconnect(socket, to));
        assert!(connected.into_iter().all(|name| name.starts_with('b')), "{kind:?}");
        world.put("web", &objects(&world, Some(r#"{"a":1}"#), |_| true));
    }
}
