//! What goes wrong in real clusters, done to ours: a path between clusters that is cut, and parts that crash or hang.
//!
//! A crash is SIGKILL for all processes of a part at once. A node that crashed is also gone from the network, and comes
//! back as after a reboot: no rules, no pods, its own bpffs empty; its images and its kubelet's files are kept.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

use crate::control_plane::{API_SERVER, CONTROLLER_MANAGER, ControlPlane, FORWARDER, PARTS, SCHEDULER, group_of};
use crate::group::Group;
use crate::shape::{BROKER, Cluster};
use crate::up::Clusters;
use crate::{network, node};

/// What can be killed and restarted. Written and read as two words: `node c0n1`, `apiserver c0`, `broker`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A node with all that runs on it.
    Node(String),
    /// A cluster's API server; its objects stay.
    ApiServer(String),
    /// A cluster's etcd; its objects stay.
    Etcd(String),
    /// A cluster's kube-controller-manager.
    ControllerManager(String),
    /// A cluster's kube-scheduler.
    Scheduler(String),
    /// A whole cluster: control plane and nodes.
    Cluster(String),
    /// The API server without nodes.
    Broker,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::ApiServer(cluster) => write!(f, "apiserver {cluster}"),
            Self::Etcd(cluster) => write!(f, "etcd {cluster}"),
            Self::ControllerManager(cluster) => write!(f, "controller-manager {cluster}"),
            Self::Scheduler(cluster) => write!(f, "scheduler {cluster}"),
            Self::Cluster(cluster) => write!(f, "cluster {cluster}"),
            Self::Broker => f.write_str(BROKER),
        }
    }
}

impl FromStr for Part {
    type Err = anyhow::Error;

    fn from_str(words: &str) -> Result<Self> {
        let words: Vec<&str> = words.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["node", name] => Self::Node((*name).to_owned()),
            ["apiserver", cluster] => Self::ApiServer((*cluster).to_owned()),
            ["etcd", cluster] => Self::Etcd((*cluster).to_owned()),
            ["controller-manager", cluster] => Self::ControllerManager((*cluster).to_owned()),
            ["scheduler", cluster] => Self::Scheduler((*cluster).to_owned()),
            ["cluster", cluster] => Self::Cluster((*cluster).to_owned()),
            [BROKER] => Self::Broker,
            _ => bail!(
                "{}: not one of `node NODE`, `apiserver|etcd|controller-manager|scheduler|cluster CLUSTER`, `broker`",
                words.join(" ")
            ),
        })
    }
}

impl Clusters {
    /// Stops all traffic between two clusters, connections that stand included; twice is no error.
    ///
    /// # Errors
    /// If there is no such cluster.
    pub fn cut(&self, a: &str, b: &str) -> Result<()> {
        network::cut(self.cluster(a)?, self.cluster(b)?, true)
    }

    /// Undoes [`cut`](Self::cut); what was not cut is no error.
    ///
    /// # Errors
    /// If there is no such cluster.
    pub fn restore(&self, a: &str, b: &str) -> Result<()> {
        network::cut(self.cluster(a)?, self.cluster(b)?, false)
    }

    /// The pairs of clusters that are cut.
    ///
    /// # Errors
    /// If the router cannot be asked.
    pub fn cuts(&self) -> Result<Vec<(String, String)>> {
        let name = |number| self.clusters().iter().find(|cluster| cluster.number == number).map(|c| c.name.clone());
        Ok(network::cuts()?.into_iter().filter_map(|(a, b)| Some((name(a)?, name(b)?))).collect())
    }

    /// Kills all processes of a part, as a crash does. What does not run is no error.
    ///
    /// # Errors
    /// If there is no such part.
    pub fn kill(&self, part: &Part) -> Result<()> {
        let of = |cluster: &str, program: &str| Group::named(&group_of(self.cluster(cluster)?, program));
        match part {
            Part::Node(name) => self.kill_node(name),
            Part::ApiServer(cluster) => of(cluster, API_SERVER)?.remove(),
            Part::Etcd(cluster) => of(cluster, "etcd")?.remove(),
            Part::ControllerManager(cluster) => of(cluster, CONTROLLER_MANAGER)?.remove(),
            Part::Scheduler(cluster) => of(cluster, SCHEDULER)?.remove(),
            Part::Cluster(name) => self.kill_cluster(self.cluster(name)?),
            Part::Broker => self.kill_cluster(self.cluster(BROKER)?),
        }
        .with_context(|| format!("kill {part}"))
    }

