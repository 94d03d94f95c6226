//! `cargo xtask bench`: sets up, builds, and becomes the bench, as `demo` does.

use std::{os::unix::process::CommandExt as _, time::Instant};

use anyhow::{Context as _, Result, bail};

use crate::{
    child, image,
    setup::{self, Group, seconds},
    workspace::Workspace,
};

/// Measure, and print what the project promises beside what came out.
///
/// Takes under ten minutes each (with --quick one and a half; clusters twice that), and a machine that does nothing else:
/// variants are measured in turn and compared within one run, so that ratios hold on a busy machine longer than absolute
/// figures do, but not for ever. Ctrl-C removes everything, as does the end.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The kernel's part: connects, programming, throughput, request rates, kube-proxy beside it.
    ///
    /// Needs root for namespaces, cgroups and BPF. Sections: connect, programming, throughput, rate, kube-proxy. Writes one
    /// record for each figure to target/bench/dataplane.json: name, value, unit, baseline, ratio, runs, spread.
    Dataplane(How),
    /// The controllers and the broker on real API servers: how long changes take to the other cluster, how big 5 000
    /// services are.
    ///
    /// Sections: propagation, scale. Writes target/bench/control-plane.json.
    ControlPlane(How),
    /// mcs on real clusters, installed with `deploy/`, the optimized image: what pods get, how long a pod's readiness takes to
    /// the other cluster's nodes, what connections see of restarts and outages.
    ///
    /// Needs root. Sections: pods, latency, outage. Writes target/bench/clusters.json.
    Clusters(How),
    /// `mcs dns` beside a real CoreDNS on the same objects, one core each: queries per second, time of one, memory.
    ///
    /// Section: names. Writes target/bench/dns.json.
    Dns(How),
}

#[derive(Debug, clap::Args)]
struct How {
    /// Few rounds and small sizes: to see that it works, not what it says.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The sizes too that take minutes to set up.
    #[arg(long)]
    full: bool,
    /// Only this section; repeatable.
    #[arg(long, value_name = "SECTION")]
    only: Vec<String>,
    /// Exit with 1 if a goal is missed.
    #[arg(long)]
    check: bool,
}

/// `cargo xtask bench`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (what, How { quick, full, only, check }) = match &args.what {
        What::Dataplane(how) => ("dataplane", how),
        What::ControlPlane(how) => ("control-plane", how),
        What::Clusters(how) => ("clusters", how),
        What::Dns(how) => ("dns", how),
    };
    let real = matches!(args.what, What::Clusters(_));
    if (real || matches!(args.what, What::Dataplane(_))) && !child::is_root() {
        bail!("bench: namespaces, cgroups and BPF need root: run it as root");
    }
    setup::need(if real { &[Group::Bench, Group::Cluster] } else { &[Group::Bench] })?;
    let image = real.then(image::optimized).transpose()?;
    let workspace = Workspace::open()?;
    println!("bench: building mcs and the bench, optimized …");
    let start = Instant::now();
    let build = ["build", "--release", "-p", "mcs-userspace", "-p", "mcs-tests", "--bin", "mcs", "--bin", "bench"];
    child::run(child::cargo(build).current_dir(&workspace.root))?;
    println!("bench: built in {}", seconds(start.elapsed()));

    let release = workspace.target.join("release");
    let mut bench = child::command(release.join("bench"));
    bench.arg(what).env("MCS_BIN", release.join("mcs"));
    bench.envs(image.map(|image| ("MCS_IMAGE", image)));
    let flags = [(*quick, "--quick"), (*full, "--full"), (*check, "--check")];
    bench.args(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag));
    bench.args(only.iter().flat_map(|section| ["--only", section]));
    bench.arg("--json").arg(workspace.target.join("bench").join(format!("{what}.json")));
    // This process becomes the bench: it has the terminal and gets the signals, and cleans up. Returns only if that fails.
    Err(bench.exec()).with_context(|| format!("start {}", child::show(&bench)))
}
