//! What changes while connections run: more backends, other backends, a cluster that exports no more.

use std::time::Instant;

use anyhow::{Context as _, Result};
use mcs_tests::kube::load::{Load, Seen};
use mcs_tests::kube::shop::{self, CLIENT, SHOP};

use super::CLUSTERS;
use super::service::{count, of_clusters, reaches, said};
use super::shell::{Shell, Show::First};
use crate::screen::Screen;

/// Backends of c0 after it was scaled.
const SCALED: usize = 4;
/// Fewer connections than this tell nothing.
const ENOUGH: usize = 200;

/// Scales and restarts backends under load.
pub(crate) fn restart(shell: &Shell<'_>, ips: &[String; 2], screen: &mut Screen) -> Result<()> {
    screen.step(
        "More backends, then all of them replaced, under load",
        &[
            "The client in c1 makes new connections all the time, IPv4 and IPv6. Backends",
            "that end go on serving for some seconds, as Kubernetes asks of servers.",
        ],
    )?;
    let kube = shell.kube;
    let loads = begin(shell, ips, "restart", screen)?;
    shell.run(&format!("kubectl --context c0 -n {SHOP} scale deployment/web --replicas={SCALED}"), First(1), screen)?;
    shell.rolled_out("c0", SHOP, "deployment/web", screen)?;
    screen.during("until all backends are known", |_| reaches(shell, "c1", &shop::host(&ips[0]), &CLUSTERS))?;
    let more = shop::backends(kube, "c0")?.len();
    for cluster in CLUSTERS {
        shell.run(
            &format!("kubectl --context {cluster} -n {SHOP} rollout restart deployment/web"),
            First(1),
            screen,
        )?;
    }
    for cluster in CLUSTERS {
        shell.rolled_out(cluster, SHOP, "deployment/web", screen)?;
    }
    for cluster in CLUSTERS {
        screen.during("until the old backends have ended", |_| {
            kube.until(&format!("old backends of {cluster} have ended"), || {
                let pods = kube.kubectl(cluster, &["-n", SHOP, "get", "pods", "-l", "app=web", "-o", "name"])?;
                Ok((pods.lines().count() == shop::backends(kube, cluster)?.len()).then_some(()))
            })
        })?;
    }
    screen.during("until all backends are known", |_| reaches(shell, "c1", &shop::host(&ips[0]), &CLUSTERS))?;
    let seen = end(loads, screen)?;
    screen.check(more == SCALED, &format!("{more} backends of c0 answered after it was scaled"))?;
    whole(&seen, screen)
}

/// c0 exports no more.
pub(crate) fn unexport(shell: &Shell<'_>, ips: &[String; 2], screen: &mut Screen) -> Result<()> {
    screen.step(
        "c0 exports no more",
        &[
            "Its backends are still there, but not for the ClusterSet: whoever connects now,",
            "in c0 too, should get c1.",
        ],
    )?;
    let loads = begin(shell, ips, "unexport", screen)?;
    let start = Instant::now();
    shell.run(&format!("kubectl --context c0 -n {SHOP} delete serviceexport web"), First(1), screen)?;
    screen.during("until both clusters know", |_| {
        for cluster in CLUSTERS {
            of_clusters(shell, cluster, &["c1"])?;
            reaches(shell, cluster, &shop::host(&ips[0]), &["c1"])?;
        }
        Ok(())
    })?;
    screen.line(&format!("  both clusters know after {:.1} s at most", start.elapsed().as_secs_f64()))?;
    let clusters = "-o jsonpath='{.status.clusters[*].cluster}'; echo";
    shell.run(&format!("kubectl --context c0 -n {SHOP} get serviceimport web {clusters}"), First(1), screen)?;
    for (cluster, ip) in CLUSTERS.iter().zip(ips) {
        let counts = count(shell, cluster, &shop::host(ip), screen)?;
        screen.check(!counts.contains_key("c0"), &format!("from {cluster}: {}", said(&counts)))?;
    }
    let seen = end(loads, screen)?;
    whole(&seen, screen)
}

/// What mcs itself says.
pub(crate) fn status(shell: &Shell<'_>, screen: &mut Screen) -> Result<()> {
    screen.step("What mcs says", &["The ClusterSet as c1 sees it; and the maps of the client's node."])?;
    let said = shell.try_run("mcs status --kubeconfig c1.kubeconfig", First(30), screen)?;
    screen.check(said.succeeded, "mcs status finds nothing wrong (exit 0)")?;
    let agent = agent_beside_client(shell)?;
    let services = format!("kubectl --context c1 -n mcs-system exec {agent} -- /mcs services");
    let said = shell.run(&services, First(30), screen)?;
    screen.check(said.contains("web"), "the node's maps have shop/web")
}

/// The agent's pod on the client's node, which has counted its connections.
fn agent_beside_client(shell: &Shell<'_>) -> Result<String> {
    let client = shell.kube.get("c1", "pod", SHOP, CLIENT)?.context("the client is gone")?;
    let node = client["spec"]["nodeName"].as_str().context("the client has no node")?;
    let (agents, on_node) = ("app.kubernetes.io/name=mcs-agent", format!("--field-selector=spec.nodeName={node}"));
    let listed = ["-n", "mcs-system", "get", "pods", "-l", agents, &on_node, "-o", "name"];
    Ok(shell.kube.kubectl("c1", &listed)?.trim().to_owned())
}

fn begin<'a>(shell: &Shell<'a>, ips: &[String; 2], name: &str, screen: &Screen) -> Result<Vec<Load<'a>>> {
    let mut loads = Vec::new();
    for (ip, family) in ips.iter().zip(["4", "6"]) {
        let host = shop::host(ip);
        screen.command(&format!(
            "kubectl --context c1 -n {SHOP} exec client -- sh -c \\\n    'while :; do curl -s http://{host}/hostname; done' &"
        ))?;
        loads.push(Load::start(shell.kube, "c1", &host, &format!("{name}{family}"))?);
    }
    Ok(loads)
}

fn end(loads: Vec<Load<'_>>, screen: &Screen) -> Result<Vec<Seen>> {
    screen.during("until the connections have ended", |_| loads.into_iter().map(Load::stop).collect())
}

fn whole(seen: &[Seen], screen: &mut Screen) -> Result<()> {
    for (seen, family) in seen.iter().zip(["IPv4", "IPv6"]) {
        let whole = seen.connections.len() >= ENOUGH && seen.failed().next().is_none();
        screen.check(whole, &format!("{family}: {}", seen.line()))?;
        for failed in seen.failed().take(3) {
            screen.line(&format!("        {failed:?}"))?;
        }
    }
    Ok(())
}
