//! `sessionAffinity: ClientIP`: a client, which is a network namespace, keeps its backend of a frontend.
//!
//! A draw among three backends repeats by chance once in three times, so the tests look at [`SERVICES`] services at once:
//! that all of them repeat by chance happens once in 3¹⁶ (43 million) times.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mcs::api::CLUSTER_WEIGHTS;
use mcs_tests::identity::Protocol;
use mcs_tests::manifest::{EndpointSlice, ServiceImport};
use mcs_tests::{Family, Fleet, Place, Pod, manifest, require_root};
use serde_json::Value;

use crate::sockets::{Kind, ask, dial};
use crate::world::{PORT, TARGET, World, combinations, vip, vips};

const SERVICES: u16 = 16;

/// Services 1 to 16 with affinity in front of pods, and perhaps with cluster weights.
fn objects<'a>(seconds: u32, weights: Option<&str>, pods: impl IntoIterator<Item = &'a Pod>) -> Vec<Value> {
    let pods: Vec<&Pod> = pods.into_iter().collect();
    let mut objects = Vec::new();
    for number in 1..=SERVICES {
        let name = format!("s{number}");
        let mut import = vips(number).into_iter().fold(ServiceImport::new(&name), ServiceImport::ip);
        import = import.port("tcp", Protocol::Tcp, PORT).port("udp", Protocol::Udp, PORT).client_ip_affinity(seconds);
        if let Some(weights) = weights {
            import = import.annotation(CLUSTER_WEIGHTS, weights);
        }
        objects.push(import.into());
        for family in Family::BOTH {
            for cluster in ["a", "b"] {
                let slice = EndpointSlice::new(&name, cluster, family);
                let slice = slice.port("tcp", Protocol::Tcp, TARGET).port("udp", Protocol::Udp, TARGET);
                let own = pods.iter().filter(|pod| pod.cluster() == cluster);
                objects.push(slice.endpoints(own.map(|pod| manifest::Endpoint::pod(pod, family))).into());
            }
        }
    }
    objects
}

/// Whom a new flow to each of the services reaches.
fn choices(from: &Place, protocol: Protocol, family: Family) -> Vec<String> {
    from.run(|| (1..=SERVICES).map(|number| dial(protocol, vip(family, number)).0).collect())
}

fn all_choices(from: &Place) -> Vec<Vec<String>> {
    combinations().map(|(protocol, family)| choices(from, protocol, family)).collect()
}

#[test]
fn a_client_keeps_its_backend_of_each_frontend_and_others_have_theirs() {
    require_root!();
    let world = World::empty();
    world.put("services", &objects(3600, None, world.backends()));
    let first = all_choices(world.client());
    for _ in 0..3 {
        assert_eq!(all_choices(world.client()), first);
    }
    let [tcp4, tcp6, udp4, _] = &first[..] else { panic!("four combinations") };
    assert_ne!(tcp4, udp4, "TCP and UDP are frontends of their own");
    assert_ne!(tcp4, tcp6, "so are addresses");
    assert!(tcp4.iter().any(|backend| *backend != tcp4[0]), "and services: {tcp4:?}");

    // Another pod of the node is another client, and so is the node itself.
    let other = all_choices(world.fleet.pod("a1p2"));
    let node = all_choices(world.fleet.node("a1"));
    assert_ne!(other, first);
    assert_ne!(node, first);
    assert_ne!(node, other);
    assert_eq!(all_choices(world.fleet.pod("a1p2")), other);
    assert_eq!(all_choices(world.client()), first);

    // The same client by other means: IPv4-mapped sockets, and datagrams of sockets that are not connected.
    world.client().run(|| {
        for number in 1..=SERVICES {
            let index = usize::from(number - 1);
            assert_eq!(dial(Protocol::Tcp, Kind::Mapped.vip(number)).0, tcp4[index]);
            assert_eq!(ask(&Kind::V4.udp(), Kind::V4.vip(number)).0, udp4[index]);
            assert_eq!(ask(&Kind::Mapped.udp(), Kind::Mapped.vip(number)).0, udp4[index]);
        }
    });
}

