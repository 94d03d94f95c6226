//! `mcs dns` beside a real CoreDNS with its `multicluster` option, on the same objects of a real API server: queries per
//! second, the time that one takes, and memory.
//!
//! ```text
//!   CPU 0: the server that has its turn          CPU 1: the asker, here
//!   the other one is stopped (SIGSTOP)           window of queries | one query every so often
//! ```
//!
//! Each round, each server has its turn; ratios are of the same round. Time is taken at half of the rate that CoreDNS came
//! to, the same for both, as a busy server's queue says more about the asker than about the server.

mod asker;

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mcs_tests::apiserver::ApiServer;
use mcs_tests::client::{Client, Kind, condition};
use mcs_tests::dns::{self, DnsServer};
use mcs_tests::mcs;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

use self::asker::{Asker, Latency};
use crate::Size;
use crate::figures::{Figure, Found, Runs, Table, at_least, at_most, digits, once, quartiles, ratio};
use crate::progress::say;
use crate::turns::{in_turn, runs};

/// Requests at a time while objects are made.
const WRITERS: usize = 8;
/// Queries under way at a time, while throughput is measured.
const WINDOW: usize = 64;
/// How long anything may take before the bench gives up.
const LIMIT: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "bench";

/// What is asked.
#[derive(Clone, Copy, Debug)]
struct Kindred {
    name: &'static str,
    rtype: u16,
    exists: bool,
}

const KINDS: [Kindred; 3] = [
    Kindred { name: "A", rtype: 1, exists: true },
    Kindred { name: "SRV", rtype: 33, exists: true },
    Kindred { name: "no such name", rtype: 1, exists: false },
];

/// Why it cannot run here.
pub(crate) fn missing() -> Option<String> {
    let cpus = sched_getaffinity(None).map_or(0, |set| set.count());
    dns::missing().or_else(|| (cpus < 2).then(|| format!("one CPU each: there is {cpus}")))
}

pub(crate) fn run(size: Size) -> Result<Found> {
    let (imports, rounds, lasting) = match size {
        Size::Quick => (500, 3, Duration::from_millis(300)),
        Size::Usual | Size::Full => (10_000, 9, Duration::from_secs(1)),
    };
    say("starting an API server");
    let server = ApiServer::start("names")?;
    let client = server.client()?;
    make(&client, imports)?;
    say("starting CoreDNS and mcs dns");
    let coredns = DnsServer::coredns(&server, &["taskset", "-c", "0"])?;
    let kubeconfig = server.kubeconfig().display().to_string();
    let source = ["--source", "kube", "--kubeconfig", &kubeconfig];
    let mcs = DnsServer::mcs(server.dir(), &source, &[], &["taskset", "-c", "0"])?;
    let servers = [&coredns, &mcs];
    for server in servers {
        let last = format!("s{}.{NAMESPACE}.svc", imports - 1);
        server.wait("the last service", &last, "A", |answer| answer.count() == 1)?;
    }
    let mut found = Found::default();
    memory(servers, imports, &mut found)?;

    let mut ours = CpuSet::new();
    ours.set(1);
    let before = sched_getaffinity(None)?;
    sched_setaffinity(None, &ours)?;
    let measured = measure(servers, imports, rounds, lasting, &mut found);
    sched_setaffinity(None, &before)?;
    measured?;
    Ok(found)
}

fn memory(servers: [&DnsServer; 2], imports: usize, found: &mut Found) -> Result<()> {
    let mut table = Table::new(["", "resident MiB"]);
    let [coredns, mcs] = servers.map(|server| mcs::resident_memory(server.pid()));
    let mib = |bytes: u64| Runs(vec![bytes as f64 / f64::from(1 << 20)]);
    let (coredns, mcs) = (mib(coredns?), mib(mcs?));
    for (server, memory) in servers.into_iter().zip([&coredns, &mcs]) {
        table.row([server.name().to_owned(), digits(memory.median())]);
    }
    println!("{imports} imports, a slice of two endpoints each\n\n{table}");
    let figure = mcs.figure_against("dns/memory", "MiB", &coredns);
    found.goals.push(at_most("mcs dns' memory against CoreDNS'", figure.ratio.unwrap_or(f64::NAN), 1.0 / 3.0, ""));
    found.figures.push(figure);
    Ok(())
}

