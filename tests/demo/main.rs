//! `cargo xtask demo`: two clusters on this machine, ClusterSetIPs between them, and what a person wants to see of that.
//! With `--kube` they are real Kubernetes clusters: [`kube`].
//!
//! ```text
//!  main ──► stage       the fleet, its servers and agents, the manifests; and its removal
//!     │  ├─ throughput  iperf3 through a ClusterSetIP and straight      (iperf: one run)
//!     │  ├─ spread      who got 1000 connections                        (counters: what agents counted)
//!     │  └─ drain       a cluster leaves while connections run          (load: those connections)
//!     └────► screen      headings, lines, checks     ending: Ctrl-C, and the proof that nothing is left
//! ```
//!
//! It is a program of the test package and not of xtask because xtask must build before there is a toolchain for kernel
//! programs, and it uses `mcs` as its users do: as a program.

mod counters;
mod drain;
mod ending;
mod iperf;
mod kube;
mod load;
mod screen;
mod spread;
mod stage;
mod throughput;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use mcs_tests::privilege;

use screen::Screen;
use stage::Stage;

/// Two clusters of two nodes out of network namespaces and cgroups, `mcs agent` on each node, and a look at what
/// ClusterSetIPs do: throughput, spread over the clusters, a cluster that leaves. With --kube: real Kubernetes clusters,
/// from the installation of mcs to its removal.
///
/// Needs root and iperf3; with --kube the clusters' programs and an image. Removes all that it made, after Ctrl-C too. Exits with 0 only if all that it shows holds.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Args {
    /// On real Kubernetes clusters, and with what one would type.
    #[arg(long)]
    kube: bool,
    /// Seconds of iperf3 for each figure (there are eight), in runs of one second.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Wait for Enter before everything is removed, and say how to look around.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match if args.kube { kube::run(&args) } else { run(&args) } {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            ending::wait_if_interrupted();
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all that was shown holds.
fn run(args: &Args) -> Result<bool> {
    if let Some(why) = privilege::missing() {
        bail!("this machine cannot show it: {why}");
    }
    ending::on_signal()?;
    let mut screen = Screen::new(stage::STEPS);
    let mut stage = Stage::build(&mut screen)?;
    ending::remember(&stage.fleet)?;
    let shown = show(&mut stage, args, &mut screen);
    if let Err(error) = &shown {
        // After Ctrl-C everything fails, and the other thread cleans up.
        ending::wait_if_interrupted();
        eprintln!("\ndemo: stopped: {error:#}");
    }
    if shown.is_err() || !screen.all_hold() {
        stage.print_logs();
    }
    let kept = if args.keep { stage.keep(&mut screen) } else { Ok(()) };
    ending::remove(stage, &mut screen)?;
    kept?;
    if shown.is_err() {
        return Ok(false);
    }
    screen.verdict()?;
    Ok(screen.all_hold())
}

fn show(stage: &mut Stage, args: &Args, screen: &mut Screen) -> Result<()> {
    stage.publish(screen)?;
    throughput::show(stage, args.seconds, screen)?;
    spread::show(stage, screen)?;
    drain::show(stage, screen)
}
