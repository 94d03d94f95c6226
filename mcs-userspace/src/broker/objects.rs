//! What lies at a broker beside the records, as pure functions: CRDs, RBAC and the accounts of members.
//!
//! ```text
//!  system:serviceaccount:mcs-east:member
//!    reads   every record, lease, reservation, member      ClusterRole mcs-member, everywhere
//!    writes  its records, its lease, its next token        ClusterRole mcs-member-records, in mcs-east
//!    creates and deletes reservations that name itself     ClusterRole mcs-member-reservations, in clusterset-broker
//!                                                          + ValidatingAdmissionPolicy mcs-reservations
//!    deletes its own Member and account, when it leaves    Role mcs-east, in clusterset-broker
//! ```

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::credentials::SERVICE_ACCOUNT;
use super::{BROKER_CRD_RELEASE, BROKER_CRD_REVISION, PART_OF, policy};
use crate::api::crds::tidy;
use crate::clusterset::record::{
    ClusterSet, ExportRecord, GROUP, LEASE, Member, Reservation, SHARED_NAMESPACE, SliceRecord, member_namespace,
};

/// Name of the ServiceAccount that a join token speaks as, in the namespace of the member that is to be.
pub const JOIN_ACCOUNT: &str = "join";

/// ClusterRole: what members read.
const READER: &str = "mcs-member";
/// ClusterRole: what a member writes in its own namespace.
const RECORDS: &str = "mcs-member-records";
/// ClusterRole: what a member does in the shared namespace.
const RESERVATIONS: &str = "mcs-member-reservations";

/// The number that grows with every change of a record's schema.
const CRD_REVISION: &str = "1";

/// The CRDs of the broker's kinds.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![ClusterSet::crd(), Member::crd(), Reservation::crd(), ExportRecord::crd(), SliceRecord::crd()];
    for crd in &mut crds {
        tidy(crd);
        let labels = crd.metadata.labels.get_or_insert_default();
        labels.insert(BROKER_CRD_RELEASE.to_owned(), format!("v{}", env!("CARGO_PKG_VERSION")));
        labels.insert(BROKER_CRD_REVISION.to_owned(), CRD_REVISION.to_owned());
        labels.insert(PART_OF.0.to_owned(), PART_OF.1.to_owned());
    }
    crds
}

/// What every broker has beside the CRDs: the shared namespace, roles, admission policies.
#[must_use]
pub fn shared() -> Vec<Value> {
    let role = |name: &str, rules: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": metadata(None, name), "rules": rules,
        })
    };
    let read = ["get", "list", "watch"];
    let mut objects = vec![
        namespace(SHARED_NAMESPACE),
        role(
            READER,
            json!([
                {
                    "apiGroups": [GROUP],
                    "resources": ["clustersets", "members", "reservations", "exportrecords", "slicerecords"],
                    "verbs": read,
                },
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": read},
            ]),
        ),
        role(
            RECORDS,
            json!([
                {
                    "apiGroups": [GROUP],
                    "resources": ["exportrecords", "slicerecords"],
                    "verbs": ["create", "update", "patch", "delete"],
                },
                // a creation cannot be limited to a name
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
                {
                    "apiGroups": ["coordination.k8s.io"],
                    "resources": ["leases"],
                    "resourceNames": [LEASE],
                    "verbs": ["update", "patch", "delete"],
                },
                {
                    "apiGroups": [""],
                    "resources": ["serviceaccounts/token"],
                    "resourceNames": [SERVICE_ACCOUNT],
                    "verbs": ["create"],
                },
                // with which its tokens end, when it leaves
                {
                    "apiGroups": [""],
                    "resources": ["serviceaccounts"],
                    "resourceNames": [SERVICE_ACCOUNT],
                    "verbs": ["delete"],
                },
            ]),
        ),
        role(
            RESERVATIONS,
            json!([{"apiGroups": [GROUP], "resources": ["reservations"], "verbs": ["create", "delete"]}]),
        ),
    ];
    objects.extend(policy::objects());
    objects
}

/// The namespace, account and rights of a member. A colon separates what is added to an id from it: no id has one.
#[must_use]
pub fn member(cluster: &str) -> Vec<Value> {
    let home = member_namespace(cluster);
    let subject = (home.as_str(), SERVICE_ACCOUNT);
    vec![
        namespace(&home),
        account(&home, SERVICE_ACCOUNT),
        binding(Some(&home), READER, "ClusterRole", RECORDS, subject),
        binding(Some(SHARED_NAMESPACE), &home, "ClusterRole", RESERVATIONS, subject),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": metadata(Some(SHARED_NAMESPACE), &home),
            "rules": [{"apiGroups": [GROUP], "resources": ["members"], "resourceNames": [cluster], "verbs": ["delete"]}],
        }),
        binding(Some(SHARED_NAMESPACE), &format!("{home}:leave"), "Role", &home, subject),
        binding(None, &reader_binding(cluster), "ClusterRole", READER, subject),
    ]
}

