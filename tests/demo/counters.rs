//! What an agent counted, from `mcs services -o json`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use mcs_tests::Family;
use mcs_tests::agent::Agent;
use serde::Deserialize;

#[derive(Deserialize)]
struct Answer {
    services: Vec<Frontend>,
}

/// One frontend: an address, a port and a protocol of a service.
#[derive(Deserialize)]
struct Frontend {
    name: String,
    #[serde(rename = "clusterSetIP")]
    address: IpAddr,
    sources: Vec<Source>,
}

#[derive(Deserialize)]
struct Source {
    cluster: String,
    connections: u64,
}

/// Connections that clients on the agent's node have made to a service, by family and cluster, over all its ports.
#[derive(Debug, Default)]
pub(crate) struct Connections(BTreeMap<(Family, String), u64>);

impl Connections {
    /// Asks now.
    pub(crate) fn read(agent: &Agent, service: &str) -> Result<Self> {
        let answer = agent.mcs_json(&["services"])?;
        let answer: Answer = serde_json::from_value(answer).context("mcs services: its JSON")?;
        let mut counted = Self::default();
        for Frontend { name, address, sources } in answer.services {
            for Source { cluster, connections } in sources {
                if name == service {
                    *counted.0.entry((Family::of(address), cluster)).or_default() += connections;
                }
            }
        }
        Ok(counted)
    }

    /// How many there were.
    pub(crate) fn to(&self, family: Family, cluster: &str) -> u64 {
        self.0.get(&(family, cluster.to_owned())).copied().unwrap_or(0)
    }

    /// How many there were over both families.
    pub(crate) fn to_cluster(&self, cluster: &str) -> u64 {
        Family::BOTH.iter().map(|&family| self.to(family, cluster)).sum()
    }

    /// What came since an earlier reading.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let since = |((family, cluster), count): (&(Family, String), &u64)| {
            ((*family, cluster.clone()), count.saturating_sub(earlier.to(*family, cluster)))
        };
        Self(self.0.iter().map(since).collect())
    }
}
