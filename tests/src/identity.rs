//! "Who am I" servers: a client learns which backend it reached, and can see later that it still talks to the same one.
//!
//! TCP: on accept the server writes its name and a newline, then echoes. UDP: each datagram comes back behind the
//! server's name and a newline. Nothing is asked first, so that a test needs one round trip and no protocol.
//!
//! A server is a thread of this process ([`Server::start`]) or a process of its own ([`Server::start_process`]): the latter
//! for thousands of connections, where client and server in one process would need two descriptors for each.

mod client;
mod echo;
mod process;

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::addresses::Family;
use crate::place::Place;
use crate::registry::Stop;

pub use client::{Connection, ask, ask_connected, ask_from, parse_datagram};
use echo::Counters;
use process::Process;

/// How long a client waits for anything before it calls the test failed.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A transport that services have and the dataplane knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Both, for loops.
    pub const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];

    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// One socket of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listen {
    /// Its transport.
    pub protocol: Protocol,
    /// Its address. IPv6 sockets do not take IPv4.
    pub address: SocketAddr,
    /// What it says instead of the server's name.
    pub name: Option<String>,
}

impl Listen {
    /// TCP and UDP of both families on a port, at any address of the place.
    pub fn port(port: u16) -> Vec<Self> {
        Family::BOTH.iter().flat_map(|family| Self::both(SocketAddr::new(family.unspecified(), port))).collect()
    }

    /// TCP and UDP at an address. UDP at one of a pod's further addresses must be bound to it, or replies leave from
    /// the pod's first.
    pub fn both(address: SocketAddr) -> Vec<Self> {
        Protocol::BOTH.iter().map(|&protocol| Self { protocol, address, name: None }).collect()
    }

    /// The same socket, which says another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// What a server has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// TCP connections accepted.
    pub connections: u64,
    /// Of those, the ones still open.
    pub open: u64,
    /// Datagrams received.
    pub datagrams: u64,
    /// Bytes received over both.
    pub bytes: u64,
}

/// A running server. Dropping it closes its sockets; so does the fleet's end.
pub struct Server {
    name: String,
    running: Arc<Running>,
}

impl Server {
    /// Starts a server on a thread in a place. Its sockets are open when this returns.
    pub fn start(place: &Place, name: &str, listen: &[Listen]) -> Result<Self> {
        let what = || format!("start server {name} in {}", place.name());
        let counters = Arc::<Counters>::default();
        let sockets = place.try_run(|| echo::open(name, listen))?.with_context(what)?;
        let (stopped, stop) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("make a pipe").with_context(what)?;
        let counting = Arc::clone(&counters);
        // Sockets stay in the place where they were opened, so the thread that serves them may run anywhere; outside,
        // it does not keep the place's cgroup busy.
        let thread = std::thread::Builder::new()
            .name(format!("server {name}"))
            .spawn(move || echo::serve(sockets, &stopped, &counting))
            .with_context(what)?;
        let thread = Mutex::new(Some((stop, thread)));
        Ok(Self::running(place, name, Running { name: name.to_owned(), kind: Kind::Thread { thread, counters } }))
    }

    /// Starts a server as a process in a place. Its sockets are open when this returns.
    pub fn start_process(place: &Place, name: &str, listen: &[Listen]) -> Result<Self> {
        let process =
            Process::start(place, name, listen).with_context(|| format!("start server {name} in {}", place.name()))?;
        let kind = Kind::Process(Mutex::new(process));
        Ok(Self::running(place, name, Running { name: name.to_owned(), kind }))
    }

    /// A server in each of the pods, called like its pod, that listens on a port with both transports and families.
    pub fn start_in<'a>(pods: impl IntoIterator<Item = &'a crate::Pod>, port: u16) -> Result<Vec<Self>> {
        pods.into_iter().map(|pod| Self::start(pod, pod.name(), &Listen::port(port))).collect()
    }

    fn running(place: &Place, name: &str, running: Running) -> Self {
        let running = Arc::new(running);
        place.registry().add(&running);
        Self { name: name.to_owned(), running }
    }

    /// What it says.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has seen so far.
    pub fn stats(&self) -> Result<Stats> {
        match &self.running.kind {
            Kind::Thread { counters, .. } => Ok(counters.stats()),
            Kind::Process(process) => lock(process).stats().with_context(|| format!("server {}", self.name)),
        }
    }

    /// Closes all its sockets: open connections are reset or closed, its ports refuse.
    pub fn stop(&self) {
        self.running.stop();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Running {
    name: String,
    kind: Kind,
}

enum Kind {
    /// Closing the pipe's end ends the thread.
    Thread {
        thread: Mutex<Option<(OwnedFd, JoinHandle<Result<()>>)>>,
        counters: Arc<Counters>,
    },
    Process(Mutex<Process>),
}

impl Stop for Running {
    fn stop(&self) {
        match &self.kind {
            Kind::Process(process) => lock(process).kill(),
            Kind::Thread { thread, .. } => {
                let Some((stop, thread)) = lock(thread).take() else {
                    return;
                };
                drop(stop);
                match thread.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => eprintln!("server {}: {error:#}", self.name),
                    Err(_panic) => eprintln!("server {}: its thread panicked", self.name),
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
