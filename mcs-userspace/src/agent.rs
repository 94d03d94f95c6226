//! The agent's loop, the edge that everything pure is fed from.
//!
//! ```text
//!  source.next() ──► Programmer::handle ──► maps          barrier directories removed, status row and report written
//!  retry timer   ──► Programmer::retry
//!  kernel log    ──► tracing
//!  /livez, /readyz, /metrics ──► answered in turn
//!  SIGTERM       ──► return: nothing is detached, traffic goes on
//! ```
//!
//! Where the flags leave open who this node is, the source tells ([`facts`]). Until then nothing is attached and nothing
//! is touched: what an agent before pinned works on.

mod facts;
mod metrics;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use ipnet::IpNet;
use mcs_ebpf::REPORT_BYTES;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, error, info, warn};

use self::facts::Facts;
pub use self::facts::Given;
use self::metrics::Measures;
use crate::apiserver::Access;
use crate::dataplane::{Dataplane, Logger, Options, coverage, read_report};
use crate::desired::NodeContext;
use crate::failclosed;
use crate::maps::bpf::BpfMaps;
use crate::model::Event;
use crate::monitoring::{self, Answer, Asked, Question};
use crate::problem::{Problem, Severity};
use crate::programmer::{Outcome, Programmer};
use crate::report::AgentReport;
use crate::source::dir::DirSource;
use crate::source::kube::KubeSource;
use crate::source::{Batch, Source, Surroundings};

/// First pause before what failed is tried again; doubled up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// How often it is looked at what does not work on the way to the source.
const LOOK: Duration = Duration::from_secs(2);

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// A directory of manifests.
    Dir(PathBuf),
    /// A Kubernetes API server.
    Kube(Access),
}

/// What `mcs agent` was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where objects come from.
    pub source: SourceConfig,
    /// Who this node is, as far as flags say.
    pub given: Given,
    /// What to ask of the kernel. The CIDRs are set as soon as they are known.
    pub dataplane: Options,
    /// Whether this is a process of a Pod, whose cgroup tells where other Pods' are.
    pub in_pod: bool,
    /// Whether ClusterSetIP traffic is held back while no program is attached.
    pub fail_closed: failclosed::Mode,
    /// Where health and metrics are served; nowhere if none.
    pub listen: Option<SocketAddr>,
    /// `mcs --version`.
    pub version: String,
}

struct Agent {
    dataplane: RefCell<Dataplane>,
    programmer: Programmer<BpfMaps>,
    source: Source,
    facts: Facts,
    fail_closed: failclosed::Mode,
    report: AgentReport,
    /// That Pods' sockets are not among those that are served: then it is never ready.
    misses_pods: Option<String>,
    /// What is wrong with the rules that hold traffic back.
    rule_warnings: Vec<String>,
    measures: Measures,
    retry_pause: Duration,
    retry_at: Option<Instant>,
    was_settled: bool,
    /// Whether everything valid was in the kernel at least once.
    was_ready: bool,
    /// The programmer's problems that were logged, as each is logged once.
    logged: BTreeSet<Problem>,
    /// [`Source::problem_version`] of the report.
    problem_version: u64,
}

