//! Who this node is: what flags say, else what the source tells, else what the agent before knew.
//!
//! The last is for an agent that starts while the API server is away: it goes on with the ClusterSet as it was.

use std::sync::Arc;

use ipnet::IpNet;

use crate::desired::NodeContext;
use crate::report::AgentReport;
use crate::source::{Membership, Surroundings};

/// What flags say.
#[derive(Clone, Debug)]
pub struct Given {
    /// This cluster's id.
    pub cluster: Option<Arc<str>>,
    /// This node's name.
    pub node: Arc<str>,
    /// This node's zone.
    pub zone: Option<Arc<str>>,
    /// Whether endpoints of this node's cluster come first.
    pub prefer_local_cluster: bool,
    /// Where ClusterSetIPs come from; not given if empty.
    pub cidrs: Vec<IpNet>,
}

/// All that is known.
#[derive(Debug)]
pub(super) struct Facts {
    given: Given,
    told: Surroundings,
    remembered: Surroundings,
}

impl Facts {
    pub(super) fn new(given: Given, remembered: Surroundings) -> Self {
        Self { given, told: Surroundings::default(), remembered }
    }

    /// The source knows this now.
    pub(super) fn tell(&mut self, surroundings: Surroundings) {
        self.told = surroundings;
    }

    /// Who this node is, if that is known.
    pub(super) fn node(&self) -> Option<NodeContext> {
        let Self { given, told, remembered } = self;
        let membership = told.membership.as_ref().or(remembered.membership.as_ref());
        let cluster = given.cluster.clone().or_else(|| membership.map(|known| Arc::clone(&known.cluster)))?;
        let cidrs = match given.cidrs.is_empty() {
            false => given.cidrs.clone(),
            true => membership?.cidrs.clone(),
        };
        let zone = given.zone.clone().or_else(|| told.zone.clone()).or_else(|| remembered.zone.clone());
        let Given { node, prefer_local_cluster, .. } = given;
        Some(NodeContext { cluster, node: Arc::clone(node), zone, prefer_local_cluster: *prefer_local_cluster, cidrs })
    }
}

/// What the agent before knew, by its report.
pub(super) fn remembered(report: &AgentReport) -> Surroundings {
    let cidrs: Vec<IpNet> = report.clusterset_cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect();
    let is_whole = !report.cluster.is_empty() && !cidrs.is_empty() && cidrs.len() == report.clusterset_cidrs.len();
    let membership = is_whole.then(|| Membership { cluster: report.cluster.as_str().into(), cidrs });
    Surroundings { membership, zone: report.zone.as_deref().map(Arc::from) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Given {
        Given { cluster: None, node: "n1".into(), zone: None, prefer_local_cluster: false, cidrs: Vec::new() }
    }

    fn surroundings(cluster: &str, cidr: &str, zone: Option<&str>) -> Surroundings {
        let membership = Membership { cluster: cluster.into(), cidrs: vec![cidr.parse().unwrap()] };
        Surroundings { membership: Some(membership), zone: zone.map(Arc::from) }
    }

    #[test]
    fn flags_come_before_the_source_and_the_source_before_memory() {
        let mut facts = Facts::new(given(), Surroundings::default());
        assert_eq!(facts.node(), None, "nobody knows");
        let mut facts_with_memory = Facts::new(given(), surroundings("old", "10.1.0.0/16", Some("z0")));
        let node = facts_with_memory.node().unwrap();
        assert_eq!((&*node.cluster, node.zone.as_deref()), ("old", Some("z0")));
        for facts in [&mut facts, &mut facts_with_memory] {
            facts.tell(surroundings("east", "10.97.0.0/16", Some("z1")));
            let node = facts.node().unwrap();
            assert_eq!((&*node.cluster, node.zone.as_deref()), ("east", Some("z1")));
            assert_eq!(node.cidrs, ["10.97.0.0/16".parse::<IpNet>().unwrap()]);
        }
        let flags = Given {
            cluster: Some("flag".into()),
            zone: Some("z9".into()),
            cidrs: vec!["10.9.0.0/16".parse().unwrap()],
            ..given()
        };
        let mut facts = Facts::new(flags, surroundings("old", "10.1.0.0/16", None));
        facts.tell(surroundings("east", "10.97.0.0/16", Some("z1")));
        let node = facts.node().unwrap();
        assert_eq!((&*node.cluster, node.zone.as_deref()), ("flag", Some("z9")));
        assert_eq!(node.cidrs, ["10.9.0.0/16".parse::<IpNet>().unwrap()]);
    }

    #[test]
    fn a_cluster_alone_waits_for_the_cidrs() {
        let mut facts = Facts::new(Given { cluster: Some("a".into()), ..given() }, Surroundings::default());
        assert_eq!(facts.node(), None);
        facts.tell(Surroundings { membership: None, zone: Some("z".into()) });
        assert_eq!(facts.node(), None);
    }

    #[test]
    fn half_a_report_is_none() {
        let report =
            AgentReport { cluster: "a".to_owned(), clusterset_cidrs: vec!["x".to_owned()], ..AgentReport::default() };
        assert_eq!(remembered(&report).membership, None);
        assert_eq!(remembered(&AgentReport::default()), Surroundings::default());
        let report = AgentReport { clusterset_cidrs: vec!["10.1.0.0/16".to_owned()], ..report };
        assert_eq!(remembered(&report).membership.unwrap().cidrs.len(), 1);
    }
}
