//! What the leader reported, as far as it is shown, and what of it needs doing.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::{MOST, count};
use crate::apiserver::server_trouble;
use crate::clusterset::controller::{Held, MemberReport};
use crate::clusterset::event::Kind;
use crate::clusterset::local::SYSTEM_NAMESPACE;

/// The part of the leader's report that is shown; what a newer or older controller says besides is in the JSON.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct View {
    pub(super) cluster: Option<String>,
    pub(super) clusterset: Option<String>,
    pub(super) membership: Option<String>,
    pub(super) local_synced: bool,
    pub(super) broker_connected: bool,
    pub(super) cidrs: Vec<String>,
    pub(super) members: BTreeMap<String, MemberReport>,
    pub(super) deaths_held: bool,
    pub(super) exports: usize,
    pub(super) imports: usize,
    pub(super) slices: usize,
    pub(super) held: Vec<Held>,
    pub(super) stale: BTreeMap<String, Vec<String>>,
    pub(super) exhausted: BTreeMap<String, Vec<String>>,
    pub(super) waiting: usize,
    pub(super) retrying: BTreeMap<String, String>,
    pub(super) problems: Vec<ProblemView>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct ProblemView {
    pub(super) object: String,
    pub(super) field: String,
    pub(super) reason: String,
    pub(super) severity: String,
}

impl fmt::Display for ProblemView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, field, reason, severity: _ } = self;
        match field.as_str() {
            "" => write!(f, "{object}: {reason}"),
            field => write!(f, "{object}: {field}: {reason}"),
        }
    }
}

impl View {
    pub(super) fn of(report: &Value) -> Self {
        serde_json::from_value(report.clone()).unwrap_or_default()
    }

    /// What is wrong by the leader's own report.
    /// Of what follows from the broker's being gone only that is said.
    pub(super) fn find(
        &self,
        kubeconfig: &str,
        joined: Option<&str>,
        is_broker_gone: bool,
        find: &mut impl FnMut(String, String),
    ) {
        let cluster = self.cluster.as_deref().or(joined).unwrap_or("CLUSTER");
        if let Some(why) = &self.membership {
            find(format!("not a member: {why}"), format!("kubectl --kubeconfig {kubeconfig} get clusterproperties"));
            return;
        }
        if !self.local_synced {
            find("the controller is still reading this cluster".to_owned(), again(kubeconfig));
        } else if !self.broker_connected && !is_broker_gone {
            let what = "the broker is not reached: what is imported stays as it is";
            find(
                what.to_owned(),
                format!("kubectl --kubeconfig {kubeconfig} -n {SYSTEM_NAMESPACE} get secret mcs-broker"),
            );
        }
        if !self.held.is_empty() {
            let what = format!(
                "the withdrawal of {} of {cluster} is held: {}",
                count(self.held.len(), "export"),
                self.held.first().map(|held| held.reason.as_str()).unwrap_or_default(),
            );
            find(
                what,
                format!(
                    "restore them, or, if they are meant to be gone: mcs approve-withdrawal {cluster} --kubeconfig \
                     {kubeconfig}"
                ),
            );
        }
        if self.deaths_held {
            find(
                "more than half of the members fell silent at once: none is taken for dead".to_owned(),
                "look at the broker's API server".to_owned(),
            );
        }
        for (id, member) in &self.members {
            if matches!(member.health.as_str(), "suspect" | "dead") {
                find(
                    format!("member {id} is {}", member.health),
                    format!("mcs status --kubeconfig KUBECONFIG-OF-{id}"),
                );
            }
        }
        for (service, families) in self.exhausted.iter().take(MOST) {
            let what = format!("{service}: no {} address is left in {}", families.join(", "), self.cidrs.join(" "));
            find(what, "mcs broker init with a further --clusterset-cidr, or export less".to_owned());
        }
        if self.waiting > 0 && self.broker_connected {
            let what =
                format!("{} for an address until every healthy member has its own reserved", waits(self.waiting));
            find(what, again(kubeconfig));
        }
        let retrying = self.retrying.iter().filter(|(object, _)| !is_broker_gone || !is_at_broker(object));
        for (object, why) in retrying.take(MOST) {
            find(format!("{object}: {why}"), "tried again by itself; look at what it says".to_owned());
        }
        for problem in self.problems.iter().filter(|problem| problem.severity != "notice").take(MOST) {
            find(problem.to_string(), "correct the object".to_owned());
        }
    }
}

/// Whether an object, as the report names it (`ExportRecords mcs-a/shop.cart`), lies at the broker.
fn is_at_broker(object: &str) -> bool {
    Kind::BROKER.iter().any(|kind| object.starts_with(&format!("{kind:?} ")))
}

fn waits(services: usize) -> String {
    match services {
        1 => "1 service waits".to_owned(),
        many => format!("{many} services wait"),
    }
}

/// Where to look when something on the way to an API server is wrong.
fn next_for(what: &str, kubeconfig: &str) -> String {
    if what.contains("broker") {
        format!(
            "look at the broker and at the way there; kubectl --kubeconfig {kubeconfig} -n {SYSTEM_NAMESPACE} get secret \
             mcs-broker"
        )
    } else if what.contains(".x-k8s.io")
        || what.contains(".k8s.io")
        || what.contains("Exports")
        || what.contains("Imports")
    {
        format!("mcs crds | kubectl --kubeconfig {kubeconfig} apply -f -")
    } else {
        format!("kubectl --kubeconfig {kubeconfig} -n {SYSTEM_NAMESPACE} logs deployment/mcs-controller")
    }
}

/// What is wrong on the way to the API servers. Where a server does not answer at all, the rest follows from it.
pub(super) fn find_troubles(
    troubles: &BTreeMap<String, String>,
    kubeconfig: &str,
    find: &mut impl FnMut(String, String),
) {
    let gone = |server: &str| troubles.contains_key(&server_trouble(server));
    let (broker, member) = (gone("broker"), gone("member"));
    for (what, why) in troubles {
        let follows = broker && what.ends_with("at the broker") || member && what.ends_with("at the member");
        if !follows {
            find(format!("{what}: {why}"), next_for(what, kubeconfig));
        }
    }
}

/// To ask again soon.
pub(super) fn again(kubeconfig: &str) -> String {
    format!("mcs status --kubeconfig {kubeconfig} in a moment")
}
