//! What clients see whose backend leaves, or whose service grows: point 8 of the issue. Ending stale sockets is a later
//! issue; until then this is what they live with.
//!
//! | client | backend left the service, its pod lives | its port is closed | its pod is gone |
//! |---|---|---|---|
//! | connected UDP socket | goes on with it | `ECONNREFUSED` | silence |
//! | unconnected UDP socket | the next datagram gets another | the same | the same |
//! | TCP connection | goes on with it | reset or closed by the peer | as any lost peer |
//! | a new flow, also of an old socket | another | another | another |

use std::collections::BTreeSet;
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use mcs::api::CLUSTER_WEIGHTS;
use mcs_tests::identity::{self, Connection, Protocol};
use mcs_tests::manifest::{Endpoint, EndpointSlice, ServiceImport};
use mcs_tests::{Family, Fleet, Pod, require_root};

use crate::sockets::{Kind, ask, dial, is_unreachable, reconnect};
use crate::world::{PATIENCE, PORT, TARGET, World, names, vip, vips};

/// How long silence is listened to. A slow machine is silent for no less.
const SILENCE: Duration = Duration::from_millis(200);

/// Service 1 in front of some pods, by name.
fn put(world: &World, pods: &[&str]) {
    world.put_service("web", 1, pods.iter().map(|name| world.fleet.pod(name)));
}

/// Says nothing for a while, and no error either.
fn assert_silent(socket: &UdpSocket, what: &str) {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    for _ in 0..2 {
        socket.send(b"who").unwrap_or_else(|error| panic!("{what}: {error}"));
        let error = socket.recv(&mut [0; 64]).expect_err(what);
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{what}: {error}");
    }
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
}

#[test]
fn a_connected_udp_socket_goes_on_with_a_backend_that_left_the_service() {
    require_root!();
    let world = World::empty();
    for kind in Kind::ALL {
        put(&world, &["b1p1"]);
        let socket = world.client().run(|| kind.udp());
        assert_eq!(reconnect(&socket, kind.vip(1)), "b1p1");
        put(&world, &["b1p2"]);
        // Its datagrams still go to the old backend, which still answers, and all looks as before.
        socket.send(b"who").unwrap();
        let mut datagram = [0; 64];
        let (length, from) = socket.recv_from(&mut datagram).unwrap();
        assert_eq!(identity::parse_datagram(&datagram[..length]).unwrap().0, "b1p1", "{kind:?}");
        assert_eq!((from, socket.peer_addr().unwrap()), (kind.vip(1), kind.vip(1)), "{kind:?}");
        // Naming the frontend does not help a connected socket: it hears its peer only.
        assert_eq!(ask(&socket, kind.vip(1)), ("b1p1".to_owned(), kind.vip(1)), "{kind:?}");
        // Connecting once more does.
        assert_eq!(reconnect(&socket, kind.vip(1)), "b1p2", "{kind:?}");
        assert_eq!(socket.peer_addr().unwrap(), kind.vip(1), "{kind:?}");
    }
}

