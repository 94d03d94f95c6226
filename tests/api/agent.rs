//! `mcs agent --source kube`: from objects on a real API server to a pod's connect. The agent runs in this machine's
//! network namespace, where API servers listen, and serves the cgroup of a fleet's node.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mcs_tests::agent::{Agent, AgentOptions};
use mcs_tests::apiserver::ApiServer;
use mcs_tests::client::{Client, Kind};
use mcs_tests::identity::{self, Protocol, Server};
use mcs_tests::{Family, Fleet, addresses, mcs, require_api_server, require_root};
use serde_json::{Value, json};

use crate::SOON;
use crate::monitoring::{get, listens, sample, wait};
use crate::objects::namespace;

/// How long the API server is away.
const OUTAGE: Duration = Duration::from_secs(20);
/// What the servers in pods listen on, and what clients dial.
const PORT: u16 = 8080;

/// An API server, a node of cluster `a` with a client pod, and a node of cluster `b` with two pods that serve.
struct Stage {
    agent: Agent,
    server: ApiServer,
    client: Client,
    _servers: Vec<Server>,
    fleet: Fleet,
}

impl Stage {
    /// The agent runs with the rights of `deploy/` and no others, and knows nothing yet: no ConfigMap, no definition. Its
    /// kubeconfig has an address where nobody is, and a flag the right one: as in a Pod of a cluster without kube-proxy.
    fn set() -> Self {
        Self::with_kubeconfig(|server, client| {
            client.apply_yaml(include_str!("../../deploy/base/rbac.yaml")).unwrap();
            let request =
                json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": null}});
            let path = "/api/v1/namespaces/mcs-system/serviceaccounts/mcs-agent/token";
            let answer = client.post(path, &request).unwrap();
            let file = server.kubeconfig_with_token("agent", answer["status"]["token"].as_str().unwrap()).unwrap();
            let text = fs::read_to_string(&file).unwrap().replace(&server.url(), "https://192.0.2.1:6443");
            fs::write(&file, text).unwrap();
            (file, vec!["--api-server".to_owned(), server.url()])
        })
    }

    /// With what the agent is to be told of the API server: a kubeconfig, and further arguments.
    fn with_kubeconfig(access: impl FnOnce(&ApiServer, &Client) -> (PathBuf, Vec<String>)) -> Self {
        let fleet = Fleet::builder().clusters(2).pods(2).build().unwrap();
        let servers = Server::start_in(fleet.pods_of("b"), PORT).unwrap();
        let server = ApiServer::start("a").unwrap();
        let client = server.client().unwrap();
        for name in ["shop", "mcs-system"] {
            client.create(&namespace(name)).unwrap();
        }
        let (kubeconfig, arguments) = access(&server, &client);
        let mut options = AgentOptions::kube(&fleet, fleet.node("a1"), kubeconfig);
        options.arguments = [vec!["--listen".to_owned(), "127.0.0.1:0".to_owned()], arguments].concat();
        let agent = Agent::start(&fleet, fleet.node("a1"), options).unwrap();
        Self { agent, server, client, _servers: servers, fleet }
    }

