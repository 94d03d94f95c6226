//! `mcs status --wait` is a barrier: what was in place before it started is in the kernel when it says so.

use std::fs;

use mcs_tests::identity::Protocol;
use mcs_tests::manifest::{self, Endpoint, EndpointSlice, ServiceImport};
use mcs_tests::{Family, require_root};

use crate::sockets::{dial, is_unreachable, try_dial};
use crate::world::{PORT, TARGET, World, combinations, said, scaled, vip, vips};

/// Fifty changes, each of them to be seen by the very next connect.
#[test]
fn what_was_renamed_into_place_before_is_in_the_kernel_after() {
    require_root!();
    let world = World::empty();
    let backends = world.backends();
    for round in 0..scaled(50, 20) {
        let pod = backends[round % backends.len()];
        let objects = manifest::service("web", vips(1), PORT, TARGET, [pod]);
        manifest::write(&world.source, "web", &objects).unwrap();
        let output = world.agent.mcs(&["status", "--wait", "30s"]).unwrap();
        assert!(output.status.success(), "{}", said(&output));
        for (protocol, family) in combinations() {
            let reached = world.client().run(|| dial(protocol, vip(family, 1)).0);
            assert_eq!(reached, pod.name(), "round {round}: {protocol} {family:?}");
        }
    }
}

/// The import and each slice in a file of its own; files that go; and changes that undo each other.
#[test]
fn removals_and_objects_in_files_of_their_own_pass_the_barrier_too() {
    require_root!();
    let world = World::empty();
    let to = vip(Family::V4, 1);
    let import = ServiceImport::new("web").ip(to.ip()).port("", Protocol::Tcp, PORT);
    let slice = |pod: &mcs_tests::Pod| {
        let slice = EndpointSlice::new("web", pod.cluster(), Family::V4).port("", Protocol::Tcp, TARGET);
        slice.endpoint(Endpoint::pod(pod, Family::V4))
    };
    let dial = || world.client().run(|| try_dial(Protocol::Tcp, to));
    let [one, two] = ["a1p2", "b1p1"].map(|name| world.fleet.pod(name));
    for round in 0..scaled(10, 3) {
        world.put("one", &[slice(one).into()]);
        assert!(is_unreachable(&dial().unwrap_err()), "a slice without its import is nothing");
        world.put("import", &[import.clone().into()]);
        assert_eq!(dial().unwrap().0, one.name());
        manifest::write(&world.source, "two", &[slice(two).into()]).unwrap();
        world.remove("one");
        assert_eq!(dial().unwrap().0, two.name(), "round {round}");
        world.remove("two");
        assert_eq!(dial().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        world.remove("import");
        assert!(is_unreachable(&dial().unwrap_err()));
    }
}

#[test]
fn without_an_agent_the_answer_is_no() {
    require_root!();
    let world = World::web();
    let status = |arguments: &[&str]| world.agent.mcs(&[&["status"], arguments].concat()).unwrap();
    assert!(status(&[]).status.success());
    world.agent.kill9();
    for arguments in [&[][..], &["--wait", "100ms"], &["-o", "json"]] {
        let output = status(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
    }
    assert!(said(&status(&[])).contains("no agent runs"), "{}", said(&status(&[])));
    world.agent.restart().unwrap();
    assert!(status(&["--wait", "30s"]).status.success());
    world.agent.stop().unwrap();
    world.agent.detach().unwrap();
    let output = status(&["--wait", "100ms"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

/// Whoever waits may start before the agent does.
#[test]
fn waiting_may_begin_before_the_agent_starts() {
    require_root!();
    let world = World::web();
    world.agent.kill9();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| world.agent.mcs(&["status", "--wait", "30s"]).unwrap());
        world.agent.restart().unwrap();
        let output = waiting.join().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    });
}

#[test]
fn what_is_invalid_is_named_and_does_not_keep_the_rest() {
    require_root!();
    let world = World::web();
    manifest::write_text(&world.source, "half.json", r#"{"apiVersion": "v1", "kind": "List", "items": ["#).unwrap();
    let bad = ServiceImport::new("bad").ip(vip(Family::V4, 7).ip()).port("", Protocol::Tcp, PORT);
    let bad = bad.field("/spec/ports/0/port", 70_000);
    world.put("bad", &[bad.into()]);
    world.put_service("other", 2, world.backends());
    let status = world.status();
    assert_eq!(status["ready"], true, "{status:#}");
    let problems = status["agent"]["problems"].to_string();
    assert!(problems.contains("half.json") && problems.contains("70000"), "{problems}");
    for number in [1, 2] {
        assert_eq!(world.reached(Protocol::Tcp, vip(Family::V6, number), 64), world.names());
    }
    for file in ["half", "bad"] {
        fs::remove_file(world.source.join(format!("{file}.json"))).unwrap();
    }
    let status = world.status();
    assert_eq!(status["agent"]["problems"], serde_json::json!([]), "what is mended is forgotten: {status:#}");
}
