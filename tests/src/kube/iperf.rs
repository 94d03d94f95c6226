//! iperf3 from the client's pod to a pod of another cluster: the servers, their addresses, one run.
//!
//! ```text
//!  cluster TO:   pod iperf (a server for each port, and one that answers HTTP) ◄─ Service iperf ◄─ ServiceExport iperf
//!  cluster FROM: client ── run ──► the pod's own address, or the ServiceImport's
//! ```

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use mcs_clusters::images::{AGNHOST, TOOLS};
use serde_json::{Value, json};

use super::Kube;
use super::shop::{CLIENT, SHOP};
use crate::identity::Protocol;

/// The pod with the servers, its Service, and its import.
pub const IPERF: &str = "iperf";
/// Where the pod answers HTTP with its name: whether an address leads to it is asked there.
pub const HTTP: u16 = 8080;
/// How often a server may still be busy with the last test, and how long it is waited each time.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_millis(100);

/// The ports of a Service of such servers: TCP and UDP for each of them, and [`HTTP`].
#[must_use]
pub fn ports(servers: &[u16]) -> Vec<Value> {
    let of_iperf =
        servers.iter().flat_map(|port| [(format!("t{port}"), "TCP", *port), (format!("u{port}"), "UDP", *port)]);
    of_iperf
        .chain([("http".to_owned(), "TCP", HTTP)])
        .map(|(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port}))
        .collect()
}

/// A Service of both families, its backends the servers' pod.
#[must_use]
pub fn service(servers: &[u16]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": SHOP, "name": IPERF},
        "spec": {"selector": {"app": IPERF}, "ipFamilyPolicy": "RequireDualStack", "ports": ports(servers)},
    })
}

/// The pod: a server on each of these ports, which takes one test at a time, and one for HTTP.
#[must_use]
pub fn pod(servers: &[u16]) -> Value {
    let start: String = servers.iter().map(|port| format!("iperf3 -s -D -p {port}; ")).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": SHOP, "name": IPERF, "labels": {"app": IPERF}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": IPERF, "image": TOOLS, "command": ["sh", "-c", format!("{start}exec sleep 86400")]},
            {"name": "http", "image": AGNHOST, "args": ["netexec", format!("--http-port={HTTP}"), "--udp-port=-1"]},
        ]},
    })
}

/// The pod's own addresses, IPv4 and IPv6, once it is Ready.
///
/// # Errors
/// If it does not become so, or has not both.
pub fn own_addresses(kube: &Kube, cluster: &str) -> Result<[IpAddr; 2]> {
    kube.kubectl(cluster, &["-n", SHOP, "wait", "--for=condition=Ready", "pod/iperf", "--timeout=120s"])?;
    let pod = kube.get(cluster, "pod", SHOP, IPERF)?.context("pod iperf: not there")?;
    both(pod["status"]["podIPs"].as_array().into_iter().flatten().map(|ip| &ip["ip"]))
}

/// The ClusterSetIPs, IPv4 and IPv6, once the import has both.
///
/// # Errors
/// If it has not, soon.
pub fn cluster_set_ips(kube: &Kube, cluster: &str) -> Result<[IpAddr; 2]> {
    kube.until("ServiceImport shop/iperf with two addresses", || {
        let import = kube.get(cluster, "serviceimport", SHOP, IPERF)?.unwrap_or_default();
        Ok(both(import["spec"]["ips"].as_array().into_iter().flatten()).ok())
    })
}

/// One address of each family, IPv4 first, out of JSON strings.
///
/// # Errors
/// If there are others.
pub fn both<'a>(ips: impl Iterator<Item = &'a Value>) -> Result<[IpAddr; 2]> {
    let mut ips: Vec<IpAddr> = ips.filter_map(|ip| ip.as_str()?.parse().ok()).collect();
    ips.sort_by_key(IpAddr::is_ipv6);
    match ips[..] {
        [v4, v6] if v4.is_ipv4() && v6.is_ipv6() => Ok([v4, v6]),
        _ => bail!("{ips:?}: not one address of each family"),
    }
}

/// One run from the client of a cluster: the JSON that iperf3 prints. UDP sends as fast as it goes.
///
/// # Errors
/// If no run succeeds, or iperf3 prints something else.
pub fn run(kube: &Kube, from: &str, to: IpAddr, port: u16, protocol: Protocol, seconds: u32) -> Result<Value> {
    let (to, port, seconds) = (to.to_string(), port.to_string(), seconds.to_string());
    let mut command = vec!["iperf3", "-c", &to, "-p", &port, "-t", &seconds, "-J"];
    if thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
        // Sender and receiver on one each: where the scheduler happens to put them matters more than all else.
        command.extend(["-A", "0,1"]);
    }
    if protocol == Protocol::Udp {
        command.extend(["-u", "-b", "0"]);
    }
    let mut tried = 0;
    let said = loop {
        tried += 1;
        match kube.exec(from, SHOP, CLIENT, &command) {
            Ok(said) => break said,
            Err(_busy) if tried < TRIES => thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    };
    serde_json::from_str(&said).with_context(|| format!("iperf3 to {to}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_one_of_each_family() {
        let ips = [json!("fd00::1"), json!("10.0.0.1")];
        assert_eq!(both(ips.iter()).unwrap().map(|ip| ip.to_string()), ["10.0.0.1", "fd00::1"]);
        assert!(both(ips[..1].iter()).is_err());
        assert!(both([json!("10.0.0.1"), json!("10.0.0.2")].iter()).is_err());
    }

    #[test]
    fn every_server_has_a_port_for_tcp_and_one_for_udp() {
        let names: Vec<Value> = ports(&[5201, 5202]).iter().map(|port| port["name"].clone()).collect();
        assert_eq!(names, ["t5201", "u5201", "t5202", "u5202", "http"]);
    }
}
