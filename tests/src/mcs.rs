//! `mcs` as its users run it: verbs that end, and `mcs controller`, which runs.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::agent::mcs_binary;
use crate::apiserver::ApiServer;
use crate::child::Child;

/// How long a controller may take to stop when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How much of a log is printed when a test fails.
const LOG_LINES: usize = 150;

/// Runs a verb to its end, whatever it is.
pub fn verb<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Result<Output> {
    let mut command = Command::new(mcs_binary()?);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let what = format!("{command:?}");
    Child::spawn_here(command, what)?.wait_with_output()
}

/// Runs a verb that must succeed, and returns what it printed.
pub fn run<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Result<String> {
    let arguments: Vec<_> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
    let output = verb(&arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mcs {arguments:?}: {}: {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a verb that must fail, and returns what it said on standard error.
pub fn fail<I: IntoIterator<Item: AsRef<OsStr>>>(arguments: I) -> Result<String> {
    let arguments: Vec<_> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
    let output = verb(&arguments)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success(), "mcs {arguments:?}: it succeeded: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// `mcs status -o json` of a member.
pub fn status(kubeconfig: &Path) -> Result<Value> {
    let kubeconfig = kubeconfig.as_os_str();
    let output = verb(["status".as_ref(), "--kubeconfig".as_ref(), kubeconfig, "-o".as_ref(), "json".as_ref()])?;
    let said = String::from_utf8_lossy(&output.stderr);
    // Its exit code is an answer too: what it prints counts.
    serde_json::from_slice(&output.stdout).with_context(|| format!("mcs status: {}: {}", output.status, said.trim()))
}

/// Where ClusterSetIPs of tests come from.
pub const CIDRS: [&str; 2] = ["10.97.0.0/16", "fd00:97::/112"];
/// The id of tests' ClusterSets.
pub const CLUSTERSET: &str = "test-set";

/// `mcs broker init` with [`CIDRS`].
pub fn init_broker(broker: &ApiServer) -> Result<String> {
    let kubeconfig = broker.kubeconfig().display().to_string();
    let cidrs = CIDRS.iter().flat_map(|cidr| ["--clusterset-cidr", cidr]);
    run(["broker", "init", "--kubeconfig", &kubeconfig].into_iter().chain(cidrs))
}

/// The command line of `mcs join` to [`CLUSTERSET`], with the admins' kubeconfigs.
#[must_use]
pub fn join_arguments(member: &ApiServer, broker: &ApiServer, id: &str) -> Vec<String> {
    let (member, broker) = (member.kubeconfig().display().to_string(), broker.kubeconfig().display().to_string());
    let words = ["join", "--kubeconfig", &member, "--broker-kubeconfig", &broker, "--cluster", id];
    words.into_iter().chain(["--clusterset", CLUSTERSET]).map(str::to_owned).collect()
}

/// A process of `mcs controller`. Dropping it kills it; when a test is failing, it prints what the controller said.
pub struct Controller {
    name: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    process: Mutex<Option<Child>>,
}

impl Controller {
    /// Starts a controller of the member that an API server is.
    pub fn start(member: &ApiServer) -> Result<Self> {
        Self::with(member, "controller", &[], &[])
    }

    /// [`start`](Self::start), with a name among the member's controllers, more arguments, and more environment.
    pub fn with(member: &ApiServer, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        Self::with_kubeconfig(&member.kubeconfig(), member, name, arguments, environment)
    }

    /// [`start`](Self::start), with the rights of its ServiceAccount, which `mcs join` and `deploy/` write, and no more. The
    /// member must have joined.
    pub fn start_as_account(member: &ApiServer) -> Result<Self> {
        let request =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": null}});
        let account = "/api/v1/namespaces/mcs-system/serviceaccounts/mcs-controller/token";
        let answer = member.client()?.post(account, &request)?;
        let token = answer["status"]["token"].as_str().context("a TokenRequest without a token")?;
        let kubeconfig = member.kubeconfig_with_token("mcs-controller", token)?;
        Self::with_kubeconfig(&kubeconfig, member, "controller", &[], &[])
    }

    fn with_kubeconfig(
        kubeconfig: &Path,
        member: &ApiServer,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let kubeconfig = kubeconfig.display().to_string();
        let mut all = vec!["controller".to_owned(), "--kubeconfig".to_owned(), kubeconfig];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let environment = environment.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let log = member.dir().join(format!("{name}.log"));
        let name = format!("{name} of {}", member.name());
        let controller = Self { name, arguments: all, environment, log, process: Mutex::default() };
        controller.restart()?;
        Ok(controller)
    }

    /// Starts it again, after [`kill9`](Self::kill9) or in place of the one that runs, which is killed.
    pub fn restart(&self) -> Result<()> {
        self.kill9();
        let mut command = Command::new(mcs_binary()?);
        command.args(&self.arguments).envs(self.environment.iter().map(|(key, value)| (key, value)));
        *self.lock() = Some(Child::start_here(command, &self.log)?);
        Ok(())
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&self) {
        self.lock().take();
    }

    /// Asks it to stop with SIGTERM, and waits.
    pub fn stop(&self) -> Result<ExitStatus> {
        let mut child = self.lock().take().with_context(|| format!("stop {}: it does not run", self.name))?;
        child.signal(Signal::TERM)?;
        child.wait_for(STOP_LIMIT)?.with_context(|| format!("stop {}: not in {STOP_LIMIT:?}", self.name))
    }

    /// Stops it as SIGSTOP does: it neither acts nor ends.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// How it ended, if it has ended by itself.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        self.lock().as_ref().map_or(Ok(None), Child::try_wait)
    }

    /// Its process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Child::id)
    }

    /// What it has logged, over restarts.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.lock().as_ref().with_context(|| format!("signal {}: it does not run", self.name))?.signal(signal)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {}:\n{}\n---", self.name, tail(&self.log, LOG_LINES));
        }
    }
}

/// The last lines of a file.
pub(crate) fn tail(file: &Path, lines: usize) -> String {
    match fs::read(file) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("(read {}: {error})", file.display()),
    }
}

/// Processor time that a process has used, of all its threads.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // Fields 14 and 15, in clock ticks; counted behind the command's name, which may have blanks.
    let behind = text.rsplit_once(')').map(|(_, fields)| fields).with_context(|| format!("{path}: {text}"))?;
    let fields: Vec<&str> = behind.split_ascii_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let used = ticks(11).zip(ticks(12)).with_context(|| format!("{path}: {text}"))?;
    Ok(Duration::from_secs(used.0 + used.1) / u32::try_from(rustix::param::clock_ticks_per_second())?)
}

/// Memory of a process that is in RAM, in bytes.
pub fn resident_memory(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("VmRSS:")).with_context(|| format!("{path}: no VmRSS"))?;
    let number = line.split_ascii_whitespace().next().and_then(|number| number.parse::<u64>().ok());
    Ok(number.with_context(|| format!("{path}: {line}"))? * 1024)
}
