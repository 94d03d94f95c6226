//! Side by side: direct, ClusterSetIP by mcs, ClusterIP by kube-proxy's iptables rules, ClusterIP by its nftables rules.
//!
//! The rules are the ones that kube-proxy would write for the same services, in its shape ([`iptables`], [`nftables`]), on
//! a node of their own each, where they translate what pods send when it arrives at the node (PREROUTING), the first
//! packet of a flow by the rules and all others by conntrack. mcs has the same services in its maps. Fillers have three
//! endpoints each; the two services that are measured stand in the middle, as iptables' chain of services is searched from
//! the top.
//!
//! All variants have their turn in each round. "direct" is from the pod on mcs' node, whose node has no netfilter rules.

mod iptables;
mod nftables;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mcs::model::Protocol as ModelProtocol;
use mcs_tests::identity::Protocol;
use mcs_tests::{Family, Pod};

use crate::Size;
use crate::figures::{Found, Table, digits, once, quartiles, ratio};
use crate::load::Load;
use crate::network::{IPERF_PORT, Network, RATE_PORT, iperf_vip, rate_vip};
use crate::progress::say;
use crate::turns::{in_turn, runs};
use crate::{iperf, requests};

/// A service as both modes of kube-proxy see it.
struct Service {
    name: String,
    ip: Ipv4Addr,
    port: u16,
    endpoints: Vec<SocketAddrV4>,
}

/// The ClusterIPs of the measured services; fillers count up from 10.96.0.1.
const IPERF_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 255, 1);
const RATE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 255, 2);

/// What is measured with how many services.
struct Step {
    services: u16,
    iptables: bool,
}

fn steps(size: Size) -> Vec<Step> {
    let step = |services, iptables| Step { services, iptables };
    match size {
        Size::Quick => vec![step(1, true), step(100, true)],
        Size::Usual => vec![step(1, true), step(1_000, true), step(10_000, false)],
        Size::Full => vec![step(1, true), step(1_000, true), step(10_000, true)],
    }
}

/// A way to the server.
struct Way<'a> {
    name: &'static str,
    from: &'a Pod,
    iperf: SocketAddr,
    rate: Vec<SocketAddr>,
}

/// Rounds of a step.
struct Effort {
    rate_rounds: usize,
    rate_lasting: Duration,
    iperf_rounds: usize,
    iperf_seconds: u32,
}

pub(crate) fn run(size: Size) -> Result<Found> {
    let ms = Duration::from_millis;
    let effort = match size {
        Size::Quick => Effort { rate_rounds: 3, rate_lasting: ms(200), iperf_rounds: 1, iperf_seconds: 1 },
        Size::Usual | Size::Full => Effort { rate_rounds: 9, rate_lasting: ms(600), iperf_rounds: 4, iperf_seconds: 2 },
    };
    let network = Network::build(3)?;
    let _requests = requests::Server::start(network.server(), RATE_PORT)?;
    let _iperf = iperf::Server::start(network.server(), IPERF_PORT)?;
    let mut found = Found::default();
    for step in steps(size) {
        measure(&network, &step, &effort, &mut found)?;
    }
    Ok(found)
}

