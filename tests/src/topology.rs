//! The network between nodes and pods, as scripts for `ip -batch`: pure text, so that it can be read and tested.
//!
//! ```text
//!   a1p1 eth0 ──── p1 ┐                                       ┌ p1 ──── eth0 b1p1
//!                     a1 eth0 ──── a1 fabric b1 ──── eth0 b1
//!   a1p2 eth0 ──── p2 ┘             │ │                       └ p2 ──── eth0 b1p2
//!                                  a2 b2 …
//! ```
//! Everything is routed, as Calico and kindnet do it: point-to-point veths, host routes, a link-local gateway on the near
//! end. There is no bridge, because the kernels under emulation may have none, and none that leads out of the fabric.
//! Only addresses of the plan have routes: a packet to anywhere else, a ClusterSetIP for one, dies in the sender with
//! ENETUNREACH.
//!
//! The scripts build from the middle outwards: the fabric makes its links to the nodes, a node those to its pods.

use std::net::IpAddr;

use crate::addresses::{self, Family, Prefix};

/// What a pod's interface, and a node's towards the fabric, is called.
pub(crate) const UPLINK: &str = "eth0";

/// The gateway that a pod sees on its node, and a node on the fabric. They differ as a node has both.
const NODE_GATEWAY: [&str; 2] = ["169.254.1.1", "fe80::1"];
const FABRIC_GATEWAY: [&str; 2] = ["169.254.0.1", "fe80::ff"];

/// In every namespace. DAD would keep IPv6 addresses unusable for a second; the kernel copies IPv4's defaults from the
/// machine, where a strict reverse path filter may be set.
pub(crate) const SYSCTLS: [(&str, &str); 6] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
];

/// In namespaces that route.
pub(crate) const ROUTER_SYSCTLS: [(&str, &str); 2] = [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];

/// Where a node sits in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeSpot {
    pub(crate) cluster: u8,
    pub(crate) node: u8,
}

/// Where a pod sits in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodSpot {
    pub(crate) node: NodeSpot,
    pub(crate) pod: u8,
}

/// The letter of a cluster: its id.
pub(crate) fn cluster_name(cluster: u8) -> String {
    char::from(b'a' + cluster - 1).to_string()
}

impl NodeSpot {
    pub(crate) fn name(self) -> String {
        format!("{}{}", cluster_name(self.cluster), self.node)
    }

    pub(crate) fn address(self, family: Family) -> IpAddr {
        addresses::node(family, self.cluster, self.node)
    }
}

impl PodSpot {
    pub(crate) fn name(self) -> String {
        format!("{}p{}", self.node.name(), self.pod)
    }

    /// The node's end of the pod's link.
    pub(crate) fn host_link(self) -> String {
        format!("p{}", self.pod)
    }

    pub(crate) fn address(self, family: Family) -> IpAddr {
        addresses::pod(family, self.node.cluster, self.node.node, self.pod)
    }

    pub(crate) fn further(self, family: Family) -> Option<Prefix> {
        addresses::further(family, self.node.cluster, self.node.node, self.pod)
    }
}

/// Run in the fabric: its own address.
pub(crate) fn fabric() -> String {
    let mut script = "link set lo up\n".to_owned();
    for family in Family::BOTH {
        add_address(&mut script, addresses::fabric(family), "lo");
    }
    script
}

/// Run in the fabric: the link to a node, whose namespace is named, and the way to its pods.
pub(crate) fn fabric_to_node(spot: NodeSpot, netns: &str) -> String {
    let link = spot.name();
    let mut script = String::new();
    line(&mut script, format_args!("link add {link} type veth peer name {UPLINK} netns {netns}"));
    line(&mut script, format_args!("link set {link} up"));
    add_gateway(&mut script, FABRIC_GATEWAY, &link);
    for family in Family::BOTH {
        let (node, fabric) = (spot.address(family), addresses::fabric(family));
        line(&mut script, format_args!("route add {} dev {link} src {fabric}", host(node)));
        let (address, length) = addresses::node_cidr(family, spot.cluster, spot.node);
        let via = via(family, &node);
        line(&mut script, format_args!("route add {address}/{length} {via} dev {link} onlink"));
    }
    script
}

/// Run in the fabric, for a pod with further addresses.
pub(crate) fn fabric_to_further(spot: PodSpot) -> String {
    let mut script = String::new();
    for family in Family::BOTH {
        let Some((address, length)) = spot.further(family) else {
            continue;
        };
        let via = via(family, &spot.node.address(family));
        let link = spot.node.name();
        line(&mut script, format_args!("route add {address}/{length} {via} dev {link} onlink"));
    }
    script
}