    /// What `mcs join` writes.
    fn join(&self) {
        let cidrs = addresses::clusterset_cidrs().join(",");
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "mcs-system", "name": "mcs-clusterset"},
            "data": {"cluster": "a", "clusterset": "test-set", "cidrs": cidrs},
        });
        self.client.apply(&map).unwrap();
    }

    /// Our definitions.
    fn define(&self) {
        self.client.apply_yaml(&mcs::run(["crds"]).unwrap()).unwrap();
        let established = |crd: Option<&Value>| {
            crd.is_some_and(|crd| mcs_tests::client::has_condition(crd, "Established", "True", "InitialNamesAccepted"))
        };
        let crd = (Kind::CRD, "", "serviceimports.multicluster.x-k8s.io");
        self.client.wait(crd, SOON, "established", established).unwrap();
    }

    /// A ServiceImport with the ClusterSetIP of that number, and a slice of each pod of cluster `b` that is named.
    fn import(&self, name: &str, number: u16, pods: &[&str]) {
        self.client
            .apply(&import("v1beta1", name, &[&addresses::clusterset_ip(Family::V4, number).to_string()]))
            .unwrap();
        self.client.apply(&self.slice(name, pods)).unwrap();
    }

    fn slice(&self, import: &str, pods: &[&str]) -> Value {
        let address = |pod: &&str| json!({"addresses": [self.fleet.pod(pod).ip(Family::V4).to_string()]});
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": "shop", "name": format!("{import}-b"), "labels": {
                "multicluster.kubernetes.io/service-name": import, "multicluster.kubernetes.io/source-cluster": "b"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
            "endpoints": pods.iter().map(address).collect::<Vec<_>>(),
        })
    }

    /// Who answers at the ClusterSetIP of that number, for a pod of cluster `a`.
    fn ask(&self, number: u16) -> std::io::Result<String> {
        identity::ask(self.fleet.pod("a1p1"), Protocol::Tcp, vip(number))
    }

    /// Waits until somebody in particular answers.
    fn wait_for(&self, number: u16, pod: &str) {
        wait(&format!("{pod} answers at {}", vip(number)), || self.ask(number).is_ok_and(|name| name == pod));
    }

    /// Asks the agent over HTTP.
    fn get(&self, path: &str) -> (String, String) {
        get(listens(&self.agent.log_text()), path)
    }

    /// Waits until the agent is not ready and says this.
    fn wait_unready(&self, because: &str) {
        wait("it listens", || self.agent.log_text().contains("/livez"));
        wait(&format!("not ready: {because}"), || {
            let (status, body) = self.get("/readyz");
            status.contains("503") && body.contains(because)
        });
        assert!(self.get("/livez").0.contains("200"));
    }

    fn metric(&self, name: &str) -> f64 {
        let (_, body) = self.get("/metrics");
        sample(&body, name).unwrap_or_else(|| panic!("no {name} in:\n{body}"))
    }
}

fn import(version: &str, name: &str, ips: &[&str]) -> Value {
    json!({
        "apiVersion": format!("multicluster.x-k8s.io/{version}"), "kind": "ServiceImport",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"type": "ClusterSetIP", "ips": ips, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    })
}

fn vip(number: u16) -> SocketAddr {
    SocketAddr::new(addresses::clusterset_ip(Family::V4, number), 80)
}

