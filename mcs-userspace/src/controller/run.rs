//! The loop: what is heard goes in, what is decided is carried out.
//!
//! ```text
//!  13 watches, 2 definitions ──► events ──► Order ──► Controller ──ops──► Writer ──► done ──┐
//!  leader ──► Leader                          ▲                                             │
//!  wake timer, SIGTERM                        └─────────────────────────────────────────────┘
//! ```

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::approval::Approval;
use super::metrics;
use super::order::Order;
use super::parts::{Parts, spawn};
use super::sight::Heard;
use super::status::{self, Status};
use super::write::{Done, Target, Writer};
use crate::apiserver::{Access, Server, Troubles, random};
use crate::clusterset::controller::{Controller, Report, Settings};
use crate::clusterset::event::{Event, Failure};
use crate::monitoring::{self, Answer, Asked, Question};

/// Events that are handled before it is asked what to do.
const BATCH: usize = 1024;

/// How often the status is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Looks after which a report is made though nothing was heard.
const LOOKS: u32 = 5;

/// How long writes under way, and the release of the Lease, may hold up the end of the process.
pub(super) const FAREWELL: Duration = Duration::from_secs(3);

/// The least time between two looks at what is due, so that an overdue deadline cannot spin.
const BREATH: Duration = Duration::from_millis(5);

/// What `mcs controller` was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// To the member.
    pub access: Access,
    /// Where health and metrics are served; nowhere if none.
    pub metrics: Option<SocketAddr>,
    /// Of the decisions.
    pub settings: Settings,
    /// `mcs --version`.
    pub version: String,
}

/// Runs until a signal asks it to stop.
///
/// # Errors
/// When the member's configuration cannot be used, or metrics cannot be served: at the start only. Later troubles are logged, shown in the status and
/// tried again.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let Config { access, metrics: listen_on, settings, version } = config;
    let client = access.client().await?;
    let identity = identity();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    info!(identity, version, "controller started");

    let mut parts = Parts::start(client, &identity);
    let mut process = Process::new(settings, &parts, identity, version);
    let mut asked = monitoring::serve(listen_on).await.context("--metrics-listen")?;
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        process.act();
        let wake = process.wake();
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(heard) = parts.events.recv() => process.hear_all(heard, &mut parts.events),
            Some(done) = process.done.recv() => process.finish(done),
            Ok(()) = parts.leads.changed() => process.lead(*parts.leads.borrow_and_update()),
            Some(map) = parts.config_maps.recv() => process.approval.saw(map.as_ref()),
            asked = monitoring::next_asked(&mut asked) => process.answer(asked),
            _ = looks.tick() => process.look(),
            () = tokio::time::sleep_until(wake) => {}
        }
    }
    info!("stopping: what was imported stays, another controller takes over");
    process.drain().await;
    parts.stop().await;
    Ok(())
}

/// Host, process, and something that no other process has, as process ids come again.
fn identity() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}_{}_{:08x}", std::process::id(), random() >> 32)
}

/// The decisions, and what surrounds them.
struct Process {
    controller: Controller,
    writer: Writer,
    done: mpsc::UnboundedReceiver<Done>,
    order: Order,
    approval: Approval,
    origin: Instant,
    member: Server,
    troubles: Troubles,
    identity: String,
    version: String,
    leads: bool,
    /// Whether anything was heard since the last report.
    is_news: bool,
    /// Looks since the last report.
    looks: u32,
    report: Report,
    words: watch::Sender<Option<Status>>,
}

