//! What the API server knows of this node: the cluster's membership, as `mcs join` wrote it, and the node's zone.

use super::object::{ConfigMap, Node};
use crate::broker::credentials::{CIDRS, CLUSTER, CONFIG_MAP};
use crate::clusterset::local::SYSTEM_NAMESPACE;
use crate::clusterset::vip::parse_cidrs;
use crate::manifest::field;
use crate::problem::{Problem, Severity};
use crate::source::{Membership, Surroundings};

/// Well-known label of a Node.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Keeps what is known; what cannot be read, or vanishes, leaves it as it was.
#[derive(Default, Debug)]
pub(super) struct Site {
    known: Surroundings,
    is_news: bool,
    /// What is wrong with the ConfigMap.
    problem: Option<Problem>,
}

impl Site {
    /// The ConfigMap that `mcs join` writes; None for none.
    pub(super) fn joined(&mut self, map: Option<&ConfigMap>) {
        self.problem = match map.map(membership) {
            Some(Ok(membership)) => {
                self.is_news |= self.known.membership.as_ref() != Some(&membership);
                self.known.membership = Some(membership);
                None
            }
            Some(Err((field, reason))) => Some(problem(format!("data.{field}"), reason)),
            None => Some(problem(String::new(), self.absent())),
        };
    }

    /// This node's Node; None for none.
    pub(super) fn node(&mut self, node: Option<&Node>) {
        let Some(node) = node else { return };
        let zone = node.metadata.labels.get(ZONE).filter(|zone| !zone.is_empty()).map(|zone| zone.as_str().into());
        self.is_news |= self.known.zone != zone;
        self.known.zone = zone;
    }

    /// What is known, if it is other than when this was asked before.
    pub(super) fn news(&mut self) -> Option<Surroundings> {
        std::mem::take(&mut self.is_news).then(|| self.known.clone())
    }

    /// What is known.
    pub(super) fn known(&self) -> &Surroundings {
        &self.known
    }

    /// What is wrong with the ConfigMap.
    pub(super) fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    fn absent(&self) -> String {
        match self.known.membership {
            Some(_) => "is gone: the cluster id and the ClusterSet CIDRs stay as they were",
            None => {
                "is not there yet: `mcs join` makes this cluster a member of a ClusterSet and writes it; or give \
                     --cluster and --clusterset-cidr"
            }
        }
        .to_owned()
    }
}

fn problem(field: String, reason: String) -> Problem {
    let object = format!("ConfigMap {SYSTEM_NAMESPACE}/{CONFIG_MAP}");
    Problem { object, file: None, field, reason, severity: Severity::Invalid }
}

/// Cluster id and CIDRs, or which key is wrong and why.
fn membership(map: &ConfigMap) -> Result<Membership, (&'static str, String)> {
    let text = |key| map.data.get(key).map(String::as_str).unwrap_or_default();
    let cluster = text(CLUSTER);
    field::dns_label(cluster).map_err(|why| (CLUSTER, why))?;
    let texts: Vec<&str> = text(CIDRS).split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
    let cidrs = parse_cidrs(&texts).map_err(|error| (CIDRS, error.to_string()))?;
    if cidrs.is_empty() {
        let why = "the ClusterSet has no CIDRs yet: the first `mcs join --clusterset-cidr` fixes them";
        return Err((CIDRS, why.to_owned()));
    }
    Ok(Membership { cluster: cluster.into(), cidrs })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(data: serde_json::Value) -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": CONFIG_MAP}, "data": data})).unwrap()
    }

    #[test]
    fn what_join_wrote_is_known_and_stays_when_it_goes_or_breaks() {
        let mut site = Site::default();
        site.joined(None);
        assert!(site.problem().unwrap().reason.contains("mcs join"));
        assert_eq!(site.news(), None);
        site.joined(Some(&map(json!({"cluster": "east", "cidrs": "10.97.0.0/16,fd00:97::/112", "clusterset": "x"}))));
        assert_eq!(site.problem(), None);
        let known = site.news().unwrap().membership.unwrap();
        assert_eq!((&*known.cluster, known.cidrs.len()), ("east", 2));
        assert_eq!(site.news(), None);
        for (broken, field) in [
            (json!({"cluster": "East", "cidrs": "10.97.0.0/16"}), "data.cluster"),
            (json!({"cluster": "east", "cidrs": "10.97.0.1/16"}), "data.cidrs"),
            (json!({"cluster": "east", "cidrs": ""}), "data.cidrs"),
        ] {
            site.joined(Some(&map(broken)));
            assert_eq!(site.problem().unwrap().field, field);
            assert_eq!(site.news(), None, "what it said before stays");
        }
        site.joined(None);
        assert!(site.problem().unwrap().reason.contains("stay as they were"));
        site.joined(Some(&map(json!({"cluster": "east", "cidrs": "10.97.0.0/16, 10.98.0.0/16"}))));
        assert_eq!(site.problem(), None);
        assert_eq!(site.news().unwrap().membership.unwrap().cidrs.len(), 2);
    }

    #[test]
    fn the_zone_is_a_label_of_the_node() {
        let node =
            |labels| serde_json::from_value::<Node>(json!({"metadata": {"name": "n", "labels": labels}})).unwrap();
        let mut site = Site::default();
        site.node(Some(&node(json!({"topology.kubernetes.io/zone": "z1"}))));
        assert_eq!(site.news().unwrap().zone.as_deref(), Some("z1"));
        site.node(None);
        assert_eq!(site.news(), None);
        site.node(Some(&node(json!({}))));
        assert_eq!(site.news().unwrap().zone, None);
    }
}
