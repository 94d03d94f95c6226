//! UDP: who seems to answer, who answers, and when the datagram hooks are there at all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use mcs_tests::Family;
use mcs_tests::identity::{Protocol, parse_datagram};
use mcs_tests::manifest::{self, ServiceImport};
use mcs_tests::require_root;

use crate::sockets::{Kind, ask, is_unreachable, reconnect};
use crate::world::{OTHER_TARGET, PLAIN, PORT, World, vips};

const ALWAYS: [&str; 4] = ["connect4", "connect6", "getpeername4", "getpeername6"];
const FOR_UDP: [&str; 4] = ["sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6"];

fn set<'a>(hooks: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    hooks.into_iter().map(str::to_owned).collect()
}

/// A world with `web` (1) in front of all, and `other` (2) in front of the same pods' other port.
fn two_services() -> World {
    let world = World::web();
    world.put("other", &manifest::service("other", vips(2), PORT, OTHER_TARGET, world.backends()));
    world
}

#[test]
fn replies_seem_to_come_from_the_frontend_and_a_socket_stays_on_one_backend() {
    require_root!();
    let world = World::web();
    for kind in Kind::ALL {
        let to = kind.vip(1);
        let seen: BTreeSet<String> = world.client().run(|| {
            let socket = |_| {
                let socket = kind.udp();
                let answers: BTreeSet<_> = (0..5).map(|_| ask(&socket, to)).collect();
                assert_eq!(answers.len(), 1, "{kind:?}: {answers:?}");
                let (backend, from) = answers.into_iter().next().unwrap();
                assert_eq!(from, to, "{kind:?} from {backend}");
                backend
            };
            (0..64).map(socket).collect()
        });
        assert_eq!(seen, world.names(), "{kind:?}: other sockets, other backends");
    }
}

#[test]
fn one_socket_talks_to_frontends_and_plain_addresses_at_once() {
    require_root!();
    let world = two_services();
    for kind in Kind::ALL {
        let mut addresses = vec![kind.vip(1), kind.vip(2)];
        let plain = world.backends().into_iter().map(|pod| kind.address(pod.socket(kind.family(), PLAIN)));
        addresses.extend(plain);
        world.client().run(|| {
            let socket = kind.udp();
            let mut first: BTreeMap<SocketAddr, String> = BTreeMap::new();
            for round in 0..20_u8 {
                for to in &addresses {
                    socket.send_to(&[round], to).unwrap();
                }
                // Answers come in any order.
                let mut answered = BTreeSet::new();
                for _ in &addresses {
                    let mut datagram = [0; 64];
                    let (length, from) = socket.recv_from(&mut datagram).unwrap();
                    let (name, payload) = parse_datagram(&datagram[..length]).unwrap();
                    assert_eq!(payload, [round]);
                    assert!(answered.insert(from), "{kind:?}: {from} twice");
                    assert_eq!(first.entry(from).or_insert_with(|| name.clone()), &name, "{kind:?}: {from}");
                }
                assert_eq!(answered, addresses.iter().copied().collect(), "{kind:?}");
            }
        });
    }
}

/// Two frontends in front of the same backend's same port: the replies alone do not tell them apart. They carry the
/// frontend that the socket sent to last, so question and answer in turn are right.
#[test]
fn of_two_frontends_with_one_backend_the_last_one_asked_answers() {
    require_root!();
    let world = World::empty();
    let only = world.fleet.pod("b1p1");
    world.put_service("web", 1, [only]);
    world.put_service("twin", 2, [only]);
    for kind in Kind::ALL {
        world.client().run(|| {
            let socket = kind.udp();
            for to in [1, 2, 1, 2].map(|number| kind.vip(number)) {
                assert_eq!(ask(&socket, to), ("b1p1".to_owned(), to), "{kind:?}");
            }
        });
    }
}

