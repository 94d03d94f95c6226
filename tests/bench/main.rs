//! `cargo xtask bench`: what the dataplane costs, as ratios in one run with the absolute figures beside them; and how fast
//! and how big the control plane is.
//!
//! ```text
//! dataplane
//!  connect       kernel time of a connect: none, empty, miss, hit, affinity, weights; 1 × 100 and 10 000 × 100
//!  programming   10 000 × 100 from nothing, one change, memory: in a process of its own and in a real agent
//!  throughput    iperf3 through the ClusterSetIP against direct, pod to pod over the fleet
//!  rate          TCP connect/request/response rate and latency, ClusterSetIP against direct
//!  kube-proxy    both, beside the rules that kube-proxy would write in its iptables and nftables modes
//! control-plane
//!  propagation   from a change in one cluster to its consequence in the other, over real API servers
//!  scale         5 000 × 20: controllers' memory, what lies at the broker, an agent, what one change writes
//! clusters
//!  pods          iperf3 and connections from a pod: direct, ClusterIP by kube-proxy, ClusterSetIP
//!  latency       from a pod's readiness to the maps of a node of another cluster
//!  outage        rolling restarts, API server and broker away, a node and a cluster lost, under load
//! dns
//!  names         queries per second, time and memory of `mcs dns` with 10 000 imports, beside a real CoreDNS
//! ```
//!
//! Everything runs in network namespaces and cgroups of the fleet harness and leaves nothing behind. Each section prints
//! its tables; at the end stands which goals were met, and `--json` names the file with one record for each figure.
//! How a thing is measured is said in its section's module.

#![allow(clippy::print_stdout, reason = "a tool for a person at a terminal: stdout is its interface")]

mod bpf;
mod clusters;
mod connect;
mod control_plane;
mod dns;
mod figures;
mod iperf;
mod kube_proxy;
mod load;
mod memory;
mod network;
mod programming;
mod progress;
mod rate;
mod requests;
mod site;
mod throughput;
mod turns;
mod world;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use mcs_tests::{Fleet, apiserver, kube, privilege};

use crate::figures::{Found, Goal, Table, digits};

/// What is measured, and how thoroughly.
#[derive(Parser, Debug)]
#[command(name = "bench")]
struct Args {
    /// What to bench.
    #[arg(value_enum)]
    what: What,
    /// Few rounds and small sizes: to see that it works, not what it says.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The sizes too that take minutes to set up.
    #[arg(long)]
    full: bool,
    /// Only this section; repeatable.
    #[arg(long, value_enum, value_name = "SECTION")]
    only: Vec<Section>,
    /// Fail if a goal is missed.
    #[arg(long)]
    check: bool,
    /// Where to write the records.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Dataplane,
    ControlPlane,
    Clusters,
    Dns,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    Connect,
    Programming,
    Throughput,
    Rate,
    KubeProxy,
    Propagation,
    Scale,
    Pods,
    Latency,
    Outage,
    Names,
}

/// How thorough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Quick,
    Usual,
    Full,
}

impl Section {
    fn of(self) -> What {
        match self {
            Self::Connect | Self::Programming | Self::Throughput | Self::Rate | Self::KubeProxy => What::Dataplane,
            Self::Propagation | Self::Scale => What::ControlPlane,
            Self::Pods | Self::Latency | Self::Outage => What::Clusters,
            Self::Names => What::Dns,
        }
    }

    fn run(self, size: Size) -> Result<Found> {
        match self {
            Self::Connect => connect::run(size),
            Self::Programming => programming::run(size),
            Self::Throughput => throughput::run(size),
            Self::Rate => rate::run(size),
            Self::KubeProxy => kube_proxy::run(size),
            Self::Propagation => control_plane::propagation::run(size),
            Self::Scale => control_plane::scale::run(size),
            Self::Pods => clusters::pods::run(size),
            Self::Latency => clusters::latency::run(size),
            Self::Outage => clusters::outage::run(size),
            Self::Names => dns::run(size),
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    let missing = match args.what {
        What::Dataplane => privilege::missing(),
        What::ControlPlane => apiserver::missing(),
        What::Clusters => kube::missing(),
        What::Dns => dns::missing(),
    };
    if let Some(why) = missing {
        bail!("cannot run here: {why}");
    }
    match args.what {
        What::Dataplane => Fleet::on_signal()?,
        What::Clusters => kube::on_signal()?,
        What::ControlPlane | What::Dns => {}
    }
    let size = match (args.quick, args.full) {
        (true, _) => Size::Quick,
        (_, true) => Size::Full,
        _ => Size::Usual,
    };
    let mut found = Found::default();
    for section in Section::value_variants() {
        if section.of() == args.what && (args.only.is_empty() || args.only.contains(section)) {
            let name = section.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
            println!("\n=== {name}\n");
            let started = Instant::now();
            found.extend(section.run(size)?);
            println!("=== {name}: {:.0} s", started.elapsed().as_secs_f64());
        }
    }
    if !found.goals.is_empty() {
        println!("\n=== goals\n\n{}", verdict(&found.goals));
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&found.figures).context("write figures as JSON")?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
        println!("{} figures in {}", found.figures.len(), path.display());
    }
    Ok(found.goals.iter().all(|goal| goal.met))
}

fn verdict(goals: &[Goal]) -> Table {
    let mut table = Table::new(["goal", "bound", "figure", ""]);
    for Goal { what, figure, bound, at_least, unit, met } in goals {
        let sign = if *at_least { "≥" } else { "≤" };
        let with_unit = |number: String| format!("{number} {unit}").trim_end().to_owned();
        let text = if unit.is_empty() { format!("{figure:.3}") } else { digits(*figure) };
        table.row([
            what.clone(),
            with_unit(format!("{sign} {bound}")),
            with_unit(text),
            if *met { "met" } else { "NOT MET" }.to_owned(),
        ]);
    }
    table
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|verb| verb == programming::child::VERB) {
        return ended(programming::child::main(&arguments[1..]).map(|()| true), false);
    }
    if arguments.first().is_some_and(|verb| verb == clusters::watch::VERB) {
        return ended(clusters::watch::main(&arguments[1..]).map(|()| true), false);
    }
    let args = Args::parse();
    ended(run(&args), args.check)
}

/// The exit code: a missed goal is a failure only if asked for, as machines that are busy miss them.
fn ended(result: Result<bool>, check: bool) -> ExitCode {
    match result {
        Ok(all_met) if all_met || !check => ExitCode::SUCCESS,
        Ok(_) => {
            eprintln!("bench: a goal was missed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