#[test]
fn an_agent_waits_for_what_it_needs_and_programs_what_is_there() {
    require_root!();
    require_api_server!();
    let stage = Stage::set();
    stage.wait_unready("mcs join");
    stage.join();
    stage.wait_unready("serviceimports.multicluster.x-k8s.io: is missing");
    stage.define();
    stage.import("cart", 1, &["b1p1"]);
    stage.wait_for(1, "b1p1");
    stage.agent.wait_ready().unwrap();
    assert!(stage.get("/readyz").0.contains("200"));

    // one that is garbage costs itself
    stage.client.apply(&import("v1beta1", "junk", &["no address"])).unwrap();
    stage.import("till", 2, &["b1p2"]);
    stage.wait_for(2, "b1p2");
    wait("the garbage is reported", || stage.problems().contains("ServiceImport shop/junk: spec.ips"));
    assert_eq!(stage.ask(1).unwrap(), "b1p1");

    // a change of endpoints is a change of backends, stamped at its source
    let mut slice = stage.slice("cart", &["b1p2"]);
    slice["metadata"]["annotations"] =
        json!({"mcs.internal/changed-at": k8s_openapi::jiff::Timestamp::now().to_string()});
    stage.client.apply(&slice).unwrap();
    stage.wait_for(1, "b1p2");
    assert_eq!(stage.metric("mcs_services"), 2.0);
    assert_eq!(stage.metric("mcs_stale_entries"), 0.0);
    assert!(stage.metric("mcs_invalid_objects") >= 1.0);
    assert_eq!(stage.metric("mcs_propagation_seconds_count{source_cluster=\"b\"}"), 1.0);
    let labels = "{namespace=\"shop\",service=\"cart\",destination_cluster=\"b\"}";
    assert!(stage.metric(&format!("mcs_connections_total{labels}")) >= 2.0);

    // CIDRs that the ClusterSet gets later are served from then on; those before go on
    let (more, address) = ("10.98.0.0/16", "10.98.0.1");
    let cidrs = [&addresses::clusterset_cidrs()[..], &[more.to_owned()]].concat().join(",");
    let map = json!({"data": {"cidrs": cidrs}});
    stage.client.patch(Kind::CONFIG_MAP, "mcs-system", "mcs-clusterset", &map).unwrap();
    stage.client.apply(&import("v1beta1", "late", &[address])).unwrap();
    stage.client.apply(&stage.slice("late", &["b1p1"])).unwrap();
    let late = SocketAddr::new(address.parse().unwrap(), 80);
    let ask = || identity::ask(stage.fleet.pod("a1p1"), Protocol::Tcp, late);
    wait("the new CIDR is served", || ask().is_ok_and(|name| name == "b1p1"));
    assert_eq!(stage.ask(1).unwrap(), "b1p2");
    stage.client.delete(Kind::IMPORT, "shop", "late").unwrap();
    wait("late is gone", || stage.metric("mcs_services") == 2.0);

    // no endpoint is a refusal, and no import no frontend
    stage.client.apply(&stage.slice("cart", &[])).unwrap();
    wait("refused", || stage.ask(1).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused));
    assert!(stage.metric("mcs_refusals_total{namespace=\"shop\",service=\"cart\"}") >= 1.0);
    stage.client.delete(Kind::IMPORT, "shop", "cart").unwrap();
    wait("cart is gone", || stage.metric("mcs_services") == 1.0);
}

#[test]
fn traffic_outlives_the_api_server_and_the_agent() {
    require_root!();
    require_api_server!();
    // an API server that was emptied does not know accounts any more
    let stage = Stage::with_kubeconfig(|server, _| (server.kubeconfig(), Vec::new()));
    stage.join();
    stage.define();
    stage.import("cart", 1, &["b1p1"]);
    stage.wait_for(1, "b1p1");

    let (stop, done, failed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                match stage.ask(1) {
                    Ok(name) if name == "b1p1" => done.fetch_add(1, Ordering::Relaxed),
                    _ => failed.fetch_add(1, Ordering::Relaxed),
                };
            }
        });
        let began = Instant::now();
        stage.server.kill();
        stage.agent.restart().unwrap();
        stage.wait_unready("does not answer");
        stage.agent.kill9();
        stage.agent.restart().unwrap();
        // the promise is about time: nothing can be waited for
        thread::sleep(OUTAGE.saturating_sub(began.elapsed()));
        assert!(stage.get("/readyz").0.contains("503"), "it cannot know yet");
        stage.server.restart().unwrap();
        wait("ready", || stage.get("/readyz").0.contains("200"));
        stage.import("till", 2, &["b1p2"]);
        stage.wait_for(2, "b1p2");
        stop.store(true, Ordering::Relaxed);
    });
    let (done, failed) = (done.into_inner(), failed.into_inner());
    assert_eq!(failed, 0, "of {}", done + failed);
    assert!(done > 100, "{done}");
    eprintln!("{done} connects during {OUTAGE:?} without an API server and two restarts of the agent, none failed");

    // definition deleted, its objects with it: nothing goes; nor does an emptied API server take anything
    stage.client.delete(Kind::CRD, "", "serviceimports.multicluster.x-k8s.io").unwrap();
    stage.wait_unready_or_problem("is missing");
    assert_eq!((stage.ask(1).unwrap(), stage.ask(2).unwrap()), ("b1p1".to_owned(), "b1p2".to_owned()));
    stage.server.empty().unwrap();
    stage.agent.restart().unwrap();
    wait("the agent has seen that there is no definition", || stage.problems().contains("is missing"));
    assert_eq!((stage.ask(1).unwrap(), stage.ask(2).unwrap()), ("b1p1".to_owned(), "b1p2".to_owned()));
}

