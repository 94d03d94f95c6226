//! How many connected sockets show their frontend, and which ones lose it when there are more than fit.

use std::collections::BTreeSet;
use std::net::{TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use mcs_tests::identity::{Connection, Listen, Server};
use mcs_tests::{Fleet, require_root};

use crate::sockets::{self, Kind, cookie, reconnect};
use crate::world::{Descriptors, TARGET, World, scaled};

/// A world whose servers are processes: client and server in one would need two descriptors for each connection.
fn world(flags: &[&str]) -> World {
    let fleet = Fleet::builder().clusters(2).pods(2).build().unwrap();
    let pods = fleet.pods().filter(|pod| pod.name() != "a1p1");
    let servers = pods.map(|pod| Server::start_process(pod, pod.name(), &Listen::port(TARGET)).unwrap()).collect();
    let world = World::around(fleet, servers, |options| {
        options.arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
    });
    world.put_service("web", 1, world.backends());
    world
}

#[test]
fn ten_thousand_connected_sockets_all_show_their_frontend() {
    require_root!();
    let descriptors = Descriptors::for_sockets(scaled(10_800, 900));
    let each = descriptors.count() / 6;
    let world = world(&[]);
    world.client().run(|| {
        let tcp: Vec<_> = Kind::ALL
            .into_iter()
            .flat_map(|kind| std::iter::repeat_n(kind, each))
            .map(|kind| (kind, TcpStream::connect(kind.vip(1)).unwrap()))
            .collect();
        let udp: Vec<_> = Kind::ALL
            .into_iter()
            .flat_map(|kind| std::iter::repeat_n(kind, each))
            .map(|kind| {
                let socket = kind.udp();
                socket.connect(kind.vip(1)).unwrap();
                (kind, socket)
            })
            .collect();
        let wrong_tcp = tcp.iter().filter(|(kind, stream)| stream.peer_addr().unwrap() != kind.vip(1)).count();
        let wrong_udp = udp.iter().filter(|(kind, socket)| socket.peer_addr().unwrap() != kind.vip(1)).count();
        assert_eq!((wrong_tcp, wrong_udp), (0, 0), "of {} each", tcp.len());
    });
}

/// Entries of the small table, and sets that they lie in.
const SMALL: [&str; 2] = ["--sockets", "1024"];
const ENTRIES: u64 = 1024;
const SETS: u64 = ENTRIES / 4;

/// Sockets that lie so that no part of the table, of so many parts, has two. The kernel gives cookies out in sequence, but
/// to other programs as well: a socket whose part is taken is thrown away, before it is connected.
fn spread<S: AsFd>(count: usize, parts: u64, taken: &mut BTreeSet<u64>, open: impl Fn() -> S) -> Vec<S> {
    let mut sockets = Vec::new();
    while sockets.len() < count {
        let socket = open();
        if taken.insert(cookie(&socket) % parts) {
            sockets.push(socket);
        }
    }
    sockets
}

/// Fills each set of the table several times over.
fn fill<S: AsFd>(open: impl Fn() -> S, connect: impl Fn(&S)) {
    for _ in 0..12 {
        let all = spread(SETS.try_into().unwrap(), SETS, &mut BTreeSet::new(), &open);
        all.iter().for_each(&connect);
    }
}

/// Whatever was there before, as many of the newest sockets as the table has entries are remembered. Sockets whose
/// cookies are that far apart meet in one entry; the test avoids them, as other programs take cookies meanwhile.
#[test]
fn the_newest_are_remembered_however_many_there_were() {
    require_root!();
    let world = world(&SMALL);
    let to = Kind::V4.vip(1);
    let count = scaled(700, 400);
    world.client().run(|| {
        let (open, connect) =
            (|| sockets::tcp(to, false), |socket: &OwnedFd| rustix::net::connect(socket, &to).unwrap());
        fill(open, connect);
        let held = spread(count, ENTRIES, &mut BTreeSet::new(), open);
        held.iter().for_each(connect);
        let streams = held.into_iter().map(TcpStream::from);
        assert_eq!(streams.filter(|stream| stream.peer_addr().unwrap() != to).count(), 0, "TCP");

        let (open, connect) = (|| Kind::V4.udp(), |socket: &UdpSocket| socket.connect(to).unwrap());
        fill(open, connect);
        let held = spread(count, ENTRIES, &mut BTreeSet::new(), open);
        held.iter().for_each(connect);
        assert_eq!(held.iter().filter(|socket| socket.peer_addr().unwrap() != to).count(), 0, "UDP");
    });
}

/// Room for 1 024 sockets, a few long-lived UDP sockets among them, and many times as many short TCP connections.
#[test]
fn udp_sockets_outlive_any_number_of_tcp_connections() {
    require_root!();
    let world = world(&SMALL);
    world.client().run(|| {
        let mut taken = BTreeSet::new();
        let mut held = Vec::new();
        for kind in Kind::ALL {
            for socket in spread(20, SETS, &mut taken, || kind.udp()) {
                let backend = reconnect(&socket, kind.vip(1));
                held.push((kind, socket, backend));
            }
        }
        let to = Kind::V4.vip(1);
        let first = TcpStream::connect(to).unwrap();
        for _ in 0..scaled(6_000, 2_500) {
            let stream = TcpStream::connect(to).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), to, "the newest is always remembered");
        }
        for (kind, socket, backend) in &held {
            assert_eq!(socket.peer_addr().unwrap(), kind.vip(1), "{kind:?}: connected to {backend}");
            socket.send(b"x").unwrap();
            assert_eq!(socket.recv_from(&mut [0; 64]).unwrap().1, kind.vip(1), "{kind:?}");
        }
        // Other tests take cookies too, so its place may have been left out so far.
        for _ in 0..20_000 {
            if first.peer_addr().unwrap() != to {
                break;
            }
            drop(TcpStream::connect(to).unwrap());
        }
        // What a socket loses is its frontend's face, and nothing else.
        assert_ne!(first.peer_addr().unwrap(), to, "thousands of connections ago");
        let mut first = Connection::greet(first).unwrap();
        first.echo(b"still here").unwrap();
    });
}

/// Of UDP sockets, those that receive outlive those that do not: second chance.
#[test]
fn udp_sockets_in_use_outlive_idle_ones() {
    require_root!();
    let world = world(&SMALL);
    world.client().run(|| {
        let kind = Kind::V4;
        let mut taken = BTreeSet::new();
        let [used, idle] = [(); 2].map(|()| spread(20, SETS, &mut taken, || kind.udp()));
        for socket in used.iter().chain(&idle) {
            reconnect(socket, kind.vip(1));
        }
        // What the socket calls show of the frontend, to a receiver and to one who only asks.
        let hear = |socket: &UdpSocket| {
            socket.send(b"x").unwrap();
            socket.recv_from(&mut [0; 64]).unwrap().1
        };
        for _ in 0..scaled(20, 8) {
            // Newcomers, one for each set that has one of ours; in between the used ones receive.
            let mut others = (0..SETS).filter(|set| !taken.contains(set)).collect();
            for socket in spread(taken.len(), SETS, &mut others, || kind.udp()) {
                socket.connect(kind.vip(1)).unwrap();
            }
            let lost = used.iter().filter(|socket| hear(socket) != kind.vip(1)).count();
            assert_eq!(lost, 0, "of those in use");
        }
        let kept = idle.iter().filter(|socket| socket.peer_addr().unwrap() == kind.vip(1)).count();
        assert_eq!(kept, 0, "of those that slept");
    });
}
