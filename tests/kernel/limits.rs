//! More than fits: what does not fit is named, the rest works, and room that is made is used.

use std::net::SocketAddr;

use mcs_tests::identity::Protocol;
use mcs_tests::manifest::{self, Endpoint, EndpointSlice, ServiceImport};
use mcs_tests::{Family, require_root};
use serde_json::Value;

use crate::sockets::{is_unreachable, try_dial};
use crate::world::{PORT, TARGET, World, vip, wait_for};

fn world(flags: &[&str]) -> World {
    World::with(|options| options.arguments.extend(flags.iter().map(|&flag| flag.to_owned())))
}

/// A service with one frontend, and endpoints on this many ports of pod `b1p1`: one that serves, the others nobody's.
fn one_frontend(world: &World, number: u16, endpoints: u16) -> Vec<Value> {
    let name = format!("s{number}");
    let import = ServiceImport::new(&name).ip(vip(Family::V4, number).ip()).port("", Protocol::Tcp, PORT);
    let mut slice = EndpointSlice::new(&name, "b", Family::V4).port("", Protocol::Tcp, TARGET);
    slice = slice.endpoint(Endpoint::pod(world.fleet.pod("b1p1"), Family::V4));
    for extra in 1..endpoints {
        let nobody = manifest::load_address(Family::V4, u32::from(number) * 1000 + u32::from(extra));
        slice = slice.endpoint(Endpoint::new(nobody));
    }
    vec![import.into(), slice.into()]
}

/// Writes objects that may not fit, and waits until the agent says how many services are left out.
fn put(world: &World, file: &str, objects: &[Value], left_out: u64) {
    manifest::write(&world.source, file, objects).unwrap();
    wait_for_left_out(world, left_out);
}

fn wait_for_left_out(world: &World, left_out: u64) {
    wait_for("the agent to say what is left out", || {
        let status = world.status();
        status["pid"].is_u64() && status["agent"]["unprogrammed"] == left_out && status["ready"] == (left_out == 0)
    });
}

/// Numbers of the services that answer; the others are as if they were not there.
fn answering(world: &World, numbers: impl Iterator<Item = u16>) -> Vec<u16> {
    let answers = |number: &u16| {
        let to: SocketAddr = vip(Family::V4, *number);
        match world.client().run(|| try_dial(Protocol::Tcp, to)) {
            Ok(answer) => answer == ("b1p1".to_owned(), to),
            Err(error) if is_unreachable(&error) => false,
            Err(error) => panic!("{to}: {error}"),
        }
    };
    numbers.filter(answers).collect()
}

#[test]
fn more_services_than_fit() {
    require_root!();
    let world = world(&["--max-services", "4", "--max-backends", "8", "--max-sources", "16"]);
    for number in 1..=4 {
        world.put(&format!("s{number}"), &one_frontend(&world, number, 1));
    }
    for (number, left_out) in [(5, 1), (6, 2)] {
        put(&world, &format!("s{number}"), &one_frontend(&world, number, 1), left_out);
    }
    assert_eq!(answering(&world, 1..=6), [1, 2, 3, 4]);
    let problems = world.status()["agent"]["problems"].to_string();
    for name in ["default/s5", "default/s6", "mcs_services is full"] {
        assert!(problems.contains(name), "{name}: {problems}");
        assert!(world.agent.log_text().contains(name), "{name} in the log");
    }
    assert!(!world.agent.mcs(&["status", "--wait", "100ms"]).unwrap().status.success(), "not all are in the kernel");

    // Who comes from elsewhere is as good as who never fitted.
    std::fs::remove_file(world.source.join("s2.json")).unwrap();
    wait_for_left_out(&world, 1);
    assert_eq!(answering(&world, 1..=6).len(), 4);
    std::fs::remove_file(world.source.join("s1.json")).unwrap();
    wait_for_left_out(&world, 0);
    assert_eq!(answering(&world, 1..=6), [3, 4, 5, 6]);
    world.agent.wait_ready().unwrap();
}