#[test]
fn a_connected_socket_hears_its_frontend_and_may_name_it_when_it_sends() {
    require_root!();
    let world = World::web();
    for kind in Kind::ALL {
        let to = kind.vip(1);
        world.client().run(|| {
            for _ in 0..16 {
                let socket = kind.udp();
                let backend = reconnect(&socket, to);
                socket.send(b"x").unwrap();
                assert_eq!(socket.recv_from(&mut [0; 64]).unwrap().1, to, "{kind:?}");
                // The kernel drops what does not come from the peer, so the datagram must go there.
                for _ in 0..3 {
                    assert_eq!(ask(&socket, to), (backend.clone(), to), "{kind:?}");
                }
            }
        });
    }
}

#[test]
fn a_socket_may_be_connected_after_it_was_not() {
    require_root!();
    let world = two_services();
    for kind in Kind::ALL {
        let [web, other] = [1, 2].map(|number| kind.vip(number));
        world.client().run(|| {
            let socket = kind.udp();
            let before = ask(&socket, web);
            assert_eq!(before.1, web);
            reconnect(&socket, other);
            socket.send(b"x").unwrap();
            assert_eq!(socket.recv_from(&mut [0; 64]).unwrap().1, other, "{kind:?}");
            if kind == Kind::V6 {
                // Linux (__udp_disconnect) leaves an IPv6 socket's old peer behind and drops everybody else's replies,
                // with or without us.
                return;
            }
            crate::sockets::disconnect(&socket);
            assert_eq!(ask(&socket, web), before, "{kind:?}: its backend is remembered");
            assert_eq!(ask(&socket, other).1, other, "{kind:?}");
        });
    }
}

#[test]
fn the_datagram_hooks_are_attached_while_there_is_a_udp_frontend() {
    require_root!();
    let world = World::empty();
    let tcp_only = |number| {
        let import = vips(number).into_iter().fold(ServiceImport::new("tcp-only"), ServiceImport::ip);
        [import.port("tcp", Protocol::Tcp, PORT).into()]
    };
    assert_eq!(world.links(), set(ALWAYS));
    world.put("tcp-only", &tcp_only(2));
    assert_eq!(world.links(), set(ALWAYS), "a TCP frontend needs no more");
    world.put_service("web", 1, world.backends());
    assert_eq!(world.links(), set(ALWAYS.into_iter().chain(FOR_UDP)));
    assert_eq!(world.client().run(|| ask(&Kind::V4.udp(), Kind::V4.vip(1)).1), Kind::V4.vip(1));

    world.agent.restart().unwrap();
    world.agent.wait_ready().unwrap();
    assert_eq!(world.links(), set(ALWAYS.into_iter().chain(FOR_UDP)), "a restart keeps them");

    world.remove("web");
    assert_eq!(world.links(), set(ALWAYS), "with the last UDP frontend they go");
    world.put_service("web", 1, world.backends());
    assert_eq!(world.client().run(|| ask(&Kind::V6.udp(), Kind::V6.vip(1)).1), Kind::V6.vip(1));

    // What goes while no agent runs is found by the next one.
    world.agent.kill9();
    std::fs::remove_file(world.source.join("web.json")).unwrap();
    world.agent.restart().unwrap();
    world.agent.wait_ready().unwrap();
    assert_eq!(world.links(), set(ALWAYS));
}

#[test]
fn datagrams_to_what_is_nobodys_frontend_are_left_alone() {
    require_root!();
    let world = World::web();
    for kind in Kind::ALL {
        let other_port = SocketAddr::new(kind.vip(1).ip(), 81);
        world.client().run(|| {
            let socket = kind.udp();
            for to in [other_port, kind.vip(99)] {
                let error = socket.send_to(b"x", to).unwrap_err();
                assert!(is_unreachable(&error), "{kind:?} {to}: {error}");
            }
            // Replies of plain addresses carry those, the backends' own among them while the socket used no frontend.
            for port in [crate::world::TARGET, PLAIN] {
                for backend in world.backends() {
                    let to = kind.address(backend.socket(kind.family(), port));
                    assert_eq!(ask(&socket, to), (backend.name().to_owned(), to), "{kind:?}");
                }
            }
        });
    }
    for family in Family::BOTH {
        assert_eq!(world.shown("services", Protocol::Udp, crate::world::vip(family, 1))["connections"], 0);
    }
}
