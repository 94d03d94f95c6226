//! CoreDNS as a pod, with everything that it needs of the cluster.
//!
//! Without kube-proxy nobody serves ClusterIPs: then it is in the network of the cluster's first node, where pods ask it, and
//! is given the API server's own address.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::images::COREDNS;
use crate::kubectl::Kubectl;
use crate::shape::{Cluster, Proxy};

const READY_LIMIT: Duration = Duration::from_secs(120);

/// Makes or changes CoreDNS. With `clusterset` it answers for `clusterset.local` too, from ServiceImports, whose definition
/// must be there: CoreDNS does not become ready without.
pub(crate) fn apply(plane: &ControlPlane<'_>, clusterset: bool) -> Result<()> {
    let objects = objects(plane.cluster, clusterset);
    plane.kubectl()?.apply(&objects.to_string()).with_context(|| format!("CoreDNS of {}", plane.cluster.name))
}

/// Waits until it answers as it was last configured.
pub(crate) fn until_ready(plane: &ControlPlane<'_>) -> Result<()> {
    let kubectl: Kubectl = plane.kubectl()?;
    let limit = format!("--timeout={}s", READY_LIMIT.as_secs());
    let rollout = ["-n", "kube-system", "rollout", "status", "deployment/coredns", &limit];
    kubectl.ask(&rollout).map(drop).with_context(|| format!("CoreDNS of {}", plane.cluster.name))
}

fn corefile(clusterset: bool) -> String {
    let (zone, option) =
        if clusterset { ("clusterset.local ", "        multicluster clusterset.local\n") } else { ("", "") };
    format!(
        ".:53 {{
    errors
    health
    ready
    kubernetes cluster.local {zone}in-addr.arpa ip6.arpa {{
{option}        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }}
    loadbalance
}}
"
    )
}

fn objects(cluster: &Cluster, clusterset: bool) -> Value {
    let name = |name: &str| json!({"name": name, "namespace": "kube-system"});
    let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    let corefile = corefile(clusterset);
    let mut items = vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name("coredns")}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": [
                rule("", &["endpoints", "services", "pods", "namespaces"]),
                rule("discovery.k8s.io", &["endpointslices"]),
                rule("multicluster.x-k8s.io", &["serviceimports"]),
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
        }),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": name("coredns"), "data": {"Corefile": corefile}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": name("coredns"), "spec": deployment(cluster, &corefile)}),
    ];
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": name("kube-dns"),
        "spec": {
            "clusterIP": cluster.service_of_dns(),
            "selector": {"k8s-app": "kube-dns"},
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}],
        },
    });
    service["metadata"]["labels"] = json!({"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"});
    items.push(service);
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn deployment(cluster: &Cluster, corefile: &str) -> Value {
    let mut pod = json!({
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "tolerations": [{"operator": "Exists"}],
        "containers": [{
            "name": "coredns",
            "image": COREDNS,
            "args": ["-conf", "/etc/coredns/Corefile"],
            "ports": [
                {"containerPort": 53, "protocol": "UDP", "name": "dns"},
                {"containerPort": 53, "protocol": "TCP", "name": "dns-tcp"},
            ],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
            "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "initialDelaySeconds": 30},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": true}],
        }],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    });
    if cluster.proxy == Proxy::None {
        pod["hostNetwork"] = json!(true);
        pod["nodeName"] = json!(cluster.nodes().next().map(|node| node.name));
        pod["containers"][0]["env"] = json!([
            {"name": "KUBERNETES_SERVICE_HOST", "value": cluster.control_plane().0},
            {"name": "KUBERNETES_SERVICE_PORT", "value": "6443"},
        ]);
    }
    json!({
        "replicas": 1,
        // On one node's ports there is room for one.
        "strategy": if cluster.proxy == Proxy::None { json!({"type": "Recreate"}) } else { json!({"type": "RollingUpdate"}) },
        "selector": {"matchLabels": {"k8s-app": "kube-dns"}},
        "template": {
            // A pod reads its Corefile late when it changes; a new pod reads it at once.
            "metadata": {"labels": {"k8s-app": "kube-dns"}, "annotations": {"mcs.internal/corefile": corefile}},
            "spec": pod,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    #[test]
    fn the_corefile_names_the_clusterset_only_when_its_definitions_are_there() {
        assert!(!corefile(false).contains("clusterset"));
        let with = corefile(true);
        assert!(with.contains("kubernetes cluster.local clusterset.local in-addr.arpa ip6.arpa {\n"), "{with}");
        assert!(with.contains("\n        multicluster clusterset.local\n        pods insecure\n"), "{with}");
        assert!(corefile(false).contains("{\n        pods insecure\n"), "{}", corefile(false));
    }

    #[test]
    fn without_kube_proxy_nothing_depends_on_a_clusterip() {
        let shape = Shape { proxies: vec![Proxy::None], ..Shape::default() };
        let cluster = &shape.clusters().unwrap()[0];
        let pod = &deployment(cluster, "")["template"]["spec"];
        assert_eq!(pod["hostNetwork"], json!(true));
        assert_eq!(pod["containers"][0]["env"][0]["value"], json!("172.30.0.2"));
        assert_eq!(cluster.dns().to_string(), "172.30.0.10");
    }
}
