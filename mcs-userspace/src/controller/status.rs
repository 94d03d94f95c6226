//! What the leader says of itself: a ConfigMap in the member, which `mcs status` reads.
//!
//! Written at most once a second, and only when something changed: whether the words are fresh is told by the Lease of
//! the leader, which is renewed anyway.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::state::put_data;
use crate::apiserver::{REQUEST, Server, Troubles, chain};
use crate::clusterset::controller::Report;

/// The ConfigMap in [`crate::clusterset::local::SYSTEM_NAMESPACE`].
pub const CONFIG_MAP: &str = "mcs-status";

/// Its key: a [`Status`] as JSON.
pub const KEY: &str = "status";

/// The least time between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// Entries of a list that are written; a ConfigMap has room for a megabyte.
const MOST: usize = 200;

/// How things stand, as the leader of a member sees them.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The process.
    pub identity: String,
    /// `mcs --version`.
    pub version: String,
    /// What is wrong on the way to the two API servers: what, and why.
    pub troubles: BTreeMap<String, String>,
    /// [`Report`]; of long lists the beginning.
    pub report: Value,
}

impl Status {
    /// Of a process with this report.
    #[must_use]
    pub fn new(identity: &str, version: &str, troubles: BTreeMap<String, String>, report: &Report) -> Self {
        let mut report = serde_json::to_value(report).unwrap_or_default();
        let values = report.as_object_mut().into_iter().flat_map(|fields| fields.values_mut());
        for value in values {
            shorten(value);
        }
        Self { identity: identity.to_owned(), version: version.to_owned(), troubles, report }
    }
}

fn shorten(value: &mut Value) {
    match value {
        Value::Array(entries) => entries.truncate(MOST),
        Value::Object(entries) if entries.len() > MOST => {
            let rest: Vec<String> = entries.keys().skip(MOST).cloned().collect();
            for key in rest {
                entries.remove(&key);
            }
        }
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Writes what it is told, until nobody tells any more.
pub(super) async fn publish(member: Server, mut words: watch::Receiver<Option<Status>>, troubles: Troubles) {
    const WHAT: &str = "status";
    while words.changed().await.is_ok() {
        let Some(status) = words.borrow_and_update().clone() else { continue };
        let Some(reach) = member.now() else { continue };
        let text = serde_json::to_string(&status).unwrap_or_default();
        let data = json!({KEY: text, "written": Timestamp::now().to_string()});
        match tokio::time::timeout(REQUEST, put_data(&reach.client, CONFIG_MAP, data)).await {
            Ok(Ok(())) => troubles.clear(WHAT),
            Ok(Err(error)) => {
                troubles.report(WHAT, &chain(&error));
                words.mark_changed();
            }
            Err(_elapsed) => words.mark_changed(),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Logs what changed between two reports and is worth a line.
pub(super) fn log_changes(old: &Report, new: &Report) {
    if new.membership != old.membership || new.cluster != old.cluster {
        match (&new.cluster, &new.membership) {
            (Some(cluster), None) => info!(cluster, clusterset = new.clusterset, "is a member"),
            (_, why) => info!("is no member: {}", why.as_deref().unwrap_or("not known yet")),
        }
    }
    if new.broker_synced && !old.broker_synced {
        info!("everything at the broker is listed");
    }
    if new.broker_connected != old.broker_connected {
        // Why is logged where it is known.
        debug!(connected = new.broker_connected, "broker");
    }
    for (id, member) in &new.members {
        let before = old.members.get(id).map(|member| member.health.as_str());
        if before != Some(&member.health) {
            info!("member {id}: {} (was {})", member.health, before.unwrap_or("unknown"));
        }
    }
    for id in old.members.keys().filter(|id| !new.members.contains_key(*id)) {
        info!("member {id}: gone");
    }
    for held in new.held.iter().filter(|held| !old.held.contains(held)).take(MOST) {
        let service = if held.service.is_empty() { "all exports" } else { &held.service };
        warn!("{service}: withdrawal held: {}", held.reason);
    }
    if new.held.is_empty() && !old.held.is_empty() {
        info!("no withdrawal is held any more");
    }
    if new.deaths_held != old.deaths_held && new.deaths_held {
        warn!("more than half of the members fell silent at once: none is taken for dead");
    }
    // Before all is known, things are judged by half of what belongs to them.
    let problems = if new.broker_synced { new.problems.as_slice() } else { &[] };
    for problem in problems.iter().filter(|problem| !old.broker_synced || !old.problems.contains(problem)).take(MOST) {
        warn!("{problem}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clusterset::controller::Held;

    #[test]
    fn long_lists_are_cut() {
        let held = (0..1000).map(|n| Held { service: format!("shop/s{n}"), reason: "why".to_owned() }).collect();
        let retrying = (0..1000).map(|n| (format!("{n:04}"), "why".to_owned())).collect();
        let report = Report { held, retrying, exports: 7, ..Report::default() };
        let status = Status::new("me", "1", BTreeMap::new(), &report);
        assert_eq!(status.report["held"].as_array().unwrap().len(), MOST);
        assert_eq!(status.report["retrying"].as_object().unwrap().len(), MOST);
        assert_eq!(status.report["exports"], 7);
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    }
}
