//! The address plan: who has which address, in one place and readable in a packet dump.
//!
//! ```text
//!                     IPv4                    IPv6                     example: a2p3 (cluster a = 1)
//! fabric              172.31.0.1              fd00:31::1
//! node n of cluster c 172.31.c.(10+n)         fd00:31:c::1n            a2   172.31.1.12   fd00:31:1::12
//! pod p of that node  10.(20+c).n.p           fd00:20:c:n::p           a2p3 10.21.2.3     fd00:20:1:2::3
//! its further ones    100.(64+c).(16(n-1)+p).i fd00:64:c:n:p::i        i = 0..=255
//! ClusterSetIPs       10.97.0.0/16            fd00:97::/112
//! ```
//! All numbers but i start at 1, and stand in decimal in IPv6 addresses too where they are below ten. Every fleet uses
//! the same addresses: fleets never meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and a prefix length.
pub type Prefix = (IpAddr, u8);

/// Clusters of a fleet: their pods share 10.16.0.0/12, which leaves the ClusterSet CIDR out.
pub const MAX_CLUSTERS: u8 = 11;
/// Nodes of a cluster, and first pods of a node that have further addresses.
pub const MAX_NODES: u8 = 15;
/// Pods of a node.
pub const MAX_PODS: u8 = 250;

/// One of the two families: most tests run once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, for loops.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// `IPv4` or `IPv6`, the value of an EndpointSlice's `addressType`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Any local address: what a server listens on.
    pub fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// The ClusterSet CIDR of a family.
pub fn clusterset(family: Family) -> Prefix {
    match family {
        Family::V4 => (Ipv4Addr::new(10, 97, 0, 0).into(), 16),
        Family::V6 => (Ipv6Addr::new(0xfd00, 0x97, 0, 0, 0, 0, 0, 0).into(), 112),
    }
}

/// The ClusterSet CIDRs of both families, as `--clusterset-cidr` takes them.
pub fn clusterset_cidrs() -> [String; 2] {
    Family::BOTH.map(|family| {
        let (address, length) = clusterset(family);
        format!("{address}/{length}")
    })
}

/// The ClusterSetIP with a number: 10.97.hi.lo or fd00:97::number.
pub fn clusterset_ip(family: Family, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(10, 97, high, low).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x97, 0, 0, 0, 0, 0, number).into(),
    }
}

/// The address of the router between the nodes.
pub(crate) fn fabric(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(172, 31, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// All nodes.
pub fn all_nodes(family: Family) -> Prefix {
    match family {
        Family::V4 => (Ipv4Addr::new(172, 31, 0, 0).into(), 16),
        Family::V6 => (Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, 0).into(), 32),
    }
}

/// All pods of all clusters.
pub fn all_pods(family: Family) -> Prefix {
    match family {
        Family::V4 => (Ipv4Addr::new(10, 16, 0, 0).into(), 12),
        Family::V6 => (Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0).into(), 32),
    }
}

/// All further addresses of all pods.
pub(crate) fn all_further(family: Family) -> Prefix {
    match family {
        Family::V4 => (Ipv4Addr::new(100, 64, 0, 0).into(), 10),
        Family::V6 => (Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 0).into(), 32),
    }
}

/// The pod CIDR of a whole cluster.
pub fn cluster_cidr(family: Family, cluster: u8) -> Prefix {
    match family {
        Family::V4 => (Ipv4Addr::new(10, 20 + cluster, 0, 0).into(), 16),
        Family::V6 => (Ipv6Addr::new(0xfd00, 0x20, cluster.into(), 0, 0, 0, 0, 0).into(), 48),
    }
}

/// A node's address.
pub fn node(family: Family, cluster: u8, node: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(172, 31, cluster, 10 + node).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x31, cluster.into(), 0, 0, 0, 0, 0x10 + u16::from(node)).into(),
    }
}

/// A node's pod CIDR.
pub fn node_cidr(family: Family, cluster: u8, node: u8) -> Prefix {
    match family {
        Family::V4 => (Ipv4Addr::new(10, 20 + cluster, node, 0).into(), 24),
        Family::V6 => (Ipv6Addr::new(0xfd00, 0x20, cluster.into(), node.into(), 0, 0, 0, 0).into(), 64),
    }
}

/// A pod's address.
pub fn pod(family: Family, cluster: u8, node: u8, pod: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 20 + cluster, node, pod).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x20, cluster.into(), node.into(), 0, 0, 0, pod.into()).into(),
    }
}

/// A pod's further addresses: 256 of each family, all of them local in the pod. `None` beyond a node's 15th pod.
pub(crate) fn further(family: Family, cluster: u8, node: u8, pod: u8) -> Option<Prefix> {
    if pod > MAX_NODES {
        return None;
    }
    Some(match family {
        Family::V4 => (Ipv4Addr::new(100, 64 + cluster, 16 * (node - 1) + pod, 0).into(), 24),
        Family::V6 => (Ipv6Addr::new(0xfd00, 0x64, cluster.into(), node.into(), pod.into(), 0, 0, 0).into(), 120),
    })
}

/// The address with a number within a prefix of further addresses.
pub(crate) fn numbered((address, _): Prefix, number: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() | u32::from(number)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() | u128::from(number)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_of_the_module_text() {
        assert_eq!(node(Family::V4, 1, 2).to_string(), "172.31.1.12");
        assert_eq!(node(Family::V6, 1, 2).to_string(), "fd00:31:1::12");
        assert_eq!(pod(Family::V4, 1, 2, 3).to_string(), "10.21.2.3");
        assert_eq!(pod(Family::V6, 1, 2, 3).to_string(), "fd00:20:1:2::3");
        assert_eq!(clusterset_ip(Family::V4, 258).to_string(), "10.97.1.2");
        assert_eq!(clusterset_cidrs(), ["10.97.0.0/16", "fd00:97::/112"]);
        assert_eq!(numbered(further(Family::V4, 2, 2, 3).unwrap(), 7).to_string(), "100.66.19.7");
        assert_eq!(numbered(further(Family::V6, 2, 2, 3).unwrap(), 7).to_string(), "fd00:64:2:2:3::7");
    }

    #[test]
    fn no_two_pods_share_further_addresses() {
        let mut seen = std::collections::BTreeSet::new();
        for cluster in 1..=MAX_CLUSTERS {
            for node in 1..=MAX_NODES {
                for pod in 1..=MAX_NODES {
                    for family in Family::BOTH {
                        assert!(seen.insert(further(family, cluster, node, pod)));
                    }
                }
            }
        }
    }
}
