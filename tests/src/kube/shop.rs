//! What is exported and who asks: `web` of namespace `shop`, and a pod with curl.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use mcs_clusters::images::{AGNHOST, TOOLS};
use serde_json::{Value, json};

use super::Kube;

/// The namespace of everything.
pub const SHOP: &str = "shop";
/// The pod that asks.
pub const CLIENT: &str = "client";
/// How long a backend serves on when it is asked to end: until the last node of all clusters has heard of it.
const DRAIN: u32 = 8;

fn metadata(name: &str) -> Value {
    json!({"namespace": SHOP, "name": name})
}

/// The namespace.
#[must_use]
pub fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP}})
}

/// A Service of both families and its backends, which answer with their names.
#[must_use]
pub fn web(replicas: u32) -> Vec<Value> {
    let drain = format!("--delay-shutdown={DRAIN}");
    vec![
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata("web"),
            "spec": {
                "selector": {"app": "web"}, "ipFamilyPolicy": "RequireDualStack",
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("web"),
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "terminationGracePeriodSeconds": 30,
                        "topologySpreadConstraints": [{
                            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": {"app": "web"}}, "matchLabelKeys": ["pod-template-hash"],
                        }],
                        "containers": [{
                            "name": "web", "image": AGNHOST, "args": ["netexec", "--http-port=8080", "--udp-port=-1", drain],
                            "readinessProbe": {"httpGet": {"path": "/hostname", "port": 8080}, "periodSeconds": 1},
                        }],
                    },
                },
            },
        }),
    ]
}

/// What makes it the ClusterSet's.
#[must_use]
pub fn export() -> Value {
    export_of("web")
}

/// What makes a Service of this name the ClusterSet's.
#[must_use]
pub fn export_of(name: &str) -> Value {
    json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport", "metadata": metadata(name)})
}

/// The pod that asks.
#[must_use]
pub fn client() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata(CLIENT),
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": CLIENT, "image": TOOLS, "command": ["sleep", "86400"],
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    })
}

/// The ClusterSetIPs of `web` in a cluster, IPv4 first, once it has both.
///
/// # Errors
/// If it has not, soon.
pub fn addresses(kube: &Kube, cluster: &str) -> Result<[String; 2]> {
    kube.until("ServiceImport shop/web with two addresses", || {
        let import = kube.get(cluster, "serviceimport", SHOP, "web")?;
        let ips = import.and_then(|import| Some(import["spec"]["ips"].as_array()?.clone())).unwrap_or_default();
        let mut ips: Vec<String> = ips.iter().filter_map(|ip| Some(ip.as_str()?.to_owned())).collect();
        ips.sort_by_key(|ip| ip.contains(':'));
        Ok(<[String; 2]>::try_from(ips).ok())
    })
}

/// How a URL names an address.
#[must_use]
pub fn host(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// The backend that answers the client.
///
/// # Errors
/// If none does.
pub fn ask(kube: &Kube, cluster: &str, host: &str) -> Result<String> {
    let url = format!("http://{host}/hostname");
    let said = kube.exec(cluster, SHOP, CLIENT, &["curl", "-sS", "-g", "-f", "-m", "3", &url])?;
    Ok(said.trim().to_owned())
}

/// The names of the backends that are there and not on their way out, in a cluster.
///
/// # Errors
/// If the API server does not say.
pub fn backends(kube: &Kube, cluster: &str) -> Result<BTreeSet<String>> {
    let listed = ["-n", SHOP, "get", "pods", "-l", "app=web", "--field-selector=status.phase=Running", "-o", "json"];
    let pods: Value = serde_json::from_str(&kube.kubectl(cluster, &listed)?)?;
    let pods = pods["items"].as_array().context("pods: no list")?;
    let living = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(living.filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect())
}

/// Asks until just these have answered, each at least once.
///
/// # Errors
/// If others answer on and on, or one of these never does.
pub fn reaches(kube: &Kube, cluster: &str, host: &str, expected: &BTreeSet<String>) -> Result<()> {
    let mut seen = BTreeSet::new();
    kube.until(&format!("{host} from {cluster} answered by {expected:?}"), || {
        let who = ask(kube, cluster, host)?;
        if !expected.contains(&who) {
            // One that is on its way out, or not known yet.
            seen.clear();
            return Ok(None);
        }
        seen.insert(who);
        Ok((seen == *expected).then_some(()))
    })
}
