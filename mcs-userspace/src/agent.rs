//! The agent's loop, the edge that everything pure is fed from.
//!
//! ```text
//!  source.next() ──► Programmer::handle ──► maps          barrier directories removed, status row and report written
//!  retry timer   ──► Programmer::retry
//!  kernel log    ──► tracing
//!  SIGTERM       ──► return: nothing is detached, traffic goes on
//! ```

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use ipnet::IpNet;
use mcs_ebpf::REPORT_BYTES;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::dataplane::{Dataplane, Logger, Options};
use crate::desired::NodeContext;
use crate::failclosed;
use crate::maps::bpf::BpfMaps;
use crate::problem::{Problem, Severity};
use crate::programmer::{Outcome, Programmer};
use crate::report::AgentReport;
use crate::source::dir::{Batch, DirSource};

/// First pause before what failed is tried again; doubled up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// What `mcs agent` was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of manifests.
    pub source: PathBuf,
    /// Who this node is.
    pub node: NodeContext,
    /// What to ask of the kernel.
    pub dataplane: Options,
    /// Whether ClusterSetIP traffic is held back while no program is attached.
    pub fail_closed: failclosed::Mode,
    /// `mcs --version`.
    pub version: String,
}

struct Agent {
    dataplane: RefCell<Dataplane>,
    programmer: Programmer<BpfMaps>,
    source: DirSource,
    report: AgentReport,
    retry_pause: Duration,
    retry_at: Option<Instant>,
    was_settled: bool,
    /// The programmer's problems that were logged, as each is logged once.
    logged: BTreeSet<Problem>,
    /// [`DirSource::problem_version`] of the report.
    problem_version: u64,
}

/// Runs until a signal asks it to stop.
///
/// # Errors
/// When the kernel side cannot be set up or the source cannot be followed: at the start only. Later troubles are logged,
/// reported and tried again.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let Config { source, node, dataplane: options, fail_closed, version } = config;
    let (mut dataplane, maps) = Dataplane::open(&options)?;
    let warnings = hold_back(&options.cidrs, fail_closed, &mut dataplane).await;
    let mut logger = if options.log_level == 0 { None } else { Some(dataplane.logger()?) };
    let mut directory = DirSource::new(&source)?;
    directory.watch_barriers(options.pins.root())?;

    let report = AgentReport {
        version,
        cluster: node.cluster.to_string(),
        node: node.node.to_string(),
        zone: node.zone.as_deref().map(str::to_owned),
        source: format!("dir:{}", source.display()),
        cgroup: options.cgroup.display().to_string(),
        clusterset_cidrs: options.cidrs.iter().map(IpNet::to_string).collect(),
        warnings,
        ..AgentReport::default()
    };
    let programmer = Programmer::new(node, maps).context("take over the maps")?;
    if programmer.has_udp() {
        dataplane.attach_udp()?;
    }
    let mut agent = Agent {
        dataplane: RefCell::new(dataplane),
        programmer,
        source: directory,
        report,
        retry_pause: RETRY_FIRST,
        retry_at: None,
        was_settled: false,
        logged: BTreeSet::new(),
        problem_version: 0,
    };
    info!(source = %source.display(), pins = %options.pins.root().display(), "agent started");

    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    loop {
        let retry_at = agent.retry_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            batch = agent.source.next() => agent.handle(batch),
            () = tokio::time::sleep_until(retry_at), if agent.retry_at.is_some() => agent.retry(),
            () = next_log(&mut logger) => {}
        }
    }
    info!("stopping: programs stay attached, traffic goes on");
    Ok(())
}

/// Sets the rules that keep ClusterSetIP traffic on the node; what cannot be set is a warning.
async fn hold_back(cidrs: &[IpNet], mode: failclosed::Mode, dataplane: &mut Dataplane) -> Vec<String> {
    let warnings = match failclosed::apply(cidrs, mode, dataplane.rules()).await {
        Ok(warnings) => warnings,
        Err(error) => vec![format!("rules for ClusterSet CIDRs: {error:#}")],
    };
    for warning in &warnings {
        warn!("{warning}");
    }
    warnings
}

