//! The loop of `mcs dns`: what the source and the node tell, into the zone.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use super::metrics;
use super::programmed::{LOOK, Programmed};
use super::server::{Listener, Shared, told};
use super::zone::{Builder, Settings, Zone};
use crate::agent::SourceConfig;
use crate::dataplane::pins::PinDir;
use crate::monitoring::{self, Answer, Asked, Question};
use crate::problem::Severity;
use crate::source::dir::DirSource;
use crate::source::kube::KubeSource;
use crate::source::{Batch, Source};

/// What `mcs dns` is told on its command line.
#[derive(Debug)]
pub struct Config {
    /// Where objects come from.
    pub source: SourceConfig,
    /// Addresses to listen on, for UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Threads that answer UDP on each address.
    pub threads: usize,
    /// The zone; its name servers are filled in.
    pub settings: Settings,
    /// The agent's pin directory, if names are to wait for it.
    pub pins: Option<PinDir>,
    /// Where health and metrics are served; nowhere if none.
    pub health: Option<SocketAddr>,
}

/// Serves until SIGTERM or SIGINT. Queries are answered from the start: with SERVFAIL for names that may exist, until the
/// source has told all that it has.
///
/// # Errors
/// An address cannot be listened on, or the source cannot be watched.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let Config { source, listen, threads, mut settings, pins, health } = config;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut listeners = Vec::new();
    for addr in listen {
        let listener = Listener::bind(addr, threads).with_context(|| format!("listen on {addr}"))?;
        listeners.push(listener);
    }
    settings.name_servers = told(listeners.iter().map(|listener| listener.addr().ip()));
    let name = settings.zone.to_string();
    let zone = Shared::new(Zone::new(settings, pins.is_some()));
    let mut asked = monitoring::serve(health).await.context("--health-listen")?;
    let mut source = follow(&source).await?;
    let mut builder = Builder::default();
    let mut programmed = pins.map(Programmed::new);
    let mut was_unreadable = false;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for listener in listeners {
        info!(zone = name, addr = %listener.addr(), "serving UDP and TCP");
        listener.serve(&zone).context("start a thread")?;
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            batch = source.next() => take(batch, &mut builder, &zone),
            asked = monitoring::next_asked(&mut asked) => answer(asked, &zone, &source),
            _ = look.tick(), if programmed.is_some() => {
                let Some(programmed) = &mut programmed else { continue };
                match programmed.look() {
                    Ok(vips) => {
                        was_unreadable = false;
                        if let Some(vips) = vips {
                            debug!(vips = vips.len(), "programmed on this node");
                            zone.write().set_programmed(vips, now());
                        }
                    }
                    Err(error) if !was_unreadable => {
                        was_unreadable = true;
                        warn!("which addresses work on this node stays as it was: {error:#}");
                    }
                    Err(_said_already) => {}
                }
            }
        }
    }
    info!("stopping");
    Ok(())
}

async fn follow(source: &SourceConfig) -> anyhow::Result<Source> {
    Ok(match source {
        SourceConfig::Dir(path) => {
            let source = DirSource::new(path).with_context(|| format!("watch {}", path.display()))?;
            Source::Dir(Box::new(source))
        }
        SourceConfig::Kube(access) => Source::Kube(Box::new(KubeSource::start(access, None).await?)),
    })
}

/// It is ready once it knows all that exists, and stays so: it answers whether the source can be followed or not.
fn answer(asked: Asked, zone: &Shared, source: &Source) {
    let answer = match asked.question {
        Question::Live => Answer::of(Ok(())),
        Question::Ready if zone.read().is_synced() => Answer::of(Ok(())),
        Question::Ready => {
            let troubles = source.troubles();
            let why = if troubles.is_empty() { "objects are being read".to_owned() } else { troubles.join("; ") };
            Answer::of(Err(why))
        }
        Question::Metrics => Answer::text(metrics::text(zone, source.troubles().len())),
    };
    asked.answer(answer);
}

fn take(batch: Batch, builder: &mut Builder, zone: &Shared) {
    let Batch { events, barriers: _, new_problems, surroundings: _, stamps: _ } = batch;
    for problem in &new_problems {
        match problem.severity {
            Severity::Notice => debug!("{problem}"),
            Severity::Invalid | Severity::NoRoom => warn!("{problem}"),
        }
    }
    let update = builder.handle(events);
    if update.is_empty() {
        return;
    }
    let changed = update.len();
    let mut zone = zone.write();
    let was_synced = zone.is_synced();
    zone.apply(update, now());
    let (services, is_synced) = (zone.len(), zone.is_synced());
    drop(zone);
    if is_synced && !was_synced {
        info!(services, "all services have their names");
    } else {
        debug!(services, changed, "names changed");
    }
}

/// Unix seconds, for serial numbers, which go around (RFC 1982).
fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u32::try_from(since.as_secs() & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}