/// Run in a node: its address and its routes. An unknown pod of its own CIDR is unreachable at once instead of a loop
/// through the fabric.
pub(crate) fn node(spot: NodeSpot) -> String {
    let mut script = format!("link set lo up\nlink set {UPLINK} up\n");
    for family in Family::BOTH {
        let address = spot.address(family);
        add_address(&mut script, address, UPLINK);
        add_routes(&mut script, family, FABRIC_GATEWAY, &format!(" src {address}"));
        let (own, length) = addresses::node_cidr(family, spot.cluster, spot.node);
        line(&mut script, format_args!("route add unreachable {own}/{length}"));
    }
    script
}

/// Run in a node: the link to a pod, whose namespace is named.
pub(crate) fn node_to_pod(spot: PodSpot, netns: &str, further: bool) -> String {
    let link = spot.host_link();
    let mut script = String::new();
    line(&mut script, format_args!("link add {link} type veth peer name {UPLINK} netns {netns}"));
    line(&mut script, format_args!("link set {link} up"));
    add_gateway(&mut script, NODE_GATEWAY, &link);
    for family in Family::BOTH {
        let (pod, node) = (spot.address(family), spot.node.address(family));
        line(&mut script, format_args!("route add {} dev {link} src {node}", host(pod)));
        if let Some((address, length)) = spot.further(family).filter(|_| further) {
            let via = via(family, &pod);
            line(&mut script, format_args!("route add {address}/{length} {via} dev {link} onlink src {node}"));
        }
    }
    script
}

/// Run in a pod. Its further addresses are one local route each, not 256 addresses: bound sockets may use them, and the
/// kernel never picks one as a source by itself.
pub(crate) fn pod(spot: PodSpot, further: bool, default_route: bool) -> String {
    let mut script = format!("link set lo up\nlink set {UPLINK} up\n");
    for family in Family::BOTH {
        let address = spot.address(family);
        add_address(&mut script, address, UPLINK);
        add_routes(&mut script, family, NODE_GATEWAY, "");
        if let Some((address, length)) = spot.further(family).filter(|_| further) {
            line(&mut script, format_args!("route add local {address}/{length} dev lo"));
        }
        if default_route {
            let everything = match family {
                Family::V4 => "0.0.0.0/0",
                Family::V6 => "::/0",
            };
            let via = via(family, &gateway(family, NODE_GATEWAY));
            line(&mut script, format_args!("route add {everything} {via} dev {UPLINK}"));
        }
    }
    script
}

/// The ways to all nodes and pods through a gateway.
fn add_routes(script: &mut String, family: Family, gateways: [&'static str; 2], source: &str) {
    let gateway = gateway(family, gateways);
    if family == Family::V4 {
        line(script, format_args!("route add {gateway}/32 dev {UPLINK} scope link"));
    }
    let via = via(family, &gateway);
    for (address, length) in [addresses::all_nodes(family), addresses::all_pods(family), addresses::all_further(family)]
    {
        line(script, format_args!("route add {address}/{length} {via} dev {UPLINK}{source}"));
    }
}

fn gateway(family: Family, [v4, v6]: [&'static str; 2]) -> &'static str {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

fn add_gateway(script: &mut String, [v4, v6]: [&str; 2], link: &str) {
    line(script, format_args!("address add {v4}/32 dev {link} scope link"));
    line(script, format_args!("address add {v6}/64 dev {link} nodad"));
}

fn add_address(script: &mut String, address: IpAddr, link: &str) {
    let nodad = if address.is_ipv6() { " nodad" } else { "" };
    line(script, format_args!("address add {} dev {link}{nodad}", host(address)));
}

fn host(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv6() { 128 } else { 32 })
}

fn via(family: Family, gateway: &dyn std::fmt::Display) -> String {
    match family {
        Family::V4 => format!("via {gateway}"),
        Family::V6 => format!("via inet6 {gateway}"),
    }
}

fn line(script: &mut String, text: std::fmt::Arguments<'_>) {
    *script += &format!("{text}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: PodSpot = PodSpot { node: NodeSpot { cluster: 2, node: 1 }, pod: 3 };

    #[test]
    fn pods_have_no_default_route_unless_asked() {
        assert!(!pod(POD, true, false).contains("/0 "));
        assert!(pod(POD, false, true).contains("route add 0.0.0.0/0 via 169.254.1.1 dev eth0"));
        assert!(pod(POD, false, true).contains("route add ::/0 via inet6 fe80::1 dev eth0"));
    }

    #[test]
    fn node_reaches_its_pod_directly_with_its_own_address() {
        let script = node_to_pod(POD, "ns", false);
        assert!(script.contains("route add 10.22.1.3/32 dev p3 src 172.31.2.11"), "{script}");
        assert!(script.contains("route add fd00:20:2:1::3/128 dev p3 src fd00:31:2::11"), "{script}");
    }
}
