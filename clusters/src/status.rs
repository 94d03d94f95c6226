//! What runs, as a value that people and programs can read.

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::control_plane::{PARTS, SCHEDULER, group_of};
use crate::group::Group;
use crate::kubectl::{Kubectl, NodeReport};
use crate::shape::{Cluster, Proxy};
use crate::up::Clusters;

/// The clusters and how they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether all runs and is ready, and nothing is cut.
    pub healthy: bool,
    /// For programs of this machine; contexts are the clusters' names.
    pub kubeconfig: PathBuf,
    /// For programs in the clusters' networks.
    pub kubeconfig_inside: PathBuf,
    /// In order, the broker last.
    pub clusters: Vec<ClusterStatus>,
    /// The pairs of clusters between which nothing is forwarded.
    pub cuts: Vec<(String, String)>,
}

/// One cluster and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Its name, and its context's.
    pub name: String,
    /// Its API server's address on this machine.
    pub server: String,
    /// Its API server's address in the clusters' networks.
    pub server_inside: String,
    /// Whether its API server says that it is ready.
    pub ready: bool,
    /// What serves ClusterIPs.
    pub proxy: Proxy,
    /// Programs of its control plane that should run and do not.
    pub stopped: Vec<String>,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
}

/// One node and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Whether any of its processes are there.
    pub running: bool,
    /// Whether its cluster says that it is Ready.
    pub ready: bool,
}

impl Clusters {
    /// Looks how they are.
    ///
    /// # Errors
    /// If the machine cannot be asked; an API server that does not answer is no error.
    pub fn status(&self) -> Result<Status> {
        let clusters: Vec<ClusterStatus> = self.clusters().iter().map(|c| self.of_cluster(c)).collect::<Result<_>>()?;
        let cuts = self.cuts()?;
        let healthy = cuts.is_empty() && clusters.iter().all(ClusterStatus::is_healthy);
        let (kubeconfig, kubeconfig_inside) = (self.kubeconfig(), self.kubeconfig_inside());
        Ok(Status { healthy, kubeconfig, kubeconfig_inside, clusters, cuts })
    }

    fn of_cluster(&self, cluster: &Cluster) -> Result<ClusterStatus> {
        let kubeconfig = crate::control_plane::directory(&self.directories, cluster).join("loopback.kubeconfig");
        let kubectl = Kubectl::new(self.directories.program("kubectl")?, kubeconfig);
        let ready = kubectl.ask(&["--request-timeout=5s", "get", "--raw", "/readyz"]).is_ok_and(|said| said == "ok");
        let reports: Vec<NodeReport> = if ready { kubectl.nodes()? } else { Vec::new() };
        let wanted = PARTS.into_iter().filter(|part| cluster.nodes > 0 || *part != SCHEDULER);
        let mut stopped = Vec::new();
        for part in wanted {
            if !Group::named(&group_of(cluster, part))?.is_alive() {
                stopped.push(part.to_owned());
            }
        }
        let mut nodes = Vec::new();
        for node in cluster.nodes() {
            let running = Group::named(&node.name)?.is_alive();
            let ready = reports.iter().any(|report| report.name == node.name && report.ready);
            nodes.push(NodeStatus { address: node.addresses().0.to_string(), name: node.name, running, ready });
        }
        Ok(ClusterStatus {
            name: cluster.name.clone(),
            server: format!("https://127.0.0.1:{}", self.port(cluster)),
            server_inside: format!("https://{}:6443", cluster.control_plane().0),
            ready,
            proxy: cluster.proxy,
            stopped,
            nodes,
        })
    }
}

impl ClusterStatus {
    fn is_healthy(&self) -> bool {
        self.ready && self.stopped.is_empty() && self.nodes.iter().all(|node| node.ready && node.running)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for cluster in &self.clusters {
            let state = if cluster.ready { "ready" } else { "NOT READY" };
            write!(f, "{:<8}{:<10}{} ({} inside)", cluster.name, state, cluster.server, cluster.server_inside)?;
            if !cluster.nodes.is_empty() {
                write!(f, ", kube-proxy {}", cluster.proxy)?;
            }
            if !cluster.stopped.is_empty() {
                write!(f, ", stopped: {}", cluster.stopped.join(", "))?;
            }
            writeln!(f)?;
            for node in &cluster.nodes {
                let state = match (node.running, node.ready) {
                    (true, true) => "Ready",
                    (true, false) => "NOT READY",
                    (false, _) => "STOPPED",
                };
                writeln!(f, "  {:<6}{:<10}{}", node.name, state, node.address)?;
            }
        }
        for (a, b) in &self.cuts {
            writeln!(f, "cut: {a} {b}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ready: bool, stopped: &[&str]) -> ClusterStatus {
        ClusterStatus {
            name: "c0".to_owned(),
            server: "https://127.0.0.1:1".to_owned(),
            server_inside: "https://172.30.0.2:6443".to_owned(),
            ready: true,
            proxy: Proxy::None,
            stopped: stopped.iter().map(|&part| part.to_owned()).collect(),
            nodes: vec![NodeStatus {
                name: "c0n0".to_owned(),
                address: "172.30.0.10".to_owned(),
                running: true,
                ready,
            }],
        }
    }

    #[test]
    fn what_is_wrong_is_shown() {
        assert!(status(true, &[]).is_healthy());
        assert!(!status(false, &[]).is_healthy() && !status(true, &["etcd"]).is_healthy());
        let shown = Status {
            healthy: false,
            kubeconfig: "k".into(),
            kubeconfig_inside: "i".into(),
            clusters: vec![status(false, &["etcd"])],
            cuts: vec![("c0".to_owned(), "c1".to_owned())],
        }
        .to_string();
        assert!(
            shown.contains("stopped: etcd") && shown.contains("cut: c0 c1") && shown.contains("c0n0  NOT READY"),
            "{shown}"
        );
    }
}