/// What ends the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs until a signal asks it to stop.
///
/// # Errors
/// When the kernel side cannot be set up or the source cannot be followed: at the start only. Later troubles are logged,
/// reported and tried again.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let Config { source, given, dataplane: mut options, in_pod, fail_closed, listen, version } = config;
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
        interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
    };
    let mut asked = monitoring::serve(listen).await.context("--listen")?;
    let (source_name, mut source) = start(&source, &given).await?;
    let mut facts = Facts::new(given, remembered(&options));
    let Some(early) = know(&mut facts, &mut source, &mut signals, &mut asked).await else { return Ok(()) };
    let Some(node) = facts.node() else { return Ok(()) };

    options.cidrs.clone_from(&node.cidrs);
    let (mut dataplane, maps) = Dataplane::open(&options)?;
    let misses_pods = if in_pod { misses_pods(&options.cgroup) } else { None };
    let rule_warnings = hold_back(&options.cidrs, fail_closed, &mut dataplane).await;
    let mut logger = logger(&options, &mut dataplane)?;
    source.watch_barriers(options.pins.root())?;

    let report = AgentReport {
        version,
        source: source_name.clone(),
        cgroup: options.cgroup.display().to_string(),
        ..AgentReport::default()
    };
    let programmer = Programmer::new(node, maps).context("take over the maps")?;
    if programmer.has_udp() {
        dataplane.attach_udp()?;
    }
    source.set_left_over(programmer.service_count() > 0);
    let mut agent = Agent {
        dataplane: RefCell::new(dataplane),
        programmer,
        source,
        facts,
        fail_closed,
        report,
        misses_pods,
        rule_warnings,
        measures: Measures::default(),
        retry_pause: RETRY_FIRST,
        retry_at: None,
        was_settled: false,
        was_ready: false,
        logged: BTreeSet::new(),
        problem_version: 0,
    };
    agent.describe();
    agent.publish();
    info!(source = source_name, pins = %options.pins.root().display(), "agent started");
    agent.handle(Batch { events: early, ..Batch::default() });

    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let retry_at = agent.retry_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            () = signals.any() => break,
            batch = agent.source.next() => {
                if let Some(surroundings) = &batch.surroundings && agent.learn(surroundings).await {
                    logger = self::logger(&options, agent.dataplane.get_mut())?;
                }
                agent.handle(batch);
            }
            () = tokio::time::sleep_until(retry_at), if agent.retry_at.is_some() => agent.retry(),
            asked = monitoring::next_asked(&mut asked) => agent.answer(asked),
            _ = looks.tick() => agent.look(),
            () = next_log(&mut logger) => {}
        }
    }
    info!("stopping: programs stay attached, traffic goes on");
    Ok(())
}

/// The source, and its name for people.
async fn start(source: &SourceConfig, given: &Given) -> anyhow::Result<(String, Source)> {
    Ok(match source {
        SourceConfig::Dir(path) => (format!("dir:{}", path.display()), Source::Dir(Box::new(DirSource::new(path)?))),
        SourceConfig::Kube(access) => {
            ("kube".to_owned(), Source::Kube(Box::new(KubeSource::start(access, Some(&given.node)).await?)))
        }
    })
}

/// What the agent before knew, if its report is pinned.
fn remembered(options: &Options) -> Surroundings {
    let report = read_report(&options.pins).ok().and_then(|text| serde_json::from_str::<AgentReport>(&text).ok());
    report.map(|report| facts::remembered(&report)).unwrap_or_default()
}

/// Listens to the source until it is known who this node is; what else it told. None when the process is to end.
async fn know(
    facts: &mut Facts,
    source: &mut Source,
    signals: &mut Signals,
    asked: &mut Option<mpsc::Receiver<Asked>>,
) -> Option<Vec<Event>> {
    let mut events = Vec::new();
    while facts.node().is_none() {
        tokio::select! {
            () = signals.any() => return None,
            batch = source.next() => {
                batch.new_problems.iter().for_each(log_problem);
                events.extend(batch.events);
                if let Some(surroundings) = batch.surroundings {
                    facts.tell(surroundings);
                }
            }
            asked = monitoring::next_asked(asked) => {
                let waits = "it is not known yet which cluster this is and where ClusterSetIPs come from".to_owned();
                let problems = source.problems().into_iter().map(ToString::to_string).chain(source.troubles());
                let answer = match asked.question {
                    Question::Live => Answer::of(Ok(())),
                    Question::Ready => Answer::of(Err([waits].into_iter().chain(problems).collect::<Vec<_>>().join("\n"))),
                    Question::Metrics => Answer::text(metrics::waiting()),
                };
                asked.answer(answer);
            }
        }
    }
    Some(events)
}

