//! What a fleet shall be like.

use std::sync::Once;

use anyhow::{Result, ensure};

use crate::addresses::{MAX_CLUSTERS, MAX_NODES, MAX_PODS};
use crate::fleet::Fleet;

/// How many of what. [`Fleet::builder`] starts with one cluster of one node with one pod.
#[derive(Clone, Debug)]
pub struct Builder {
    pub(crate) clusters: u8,
    pub(crate) nodes: u8,
    pub(crate) pods: u8,
    pub(crate) further_addresses: bool,
    pub(crate) default_route: bool,
}

impl Builder {
    /// How many clusters: `a`, `b`, ….
    #[must_use]
    pub fn clusters(mut self, clusters: u8) -> Self {
        self.clusters = clusters;
        self
    }

    /// How many nodes each cluster has: `a1`, `a2`, ….
    #[must_use]
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// How many pods each node has: `a1p1`, `a1p2`, …. More can come with [`Fleet::add_pod`].
    #[must_use]
    pub fn pods(mut self, pods: u8) -> Self {
        self.pods = pods;
        self
    }

    /// Gives each pod 256 more addresses of each family ([`Pod::further_ip`](crate::Pod::further_ip)), so that few pods are many backends.
    #[must_use]
    pub fn further_addresses(mut self) -> Self {
        self.further_addresses = true;
        self
    }

    /// Gives pods a default route to their node, as a CNI does, for tests about packets that leave a pod untranslated.
    /// The node has no route for them: they never leave the fleet.
    #[must_use]
    pub fn pods_with_default_route(mut self) -> Self {
        self.default_route = true;
        self
    }

    /// Builds it. Fleets of dead processes are removed first.
    pub fn build(self) -> Result<Fleet> {
        let Self { clusters, nodes, pods, further_addresses: _, default_route: _ } = self;
        ensure!((1..=MAX_CLUSTERS).contains(&clusters), "fleet: clusters: {clusters} is not in 1..={MAX_CLUSTERS}");
        ensure!((1..=MAX_NODES).contains(&nodes), "fleet: nodes: {nodes} is not in 1..={MAX_NODES}");
        ensure!(pods <= MAX_PODS, "fleet: pods: {pods} is more than {MAX_PODS}");
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| {
            if let Err(error) = Fleet::sweep() {
                eprintln!("sweep: {error:#}");
            }
        });
        Fleet::stand(self)
    }
}
