//! `mcs detach`.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use aya::maps::HashMap;
use clap::Args;
use mcs_ebpf::map;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::{Output, Pins};
use crate::dataplane::is_barrier;
use crate::dataplane::links;
use crate::dataplane::pins::PinDir;
use crate::failclosed;
use crate::maps::bpf::OpenMap as _;

/// Traffic to ClusterSetIPs stops being translated; connections that exist go on. Refused while an agent runs.
#[derive(Args, Debug)]
pub(super) struct Detach {
    #[command(flatten)]
    pins: Pins,
    /// Afterwards, stay until a signal ends this process: in a DaemonSet's pod, which may not end.
    #[arg(long, env = "MCS_STAY")]
    stay: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Answer {
    pin_dir: String,
    links: usize,
    maps: usize,
    rules_left: Vec<RuleLeft>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleLeft {
    netns_inode: u64,
    cidr: String,
    reason: String,
}

impl Detach {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let pins = self.pins.open();
        let mut answer = Answer { pin_dir: pins.root().display().to_string(), ..Answer::default() };
        if pins.root().exists() {
            let _lock = pins.lock().context("an agent runs: stop it first")?;
            detach(&pins, &mut answer)?;
            // The lock's descriptor does not keep a directory from being removed. What is not ours does: it may be a
            // bpf filesystem's root, with everybody's pins.
            let _not_ours_alone = fs::remove_dir(pins.root());
        }
        self.output.print(&answer)?;
        if self.stay {
            stay()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Until SIGTERM or SIGINT.
fn stay() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

/// Links first, so that no program reads maps that are half gone; rules before the map that records them.
fn detach(pins: &PinDir, answer: &mut Answer) -> anyhow::Result<()> {
    let mut versions = pins.other_versions().context("list the pin directory")?;
    versions.extend(pins.maps().parent().map(Path::to_owned));
    for version in &versions {
        let links = version.join("links");
        for pin in fs::read_dir(&links).into_iter().flatten().flatten() {
            links::detach_now(&pin.path());
        }
        answer.links += remove_dir(&links)?;
    }
    if pins.map(map::RULES).exists() {
        let data = pins.pinned_maps().open(map::RULES)?;
        let mut rules = HashMap::try_from(aya::maps::Map::HashMap(data)).context("open the recorded rules")?;
        let left = failclosed::remove_all(&mut rules)?;
        answer.rules_left.extend(left.into_iter().map(|rule| RuleLeft {
            netns_inode: rule.netns_inode,
            cidr: rule.cidr.to_string(),
            reason: rule.reason,
        }));
    }
    for version in &versions {
        answer.maps += remove_dir(&version.join("maps"))?;
        remove_dir(version)?;
    }
    for entry in fs::read_dir(pins.root()).context("list the pin directory")?.filter_map(Result::ok) {
        if is_barrier(&entry.path()) {
            remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a directory of pins; returns how many there were. Fine if it is not there.
fn remove_dir(directory: &Path) -> anyhow::Result<usize> {
    let what = || format!("{}: remove", directory.display());
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.with_context(what)?,
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry.with_context(what)?;
        fs::remove_file(entry.path()).with_context(|| format!("{}: remove", entry.path().display()))?;
        removed += 1;
    }
    fs::remove_dir(directory).with_context(what)?;
    Ok(removed)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pin_dir, links, maps, rules_left } = self;
        if *links == 0 && *maps == 0 {
            writeln!(f, "{pin_dir}: nothing was attached")?;
        } else {
            writeln!(f, "{pin_dir}: {links} links and {maps} maps removed")?;
        }
        for RuleLeft { netns_inode, cidr, reason } in rules_left {
            writeln!(
                f,
                "rule left: `unreachable {cidr}` in the network namespace with inode {netns_inode}: {reason}; in it, run: \
                 ip rule del to {cidr} unreachable"
            )?;
        }
        Ok(())
    }
}
