//! Objects that tests write, as upstream's suite has them.

use serde_json::{Value, json};

/// What Kubernetes' own controller writes into the slices that it makes.
pub(crate) const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";

pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// `tcp` 42 and `udp` 42 with ClientIP affinity for 10 s, one address of each family.
pub(crate) fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "namespace": namespace, "name": name,
            "labels": {"dummy-svc": "dummy"}, "annotations": {"dummy-svc": "dummy"},
        },
        "spec": {
            "selector": {"app": name},
            "ipFamilyPolicy": "PreferDualStack",
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
            "ports": [port("tcp", "TCP", 42), port("udp", "UDP", 42)],
        },
    })
}

pub(crate) fn port(name: &str, protocol: &str, number: u16) -> Value {
    json!({"name": name, "protocol": protocol, "port": number})
}

/// A service with these ports instead.
pub(crate) fn with_ports(mut service: Value, ports: &[Value]) -> Value {
    service["spec"]["ports"] = Value::from(ports);
    service
}

pub(crate) fn headless(mut service: Value) -> Value {
    service["spec"]["clusterIP"] = "None".into();
    service
}

pub(crate) fn export(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
        "metadata": {
            "namespace": namespace, "name": name,
            "labels": {"dummy-svcexport": "dummy"}, "annotations": {"dummy-svcexport": "dummy"},
        },
    })
}

/// An export that says a label and an annotation of this key.
pub(crate) fn labelled_export(namespace: &str, name: &str, key: &str) -> Value {
    let mut export = export(namespace, name);
    export["spec"] = json!({"exportedLabels": {key: "true"}, "exportedAnnotations": {key: "true"}});
    export
}

/// A service's slice as Kubernetes writes it, with a ready endpoint at each address.
pub(crate) fn slice(namespace: &str, service: &str, name: &str, addresses: &[String], ports: &[Value]) -> Value {
    let v6 = addresses.first().is_some_and(|address| address.contains(':'));
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false}}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace, "name": name,
            "labels": {"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": SLICE_CONTROLLER},
        },
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "ports": ports,
        "endpoints": endpoints,
    })
}

/// The addresses in slices, sorted.
pub(crate) fn addresses<'a>(slices: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    let endpoints = slices.into_iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
    let mut all: Vec<String> =
        endpoints.filter_map(|endpoint| endpoint["addresses"][0].as_str().map(str::to_owned)).collect();
    all.sort();
    all
}

/// A label of an object.
pub(crate) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"][key].as_str()
}
