//! Helm's chart is another spelling of the kustomizations: object by object, field by field.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::rendered::{HELM, KUBE_VERSION, KUBECTL, helm, kustomize, name};
use crate::require_programs;

fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let count = objects.len();
    let named: BTreeMap<String, Value> = objects.into_iter().map(|object| (name(&object), object)).collect();
    assert_eq!(named.len(), count, "an object comes twice");
    named
}

/// Where two values differ, as paths.
fn differences(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let null = Value::Null;
                let side = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(null.clone());
                differences(&format!("{path}/{key}"), &side(one), &side(other), found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                differences(&format!("{path}/{index}"), one, other, found);
            }
        }
        _ if one == other => {}
        _ => found.push(format!("{path}: {one} in deploy, {other} in the chart")),
    }
}

fn compare(overlays: &[&str], values: &[&str]) {
    // Helm makes the namespace that a release is for.
    let deployed = overlays.iter().flat_map(|overlay| kustomize(overlay));
    let deployed = deployed.filter(|object| object["kind"] != "Namespace").collect();
    let (deployed, charted) = (by_name(deployed), by_name(helm(values).unwrap()));
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&deployed), names(&charted), "{overlays:?}");
    let mut found = Vec::new();
    for (name, object) in &deployed {
        differences(name, object, &charted[name], &mut found);
    }
    assert!(found.is_empty(), "{overlays:?}:\n{}", found.join("\n"));
}

#[test]
fn each_overlay_is_a_set_of_values() {
    require_programs!(KUBECTL, HELM);
    compare(&["member"], &[]);
    compare(&["reduced"], &["agent.reduced=true"]);
    compare(&["monitoring"], &["monitoring=true"]);
    compare(&["member", "dns"], &["dns.enabled=true"]);
    let server = ["settings.KUBERNETES_SERVICE_HOST=api.example.com", "settings.KUBERNETES_SERVICE_PORT=6443"];
    compare(&["no-kube-proxy"], &server);
}

#[test]
fn what_differs_is_seen() {
    let (one, other) = (serde_json::json!({"a": [{"b": 1}], "c": 1}), serde_json::json!({"a": [{"b": 2}]}));
    let mut found = Vec::new();
    differences("x", &one, &other, &mut found);
    assert_eq!(found, ["x/a/0/b: 1 in deploy, 2 in the chart", "x/c: 1 in deploy, null in the chart"]);
}

#[test]
fn values_reach_what_they_name() {
    require_programs!(HELM);
    let values = [
        "image.repository=images.example.com/mcs",
        "image.tag=v9",
        "agent.port=19657",
        "controller.replicas=3",
        "networkPolicies=false",
        "imagePullSecrets[0].name=pull",
        "agent.nodeSelector.pool=a",
        "dns.enabled=true",
        "dns.replicas=5",
    ];
    let objects = by_name(helm(&values).unwrap());
    let (agent, controller) =
        (&objects["DaemonSet mcs-system/mcs-agent"], &objects["Deployment mcs-system/mcs-controller"]);
    let dns = &objects["Deployment mcs-system/mcs-dns"];
    assert_eq!(dns["spec"]["replicas"], 5);
    for workload in [agent, controller, dns] {
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["image"], "images.example.com/mcs:v9");
        assert_eq!(pod["imagePullSecrets"][0]["name"], "pull");
    }
    let pod = &agent["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"]["pool"], "a");
    assert_eq!(pod["containers"][0]["ports"][0]["hostPort"], 19657);
    assert_eq!(controller["spec"]["replicas"], 3);
    assert!(!objects.keys().any(|name| name.starts_with("NetworkPolicy ")));
}

#[test]
fn another_namespace_is_refused() {
    require_programs!(HELM);
    let error = crate::rendered::run(
        HELM,
        &["template", "mcs", "helm/mcs", "--namespace", "default", "--kube-version", KUBE_VERSION],
    )
    .unwrap_err();
    assert!(error.to_string().contains("mcs lives in the namespace mcs-system"), "{error:#}");
}
