//! Pod to pod over the fleet: clients in cluster `a`, servers in one pod of cluster `b`, and two imports.
//!
//! ```text
//!  a1p1   ClusterSetIP, by mcs          (and direct)
//!  a2p1   ClusterIP, by kube-proxy's iptables rules on a2     ──► b1p1   iperf3, and a server of requests
//!  a3p1   ClusterIP, by kube-proxy's nftables rules on a3
//! ```
//! `iperf` has one endpoint, as iperf3's control connection and its data must reach one server; `rate` has three, which
//! are further addresses of that same pod.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;
use mcs_tests::addresses::clusterset_ip;
use mcs_tests::agent::{Agent, AgentOptions};
use mcs_tests::identity::Protocol;
use mcs_tests::manifest::{self, Endpoint, EndpointSlice, ServiceImport};
use mcs_tests::{Family, Fleet, Pod};
use serde_json::Value;

/// Where iperf3 listens, on both sides of the translation.
pub(crate) const IPERF_PORT: u16 = 5201;
/// Where the server of requests listens.
pub(crate) const RATE_PORT: u16 = 7000;

const IPERF_VIP: u16 = 60_001;
const RATE_VIP: u16 = 60_002;

/// The fleet with an agent on a1.
pub(crate) struct Network {
    pub(crate) agent: Agent,
    source: PathBuf,
    pub(crate) fleet: Fleet,
}

impl Network {
    pub(crate) fn build(nodes: u8) -> Result<Self> {
        let fleet =
            Fleet::builder().clusters(2).nodes(nodes).pods(1).further_addresses().pods_with_default_route().build()?;
        let source = fleet.dir("manifests")?;
        let server = fleet.pod("b1p1");
        let mut objects = Vec::new();
        objects.extend(service("iperf", IPERF_VIP, IPERF_PORT, |family| vec![server.ip(family)]));
        objects.extend(service("rate", RATE_VIP, RATE_PORT, |family| rate_addresses(server, family)));
        manifest::write(&source, "measured", &objects)?;
        let agent = Agent::start_ready(&fleet, fleet.node("a1"), AgentOptions::new(&fleet, fleet.node("a1"), &source))?;
        Ok(Self { agent, source, fleet })
    }

    /// Where clients are, by the node that translates for them.
    pub(crate) fn client(&self, node: &str) -> &Pod {
        self.fleet.pod(&format!("{node}p1"))
    }

    /// The pod with all servers.
    pub(crate) fn server(&self) -> &Pod {
        self.fleet.pod("b1p1")
    }

    /// Gives the agent more services, and waits until they are in the kernel.
    pub(crate) fn add_manifest(&self, name: &str, text: &str) -> Result<()> {
        manifest::write_text(&self.source, name, text)?;
        self.agent.wait_ready()
    }

    /// The addresses of the three endpoints of `rate`.
    pub(crate) fn rate_endpoints(&self, family: Family) -> Vec<IpAddr> {
        rate_addresses(self.server(), family)
    }
}

/// The ClusterSetIP and port of `iperf`.
pub(crate) fn iperf_vip(family: Family) -> SocketAddr {
    (clusterset_ip(family, IPERF_VIP), IPERF_PORT).into()
}

/// The ClusterSetIP and port of `rate`.
pub(crate) fn rate_vip(family: Family) -> SocketAddr {
    (clusterset_ip(family, RATE_VIP), RATE_PORT).into()
}

fn rate_addresses(server: &Pod, family: Family) -> Vec<IpAddr> {
    (1..=3).map(|number| server.further_ip(family, number)).collect()
}

/// An import of both protocols and families with one slice for each family, from cluster b.
fn service(name: &str, vip: u16, port: u16, addresses: impl Fn(Family) -> Vec<IpAddr>) -> Vec<Value> {
    let mut import = ServiceImport::new(name);
    let mut objects = Vec::new();
    for protocol in Protocol::BOTH {
        import = import.port(&protocol.as_str().to_lowercase(), protocol, port);
    }
    for family in Family::BOTH {
        import = import.ip(clusterset_ip(family, vip));
        let mut slice =
            EndpointSlice::new(name, "b", family).endpoints(addresses(family).into_iter().map(Endpoint::new));
        for protocol in Protocol::BOTH {
            slice = slice.port(&protocol.as_str().to_lowercase(), protocol, port);
        }
        objects.push(slice.into());
    }
    objects.push(import.into());
    objects
}
