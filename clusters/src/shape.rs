//! What the clusters are like, and who has which address. All addresses exist only in namespaces of our own.
//!
//! | what | IPv4 | IPv6 |
//! | --- | --- | --- |
//! | router, control plane, node n of cluster c | 172.30.c.1, .2, .(10+n) | fd00:30:c::1, ::2, ::(10+n) |
//! | pods of node n | 10.(10+c).n.0/24 | fd00:10:c:n::/64 |
//! | Services | 10.(110+c).0.0/16 | fd00:110:c::/112 |

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// At most so many clusters with nodes.
pub const MAX_CLUSTERS: u8 = 8;
/// At most so many nodes in a cluster.
pub const MAX_NODES: u8 = 16;
/// The name of the API server without nodes.
pub const BROKER: &str = "broker";
/// The number that stands in the broker's addresses.
const BROKER_NUMBER: u8 = 9;

/// How a node's pods reach Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proxy {
    /// kube-proxy in its mode `nftables`.
    Nftables,
    /// kube-proxy in its mode `iptables`.
    Iptables,
    /// No kube-proxy: nobody serves ClusterIPs, the API server's among them.
    None,
}

/// How a node's pods are attached to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cni {
    /// The plugin `ptp`: a routed veth pair for each pod.
    Ptp,
    /// The plugin `bridge`: the node's pods on one bridge.
    Bridge,
}

/// What to bring up. Where lists are shorter than the clusters are many, their last element serves the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Clusters, called c0, c1, …: 1 to [`MAX_CLUSTERS`].
    pub clusters: u8,
    /// Nodes of each, called c0n0, c0n1, …: 1 to [`MAX_NODES`].
    pub nodes: u8,
    /// The kube-proxy of each cluster.
    pub proxies: Vec<Proxy>,
    /// The pod network of each cluster.
    pub cnis: Vec<Cni>,
    /// Whether there is a control plane without nodes, called [`BROKER`].
    pub broker: bool,
}

impl Default for Shape {
    fn default() -> Self {
        let (proxies, cnis) = (vec![Proxy::Nftables, Proxy::Iptables], vec![Cni::Ptp, Cni::Bridge]);
        Self { clusters: 2, nodes: 2, proxies, cnis, broker: false }
    }
}

impl Shape {
    /// Its clusters in order, the broker last.
    ///
    /// # Errors
    /// If there are more than the addresses can number, or none.
    pub fn clusters(&self) -> Result<Vec<Cluster>> {
        ensure!((1..=MAX_CLUSTERS).contains(&self.clusters), "clusters: {}: 1 to {MAX_CLUSTERS}", self.clusters);
        ensure!((1..=MAX_NODES).contains(&self.nodes), "nodes: {}: 1 to {MAX_NODES}", self.nodes);
        let (mut all, mut proxies, mut cnis) = (Vec::new(), self.proxies.iter(), self.cnis.iter());
        let (mut proxy, mut cni) = (Proxy::Nftables, Cni::Ptp);
        for number in 0..self.clusters {
            proxy = proxies.next().copied().unwrap_or(proxy);
            cni = cnis.next().copied().unwrap_or(cni);
            all.push(Cluster { name: format!("c{number}"), number, nodes: self.nodes, proxy, cni });
        }
        if self.broker {
            let (name, number) = (BROKER.to_owned(), BROKER_NUMBER);
            all.push(Cluster { name, number, nodes: 0, proxy: Proxy::None, cni: Cni::Ptp });
        }
        Ok(all)
    }
}

/// One cluster of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `c0`, `c1`, … or [`BROKER`].
    pub name: String,
    /// What stands for it in addresses.
    pub number: u8,
    /// How many nodes it has; the broker has none.
    pub nodes: u8,
    /// What serves ClusterIPs on its nodes.
    pub proxy: Proxy,
    /// What attaches its pods.
    pub cni: Cni,
}

impl Cluster {
    /// Its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        (0..self.nodes).map(|number| Node { name: format!("c{}n{number}", self.number), cluster: self.number, number })
    }

    /// The router's address on the nodes' network.
    #[must_use]
    pub fn gateway(&self) -> (Ipv4Addr, Ipv6Addr) {
        gateway(self.number)
    }

    /// The control plane's address, where its API server listens on port 6443.
    #[must_use]
    pub fn control_plane(&self) -> (Ipv4Addr, Ipv6Addr) {
        host(self.number, 2)
    }

    /// The addresses of all its pods.
    #[must_use]
    pub fn pod_cidrs(&self) -> (String, String) {
        (format!("10.{}.0.0/16", 10 + self.number), format!("fd00:10:{}::/48", self.number))
    }

    /// The addresses of its Services.
    #[must_use]
    pub fn service_cidrs(&self) -> (String, String) {
        (format!("10.{}.0.0/16", 110 + self.number), format!("fd00:110:{}::/112", self.number))
    }

    /// The Service `kubernetes`.
    #[must_use]
    pub fn service_of_api(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 110 + self.number, 0, 1)
    }

    /// The Service `kube-dns`.
    #[must_use]
    pub fn service_of_dns(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 110 + self.number, 0, 10)
    }

    /// Where pods ask for names: without kube-proxy there is nobody behind a ClusterIP, so CoreDNS is on the first node.
    #[must_use]
    pub fn dns(&self) -> Ipv4Addr {
        match self.proxy {
            Proxy::Nftables | Proxy::Iptables => self.service_of_dns(),
            Proxy::None => host(self.number, 10).0,
        }
    }
}

