//! What lies in a member beside its CRDs, as pure functions: the controller's account and rights, the users' rights, the
//! cluster's id and membership.

use serde_json::{Value, json};

use super::PART_OF;
use super::credentials::{CIDRS, CLUSTER, CLUSTERSET, CONFIG_MAP, SECRET};
use super::objects::{account, binding, metadata, namespace};
use crate::api::{ABOUT_GROUP, GROUP, SLICE_GROUP, VERSIONS};
use crate::clusterset::local::{CLUSTER_ID_PROPERTY, CLUSTERSET_PROPERTY, SYSTEM_NAMESPACE};

/// ServiceAccount of `mcs controller` in [`SYSTEM_NAMESPACE`], and name of its roles.
pub const CONTROLLER: &str = "mcs-controller";

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];

/// Namespace, account and rights.
#[must_use]
pub fn objects() -> Vec<Value> {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let subject = (SYSTEM_NAMESPACE, CONTROLLER);
    let mut objects = vec![
        namespace(SYSTEM_NAMESPACE),
        account(SYSTEM_NAMESPACE, CONTROLLER),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata(None, CONTROLLER),
            "rules": [
                rule("", &["namespaces", "nodes", "services"], &READ),
                rule("apiextensions.k8s.io", &["customresourcedefinitions"], &READ),
                rule(ABOUT_GROUP, &["clusterproperties"], &READ),
                rule(GROUP, &["serviceexports"], &READ),
                rule(GROUP, &["serviceexports/status", "serviceimports/status"], &["get", "update", "patch"]),
                rule(GROUP, &["serviceimports"], &WRITE),
                rule(SLICE_GROUP, &["endpointslices"], &WRITE),
                rule("", &["events"], &["create", "patch", "update"]),
                rule("events.k8s.io", &["events"], &["create", "patch", "update"]),
            ],
        }),
        binding(None, CONTROLLER, "ClusterRole", CONTROLLER, subject),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": metadata(Some(SYSTEM_NAMESPACE), CONTROLLER),
            "rules": [
                rule("", &["configmaps", "secrets"], &WRITE),
                rule("coordination.k8s.io", &["leases"], &WRITE),
            ],
        }),
        binding(Some(SYSTEM_NAMESPACE), CONTROLLER, "Role", CONTROLLER, subject),
    ];
    objects.extend(user_roles());
    objects
}

/// Roles for users, aggregated into the built-in `edit` (and so `admin`) and `view`: those who edit a namespace export its
/// Services, those who view it see exports and imports. Nobody edits imports (KEP-1645 "Importing Services").
#[must_use]
pub fn user_roles() -> Vec<Value> {
    let role = |name: &str, into: &str, resources: &[&str], verbs: &[&str]| {
        let mut metadata = metadata(None, name);
        metadata["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{into}")] = "true".into();
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata,
            "rules": [{"apiGroups": [GROUP], "resources": resources, "verbs": verbs}],
        })
    };
    let change = ["create", "update", "patch", "delete", "deletecollection"];
    vec![
        role("mcs-edit", "edit", &["serviceexports"], &change),
        role("mcs-view", "view", &["serviceexports", "serviceimports"], &READ),
    ]
}

/// The cluster's id (KEP-2149).
#[must_use]
pub fn id_property(cluster: &str) -> Value {
    property(CLUSTER_ID_PROPERTY, cluster)
}

/// The cluster's membership (KEP-2149): what makes it a member, so it comes last.
#[must_use]
pub fn membership_property(clusterset: &str) -> Value {
    property(CLUSTERSET_PROPERTY, clusterset)
}

fn property(name: &str, value: &str) -> Value {
    let [_, stored] = VERSIONS;
    json!({
        "apiVersion": format!("{ABOUT_GROUP}/{stored}"), "kind": "ClusterProperty", "metadata": metadata(None, name),
        "spec": {"value": value},
    })
}

/// What was decided at join, for people and for the controller.
#[must_use]
pub fn config_map(cluster: &str, clusterset: &str, cidrs: &[String]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(Some(SYSTEM_NAMESPACE), CONFIG_MAP),
        "data": {CLUSTER: cluster, CLUSTERSET: clusterset, CIDRS: cidrs.join(",")},
    })
}

/// The label of everything of ours, put on an object that was made elsewhere.
pub(super) fn labelled(mut object: Value) -> Value {
    let (label, value) = PART_OF;
    object["metadata"]["labels"][label] = value.into();
    object
}

/// The Secret and the ConfigMap by name only: what a leave deletes.
#[must_use]
pub fn credentials_by_name() -> [Value; 2] {
    [("Secret", SECRET), ("ConfigMap", CONFIG_MAP)].map(|(kind, name)| {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"namespace": SYSTEM_NAMESPACE, "name": name}})
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_edit_exports_and_only_see_imports() {
        let roles = user_roles();
        for role in &roles {
            let rule = &role["rules"][0];
            let writes =
                rule["verbs"].as_array().unwrap().iter().any(|verb| verb != "get" && verb != "list" && verb != "watch");
            let imports = rule["resources"].as_array().unwrap().contains(&"serviceimports".into());
            assert!(!(writes && imports), "{role}");
        }
        assert_eq!(roles[0]["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"], "true");
        assert_eq!(roles[1]["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"], "true");
    }

    #[test]
    fn membership_and_id_are_the_keps_properties() {
        let property = membership_property("prod");
        assert_eq!(property["metadata"]["name"], "clusterset.k8s.io");
        assert_eq!(property["spec"]["value"], "prod");
        assert_eq!(id_property("east")["metadata"]["name"], "cluster.clusterset.k8s.io");
    }
}
