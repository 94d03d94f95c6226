//! What RBAC cannot say, as ValidatingAdmissionPolicies at the broker (GA since Kubernetes 1.30).
//!
//! RBAC lets every member create and delete reservations in the shared namespace; the policy narrows that to those that
//! name the member itself as their holder, under the one name that the address has. A join token may put a cluster's UID
//! into the Member that was made for it, once, and nothing else.
//!
//! Both look only at what members' accounts do. Others, the broker's admin for one, may do what RBAC lets them.

use serde_json::{Value, json};

use super::objects::{JOIN_ACCOUNT, metadata};
use crate::clusterset::record::GROUP;

/// The user names of accounts in members' namespaces begin so.
const MEMBERS: &str = "request.userInfo.username.startsWith('system:serviceaccount:mcs-')";

/// The id of the member that asks: the third part of `system:serviceaccount:mcs-<id>:member`, without `mcs-`.
const REQUESTER: &str = "request.userInfo.username.split(':')[2].substring(4)";

/// The reservation in question.
const RESERVATION: &str = "request.operation == 'DELETE' ? oldObject : object";

/// An address has one name only, [`crate::clusterset::record::reservation_name`]: else it could be reserved twice. The CEL
/// functions on addresses refuse leading zeros and IPv4 in IPv6.
const NAMED_AFTER_ADDRESS: &str = "request.operation == 'DELETE' || (isIP(object.spec.address) && \
    ip.isCanonical(object.spec.address) && (ip(object.spec.address).family() == 4 ? \
    object.metadata.name == object.spec.address.replace('.', '-') : \
    (object.metadata.name.matches('^([0-9a-f]{4}-){7}[0-9a-f]{4}$') && \
    ip(object.metadata.name.replace('-', ':')) == ip(object.spec.address))))";

/// The policies and their bindings.
#[must_use]
pub fn objects() -> Vec<Value> {
    let validation = |expression: &str, message: &str| json!({"expression": expression, "message": message});
    let reservations = policy(
        "mcs-reservations",
        "reservations",
        &["CREATE", "UPDATE", "DELETE"],
        json!([{"name": "by-a-member", "expression": MEMBERS}]),
        json!([
            {"name": "requester", "expression": REQUESTER},
            {"name": "reservation", "expression": RESERVATION},
        ]),
        json!([
            validation("request.operation != 'UPDATE'", "a reservation is never changed: delete it and create another"),
            validation(
                "variables.reservation.spec.holder == variables.requester",
                "spec.holder: must be the id of the member that asks",
            ),
            validation(NAMED_AFTER_ADDRESS, "metadata.name: must be that of spec.address, in its one canonical form"),
        ]),
    );
    let members = policy(
        "mcs-members",
        "members",
        &["CREATE", "UPDATE"],
        json!([
            {"name": "by-a-member", "expression": MEMBERS},
        ]),
        json!([{"name": "requester", "expression": REQUESTER}]),
        json!([
            validation(
                &format!("request.userInfo.username.endsWith(':{JOIN_ACCOUNT}')"),
                "a member cannot change members",
            ),
            validation(
                "request.operation == 'UPDATE' && object.metadata.name == variables.requester",
                "metadata.name: must be the id that the join token is for",
            ),
            validation(
                "oldObject == null || (object.spec.clusterUid != '' && (oldObject.spec.clusterUid == '' || \
                 oldObject.spec.clusterUid == object.spec.clusterUid))",
                "spec.clusterUid: the join token was used by another cluster already",
            ),
            validation(
                "oldObject == null || (object.spec.revoked == oldObject.spec.revoked && \
                 (has(object.spec.podCidrs) ? object.spec.podCidrs : []) == \
                 (has(oldObject.spec.podCidrs) ? oldObject.spec.podCidrs : []))",
                "spec: only clusterUid can be set with a join token",
            ),
        ]),
    );
    reservations.into_iter().chain(members).collect()
}

fn policy(
    name: &str,
    resource: &str,
    operations: &[&str],
    conditions: Value,
    variables: Value,
    validations: Value,
) -> [Value; 2] {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": metadata(None, name),
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [GROUP], "apiVersions": ["*"], "resources": [resource], "operations": operations,
            }]},
            "matchConditions": conditions,
            "variables": variables,
            "validations": validations,
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": metadata(None, name),
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    [policy, binding]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clusterset::record::member_namespace;

    #[test]
    fn the_requester_is_told_by_the_namespace_that_members_have() {
        // what the expression counts on
        let username = format!("system:serviceaccount:{}:member", member_namespace("east"));
        assert!(username.starts_with("system:serviceaccount:mcs-"));
        assert_eq!(&username.split(':').nth(2).unwrap()["mcs-".len()..], "east");
        assert!(REQUESTER.ends_with(&format!("substring({})", "mcs-".len())));
    }

    #[test]
    fn every_policy_denies_on_failure_and_is_bound() {
        let objects = objects();
        let of = |kind: &str| objects.iter().filter(|o| o["kind"] == kind).cloned().collect::<Vec<_>>();
        let (policies, bindings) = (of("ValidatingAdmissionPolicy"), of("ValidatingAdmissionPolicyBinding"));
        assert_eq!(policies.len(), bindings.len());
        for (policy, binding) in policies.iter().zip(&bindings) {
            assert_eq!(policy["spec"]["failurePolicy"], "Fail");
            assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
            assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
        }
        let text = policies[0]["spec"].to_string();
        assert!(!text.contains("  "), "expressions are one line: {text}");
    }
}
