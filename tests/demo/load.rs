//! Connections that run while things change: short ones without end, and held ones that talk all the time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mcs_tests::Place;
use mcs_tests::identity::Connection;

use crate::ending;

/// Between two short connections: enough of them to hit every gap, too few to run out of ports.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two rounds over the held connections.
const ROUND: Duration = Duration::from_millis(20);

/// One short connection.
pub(crate) struct Attempt {
    /// Right before connect(2).
    pub(crate) began: Instant,
    /// Who answered, or why nobody did.
    pub(crate) outcome: Result<String, String>,
}

/// A held connection.
pub(crate) struct Held {
    pub(crate) backend: String,
    /// Times that its server sent back what it got.
    pub(crate) echoes: u64,
    /// Why it is no more.
    pub(crate) broken: Option<String>,
}

/// What has happened so far; readable while it goes on.
#[derive(Default)]
pub(crate) struct Load {
    stop: AtomicBool,
    attempts: Mutex<Vec<Attempt>>,
    held: Mutex<Vec<Held>>,
}

impl Load {
    /// Ends the loops.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst) && !ending::interrupted()
    }

    pub(crate) fn attempts(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects again and again until stopped.
    pub(crate) fn connect(&self, from: &Place, to: SocketAddr) -> Result<()> {
        from.try_run(|| {
            while self.goes_on() {
                let began = Instant::now();
                let outcome = Connection::open(to).map(|connection| connection.backend);
                self.attempts().push(Attempt { began, outcome: outcome.map_err(|error| error.to_string()) });
                thread::sleep(PAUSE);
            }
        })
    }

    /// Opens connections that stay, so many to each address.
    pub(crate) fn open(&self, from: &Place, to: &[SocketAddr], each: usize) -> Result<Vec<Connection>> {
        let open = |to: &SocketAddr| Connection::open(*to).with_context(|| format!("connect to {to}"));
        let opened: Vec<Connection> =
            from.try_run(|| to.iter().flat_map(|to| vec![to; each]).map(open).collect::<Result<_>>())??;
        let held = |connection: &Connection| Held { backend: connection.backend.clone(), echoes: 0, broken: None };
        *self.held() = opened.iter().map(held).collect();
        Ok(opened)
    }

    /// Talks over the connections of [`open`](Self::open), round after round, until stopped.
    pub(crate) fn talk(&self, mut connections: Vec<Connection>) {
        while self.goes_on() {
            for (index, connection) in connections.iter_mut().enumerate() {
                if self.held()[index].broken.is_some() {
                    continue;
                }
                let outcome = connection.echo(b"still there?");
                let held = &mut self.held()[index];
                match outcome {
                    Ok(()) => held.echoes += 1,
                    Err(error) => held.broken = Some(error.to_string()),
                }
            }
            thread::sleep(ROUND);
        }
    }
}
