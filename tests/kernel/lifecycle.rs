//! The agent dies, comes back, is replaced, stopped, moved, and detached: what clients notice of it.

use std::fs;
use std::net::UdpSocket;

use mcs_tests::agent::{Agent, mcs_binary};
use mcs_tests::identity::{self, Connection, Protocol};
use mcs_tests::require_root;
use serde_json::Value;

use crate::sockets::{Kind, ask, dial, is_unreachable, reconnect, try_dial};
use crate::world::{World, combinations, said, vip};

/// Sockets that were opened before something happened to the agent.
struct Held {
    connections: Vec<(Kind, Connection)>,
    connected: Vec<(Kind, UdpSocket, String)>,
    unconnected: Vec<(Kind, UdpSocket, String)>,
}

impl Held {
    fn open(world: &World) -> Self {
        world.client().run(|| Self {
            connections: Kind::ALL.map(|kind| (kind, Connection::open(kind.vip(1)).unwrap())).into(),
            connected: Kind::ALL
                .map(|kind| (kind, kind.udp()))
                .map(|(kind, socket)| {
                    let backend = reconnect(&socket, kind.vip(1));
                    (kind, socket, backend)
                })
                .into(),
            unconnected: Kind::ALL
                .map(|kind| (kind, kind.udp()))
                .map(|(kind, socket)| {
                    let backend = ask(&socket, kind.vip(1)).0;
                    (kind, socket, backend)
                })
                .into(),
        })
    }

    /// All of them work, with the same backends, and show their frontend.
    fn check(&mut self, when: &str) {
        for (kind, connection) in &mut self.connections {
            connection.echo(b"still here").unwrap();
            assert_eq!(connection.stream.peer_addr().unwrap(), kind.vip(1), "{when}: {kind:?}");
        }
        for (kind, socket, backend) in &self.connected {
            assert_eq!(identity::ask_connected(socket).unwrap(), *backend, "{when}: {kind:?}");
            assert_eq!(socket.peer_addr().unwrap(), kind.vip(1), "{when}: {kind:?}");
            socket.send(b"x").unwrap();
            assert_eq!(socket.recv_from(&mut [0; 64]).unwrap().1, kind.vip(1), "{when}: {kind:?}");
        }
        for (kind, socket, backend) in &self.unconnected {
            assert_eq!(ask(socket, kind.vip(1)), (backend.clone(), kind.vip(1)), "{when}: {kind:?}");
        }
    }
}

/// New flows reach all backends, and a service without any refuses.
fn check_new_flows(world: &World, when: &str) {
    for kind in Kind::ALL {
        for protocol in Protocol::BOTH {
            assert_eq!(world.reached(protocol, kind.vip(1), 64), world.names(), "{when}: {kind:?} {protocol}");
            let error = world.client().run(|| try_dial(protocol, kind.vip(2))).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{when}: {kind:?} {protocol}: {error}");
        }
    }
}

fn world() -> World {
    let world = World::web();
    world.put_service("empty", 2, []);
    world
}

fn dump(world: &World) -> Value {
    world.agent.mcs_json(&["dump"]).unwrap()
}

#[test]
fn everything_goes_on_without_an_agent_and_the_next_one_takes_over_as_it_is() {
    require_root!();
    let world = world();
    let mut held = Held::open(&world);
    check_new_flows(&world, "at first");
    let counted = |world: &World| {
        combinations()
            .map(|(protocol, family)| {
                let shown = world.shown("services", protocol, vip(family, 1));
                shown["connections"].as_u64().unwrap()
            })
            .collect::<Vec<_>>()
    };
    let before = counted(&world);

    world.agent.kill9();
    held.check("after kill -9");
    check_new_flows(&world, "after kill -9");
    assert!(counted(&world).iter().zip(before).all(|(now, before)| *now >= before + 64), "counters count on");

    let left = dump(&world);
    world.agent.restart().unwrap();
    world.agent.wait_ready().unwrap();
    assert_eq!(dump(&world), left, "indexes, generations, blocks, members and counters stay");
    assert!(world.agent.log_text().contains("program replaced"), "{}", world.agent.log_text());
    held.check("after a restart");
    check_new_flows(&world, "after a restart");
}

#[test]
fn another_binary_takes_over_from_the_one_that_runs() {
    require_root!();
    let world = world();
    let newer = world.fleet.files().join("mcs-newer");
    fs::copy(mcs_binary().unwrap(), &newer).unwrap();
    let mut held = Held::open(&world);
    let left = dump(&world);
    world.agent.restart_as(&newer).unwrap();
    world.agent.wait_ready().unwrap();
    let pid = world.agent.pid().unwrap();
    assert_eq!(fs::read_link(format!("/proc/{pid}/exe")).unwrap(), newer);
    assert_eq!(dump(&world), left);
    held.check("after the replacement");
    check_new_flows(&world, "after the replacement");
    world.put_service("web", 1, [world.fleet.pod("b1p1")]);
    assert_eq!(world.reached(Protocol::Tcp, vip(mcs_tests::Family::V4, 1), 64).len(), 1, "it programs");
}

