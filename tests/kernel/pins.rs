//! The pin directory: one agent at a time, one layout, and a clear word where something else is found.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use mcs_tests::agent::{Agent, AgentOptions, mcs_binary, mount_bpffs};
use mcs_tests::identity::Protocol;
use mcs_tests::{Family, Fleet, require_root};

use crate::world::{PATIENCE, World, options, said, vip};

/// Runs an agent that is expected to give up, and returns what it says.
fn refusal(fleet: &Fleet, options: &AgentOptions) -> String {
    let mut command = Command::new(mcs_binary().unwrap());
    command.args(["agent", "--cluster", &options.cluster, "--node", &options.node]);
    command.arg("--source").arg(format!("dir:{}", options.source.display()));
    command.args(options.clusterset_cidrs.iter().flat_map(|cidr| ["--clusterset-cidr", cidr]));
    command.arg("--cgroup").arg(&options.cgroup).arg("--pin-dir").arg(&options.pin_dir);
    command.args(&options.arguments);
    command.envs(options.environment.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut agent = fleet.node("a1").spawn(command).unwrap();
    assert!(agent.wait_for(PATIENCE).unwrap().is_some(), "it was expected to give up, and runs");
    let output = agent.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output)
}

fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// A fleet without a running agent, and the options of one.
fn idle() -> (Fleet, AgentOptions) {
    mount_bpffs().unwrap();
    let fleet = Fleet::builder().build().unwrap();
    let source = fleet.dir("manifests").unwrap();
    let options = options(&fleet, fleet.node("a1"), &source);
    (fleet, options)
}

/// A pin directory that an agent left, whose programs are attached.
fn left_behind() -> World {
    let world = World::web();
    world.agent.kill9();
    world
}

fn map(world: &World, name: &str) -> std::path::PathBuf {
    world.pins().join("v1/maps").join(name)
}

#[test]
fn a_second_agent_says_who_is_there_and_leaves() {
    require_root!();
    let world = World::web();
    let pid = world.agent.pid().unwrap();
    let said = refusal(&world.fleet, world.agent.options());
    assert_says(&said, &["in use by process", &pid.to_string(), &world.pins().display().to_string()]);
    assert!(world.agent.ended().unwrap().is_none());
    world.agent.wait_ready().unwrap();
    assert_eq!(world.reached(Protocol::Tcp, vip(Family::V4, 1), 64), world.names());
}

#[test]
fn pins_of_another_version_are_refused_by_everybody_but_detach() {
    require_root!();
    let (fleet, options) = idle();
    let other = options.pin_dir.join("v2/maps");
    fs::create_dir_all(&other).unwrap();
    assert_says(&refusal(&fleet, &options), &["v2", "another version", "mcs detach"]);
    let verb = |verb: &str| {
        let mut command = Command::new(mcs_binary().unwrap());
        command.arg(verb).arg("--pin-dir").arg(&options.pin_dir);
        fleet.node("a1").output(command).unwrap()
    };
    for name in ["services", "dump"] {
        let output = verb(name);
        assert_eq!(output.status.code(), Some(1));
        assert_says(&said(&output), &["v2", "another version"]);
    }
    assert_eq!(verb("status").status.code(), Some(1));
    assert!(other.is_dir(), "nobody touched it");
    let output = verb("detach");
    assert!(output.status.success(), "{}", said(&output));
    assert!(!options.pin_dir.exists());
}

#[test]
fn a_pinned_map_with_another_layout_is_refused_and_never_read() {
    require_root!();
    let world = left_behind();
    let [slots, members, aside] = ["mcs_slots", "mcs_members", "aside"].map(|name| map(&world, name));
    // Both are arrays, with rows of 32 and of 40 bytes.
    fs::rename(&slots, &aside).unwrap();
    fs::rename(&members, &slots).unwrap();
    fs::rename(&aside, &members).unwrap();
    let said = refusal(&world.fleet, world.agent.options());
    assert_says(&said, &["another layout", "value 40", "mcs detach"]);
    let output = world.agent.mcs(&["services"]).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", crate::world::said(&output));
    assert_eq!(world.reached(Protocol::Udp, vip(Family::V6, 1), 64), world.names(), "programs run on");

    world.agent.detach().unwrap();
    world.agent.restart().unwrap();
    world.agent.wait_ready().unwrap();
    assert_eq!(world.reached(Protocol::Udp, vip(Family::V6, 1), 64), world.names());
}

