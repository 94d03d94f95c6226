//! Everybody reaches everybody by pod and node address, and nobody reaches anything else.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use mcs_tests::identity::{self, Listen, PATIENCE, Protocol, Server};
use mcs_tests::{Family, Fleet, addresses, require_root};

/// The build takes about 0.05 s, and 3.5 s under emulation. This only tells a build that waits for something from one that
/// works.
const BUILD_LIMIT: Duration = Duration::from_secs(30);

/// What a router's ICMP makes of a connect; which of them depends on the family.
const UNREACHABLE: [io::ErrorKind; 2] = [io::ErrorKind::NetworkUnreachable, io::ErrorKind::HostUnreachable];

#[test]
fn every_pod_and_node_reaches_every_pod() {
    require_root!();
    let start = Instant::now();
    let fleet = Fleet::builder().clusters(2).nodes(2).pods(2).build().unwrap();
    let built = start.elapsed();
    let servers = Server::start_in(fleet.pods(), 8080).unwrap();
    let mut asked = 0;
    for protocol in Protocol::BOTH {
        for family in Family::BOTH {
            for to in fleet.pods() {
                let address = to.socket(family, 8080);
                let clients = fleet.pods().map(|pod| &**pod).chain(fleet.nodes().iter().map(|node| &**node));
                for from in clients {
                    let name = identity::ask(from, protocol, address);
                    assert_eq!(name.unwrap(), to.name(), "{protocol} from {} to {address}", from.name());
                    asked += 1;
                }
            }
        }
    }
    let stats: Vec<_> = servers.iter().map(|server| server.stats().unwrap()).collect();
    assert_eq!(stats.iter().map(|stats| stats.connections + stats.datagrams).sum::<u64>(), asked);
    let all = start.elapsed();
    drop(servers);
    drop(fleet);
    eprintln!("2 clusters x 2 nodes x 2 pods: built in {built:?}, {asked} questions answered in {:?}", all - built);
    assert!(built < BUILD_LIMIT, "building took {built:?}");
}

#[test]
fn a_client_is_seen_with_its_pods_address() {
    require_root!();
    let fleet = Fleet::builder().clusters(2).build().unwrap();
    let (client, server) = (fleet.pod("a1p1"), fleet.pod("b1p1"));
    for family in Family::BOTH {
        let bound = server.run(|| UdpSocket::bind(server.socket(family, 53))).unwrap();
        bound.set_read_timeout(Some(PATIENCE)).unwrap();
        client.run(|| {
            let socket = UdpSocket::bind(SocketAddr::new(family.unspecified(), 0)).unwrap();
            socket.send_to(b"x", server.socket(family, 53)).unwrap();
        });
        let (_, from) = bound.recv_from(&mut [0]).unwrap();
        assert_eq!(from.ip(), client.ip(family));
    }
}

#[test]
fn nothing_leads_out() {
    require_root!();
    let fleet = Fleet::builder().build().unwrap();
    let outside = ["192.0.2.1:80", "[2001:db8::1]:80"].map(|address| address.parse().unwrap());
    let services = Family::BOTH.map(|family| SocketAddr::new(addresses::clusterset_ip(family, 1), 80));
    for place in [&**fleet.pod("a1p1"), &**fleet.node("a1")] {
        for to in outside.iter().chain(&services) {
            let start = Instant::now();
            let error = place.run(|| TcpStream::connect(to)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable, "{to} from {}: {error}", place.name());
            assert!(start.elapsed() < Duration::from_secs(1), "{to} from {}: at once", place.name());
        }
    }
    // The machine itself is not reached by its own addresses either: no namespace has a link to it.
    let names = fleet.fabric().name();
    assert!(names.starts_with("mcs-"), "{names}");
}

#[test]
fn pods_with_a_default_route_reach_no_more_than_their_node() {
    require_root!();
    let fleet = Fleet::builder().pods_with_default_route().build().unwrap();
    for family in Family::BOTH {
        let to = SocketAddr::new(addresses::clusterset_ip(family, 1), 80);
        let error = fleet.pod("a1p1").run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap_err();
        assert!(UNREACHABLE.contains(&error.kind()), "{to}: {error}");
    }
}

#[test]
fn further_addresses_are_reached_and_answer_as_themselves() {
    require_root!();
    let fleet = Fleet::builder().clusters(2).further_addresses().build().unwrap();
    let server = fleet.pod("b1p1");
    let addresses = Family::BOTH
        .iter()
        .flat_map(|&family| [0, 1, 255].map(|number| SocketAddr::new(server.further_ip(family, number), 80)));
    let listen: Vec<Listen> = addresses
        .flat_map(Listen::both)
        .map(|listen| {
            let name = listen.address.to_string();
            listen.named(name)
        })
        .collect();
    let _server = Server::start(server, "b1p1", &listen).unwrap();
    for Listen { protocol, address, .. } in listen {
        for from in [fleet.pod("a1p1"), server] {
            assert_eq!(identity::ask(from, protocol, address).unwrap(), address.to_string(), "{protocol}");
        }
    }
}

#[test]
fn a_pod_can_come_late_and_go_early() {
    require_root!();
    let mut fleet = Fleet::builder().nodes(2).build().unwrap();
    let late = fleet.add_pod("a2").unwrap();
    assert_eq!(late.name(), "a2p2");
    let _server = Server::start(&late, "late", &Listen::port(80)).unwrap();
    let client = fleet.pod("a1p1").clone();
    for family in Family::BOTH {
        assert_eq!(identity::ask(&client, Protocol::Tcp, late.socket(family, 80)).unwrap(), "late");
    }
    fleet.remove_pod("a2p2").unwrap();
    for family in Family::BOTH {
        let error = identity::ask(&client, Protocol::Tcp, late.socket(family, 80)).unwrap_err();
        assert!(UNREACHABLE.contains(&error.kind()), "{error}");
    }
}
