//! Services change all the time while clients connect: no connect fails, and none reaches another service's backend.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use mcs_tests::Pod;
use mcs_tests::identity::{Listen, Protocol, Server};
use mcs_tests::manifest;
use mcs_tests::{Fleet, require_root};

use crate::sockets::{Kind, ask, try_dial};
use crate::world::{PATIENCE, PORT, World, scaled, vips};

/// Services that stay, each with backends of its own on a port of its own, which say the service's number.
const SERVICES: u16 = 4;

fn target(number: u16) -> u16 {
    9000 + number
}

fn world() -> World {
    let fleet = Fleet::builder().clusters(2).pods(4).build().unwrap();
    let listen: Vec<Listen> = (1..=SERVICES + 1)
        .flat_map(|number| Listen::port(target(number)).into_iter().map(move |listen| listen.named(number.to_string())))
        .collect();
    let pods = fleet.pods().filter(|pod| pod.name() != "a1p1");
    let servers = pods.map(|pod| Server::start(pod, pod.name(), &listen).unwrap()).collect();
    World::around(fleet, servers, |_options| {})
}

/// Writes a service in front of some of the backends, without waiting.
fn write(world: &World, number: u16, pods: &[&Pod]) {
    let name = format!("s{number}");
    let objects = manifest::service(&name, vips(number), PORT, target(number), pods.iter().copied());
    manifest::write(&world.source, &name, &objects).unwrap();
}

/// A small generator, so that a failure can be repeated (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) >> 33).unwrap() % below
    }
}

#[test]
fn no_connect_fails_or_goes_astray_while_endpoints_are_replaced() {
    require_root!();
    let world = world();
    let backends = world.backends();
    for number in 1..=SERVICES {
        write(&world, number, &backends);
    }
    world.agent.wait_ready().unwrap();
    let stop = AtomicBool::new(false);
    let flows = AtomicUsize::new(0);
    let failures = std::thread::scope(|scope| {
        let client = |protocol: Protocol| {
            let (world, stop, flows) = (&world, &stop, &flows);
            scope.spawn(move || world.client().run(|| connect_until(stop, flows, protocol)))
        };
        let clients = Protocol::BOTH.map(client);
        let mut random = Random(1);
        let mut changes = 0;
        let begun = Instant::now();
        // Until both have been done often enough, in whatever mixture this machine manages.
        while changes < scaled(300, 40) || flows.load(Ordering::Relaxed) < scaled(5_000, 400) {
            assert!(begun.elapsed() < PATIENCE * 4, "{changes} changes, {flows:?} flows");
            if clients.iter().any(|client| client.is_finished()) {
                break;
            }
            let number = 1 + u16::try_from(random.next(usize::from(SERVICES))).unwrap();
            let mut some: Vec<&Pod> = backends.iter().copied().filter(|_| random.next(2) == 0).collect();
            if some.is_empty() {
                some.push(backends[random.next(backends.len())]);
            }
            write(&world, number, &some);
            // A service that comes and goes, so that rows and ids are given to others all the time.
            if changes % 2 == 0 {
                write(&world, SERVICES + 1, &some);
            } else {
                std::fs::remove_file(world.source.join(format!("s{}.json", SERVICES + 1))).unwrap();
            }
            if changes % 10 == 0 {
                world.agent.wait_ready().unwrap();
            }
            changes += 1;
        }
        stop.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().unwrap())
    });
    for failures in failures {
        assert_eq!(failures, BTreeMap::new(), "of {flows:?} flows");
    }
    // All that was taken has been given back: what is in the maps is what the manifests say.
    world.agent.wait_ready().unwrap();
    for number in 1..=SERVICES {
        world.remove(&format!("s{number}"));
    }
    if world.source.join(format!("s{}.json", SERVICES + 1)).exists() {
        world.remove(&format!("s{}", SERVICES + 1));
    }
    assert_eq!(world.agent.mcs_json(&["dump"]).unwrap()["services"], serde_json::json!([]));
}

/// Connects to each service in turn by each kind of socket, and counts what went wrong.
fn connect_until(stop: &AtomicBool, flows: &AtomicUsize, protocol: Protocol) -> BTreeMap<String, usize> {
    let mut failures = BTreeMap::<String, usize>::new();
    let long_lived = Kind::ALL.map(|kind| (kind, kind.udp()));
    while !stop.load(Ordering::Relaxed) {
        for number in 1..=SERVICES {
            for (kind, socket) in &long_lived {
                let to = kind.vip(number);
                let result = try_dial(protocol, to);
                let right = (number.to_string(), to);
                match result {
                    Ok(answer) if answer == right => {}
                    Ok(answer) => *failures.entry(format!("{kind:?} {protocol} {to}: {answer:?}")).or_default() += 1,
                    Err(error) => *failures.entry(format!("{kind:?} {protocol} {to}: {error}")).or_default() += 1,
                }
                if protocol == Protocol::Udp {
                    let answer = ask(socket, to);
                    if answer != right {
                        *failures.entry(format!("{kind:?} unconnected {to}: {answer:?}")).or_default() += 1;
                    }
                }
                flows.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    failures
}
