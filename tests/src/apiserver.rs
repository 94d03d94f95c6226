//! A real API server: etcd and kube-apiserver on the loopback interface, nothing else of a cluster. It stands in two to
//! three seconds, can be killed, restarted, emptied and put back to an old state, and is gone without a trace when its value
//! is dropped.
//!
//! ```text
//!   Client, mcs verbs ──kubeconfig──► kube-apiserver ──► etcd        in a directory of their own:
//!          kube-controller-manager ──────┘ (only where asked for)    data, keys, logs, kubeconfig
//! ```
//!
//! RBAC is on, tokens of service accounts are signed with a key of the server's own, and nothing runs that a bare API server
//! does not have: no garbage collection, no token Secrets, no namespaces' removal unless
//! [`ApiServer::controller_manager`] is started.

mod dir;
mod key;
pub(crate) mod port;
mod programs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::child::Child;
use crate::client::Client;
use crate::registry::Stop;

use dir::Dir;
use key::Key;
pub use port::Port;
pub use programs::{API_SERVER, CONTROLLER_MANAGER, ETCD, find, missing};

/// How long a server may take to be ready; a busy machine of two cores takes ten times what an idle one does.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How often a server that starts is asked whether it is ready.
const POLL: Duration = Duration::from_millis(30);
/// How much of a log goes into an error.
const LOG_LINES: usize = 30;
/// The bearer token of the admin, in group `system:masters`.
const ADMIN_TOKEN: &str = "admin";

/// An API server that runs, or has run. Clones are the same server; with the last one it is removed.
#[derive(Clone)]
pub struct ApiServer(Arc<Core>);

struct Core {
    name: String,
    dir: Dir,
    key: Key,
    ports: Ports,
    service_cidrs: String,
    processes: Mutex<Option<Processes>>,
    managers: Mutex<Vec<Child>>,
}

struct Ports {
    client: Port,
    peer: Port,
    secure: Port,
}

struct Processes {
    etcd: Child,
    api: Child,
}

/// A copy of all objects of a server, as a backup has it: [`ApiServer::backup`].
pub struct Backup {
    files: PathBuf,
}

impl ApiServer {
    /// Starts a server and waits until it is ready.
    pub fn start(name: &str) -> Result<Self> {
        Self::with_service_cidrs(name, "10.96.0.0/16,fd00:96::/112")
    }

    /// [`start`](Self::start), several at once, named `a`, `b`, ….
    pub fn start_many(count: usize) -> Result<Vec<Self>> {
        let names = ('a'..='z').take(count).map(String::from);
        thread::scope(|scope| {
            let starts: Vec<_> = names.map(|name| scope.spawn(move || Self::start(&name))).collect();
            let join = |start: thread::ScopedJoinHandle<'_, Result<Self>>| {
                start.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            starts.into_iter().map(join).collect()
        })
    }

    /// [`start`](Self::start), with other CIDRs for the cluster IPs of its Services: one, or one of each family.
    pub fn with_service_cidrs(name: &str, cidrs: &str) -> Result<Self> {
        let what = || format!("start API server {name}");
        let dir = Dir::make().with_context(what)?;
        let key = Key::generate(dir.path()).with_context(what)?;
        let reserve = || Port::reserve().with_context(what);
        let ports = Ports { client: reserve()?, peer: reserve()?, secure: reserve()? };
        let (processes, managers) = (Mutex::default(), Mutex::default());
        let core =
            Core { name: name.to_owned(), dir, key, ports, service_cidrs: cidrs.to_owned(), processes, managers };
        core.write("tokens", &format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))?;
        core.write("kubeconfig", &core.kubeconfig_for(ADMIN_TOKEN))?;
        let core = Arc::new(core);
        dir::remove_at_exit(&core)?;
        core.start()?;
        Ok(Self(core))
    }

    /// What it was called at its start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its address, `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// The admin's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.path("kubeconfig")
    }

    /// A kubeconfig for whoever has a bearer token, in a file beside the admin's.
    pub fn kubeconfig_with_token(&self, name: &str, token: &str) -> Result<PathBuf> {
        let file = format!("{name}.kubeconfig");
        self.0.write(&file, &self.0.kubeconfig_for(token))?;
        Ok(self.0.path(&file))
    }

    /// The file with the certificates that its own one is proved by, as PEM.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.0.path("certs/apiserver.crt")
    }

    /// A client with the admin's rights.
    pub fn client(&self) -> Result<Client> {
        Client::connect(&self.kubeconfig())
    }

    /// The directory of its files, where others may put theirs: it goes with the server.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.0.dir.path()
    }

    /// Kills it and etcd with SIGKILL: connections end, and new ones are refused. Objects stay.
    pub fn kill(&self) {
        lock(&self.0.processes).take();
    }

    /// Starts it again at its address, after [`kill`](Self::kill) or while it runs, and waits until it is ready.
    pub fn restart(&self) -> Result<()> {
        self.kill();
        self.0.start()
    }

    /// Stops it as SIGSTOP does: connections stay and nothing answers, as with a machine that hangs.
    pub fn pause(&self) -> Result<()> {
        self.0.signal(Signal::STOP)
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) -> Result<()> {
        self.0.signal(Signal::CONT)
    }

    /// Copies all objects. The server is killed and started again for it.
    pub fn backup(&self) -> Result<Backup> {
        let taken = self.0.dir.path().join(format!("backup-{}", self.0.dir.next_number()));
        self.kill();
        dir::copy(&self.0.path("etcd"), &taken)?;
        self.0.start()?;
        Ok(Backup { files: taken })
    }

    /// Puts all objects back to what they were, resource versions and UIDs included.
    pub fn restore(&self, backup: &Backup) -> Result<()> {
        self.kill();
        dir::remove(&self.0.path("etcd"))?;
        dir::copy(&backup.files, &self.0.path("etcd"))?;
        self.0.start()
    }

    /// Loses all objects: a new server at the old address, with the old certificates and tokens.
    pub fn empty(&self) -> Result<()> {
        self.kill();
        dir::remove(&self.0.path("etcd"))?;
        self.0.start()
    }

    /// Starts kube-controller-manager with these controllers alone, such as `endpointslice-controller`. It ends with the
    /// server.
    pub fn controller_manager(&self, controllers: &[&str]) -> Result<()> {
        let mut command = Command::new(find(CONTROLLER_MANAGER)?);
        let kubeconfig = self.kubeconfig();
        command.arg(format!("--kubeconfig={}", kubeconfig.display()));
        command.arg(format!("--controllers={}", controllers.join(",")));
        command.args(["--leader-elect=false", "--secure-port=0", "--use-service-account-credentials=false"]);
        let child = Child::start_here(command, &self.0.path("kube-controller-manager.log"))?;
        lock(&self.0.managers).push(child);
        Ok(())
    }

    /// Processor time that kube-apiserver and etcd have used since they were started.
    pub fn processor_time(&self) -> Result<(Duration, Duration)> {
        let processes = lock(&self.0.processes);
        let processes = processes.as_ref().context("processor time: the server does not run")?;
        Ok((crate::mcs::processor_time(processes.api.id())?, crate::mcs::processor_time(processes.etcd.id())?))
    }

    /// The end of what kube-apiserver and etcd have logged.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.0.log_tail()
    }
}