/// What a join token can do beside reading: say which cluster the member is, once, and get the member's credentials.
#[must_use]
pub fn invitation(cluster: &str) -> Vec<Value> {
    let home = member_namespace(cluster);
    let subject = (home.as_str(), JOIN_ACCOUNT);
    let role = |namespace: &str, name: &str, rules: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": metadata(Some(namespace), name), "rules": rules,
        })
    };
    let shared_role = format!("{home}:join");
    vec![
        account(&home, JOIN_ACCOUNT),
        role(
            &home,
            JOIN_ACCOUNT,
            json!([
                {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [SERVICE_ACCOUNT], "verbs": ["create"]},
                {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": [JOIN_ACCOUNT], "verbs": ["delete"]},
            ]),
        ),
        binding(Some(&home), JOIN_ACCOUNT, "Role", JOIN_ACCOUNT, subject),
        role(
            SHARED_NAMESPACE,
            &shared_role,
            json!([{"apiGroups": [GROUP], "resources": ["members"], "resourceNames": [cluster], "verbs": ["update", "patch"]}]),
        ),
        binding(Some(SHARED_NAMESPACE), &shared_role, "Role", &shared_role, subject),
        binding(None, &format!("{}:join", reader_binding(cluster)), "ClusterRole", READER, subject),
    ]
}

/// Everything of [`member`] and [`invitation`] that gives rights: what revocation deletes. Namespaces are not among them:
/// where no controller runs they would never go, and never come back.
#[must_use]
pub fn rights(cluster: &str) -> Vec<Value> {
    let all = invitation(cluster).into_iter().chain(member(cluster));
    all.filter(|object| object["kind"] != "Namespace").collect()
}

fn reader_binding(cluster: &str) -> String {
    format!("{READER}:{cluster}")
}

/// `metadata` with our label.
pub(super) fn metadata(namespace: Option<&str>, name: &str) -> Value {
    let (label, value) = PART_OF;
    let mut metadata = json!({"name": name, "labels": {label: value}});
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

/// A Namespace.
pub(super) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata(None, name)})
}

/// A ServiceAccount whose tokens nobody mounts.
pub(super) fn account(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(Some(namespace), name),
        "automountServiceAccountToken": false,
    })
}

/// A RoleBinding, or without a namespace a ClusterRoleBinding, for one ServiceAccount.
pub(super) fn binding(
    namespace: Option<&str>,
    name: &str,
    role_kind: &str,
    role: &str,
    (account_namespace, account): (&str, &str),
) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" },
        "metadata": metadata(namespace, name),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "namespace": account_namespace, "name": account}],
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn name(object: &Value) -> String {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
    }

    #[test]
    fn no_two_objects_have_one_name_whatever_the_clusters_are_called() {
        let mut names = BTreeSet::new();
        let clusters = ["a", "a-leave", "a-join", "join", "member"];
        let objects = clusters.iter().flat_map(|cluster| member(cluster).into_iter().chain(invitation(cluster)));
        for object in objects.chain(shared()) {
            // an account's own namespace is one of one member only, so only what all members share can collide
            assert!(names.insert(name(&object)), "{}", name(&object));
        }
    }

    #[test]
    fn a_member_writes_nothing_outside_its_namespace_but_reservations() {
        let objects: Vec<Value> = shared().into_iter().chain(member("east")).collect();
        let rules_of = |kind: &str, role: &str| {
            let found = objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == role).unwrap();
            found["rules"].as_array().unwrap().clone()
        };
        for object in &objects {
            let role = &object["roleRef"];
            if role.is_null() {
                continue;
            }
            let writes: Vec<Value> = rules_of(role["kind"].as_str().unwrap(), role["name"].as_str().unwrap())
                .into_iter()
                .filter(|rule| rule["verbs"] != json!(["get", "list", "watch"]))
                .collect();
            match object["metadata"]["namespace"].as_str() {
                None => assert!(writes.is_empty(), "{object}"),
                Some(SHARED_NAMESPACE) => assert!(
                    writes.iter().all(|rule| rule["resources"] == json!(["reservations"])
                        || (rule["resources"] == json!(["members"]) && rule["resourceNames"] == json!(["east"]))),
                    "{object}"
                ),
                Some(other) => assert_eq!(other, "mcs-east"),
            }
            assert_eq!(
                object["subjects"],
                json!([{"kind": "ServiceAccount", "namespace": "mcs-east", "name": "member"}])
            );
        }
    }

    #[test]
    fn what_revocation_deletes_is_all_that_gives_rights() {
        let kinds: BTreeSet<String> = rights("east").iter().map(name).collect();
        assert!(kinds.contains("ServiceAccount mcs-east/member") && kinds.contains("ServiceAccount mcs-east/join"));
        assert!(kinds.contains("ClusterRoleBinding /mcs-member:east"));
        assert!(!kinds.iter().any(|name| name.starts_with("Namespace ") || name.starts_with("ClusterRole ")));
    }
}