    fn kill_node(&self, name: &str) -> Result<()> {
        self.node(name)?;
        Group::named(name)?.remove()?;
        network::remove(name)
    }

    fn kill_cluster(&self, cluster: &Cluster) -> Result<()> {
        for node in cluster.nodes() {
            self.kill_node(&node.name)?;
        }
        // The forwarder stays: it is this machine's door, and refuses while there is nobody behind it.
        for program in PARTS.into_iter().filter(|program| *program != FORWARDER).rev() {
            Group::named(&group_of(cluster, program))?.remove()?;
        }
        Ok(())
    }

    /// Kills a part and starts it again, and waits until it is ready: a node Ready, an API server by its own word.
    ///
    /// # Errors
    /// If there is no such part, or it does not become ready.
    pub fn restart(&self, part: &Part, say: &(dyn Fn(&str) + Sync)) -> Result<()> {
        self.kill(part)?;
        say(&format!("{part} killed"));
        self.start_again(part).with_context(|| format!("restart {part}"))?;
        say(&format!("{part} ready"));
        Ok(())
    }

    fn start_again(&self, part: &Part) -> Result<()> {
        match part {
            Part::Node(name) => {
                let (cluster, node) = self.node(name)?;
                let plane = self.plane(cluster)?;
                let before = plane.kubectl()?.nodes()?;
                let names = node::start(&plane, std::iter::once(node))?;
                node::until_ready(&plane, &names, &before)
            }
            Part::ApiServer(cluster) | Part::Etcd(cluster) => self.plane(self.cluster(cluster)?)?.start(),
            Part::ControllerManager(cluster) => self.plane(self.cluster(cluster)?)?.start_part(CONTROLLER_MANAGER),
            Part::Scheduler(cluster) => self.plane(self.cluster(cluster)?)?.start_part(SCHEDULER),
            Part::Broker => self.plane(self.cluster(BROKER)?)?.start(),
            Part::Cluster(name) => {
                let plane = self.plane(self.cluster(name)?)?;
                plane.start()?;
                let before = plane.kubectl()?.nodes()?;
                let names = node::start(&plane, plane.cluster.nodes())?;
                node::until_ready(&plane, &names, &before)
            }
        }
    }

    /// Lets a part hang, as SIGSTOP does, or go on: connections stay and nothing answers.
    ///
    /// # Errors
    /// If there is no such part or it does not run.
    pub fn pause(&self, part: &Part, paused: bool) -> Result<()> {
        let groups = match part {
            Part::Node(name) => vec![self.node(name)?.1.name],
            Part::ApiServer(cluster) => vec![group_of(self.cluster(cluster)?, API_SERVER)],
            Part::Etcd(cluster) => vec![group_of(self.cluster(cluster)?, "etcd")],
            Part::ControllerManager(cluster) => vec![group_of(self.cluster(cluster)?, CONTROLLER_MANAGER)],
            Part::Scheduler(cluster) => vec![group_of(self.cluster(cluster)?, SCHEDULER)],
            Part::Cluster(name) => {
                let cluster = self.cluster(name)?;
                let nodes = cluster.nodes().map(|node| node.name);
                nodes.chain(["etcd", API_SERVER].map(|program| group_of(cluster, program))).collect()
            }
            Part::Broker => ["etcd", API_SERVER].map(group_of_broker).into(),
        };
        for group in groups {
            Group::named(&group)?.freeze(paused).with_context(|| format!("{part}: does it run?"))?;
        }
        Ok(())
    }

    fn plane<'a>(&'a self, cluster: &'a Cluster) -> Result<ControlPlane<'a>> {
        ControlPlane::prepare(cluster, &self.directories, self.port(cluster))
    }

    fn node(&self, name: &str) -> Result<(&Cluster, crate::shape::Node)> {
        let mut all = self.clusters().iter().flat_map(|cluster| cluster.nodes().map(move |node| (cluster, node)));
        all.find(|(_, node)| node.name == name).with_context(|| format!("node {name}: not known"))
    }
}

fn group_of_broker(program: &str) -> String {
    format!("{BROKER}-{program}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_they_are_written() {
        for words in
            ["node c0n1", "apiserver c0", "etcd c1", "controller-manager c0", "scheduler c0", "cluster c1", "broker"]
        {
            assert_eq!(words.parse::<Part>().unwrap().to_string(), words);
        }
        for words in ["", "node", "broker c0", "kubelet c0n0"] {
            assert!(words.parse::<Part>().unwrap_err().to_string().contains("apiserver"), "{words}");
        }
    }
}
