//! `mcs status`: of a node, by the agent's pin directory; of a member of a ClusterSet, by its API server ([`cluster`]).

pub(super) mod cluster;

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use mcs_ebpf::AgentRow;
use serde::Serialize;

use super::{Output, Pins};
use crate::dataplane::pins::{BARRIER_PREFIX, Holder, PinDir};
use crate::dataplane::{read_agent_row, read_report};
use crate::report::AgentReport;

/// How often the maps are looked at while waiting.
const POLL: Duration = Duration::from_millis(10);
/// How long a person waits without a word.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an agent that runs may take to answer when nobody asked to wait.
const ANSWER: Duration = Duration::from_secs(2);

/// Exit 0 as soon as the agent that runs now has all valid objects in the kernel, those included that were in place
/// when this command started.
///
/// With --kubeconfig: the ClusterSet as that member sees it, and exit 0 if nothing needs doing.
#[derive(Args, Debug)]
pub(super) struct Status {
    /// Show the ClusterSet as this member's controller sees it, rather than an agent.
    #[arg(long, value_name = "MEMBER")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pins: Pins,
    #[command(flatten)]
    output: Output,
    /// Wait for it for at most this long, for instance 500ms, 30s, 2m.
    #[arg(long, env = "MCS_WAIT", value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    ready: bool,
    summary: String,
    pid: Option<u32>,
    agent: Option<AgentReport>,
}

impl Status {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(kubeconfig) = &self.kubeconfig {
            return cluster::show(kubeconfig, self.output, self.wait);
        }
        let pins = self.pins.open();
        let deadline = Instant::now() + self.wait.unwrap_or(ANSWER);
        let mut say_at = Instant::now() + PATIENCE;
        let answer = loop {
            // Without --wait only an agent that runs is given time.
            let state = look(&pins, deadline)?;
            if state.is_ready() || Instant::now() >= deadline || (self.wait.is_none() && !state.may_answer()) {
                break state.answer(&pins);
            }
            if Instant::now() >= say_at {
                let left = deadline.saturating_duration_since(Instant::now());
                let _unwritable_stderr_is_nobodys_business =
                    writeln!(io::stderr(), "waiting, {} s left: {}", left.as_secs(), state.answer(&pins).summary);
                say_at += PATIENCE;
            }
            std::thread::sleep(POLL);
        };
        self.output.print(&answer)?;
        Ok(if answer.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What was seen in one look.
enum State {
    NeverRan,
    Stopped,
    Starting,
    Silent(u32),
    Running { pid: u32, row: AgentRow },
}

fn look(pins: &PinDir, deadline: Instant) -> anyhow::Result<State> {
    if !pins.root().exists() {
        return Ok(State::NeverRan);
    }
    let holder = pins.holder()?;
    let Ok(row) = read_agent_row(pins) else {
        return Ok(if holder == Holder::Nobody { State::NeverRan } else { State::Starting });
    };
    let Holder::Process(pid) = holder else { return Ok(State::Stopped) };
    // 0: the holder lives in a pid namespace that we cannot see into.
    if pid != 0 && row.pid != pid && std::path::Path::new(&format!("/proc/{pid}")).exists() && same_pid_namespace(pid) {
        return Ok(State::Starting);
    }
    if row.synced == 0 {
        return Ok(State::Starting);
    }
    if !pass_barrier(pins, row.instance, deadline)? {
        return Ok(State::Silent(pid));
    }
    Ok(State::Running { pid, row: read_agent_row(pins)? })
}

/// Whether a process numbers processes as we do, so that its number in the maps can be compared.
fn same_pid_namespace(pid: u32) -> bool {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/pid")).ok();
    namespace("self") == namespace(&pid.to_string())
}

/// Asks the agent to handle everything that happened before now: it removes the directory that is made here once it has
/// come to it, in the order of its one queue of file events. False when it did not answer in time.
fn pass_barrier(pins: &PinDir, instance: u64, deadline: Instant) -> anyhow::Result<bool> {
    let barrier = Barrier(pins.root().join(format!("{BARRIER_PREFIX}{}", std::process::id())));
    match fs::create_dir(&barrier.0) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("{}: create", barrier.0.display()));
        }
        Ok(()) | Err(_) => {}
    }
    while barrier.0.exists() {
        let gone = pins.holder()? == Holder::Nobody || read_agent_row(pins).is_ok_and(|row| row.instance != instance);
        if gone || Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(POLL / 10);
    }
    Ok(true)
}

