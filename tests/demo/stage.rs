//! Where it all happens: two clusters, their servers and agents, and the manifests that the agents read.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mcs_tests::agent::{Agent, AgentOptions, mcs_binary};
use mcs_tests::child::{Child, find_program};
use mcs_tests::identity::{Protocol, Server};
use mcs_tests::manifest::{self, Endpoint, EndpointSlice, ServiceImport};
use mcs_tests::{Family, Fleet, Pod, addresses};
use serde_json::Value;

use crate::ending;
use crate::iperf;
use crate::screen::Screen;

/// How many headings there are.
pub(crate) const STEPS: usize = 6;
/// The service whose backends say who they are: on all four nodes.
pub(crate) const WEB: &str = "web";
/// The service of the iperf3 servers: one pod in each cluster.
pub(crate) const IPERF: &str = "iperf";
const NAMESPACE: &str = "demo";

/// The port of [`WEB`] at its ClusterSetIP, and that of its pods.
const WEB_PORT: u16 = 80;
const WEB_TARGET: u16 = 8080;
/// Where iperf3 runs, the first also being the one that gets all tests.
const IPERF_PODS: [&str; 2] = ["b1p1", "a2p1"];
/// How many lines of each agent's log are printed after a failure.
const LOG_LINES: usize = 10;

/// A fleet with all that runs in it. It goes when this does.
pub(crate) struct Stage {
    pub(crate) fleet: Fleet,
    /// The pod that everything is seen from; on node a1.
    pub(crate) client: Pod,
    /// One for each node, a1 first.
    agents: Vec<Agent>,
    source: PathBuf,
    mcs: PathBuf,
    _servers: Vec<Server>,
    _iperf: Vec<Child>,
}

