//! `connect(2)` to a frontend, in all the ways that programs have, and to what is nobody's frontend.

use std::net::{SocketAddr, TcpStream};

use mcs_ebpf::{Addr, Frontend, PortBe, TCP};
use mcs_tests::Family;
use mcs_tests::identity::{Connection, Protocol};
use mcs_tests::manifest::{self, ServiceImport};
use mcs_tests::require_root;

use crate::sockets::{self, Kind, dial, finish_connect, is_unreachable, reconnect, try_dial};
use crate::world::{OTHER_TARGET, PORT, TARGET, World, vips};

#[test]
fn a_hit_reaches_the_backends_of_both_clusters_and_shows_the_frontend() {
    require_root!();
    let world = World::web();
    for kind in Kind::ALL {
        for protocol in Protocol::BOTH {
            let to = kind.vip(1);
            let seen = world.client().run(|| {
                let flow = |_| {
                    let (backend, peer) = dial(protocol, to);
                    assert_eq!(peer, to, "{kind:?} {protocol} to {backend}");
                    backend
                };
                (0..64).map(flow).collect()
            });
            assert_eq!(world.names(), seen, "{kind:?} {protocol}");
        }
    }
    // A node's own processes are clients too.
    let node = world.fleet.node("a1");
    assert_eq!(node.run(|| dial(Protocol::Tcp, Kind::V6.vip(1)).1), Kind::V6.vip(1));
}

#[test]
fn a_connect_that_does_not_block_is_translated_once() {
    require_root!();
    let world = World::web();
    for kind in Kind::ALL {
        let to = kind.vip(1);
        let before = connections(&world, kind);
        world.client().run(|| {
            let socket = sockets::tcp(to, true);
            let begun = rustix::net::connect(&socket, &to);
            assert!(matches!(begun, Ok(()) | Err(rustix::io::Errno::INPROGRESS)), "{begun:?}");
            finish_connect(&socket).unwrap();
            // Programs ask by a second connect how the first one went: 0, then "is connected".
            let again = [(); 2].map(|()| rustix::net::connect(&socket, &to));
            assert!(matches!(again[0], Ok(()) | Err(rustix::io::Errno::ISCONN)), "{again:?}");
            assert_eq!(again[1], Err(rustix::io::Errno::ISCONN));
            let stream = TcpStream::from(socket);
            stream.set_nonblocking(false).unwrap();
            let mut connection = Connection::greet(stream).unwrap();
            assert_eq!(connection.stream.peer_addr().unwrap(), to);
            connection.echo(b"x").unwrap();
        });
        assert_eq!(connections(&world, kind) - before, 1, "{kind:?}");
    }
}

fn connections(world: &World, kind: Kind) -> u64 {
    world.shown("services", Protocol::Tcp, crate::world::vip(kind.family(), 1))["connections"].as_u64().unwrap()
}

#[test]
fn a_connect_by_fast_open_is_translated() {
    require_root!();
    let world = World::web();
    for kind in Kind::ALL {
        let to = kind.vip(1);
        world.client().run(|| {
            let socket = sockets::tcp(to, false);
            assert_eq!(sockets::send_fast_open(&socket, b"early", to).unwrap(), 5);
            let mut connection = Connection::greet(TcpStream::from(socket)).unwrap();
            let mut back = [0; 5];
            std::io::Read::read_exact(&mut connection.stream, &mut back).unwrap();
            assert_eq!(&back, b"early");
            assert_eq!(connection.stream.peer_addr().unwrap(), to, "{kind:?}");
        });
    }
}

#[test]
fn a_socket_shows_whom_it_dialled_last() {
    require_root!();
    let world = World::web();
    let other = manifest::service("other", vips(2), PORT, OTHER_TARGET, world.backends());
    world.put("other", &other);
    let backends = world.backends();
    for kind in Kind::ALL {
        let [first, second] = [1, 2].map(|number| kind.vip(number));
        world.client().run(|| {
            let socket = kind.udp();
            for _ in 0..8 {
                for to in [first, second] {
                    reconnect(&socket, to);
                    assert_eq!(socket.peer_addr().unwrap(), to, "{kind:?}");
                }
                for backend in &backends {
                    // Straight to a backend, on a port where the socket was never sent by way of a frontend.
                    let direct = kind.address(backend.socket(kind.family(), crate::world::PLAIN));
                    assert_eq!(reconnect(&socket, direct), backend.name());
                    assert_eq!(socket.peer_addr().unwrap(), direct, "{kind:?}");
                }
            }
            reconnect(&socket, first);
            sockets::disconnect(&socket);
            assert_eq!(socket.peer_addr().unwrap_err().kind(), std::io::ErrorKind::NotConnected);
        });
    }
}

/// The documented exception: a socket that re-connects straight to the very backend that its frontend gave it goes on
/// showing the frontend. To any other backend of that service it shows the backend.
#[test]
fn only_a_straight_reconnect_to_the_very_same_backend_still_shows_the_frontend() {
    require_root!();
    let world = World::web();
    for kind in Kind::ALL {
        let frontend = kind.vip(1);
        for backend in world.backends() {
            let direct = kind.address(backend.socket(kind.family(), TARGET));
            world.client().run(|| {
                let socket = kind.udp();
                let given = reconnect(&socket, frontend);
                assert_eq!(reconnect(&socket, direct), backend.name());
                let expected = if given == backend.name() { frontend } else { direct };
                assert_eq!(socket.peer_addr().unwrap(), expected, "{kind:?}: given {given}");
                // A socket that never went by way of the frontend shows the backend, always.
                assert_eq!(dial(Protocol::Udp, direct), (backend.name().to_owned(), direct));
                assert_eq!(dial(Protocol::Tcp, direct), (backend.name().to_owned(), direct));
            });
        }
    }
}

