//! What lies in a member beside its CRDs, as pure functions: the accounts and rights of agents and controllers, the users'
//! rights, the cluster's id and membership.
//!
//! Rights are what the code asks for and no more. A watch of one object by its name is allowed by a rule that names it; a
//! creation cannot be limited to a name.

use serde_json::{Value, json};

use super::PART_OF;
use super::credentials::{CIDRS, CLUSTER, CLUSTERSET, CONFIG_MAP, SECRET};
use super::objects::{account, binding, metadata, namespace};
use crate::api::{ABOUT_GROUP, GROUP, SLICE_GROUP, VERSIONS};
use crate::clusterset::local::{CLUSTER_ID_PROPERTY, CLUSTERSET_PROPERTY, SYSTEM_NAMESPACE};
use crate::controller::{STATE, leader, status};

/// ServiceAccount of `mcs controller` in [`SYSTEM_NAMESPACE`], and name of its roles.
pub const CONTROLLER: &str = "mcs-controller";

/// ServiceAccount of `mcs agent` in [`SYSTEM_NAMESPACE`], and name of its roles.
pub const AGENT: &str = "mcs-agent";

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 6] = ["get", "list", "watch", "create", "patch", "delete"];

/// Namespace, accounts and rights.
#[must_use]
pub fn objects() -> Vec<Value> {
    let mut objects = vec![system_namespace()];
    objects.extend(controller());
    objects.extend(agent());
    objects.extend(user_roles());
    objects
}

/// [`SYSTEM_NAMESPACE`], in which agents may run as they must.
#[must_use]
pub fn system_namespace() -> Value {
    let mut namespace = namespace(SYSTEM_NAMESPACE);
    // Pod Security Admission: hostNetwork and hostPath alone need it, even where agents are not privileged.
    namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "privileged".into();
    namespace
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn named(group: &str, resource: &str, names: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "resourceNames": names, "verbs": verbs})
}

fn role(kind: &str, namespace: Option<&str>, name: &str, rules: &[Value]) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata(namespace, name), "rules": rules,
    })
}

/// The account of `mcs controller`, with what it reads and writes.
fn controller() -> Vec<Value> {
    let subject = (SYSTEM_NAMESPACE, CONTROLLER);
    let crds = [format!("serviceexports.{GROUP}"), format!("clusterproperties.{ABOUT_GROUP}")];
    let maps = [CONFIG_MAP, status::CONFIG_MAP, STATE];
    vec![
        account(SYSTEM_NAMESPACE, CONTROLLER),
        role(
            "ClusterRole",
            None,
            CONTROLLER,
            &[
                rule("", &["namespaces", "services"], &READ),
                named("apiextensions.k8s.io", "customresourcedefinitions", &crds.each_ref().map(String::as_str), &READ),
                rule(ABOUT_GROUP, &["clusterproperties"], &READ),
                rule(GROUP, &["serviceexports"], &READ),
                rule(GROUP, &["serviceexports/status", "serviceimports/status"], &["patch"]),
                rule(GROUP, &["serviceimports"], &WRITE),
                rule(SLICE_GROUP, &["endpointslices"], &WRITE),
                rule("events.k8s.io", &["events"], &["create", "patch"]),
            ],
        ),
        binding(None, CONTROLLER, "ClusterRole", CONTROLLER, subject),
        role(
            "Role",
            Some(SYSTEM_NAMESPACE),
            CONTROLLER,
            &[
                named("", "secrets", &[SECRET], &["get", "list", "watch", "patch"]),
                rule("", &["configmaps"], &["create"]),
                named("", "configmaps", &maps, &["get", "list", "watch", "patch"]),
                rule("coordination.k8s.io", &["leases"], &["create"]),
                named("coordination.k8s.io", "leases", &[leader::LEASE], &["get", "update"]),
            ],
        ),
        binding(Some(SYSTEM_NAMESPACE), CONTROLLER, "Role", CONTROLLER, subject),
    ]
}

/// The account of `mcs agent`, which writes nothing.
fn agent() -> Vec<Value> {
    let subject = (SYSTEM_NAMESPACE, AGENT);
    let crd = format!("serviceimports.{GROUP}");
    vec![
        account(SYSTEM_NAMESPACE, AGENT),
        role(
            "ClusterRole",
            None,
            AGENT,
            &[
                // Its own; RBAC has no word for that.
                rule("", &["nodes"], &READ),
                named("apiextensions.k8s.io", "customresourcedefinitions", &[&crd], &READ),
                rule(GROUP, &["serviceimports"], &READ),
                rule(SLICE_GROUP, &["endpointslices"], &READ),
            ],
        ),
        binding(None, AGENT, "ClusterRole", AGENT, subject),
        role("Role", Some(SYSTEM_NAMESPACE), AGENT, &[named("", "configmaps", &[CONFIG_MAP], &READ)]),
        binding(Some(SYSTEM_NAMESPACE), AGENT, "Role", AGENT, subject),
    ]
}

/// Roles for users, aggregated into the built-in `edit` (and so `admin`) and `view`: those who edit a namespace export its
/// Services, those who view it see exports and imports. Nobody edits imports (KEP-1645 "Importing Services").
#[must_use]
pub fn user_roles() -> Vec<Value> {
    let role = |name: &str, into: &str, resources: &[&str], verbs: &[&str]| {
        let mut role = role("ClusterRole", None, name, &[rule(GROUP, resources, verbs)]);
        role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{into}")] = "true".into();
        role
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
    fn agents_write_nothing_and_nobody_reads_all_secrets() {
        let objects = objects();
        let rules = |name: &str| -> Vec<Value> {
            let roles = objects.iter().filter(|object| object["metadata"]["name"] == name);
            roles.filter_map(|role| role["rules"].as_array()).flatten().cloned().collect()
        };
        assert!(!rules(AGENT).is_empty());
        for rule in rules(AGENT) {
            assert_eq!(rule["verbs"], json!(READ), "{rule}");
        }
        let secrets = rules(CONTROLLER).into_iter().chain(rules(AGENT));
        for rule in secrets.filter(|rule| rule["resources"].as_array().unwrap().contains(&"secrets".into())) {
            assert_eq!(rule["resourceNames"], json!([SECRET]), "{rule}");
        }
    }

    #[test]
    fn membership_and_id_are_the_keps_properties() {
        let property = membership_property("prod");
        assert_eq!(property["metadata"]["name"], "clusterset.k8s.io");
        assert_eq!(property["spec"]["value"], "prod");
        assert_eq!(id_property("east")["metadata"]["name"], "cluster.clusterset.k8s.io");
    }
}
