//! A service without usable backends refuses at once, as a host without a listener does, and counts that.

use std::io;

use mcs_tests::identity::{Connection, Protocol};
use mcs_tests::manifest::{self, Endpoint, EndpointSlice};
use mcs_tests::{Family, Pod, require_root};
use serde_json::Value;

use crate::sockets::{self, Kind, ask};
use crate::world::{PORT, TARGET, World, names, vip, vips};

/// All three ways in which a socket can begin. None of them waits for a packet: the TCP one does not block, the datagrams
/// get their answer from the system call itself.
fn begin(kind: Kind) -> [(&'static str, io::Result<()>); 3] {
    let to = kind.vip(1);
    let tcp = rustix::net::connect(sockets::tcp(to, true), &to).map_err(io::Error::from);
    let udp = kind.udp().connect(to);
    let sent = kind.udp().send_to(b"x", to).map(drop);
    [("TCP connect", tcp), ("UDP connect", udp), ("UDP sendto", sent)]
}

fn assert_refused(world: &World, why: &str) {
    for kind in Kind::ALL {
        for (what, result) in world.client().run(|| begin(kind)) {
            let error = result.expect_err(what);
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{why}: {kind:?} {what}: {error}");
        }
    }
}

fn assert_reached(world: &World, pods: &[&Pod]) {
    for kind in Kind::ALL {
        for protocol in Protocol::BOTH {
            assert_eq!(world.reached(protocol, kind.vip(1), 64), names(pods.iter().copied()), "{kind:?} {protocol}");
        }
    }
}

/// Puts an endpoint into a condition.
type Condition = fn(Endpoint) -> Endpoint;

/// The service in front of pods in conditions.
fn in_condition(pods: &[(&Pod, Condition)]) -> Vec<Value> {
    let mut objects = manifest::service("web", vips(1), PORT, TARGET, []);
    for (pod, condition) in pods {
        objects.extend(Family::BOTH.map(|family| {
            let slice = EndpointSlice::new("web", pod.cluster(), family);
            let slice = slice.name(&format!("{}-{}", pod.name(), family.as_str().to_lowercase()));
            let slice = slice.port("tcp", Protocol::Tcp, TARGET).port("udp", Protocol::Udp, TARGET);
            slice.endpoint(condition(Endpoint::pod(pod, family))).into()
        }));
    }
    objects
}

#[test]
fn without_endpoints_everything_is_refused_at_once_and_counted() {
    require_root!();
    let world = World::empty();
    world.put_service("web", 1, []);
    assert_refused(&world, "no endpoints");
    // Mapped sockets dial the IPv4 frontend. A UDP frontend was dialled by connect and by sendto.
    for (protocol, family, refusals) in [
        (Protocol::Tcp, Family::V4, 2),
        (Protocol::Tcp, Family::V6, 1),
        (Protocol::Udp, Family::V4, 4),
        (Protocol::Udp, Family::V6, 2),
    ] {
        let shown = world.shown("services", protocol, vip(family, 1));
        assert_eq!((&shown["refusals"], &shown["connections"]), (&refusals.into(), &0.into()), "{shown:#}");
    }
}

#[test]
fn endpoints_come_and_go_and_established_connections_stay() {
    require_root!();
    let world = World::empty();
    world.put_service("web", 1, []);
    assert_refused(&world, "no endpoints yet");
    world.put_service("web", 1, world.backends());
    assert_reached(&world, &world.backends());
    let mut held: Vec<Connection> =
        world.client().run(|| Kind::ALL.map(|kind| Connection::open(kind.vip(1)).unwrap())).into();
    world.put_service("web", 1, []);
    assert_refused(&world, "the last endpoint has left");
    for connection in &mut held {
        connection.echo(b"still here").unwrap();
    }
    world.put_service("web", 1, [world.fleet.pod("b1p2")]);
    assert_reached(&world, &[world.fleet.pod("b1p2")]);
    world.remove("web");
    let error = world.client().run(|| Kind::V4.udp().send_to(b"x", Kind::V4.vip(1))).unwrap_err();
    assert!(sockets::is_unreachable(&error), "without the import it is nobody's frontend: {error}");
}

#[test]
fn ready_endpoints_come_first_then_those_that_terminate_and_still_serve() {
    require_root!();
    let world = World::empty();
    let [one, two, three] = world.backends()[..] else { panic!("three backends") };
    let ready: Condition = |endpoint| endpoint;
    let serving: Condition = |endpoint| endpoint.terminating(true);
    let gone: Condition = |endpoint| endpoint.terminating(false);
    let not_ready: Condition = Endpoint::not_ready;

    world.put("web", &in_condition(&[(one, ready), (two, serving), (three, not_ready)]));
    assert_reached(&world, &[one]);
    world.put("web", &in_condition(&[(one, not_ready), (two, serving), (three, serving)]));
    assert_reached(&world, &[two, three]);
    world.put("web", &in_condition(&[(one, not_ready), (two, gone), (three, serving)]));
    assert_reached(&world, &[three]);
    world.put("web", &in_condition(&[(one, not_ready), (two, gone), (three, not_ready)]));
    assert_refused(&world, "none is ready, none serves");
    world.put("web", &in_condition(&[(one, not_ready), (two, gone), (three, ready)]));
    assert_reached(&world, &[three]);
}

#[test]
fn a_socket_that_was_refused_is_as_good_as_new() {
    require_root!();
    let world = World::empty();
    world.put_service("web", 1, []);
    world.put_service("other", 2, world.backends());
    for kind in Kind::ALL {
        world.client().run(|| {
            let socket = kind.udp();
            assert!(socket.send_to(b"x", kind.vip(1)).is_err());
            assert_eq!(ask(&socket, kind.vip(2)).1, kind.vip(2));
            assert!(socket.connect(kind.vip(1)).is_err());
            assert_eq!(socket.peer_addr().unwrap_err().kind(), io::ErrorKind::NotConnected);
            sockets::reconnect(&socket, kind.vip(2));
            assert_eq!(socket.peer_addr().unwrap(), kind.vip(2));
            assert!(socket.connect(kind.vip(1)).is_err());

            let stream = sockets::tcp(kind.vip(1), false);
            assert!(rustix::net::connect(&stream, &kind.vip(1)).is_err());
            rustix::net::connect(&stream, &kind.vip(2)).unwrap();
            let connection = Connection::greet(stream.into()).unwrap();
            assert_eq!(connection.stream.peer_addr().unwrap(), kind.vip(2));
        });
    }
}
