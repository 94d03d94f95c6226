//! A service that both clusters export, and who answers a pod that asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use mcs_tests::kube::shop::{self, CLIENT, SHOP};

use super::CLUSTERS;
use super::shell::{Shell, Show::First};
use crate::screen::Screen;

/// Backends in each cluster.
const REPLICAS: u32 = 2;
/// New connections by each way.
const CONNECTIONS: u32 = 200;
/// How far a cluster may be from its share, in standard deviations: chance does that once in millions of demos.
const DEVIATIONS: f64 = 6.0;
/// The name of the import.
const NAME: &str = "web.shop.svc.clusterset.local";

/// Deploys and exports it; its ClusterSetIPs.
pub(crate) fn export(shell: &Shell<'_>, screen: &mut Screen) -> Result<[String; 2]> {
    screen.step(
        "A service of both clusters",
        &[
            "A Deployment and its Service in each, as ever. A ServiceExport of the same name",
            "makes it the ClusterSet's.",
        ],
    )?;
    let kube = shell.kube;
    let objects: Vec<_> = [shop::namespace()].into_iter().chain(shop::web(REPLICAS)).collect();
    shell.write("web.yaml", &objects)?;
    shell.write("client.yaml", &[shop::client()])?;
    shell.write("export.yaml", &[shop::export()])?;
    for cluster in CLUSTERS {
        shell.run(
            &format!("kubectl --context {cluster} apply --server-side -f web.yaml -f client.yaml"),
            First(5),
            screen,
        )?;
    }
    for cluster in CLUSTERS {
        shell.rolled_out(cluster, SHOP, "deployment/web", screen)?;
        let wait = ["-n", SHOP, "wait", "--for=condition=Ready", "pod/client", "--timeout=120s"];
        screen.during("until the client runs", |_| kube.kubectl(cluster, &wait))?;
    }
    shell.run("cat export.yaml", First(8), screen)?;
    let start = Instant::now();
    for cluster in CLUSTERS {
        shell.run(&format!("kubectl --context {cluster} apply --server-side -f export.yaml"), First(1), screen)?;
    }
    let ips = screen.during("until the import is there", |_| {
        let ips = CLUSTERS.map(|cluster| shop::addresses(kube, cluster));
        for cluster in CLUSTERS {
            of_clusters(shell, cluster, &CLUSTERS)?;
        }
        Ok(ips)
    })?;
    let took = start.elapsed().as_secs_f64();
    for cluster in CLUSTERS {
        shell.run(&format!("kubectl --context {cluster} -n {SHOP} get serviceimport"), First(3), screen)?;
    }
    let [ours, theirs] = ips;
    let (ours, theirs) = (ours?, theirs?);
    let [v4, v6] = &ours;
    screen.check(ours == theirs, &format!("{v4} and {v6}: the same in both clusters, both in it after {took:.1} s"))?;
    Ok(ours)
}

/// Waits until a cluster's import is of just these clusters.
pub(crate) fn of_clusters(shell: &Shell<'_>, cluster: &str, expected: &[&str]) -> Result<()> {
    shell.kube.until(&format!("import in {cluster} of {expected:?}"), || {
        let import = shell.kube.get(cluster, "serviceimport", SHOP, "web")?.unwrap_or_default();
        let clusters = import["status"]["clusters"].as_array().into_iter().flatten();
        let mut names: Vec<&str> = clusters.filter_map(|one| one["cluster"].as_str()).collect();
        names.sort_unstable();
        Ok((names == expected).then_some(()))
    })
}

/// Asks from a pod, by each address and by name.
pub(crate) fn ask(shell: &Shell<'_>, ips: &[String; 2], screen: &mut Screen) -> Result<()> {
    screen.step(
        "A pod of c1 asks",
        &[
            "By ClusterSetIP, IPv4 and IPv6, and by name. Backends answer with their names:",
            "those of c0 and of c1 should get as much.",
        ],
    )?;
    let hosts: Vec<String> = ips.iter().map(|ip| shop::host(ip)).chain([NAME.to_owned()]).collect();
    for host in &hosts {
        screen.during("until all backends are known", |_| reaches(shell, "c1", host, &CLUSTERS))?;
    }
    for host in &hosts {
        let curl =
            format!("kubectl --context c1 -n {SHOP} exec client -- \\\n    curl -s 'http://{host}/hostname'; echo");
        shell.run(&curl, First(1), screen)?;
    }
    for host in &hosts {
        let counts = count(shell, "c1", host, screen)?;
        let fair = f64::from(CONNECTIONS) / 2.0;
        let deviation = fair.sqrt() / 2.0_f64.sqrt();
        let off = CLUSTERS.map(|cluster| (f64::from(counts.get(cluster).copied().unwrap_or(0)) - fair).abs());
        let farthest = off.into_iter().fold(0.0, f64::max);
        screen.check(
            farthest < DEVIATIONS * deviation,
            &format!("{host}: {}; one standard deviation is {deviation:.0}", said(&counts)),
        )?;
    }
    Ok(())
}

/// Waits until all living backends of these clusters answer, and nobody else.
pub(crate) fn reaches(shell: &Shell<'_>, from: &str, host: &str, clusters: &[&str]) -> Result<()> {
    shell.kube.until(&format!("{host} from {from} answered by all backends of {clusters:?}"), || {
        let mut expected = BTreeSet::new();
        for cluster in clusters {
            expected.extend(shop::backends(shell.kube, cluster)?);
        }
        // Many at once, rather than one each time: kubectl takes longer than all of them.
        let url = format!("http://{host}/hostname?n=[1-{CONNECTIONS}]");
        let curl = ["curl", "-sf", "-m", "5", "-w", "\n", "-H", "Connection: close", &url];
        let said = shell.kube.exec(from, SHOP, CLIENT, &curl)?;
        let answered: BTreeSet<String> = said.lines().map(str::to_owned).collect();
        Ok((answered == expected).then_some(()))
    })
}

/// New connections from a cluster's client, and how many of them each cluster answered.
pub(crate) fn count(shell: &Shell<'_>, from: &str, host: &str, screen: &Screen) -> Result<BTreeMap<String, u32>> {
    let line = format!(
        "kubectl --context {from} -n {SHOP} exec client -- curl -sf --fail-early -w '\\n' \\\n    \
         -H 'Connection: close' 'http://{host}/hostname?n=[1-{CONNECTIONS}]' | sort | uniq -c"
    );
    let answered = shell.run(&line, First(10), screen)?;
    let mut cluster_of = BTreeMap::new();
    for cluster in CLUSTERS {
        cluster_of.extend(shop::backends(shell.kube, cluster)?.into_iter().map(|pod| (pod, cluster)));
    }
    let mut counts = BTreeMap::new();
    for line in answered.lines() {
        let unknown = || format!("{host}: {line:?} answered, which is no backend");
        let (number, pod) = line.trim().split_once(' ').with_context(unknown)?;
        let cluster = cluster_of.get(pod).with_context(unknown)?;
        *counts.entry((*cluster).to_owned()).or_default() += number.parse::<u32>().with_context(unknown)?;
    }
    let total: u32 = counts.values().sum();
    ensure!(total == CONNECTIONS, "{host}: {total} of {CONNECTIONS} connections were answered");
    Ok(counts)
}

/// Counts as people read them.
pub(crate) fn said(counts: &BTreeMap<String, u32>) -> String {
    let parts = counts.iter().map(|(cluster, count)| format!("{count} answered by {cluster}"));
    parts.collect::<Vec<_>>().join(", ")
}