fn logger(options: &Options, dataplane: &mut Dataplane) -> anyhow::Result<Option<Logger>> {
    if options.log_level == 0 { Ok(None) } else { dataplane.logger().map(Some) }
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

/// Why the sockets of this node's Pods are not served by what is attached to `cgroup`, if they are not.
fn misses_pods(cgroup: &Path) -> Option<String> {
    let why = match coverage::of(cgroup) {
        Ok(coverage) if coverage.reaches_pods() => {
            info!("attached to {}: serves {coverage}", cgroup.display());
            return None;
        }
        Ok(coverage) => format!("attached to {}: serves {coverage}", cgroup.display()),
        Err(error) => format!("whose sockets are served cannot be told: {error:#}"),
    };
    error!("{why}");
    Some(why)
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
        let Batch { events, barriers, new_problems, surroundings: _, stamps } = batch;
        new_problems.iter().for_each(log_problem);
        let started = std::time::Instant::now();
        let count = events.len();
        let Self { programmer, dataplane, source, .. } = self;
        programmer.set_unread(source.unread());
        let outcome = programmer.handle(events, &mut || Ok(dataplane.borrow_mut().attach_udp()?));
        if outcome.changed + outcome.removed > 0 && self.was_ready {
            self.measures.programmed(started.elapsed());
        }
        if outcome.settled {
            self.measures.arrived(&stamps, now_ms());
        }
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

    /// Takes over what the source has learnt of this node. Tells whether the programs were loaded anew.
    async fn learn(&mut self, surroundings: &Surroundings) -> bool {
        self.facts.tell(surroundings.clone());
        let Some(node) = self.facts.node() else { return false };
        if node == *self.programmer.context() {
            return false;
        }
        let other_cidrs = node.cidrs != self.programmer.context().cidrs;
        if other_cidrs {
            let dataplane = self.dataplane.get_mut();
            if let Err(error) = dataplane.set_cidrs(&node.cidrs) {
                let cidrs = node.cidrs.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",");
                error!("ClusterSet CIDRs {cidrs}: not served, those before are: {error:#}: start the agent again");
                return false;
            }
            self.rule_warnings = hold_back(&node.cidrs, self.fail_closed, dataplane).await;
        }
        info!(cluster = %node.cluster, zone = node.zone.as_deref(), cidrs = ?node.cidrs, "node");
        self.programmer.set_context(node);
        self.describe();
        self.publish();
        other_cidrs
    }

    /// Brings the report up to date with who this node is.
    fn describe(&mut self) {
        let NodeContext { cluster, node, zone, prefer_local_cluster: _, cidrs } = self.programmer.context();
        self.report.cluster = cluster.to_string();
        self.report.node = node.to_string();
        self.report.zone = zone.as_deref().map(str::to_owned);
        self.report.clusterset_cidrs = cidrs.iter().map(IpNet::to_string).collect();
    }

    /// Publishes the report for `mcs status`.
    fn publish(&mut self) {
        let problems = self.programmer.problems();
        self.report.services = self.programmer.service_count();
        self.report.set_problems(self.source.problems().into_iter().chain(&problems));
        self.report.warnings = self.node_warnings().cloned().chain(self.source.troubles()).collect();
        let text = self.report.to_json(REPORT_BYTES - 4);
        self.dataplane.get_mut().publish_report(&text);
    }

    /// What is wrong with the node.
    fn node_warnings(&self) -> impl Iterator<Item = &String> {
        self.misses_pods.iter().chain(&self.rule_warnings)
    }

    fn is_ready(&self) -> bool {
        self.was_ready && self.misses_pods.is_none()
    }

    /// Looks whether other things work than before.
    fn look(&mut self) {
        let troubles = self.source.troubles();
        if !self.report.warnings.iter().skip(self.node_warnings().count()).eq(&troubles) {
            self.publish();
        }
    }

    fn answer(&self, asked: Asked) {
        let answer = match asked.question {
            Question::Live => Answer::of(Ok(())),
            Question::Ready if self.is_ready() => Answer::of(Ok(())),
            Question::Ready => {
                let waits = "not all objects have been read and stored in the kernel yet".to_owned();
                let waits = if self.was_ready { None } else { Some(waits) };
                let problems =
                    self.source.problems().into_iter().map(ToString::to_string).chain(self.source.troubles());
                let all = self.misses_pods.clone().into_iter().chain(waits).chain(problems);
                Answer::of(Err(all.collect::<Vec<_>>().join("\n")))
            }
            Question::Metrics => Answer::text(self.measures.text(
                &self.programmer,
                &self.report,
                self.source.troubles().len(),
                self.is_ready(),
            )),
        };
        asked.answer(answer);
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
            self.publish();
        }
        self.was_settled = outcome.settled;
        self.was_ready |= outcome.settled;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (invalid, unprogrammed) = (count(self.report.invalid), count(outcome.unprogrammed));
        self.dataplane.get_mut().update_agent_row(|row| {
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

fn now_ms() -> i64 {
    i64::try_from(now_ns() / 1_000_000).unwrap_or(i64::MAX)
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