#[test]
fn more_backends_than_fit() {
    require_root!();
    let world = world(&["--max-services", "4", "--max-backends", "8", "--max-sources", "16"]);
    world.put("s1", &one_frontend(&world, 1, 1));
    put(&world, "s2", &one_frontend(&world, 2, 20), 1);
    assert_eq!(answering(&world, 1..=2), [1], "the service that does not fit is left out, the other works");
    let problems = world.status()["agent"]["problems"].to_string();
    assert!(problems.contains("default/s2") && problems.contains("full"), "{problems}");
    put(&world, "s3", &one_frontend(&world, 3, 1), 1);
    assert_eq!(answering(&world, 1..=3), [1, 3], "a small one still finds room");

    // A service that grows too large keeps what it has.
    put(&world, "s1", &one_frontend(&world, 1, 30), 2);
    assert_eq!(answering(&world, 1..=3), [1, 3]);
    assert_eq!(world.shown("dump", Protocol::Tcp, vip(Family::V4, 1))["backends"].as_array().unwrap().len(), 1);
    put(&world, "s1", &one_frontend(&world, 1, 1), 1);
    put(&world, "s2", &one_frontend(&world, 2, 1), 0);
    assert_eq!(answering(&world, 1..=3), [1, 2, 3]);
}

#[test]
fn a_service_that_does_not_fit_any_more_loses_what_is_gone() {
    require_root!();
    let world = world(&["--max-services", "4", "--max-backends", "4", "--max-sources", "16"]);
    let to = vip(Family::V4, 1);
    let of = |pods: &[&str], more: u32| {
        let import = ServiceImport::new("web").ip(to.ip()).port("", Protocol::Tcp, PORT);
        let slice = EndpointSlice::new("web", "b", Family::V4).port("", Protocol::Tcp, TARGET);
        let slice = slice.endpoints(pods.iter().map(|pod| Endpoint::pod(world.fleet.pod(pod), Family::V4)));
        let nobody = (0..more).map(|number| Endpoint::new(manifest::load_address(Family::V4, number)));
        [Value::from(import), slice.endpoints(nobody).into()]
    };
    world.put("web", &of(&["b1p1", "b1p2"], 0));
    assert_eq!(world.reached(Protocol::Tcp, to, 64).len(), 2);
    // Sixteen new ones do not fit; that b1p1 left is true all the same.
    put(&world, "web", &of(&["b1p2"], 16), 1);
    assert_eq!(world.reached(Protocol::Tcp, to, 64).into_iter().collect::<Vec<_>>(), ["b1p2"]);
    world.agent.restart().unwrap();
    wait_for_left_out(&world, 1);
    assert_eq!(world.reached(Protocol::Tcp, to, 64).into_iter().collect::<Vec<_>>(), ["b1p2"], "after a restart");
    put(&world, "web", &of(&["b1p1", "b1p2"], 0), 0);
    assert_eq!(world.reached(Protocol::Tcp, to, 64).len(), 2);
}

/// Rows are taken again and again, and their counters with them.
#[test]
fn who_takes_the_ids_of_another_counts_from_nothing() {
    require_root!();
    let world = world(&["--max-services", "4", "--max-backends", "8", "--max-sources", "8"]);
    for number in 1..=12 {
        let name = format!("s{number}");
        let to = vip(Family::V4, number);
        world.put(&name, &one_frontend(&world, number, 1));
        assert_eq!(world.reached(Protocol::Tcp, to, 3).len(), 1);
        let shown = world.shown("dump", Protocol::Tcp, to);
        let counts = [&shown["sources"][0], &shown["backends"][0]].map(|row| row["connections"].as_u64());
        assert_eq!((counts, &shown["refusals"]), ([Some(3), Some(3)], &0.into()), "{shown:#}");
        world.remove(&name);
    }
}

#[test]
fn pinned_maps_keep_their_size() {
    require_root!();
    let world = world(&["--max-services", "4"]);
    for number in 1..=4 {
        world.put(&format!("s{number}"), &one_frontend(&world, number, 1));
    }
    world.agent.stop().unwrap();
    let mut options = world.agent.options().clone();
    options.arguments = vec!["--max-services".to_owned(), "64".to_owned()];
    let bigger = mcs_tests::agent::Agent::start_ready(&world.fleet, world.fleet.node("a1"), options).unwrap();
    assert!(bigger.log_text().contains("keep their size until `mcs detach`"), "{}", bigger.log_text());
    put(&world, "s5", &one_frontend(&world, 5, 1), 1);
    assert_eq!(answering(&world, 1..=5), [1, 2, 3, 4]);
    bigger.stop().unwrap();
    bigger.detach().unwrap();
    bigger.restart().unwrap();
    bigger.wait_ready().unwrap();
    assert_eq!(answering(&world, 1..=5), [1, 2, 3, 4, 5]);
}
