//! What running processes answer over HTTP, and how far a change is measured: from the source's slice to a node's maps.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use mcs_tests::agent::{Agent, AgentOptions};
use mcs_tests::apiserver::ApiServer;
use mcs_tests::client::Kind;
use mcs_tests::identity::{self, Protocol, Server};
use mcs_tests::mcs::{self, Controller, init_broker, join_arguments};
use mcs_tests::{Family, Fleet, require_api_server, require_root};
use serde_json::{Value, json};

use crate::SOON;
use crate::objects::{self, namespace};

/// How often something that no watch tells is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Where a process listens, by its log; the last word counts.
pub(crate) fn listens(log: &str) -> Option<SocketAddr> {
    let line = log.lines().rfind(|line| line.contains("/livez"))?;
    line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
}

/// Asks over HTTP: the status line and the body. Both are empty where nobody answers.
pub(crate) fn get(address: Option<SocketAddr>, path: &str) -> (String, String) {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address.ok_or(std::io::ErrorKind::NotFound)?)?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().unwrap_or_default();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// The value of a sample, by all that stands before it.
pub(crate) fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.parse().ok()
}

/// Waits for what no watch tells.
pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < end, "not in {SOON:?}: {what}");
        thread::sleep(POLL);
    }
}

/// `mcs join`, `mcs controller`, `mcs agent`: an export of cluster `b` is reached from a pod in cluster `a`, and how long a
/// change of its endpoints took is known there.
#[test]
fn a_change_is_measured_from_its_source_to_the_maps() {
    require_root!();
    require_api_server!();
    let fleet = Fleet::builder().clusters(2).pods(2).build().unwrap();
    let _servers = Server::start_in(fleet.pods_of("b"), 42).unwrap();
    let servers = ApiServer::start_many(2).unwrap();
    init_broker(&servers[0]).unwrap();
    let listen = ["--metrics-listen", "127.0.0.1:0"];
    let controllers: Vec<Controller> = servers
        .iter()
        .map(|server| {
            mcs::run(join_arguments(server, &servers[0], server.name())).unwrap();
            server.client().unwrap().create(&namespace("shop")).unwrap();
            Controller::with(server, "controller", &listen, &[]).unwrap()
        })
        .collect();
    for controller in &controllers {
        let ask = |path: &str| get(listens(&controller.log_text()), path);
        wait("the controller is ready", || ask("/readyz").0.contains("200"));
        assert!(ask("/livez").0.contains("200"));
        assert_eq!(sample(&ask("/metrics").1, "mcs_withdrawals_held"), Some(0.0));
    }
    let mut options = AgentOptions::kube(&fleet, fleet.node("a1"), servers[0].kubeconfig());
    options.arguments = vec!["--listen".to_owned(), "127.0.0.1:0".to_owned()];
    let agent = Agent::start(&fleet, fleet.node("a1"), options).unwrap();

    let (a, b) = (servers[0].client().unwrap(), servers[1].client().unwrap());
    let service = objects::service("shop", "hello");
    b.apply(&service).unwrap();
    b.apply(&objects::export("shop", "hello")).unwrap();
    let ports = [objects::port("tcp", "TCP", 42)];
    let endpoints = |pods: &[&str]| {
        let addresses: Vec<String> = pods.iter().map(|pod| fleet.pod(pod).ip(Family::V4).to_string()).collect();
        b.apply(&objects::slice("shop", "hello", "hello-1", &addresses, &ports)).unwrap();
    };
    endpoints(&["b1p1"]);
    // The families' addresses are reserved one by one and may come one by one.
    let ipv4 = |import: &Value| {
        let ips = import["spec"]["ips"].as_array()?.iter().filter_map(Value::as_str);
        ips.map(|ip| ip.parse::<std::net::IpAddr>().unwrap()).find(std::net::IpAddr::is_ipv4)
    };
    let has_address = |import: Option<&Value>| import.and_then(ipv4).is_some();
    let import = a.wait((Kind::IMPORT, "shop", "hello"), SOON, "has an IPv4 address", has_address).unwrap().unwrap();
    let ip = ipv4(&import).unwrap();
    let ask = || identity::ask(fleet.pod("a1p1"), Protocol::Tcp, SocketAddr::new(ip, 42));
    wait("b1p1 answers", || ask().is_ok_and(|name| name == "b1p1"));
    agent.wait_ready().unwrap();

    let count = || {
        sample(&get(listens(&agent.log_text()), "/metrics").1, "mcs_propagation_seconds_count{source_cluster=\"b\"}")
    };
    let before = count().unwrap_or_default();
    endpoints(&["b1p2"]);
    wait("b1p2 answers", || ask().is_ok_and(|name| name == "b1p2"));
    wait("it is counted", || count().unwrap_or_default() > before);
    let text = get(listens(&agent.log_text()), "/metrics").1;
    let below =
        |bound: &str| sample(&text, &format!("mcs_propagation_seconds_bucket{{source_cluster=\"b\",le=\"{bound}\"}}"));
    assert_eq!(below("60"), count(), "measured from the change, by one clock here: {text}");
    let slices = a.list(Kind::SLICE, "shop").unwrap();
    let stamp = slices.iter().find_map(|slice| slice["metadata"]["annotations"]["mcs.internal/changed-at"].as_str());
    assert!(stamp.is_some_and(|stamp| stamp.ends_with('Z') && stamp.contains('.')), "{}", json!(slices));
}