impl Process {
    fn new(settings: Settings, parts: &Parts, identity: String, version: String) -> Self {
        let (sender, done) = mpsc::unbounded_channel();
        let (member, broker) = (parts.member.clone(), parts.broker.clone());
        let writer = Writer::new(member.clone(), broker, &identity, parts.tenure.clone(), sender);
        let (words, told) = watch::channel(None);
        spawn(status::publish(member.clone(), told, parts.troubles.clone()));
        Self {
            controller: Controller::new(settings, RandomState::new().hash_one(&identity)),
            writer,
            done,
            order: Order::default(),
            approval: Approval::default(),
            origin: Instant::now(),
            member,
            troubles: parts.troubles.clone(),
            identity,
            version,
            leads: false,
            is_news: true,
            looks: 0,
            report: Report::default(),
            words,
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// When something is due though nothing is heard.
    fn wake(&self) -> Instant {
        let far = Duration::from_secs(3600);
        let at = self.controller.wake().map_or_else(|| self.now() + far, |at| at.max(self.now() + BREATH));
        self.origin + at
    }

    /// Has done what is due.
    fn act(&mut self) {
        for op in self.controller.ops(self.now()) {
            debug!(?op, "write");
            self.writer.submit(op, &mut self.order);
        }
    }

    fn handle(&mut self, event: Event) {
        self.is_news = true;
        self.controller.handle(event, self.now());
    }

    /// Hears `first` and what else is there already.
    fn hear_all(&mut self, first: Heard, events: &mut mpsc::Receiver<Heard>) {
        let mut next = Some(first);
        let mut left = BATCH;
        while let Some(heard) = next {
            if self.order.watched(&heard) {
                self.handle(heard.event);
            }
            left -= 1;
            next = if left == 0 { None } else { events.try_recv().ok() };
        }
    }

    /// A write is over.
    fn finish(&mut self, done: Done) {
        let Done { target, heard } = done;
        self.writer.finished(&target, &mut self.order);
        let Some(Heard { event, version }) = heard else { return };
        let version = if let Event::Failed(op, failure) = &event {
            match failure {
                Failure::Refused(why) => {
                    let Target { kind, key } = &target;
                    match kind {
                        Some(kind) => warn!("{kind:?} {key}: refused: {why}"),
                        None => warn!("{}: refused: {why}", key.name),
                    }
                }
                Failure::Conflict | Failure::NotFound | Failure::Unreachable(_) => {
                    debug!(?op, ?failure, "write failed")
                }
            }
            None
        } else {
            Some(version)
        };
        let is_news = target.kind.is_none_or(|kind| self.order.answered(kind, &target.key, version));
        if is_news {
            self.handle(event);
        }
    }

    fn lead(&mut self, leads: bool) {
        self.leads = leads;
        self.handle(Event::Leader(leads));
    }

    /// Looks at how things stand, and says so.
    fn look(&mut self) {
        let is_due = self.controller.wake().is_some_and(|at| at <= self.now() + LOOK);
        // Some things change by time alone.
        self.looks += 1;
        if self.is_news || is_due || self.looks >= LOOKS {
            self.is_news = false;
            self.looks = 0;
            let report = self.controller.report(self.now());
            status::log_changes(&self.report, &report);
            self.report = report;
        }
        let knows = self.report.local_synced && self.report.broker_synced && self.report.broker_connected;
        if self.leads && knows && self.approval.is_due() {
            self.handle(Event::WithdrawalApproved);
        }
        if self.leads {
            self.approval.acknowledge(&self.member);
        }
        let troubles = self.troubles.all();
        let status = self.leads.then(|| Status::new(&self.identity, &self.version, troubles, &self.report));
        self.words.send_if_modified(|word| {
            let is_other = *word != status;
            *word = status;
            is_other
        });
    }

    /// Answers from the last report.
    fn answer(&self, asked: Asked) {
        let answer = match asked.question {
            Question::Live => Answer::of(Ok(())),
            Question::Ready => Answer::of(metrics::ready(&self.report)),
            Question::Metrics => Answer::text(metrics::text(&self.report, &self.troubles.all())),
        };
        asked.answer(answer);
    }

    /// Waits a moment for writes under way.
    async fn drain(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        while !self.writer.is_idle() {
            match tokio::time::timeout_at(deadline, self.done.recv()).await {
                Ok(Some(Done { target, .. })) => self.writer.finished(&target, &mut self.order),
                Ok(None) | Err(_) => return,
            }
        }
    }
}
