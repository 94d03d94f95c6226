//! Whatever way a fleet ends, nothing of it is left; and nobody removes what is in use.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mcs_tests::identity::{Listen, Server};
use mcs_tests::{Fleet, require_root};

/// Asks a copy of this test program to build a fleet and wait to be ended.
const VICTIM: &str = "MCS_TESTS_VICTIM";

/// Names of a fleet that still exist, wherever fleets leave names.
fn left_of(id: &str) -> Vec<String> {
    let cgroups = mcs_tests::cgroup::root().unwrap().to_owned();
    let (whole, part) = (format!("mcs-{id}"), format!("mcs-{id}-"));
    let mut left = Vec::new();
    for dir in [Path::new("/var/run/netns"), Path::new("/sys/fs/bpf"), &cgroups, &std::env::temp_dir()] {
        let names = fs::read_dir(dir).into_iter().flatten();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        left.extend(names.filter(|name| name == &whole || name.starts_with(&part)));
    }
    left
}

fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command.arg("1000");
    command
}

fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn dropping_a_fleet_ends_all_that_runs_in_it() {
    require_root!();
    let fleet = Fleet::builder().clusters(2).nodes(2).pods(2).build().unwrap();
    let id = fleet.id().to_string();
    assert!(left_of(&id).len() >= 14, "13 namespaces, a cgroup, a folder: {:?}", left_of(&id));
    let child = fleet.pod("b2p2").spawn(sleeper()).unwrap();
    let thread = Server::start(fleet.pod("a1p1"), "x", &Listen::port(80)).unwrap();
    let process = Server::start_process(fleet.pod("a1p2"), "y", &Listen::port(80)).unwrap();
    // A grandchild that its parent left: nobody has a handle of it, but its cgroup does.
    let mut shell = Command::new("sh");
    shell.args(["-c", "sleep 1000 >/dev/null 2>&1 & echo $!"]);
    let orphan: u32 = fleet.node("a1").stdout(shell).unwrap().trim().parse().unwrap();
    assert!(runs(child.id()) && runs(orphan));
    let pid = child.id();
    let start = Instant::now();
    // Handles outlive it on purpose.
    drop(fleet);
    eprintln!("removed in {:?}", start.elapsed());
    assert_eq!(left_of(&id), Vec::<String>::new());
    assert!(!runs(pid) && !runs(orphan));
    drop((child, thread, process));
}

#[test]
fn a_panic_in_a_pod_reaches_the_test_and_cleans_up() {
    require_root!();
    let mut id = String::new();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let fleet = Fleet::builder().build().unwrap();
        id = fleet.id().to_string();
        let _child = fleet.pod("a1p1").spawn(sleeper()).unwrap();
        fleet.pod("a1p1").run(|| panic!("as planned"));
    }))
    .unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"as planned"));
    assert_eq!(left_of(&id), Vec::<String>::new());
}

#[test]
fn fleets_live_side_by_side() {
    require_root!();
    let one = Fleet::builder().build().unwrap();
    let two = Fleet::builder().build().unwrap();
    let _one = Server::start(one.pod("a1p1"), "one", &Listen::port(80)).unwrap();
    let _two = Server::start(two.pod("a1p1"), "two", &Listen::port(80)).unwrap();
    for (fleet, name) in [(&one, "one"), (&two, "two")] {
        let to = fleet.pod("a1p1").socket(mcs_tests::Family::V4, 80);
        let said = mcs_tests::identity::ask(fleet.node("a1"), mcs_tests::identity::Protocol::Tcp, to);
        assert_eq!(said.unwrap(), name);
    }
    Fleet::sweep().unwrap();
    drop(one);
    assert!(!left_of(&two.id().to_string()).is_empty(), "its owner lives");
}

#[test]
fn a_killed_process_leaves_a_fleet_that_the_next_one_sweeps() {
    require_root!();
    let (mut victim, id, child) = start_victim();
    assert!(!left_of(&id).is_empty() && runs(child));
    victim.kill().unwrap();
    victim.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while runs(child) {
        assert!(Instant::now() < end, "children end with the process that started them");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Another test's sweep may be first.
    Fleet::sweep().unwrap();
    assert_eq!(left_of(&id), Vec::<String>::new());
}

#[test]
fn ctrl_c_removes_the_fleet_and_ends_the_process() {
    require_root!();
    let (mut victim, id, child) = start_victim();
    let pid = rustix::process::Pid::from_child(&victim);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = victim.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGINT), "{status}");
    assert_eq!(left_of(&id), Vec::<String>::new());
    assert!(!runs(child));
}

/// Starts a copy of this program that runs [`victim`], and returns its fleet's id and a child of it in a pod.
fn start_victim() -> (std::process::Child, String, u32) {
    use std::io::BufRead as _;
    let mut command = Command::new("/proc/self/exe");
    command.args(["cleanup::victim", "--exact", "--nocapture"]).env(VICTIM, "1").stdout(Stdio::piped());
    let mut victim = command.spawn().unwrap();
    let lines = std::io::BufReader::new(victim.stdout.take().unwrap()).lines();
    let said = lines.map(Result::unwrap).find_map(|line| line.split_once("fleet ").map(|(_, rest)| rest.to_owned()));
    let said = said.unwrap();
    let (id, child) = said.split_once(' ').unwrap();
    (victim, id.to_owned(), child.parse().unwrap())
}

/// Not a test of its own: what the two tests above kill.
#[test]
fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    Fleet::on_signal().unwrap();
    let fleet = Fleet::builder().build().unwrap();
    let child = fleet.pod("a1p1").spawn(sleeper()).unwrap();
    println!("fleet {} {}", fleet.id(), child.id());
    std::thread::sleep(Duration::from_secs(60));
}
