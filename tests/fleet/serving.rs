//! The "who am I" servers, as threads and as processes.

use std::io;

use mcs_tests::identity::{self, Connection, Listen, Protocol, Server, Stats};
use mcs_tests::{Family, Fleet, Place, require_root};

type Start = fn(&Place, &str, &[Listen]) -> anyhow::Result<Server>;
const KINDS: [(&str, Start); 2] = [("thread", Server::start), ("process", Server::start_process)];

#[test]
fn servers_say_who_they_are_echo_and_count() {
    require_root!();
    let fleet = Fleet::builder().nodes(2).build().unwrap();
    let (client, host) = (fleet.pod("a1p1"), fleet.pod("a2p1"));
    for (kind, start) in KINDS {
        let server = start(host, kind, &Listen::port(80)).unwrap();
        for family in Family::BOTH {
            for protocol in Protocol::BOTH {
                assert_eq!(identity::ask(client, protocol, host.socket(family, 80)).unwrap(), kind);
            }
        }
        let mut held = client.run(|| Connection::open(host.socket(Family::V6, 80))).unwrap();
        let large: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
        held.echo(&large[..1000]).unwrap();
        let Stats { connections, open, datagrams, bytes } = server.stats().unwrap();
        assert_eq!((connections, datagrams, bytes), (3, 2, 1006), "{kind}");
        assert!((1..=3).contains(&open), "{kind}: {open} open");
        // More than both socket buffers hold, while nobody reads yet: the server must wait and not lose or block others.
        held.echo(&large).unwrap();
        server.stop();
        assert!(held.echo(b"x").is_err(), "{kind}: a stopped server's connections end");
        let error = identity::ask(client, Protocol::Tcp, host.socket(Family::V4, 80)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{kind}: {error}");
    }
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    require_root!();
    let fleet = Fleet::builder().build().unwrap();
    let pod = fleet.pod("a1p1");
    for (kind, start) in KINDS {
        let error = start(pod, "nobody", &Listen::both("192.0.2.1:80".parse().unwrap())).err().unwrap();
        assert!(format!("{error:#}").contains("listen on TCP 192.0.2.1:80"), "{kind}: {error:#}");
    }
}
