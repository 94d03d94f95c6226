//! `mcs agent` on a node: started, killed and restarted as tests need it, and gone without a trace at the end.

mod options;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::child::{Child, quiet};
use crate::fleet::Fleet;
use crate::member::Node;
use crate::place::Place;
use crate::registry::Stop;
use crate::removal::{self, BPFFS};

pub use options::{AgentOptions, mcs_binary};

/// How long an agent may take to stop when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long `mcs status --wait` waits, unless a test knows better.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How often a waiting test looks whether the agent lives.
const POLL: Duration = Duration::from_millis(5);
/// How much of its log is printed when a test fails.
const LOG_LINES: usize = 200;

/// An agent that runs on a node, or has run. Dropping it kills it, detaches its programs and removes its pins; when a test
/// is failing, it prints what the agent said.
pub struct Agent {
    core: Arc<Core>,
}

struct Core {
    place: Place,
    options: AgentOptions,
    binary: PathBuf,
    log: PathBuf,
    process: Mutex<Option<Child>>,
    /// Set when its programs and pins have been removed.
    gone: Mutex<bool>,
}

impl Agent {
    /// Starts an agent and does not wait for it to be ready.
    pub fn start(fleet: &Fleet, node: &Node, options: AgentOptions) -> Result<Self> {
        mount_bpffs()?;
        let parent = options.pin_dir.parent().context("start agent: its pin directory has no parent")?;
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        let binary = match &options.binary {
            Some(binary) => binary.clone(),
            None => mcs_binary()?,
        };
        let log = fleet.dir("logs")?.join(format!("{}.log", node.name()));
        let place = Place::clone(node);
        let (process, gone) = (Mutex::default(), Mutex::new(false));
        let core = Arc::new(Core { place, options, binary, log, process, gone });
        node.registry().add(&core);
        let agent = Self { core };
        agent.start_process(None)?;
        Ok(agent)
    }

    /// [`start`](Self::start), and waits until it is ready.
    pub fn start_ready(fleet: &Fleet, node: &Node, options: AgentOptions) -> Result<Self> {
        let agent = Self::start(fleet, node, options)?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// An agent on every node of a fleet, all with one source, ready.
    pub fn start_on_all(fleet: &Fleet, source: &Path) -> Result<Vec<Self>> {
        let start = |node: &Node| Self::start(fleet, node, AgentOptions::new(fleet, node, source));
        // All start before the first is waited for.
        let agents: Vec<Self> = fleet.nodes().iter().map(start).collect::<Result<_>>()?;
        for agent in &agents {
            agent.wait_ready()?;
        }
        Ok(agents)
    }

    fn start_process(&self, binary: Option<&Path>) -> Result<()> {
        let Core { place, options, binary: usual, log, process, gone } = &*self.core;
        let command = options.command(binary.unwrap_or(usual));
        // Locked until it is there, so that the fleet's end, if it comes now, finds it or keeps it from starting.
        let mut process = lock(process);
        ensure!(!*lock(gone), "start agent on {}: its fleet is removed", place.name());
        *process = Some(match options.kubeconfig {
            None => place.launch(quiet(command)).stderr_to(log)?.spawn()?,
            Some(_) => Child::start_here(command, log)?,
        });
        Ok(())
    }

    /// What it was started with.
    pub fn options(&self) -> &AgentOptions {
        &self.core.options
    }

    /// Its process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        lock(&self.core.process).as_ref().map(Child::id)
    }