/// A number of a service whose TCP frontend has the same hint as that of number 1.
fn twin(family: Family) -> u16 {
    let hint = |number| {
        let to = crate::world::vip(family, number);
        mcs_ebpf::hint(Frontend::new(Addr::from(to.ip()), PortBe::new(to.port()), TCP).words())
    };
    (2..u16::MAX).find(|number| hint(*number) == hint(1)).expect("the addresses' hashes have a collision")
}

#[test]
fn frontends_that_share_a_hint_are_told_apart_and_one_that_went_leaves_none() {
    require_root!();
    let world = World::web();
    let backends = world.backends();
    for (kind, family) in [(Kind::V4, Family::V4), (Kind::V6, Family::V6)] {
        let twin = twin(family);
        world.put("twin", &manifest::service("twin", vips(twin), PORT, OTHER_TARGET, backends.iter().copied().take(1)));
        let (first, second) = (kind.vip(1), kind.vip(twin));
        let alternate = || {
            for _ in 0..16 {
                assert_eq!(world.client().run(|| dial(Protocol::Tcp, first).1), first);
                let reached = world.client().run(|| dial(Protocol::Tcp, second));
                assert_eq!(reached, (backends[0].name().to_owned(), second));
            }
        };
        alternate();
        world.remove("twin");
        let error = world.client().run(|| try_dial(Protocol::Tcp, second)).unwrap_err();
        assert!(is_unreachable(&error), "{second}: {error}");
        assert_eq!(world.client().run(|| dial(Protocol::Tcp, first).1), first);
        world.put("twin", &manifest::service("twin", vips(twin), PORT, OTHER_TARGET, backends.iter().copied().take(1)));
        alternate();
        world.remove("twin");
    }
}

#[test]
fn what_is_nobodys_frontend_is_left_alone() {
    require_root!();
    let world = World::web();
    // A service with a TCP port only: its UDP port of the same number is nobody's.
    let tcp_only = vips(2).into_iter().fold(ServiceImport::new("tcp-only"), ServiceImport::ip);
    world.put("tcp-only", &[tcp_only.port("", Protocol::Tcp, PORT).into()]);
    for kind in Kind::ALL {
        let family = kind.family();
        let other_port = SocketAddr::new(kind.vip(1).ip(), 81);
        for (what, protocol, to) in [
            ("another port of a ClusterSetIP", Protocol::Tcp, other_port),
            ("another port of a ClusterSetIP", Protocol::Udp, other_port),
            ("an unused ClusterSetIP", Protocol::Tcp, kind.vip(99)),
            ("an unused ClusterSetIP", Protocol::Udp, kind.vip(99)),
            ("the other transport", Protocol::Udp, kind.vip(2)),
        ] {
            // The pod has no route to a ClusterSetIP: that the kernel says so shows that the address was not replaced.
            let error = world.client().run(|| try_dial(protocol, to)).unwrap_err();
            assert!(is_unreachable(&error), "{what}: {kind:?} {protocol} {to}: {error}");
        }
        for backend in world.backends() {
            for protocol in Protocol::BOTH {
                let direct = kind.address(backend.socket(family, TARGET));
                assert_eq!(world.client().run(|| dial(protocol, direct)), (backend.name().to_owned(), direct));
            }
        }
        // Nobody listens there: refused by the pod and not by us, as the counters show.
        let closed = kind.address(world.backends()[0].socket(family, 9));
        let error = world.client().run(|| try_dial(Protocol::Tcp, closed)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    for service in world.agent.mcs_json(&["services"]).unwrap()["services"].as_array().unwrap() {
        assert_eq!((&service["connections"], &service["refusals"]), (&0.into(), &0.into()), "{service:#}");
    }
}

#[test]
fn sockets_outside_the_cgroup_are_left_alone() {
    require_root!();
    let world = World::web();
    // Node b1 has no agent, and its cgroup is not below a1's.
    for kind in Kind::ALL {
        for protocol in Protocol::BOTH {
            let to = kind.vip(1);
            let error = world.fleet.pod("b1p1").run(|| try_dial(protocol, to)).unwrap_err();
            assert!(is_unreachable(&error), "{kind:?} {protocol} {to}: {error}");
        }
    }
}

/// Programs that ask for Multipath TCP (Go's may) get a backend as all others do. What they see of it is the backend: the
/// kernel connects by a second socket behind theirs, whose cookie is not the one that `getpeername` is asked with.
#[test]
fn a_multipath_tcp_socket_is_translated_and_shows_its_backend() {
    require_root!();
    let world = World::web();
    for kind in Kind::ALL {
        let to = kind.vip(1);
        world.client().run(|| {
            let Some(socket) = sockets::mptcp(to) else { return };
            rustix::net::connect(&socket, &to).unwrap();
            let mut connection = Connection::greet(TcpStream::from(socket)).unwrap();
            connection.echo(b"x").unwrap();
            let backend = world.fleet.pod(&connection.backend).socket(kind.family(), TARGET);
            assert_eq!(connection.stream.peer_addr().unwrap(), kind.address(backend), "{kind:?}");
        });
    }
}
