//! The loop: what is heard goes in, what is decided is carried out.
//!
//! ```text
//!  13 watches, 2 definitions ──► events ──► Order ──► Controller ──ops──► Writer ──► done ──┐
//!  leader ──► Leader                          ▲                                             │
//!  wake timer, SIGTERM                        └─────────────────────────────────────────────┘
//! ```

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use kube::api::{ApiResource, DynamicObject};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::approval::Approval;
use super::backoff::Backoff;
use super::broker::Credential;
use super::kinds::{self, Place};
use super::leader::Candidate;
use super::order::Order;
use super::server::{self, REQUEST, Server, Troubles, chain};
use super::sight::{CrdListener, CrdWitness, Events, Heard, KindListener, ObjectListener};
use super::status::{self, Status};
use super::tenure::Tenure;
use super::watch::follow;
use super::write::{Done, Target, Writer};
use super::{leader, metrics, state};
use crate::broker::credentials;
use crate::clusterset::controller::{Controller, Report, Settings};
use crate::clusterset::event::{Event, Failure, Kind};
use crate::clusterset::local::SYSTEM_NAMESPACE;
use crate::clusterset::record;

/// Events that wait for the loop before watches wait.
const QUEUE: usize = 4096;

/// Events that are handled before it is asked what to do.
const BATCH: usize = 1024;

/// How often the status is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Looks after which a report is made though nothing was heard.
const LOOKS: u32 = 5;

/// How long writes under way, and the release of the Lease, may hold up the end of the process.
const FAREWELL: Duration = Duration::from_secs(3);

/// The least time between two looks at what is due, so that an overdue deadline cannot spin.
const BREATH: Duration = Duration::from_millis(5);

/// What `mcs controller` was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Of the member; the Pod's ServiceAccount if none.
    pub kubeconfig: Option<PathBuf>,
    /// Where metrics are served; nowhere if none.
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
    let Config { kubeconfig, metrics: listen_on, settings, version } = config;
    let client = member_client(kubeconfig).await?;
    let identity = identity();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    info!(identity, version, "controller started");

    let mut parts = Parts::start(client, &identity);
    let mut process = Process::new(settings, &parts, identity, version);
    if let Some(address) = listen_on {
        let listener = metrics::listen(address).await.with_context(|| format!("{address}: listen for metrics"))?;
        spawn(metrics::serve(listener, process.numbers.subscribe()));
    }
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
            _ = looks.tick() => process.look(),
            () = tokio::time::sleep_until(wake) => {}
        }
    }
    info!("stopping: what was imported stays, another controller takes over");
    process.drain().await;
    parts.stop().await;
    Ok(())
}

/// A client of the member's API server.
async fn member_client(kubeconfig: Option<PathBuf>) -> anyhow::Result<Client> {
    let config = match &kubeconfig {
        Some(path) => {
            let parsed = Kubeconfig::read_from(path).with_context(|| format!("{}: read", path.display()))?;
            kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("{}: use", path.display()))?
        }
        None => {
            kube::Config::incluster().context("no --kubeconfig is given, and this is no Pod with a ServiceAccount")?
        }
    };
    server::client(config).context("use the member's kubeconfig")
}

/// Host, process, and something that no other process has, as process ids come again.
fn identity() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}_{}_{:08x}", std::process::id(), super::backoff::random() >> 32)
}

/// The tasks, and what they tell.
struct Parts {
    events: mpsc::Receiver<Heard>,
    config_maps: mpsc::Receiver<Option<DynamicObject>>,
    leads: watch::Receiver<bool>,
    member: Server,
    broker: Server,
    tenure: Tenure,
    troubles: Troubles,
    stop: oneshot::Sender<()>,
    candidate: JoinHandle<()>,
}