fn measure(
    servers: [&DnsServer; 2],
    imports: usize,
    rounds: usize,
    lasting: Duration,
    found: &mut Found,
) -> Result<()> {
    let mut table = Table::new(["", "1/s", "p25–p75", "ratio", "at 1/s", "p50 µs", "p99 µs", "ratio", "unanswered"]);
    for kind in KINDS {
        let asker = Asker::new(imports, kind.rtype, kind.exists)?;
        let rates = in_turn(&format!("{}: queries per second", kind.name), servers.to_vec(), rounds, true, |server| {
            alone(servers, server, || asker.throughput(server.addr(), WINDOW, lasting))
        })?;
        let rates: Vec<Runs> = rates.iter().map(|(_, rates)| runs(rates, |rate| *rate)).collect();
        let [coredns, mcs] = &rates[..] else { unreachable!("two servers") };
        let pace = (coredns.median() / 2.0).max(100.0);
        let times = in_turn(&format!("{}: time of one", kind.name), servers.to_vec(), rounds, true, |server| {
            alone(servers, server, || asker.latency(server.addr(), pace, lasting))
        })?;
        let of =
            |number: fn(&Latency) -> f64| -> Vec<Runs> { times.iter().map(|(_, times)| runs(times, number)).collect() };
        let (p50, p99) = (of(|time| time.p50_us), of(|time| time.p99_us));
        let lost: Vec<u64> = times.iter().map(|(_, times)| times.iter().map(|time| time.lost).sum()).collect();
        for (n, server) in servers.into_iter().enumerate() {
            table.row([
                format!("{}, {}", server.name(), kind.name),
                digits(rates[n].median()),
                quartiles(rates[n].spread()),
                ratio(rates[n].with(coredns, |a, b| a / b).median()),
                digits(pace),
                digits(p50[n].median()),
                digits(p99[n].median()),
                ratio(p99[n].with(&p99[0], |a, b| a / b).median()),
                lost[n].to_string(),
            ]);
        }
        let figure = mcs.figure_against(format!("dns/rate/{}", kind.name), "1/s", coredns);
        if kind.name == "A" {
            let ratio = figure.ratio.unwrap_or(f64::NAN);
            found.goals.push(at_least("mcs dns' queries per second against CoreDNS', one core each", ratio, 3.0, ""));
        }
        found.figures.push(figure);
        let unanswered = once(format!("dns/unanswered/{}", kind.name), lost[1] as f64, "");
        let what = format!("mcs dns: queries without an answer, {}", kind.name);
        found.goals.push(at_most(what, unanswered.value, 0.0, ""));
        found.figures.push(Figure { baseline: Some(lost[0] as f64), ..unanswered });
        found.figures.push(p99[1].figure_against(format!("dns/p99/{}", kind.name), "µs", &p99[0]));
    }
    println!("{table}");
    Ok(())
}

/// Lets a server run while the others are stopped: they share its CPU.
fn alone<T>(servers: [&DnsServer; 2], server: &DnsServer, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let signal = |signal| -> Result<()> {
        for other in servers.into_iter().filter(|other| other.pid() != server.pid()) {
            let pid = Pid::from_raw(other.pid().try_into()?).context("a pid")?;
            kill_process(pid, signal).with_context(|| format!("signal {}", other.name()))?;
        }
        Ok(())
    };
    signal(Signal::STOP)?;
    let result = work();
    signal(Signal::CONT)?;
    result
}

/// Our definitions, and services by ClusterSetIP with two endpoints each.
fn make(client: &Client, imports: usize) -> Result<()> {
    client.apply_yaml(&mcs::run(["crds"])?)?;
    client.wait((Kind::CRD, "", "serviceimports.multicluster.x-k8s.io"), LIMIT, "established", |crd| {
        crd.and_then(|crd| condition(crd, "Established")).is_some_and(|condition| condition["status"] == "True")
    })?;
    client.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))?;
    say(&format!("making {imports} imports"));
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    for number in (writer..imports).step_by(WRITERS) {
                        client.create(&import(number))?;
                        client.create(&slice(number))?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn import(number: usize) -> Value {
    let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 97, 0, 1)) + u32::try_from(number).unwrap_or(0));
    json!({
        "apiVersion": Kind::IMPORT.api_version, "kind": "ServiceImport",
        "metadata": {"namespace": NAMESPACE, "name": format!("s{number}")},
        "spec": {"type": "ClusterSetIP", "ips": [ip], "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
    })
}

fn slice(number: usize) -> Value {
    let endpoint = |n: u32| {
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + 2 * u32::try_from(number).unwrap_or(0) + n);
        json!({"addresses": [ip], "conditions": {"ready": true}})
    };
    json!({
        "apiVersion": Kind::SLICE.api_version, "kind": "EndpointSlice",
        "metadata": {"namespace": NAMESPACE, "name": format!("s{number}-a"), "labels": {
            "multicluster.kubernetes.io/service-name": format!("s{number}"),
            "multicluster.kubernetes.io/source-cluster": "a",
        }},
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [endpoint(0), endpoint(1)],
    })
}
