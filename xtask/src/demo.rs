//! `cargo xtask demo`: sets up, builds, and becomes the demo.
//!
//! On real clusters (`--kube`) agents and controllers come out of an image, and the demo is built beside its program.
//!
//! The demo itself is a program of the test package (tests/demo), as it uses the fleet harness; xtask must build on a
//! machine that has no toolchain for kernel programs yet, and can depend on neither.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    child, image,
    setup::{self, Group, seconds},
    workspace::Workspace,
};

/// Show what mcs does, on this machine: two clusters out of network namespaces and cgroups, an agent on each node; or two
/// real Kubernetes clusters.
///
/// Sets up what is missing, builds mcs and the demo (minutes the first time), and runs it (under 90 s): iperf3 through a
/// ClusterSetIP and straight to a pod, TCP and UDP, IPv4 and IPv6; how connections spread over both clusters; one
/// cluster's endpoints leaving while connections run. Needs root for namespaces, cgroups and BPF (asks sudo if it is
/// there). Ctrl-C removes everything, as does its end. Exits with 0 only if all that it shows holds.
///
/// With --kube: two Kubernetes clusters of two nodes and a broker, from `mcs broker init` to `mcs leave`, with each line that one
/// would type and what comes out: a service of both clusters asked by address and by name, backends replaced under load, a
/// cluster that exports no more, iperf3. Builds what the clusters consist of the first time (25 minutes on two cores) and the
/// container image (10 minutes); then takes about 4 minutes. Needs root itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// On real Kubernetes clusters (`cargo xtask cluster`), installed with `deploy/`, with what one would type.
    #[arg(long)]
    kube: bool,
    /// Seconds of iperf3 for each figure (there are eight), in runs of one second.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Wait for Enter before everything is removed, and say how to look around.
    #[arg(long)]
    keep: bool,
}

/// `cargo xtask demo`.
pub(crate) fn run(args: &Args) -> Result<()> {
    // Asked first: nobody should wait for a build to learn this.
    if args.kube && !child::is_root() {
        bail!("demo: clusters need root: run it as root");
    }
    if !child::is_root() && child::find("sudo").is_none() {
        bail!("demo: namespaces, cgroups and BPF need root, and there is no sudo: run it as root");
    }
    setup::need(if args.kube { &[Group::Demo, Group::Cluster] } else { &[Group::Demo] })?;
    let workspace = Workspace::open()?;
    let start = Instant::now();
    let Built { program, image } = if args.kube { build_for_clusters(&workspace)? } else { build(&workspace)? };
    println!("demo: built in {}", seconds(start.elapsed()));
    let mut demo = if child::is_root() { child::command(&program) } else { under_sudo(&program) };
    demo.args(args.kube.then_some("--kube")).envs(image.map(|image| ("MCS_IMAGE", image)));
    demo.arg(format!("--seconds={}", args.seconds)).args(args.keep.then_some("--keep"));
    // This process becomes the demo, as cargo became this one: so it has the terminal, and whoever signals the process
    // that was started signals the demo, which cleans up. Returns only if that fails.
    Err(demo.exec()).with_context(|| format!("start {}", child::show(&demo)))
}

/// The demo, which takes the `mcs` that lies beside it, and what the clusters run.
struct Built {
    program: PathBuf,
    image: Option<PathBuf>,
}

/// Builds `mcs` and the demo side by side.
fn build(workspace: &Workspace) -> Result<Built> {
    println!("demo: building mcs and the demo, optimized …");
    let build = ["build", "--release", "-p", "mcs-userspace", "-p", "mcs-tests", "--bin", "mcs", "--bin", "demo"];
    child::run(child::cargo(build).current_dir(&workspace.root))?;
    Ok(Built { program: workspace.target.join("release").join("demo"), image: None })
}

/// The image has an optimized `mcs`, as its figures are shown; the demo is built beside that one.
fn build_for_clusters(workspace: &Workspace) -> Result<Built> {
    let image = image::optimized()?;
    let program = image::companion(workspace, "mcs-tests", "demo")?;
    Ok(Built { program, image: Some(image) })
}

fn under_sudo(program: &Path) -> Command {
    println!("demo: namespaces, cgroups and BPF need root: asking sudo");
    let mut demo = child::command("sudo");
    demo.arg(program);
    demo
}