#[test]
fn a_normal_stop_detaches_nothing() {
    require_root!();
    let world = world();
    let mut held = Held::open(&world);
    let links = world.links();
    let status = world.agent.stop().unwrap();
    assert!(status.success(), "{status}: {}", world.agent.log_text());
    assert_eq!(world.links(), links);
    held.check("after a stop");
    check_new_flows(&world, "after a stop");
    assert!(!world.agent.mcs(&["status"]).unwrap().status.success(), "no agent runs");
    let services = world.agent.mcs_json(&["services"]).unwrap();
    assert_eq!(services["services"].as_array().unwrap().len(), 8, "the maps can be read: {services:#}");
}

#[test]
fn what_changed_while_no_agent_ran_is_caught_up_with() {
    require_root!();
    let world = world();
    world.put_service("gone", 3, world.backends());
    world.agent.kill9();
    let only = world.fleet.pod("b1p2");
    let write = |name, number, pods: &[&mcs_tests::Pod]| {
        let objects = mcs_tests::manifest::service(
            name,
            crate::world::vips(number),
            crate::world::PORT,
            crate::world::TARGET,
            pods.iter().copied(),
        );
        mcs_tests::manifest::write(&world.source, name, &objects).unwrap();
    };
    write("web", 1, &[only]);
    write("new", 4, &[only]);
    fs::remove_file(world.source.join("gone.json")).unwrap();
    world.agent.restart().unwrap();
    world.agent.wait_ready().unwrap();
    for (protocol, family) in combinations() {
        for number in [1, 4] {
            assert_eq!(world.reached(protocol, vip(family, number), 32).into_iter().collect::<Vec<_>>(), ["b1p2"]);
        }
        let error = world.client().run(|| try_dial(protocol, vip(family, 3))).unwrap_err();
        assert!(is_unreachable(&error), "{error}");
    }
}

#[test]
fn an_agent_started_for_another_cgroup_moves_there() {
    require_root!();
    let world = world();
    world.agent.stop().unwrap();
    let mut options = world.agent.options().clone();
    options.cgroup = world.fleet.cgroup().unwrap();
    let all = Agent::start_ready(&world.fleet, world.fleet.node("a1"), options).unwrap();
    assert!(all.log_text().contains("another cgroup"), "{}", all.log_text());
    for client in ["a1p1", "b1p1"] {
        for (protocol, family) in combinations() {
            let to = vip(family, 1);
            assert_eq!(world.fleet.pod(client).run(|| dial(protocol, to)).1, to, "{client}");
        }
    }
}

#[test]
fn detach_leaves_nothing_but_established_connections() {
    require_root!();
    let world = world();
    let mut held = Held::open(&world);
    let pid = world.agent.pid().unwrap();
    let refused = world.agent.mcs(&["detach"]).unwrap();
    assert!(!refused.status.success(), "an agent runs: {}", said(&refused));
    assert!(said(&refused).contains(&pid.to_string()), "{}", said(&refused));
    held.check("after a detach that was refused");

    world.agent.stop().unwrap();
    let ids = |kind: &str| {
        let pins = fs::read_dir(world.pins().join("v1").join(kind)).unwrap();
        pins.count()
    };
    assert_eq!((ids("links"), ids("maps")), (8, 15));
    world.agent.detach().unwrap();
    assert!(!world.pins().exists());
    for (_, connection) in &mut held.connections {
        connection.echo(b"still here").unwrap();
    }
    for (protocol, family) in combinations() {
        let error = world.client().run(|| try_dial(protocol, vip(family, 1))).unwrap_err();
        assert!(is_unreachable(&error), "{protocol} {family:?}: {error}");
    }
    for (kind, socket, _) in &held.unconnected {
        let error = socket.send_to(b"x", kind.vip(1)).unwrap_err();
        assert!(is_unreachable(&error), "{kind:?}: {error}");
    }
    world.agent.detach().unwrap();
    for verb in ["status", "services", "dump"] {
        let output = world.agent.mcs(&[verb]).unwrap();
        assert_eq!(output.status.code(), Some(1), "{verb}: {}", said(&output));
    }

    world.agent.restart().unwrap();
    world.agent.wait_ready().unwrap();
    check_new_flows(&world, "attached again");
}
