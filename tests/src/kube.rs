//! mcs on real clusters, as a user installs it: with what `deploy/` holds, `mcs join`, and an image, and nothing else.
//!
//! ```text
//!  Clusters (kubelet, containerd, …) ──► image loaded ──► mcs broker init ──► per member: kubectl apply -k, mcs join
//! ```
//!
//! There is one set of clusters on a machine at a time: who has a [`Kube`] has them, and they are gone with it.

pub mod iperf;
pub mod load;
pub mod shop;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mcs_clusters::{Clusters, Directories, Shape};
use serde_json::{Value, json};

use crate::agent::mcs_binary;
use crate::client::Client;
use crate::mcs::{CIDRS, CLUSTERSET};
use crate::signal;

/// The image's name in `deploy/`.
pub const IMAGE: &str = "localhost/mcs:dev";
/// How often something is asked again that cannot be watched.
const POLL: Duration = Duration::from_millis(200);
/// How long what is expected may take on a busy machine of two cores.
pub const SOON: Duration = Duration::from_secs(180);

/// The clusters of this machine, one test's at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Clusters with mcs in them.
pub struct Kube {
    clusters: Clusters,
    /// Kubeconfigs and manifests; in the clusters' own directory, so that they go with them whatever ends this process.
    files: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

/// Where the image is, or why there is none: `MCS_IMAGE`, else where `cargo xtask image` writes it.
pub fn image() -> Result<PathBuf> {
    let named = std::env::var_os("MCS_IMAGE").map(PathBuf::from);
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image/mcs.tar");
    let image = named.unwrap_or_else(usual);
    ensure!(image.is_file(), "{}: not there: run `cargo xtask image`, or name one by MCS_IMAGE", image.display());
    Ok(image)
}

/// From now on SIGINT, SIGTERM and SIGHUP end the clusters before they end this process.
pub fn on_signal() -> Result<()> {
    signal::before_ending(|| {
        if let Err(error) = Clusters::end(false) {
            eprintln!("clusters: end them: {error:#}");
        }
    })
}

/// Why there can be no clusters here, or `None` if there can.
#[must_use]
pub fn missing() -> Option<String> {
    let directories = Directories::of_user();
    let programs = directories.map_or_else(|error| Some(error.to_string()), |found| found.missing());
    crate::privilege::missing().or(programs).or_else(|| image().err().map(|error| error.to_string()))
}

/// Returns from the calling test if there can be no clusters with mcs here, as
/// [`require_clusters!`](crate::require_clusters) does.
#[macro_export]
macro_rules! require_kube {
    () => {
        if let Some(why) = $crate::kube::missing() {
            let thread = ::std::thread::current();
            $crate::privilege::skip(thread.name().unwrap_or("test"), &why);
            return;
        }
    };
}

impl Kube {
    /// Brings clusters up, with the image on all nodes. The shape must have a broker.
    pub fn up(shape: &Shape) -> Result<Self> {
        Self::up_saying(shape, &|line| eprintln!("clusters: {line}"))
    }

    /// [`up`](Self::up) for who has another place for a line about each step.
    pub fn up_saying(shape: &Shape, say: &(dyn Fn(&str) + Sync)) -> Result<Self> {
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(Clusters::open()?.is_none(), "clusters are up: `cargo xtask cluster down` first");
        let kube = match Clusters::up(shape, say) {
            Ok(clusters) => Self { clusters, files: Directories::of_user()?.run().join("files"), _alone: alone },
            Err(error) => {
                Clusters::end(true)?;
                return Err(error);
            }
        };
        fs::create_dir_all(&kube.files).with_context(|| format!("make {}", kube.files.display()))?;
        kube.clusters.load(&image()?)?;
        Ok(kube)
    }

    /// A directory for files about these clusters; it goes with them.
    #[must_use]
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// The clusters themselves.
    #[must_use]
    pub const fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    /// What kubectl says as a cluster's admin; it must succeed.
    pub fn kubectl(&self, cluster: &str, arguments: &[&str]) -> Result<String> {
        let mut kubectl = self.clusters.kubectl(cluster);
        succeed(kubectl.args(arguments))
    }

