//! Nodes and pods: places that know their addresses.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;

use crate::addresses::{self, Family, Prefix};
use crate::place::Place;
use crate::topology::{self, NodeSpot, PodSpot};

/// A node: the place where its agent runs, above its pods.
#[derive(Clone, Debug)]
pub struct Node {
    place: Place,
    spot: NodeSpot,
    pods: Vec<Pod>,
}

impl Node {
    pub(crate) fn new(place: Place, spot: NodeSpot) -> Self {
        Self { place, spot, pods: Vec::new() }
    }

    pub(crate) fn spot(&self) -> NodeSpot {
        self.spot
    }

    pub(crate) fn put_pod(&mut self, pod: Pod) {
        self.pods.push(pod);
    }

    pub(crate) fn take_pod(&mut self, name: &str) -> Option<Pod> {
        let index = self.pods.iter().position(|pod| pod.name() == name)?;
        Some(self.pods.remove(index))
    }

    /// Its cluster's id: `a`.
    pub fn cluster(&self) -> String {
        topology::cluster_name(self.spot.cluster)
    }

    /// Its address.
    pub fn ip(&self, family: Family) -> IpAddr {
        self.spot.address(family)
    }

    /// Its pods' addresses.
    pub fn pod_cidr(&self, family: Family) -> Prefix {
        addresses::node_cidr(family, self.spot.cluster, self.spot.node)
    }

    /// Its pods.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }
}

impl Deref for Node {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

/// A pod.
#[derive(Clone, Debug)]
pub struct Pod {
    place: Place,
    spot: PodSpot,
    node: String,
    cluster: String,
}

impl Pod {
    pub(crate) fn new(place: Place, spot: PodSpot) -> Self {
        Self { place, spot, node: spot.node.name(), cluster: topology::cluster_name(spot.node.cluster) }
    }

    pub(crate) fn number(&self) -> u8 {
        self.spot.pod
    }

    /// Its node's name: `a1`.
    pub fn node_name(&self) -> &str {
        &self.node
    }

    /// Its cluster's id: `a`.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The name of the node's end of its link: where tc programs go.
    pub fn host_link(&self) -> String {
        self.spot.host_link()
    }

    /// Its address.
    pub fn ip(&self, family: Family) -> IpAddr {
        self.spot.address(family)
    }

    /// A port at its address.
    pub fn socket(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(family), port)
    }

    /// One of the 256 more addresses that [`Builder::further_addresses`](crate::shape::Builder::further_addresses) gives.
    ///
    /// # Panics
    /// Beyond a node's 15th pod, which has none.
    pub fn further_ip(&self, family: Family, number: u8) -> IpAddr {
        let prefix = self.spot.further(family);
        let prefix =
            prefix.unwrap_or_else(|| panic!("{} has no further addresses: only a node's first pods", self.name()));
        addresses::numbered(prefix, number)
    }
}

impl Deref for Pod {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}
