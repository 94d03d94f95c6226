//! From nothing to two members of a ClusterSet.

use anyhow::{Context as _, Result};
use mcs_clusters::Shape;
use mcs_tests::kube::{Kube, image};

use super::CLUSTERS;
use super::shell::{Shell, Show::First};
use crate::screen::Screen;

/// Brings the clusters up.
pub(crate) fn clusters(screen: &mut Screen) -> Result<Kube> {
    screen.step(
        "Two Kubernetes clusters of two nodes, and an API server as broker",
        &[
            "Real kubelets, containerd, CoreDNS and CNI, in network namespaces and cgroups",
            "of this machine, IPv4 and IPv6. Each cluster has its own kube-proxy and CNI.",
        ],
    )?;
    screen.command("cargo xtask cluster up --broker")?;
    let shape = Shape { broker: true, ..Shape::default() };
    let kube = screen.during("still coming up", |say| Kube::up_saying(&shape, &|line| say(&format!("  {line}"))))?;
    screen
        .command(&format!("cargo xtask cluster load {}   # on every node", short(&image()?.display().to_string())))?;
    screen.command("cargo xtask cluster exec -- bash   # in there all that follows is typed")?;
    screen.command(&format!("cd {}; export PATH=$PWD/bin:$PATH", kube.files().display()))?;
    let mut ready = 0;
    let shell = Shell::new(&kube)?;
    for cluster in CLUSTERS {
        ready +=
            shell.run(&format!("kubectl --context {cluster} get nodes"), First(5), screen)?.matches(" Ready ").count();
    }
    let proxies: Vec<String> =
        kube.clusters().clusters().iter().map(|one| format!("{} {}", one.name, one.proxy)).collect();
    screen.check(ready == 4, &format!("{ready} nodes are Ready; kube-proxy's mode: {}", proxies.join(", ")))?;
    Ok(kube)
}

/// The part of a path that is below the clone, if it is.
fn short(path: &str) -> &str {
    path.find("target/").map_or(path, |at| &path[at..])
}

/// Makes the broker.
pub(crate) fn broker(shell: &Shell<'_>, screen: &mut Screen) -> Result<()> {
    screen.step(
        "The broker: where members leave records for each other",
        &[
            "Any API server will do, a member's own too; nothing of mcs runs there. A",
            "kubeconfig for each, as a cluster's admin has it:",
        ],
    )?;
    shell.run(
        "for one in broker c0 c1; do\n    kubectl --context $one config view --minify --flatten --raw >$one.kubeconfig\n  done",
        First(1),
        screen,
    )?;
    let line = "mcs broker init --kubeconfig broker.kubeconfig \\\n    --clusterset-cidr 10.97.0.0/16 --clusterset-cidr fd00:97::/112";
    shell.run(line, First(4), screen)?;
    let kinds = shell.kube.kubectl("broker", &["get", "crds", "-o", "name"])?.lines().count();
    screen.check(kinds > 0, &format!("the broker has the {kinds} kinds of records that members write"))
}

/// Installs mcs in both clusters and lets them join.
pub(crate) fn members(shell: &Shell<'_>, screen: &mut Screen) -> Result<()> {
    screen.step(
        "Two members: mcs agent on each node, two mcs controllers in each cluster",
        &["Installed with what deploy/ holds; then each cluster joins."],
    )?;
    for cluster in CLUSTERS {
        shell.run(&format!("kubectl --context {cluster} apply --server-side -k deploy/member"), First(3), screen)?;
        let join = format!(
            "mcs join --kubeconfig {cluster}.kubeconfig --broker-kubeconfig broker.kubeconfig \\\n    \
             --cluster {cluster} --clusterset demo"
        );
        shell.run(&join, First(3), screen)?;
    }
    for cluster in CLUSTERS {
        for workload in ["daemonset/mcs-agent", "deployment/mcs-controller"] {
            shell.rolled_out(cluster, "mcs-system", workload, screen)?;
        }
        screen.command(&format!(
            "cargo xtask cluster dns {cluster}   # in the clone; CoreDNS: multicluster clusterset.local"
        ))?;
        screen.during("until CoreDNS is ready", |_| shell.kube.clusters().answer_for_clusterset(cluster))?;
    }
    let mut ready = [0; 2];
    for cluster in CLUSTERS {
        shell.run(&format!("kubectl --context {cluster} -n mcs-system get pods"), First(6), screen)?;
        ready[0] += number(shell.kube, cluster, "daemonset", "mcs-agent", "numberReady")?;
        ready[1] += number(shell.kube, cluster, "deployment", "mcs-controller", "readyReplicas")?;
    }
    let [agents, controllers] = ready;
    screen.check(ready == [4, 4], &format!("{agents} agents and {controllers} controllers are ready"))
}

/// A number in a workload's status.
fn number(kube: &Kube, cluster: &str, kind: &str, name: &str, field: &str) -> Result<u64> {
    let workload = kube.get(cluster, kind, "mcs-system", name)?.with_context(|| format!("{kind} {name}: not there"))?;
    Ok(workload["status"][field].as_u64().unwrap_or(0))
}
