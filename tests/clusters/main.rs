//! The real clusters themselves (package `mcs-clusters`): pods run, reach each other in both families and by name, and the
//! faults are what they say. What mcs does on them is the tier e2e's.

use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mcs_clusters::{Part, Shape, images};
use mcs_tests::clusters::RealClusters;
use mcs_tests::require_clusters;

const NAMESPACE: &str = "clusters-test";
/// What is waited for is an event at the other end of several watches, on a machine with much to do.
const LIMIT: Duration = Duration::from_secs(120);

/// The clusters with a server and a client pod in each; their namespace goes with this.
struct World {
    clusters: RealClusters,
}

impl World {
    fn build() -> Result<Self> {
        let world = Self { clusters: RealClusters::take(&Shape::default())? };
        for cluster in ["c0", "c1"] {
            world.kubectl(cluster, &["delete", "namespace", NAMESPACE, "--ignore-not-found"])?;
            world.kubectl(cluster, &["create", "namespace", NAMESPACE])?;
            let server = format!("--image={}", images::AGNHOST);
            world.kubectl(cluster, &["run", "server", &server, "--", "netexec", "--http-port=8080"])?;
            world.kubectl(cluster, &["expose", "pod", "server", "--port=80", "--target-port=8080"])?;
            let client = format!("--image={}", images::TOOLS);
            world.kubectl(cluster, &["run", "client", &client, "--", "sleep", "1000000"])?;
        }
        for cluster in ["c0", "c1"] {
            world.kubectl(cluster, &["wait", "--for=condition=Ready", "pod/server", "pod/client", "--timeout=90s"])?;
        }
        Ok(world)
    }

    fn kubectl(&self, cluster: &str, arguments: &[&str]) -> Result<String> {
        said(self.clusters.kubectl(cluster).args(["--namespace", NAMESPACE]).args(arguments))
    }

    fn server(&self, cluster: &str) -> Result<Vec<IpAddr>> {
        let addresses = self.kubectl(cluster, &["get", "pod", "server", "-o", "jsonpath={.status.podIPs[*].ip}"])?;
        addresses.split_whitespace().map(|address| address.parse().context("a pod's address")).collect()
    }

    /// Who answers the client of a cluster at a URL.
    fn ask(&self, cluster: &str, url: &str) -> Result<String> {
        self.kubectl(cluster, &["exec", "client", "--", "curl", "-sS", "--globoff", "--max-time", "3", url])
    }

    fn ready(&self, cluster: &str, node: &str) -> Result<String> {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        self.kubectl(cluster, &["get", "node", node, "-o", path])
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for cluster in ["c0", "c1"] {
            let deleted =
                self.kubectl(cluster, &["delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false"]);
            if let Err(error) = deleted {
                eprintln!("{cluster}: {error:#}");
            }
        }
    }
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {}", command.get_program().display()))?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?}: {}: {}", command.get_args(), output.status, why.trim());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn until(what: &str, wanted: impl Fn() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        match wanted() {
            Ok(true) => return Ok(()),
            last if Instant::now() > end => bail!("{what}: not in {LIMIT:?}: {last:?}"),
            Ok(false) | Err(_) => thread::sleep(Duration::from_millis(300)),
        }
    }
}

#[test]
fn pods_reach_each_other_until_the_path_is_cut_or_their_node_is_lost() -> Result<()> {
    require_clusters!(Ok(()));
    let world = World::build()?;
    let servers = world.server("c1")?;
    assert!(servers.iter().any(IpAddr::is_ipv4) && servers.iter().any(IpAddr::is_ipv6), "{servers:?}");
    let urls: Vec<String> = servers
        .iter()
        .map(|address| match address {
            IpAddr::V4(address) => format!("http://{address}:8080/hostname"),
            IpAddr::V6(address) => format!("http://[{address}]:8080/hostname"),
        })
        .collect();
    for url in &urls {
        assert_eq!(world.ask("c0", url).context("a pod of the other cluster")?, "server");
    }
    for cluster in ["c0", "c1"] {
        let by_name = world.ask(cluster, &format!("http://server.{NAMESPACE}.svc.cluster.local/hostname"));
        assert_eq!(by_name.context("a Service by its name, through kube-proxy")?, "server");
    }

    world.clusters.cut("c0", "c1")?;
    assert_eq!(world.clusters.cuts()?, [("c0".to_owned(), "c1".to_owned())]);
    for url in &urls {
        assert!(world.ask("c0", url).is_err(), "{url} answers although the path is cut");
    }
    assert_eq!(world.ask("c1", &urls[0])?, "server", "in its own cluster it answers");
    world.clusters.restore("c1", "c0")?;
    assert_eq!(world.ask("c0", &urls[0])?, "server");

    let node = world.kubectl("c1", &["get", "pod", "server", "-o", "jsonpath={.spec.nodeName}"])?;
    world.clusters.kill(&Part::Node(node.clone()))?;
    assert!(world.ask("c0", &urls[0]).is_err(), "its node is lost, and it answers");
    until("the lost node is not Ready", || Ok(world.ready("c1", &node)? != "True"))?;
    assert!(!world.clusters.status()?.healthy);
    world.clusters.restart(&Part::Node(node.clone()), &|_| ())?;
    assert_eq!(world.ready("c1", &node)?, "True");
    until("the pod answers again, perhaps at another address", || {
        let Some(IpAddr::V4(address)) = world.server("c1")?.first().copied() else { return Ok(false) };
        Ok(world.ask("c0", &format!("http://{address}:8080/hostname"))? == "server")
    })?;

    world.clusters.kill(&Part::ApiServer("c0".to_owned()))?;
    assert!(world.ready("c0", "c0n0").is_err(), "a dead API server answers");
    world.clusters.restart(&Part::ApiServer("c0".to_owned()), &|_| ())?;
    assert_eq!(world.ready("c0", "c0n0")?, "True");
    assert!(world.clusters.status()?.healthy);
    Ok(())
}
