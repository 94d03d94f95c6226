//! `mcs doctor` on this machine, with too few rights, and in a container's namespaces.

use std::process::{Command, Output};

use mcs_tests::agent::mcs_binary;
use mcs_tests::{Fleet, Pod, cgroup, mcs, require_root};
use serde_json::Value;

use crate::world::said;

/// Whether the machine has programs that the kernels under emulation come without.
fn is_whole_machine() -> bool {
    std::env::var_os("MCS_VM").is_none()
}

fn check(output: &Output, name: &str) -> Value {
    let diagnosis: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(output)));
    let checks = diagnosis["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {diagnosis}")).clone()
}

#[test]
fn a_machine_that_runs_agents_is_told_so() {
    require_root!();
    let output = mcs::verb(["doctor", "-o", "json"]).unwrap();
    assert!(output.status.success(), "{}", said(&output));
    for name in ["kernel", "cgroup2", "coverage", "capabilities", "memlock", "programs"] {
        assert_eq!(check(&output, name)["verdict"], "ok", "{}", said(&output));
    }
}

/// What `deploy/reduced` and `deploy/systemd` give is enough to load everything; one less is not, and is named.
#[test]
fn three_capabilities_are_enough_and_two_are_not() {
    require_root!();
    if !is_whole_machine() {
        return;
    }
    let with = |capabilities: &str| {
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set=-all,{capabilities}")).arg(mcs_binary().unwrap());
        command.args(["doctor", "-o", "json"]).output().unwrap()
    };
    let enough = with("+bpf,+net_admin,+perfmon");
    assert!(enough.status.success(), "{}", said(&enough));
    assert_eq!(check(&enough, "programs")["verdict"], "ok");
    let few = with("+bpf,+perfmon");
    assert_eq!(few.status.code(), Some(1), "{}", said(&few));
    assert_eq!(check(&few, "capabilities")["found"], "CAP_NET_ADMIN missing");
    assert_eq!(check(&few, "programs")["verdict"], "fail");
}

/// `mcs doctor` as a container of this pod: in a cgroup namespace of its own, with a mount that `mount` makes of `$1`.
fn contained(fleet: &Fleet, pod: &Pod, mount: &str) -> Output {
    let point = fleet.dir("cgroup").unwrap();
    let mut command = Command::new("unshare");
    command.args([
        "--cgroup",
        "--mount",
        "sh",
        "-ec",
        &format!("{mount}; exec \"$2\" doctor -o json --cgroup \"$1\""),
        "sh",
    ]);
    command.arg(point).arg(mcs_binary().unwrap()).env("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    pod.output(command).unwrap()
}

#[test]
fn a_container_whose_cgroup2_is_its_own_covers_nobody() {
    require_root!();
    if !is_whole_machine() {
        return;
    }
    let fleet = Fleet::builder().clusters(1).pods(2).build().unwrap();
    let pod = fleet.pod("a1p1");
    // As a container without privilege finds it: the attach would work.
    let own = contained(&fleet, pod, "mount -t cgroup2 none \"$1\"");
    let found = check(&own, "coverage");
    assert_eq!((own.status.code(), &found["verdict"]), (Some(1), &"fail".into()), "{}", said(&own));
    assert!(found["found"].as_str().unwrap().contains("no pod but this container"), "{found}");

    // By hostPath: the whole, or the part that holds all pods of this fleet.
    let whole = contained(&fleet, pod, &format!("mount --bind {} \"$1\"", cgroup::root().unwrap().display()));
    assert_eq!(check(&whole, "coverage")["verdict"], "ok", "{}", said(&whole));
    let all = pod.cgroup().ancestors().nth(2).unwrap();
    let part = contained(&fleet, pod, &format!("mount --bind {} \"$1\"", all.display()));
    let found = check(&part, "coverage");
    assert!(found["found"].as_str().unwrap().ends_with("reach the pods of this node"), "{found}");

    // And another's.
    let other = fleet.pod("a1p2").cgroup();
    let elsewhere = contained(&fleet, pod, &format!("mount --bind {} \"$1\"", other.display()));
    let found = check(&elsewhere, "coverage");
    assert!(found["found"].as_str().unwrap().contains("lies outside of it"), "{found}");
}