/// Waits for log records of the programs and hands them on; for ever where there is no log.
async fn next_log(logger: &mut Option<Logger>) {
    let Some(logger) = logger else { return std::future::pending().await };
    match logger.readable_mut().await {
        Ok(mut guard) => {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
        Err(error) => {
            error!(%error, "watch the programs' log");
            std::future::pending().await
        }
    }
}

impl Agent {
    fn handle(&mut self, batch: Batch) {
        let Batch { events, barriers, new_problems } = batch;
        for problem in &new_problems {
            log_problem(problem);
        }
        let started = std::time::Instant::now();
        let count = events.len();
        let Self { programmer, dataplane, source, .. } = self;
        programmer.set_unread(source.unread());
        let outcome = programmer.handle(events, &mut || Ok(dataplane.borrow_mut().attach_udp()?));
        if count > 0 {
            debug!(events = count, changed = outcome.changed, removed = outcome.removed, took = ?started.elapsed(), "handled");
        }
        self.settle(&outcome);
        for barrier in barriers {
            if let Err(error) = fs::remove_dir(&barrier) {
                debug!(%error, barrier = %barrier.display(), "whoever waited for it gave up");
            }
        }
    }

    fn retry(&mut self) {
        let Self { programmer, dataplane, .. } = self;
        let outcome = programmer.retry(&mut || Ok(dataplane.borrow_mut().attach_udp()?));
        self.settle(&outcome);
    }

    /// Everything that follows from what the programmer did.
    fn settle(&mut self, outcome: &Outcome) {
        for failure in &outcome.failures {
            error!(error = %chain(failure), "not stored, to be tried again");
        }
        if outcome.retry {
            self.retry_at = Some(Instant::now() + self.retry_pause);
            self.retry_pause = (self.retry_pause * 2).min(RETRY_MOST);
        } else {
            (self.retry_at, self.retry_pause) = (None, RETRY_FIRST);
        }
        let dataplane = self.dataplane.get_mut();
        if outcome.settled
            && !outcome.has_udp
            && let Err(error) = dataplane.detach_udp()
        {
            warn!("{error:#}");
        }

        let becomes_settled = outcome.settled && !self.was_settled;
        let is_news = outcome.changed + outcome.removed > 0;
        let services = self.programmer.service_count();
        if is_news || becomes_settled {
            info!(services, changed = outcome.changed, removed = outcome.removed, "services programmed");
        }
        if outcome.problems_changed {
            let problems = BTreeSet::from_iter(self.programmer.problems());
            problems.difference(&self.logged).for_each(log_problem);
            self.logged = problems;
        }
        let problem_version = self.source.problem_version();
        let source_problems_changed = std::mem::replace(&mut self.problem_version, problem_version) != problem_version;
        if outcome.problems_changed || source_problems_changed || becomes_settled || services != self.report.services {
            let problems = self.programmer.problems();
            self.report.services = services;
            self.report.set_problems(self.source.problems().chain(&problems));
            dataplane.publish_report(&self.report.to_json(REPORT_BYTES - 4));
        }
        self.was_settled = outcome.settled;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (invalid, unprogrammed) = (count(self.report.invalid), count(outcome.unprogrammed));
        dataplane.update_agent_row(|row| {
            row.synced = u32::from(outcome.settled);
            row.invalid = invalid;
            row.unprogrammed = unprogrammed;
            if is_news {
                row.changed_ns = now_ns();
            }
        });
    }
}

fn log_problem(problem: &Problem) {
    match problem.severity {
        Severity::Notice => info!("{problem}"),
        Severity::Invalid | Severity::NoRoom => warn!("{problem}"),
    }
}

/// An error with its sources, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