/// Removed when we give up on it.
struct Barrier(PathBuf);

impl Drop for Barrier {
    fn drop(&mut self) {
        let _gone_already_if_it_was_answered = fs::remove_dir(&self.0);
    }
}

impl State {
    fn is_ready(&self) -> bool {
        matches!(self, Self::Running { row, .. } if row.synced == 1 && row.unprogrammed == 0)
    }

    fn may_answer(&self) -> bool {
        match self {
            Self::NeverRan | Self::Stopped => false,
            Self::Running { row, .. } => row.synced == 0,
            Self::Starting | Self::Silent(_) => true,
        }
    }

    fn answer(&self, pins: &PinDir) -> Answer {
        let agent: Option<AgentReport> = read_report(pins).ok().and_then(|text| serde_json::from_str(&text).ok());
        let services = agent.as_ref().map_or(0, |agent| agent.services);
        let root = pins.root().display();
        let (pid, summary) = match self {
            Self::NeverRan => (None, format!("{root}: nothing is pinned: start `mcs agent --pin-dir {root}`")),
            Self::Stopped => (
                None,
                format!(
                    "no agent runs on {root}: traffic goes on with the {services} services that it left; start it again"
                ),
            ),
            Self::Starting => (None, "the agent is starting: not everything is in the kernel yet".to_owned()),
            Self::Silent(pid) => (Some(*pid), format!("the agent (process {pid}) does not answer: look at its log")),
            Self::Running { pid, row } if row.unprogrammed > 0 => (
                Some(*pid),
                format!(
                    "{} services do not fit into the maps: raise --max-services, --max-backends or --max-sources after \
                     `mcs detach`",
                    row.unprogrammed
                ),
            ),
            Self::Running { pid, row } if row.synced == 0 => {
                (Some(*pid), "the agent is still reading its source".to_owned())
            }
            Self::Running { pid, .. } => {
                let invalid = agent.as_ref().map_or(0, |agent| agent.invalid);
                let but =
                    if invalid == 0 { String::new() } else { format!("; {invalid} invalid objects were skipped") };
                (Some(*pid), format!("ready: all {services} services are in the kernel{but}"))
            }
        };
        Answer { ready: self.is_ready(), summary, pid, agent }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ready: _, summary, pid, agent } = self;
        writeln!(f, "{summary}")?;
        let Some(agent) = agent else { return Ok(()) };
        let AgentReport { version, cluster, node, zone, source, cgroup, clusterset_cidrs, problems, warnings, .. } =
            agent;
        writeln!(f, "  cluster {cluster}, node {node}, zone {}", zone.as_deref().unwrap_or("-"))?;
        writeln!(f, "  source {source}, cgroup {cgroup}, ClusterSet CIDRs {}", clusterset_cidrs.join(" "))?;
        match pid {
            Some(pid) => writeln!(f, "  mcs {version}, process {pid}")?,
            None => writeln!(f, "  mcs {version}")?,
        }
        for warning in warnings {
            writeln!(f, "  node: {warning}")?;
        }
        for problem in problems {
            writeln!(f, "  {problem}")?;
        }
        Ok(())
    }
}

/// `500ms`, `30s`, `2m`, `1h`; a bare number is seconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 =
        number.parse().map_err(|_not_a_number| format!("{text:?} is not a duration like 500ms, 30s or 2m"))?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("{unit:?} is none of ms, s, m, h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("5"), Ok(Duration::from_secs(5)));
        for wrong in ["", "s", "5d", "-1s", "1e9s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