#[test]
fn a_connected_udp_socket_to_a_backend_whose_port_is_closed_is_refused() {
    require_root!();
    let world = World::empty();
    put(&world, &["b1p1"]);
    let sockets = world.client().run(|| Kind::ALL.map(|kind| (kind, kind.udp())));
    for (kind, socket) in &sockets {
        assert_eq!(reconnect(socket, kind.vip(1)), "b1p1");
    }
    world.servers.iter().find(|server| server.name() == "b1p1").unwrap().stop();
    put(&world, &["b1p2"]);
    for (kind, socket) in &sockets {
        // The pod's address answers by ICMP: the socket hears of it at its next call, as without a service.
        socket.send(b"who").unwrap();
        let error = socket.recv(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{kind:?}: {error}");
        assert_eq!(socket.peer_addr().unwrap(), kind.vip(1), "{kind:?}: it still shows the frontend");
        assert_eq!(reconnect(socket, kind.vip(1)), "b1p2", "{kind:?}");
    }
}

#[test]
fn a_connected_udp_socket_to_a_pod_that_is_gone_hears_nothing() {
    require_root!();
    let mut world = World::empty();
    put(&world, &["b1p1"]);
    let sockets = world.client().run(|| Kind::ALL.map(|kind| (kind, kind.udp())));
    for (kind, socket) in &sockets {
        assert_eq!(reconnect(socket, kind.vip(1)), "b1p1");
    }
    world.servers.retain(|server| server.name() != "b1p1");
    world.fleet.remove_pod("b1p1").unwrap();
    put(&world, &["b1p2"]);
    for (kind, socket) in &sockets {
        // The node says by ICMP that there is no way. To a UDP socket that is no error that lasts (icmp_err_convert), so
        // unless it asks for such errors (IP_RECVERR) it hears nothing: a client needs a timeout of its own.
        assert_silent(socket, &format!("{kind:?}"));
        assert_eq!(socket.peer_addr().unwrap(), kind.vip(1), "{kind:?}: it still shows the frontend");
        assert_eq!(reconnect(socket, kind.vip(1)), "b1p2", "{kind:?}");
    }
}

#[test]
fn a_connected_udp_socket_whose_service_is_gone_shows_its_backend() {
    require_root!();
    let world = World::empty();
    for kind in Kind::ALL {
        put(&world, &["b1p1"]);
        let socket = world.client().run(|| kind.udp());
        assert_eq!(reconnect(&socket, kind.vip(1)), "b1p1");
        world.remove("web");
        // The frontend is nobody's any more, so nothing says that the peer ever was one.
        let backend = kind.address(world.fleet.pod("b1p1").socket(kind.family(), TARGET));
        assert_eq!(socket.peer_addr().unwrap(), backend, "{kind:?}");
        assert_eq!(identity::ask_connected(&socket).unwrap(), "b1p1", "{kind:?}: and it goes on");
        // Another service that takes the row is not taken for it.
        world.put_service("other", 2, [world.fleet.pod("b1p1")]);
        assert_eq!(socket.peer_addr().unwrap(), backend, "{kind:?}");
        world.remove("other");
    }
}

#[test]
fn an_unconnected_udp_socket_gets_a_living_backend_with_its_next_datagram() {
    require_root!();
    let world = World::empty();
    for kind in Kind::ALL {
        put(&world, &["a1p2", "b1p1", "b1p2"]);
        let sockets: Vec<UdpSocket> = world.client().run(|| (0..24).map(|_| kind.udp()).collect());
        let first: Vec<String> = sockets.iter().map(|socket| ask(socket, kind.vip(1)).0).collect();
        put(&world, &["a1p2", "b1p2"]);
        for (socket, first) in sockets.iter().zip(&first) {
            let (backend, from) = ask(socket, kind.vip(1));
            assert_eq!(from, kind.vip(1), "{kind:?}");
            assert_ne!(backend, "b1p1", "{kind:?}");
            assert!(first == "b1p1" || *first == backend, "{kind:?}: {first} lives, and its sockets stay");
        }
        let second: Vec<String> = sockets.iter().map(|socket| ask(socket, kind.vip(1)).0).collect();
        put(&world, &["a1p2", "b1p1", "b1p2"]);
        let third: Vec<String> = sockets.iter().map(|socket| ask(socket, kind.vip(1)).0).collect();
        assert_eq!(second, third, "{kind:?}: nobody goes back to a backend that has come back");
        // No backend at all: refused, and at home again as soon as there is one.
        put(&world, &[]);
        for socket in &sockets {
            let error = socket.send_to(b"who", kind.vip(1)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{kind:?}");
        }
        put(&world, &["b1p1"]);
        assert!(sockets.iter().all(|socket| ask(socket, kind.vip(1)) == ("b1p1".to_owned(), kind.vip(1))), "{kind:?}");
        // And without the service the address is nobody's.
        world.remove("web");
        assert!(is_unreachable(&sockets[0].send_to(b"who", kind.vip(1)).unwrap_err()), "{kind:?}");
    }
}

/// An answer that was under way when its backend left, or its service went, still seems to come from the frontend.
#[test]
fn an_answer_under_way_keeps_the_frontends_face() {
    require_root!();
    let world = World::empty();
    for kind in Kind::ALL {
        put(&world, &["b1p1"]);
        let socket = world.client().run(|| kind.udp());
        socket.send_to(b"who", kind.vip(1)).unwrap();
        // Not read before the backend left and the other one took over.
        put(&world, &["b1p2"]);
        socket.send_to(b"who", kind.vip(1)).unwrap();
        let mut from = BTreeSet::new();
        for expected in ["b1p1", "b1p2"] {
            let mut datagram = [0; 64];
            let (length, peer) = socket.recv_from(&mut datagram).unwrap();
            assert_eq!(identity::parse_datagram(&datagram[..length]).unwrap().0, expected, "{kind:?}");
            from.insert(peer);
        }
        assert_eq!(from, BTreeSet::from([kind.vip(1)]), "{kind:?}");
    }
}

#[test]
fn an_established_connection_goes_on_and_shows_its_frontend() {
    require_root!();
    let world = World::empty();
    for kind in Kind::ALL {
        put(&world, &["b1p1"]);
        let mut connection = world.client().run(|| Connection::open(kind.vip(1))).unwrap();
        put(&world, &["b1p2"]);
        connection.echo(b"still here").unwrap();
        assert_eq!(connection.stream.peer_addr().unwrap(), kind.vip(1), "{kind:?}");
        assert_eq!(world.client().run(|| dial(Protocol::Tcp, kind.vip(1))).0, "b1p2", "{kind:?}");
        world.remove("web");
        connection.echo(b"still here").unwrap();
        let backend = kind.address(world.fleet.pod("b1p1").socket(kind.family(), TARGET));
        assert_eq!(connection.stream.peer_addr().unwrap(), backend, "{kind:?}: without the service, the backend");
    }
}

/// A service grows from three backends to seven: whoever has a backend keeps it, whoever comes may get any.
#[test]
fn a_scale_up_moves_nobody_and_newcomers_reach_the_new_ones() {
    require_root!();
    let fleet = Fleet::builder().clusters(2).pods(4).build().unwrap();
    let world = World::on(fleet, |_options| {});
    for kind in Kind::ALL {
        put(&world, &["a1p2", "b1p1", "b1p2"]);
        let (mut connections, connected, unconnected) = world.client().run(|| {
            let connections: Vec<_> = (0..8).map(|_| Connection::open(kind.vip(1)).unwrap()).collect();
            let connected: Vec<_> = (0..8).map(|_| kind.udp()).collect();
            let unconnected: Vec<_> = (0..8).map(|_| kind.udp()).collect();
            (connections, connected, unconnected)
        });
        let first: Vec<String> = connected.iter().map(|socket| reconnect(socket, kind.vip(1))).collect();
        let first_unconnected: Vec<String> = unconnected.iter().map(|socket| ask(socket, kind.vip(1)).0).collect();
        world.put_service("web", 1, world.backends());
        for connection in &mut connections {
            connection.echo(b"still here").unwrap();
            assert_eq!(connection.stream.peer_addr().unwrap(), kind.vip(1), "{kind:?}");
        }
        for (socket, first) in connected.iter().zip(&first) {
            assert_eq!(identity::ask_connected(socket).unwrap(), *first, "{kind:?}");
            assert_eq!(socket.peer_addr().unwrap(), kind.vip(1), "{kind:?}");
        }
        for (socket, first) in unconnected.iter().zip(&first_unconnected) {
            assert_eq!(ask(socket, kind.vip(1)), (first.clone(), kind.vip(1)), "{kind:?}");
        }
        for protocol in Protocol::BOTH {
            // One of seven is missed once in 10⁸ times.
            assert_eq!(world.reached(protocol, kind.vip(1), 128), world.names(), "{kind:?} {protocol}");
        }
    }
}

/// The same with affinity, and while one cluster drains: old datagram sockets stay where they are, everything new avoids
/// the draining cluster, however the service grows meanwhile.
#[test]
fn a_drain_across_a_scale_up_keeps_old_sockets_and_lets_no_new_ones_in() {
    require_root!();
    let fleet = Fleet::builder().clusters(2).pods(4).build().unwrap();
    let world = World::on(fleet, |_options| {});
    let put = |affinity: bool, weights: &str, pods: &[&Pod]| {
        let mut import = vips(1).into_iter().fold(ServiceImport::new("web"), ServiceImport::ip);
        import = import.port("tcp", Protocol::Tcp, PORT).port("udp", Protocol::Udp, PORT);
        import = import.annotation(CLUSTER_WEIGHTS, weights);
        if affinity {
            import = import.client_ip_affinity(3600);
        }
        let mut objects = vec![import.into()];
        for family in Family::BOTH {
            for cluster in ["a", "b"] {
                let slice = EndpointSlice::new("web", cluster, family);
                let slice = slice.port("tcp", Protocol::Tcp, TARGET).port("udp", Protocol::Udp, TARGET);
                let own = pods.iter().filter(|pod| pod.cluster() == cluster);
                objects.push(slice.endpoints(own.map(|pod| Endpoint::pod(pod, family))).into());
            }
        }
        world.put("web", &objects);
    };
    let few = ["a1p2", "a1p3", "b1p1"].map(|name| world.fleet.pod(name));
    let new_of_b = names(world.fleet.pods_of("b"));
    for affinity in [false, true] {
        put(affinity, r#"{"a":1,"b":0}"#, &few);
        let to = Kind::ALL.map(|kind| kind.vip(1));
        let sockets = world.client().run(|| Kind::ALL.map(|kind| kind.udp()));
        let first: Vec<String> = sockets.iter().zip(to).map(|(socket, to)| ask(socket, to).0).collect();
        assert!(first.iter().all(|name| name.starts_with('a')), "{first:?}");
        // Cluster a drains, in the same moment the service grows.
        put(affinity, r#"{"a":0,"b":1}"#, &world.backends());
        let now: Vec<String> = sockets.iter().zip(to).map(|(socket, to)| ask(socket, to).0).collect();
        assert_eq!(first, now, "affinity {affinity}");
        for kind in Kind::ALL {
            let reached = world.reached(Protocol::Udp, kind.vip(1), 64);
            assert!(reached.is_subset(&new_of_b), "affinity {affinity}, {kind:?}: {reached:?}");
            assert_eq!(reached.len(), if affinity { 1 } else { 4 }, "affinity {affinity}, {kind:?}: {reached:?}");
        }
        // Drained: the endpoints of a are gone, and so its last sockets move.
        put(affinity, r#"{"a":0,"b":1}"#, &world.fleet.pods_of("b").collect::<Vec<_>>());
        for (socket, to) in sockets.iter().zip(to) {
            let (backend, from) = ask(socket, to);
            assert!(backend.starts_with('b') && from == to, "affinity {affinity}: {backend} as {from}");
        }
        world.remove("web");
    }
}

/// Endpoints that terminate and still serve keep their datagram sockets; those that do not serve any more lose them.
#[test]
fn a_terminating_backend_keeps_its_datagram_sockets_while_it_serves() {
    require_root!();
    let world = World::empty();
    let put = |change: &dyn Fn(Endpoint) -> Endpoint| {
        let mut objects = mcs_tests::manifest::service("web", vips(1), PORT, TARGET, [world.fleet.pod("b1p2")]);
        for family in Family::BOTH {
            let slice = EndpointSlice::new("web", "a", family).port("tcp", Protocol::Tcp, TARGET);
            let endpoint = change(Endpoint::pod(world.fleet.pod("a1p2"), family));
            objects.push(slice.port("udp", Protocol::Udp, TARGET).endpoint(endpoint).into());
        }
        world.put("web", &objects);
    };
    for kind in Kind::ALL {
        put(&|endpoint| endpoint);
        let on_a = world.client().run(|| {
            let mut sockets = (0..64).map(|_| kind.udp());
            sockets.find(|socket| ask(socket, kind.vip(1)).0 == "a1p2").unwrap()
        });
        put(&|endpoint| endpoint.terminating(true));
        assert_eq!(ask(&on_a, kind.vip(1)), ("a1p2".to_owned(), kind.vip(1)), "{kind:?}");
        assert_eq!(world.reached(Protocol::Udp, vip(kind.family(), 1), 32), names([world.fleet.pod("b1p2")]));
        put(&|endpoint| endpoint.terminating(false));
        assert_eq!(ask(&on_a, kind.vip(1)), ("b1p2".to_owned(), kind.vip(1)), "{kind:?}");
    }
}