fn measure(network: &Network, step: &Step, effort: &Effort, found: &mut Found) -> Result<()> {
    let Step { services, iptables } = *step;
    let mut ways = set_up(network, services, iptables, found)?;
    if !iptables {
        ways.retain(|way| way.name != IPTABLES);
    }
    let mut table = Table::new([
        "",
        "1/s",
        "p25–p75",
        "ratio",
        "p50 µs",
        "ratio",
        "p99 µs",
        "iperf3 TCP Gbit/s",
        "p25–p75",
        "ratio",
    ]);
    let label = label(services);
    let results = in_turn(&format!("requests, {label}"), ways, effort.rate_rounds, true, |way| {
        requests::measure(way.from, &way.rate, 1, effort.rate_lasting)
    })?;
    let (ways, samples): (Vec<Way<'_>>, Vec<_>) = results.into_iter().unzip();
    let throughput = in_turn(&format!("iperf3 TCP, {label}"), ways, effort.iperf_rounds, false, |way| {
        iperf::measure(way.from, way.iperf, Protocol::Tcp, effort.iperf_seconds)
    })?;
    let (Some(direct), Some((_, direct_gbit))) = (samples.first(), throughput.first()) else {
        bail!("no way measured")
    };
    let (direct_rate, direct_p50) = (runs(direct, |s| s.per_second), runs(direct, |s| s.p50));
    let direct_gbit = runs(direct_gbit, |gbit| *gbit);
    for ((way, gbit), samples) in throughput.iter().zip(&samples) {
        let (rate, p50) = (runs(samples, |s| s.per_second), runs(samples, |s| s.p50));
        let (p99, gbit) = (runs(samples, |s| s.p99), runs(gbit, |gbit| *gbit));
        let name = format!("kube-proxy/{label}/{}", way.name);
        let figures = [
            rate.figure_against(format!("{name}: requests"), "1/s", &direct_rate),
            p50.figure_against(format!("{name}: p50"), "µs", &direct_p50),
            p99.figure(format!("{name}: p99"), "µs"),
            gbit.figure_against(format!("{name}: iperf3 TCP"), "Gbit/s", &direct_gbit),
        ];
        let ratio_of = |index: usize| ratio(figures.get(index).and_then(|figure| figure.ratio).unwrap_or(f64::NAN));
        table.row([
            way.name.to_owned(),
            digits(rate.median()),
            quartiles(rate.spread()),
            ratio_of(0),
            digits(p50.median()),
            ratio_of(1),
            digits(p99.median()),
            digits(gbit.median()),
            quartiles(gbit.spread()),
            ratio_of(3),
        ]);
        found.figures.extend(figures);
    }
    println!("With {label}\n{table}");
    Ok(())
}

fn label(services: u16) -> String {
    if services == 1 { "1 service".to_owned() } else { format!("{services} services") }
}

const IPTABLES: &str = "kube-proxy iptables";
const NFTABLES: &str = "kube-proxy nftables";

/// Writes the rules and gives mcs the same services.
fn set_up<'a>(network: &'a Network, services: u16, iptables: bool, found: &mut Found) -> Result<Vec<Way<'a>>> {
    let load = Load { services, endpoints: 3, protocol: ModelProtocol::Tcp };
    network.add_manifest("fillers.json", &load.json(0..services, Family::V4))?;
    let all = all_services(network, services);
    let mut timed = |what: &str, load: &dyn Fn() -> Result<()>| -> Result<()> {
        say(&format!("{what}: {}", label(services)));
        let started = Instant::now();
        load()?;
        let took = started.elapsed().as_secs_f64();
        println!("  {what}: {} loaded in {took:.2} s", label(services));
        found.figures.push(once(format!("kube-proxy/{}/{what}: load", label(services)), took, "s"));
        Ok(())
    };
    if iptables {
        timed(IPTABLES, &|| iptables::load(&network.fleet, network.fleet.node("a2"), &all))?;
    }
    timed(NFTABLES, &|| nftables::load(&network.fleet, network.fleet.node("a3"), &all))?;

    let direct = network.rate_endpoints(Family::V4).into_iter().map(|ip| SocketAddr::new(ip, RATE_PORT)).collect();
    let by_rules = |name, node| Way {
        name,
        from: network.client(node),
        iperf: (IPERF_IP, IPERF_PORT).into(),
        rate: vec![(RATE_IP, RATE_PORT).into()],
    };
    let mcs = network.client("a1");
    Ok(vec![
        Way { name: "direct", from: mcs, iperf: network.server().socket(Family::V4, IPERF_PORT), rate: direct },
        Way { name: "ClusterSetIP, mcs", from: mcs, iperf: iperf_vip(Family::V4), rate: vec![rate_vip(Family::V4)] },
        by_rules(IPTABLES, "a2"),
        by_rules(NFTABLES, "a3"),
    ])
}

/// Fillers, with the measured ones in the middle. "1 service" is the measured ones alone.
fn all_services(network: &Network, services: u16) -> Vec<Service> {
    let v4 = |ip: IpAddr, port| match ip {
        IpAddr::V4(ip) => Some(SocketAddrV4::new(ip, port)),
        IpAddr::V6(_) => None,
    };
    let fillers = if services == 1 { 0 } else { services.saturating_sub(2) };
    let filler = |number: u16| {
        let [high, low] = (number + 1).to_be_bytes();
        let endpoints = (0..3).filter_map(|endpoint| {
            v4(mcs_tests::manifest::load_address(Family::V4, u32::from(number) * 3 + endpoint), 8080)
        });
        Service {
            name: format!("svc-{number}"),
            ip: Ipv4Addr::new(10, 96, high, low),
            port: 80,
            endpoints: endpoints.collect(),
        }
    };
    let measured = [
        Service {
            name: "iperf".to_owned(),
            ip: IPERF_IP,
            port: IPERF_PORT,
            endpoints: v4(network.server().ip(Family::V4), IPERF_PORT).into_iter().collect(),
        },
        Service {
            name: "rate".to_owned(),
            ip: RATE_IP,
            port: RATE_PORT,
            endpoints: network.rate_endpoints(Family::V4).into_iter().filter_map(|ip| v4(ip, RATE_PORT)).collect(),
        },
    ];
    let middle = fillers / 2;
    (0..middle).map(filler).chain(measured).chain((middle..fillers).map(filler)).collect()
}

/// Stands for the hash that kube-proxy puts into names of chains: as long, and another for each service and endpoint.
fn hash(service: usize, endpoint: usize) -> String {
    let mixed = ((service as u64) << 16 | endpoint as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{mixed:016X}")
}