impl Core {
    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path(file);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.secure.number())
    }

    fn kubeconfig_for(&self, token: &str) -> String {
        let (name, server, ca) = (&self.name, self.url(), self.path("certs/apiserver.crt"));
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {name}\n\
             clusters: [{{name: {name}, cluster: {{server: \"{server}\", certificate-authority: \"{}\"}}}}]\n\
             users: [{{name: {name}, user: {{token: \"{token}\"}}}}]\n\
             contexts: [{{name: {name}, context: {{cluster: {name}, user: {name}}}}}]\n",
            ca.display()
        )
    }

    fn start(&self) -> Result<()> {
        let etcd = Child::start_here(self.etcd()?, &self.path("etcd.log"))?;
        let api = Child::start_here(self.api_server()?, &self.path("kube-apiserver.log"))?;
        *lock(&self.processes) = Some(Processes { etcd, api });
        let end = Instant::now() + READY_LIMIT;
        while !self.is_ready() {
            if let Some(processes) = &*lock(&self.processes) {
                for child in [&processes.etcd, &processes.api] {
                    if let Some(status) = child.try_wait()? {
                        bail!("start API server {}: it ended: {status}: {}", self.name, self.log_tail());
                    }
                }
            }
            let late = || format!("start API server {}: not ready in {READY_LIMIT:?}: {}", self.name, self.log_tail());
            ensure!(Instant::now() < end, late());
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        // A new client each time: there may be no certificate yet, or half a one.
        let answer = Client::connect(&self.path("kubeconfig")).and_then(|client| client.raw("/readyz"));
        answer.is_ok_and(|answer| answer == "ok")
    }

    fn etcd(&self) -> Result<Command> {
        let (client, peer) = (self.ports.client.number(), self.ports.peer.number());
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new(find(ETCD)?);
        command.arg("--data-dir").arg(self.path("etcd"));
        command.args(["--unsafe-no-fsync", "--log-level=warn"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        Ok(command)
    }

    fn api_server(&self) -> Result<Command> {
        let Key { private, public } = &self.key;
        let mut command = Command::new(find(API_SERVER)?);
        command.arg(format!("--etcd-servers=http://127.0.0.1:{}", self.ports.client.number()));
        command.arg(format!("--secure-port={}", self.ports.secure.number()));
        command.args([
            "--allow-privileged=true",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
        ]);
        command.arg(format!("--cert-dir={}", self.path("certs").display()));
        command.arg(format!("--service-cluster-ip-range={}", self.service_cidrs));
        command.arg(format!("--token-auth-file={}", self.path("tokens").display()));
        command.arg("--authorization-mode=RBAC");
        command.arg("--service-account-issuer=https://kubernetes.default.svc");
        command.arg(format!("--service-account-signing-key-file={}", private.display()));
        command.arg(format!("--service-account-key-file={}", public.display()));
        // Pods could not be made otherwise: nobody makes the default service account.
        command.arg("--disable-admission-plugins=ServiceAccount");
        Ok(command)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let processes = lock(&self.processes);
        let processes = processes.as_ref().with_context(|| format!("API server {}: it does not run", self.name))?;
        processes.api.signal(signal)
    }

    fn log_tail(&self) -> String {
        let tail = |file: &str| format!("--- {file}:\n{}", crate::mcs::tail(&self.path(file), LOG_LINES));
        [tail("etcd.log"), tail("kube-apiserver.log")].join("\n")
    }
}

impl Stop for Core {
    fn stop(&self) {
        lock(&self.managers).clear();
        lock(&self.processes).take();
        if let Err(error) = dir::remove(self.dir.path()) {
            eprintln!("API server {}: {error:#}", self.name);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
