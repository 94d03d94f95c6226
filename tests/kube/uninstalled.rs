//! What a node shows of mcs, and that it shows nothing when it was taken off.

use mcs_tests::kube::Kube;

/// What is left of mcs on a node: pins, rules, links.
pub(crate) fn left_on(kube: &Kube, node: &str) -> String {
    let script = "ls -d /sys/fs/bpf/mcs 2>/dev/null; ip rule | grep unreachable; ip -6 rule | grep unreachable; true";
    let mut command = kube.clusters().on_node(node, "sh").unwrap();
    let output = command.args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{node}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
