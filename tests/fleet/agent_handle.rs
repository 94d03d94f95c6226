//! The handle of an agent, on a shell script in place of `mcs`: what it starts, ends, prints and removes does not depend on
//! what an agent does.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, thread};

use mcs_tests::agent::{Agent, AgentOptions};
use mcs_tests::{Fleet, require_root};

/// Says how it was called; an agent makes a folder `ready` in its pin directory, which `status` looks for, `detach` removes
/// and a kill leaves.
const SCRIPT: &str = r#"#!/bin/sh
verb=$1
all="$*"
while [ $# -gt 0 ]; do [ "$1" = --pin-dir ] && pins=$2; shift; done
case $verb in
agent)
    echo "started: $all" >&2
    trap 'echo stopping >&2; exit 7' TERM
    mkdir -p "$pins/ready"
    while :; do sleep 0.02; done ;;
status)
    tries=100
    until [ -d "$pins/ready" ]; do
        tries=$((tries - 1))
        [ $tries = 0 ] && { echo "nobody is ready" >&2; exit 1; }
        sleep 0.02
    done ;;
services) echo '{"called": "'"$all"'"}' ;;
detach) exit 3 ;;
esac
"#;

fn script(fleet: &Fleet, text: &str) -> PathBuf {
    let path = fleet.files().join("mcs");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn an_agent_is_started_killed_restarted_stopped_and_removed() {
    require_root!();
    let fleet = Fleet::builder().build().unwrap();
    let node = fleet.node("a1");
    let mut options = AgentOptions::new(&fleet, node, "/manifests");
    options.binary = Some(script(&fleet, SCRIPT));
    options.zone = Some("z1".to_owned());
    let pins = options.pin_dir.clone();
    let agent = Agent::start_ready(&fleet, node, options).unwrap();

    let called = "--source dir:/manifests --cluster a --node a1 --zone z1 --clusterset-cidr 10.97.0.0/16 \
                  --clusterset-cidr fd00:97::/112 --cgroup ";
    assert!(agent.log_text().contains(called), "{}", agent.log_text());
    assert!(
        agent.mcs_json(&["services"]).unwrap()["called"].as_str().unwrap().starts_with("services -o json --pin-dir ")
    );

    let first = agent.pid().unwrap();
    agent.kill9();
    assert_eq!(agent.pid(), None);
    assert!(pins.join("ready").is_dir(), "a kill leaves the pins");
    agent.restart().unwrap();
    agent.wait_ready().unwrap();
    assert_ne!(agent.pid().unwrap(), first);

    let end = Instant::now() + Duration::from_secs(5);
    while agent.log_text().matches("started:").count() < 2 {
        assert!(Instant::now() < end, "{}", agent.log_text());
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(agent.stop().unwrap().code(), Some(7));
    assert!(agent.log_text().ends_with("stopping\n"));
    drop(agent);
    assert!(!pins.exists(), "pins go although `detach` failed");
}

#[test]
fn an_agent_that_ends_at_once_is_reported_with_what_it_said() {
    require_root!();
    let fleet = Fleet::builder().build().unwrap();
    let node = fleet.node("a1");
    let mut options = AgentOptions::new(&fleet, node, "/manifests");
    options.binary =
        Some(script(&fleet, "#!/bin/sh\n[ $1 = status ] && exec sleep 20\necho 'no such flag' >&2\nexit 2\n"));
    let start = Instant::now();
    let error = Agent::start_ready(&fleet, node, options).err().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "does not wait for `status` to give up");
    let error = format!("{error:#}");
    assert!(error.contains("agent on a1: it ended: exit status: 2") && error.contains("no such flag"), "{error}");
}

#[test]
fn a_fleet_takes_its_agents_with_it() {
    require_root!();
    let fleet = Fleet::builder().build().unwrap();
    let node = fleet.node("a1");
    let mut options = AgentOptions::new(&fleet, node, "/manifests");
    options.binary = Some(script(&fleet, SCRIPT));
    let pins = options.pin_dir.clone();
    let agent = Agent::start_ready(&fleet, node, options).unwrap();
    let pid = agent.pid().unwrap();
    drop(fleet);
    assert!(!pins.exists());
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    drop(agent);
}