#[test]
fn maps_that_are_not_complete_are_made_anew_unless_programs_run_on_them() {
    require_root!();
    let world = left_behind();
    fs::remove_file(map(&world, "mcs_agent")).unwrap();
    let said = refusal(&world.fleet, world.agent.options());
    assert_says(&said, &["not complete", "mcs detach"]);
    assert_eq!(world.reached(Protocol::Tcp, vip(Family::V4, 1), 64), world.names(), "programs run on");

    // As after a crash before anything was attached.
    fs::remove_dir_all(world.pins().join("v1/links")).unwrap();
    world.agent.restart().unwrap();
    world.agent.wait_ready().unwrap();
    assert_eq!(world.reached(Protocol::Tcp, vip(Family::V4, 1), 64), world.names());
}

#[test]
fn what_cannot_be_used_is_named() {
    require_root!();
    let (fleet, options) = idle();
    let plain = fleet.files().join("pins");
    let missing = Path::new("/sys/fs/cgroup/no-such-cgroup");
    let file_system = fleet.files();
    let cases: [(&str, AgentOptions, &[&str]); 4] = [
        (
            "a pin directory on another filesystem",
            AgentOptions { pin_dir: plain.clone(), ..options.clone() },
            &[plain.to_str().unwrap(), "not on a bpf filesystem", "mount -t bpf"],
        ),
        (
            "no such cgroup",
            AgentOptions { cgroup: missing.to_owned(), ..options.clone() },
            &["no-such-cgroup", "No such file"],
        ),
        (
            "no cgroup at all",
            AgentOptions { cgroup: file_system.clone(), ..options.clone() },
            &[file_system.to_str().unwrap(), "not a cgroup2 directory"],
        ),
        (
            "more CIDRs than a program can check",
            AgentOptions { clusterset_cidrs: (0..5).map(|i| format!("10.97.{i}.0/24")).collect(), ..options.clone() },
            &["CIDR"],
        ),
    ];
    for (what, options, words) in cases {
        let said = refusal(&fleet, &options);
        println!("{what}: {said}");
        assert_says(&said, words);
    }
}

/// Detaching while another agent's pins lie beside concerns only the one.
#[test]
fn agents_side_by_side_do_not_meet() {
    require_root!();
    let fleet = Fleet::builder().clusters(2).pods(2).build().unwrap();
    let world = World::on(fleet, |_options| {});
    let other_source = world.fleet.dir("other-manifests").unwrap();
    let other = options(&world.fleet, world.fleet.node("b1"), &other_source);
    let other = Agent::start_ready(&world.fleet, world.fleet.node("b1"), other).unwrap();
    world.put_service("web", 1, world.backends());
    let pods = [world.fleet.pod("b1p2")];
    let objects = mcs_tests::manifest::service("web", crate::world::vips(1), 80, crate::world::TARGET, pods);
    mcs_tests::manifest::write(&other_source, "web", &objects).unwrap();
    other.wait_ready().unwrap();
    let from_b = || crate::world::reached_from(world.fleet.pod("b1p1"), Protocol::Tcp, vip(Family::V4, 1), 64);
    assert_eq!(world.reached(Protocol::Tcp, vip(Family::V4, 1), 64), world.names());
    assert_eq!(from_b(), crate::world::names(pods));
    world.agent.stop().unwrap();
    world.agent.detach().unwrap();
    assert_eq!(from_b(), crate::world::names(pods));
}
