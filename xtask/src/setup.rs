//! `cargo xtask setup`: what a fresh machine lacks, installed.
//!
//! Each part looks whether it is there (milliseconds when everything is) and installs itself otherwise. A part that
//! cannot be had is one line on stderr (what: why: what to do), and the other parts go on. Verbs call [`need`] for
//! their group; it fails only for what nothing can be built or done without, because a missing iperf3 should not keep
//! anybody from the unit tests.

mod bpf_linker;
mod bpffs;
mod clusters;
mod go;
mod kubernetes;
mod packages;
mod prometheus;
mod rust_src;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{child, workspace::Workspace};

/// Install what is missing on this machine.
///
/// Idempotent; says what it installs and how long each step took. The other verbs call it for their own group.
///
/// Always: rust-src of the pinned compiler (from rustup, else from Debian's package of the same version), bpf-linker
/// (built by `cargo install`, about 70 s on two cores). Then Debian packages by apt-get, and bpffs at /sys/fs/bpf; these
/// two need root. Without it everything else works, and the lines on stderr say which command to run as root.
///
/// For tests and benches with real API servers: etcd, kube-apiserver, kube-controller-manager, kubectl and CoreDNS of the
/// versions that xtask/kubernetes pins, looked for in KUBEBUILDER_ASSETS, then in mcs/bin of the user's cache
/// (XDG_CACHE_HOME), else built there from Go modules, about 16 minutes on two cores; Helm likewise, 3 minutes more; promtool
/// and prometheus out of Debian's package. Without them those tests are skipped.
///
/// For tests on real clusters, and for `cargo xtask cluster up` (`--for cluster`): kube-scheduler, kubelet, kube-proxy,
/// containerd, runc and CNI plugins too, about 9 minutes more, and images made of some of them in mcs/images of the cache.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which work to prepare for; repeatable. Default: test, demo and bench.
    #[arg(long = "for", value_enum, value_name = "GROUP")]
    groups: Vec<Group>,
    /// The compiler's directory to put rust-src into, instead of the one that `rustc --print sysroot` names.
    #[arg(long, value_name = "DIR", hide = true)]
    sysroot: Option<PathBuf>,
    /// Do not ask rustup for rust-src: take Debian's package.
    #[arg(long, hide = true)]
    no_rustup: bool,
}

/// What a machine is prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    /// `cargo build` and `cargo xtask lint`: the compiler's parts only.
    Build,
    /// `cargo xtask test`.
    Test,
    /// `cargo xtask demo`.
    Demo,
    /// `cargo xtask bench`.
    Bench,
    /// `cargo xtask cluster`: real clusters, not in the default.
    Cluster,
    /// `cargo xtask vm`: an emulator, not in the default.
    Vm,
    /// Everything above.
    All,
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Present,
    Installed,
}

/// `cargo xtask setup`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let groups =
        if args.groups.is_empty() { vec![Group::Test, Group::Demo, Group::Bench] } else { args.groups.clone() };
    let tally = install(&groups, args)?;
    if !tally.missing.is_empty() {
        bail!("setup: cannot be had: {}", tally.missing.join(", "));
    }
    Ok(())
}

/// Prepares for the verb that calls it.
pub(crate) fn need(groups: &[Group]) -> Result<()> {
    let args = Args { groups: Vec::new(), sysroot: None, no_rustup: false };
    let tally = install(groups, &args)?;
    if let Some(what) = tally.essential {
        bail!("setup: cannot go on without {what}");
    }
    Ok(())
}

#[derive(Default)]
struct Tally {
    installed: usize,
    missing: Vec<String>,
    /// The first missing part without which the verb cannot work.
    essential: Option<String>,
}

impl Tally {
    fn record(&mut self, what: &str, essential: bool, result: Result<Outcome>) {
        match result {
            Ok(Outcome::Present) => {}
            Ok(Outcome::Installed) => self.installed += 1,
            Err(error) => {
                eprintln!("setup: {what}: {}", format!("{error:#}").replace('\n', " "));
                self.missing.push(what.to_owned());
                if essential {
                    self.essential.get_or_insert_with(|| what.to_owned());
                }
            }
        }
    }
}

fn install(groups: &[Group], args: &Args) -> Result<Tally> {
    let start = Instant::now();
    let workspace = Workspace::open()?;
    let apt = workspace.cache("apt")?;
    let mut tally = Tally::default();
    // Clusters are made of what others wrote: nothing of ours is compiled for them.
    if groups != [Group::Cluster] {
        tally.record("rust-src", true, rust_src::ensure(args.sysroot.as_deref(), args.no_rustup, &apt));
        tally.record("bpf-linker", true, bpf_linker::ensure());
    }
    packages::ensure(groups, |package, essential, result| {
        tally.record(package, essential, result);
    });
    if groups.iter().any(|group| matches!(group, Group::Cluster | Group::All)) {
        tally.record("packages for clusters", groups.contains(&Group::Cluster), clusters::ensure());
    }
    if groups.iter().any(|group| matches!(group, Group::Test | Group::All)) {
        let result = prometheus::ensure(&apt);
        tally.record("prometheus", false, result.map_err(|error| error.context("tests of alerts are skipped")));
    }
    kubernetes::ensure(&workspace.root, groups, |part, essential, result| tally.record(part, essential, result));
    if groups.iter().any(|group| !matches!(group, Group::Build | Group::Vm | Group::Cluster)) {
        tally.record("bpffs", false, bpffs::ensure());
    }
    let took = seconds(start.elapsed());
    match (tally.installed, tally.missing.len()) {
        (0, 0) => println!("setup: everything is there ({took})"),
        (installed, 0) => println!("setup: {installed} installed ({took})"),
        (installed, missing) => {
            println!("setup: {installed} installed, {missing} missing ({took})")
        }
    }
    Ok(tally)
}

/// Runs one installing step between two lines that say what and how long.
fn step(what: &str, install: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    println!("setup: {what} …");
    let start = Instant::now();
    install()?;
    println!("setup: {what}: done in {}", seconds(start.elapsed()));
    Ok(Outcome::Installed)
}

/// A duration as it stands in every line for people.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// What to tell someone without root.
fn as_root(command: &str) -> Result<()> {
    if !child::is_root() {
        bail!("needs root: run `sudo {command}`");
    }
    Ok(())
}