    /// Applies objects.
    pub fn apply(&self, cluster: &str, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let file = self.files.join(format!("{cluster}.json"));
        fs::write(&file, list.to_string()).with_context(|| format!("write {}", file.display()))?;
        self.kubectl(cluster, &["apply", "--server-side", "-f", &file.display().to_string()]).map(drop)
    }

    /// Applies a kustomization of `deploy/`.
    pub fn deploy(&self, cluster: &str, overlay: &str) -> Result<()> {
        let directory = deploy_directory(overlay);
        self.kubectl(cluster, &["apply", "--server-side", "-k", &directory.display().to_string()]).map(drop)
    }

    /// Deletes what a kustomization of `deploy/` holds, and waits for it.
    pub fn remove(&self, cluster: &str, overlay: &str) -> Result<()> {
        let directory = deploy_directory(overlay);
        let arguments = ["delete", "--ignore-not-found", "--wait", "--timeout=120s", "-k"];
        let directory = directory.display().to_string();
        self.kubectl(cluster, &arguments.into_iter().chain([directory.as_str()]).collect::<Vec<_>>()).map(drop)
    }

    /// An object as JSON, or none.
    pub fn get(&self, cluster: &str, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let arguments = ["-n", namespace, "get", kind, name, "--ignore-not-found", "-o", "json"];
        let text = self.kubectl(cluster, &arguments)?;
        if text.trim().is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
    }

    /// Waits until a workload (`daemonset/mcs-agent`) has rolled out.
    pub fn rolled_out(&self, cluster: &str, namespace: &str, workload: &str) -> Result<()> {
        let limit = format!("--timeout={}s", SOON.as_secs());
        let waited = self.kubectl(cluster, &["-n", namespace, "rollout", "status", workload, &limit]);
        waited.map(drop).with_context(|| self.why(cluster, namespace))
    }

    /// What a namespace's pods say for themselves.
    #[must_use]
    pub fn why(&self, cluster: &str, namespace: &str) -> String {
        let mut text = String::new();
        for arguments in [
            &["-n", namespace, "get", "pods", "-o", "wide"][..],
            &["-n", namespace, "get", "events", "--sort-by=.lastTimestamp"],
            &[
                "-n",
                namespace,
                "logs",
                "-l",
                "app.kubernetes.io/part-of=mcs",
                "--tail=30",
                "--prefix",
                "--all-containers",
            ],
        ] {
            let said = self.kubectl(cluster, arguments).unwrap_or_else(|error| format!("{error:#}"));
            text.push_str(&said);
            text.push('\n');
        }
        format!("{cluster}: {text}")
    }

    /// Runs a command in a pod, which must succeed.
    pub fn exec(&self, cluster: &str, namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
        let base = ["-n", namespace, "exec", pod, "--"];
        self.kubectl(cluster, &base.into_iter().chain(command.iter().copied()).collect::<Vec<_>>())
    }

