//! From a pod to a pod of the other cluster: directly, through a ClusterIP by the real kube-proxy, through the ClusterSetIP.
//!
//! The three runs of iperf3 share their two seconds and their two processors, to a server each, all senders on one and all
//! receivers on the other: who needs more processor time for a byte gets fewer of them across. Connections are made in turn,
//! by one curl of many requests each; their rate counts what curl counts from start to answer.

use std::net::IpAddr;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use mcs_tests::identity::Protocol;
use mcs_tests::kube::Kube;
use mcs_tests::kube::iperf::{self, IPERF};
use mcs_tests::kube::shop::{self, CLIENT, SHOP, host};
use serde_json::json;

use crate::Size;
use crate::figures::{Found, Runs, Table, at_least, digits, quartiles, ratio};
use crate::iperf::received;
use crate::progress::Progress;
use crate::turns::{in_turn, runs};

/// A way from the client to the server: what it is called, and its iperf3 server's port.
const WAYS: [(&str, u16); 3] = [("direct", 5201), ("ClusterIP", 5202), ("ClusterSetIP", 5203)];
/// Connections of one curl.
const CONNECTIONS: u32 = 500;

pub(crate) fn run(size: Size) -> Result<Found> {
    let kube = super::installed()?;
    let mut found = Found::default();
    for (from, to, proxy) in [("c1", "c0", "iptables"), ("c0", "c1", "nftables")] {
        let addresses = serve(&kube, from, to)?;
        found.extend(throughput(&kube, from, proxy, &addresses, size)?);
        found.extend(connections(&kube, from, proxy, &addresses, size)?);
        for (kind, name) in [("serviceexport", IPERF), ("service", "by-proxy")] {
            let cluster = if kind == "service" { from } else { to };
            kube.kubectl(cluster, &["-n", SHOP, "delete", kind, name])?;
        }
        kube.until("the import is gone", || Ok(kube.get(from, "serviceimport", SHOP, IPERF)?.is_none().then_some(())))?;
    }
    Ok(found)
}

/// The addresses of each way, IPv4 and IPv6.
type Addresses = [[IpAddr; 2]; 3];

/// Starts servers in one cluster, exports them, and gives them a ClusterIP in the other too.
fn serve(kube: &Kube, from: &str, to: &str) -> Result<Addresses> {
    let servers = WAYS.map(|(_, port)| port);
    kube.apply(to, &[iperf::service(&servers), iperf::pod(&servers), shop::export_of(IPERF)])?;
    let direct = iperf::own_addresses(kube, to)?;

    let ports = iperf::ports(&servers);
    let slices = direct.iter().map(|ip| {
        let (kind, name) = if ip.is_ipv4() { ("IPv4", "by-proxy-4") } else { ("IPv6", "by-proxy-6") };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": kind,
            "metadata": {"namespace": SHOP, "name": name, "labels": {"kubernetes.io/service-name": "by-proxy"}},
            "ports": ports, "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
        })
    });
    let by_proxy = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": SHOP, "name": "by-proxy"},
        "spec": {"ipFamilyPolicy": "RequireDualStack", "ports": ports},
    });
    kube.apply(from, &std::iter::once(by_proxy).chain(slices).collect::<Vec<_>>())?;
    let service = kube.get(from, "service", SHOP, "by-proxy")?.context("service by-proxy: not there")?;
    let cluster_ip = iperf::both(service["spec"]["clusterIPs"].as_array().into_iter().flatten())?;
    let all = [direct, cluster_ip, iperf::cluster_set_ips(kube, from)?];
    for ip in all.iter().flatten() {
        let url = format!("{}:{}", host(&ip.to_string()), iperf::HTTP);
        kube.until(&format!("{url} answers"), || Ok(Some(shop::ask(kube, from, &url)?)))?;
    }
    Ok(all)
}