/// One node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `c0n1`: node 1 of cluster 0.
    pub name: String,
    /// The number of its cluster.
    pub cluster: u8,
    /// Its number in its cluster.
    pub number: u8,
}

impl Node {
    /// Its addresses.
    #[must_use]
    pub fn addresses(&self) -> (Ipv4Addr, Ipv6Addr) {
        host(self.cluster, 10 + self.number)
    }

    /// The addresses of its pods.
    #[must_use]
    pub fn pod_cidrs(&self) -> (String, String) {
        let Self { cluster, number, .. } = self;
        (format!("10.{}.{number}.0/24", 10 + cluster), format!("fd00:10:{cluster}:{number}::/64"))
    }

    /// Its failure domain: each node of a cluster is in a zone of its own, and node 0 of all clusters in the same.
    #[must_use]
    pub fn zone(&self) -> String {
        format!("zone-{}", self.number)
    }
}

/// The router's address on the nodes' network of a cluster.
pub(crate) fn gateway(cluster: u8) -> (Ipv4Addr, Ipv6Addr) {
    host(cluster, 1)
}

fn host(cluster: u8, host: u8) -> (Ipv4Addr, Ipv6Addr) {
    // A decimal number where hexadecimal digits stand: that both families look alike is worth more.
    let group = |number: u8| u16::from(number / 10) * 16 + u16::from(number % 10);
    (Ipv4Addr::new(172, 30, cluster, host), Ipv6Addr::new(0xfd00, 0x30, group(cluster), 0, 0, 0, 0, group(host)))
}

macro_rules! words {
    ($kind:ident, $($variant:ident = $word:literal),+) => {
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }

        impl FromStr for $kind {
            type Err = anyhow::Error;

            fn from_str(word: &str) -> Result<Self> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => bail!("{word}: not one of {}", [$($word),+].join(", ")),
                }
            }
        }
    };
}
words!(Proxy, Nftables = "nftables", Iptables = "iptables", None = "none");
words!(Cni, Ptp = "ptp", Bridge = "bridge");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_serves_the_clusters_that_have_none_of_their_own() {
        let shape =
            Shape { clusters: 3, proxies: vec![Proxy::None, Proxy::Iptables], broker: true, ..Shape::default() };
        let clusters = shape.clusters().unwrap();
        let proxies: Vec<Proxy> = clusters.iter().map(|cluster| cluster.proxy).collect();
        assert_eq!(proxies, [Proxy::None, Proxy::Iptables, Proxy::Iptables, Proxy::None]);
        assert_eq!(clusters.iter().map(|cluster| cluster.nodes).collect::<Vec<u8>>(), [2, 2, 2, 0]);
        assert_eq!(clusters[3].name, BROKER);
        assert!(Shape { clusters: 0, ..Shape::default() }.clusters().is_err());
        assert!(Shape { nodes: MAX_NODES + 1, ..Shape::default() }.clusters().is_err());
    }

    #[test]
    fn both_families_look_alike() {
        let shape = Shape { nodes: 12, ..Shape::default() };
        let cluster = &shape.clusters().unwrap()[1];
        let node = cluster.nodes().nth(11).unwrap();
        assert_eq!(node.name, "c1n11");
        assert_eq!(node.addresses(), ("172.30.1.21".parse().unwrap(), "fd00:30:1::21".parse().unwrap()));
        assert_eq!(node.pod_cidrs(), ("10.11.11.0/24".to_owned(), "fd00:10:1:11::/64".to_owned()));
        assert_eq!(cluster.dns().to_string(), "10.111.0.10");
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for proxy in [Proxy::Nftables, Proxy::Iptables, Proxy::None] {
            assert_eq!(proxy.to_string().parse::<Proxy>().unwrap(), proxy);
        }
        assert!("ipvs".parse::<Proxy>().unwrap_err().to_string().contains("nftables, iptables, none"));
        assert_eq!("bridge".parse::<Cni>().unwrap(), Cni::Bridge);
    }
}
