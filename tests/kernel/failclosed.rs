//! ClusterSetIP traffic does not leave the node while no program is attached: `unreachable` rules.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use mcs_tests::agent::mcs_binary;
use mcs_tests::{Family, Place, addresses, require_root};

use crate::sockets::{Kind, dial, is_unreachable};
use crate::world::{World, combinations, said, vip, wait_for};

fn ip(place: &Place, arguments: &[&str]) -> String {
    let mut command = Command::new("ip");
    command.args(arguments);
    place.stdout(command).unwrap()
}

/// Whether there is a rule for the ClusterSet CIDR of a family.
fn has_rule(place: &Place, family: Family) -> bool {
    let (address, length) = addresses::clusterset(family);
    let flag = if family == Family::V4 { "-4" } else { "-6" };
    let rules = ip(place, &[flag, "rule", "show"]);
    rules.lines().any(|rule| rule.contains(&format!("to {address}/{length} ")) && rule.contains("unreachable"))
}

fn rules(place: &Place) -> [bool; 2] {
    Family::BOTH.map(|family| has_rule(place, family))
}

/// Gives the node a default route, where untranslated traffic would leave.
fn add_default_routes(world: &World) {
    let node = world.fleet.node("a1");
    ip(node, &["-4", "route", "add", "default", "via", "172.31.0.1", "onlink", "dev", &uplink(node)]);
    ip(node, &["-6", "route", "add", "default", "via", "fd00:31::1", "onlink", "dev", &uplink(node)]);
}

/// The link over which the node reaches other nodes.
fn uplink(node: &Place) -> String {
    let route = ip(node, &["-4", "route", "get", "172.31.0.1"]);
    let mut words = route.split_whitespace().skip_while(|word| *word != "dev").skip(1);
    words.next().unwrap_or_else(|| panic!("no link in {route}")).to_owned()
}

/// Whether the node would send a datagram to the frontend: `connect` of a UDP socket asks for a route and no more.
fn leaks(place: &Place, family: Family) -> bool {
    place.run(|| {
        let socket = UdpSocket::bind(SocketAddr::new(family.unspecified(), 0)).unwrap();
        match socket.connect(vip(family, 1)) {
            Ok(()) => true,
            Err(error) if is_unreachable(&error) => false,
            Err(error) => panic!("{family:?}: {error}"),
        }
    })
}

/// As when the programs are lost: pins of links removed behind the agent's back.
fn drop_programs(world: &World) {
    world.agent.kill9();
    std::fs::remove_dir_all(world.pins().join("v1/links")).unwrap();
}

#[test]
fn rules_stand_from_start_to_detach_and_hold_traffic_back() {
    require_root!();
    let world = World::web();
    let node = world.fleet.node("a1");
    assert_eq!(rules(node), [true; 2]);
    assert_eq!(rules(world.client()), [false; 2], "in the node's namespace only");
    add_default_routes(&world);
    // They do not stand in the way of translated traffic.
    for (protocol, family) in combinations() {
        for client in [&**node, &**world.client()] {
            client.run(|| dial(protocol, vip(family, 1)));
        }
    }
    world.agent.restart().unwrap();
    world.agent.wait_ready().unwrap();
    assert_eq!(rules(node), [true; 2]);
    let flags = ip(node, &["-4", "rule", "show"]);
    assert_eq!(flags.matches("unreachable").count(), 1, "once, also after a restart: {flags}");

    drop_programs(&world);
    for family in Family::BOTH {
        wait_for("the kernel to drop the programs", || !leaks(node, family));
        let error = node.run(|| std::net::TcpStream::connect(vip(family, 1))).unwrap_err();
        assert!(is_unreachable(&error), "{family:?}: {error}");
    }
    world.agent.detach().unwrap();
    assert_eq!(rules(node), [false; 2]);
    for family in Family::BOTH {
        assert!(leaks(node, family), "{family:?}: it was the rule that held it back");
    }
}

#[test]
fn off_sets_none_and_takes_old_ones_away() {
    require_root!();
    let world = World::with(|options| options.arguments.extend(["--fail-closed".to_owned(), "off".to_owned()]));
    let node = world.fleet.node("a1");
    assert_eq!(rules(node), [false; 2]);
    world.agent.stop().unwrap();
    let restart = |mode: &str| {
        let mut options = world.agent.options().clone();
        options.arguments = vec!["--fail-closed".to_owned(), mode.to_owned()];
        let agent = mcs_tests::agent::Agent::start_ready(&world.fleet, node, options).unwrap();
        let rules = rules(node);
        agent.stop().unwrap();
        // Dropping it would detach.
        std::mem::forget(agent);
        rules
    };
    assert_eq!(restart("on"), [true; 2]);
    assert_eq!(restart("off"), [false; 2]);
    assert_eq!(restart("auto"), [true; 2]);
}

#[test]
fn a_cidr_that_the_node_uses_itself_gets_a_warning_and_no_rule() {
    require_root!();
    for (what, command) in [
        ("an address", ["addr", "add", "10.97.200.1/24", "dev", "lo"]),
        ("a route", ["route", "add", "10.97.200.0/24", "dev", "lo"]),
    ] {
        let fleet = mcs_tests::Fleet::builder().clusters(2).pods(2).build().unwrap();
        ip(fleet.node("a1"), &command);
        let world = World::on(fleet, |_options| {});
        let node = world.fleet.node("a1");
        assert_eq!(rules(node), [false, true], "{what}");
        let warnings = world.status()["agent"]["warnings"].to_string();
        for text in [warnings, world.agent.log_text()] {
            assert!(text.contains("10.97.0.0/16") && text.contains("10.97.200."), "{what}: {text}");
        }
        // A default route overlaps nothing.
        world.put_service("web", 1, world.backends());
        for kind in Kind::ALL {
            world.client().run(|| dial(mcs_tests::identity::Protocol::Tcp, kind.vip(1)));
        }
    }
}

#[test]
fn detach_finds_the_rules_from_another_network_namespace() {
    require_root!();
    let world = World::web();
    let node = world.fleet.node("a1");
    world.agent.stop().unwrap();
    let mut command = Command::new(mcs_binary().unwrap());
    command.arg("detach").arg("--pin-dir").arg(world.pins());
    let output = world.fleet.node("b1").output(command).unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(rules(node), [false; 2], "{}", said(&output));
    assert!(!said(&output).contains("rule left"), "{}", said(&output));
}