fn throughput(kube: &Kube, from: &str, proxy: &str, addresses: &Addresses, size: Size) -> Result<Found> {
    let (rounds, seconds) = if size == Size::Quick { (2, 1) } else { (10, 2) };
    let mut found = Found::default();
    let mut table =
        Table::new(["Gbit/s", "direct", "ClusterIP", "ratio", "p25–p75", "ClusterSetIP", "ratio", "p25–p75"]);
    for protocol in Protocol::BOTH {
        for (family, name) in ["IPv4", "IPv6"].iter().enumerate() {
            let mut ways = [const { Runs(Vec::new()) }; 3];
            let mut progress = Progress::new(format!("iperf3 {protocol} {name} from {from}"), rounds);
            for round in 0..rounds {
                let results = thread::scope(|scope| {
                    let one = |way: usize| {
                        move || measure(kube, from, addresses[way][family], WAYS[way].1, protocol, seconds)
                    };
                    [0, 1, 2].map(|way| scope.spawn(one(way))).map(std::thread::ScopedJoinHandle::join)
                });
                for (runs, result) in ways.iter_mut().zip(results) {
                    runs.0.push(result.ok().context("a run panicked")??);
                }
                progress.at(round);
            }
            let [direct, cluster_ip, cluster_set_ip] = &ways;
            let ratios = [cluster_ip, cluster_set_ip].map(|way| way.with(direct, |way, direct| way / direct));
            table.row([
                format!("{protocol} {name}"),
                digits(direct.median()),
                digits(cluster_ip.median()),
                ratio(ratios[0].median()),
                quartiles(ratios[0].spread()),
                digits(cluster_set_ip.median()),
                ratio(ratios[1].median()),
                quartiles(ratios[1].spread()),
            ]);
            for ((way, _), runs) in WAYS.iter().zip(&ways) {
                let name = format!("clusters/throughput/{proxy}/{protocol} {name}/{way}");
                found.figures.push(runs.figure_against(name, "Gbit/s", direct));
            }
            let goal = format!("iperf3 {protocol} {name} from a pod of {from} through the ClusterSetIP, over direct");
            found.goals.push(at_least(goal, ratios[1].median(), 0.98, ""));
        }
    }
    println!(
        "iperf3 from a pod of {from} (kube-proxy {proxy}) to a pod of the other cluster, all three at once, {rounds} rounds\n{table}"
    );
    Ok(found)
}

fn measure(kube: &Kube, from: &str, to: IpAddr, port: u16, protocol: Protocol, seconds: u32) -> Result<f64> {
    let answer = iperf::run(kube, from, to, port, protocol, seconds)?;
    received(&answer).with_context(|| format!("iperf3 to {to}: no figure of the receiver"))
}

fn connections(kube: &Kube, from: &str, proxy: &str, addresses: &Addresses, size: Size) -> Result<Found> {
    let rounds = if size == Size::Quick { 2 } else { 15 };
    let mut found = Found::default();
    let mut table = Table::new(["", "connect µs", "p25–p75", "requests/s", "p25–p75", "over direct"]);
    for (family, name) in ["IPv4", "IPv6"].iter().enumerate() {
        let variants: Vec<(&str, IpAddr)> =
            WAYS.iter().zip(addresses).map(|((way, _), addresses)| (*way, addresses[family])).collect();
        let what = format!("connections {name} from {from}");
        let results = in_turn(&what, variants, rounds, true, |(_, ip)| curl(kube, from, *ip))?;
        let of = |index: usize| runs(&results[index].1, |(_, rate)| *rate);
        let direct = of(0);
        for (index, ((way, _), result)) in results.iter().enumerate() {
            let (connect, rate) = (runs(result, |(connect, _)| *connect), of(index));
            table.row([
                format!("{way} {name}"),
                digits(connect.median()),
                quartiles(connect.spread()),
                digits(rate.median()),
                quartiles(rate.spread()),
                ratio(rate.with(&direct, |way, direct| way / direct).median()),
            ]);
            let name = format!("clusters/connections/{proxy}/{name}/{way}");
            found.figures.push(rate.figure_against(name, "1/s", &direct));
        }
    }
    println!(
        "connect, ask, close from a pod of {from} (kube-proxy {proxy}), {rounds} rounds of {CONNECTIONS} in turn\n{table}"
    );
    Ok(found)
}

/// The median connect in microseconds, and requests in a second.
fn curl(kube: &Kube, from: &str, to: IpAddr) -> Result<(f64, f64)> {
    let url = format!("http://{}:8080/hostname?n=[1-{CONNECTIONS}]", host(&to.to_string()));
    let format = "%{http_code} %{time_connect} %{time_total}\n";
    let command = ["curl", "-s", "-m", "5", "-o", "/dev/null", "-H", "Connection: close", "-w", format, &url];
    let said = kube.exec(from, SHOP, CLIENT, &command)?;
    let lines: Vec<[f64; 3]> = said.lines().filter_map(numbers).collect();
    let answered = lines.iter().filter(|[status, ..]| *status == 200.0).count();
    ensure!(answered == CONNECTIONS as usize, "{url}: {answered} of {CONNECTIONS} answered");
    let connect = Runs(lines.iter().map(|[_, connect, _]| connect * 1e6).collect());
    let total: f64 = lines.iter().map(|[.., total]| total).sum();
    Ok((connect.median(), f64::from(CONNECTIONS) / total))
}

fn numbers(line: &str) -> Option<[f64; 3]> {
    let numbers: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().ok()
}
