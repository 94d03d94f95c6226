//! `cargo xtask demo`: sets up, builds, and becomes the demo.
//!
//! The demo itself is a program of the test package (tests/demo), as it uses the fleet harness; xtask must build on a
//! machine that has no toolchain for kernel programs yet, and can depend on neither.

use std::{os::unix::process::CommandExt as _, process::Command, time::Instant};

use anyhow::{Context as _, Result, bail};

use crate::{
    child,
    setup::{self, Group, seconds},
    workspace::Workspace,
};

/// Show what mcs does, on this machine: two clusters out of network namespaces and cgroups, an agent on each node.
///
/// Sets up what is missing, builds mcs and the demo (minutes the first time), and runs it (under 90 s): iperf3 through a
/// ClusterSetIP and straight to a pod, TCP and UDP, IPv4 and IPv6; how connections spread over both clusters; one
/// cluster's endpoints leaving while connections run. Needs root for namespaces, cgroups and BPF (asks sudo if it is
/// there). Ctrl-C removes everything, as does its end. Exits with 0 only if all that it shows holds.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
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
    if !child::is_root() && child::find("sudo").is_none() {
        bail!("demo: namespaces, cgroups and BPF need root, and there is no sudo: run it as root");
    }
    setup::need(&[Group::Demo])?;
    let workspace = Workspace::open()?;
    build(&workspace)?;
    let program = workspace.target.join("release").join("demo");
    let mut demo = if child::is_root() { child::command(&program) } else { under_sudo(&program) };
    demo.arg(format!("--seconds={}", args.seconds)).args(args.keep.then_some("--keep"));
    // This process becomes the demo, as cargo became this one: so it has the terminal, and whoever signals the process
    // that was started signals the demo, which cleans up. Returns only if that fails.
    Err(demo.exec()).with_context(|| format!("start {}", child::show(&demo)))
}

/// Builds `mcs` and the demo side by side; the demo takes the `mcs` that lies beside it.
fn build(workspace: &Workspace) -> Result<()> {
    println!("demo: building mcs and the demo, optimized …");
    let start = Instant::now();
    let build = ["build", "--release", "-p", "mcs-userspace", "-p", "mcs-tests", "--bin", "mcs", "--bin", "demo"];
    child::run(child::cargo(build).current_dir(&workspace.root))?;
    println!("demo: built in {}", seconds(start.elapsed()));
    Ok(())
}

fn under_sudo(program: &std::path::Path) -> Command {
    println!("demo: namespaces, cgroups and BPF need root: asking sudo");
    let mut demo = child::command("sudo");
    demo.arg(program);
    demo
}
