//! Conditions: read without their times, written with them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as Typed, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::clusterset::local::{Condition, Truth};

/// `metav1.Condition`.
pub(super) type KubeCondition = Typed;

/// The conditions in `status.conditions` that can be read.
pub(super) fn of_status(data: &Value) -> Vec<KubeCondition> {
    let conditions = data.get("status").and_then(|status| status.get("conditions")).and_then(Value::as_array);
    let conditions = conditions.map(Vec::as_slice).unwrap_or_default();
    conditions.iter().filter_map(|condition| serde_json::from_value(condition.clone()).ok()).collect()
}

/// Without their times.
pub(super) fn read(conditions: &[KubeCondition]) -> Vec<Condition> {
    conditions
        .iter()
        .map(|condition| Condition {
            kind: condition.type_.clone(),
            status: match condition.status.as_str() {
                "True" => Truth::True,
                "False" => Truth::False,
                _ => Truth::Unknown,
            },
            reason: condition.reason.clone(),
            message: condition.message.clone(),
        })
        .collect()
}

/// Which conditions an object has, which it should have, and when that is.
pub(in crate::controller) struct Transition<'a> {
    /// The object's body, with the conditions that it has.
    pub(in crate::controller) object: &'a Value,
    /// What ours should be.
    pub(in crate::controller) wanted: &'a [Condition],
    /// Types that are ours, gone if they are not wanted; all are if none. Others' stay.
    pub(in crate::controller) ours: Option<&'a [&'a str]>,
    /// `metadata.generation` that the conditions are about; none to leave it out.
    pub(in crate::controller) generation: Option<i64>,
    /// The wall clock.
    pub(in crate::controller) now: Timestamp,
}

/// The conditions as they should be written: the time of a transition stays while the status does.
pub(in crate::controller) fn conditions_with_times(transition: &Transition<'_>) -> Vec<Typed> {
    let Transition { object, wanted, ours, generation, now } = transition;
    let present = of_status(object);
    let are_ours = |kind: &str| ours.is_none_or(|ours| ours.contains(&kind));
    let written = wanted.iter().map(|condition| {
        let same = present.iter().find(|old| old.type_ == condition.kind && old.status == condition.status.as_str());
        Typed {
            type_: condition.kind.clone(),
            status: condition.status.as_str().to_owned(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            last_transition_time: same.map_or(Time(*now), |old| old.last_transition_time.clone()),
            observed_generation: *generation,
        }
    });
    let is_wanted = |kind: &str| wanted.iter().any(|condition| condition.kind == kind);
    let others = present.iter().filter(|old| !is_wanted(&old.type_) && !are_ours(&old.type_)).cloned();
    written.chain(others).collect()
}
