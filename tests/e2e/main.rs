//! The end-to-end tier: what a user sees, with the programs that a user runs.
//!
//! For now that is the demo: four nodes, an agent on each, manifests in, iperf3 and thousands of connections through
//! ClusterSetIPs, a cluster that leaves and comes back, and nothing left at the end. It checks all that it shows and says
//! so by its exit code.

use std::process::Command;

use mcs_tests::require_root;

#[test]
fn the_demo_shows_what_it_promises() {
    require_root!();
    // iperf3's threshold in the demo is a loose one: that traffic flows, not how fast this machine is.
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).arg("--seconds=1").output().expect("start the demo");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    assert!(stdout.contains("checks hold"), "{stdout}\n{stderr}");
}
