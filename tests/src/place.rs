//! A place is where code runs: a network namespace and a cgroup. Nodes and pods are places.
//!
//! Closures run on threads of this process ([`Place::run`]), so that a test works with raw sockets as if it were in the
//! pod; and the sockets it returns stay the pod's, as a socket keeps the namespace and the cgroup it was made in.
//! Programs run as children ([`Place::spawn`]).

use std::fmt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, ensure};

use crate::cgroup;
use crate::child::{Child, Launch};
use crate::netns::NetNs;
use crate::registry::Registry;

/// A network namespace and a cgroup. Clones are the same place.
#[derive(Clone)]
pub struct Place(Arc<Inner>);

struct Inner {
    name: String,
    netns: NetNs,
    cgroup: PathBuf,
    registry: Arc<Registry>,
}

impl Place {
    pub(crate) fn new(name: &str, netns: NetNs, cgroup: PathBuf, registry: &Arc<Registry>) -> Self {
        Self(Arc::new(Inner { name: name.to_owned(), netns, cgroup, registry: Arc::clone(registry) }))
    }

    /// `a1` for a node, `a1p1` for a pod.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its network namespace.
    pub fn netns(&self) -> &NetNs {
        &self.0.netns
    }

    /// Its cgroup; a pod's lies below its node's.
    pub fn cgroup(&self) -> &Path {
        &self.0.cgroup
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Runs a closure on a fresh thread in this place, and waits for it.
    ///
    /// # Panics
    /// If the closure does, with its payload; or if the place cannot be entered, as then no test could go on.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.try_run(work).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// [`run`](Self::run) for callers that handle a place that is gone.
    ///
    /// # Panics
    /// If the closure does, with its payload.
    pub fn try_run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name(self.thread_name());
            let worker = thread
                .spawn_scoped(scope, || {
                    self.enter()?;
                    Ok(work())
                })
                .with_context(|| format!("start a thread for {}", self.name()))?;
            worker.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a closure on a thread in this place without waiting. Prefer [`run`](Self::run): nobody ends such a thread,
    /// and a fleet cannot be removed before it ended.
    pub fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let place = self.clone();
        thread::Builder::new()
            .name(self.thread_name())
            .spawn(move || {
                place.enter()?;
                // Only the namespace must outlive this, and the thread is in it.
                drop(place);
                Ok(work())
            })
            .with_context(|| format!("start a thread for {}", self.name()))
    }

    /// Moves the calling thread here, for good.
    pub(crate) fn enter(&self) -> Result<()> {
        self.0.netns.enter()?;
        cgroup::enter(&self.0.cgroup)
    }

    /// Starts a program here. It is killed and reaped when the handle or the fleet is dropped.
    pub fn spawn(&self, command: Command) -> Result<Child> {
        self.launch(command).spawn()
    }

    /// A program to be started here, with choices: [`Launch`].
    pub fn launch(&self, command: Command) -> Launch {
        Launch::new(self.clone(), command)
    }

    /// Runs a program here to its end and returns what it wrote.
    pub fn output(&self, mut command: Command) -> Result<Output> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.spawn(command)?.wait_with_output()
    }

    /// Runs a program here to its end, which must be a success, and returns its standard output.
    pub fn stdout(&self, command: Command) -> Result<String> {
        let what = format!("{command:?}");
        let output = self.output(command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{what} in {}: {}: {}", self.name(), output.status, said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn thread_name(&self) -> String {
        // A panic's message names the thread: the test's name and the place.
        let current = thread::current();
        format!("{} in {}", current.name().unwrap_or("main"), self.name())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Place({})", self.name())
    }
}