/// Real time: one second is the shortest timeout there is.
#[test]
fn affinity_ends_when_the_client_was_idle_for_its_timeout() {
    require_root!();
    let world = World::empty();
    world.put("services", &objects(1, None, world.backends()));
    let first = all_choices(world.client());
    std::thread::sleep(Duration::from_millis(1_100));
    let second = all_choices(world.client());
    for (before, after) in first.iter().zip(&second) {
        assert_ne!(before, after);
    }
}

/// Each use starts the timeout anew, however often a client comes. A machine that is too slow for a timeout proves nothing
/// with it: then the test takes one twice as long.
#[test]
fn affinity_lasts_as_long_as_the_client_comes_back_in_time() {
    require_root!();
    let world = World::empty();
    let proven = (0..7).map(|power| 1 << power).any(|seconds| {
        world.put("services", &objects(seconds, None, world.backends()));
        comes_back_in_time(&world, Duration::from_secs(seconds.into()))
    });
    assert!(proven, "{SERVICES} connects take more than half a minute");
}

/// Whether the client was in time, in which case it has reached the same backends again and again, for more than two
/// timeouts.
fn comes_back_in_time(world: &World, timeout: Duration) -> bool {
    let to: Vec<SocketAddr> = (1..=SERVICES).map(|number| vip(Family::V4, number)).collect();
    world.client().run(|| {
        let choose = || -> Vec<String> { to.iter().map(|&to| dial(Protocol::Tcp, to).0).collect() };
        let mut round = Instant::now();
        let first = choose();
        for _ in 0..8 {
            std::thread::sleep(timeout * 3 / 10);
            let begun = Instant::now();
            let again = choose();
            // From the first flow of a round to the last one of the next: no frontend was idle for longer.
            if round.elapsed() > timeout * 3 / 4 {
                return false;
            }
            assert_eq!(again, first, "{timeout:?}");
            round = begun;
        }
        true
    })
}

#[test]
fn affinity_survives_scaling_up_and_ends_with_the_backend() {
    require_root!();
    let fleet = Fleet::builder().clusters(2).pods(4).build().unwrap();
    let world = World::on(fleet, |_options| {});
    let three = ["a1p2", "b1p1", "b1p2"].map(|name| world.fleet.pod(name));
    world.put("services", &objects(3600, None, three));
    let first = all_choices(world.client());

    world.put("services", &objects(3600, None, world.backends()));
    assert_eq!(all_choices(world.client()), first, "four more backends");
    let new = all_choices(world.fleet.pod("a1p2")).concat();
    assert!(new.iter().any(|name| three.iter().all(|pod| pod.name() != name)), "new clients use new backends");

    world.agent.restart().unwrap();
    world.agent.wait_ready().unwrap();
    assert_eq!(all_choices(world.client()), first, "a restart of the agent");

    let without = world.backends().into_iter().filter(|pod| pod.name() != "b1p1");
    world.put("services", &objects(3600, None, without));
    let after = all_choices(world.client());
    for (before, after) in first.concat().iter().zip(after.concat()) {
        if before == "b1p1" {
            assert_ne!(after, "b1p1");
        } else {
            assert_eq!(*before, after, "clients of other backends notice nothing");
        }
    }
    assert_eq!(all_choices(world.client()), after, "the new choice sticks");
    world.put("services", &objects(3600, None, world.backends()));
    assert_eq!(all_choices(world.client()), after, "also when the old backend comes back: it is a new one");
}

#[test]
fn a_backend_with_weight_zero_loses_its_clients_new_flows() {
    require_root!();
    let world = World::empty();
    world.put("services", &objects(3600, Some(r#"{"a":1,"b":1}"#), world.backends()));
    let first = all_choices(world.client());
    world.put("services", &objects(3600, Some(r#"{"a":0,"b":1}"#), world.backends()));
    let drained = all_choices(world.client());
    for (before, after) in first.concat().iter().zip(drained.concat()) {
        assert!(after.starts_with('b'), "{after}");
        assert!(before.starts_with('a') || *before == after, "{before} had no reason to leave: {after}");
    }
    world.put("services", &objects(3600, Some(r#"{"a":1,"b":1}"#), world.backends()));
    assert_eq!(all_choices(world.client()), drained, "nobody is driven back");
}
