//! The way back: members leave, mcs is taken off their nodes, the clusters end.

use anyhow::Result;
use mcs_tests::kube::Kube;
use mcs_tests::kube::shop::SHOP;

use super::CLUSTERS;
use super::ending::left;
use super::shell::{Shell, Show::First};
use crate::screen::Screen;

/// Both clusters leave; nothing of mcs stays on their nodes.
pub(crate) fn members(shell: &Shell<'_>, screen: &mut Screen) -> Result<()> {
    screen.step(
        "Leave, uninstall, and remove everything",
        &[
            "A cluster that leaves takes its exports along. Agents that end leave programs and",
            "maps in the kernel, as connections need them: deploy/uninstall takes them off.",
        ],
    )?;
    let kube = shell.kube;
    let [stays, leaves] = CLUSTERS;
    let before = held(kube)?;
    shell.run(&format!("mcs leave --kubeconfig {leaves}.kubeconfig"), First(3), screen)?;
    screen.during("until the other cluster knows", |_| {
        kube.until("no import", || Ok(kube.get(stays, "serviceimport", SHOP, "web")?.is_none().then_some(())))
    })?;
    let said =
        shell.try_run(&format!("kubectl --context {stays} -n {SHOP} get serviceimport web"), First(1), screen)?;
    screen.check(!said.succeeded, &format!("the last export of web went with {leaves}: {stays} has no import"))?;
    shell.run(&format!("mcs leave --kubeconfig {stays}.kubeconfig"), First(3), screen)?;
    for cluster in CLUSTERS {
        for verb in ["delete -k deploy/member", "apply --server-side -k deploy/uninstall"] {
            shell.run(&format!("kubectl --context {cluster} {verb}"), First(2), screen)?;
        }
    }
    for cluster in CLUSTERS {
        shell.rolled_out(cluster, "mcs-uninstall", "daemonset/mcs-uninstall", screen)?;
        shell.run(&format!("kubectl --context {cluster} delete -k deploy/uninstall"), First(2), screen)?;
    }
    let after = held(kube)?;
    screen.check(
        before.len() == 4 && after.is_empty(),
        &format!("nodes with programs, maps or rules of mcs: {} before, {} after", before.len(), after.len()),
    )
}

/// The nodes that have something of mcs.
fn held(kube: &Kube) -> Result<Vec<String>> {
    let mut held = Vec::new();
    for node in kube.clusters().clusters().iter().flat_map(|cluster| cluster.nodes()) {
        if !kube.left_on(&node.name)?.is_empty() {
            held.push(node.name);
        }
    }
    Ok(held)
}

/// The clusters end.
pub(crate) fn clusters(kube: Kube, screen: &mut Screen) -> Result<()> {
    screen.command("cargo xtask cluster down")?;
    screen.during("still ending", |_| {
        drop(kube);
        Ok(())
    })?;
    let left = left()?;
    let what = if left.is_empty() {
        "nothing is left: no process, network namespace, cgroup, file".to_owned()
    } else {
        format!("still there: {left}")
    };
    screen.check(left.is_empty(), &what)
}