impl Stage {
    /// Builds it all; the directory of manifests is still empty.
    pub(crate) fn build(screen: &mut Screen) -> Result<Self> {
        screen.step(
            "Two clusters of two nodes",
            &[
                "A node or pod is a network namespace and a cgroup; their addresses are",
                "routed between the clusters. Each node runs `mcs agent`.",
            ],
        )?;
        let mcs = own_mcs()?;
        let start = Instant::now();
        let mut fleet = Fleet::builder().clusters(2).nodes(2).pods(1).build()?;
        let servers = Server::start_in(fleet.pods(), WEB_TARGET)?;
        let iperf = if find_program("iperf3").is_some() {
            IPERF_PODS.iter().map(|pod| iperf::serve(fleet.pod(pod))).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        let client = fleet.add_pod("a1")?;
        for node in fleet.nodes() {
            let [v4, v6] = Family::BOTH.map(|family| node.ip(family));
            screen.line(&format!("  node {} of cluster {}   {v4}   {v6}", node.name(), node.cluster()))?;
            for pod in node.pods() {
                let [v4, v6] = Family::BOTH.map(|family| pod.ip(family).to_string());
                screen.line(&format!("    pod {}   {v4:<10}   {v6:<15}   {}", pod.name(), role(pod, &client)))?;
            }
        }
        screen.line(&format!("  standing after {} ms", start.elapsed().as_millis()))?;

        let source = fleet.dir("manifests")?;
        let start = Instant::now();
        let start_agent = |node| {
            let options = AgentOptions { binary: Some(mcs.clone()), ..AgentOptions::new(&fleet, node, &source) };
            Agent::start(&fleet, node, options)
        };
        let mut agents = Vec::new();
        for node in fleet.nodes() {
            agents.push(ending::unless_interrupted(start_agent(node))?);
        }
        let stage = Self { fleet, client, agents, source, mcs, _servers: servers, _iperf: iperf };
        ending::unless_interrupted(stage.wait_ready())?;
        let time = start.elapsed().as_millis();
        screen.check(true, &format!("4 agents run: `mcs status --wait` said ready on each after {time} ms"))?;
        Ok(stage)
    }

    /// Writes the manifests, and shows what the agents made of them.
    pub(crate) fn publish(&mut self, screen: &mut Screen) -> Result<()> {
        screen.step(
            "Services that span both clusters",
            &[
                "ServiceImports and each cluster's EndpointSlices, renamed into the folder",
                "the agents watch (--source dir:). In Kubernetes the API server has them.",
            ],
        )?;
        let a_and_b = self.pod_names(&["a", "b"]).join(" ");
        screen.line(&format!("  {NAMESPACE}/{WEB}     servers that say who they are: {a_and_b}"))?;
        screen.line(&format!("  {NAMESPACE}/{IPERF}   iperf3 servers, TCP and UDP: {}", IPERF_PODS.join(" ")))?;
        screen.line("               An iperf3 test is a control and a data connection that must meet")?;
        screen.line("               one server, so its cluster-weights send all to b and none to a.")?;
        manifest::write(&self.source, IPERF, &self.iperf_manifest())?;
        let time = self.publish_web(&["a", "b"])?;
        screen.check(true, &format!("in the kernel of all 4 nodes {} ms after the rename", time.as_millis()))?;
        screen.line("")?;
        self.print_services(screen)
    }

    /// `mcs services` on the client's node.
    pub(crate) fn print_services(&self, screen: &Screen) -> Result<()> {
        screen.command("mcs services     # on node a1")?;
        let output = self.agent().mcs(&["services"])?;
        screen.lines(&String::from_utf8_lossy(&output.stdout))
    }

    /// Replaces the manifest of [`WEB`] by one with these clusters' endpoints, and waits until all agents have it in
    /// the kernel. Returns how long that took.
    pub(crate) fn publish_web(&self, clusters: &[&str]) -> Result<Duration> {
        let start = Instant::now();
        manifest::write(&self.source, WEB, &self.web_manifest(clusters))?;
        self.wait_ready()?;
        Ok(start.elapsed())
    }

    fn wait_ready(&self) -> Result<()> {
        self.agents.iter().try_for_each(Agent::wait_ready)
    }

    /// The agent on the client's node.
    pub(crate) fn agent(&self) -> &Agent {
        &self.agents[0]
    }

    /// The pods that serve [`WEB`] in these clusters.
    pub(crate) fn pod_names(&self, clusters: &[&str]) -> Vec<&str> {
        let pods = self.fleet.pods().filter(|pod| pod.name() != self.client.name());
        pods.filter(|pod| clusters.contains(&pod.cluster())).map(|pod| pod.name()).collect()
    }

    /// The ClusterSetIP and port of [`WEB`].
    pub(crate) fn web(&self, family: Family) -> SocketAddr {
        SocketAddr::new(addresses::clusterset_ip(family, 1), WEB_PORT)
    }

    /// The ClusterSetIP of [`IPERF`], and the one pod behind it that its weights choose.
    pub(crate) fn iperf(&self, family: Family) -> (IpAddr, &Pod) {
        (addresses::clusterset_ip(family, 2), self.fleet.pod(IPERF_PODS[0]))
    }

    /// Whether iperf3 is installed.
    pub(crate) fn has_iperf(&self) -> bool {
        !self._iperf.is_empty()
    }

    fn web_manifest(&self, clusters: &[&str]) -> Vec<Value> {
        let import = ServiceImport::new(WEB).port("http", Protocol::Tcp, WEB_PORT);
        let pods: Vec<&Pod> = self.pod_names(clusters).into_iter().map(|name| self.fleet.pod(name)).collect();
        objects(import, 1, &pods, |slice| slice.port("http", Protocol::Tcp, WEB_TARGET))
    }

    fn iperf_manifest(&self) -> Vec<Value> {
        let both = Protocol::BOTH.map(|protocol| (protocol.as_str().to_lowercase(), protocol));
        let import = ServiceImport::new(IPERF).annotation("mcs.internal/cluster-weights", r#"{"a":0,"b":100}"#);
        let import = both.iter().fold(import, |import, (name, protocol)| import.port(name, *protocol, iperf::PORT));
        let pods = IPERF_PODS.map(|name| self.fleet.pod(name));
        objects(import, 2, &pods, |slice| {
            both.iter().fold(slice, |slice, (name, protocol)| slice.port(name, *protocol, iperf::PORT))
        })
    }

    /// What the agents said last, for whom something did not work.
    pub(crate) fn print_logs(&self) {
        for agent in &self.agents {
            let text = agent.log_text();
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- agent on {}\n{}", agent.options().node, tail.join("\n"));
        }
    }

    /// Says how to look around, and waits for Enter.
    pub(crate) fn keep(&self, screen: &mut Screen) -> Result<()> {
        let pins = self.agent().options().pin_dir.display();
        let mcs = self.mcs.display();
        screen.line("\nEverything stays until you press Enter. From another terminal, as root:\n")?;
        screen.line("  # what is in the kernel of node a1")?;
        screen.line(&format!("  {mcs} services --pin-dir {pins}"))?;
        screen.line(&format!("  {mcs} dump --pin-dir {pins}"))?;
        screen.line("  # a shell in the client's pod: in its cgroup, as that is where programs sit,")?;
        screen.line("  # and in its network namespace")?;
        let (cgroup, netns) = (self.client.cgroup().display(), self.client.netns().path());
        let netns = netns.display();
        screen.line(&format!("  sh -c 'echo 0 > {cgroup}/cgroup.procs &&\n    exec nsenter --net={netns} bash'"))?;
        screen.line("  # there")?;
        for family in Family::BOTH {
            screen.line(&format!("  timeout 1 bash -c 'cat < /dev/tcp/{}/{WEB_PORT}'", self.web(family).ip()))?;
        }
        screen.line(&format!("  iperf3 -c {}", self.iperf(Family::V4).0))?;
        screen.line("  # manifests: what you rename into here is programmed at once")?;
        screen.line(&format!("  ls {}", self.source.display()))?;
        // An end of file is as good as Enter: in a pipe nobody can press it.
        std::io::stdin().read_line(&mut String::new()).context("wait for Enter")?;
        Ok(())
    }
}

/// The `mcs` that was built with this program; else what the harness finds.
pub(crate) fn own_mcs() -> Result<PathBuf> {
    let beside = std::env::current_exe().context("find own program")?.with_file_name("mcs");
    if std::env::var_os("MCS_BIN").is_none() && beside.is_file() { Ok(beside) } else { mcs_binary() }
}

fn role(pod: &Pod, client: &Pod) -> &'static str {
    match pod.name() {
        name if name == client.name() => "client",
        name if IPERF_PODS.contains(&name) => "web, iperf3",
        _ => "web",
    }
}

/// An import with the ClusterSetIPs of a number, and one slice for each cluster of the pods and each family.
fn objects(
    mut import: ServiceImport,
    number: u16,
    pods: &[&Pod],
    ports: impl Fn(EndpointSlice) -> EndpointSlice,
) -> Vec<Value> {
    let namespace = "/metadata/namespace";
    let mut clusters: Vec<&str> = pods.iter().map(|pod| pod.cluster()).collect();
    clusters.sort_unstable();
    clusters.dedup();
    let import_name = Value::from(import.clone())["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut objects = Vec::new();
    for family in Family::BOTH {
        import = import.ip(addresses::clusterset_ip(family, number));
        for cluster in &clusters {
            let endpoints = pods.iter().filter(|pod| pod.cluster() == *cluster).map(|pod| Endpoint::pod(pod, family));
            let slice = EndpointSlice::new(&import_name, cluster, family).field(namespace, NAMESPACE);
            objects.push(ports(slice.endpoints(endpoints)).into());
        }
    }
    objects.push(import.field(namespace, NAMESPACE).into());
    objects
}
