//! Thousands of connections held while the agent is killed, restarted and replaced, and as many new ones made in the
//! gaps: none is broken, none fails (point 5 of the issue).

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mcs_tests::agent::mcs_binary;
use mcs_tests::identity::{Connection, Listen, Server};
use mcs_tests::{Fleet, require_root};

use crate::sockets::{Kind, dial};
use crate::world::{Descriptors, TARGET, World, scaled, wait_for};

fn world() -> World {
    let fleet = Fleet::builder().clusters(2).pods(2).build().unwrap();
    let pods = fleet.pods().filter(|pod| pod.name() != "a1p1");
    let servers = pods.map(|pod| Server::start_process(pod, pod.name(), &Listen::port(TARGET)).unwrap()).collect();
    let world = World::around(fleet, servers, |_options| {});
    world.put_service("web", 1, world.backends());
    world
}

/// Every held connection answers, and shows its frontend. Returns how many do not.
fn broken(held: &mut [(Kind, Connection)]) -> usize {
    let is_broken = |(kind, connection): &mut (Kind, Connection)| {
        connection.echo(b"x").is_err() || connection.stream.peer_addr().ok() != Some(kind.vip(1))
    };
    held.iter_mut().map(is_broken).filter(|broken| *broken).count()
}

#[test]
fn ten_thousand_connections_outlive_the_agent() {
    require_root!();
    let descriptors = Descriptors::for_sockets(scaled(10_000, 1_000));
    let count = descriptors.count();
    let world = world();
    let kinds = || Kind::ALL.into_iter().cycle();
    let mut held: Vec<(Kind, Connection)> =
        world.client().run(|| kinds().take(count).map(|kind| (kind, Connection::open(kind.vip(1)).unwrap())).collect());
    let newer = world.fleet.files().join("mcs-newer");
    fs::copy(mcs_binary().unwrap(), &newer).unwrap();

    world.agent.kill9();
    // No agent runs: as many new ones, every one of them a hit.
    world.client().run(|| {
        for kind in kinds().take(count) {
            let (_, peer) = dial(mcs_tests::identity::Protocol::Tcp, kind.vip(1));
            assert_eq!(peer, kind.vip(1));
        }
    });
    assert_eq!(broken(&mut held), 0, "after kill -9");

    // While agents come and go, a client goes on connecting.
    let (made, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            world.client().run(|| {
                for kind in kinds() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (_, peer) = dial(mcs_tests::identity::Protocol::Tcp, kind.vip(1));
                    assert_eq!(peer, kind.vip(1));
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        let more = |what: &str| {
            let enough = made.load(Ordering::Relaxed) + 100;
            wait_for(what, || client.is_finished() || made.load(Ordering::Relaxed) >= enough);
        };
        world.agent.restart().unwrap();
        more("connects while an agent takes over");
        world.agent.wait_ready().unwrap();
        world.agent.restart_as(&newer).unwrap();
        more("connects while another binary takes over");
        world.agent.wait_ready().unwrap();
        world.agent.stop().unwrap();
        more("connects after a stop");
        world.agent.restart().unwrap();
        world.agent.wait_ready().unwrap();
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(broken(&mut held), 0, "after a restart, a replacement and a stop");
}