impl Stage {
    /// What `mcs status` says is wrong.
    fn problems(&self) -> String {
        // its exit code is an answer too
        let output = self.agent.mcs(&["status", "-o", "json"]).unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()["agent"]["problems"].to_string()
    }

    fn wait_unready_or_problem(&self, text: &str) {
        wait(&format!("said: {text}"), || self.problems().contains(text));
    }
}

/// Where only the first version is served, as under Submariner, and where a later one is added.
#[test]
fn other_controllers_definitions_and_objects_do() {
    require_root!();
    require_api_server!();
    let stage = Stage::set();
    stage.join();
    let versions = |served: &[&str]| -> Vec<Value> {
        let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        ["v1alpha1", "v1beta1"]
            .iter()
            .map(|name| json!({"name": name, "served": served.contains(name), "storage": *name == "v1alpha1", "schema": schema}))
            .collect()
    };
    let crd = |served: &[&str]| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "serviceimports.multicluster.x-k8s.io"},
            "spec": {"group": "multicluster.x-k8s.io", "scope": "Namespaced", "versions": versions(served),
                "names": {"plural": "serviceimports", "singular": "serviceimport", "kind": "ServiceImport", "listKind": "ServiceImportList"}},
        })
    };
    stage.client.apply(&crd(&["v1alpha1"])).unwrap();
    let is_served = |client: &Client, version: &str| {
        client.raw(&format!("/apis/multicluster.x-k8s.io/{version}/serviceimports")).is_ok()
    };
    wait("v1alpha1 is served", || is_served(&stage.client, "v1alpha1"));
    // Submariner: one endpoint for each cluster, with labels of its own
    stage.client.apply(&import("v1alpha1", "cart", &[&vip(1).ip().to_string()])).unwrap();
    let mut slice = stage.slice("cart", &["b1p1"]);
    slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = json!("lighthouse-agent.submariner.io");
    slice["metadata"]["labels"]["lighthouse.submariner.io/sourceNamespace"] = json!("shop");
    stage.client.apply(&slice).unwrap();
    stage.wait_for(1, "b1p1");
    // upstream's reference: the label of the source cluster is missing, that of a derived Service is there
    stage.client.apply(&import("v1alpha1", "till", &[&vip(2).ip().to_string()])).unwrap();
    let mut slice = stage.slice("till", &["b1p2"]);
    slice["metadata"]["labels"] =
        json!({"multicluster.kubernetes.io/service-name": "till", "kubernetes.io/service-name": "derived-9a8b7c6d5e"});
    stage.client.apply(&slice).unwrap();
    stage.wait_for(2, "b1p2");
    // Karmada: no address; nothing wrong with it
    stage.client.apply(&import("v1alpha1", "serve", &[])).unwrap();
    // no schema keeps anything out
    let junk = json!({"apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ServiceImport",
        "metadata": {"namespace": "shop", "name": "junk"}, "spec": [1, {"type": 5}]});
    stage.client.apply(&junk).unwrap();
    wait("junk is reported", || stage.problems().contains("ServiceImport shop/junk: spec"));
    assert!(!stage.problems().contains("shop/serve"), "{}", stage.problems());
    assert_eq!(stage.metric("mcs_services"), 2.0);

    // another version is served as well, then alone: it is asked for, and nothing is lost on the way
    stage.client.apply(&crd(&["v1alpha1", "v1beta1"])).unwrap();
    stage.client.apply(&crd(&["v1beta1"])).unwrap();
    wait("v1beta1 is served", || is_served(&stage.client, "v1beta1"));
    let client = stage.server.client().unwrap();
    client.apply(&import("v1beta1", "late", &[&vip(3).ip().to_string()])).unwrap();
    client.apply(&stage.slice("late", &["b1p1"])).unwrap();
    stage.wait_for(3, "b1p1");
    assert_eq!((stage.ask(1).unwrap(), stage.ask(2).unwrap()), ("b1p1".to_owned(), "b1p2".to_owned()));
}