    /// A kubeconfig of one cluster, with addresses as its pods and its peers reach them.
    pub fn kubeconfig(&self, cluster: &str) -> Result<PathBuf> {
        let file = self.files.join(format!("{cluster}.kubeconfig"));
        if !file.is_file() {
            let mut view = self.clusters.inside(Directories::of_user()?.program("kubectl")?);
            view.args(["config", "view", "--minify", "--flatten", "--raw", "--context", cluster]);
            fs::write(&file, succeed(&mut view)?).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(file)
    }

    /// A client of a cluster's API server, from this machine's own network.
    pub fn client(&self, cluster: &str) -> Result<Client> {
        let view = ["config", "view", "--minify", "--flatten", "--raw"];
        let file = self.files.join(format!("{cluster}.outside"));
        fs::write(&file, self.kubectl(cluster, &view)?).with_context(|| format!("write {}", file.display()))?;
        Client::connect(&file)
    }

    /// Installs a member by an overlay of `deploy/`, lets it join under the cluster's name, lets its CoreDNS answer for the
    /// ClusterSet, and starts the client of [`shop`] in it.
    pub fn member(&self, cluster: &str, overlay: &str) -> Result<()> {
        self.deploy(cluster, overlay)?;
        self.join(cluster)?;
        self.running(cluster)?;
        self.clusters.answer_for_clusterset(cluster)?;
        self.apply(cluster, &[shop::namespace(), shop::client()])?;
        self.kubectl(cluster, &["-n", shop::SHOP, "wait", "--for=condition=Ready", "pod/client", "--timeout=120s"])
            .map(drop)
    }

    /// Waits until a cluster's agents and controllers have rolled out.
    pub fn running(&self, cluster: &str) -> Result<()> {
        self.rolled_out(cluster, "mcs-system", "daemonset/mcs-agent")?;
        self.rolled_out(cluster, "mcs-system", "deployment/mcs-controller")
    }

    /// Runs a verb of `mcs` in the clusters' network, which must succeed.
    pub fn mcs(&self, arguments: &[&str]) -> Result<String> {
        let mut mcs = self.clusters.inside(mcs_binary()?);
        succeed(mcs.args(arguments))
    }

    /// `mcs broker init`, with the CIDRs of all tests.
    pub fn init_broker(&self) -> Result<()> {
        let kubeconfig = self.kubeconfig("broker")?.display().to_string();
        let cidrs = CIDRS.iter().flat_map(|cidr| ["--clusterset-cidr", cidr]);
        self.mcs(&["broker", "init", "--kubeconfig", &kubeconfig].into_iter().chain(cidrs).collect::<Vec<_>>())
            .map(drop)
    }

    /// `mcs join`, under the cluster's name.
    pub fn join(&self, cluster: &str) -> Result<()> {
        let (member, broker) = (self.kubeconfig(cluster)?, self.kubeconfig("broker")?);
        let (member, broker) = (member.display().to_string(), broker.display().to_string());
        let who = ["--cluster", cluster, "--clusterset", CLUSTERSET];
        let where_ = ["join", "--kubeconfig", &member, "--broker-kubeconfig", &broker];
        self.mcs(&where_.into_iter().chain(who).collect::<Vec<_>>()).map(drop)
    }

    /// What mcs has on a node: pins, rules. Empty after an uninstall.
    pub fn left_on(&self, node: &str) -> Result<String> {
        let script =
            "ls -d /sys/fs/bpf/mcs 2>/dev/null; ip rule | grep unreachable; ip -6 rule | grep unreachable; true";
        let mut shell = self.clusters.on_node(node, "sh")?;
        succeed(shell.args(["-c", script])).with_context(|| format!("node {node}"))
    }

    /// Asks until the answer is some.
    pub fn until<T>(&self, what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let end = Instant::now() + SOON;
        loop {
            let answer = ask();
            if let Ok(Some(found)) = answer {
                return Ok(found);
            }
            if Instant::now() > end {
                let last = answer.err().map_or_else(|| "not so".to_owned(), |error| format!("{error:#}"));
                bail!("{what}: not in {SOON:?}: {last}");
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Kube {
    fn drop(&mut self) {
        if thread::panicking() {
            for cluster in self.clusters.clusters().iter().filter(|cluster| cluster.nodes > 0) {
                eprintln!("{}", self.why(&cluster.name, "mcs-system"));
            }
        }
        if let Err(error) = self.clusters.down() {
            eprintln!("clusters: down: {error:#}");
        }
    }
}

/// A kustomization of `deploy/`.
#[must_use]
pub fn deploy_directory(overlay: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(overlay)
}

fn succeed(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    let (said, wrote) = (String::from_utf8_lossy(&stderr), String::from_utf8_lossy(&stdout));
    ensure!(status.success(), "{command:?}: {status}: {}{}", wrote.trim(), said.trim());
    Ok(wrote.into_owned())
}
