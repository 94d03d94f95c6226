//! kubectl as a cluster's admin.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::network::{capture, feed};

/// How often it is asked again: each time is a process that starts.
const POLL: Duration = Duration::from_millis(300);

pub(crate) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

/// What a cluster says of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeReport {
    pub(crate) name: String,
    pub(crate) ready: bool,
    /// When its kubelet last said so, as the API server writes times.
    pub(crate) heard: Option<String>,
}

impl Kubectl {
    pub(crate) fn new(program: PathBuf, kubeconfig: PathBuf) -> Self {
        Self { program, kubeconfig }
    }

    /// kubectl, to be given its arguments.
    pub(crate) fn command(&self) -> Command {
        let mut kubectl = Command::new(&self.program);
        kubectl.arg("--kubeconfig").arg(&self.kubeconfig);
        kubectl
    }

    /// What it answers.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        capture(self.command().args(arguments))
    }

    /// Applies objects.
    pub(crate) fn apply(&self, objects: &str) -> Result<()> {
        feed(self.command().args(["apply", "--server-side", "--force-conflicts", "-f", "-"]), objects)
    }

    /// Asks until the answer is as wanted.
    pub(crate) fn until(&self, limit: Duration, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let answer = self.ask(arguments);
            if answer.as_ref().is_ok_and(|said| wanted(said)) {
                return Ok(());
            }
            let last = || answer.as_ref().map_or_else(|error| format!("{error:#}"), |said| said.trim().to_owned());
            ensure!(Instant::now() < end, "kubectl {}: not as wanted in {limit:?}: {}", arguments.join(" "), last());
            thread::sleep(POLL);
        }
    }

    /// Its nodes.
    pub(crate) fn nodes(&self) -> Result<Vec<NodeReport>> {
        nodes_in(&self.ask(&["get", "nodes", "-o", "json"])?).context("kubectl get nodes: its answer")
    }
}

fn nodes_in(json: &str) -> Result<Vec<NodeReport>> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<Node>,
    }
    #[derive(Deserialize)]
    struct Node {
        metadata: Metadata,
        #[serde(default)]
        status: Status,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: String,
    }
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(default)]
        conditions: Vec<Condition>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Condition {
        r#type: String,
        status: String,
        last_heartbeat_time: Option<String>,
    }
    let list: List = serde_json::from_str(json)?;
    let report = |node: Node| {
        let ready = node.status.conditions.into_iter().find(|condition| condition.r#type == "Ready");
        NodeReport {
            name: node.metadata.name,
            ready: ready.as_ref().is_some_and(|condition| condition.status == "True"),
            heard: ready.and_then(|condition| condition.last_heartbeat_time),
        }
    };
    Ok(list.items.into_iter().map(report).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_never_heard_of_is_not_ready() {
        let json = r#"{"items": [
            {"metadata": {"name": "c0n0"}, "status": {"conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-23T17:00:00Z"}]}},
            {"metadata": {"name": "c0n1"}, "status": {}},
            {"metadata": {"name": "c0n2"}}]}"#;
        let nodes = nodes_in(json).unwrap();
        assert!(nodes[0].ready && nodes[0].heard.as_deref() == Some("2026-11-23T17:00:00Z"));
        assert!(!nodes[1].ready && !nodes[2].ready && nodes[1].heard.is_none());
        assert!(nodes_in("{}").is_err());
    }
}