impl Parts {
    fn start(client: Client, identity: &str) -> Self {
        let troubles = Troubles::default();
        let tenure = Tenure::none();
        let (member_connector, member) = server::server("member");
        let (broker_connector, broker) = server::server("broker");
        let (member_connector, broker_connector) = (Arc::new(member_connector), Arc::new(broker_connector));
        member_connector.connect(client, "", false);
        spawn(server::probe(member_connector, member.clone(), leader::LEASE.to_owned(), troubles.clone()));
        let lease = record::LEASE.to_owned();
        spawn(server::probe(Arc::clone(&broker_connector), broker.clone(), lease, troubles.clone()));

        let (sender, secrets) = mpsc::channel(1);
        watch_object::<k8s_openapi::api::core::v1::Secret>(credentials::SECRET, &member, sender, &troubles);
        let (sender, config_maps) = mpsc::channel(1);
        watch_object::<k8s_openapi::api::core::v1::ConfigMap>(credentials::CONFIG_MAP, &member, sender, &troubles);
        let credential = Credential {
            connector: broker_connector,
            member: member.clone(),
            broker: broker.clone(),
            tenure: tenure.clone(),
            troubles: troubles.clone(),
            secrets,
        };
        spawn(credential.run());

        let (sender, events) = mpsc::channel(QUEUE);
        for kind in Kind::LOCAL {
            watch_kind(kind, &member, &sender, &troubles);
        }
        spawn(watch_broker(member.clone(), broker.clone(), sender, troubles.clone()));

        let (stop, stopped) = oneshot::channel();
        let (leads_sender, leads) = watch::channel(false);
        let candidate = Candidate {
            identity: identity.to_owned(),
            member: member.clone(),
            tenure: tenure.clone(),
            leads: leads_sender,
            troubles: troubles.clone(),
        };
        let candidate = tokio::spawn(candidate.run(stopped));
        Self { events, config_maps, leads, member, broker, tenure, troubles, stop, candidate }
    }

    /// Lets another one lead at once.
    async fn stop(self) {
        let _it_ended_by_itself = self.stop.send(());
        if tokio::time::timeout(FAREWELL, self.candidate).await.is_err() {
            warn!("the Lease is not released: the API server does not answer");
        }
    }
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

/// Watches one object of the system namespace.
fn watch_object<K: kube::Resource<DynamicType = ()>>(
    name: &str,
    member: &Server,
    sender: mpsc::Sender<Option<DynamicObject>>,
    troubles: &Troubles,
) {
    let place = Place {
        resource: ApiResource::erase::<K>(&()),
        namespace: Some(SYSTEM_NAMESPACE),
        labels: None,
        fields: Some(format!("metadata.name={name}")),
    };
    let what = format!("watch of {} {SYSTEM_NAMESPACE}/{name}", place.resource.kind);
    spawn(follow(what, place, member.clone(), ObjectListener(sender), troubles.clone()));
}

/// Watches all objects of a kind, and the definition that guards them.
fn watch_kind(kind: Kind, server: &Server, events: &Events, troubles: &Troubles) {
    let crd = kinds::guarding_crd(kind).map(|name| {
        let what = format!("watch of {name} at the {}", server.name);
        let witness = CrdWitness::new(kind, name, events.clone());
        let listener = CrdListener(Arc::clone(&witness));
        spawn(follow(what, witness.place(), server.clone(), listener, troubles.clone()));
        witness
    });
    let place = kinds::place(kind);
    let what = format!("watch of {} ({kind:?}) at the {}", place.resource.plural, server.name);
    let listener = KindListener { kind, events: events.clone(), crd };
    spawn(follow(what, place, server.clone(), listener, troubles.clone()));
}

/// Watches what is at the broker, once it is known who was dead.
async fn watch_broker(member: Server, broker: Server, events: Events, troubles: Troubles) {
    const WHAT: &str = "remembered members";
    let mut backoff = Backoff::new();
    while let Some(reach) = member.now() {
        let why = match tokio::time::timeout(REQUEST, state::remembered(&reach.client)).await {
            Ok(Ok(dead)) => {
                troubles.clear(WHAT);
                if events.send(Event::Remembered(dead).into()).await.is_err() {
                    return;
                }
                break;
            }
            Ok(Err(error)) => chain(&error),
            Err(_elapsed) => format!("no answer within {} s", REQUEST.as_secs()),
        };
        troubles.report(WHAT, &why);
        tokio::time::sleep(backoff.pause()).await;
    }
    for kind in Kind::BROKER {
        watch_kind(kind, &broker, &events, &troubles);
    }
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
    /// The same as metrics.
    numbers: watch::Sender<String>,
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
            numbers: watch::channel(String::new()).0,
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
        self.numbers.send_replace(metrics::text(&self.report, &troubles));
        let status = self.leads.then(|| Status::new(&self.identity, &self.version, troubles, &self.report));
        self.words.send_if_modified(|word| {
            let is_other = *word != status;
            *word = status;
            is_other
        });
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