    /// How it ended, if it has ended by itself.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        lock(&self.core.process).as_ref().map_or(Ok(None), Child::try_wait)
    }

    /// Waits until the agent that runs now has all objects in the kernel: `mcs status --wait`.
    pub fn wait_ready(&self) -> Result<()> {
        self.wait_ready_for(READY_LIMIT)
    }

    /// [`wait_ready`](Self::wait_ready), at most so long. An agent that ends is not waited for.
    pub fn wait_ready_for(&self, limit: Duration) -> Result<()> {
        let name = self.core.place.name();
        let wait = format!("{}s", limit.as_secs().max(1));
        let mut command = self.core.verb(&["status", "--wait", &wait]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let status = self.core.place.spawn(command)?;
        while status.try_wait()?.is_none() {
            if let Some(status) = self.ended()? {
                bail!("agent on {name}: it ended: {status}: {}", self.log_tail());
            }
            thread::sleep(POLL);
        }
        let output = status.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "agent on {name}: not ready after {wait}: {}: {}",
            said.trim(),
            self.log_tail()
        );
        Ok(())
    }

    /// Runs a verb of `mcs` on the agent's node and pin directory: `["services", "-o", "json"]`.
    pub fn mcs(&self, arguments: &[&str]) -> Result<Output> {
        self.core.mcs(arguments)
    }

    /// Runs a verb that must succeed, and parses what it prints.
    pub fn mcs_json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.mcs(&[arguments, &["-o", "json"]].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mcs {arguments:?}: {}: {}", output.status, said.trim());
        serde_json::from_slice(&output.stdout).with_context(|| format!("mcs {arguments:?}: parse what it prints"))
    }

    /// Kills it with SIGKILL. Programs and maps stay.
    pub fn kill9(&self) {
        lock(&self.core.process).take();
    }

    /// Asks it to stop with SIGTERM and waits. Programs and maps stay.
    pub fn stop(&self) -> Result<ExitStatus> {
        let name = self.core.place.name();
        let mut child = lock(&self.core.process).take().with_context(|| format!("stop agent on {name}: none runs"))?;
        child.signal(Signal::TERM)?;
        let status = child.wait_for(STOP_LIMIT)?;
        status
            .with_context(|| format!("stop agent on {name}: it did not end within {STOP_LIMIT:?}: {}", self.log_tail()))
    }

    /// Starts it again: after [`kill9`](Self::kill9) or [`stop`](Self::stop), or in place of the one that runs, which is
    /// killed.
    pub fn restart(&self) -> Result<()> {
        self.kill9();
        self.start_process(None)
    }

    /// Starts another program as the agent, for replacement by another version. Later restarts use the first again.
    pub fn restart_as(&self, binary: &Path) -> Result<()> {
        self.kill9();
        self.start_process(Some(binary))
    }

    /// Removes programs, links, maps and routes: `mcs detach`, which must succeed.
    pub fn detach(&self) -> Result<()> {
        let output = self.mcs(&["detach"])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "mcs detach on {}: {}: {}",
            self.core.place.name(),
            output.status,
            said.trim()
        );
        Ok(())
    }

    /// The file with all that it has written to standard error, over restarts.
    pub fn log(&self) -> &Path {
        &self.core.log
    }

    /// What it has written to standard error so far, over restarts.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.core.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- agent on {}:\n{}\n---", self.core.place.name(), self.log_tail());
        }
        self.core.stop();
    }
}

impl Core {
    fn verb(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--pin-dir").arg(&self.options.pin_dir);
        command
    }

    fn mcs(&self, arguments: &[&str]) -> Result<Output> {
        self.place.output(self.verb(arguments))
    }
}

impl Stop for Core {
    fn stop(&self) {
        let mut process = lock(&self.process);
        if std::mem::replace(&mut *lock(&self.gone), true) {
            return;
        }
        let ended = process.take();
        drop((process, ended));
        let name = self.place.name();
        match self.mcs(&["detach"]) {
            Ok(output) if !output.status.success() && self.options.pin_dir.exists() => {
                eprintln!("detach agent on {name}: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            Ok(_) => {}
            Err(error) => eprintln!("detach agent on {name}: {error:#}"),
        }
        // Whatever detach thinks of it: the next test must not find this one's maps.
        if let Err(error) = removal::remove_dir(&self.options.pin_dir) {
            eprintln!("agent on {name}: {error:#}");
        }
    }
}

/// Mounts bpffs where everybody expects it, if it is not there. It stays, as on any machine with systemd.
pub fn mount_bpffs() -> Result<()> {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let mounted = rustix::fs::statfs(BPFFS).is_ok_and(|found| found.f_type == BPF_FS_MAGIC);
    if mounted {
        return Ok(());
    }
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("bpf", BPFFS, "bpf", flags, None).with_context(|| format!("mount bpffs on {BPFFS}"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
