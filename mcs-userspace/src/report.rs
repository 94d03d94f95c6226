//! What an agent says of itself to `mcs status`, published through the maps: no socket, no port, and readable after the
//! agent died.

use serde::{Deserialize, Serialize};

use crate::problem::{Problem, Severity};

/// At most this many problems travel; the counts are of all.
const SHOWN: usize = 200;

/// The agent's own account.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentReport {
    /// `mcs --version`.
    pub version: String,
    /// This cluster's id.
    pub cluster: String,
    /// This node.
    pub node: String,
    /// This node's zone.
    pub zone: Option<String>,
    /// `dir:…`.
    pub source: String,
    /// Whose sockets are served.
    pub cgroup: String,
    /// ClusterSet CIDRs.
    pub clusterset_cidrs: Vec<String>,
    /// Services in the kernel.
    pub services: usize,
    /// Objects or parts of objects that were skipped as invalid.
    pub invalid: usize,
    /// Services that did not fit.
    pub unprogrammed: usize,
    /// What is wrong with objects, the first of them.
    pub problems: Vec<String>,
    /// What is wrong with the node.
    pub warnings: Vec<String>,
}

impl AgentReport {
    /// Replaces the problems: those for want of room first, then invalid objects, then notices.
    pub fn set_problems<'a>(&mut self, problems: impl Iterator<Item = &'a Problem>) {
        let mut problems: Vec<&Problem> = problems.collect();
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
        self.invalid = count(Severity::Invalid);
        self.unprogrammed = count(Severity::NoRoom);
        self.problems = problems.into_iter().take(SHOWN).map(ToString::to_string).collect();
    }

    /// JSON of at most `room` bytes: problems are left out from the end until it fits.
    #[must_use]
    pub fn to_json(&self, room: usize) -> String {
        let mut report = self.clone();
        loop {
            let text = serde_json::to_string(&report).unwrap_or_default();
            if text.len() <= room || report.problems.is_empty() {
                return text;
            }
            report.problems.truncate(report.problems.len() / 2);
        }
    }
}
