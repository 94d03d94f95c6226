//! The clusters as a whole: up, down, and what can be asked of them while they run.
//!
//! ```text
//!  state.json ─► fabric ─┬─ cluster c0: keys ─► etcd, kube-apiserver … ready ─► controllers ─► nodes ─► CoreDNS
//!                        └─ cluster c1: the same, at the same time
//! ```
//!
//! Every step looks first whether it was done, so that bringing up what is up costs a second, and what has ended in between
//! is started again.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::control_plane::{self, ControlPlane};
use crate::directories::Directories;
use crate::group::{self, Group};
use crate::keys::{merge, write_secret};
use crate::kubectl::NodeReport;
use crate::network::{self, capture};
use crate::shape::{Cluster, Shape};
use crate::{dns, node};

/// What is kept of clusters that run, in `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    shape: Shape,
    /// The API servers' loopback ports, in the clusters' order.
    ports: Vec<u16>,
}

/// Clusters on this machine; there is one set of them at a time. Dropping this leaves them running.
#[derive(Clone, Debug)]
pub struct Clusters {
    pub(crate) directories: Directories,
    state: State,
    clusters: Vec<Cluster>,
}

impl Clusters {
    /// Brings clusters up and waits until all nodes are Ready and CoreDNS answers. Those that run and are like this stay as
    /// they are; of those that ran, what has ended is started again. `say` gets a line for each step.
    ///
    /// # Errors
    /// If programs are missing, if clusters of another shape are there, or if something does not come up.
    pub fn up(shape: &Shape, say: &(dyn Fn(&str) + Sync)) -> Result<Self> {
        shape.clusters()?;
        let directories = Directories::of_user()?;
        if let Some(why) = directories.missing() {
            bail!("clusters: {why}");
        }
        let _lock = group::lock(&directories.run())?;
        let clusters = match Self::find(&directories)? {
            Some(clusters) if clusters.state.shape == *shape => clusters,
            Some(_) => bail!("clusters of another shape are there: run `cargo xtask cluster down` first"),
            None => Self::plan(directories, shape)?,
        };
        clusters.start(say)?;
        Ok(clusters)
    }

    /// The clusters that were brought up, whether or not everything of them runs.
    ///
    /// # Errors
    /// If their state cannot be read.
    pub fn open() -> Result<Option<Self>> {
        Self::find(&Directories::of_user()?)
    }

    /// Ends everything and removes all of it, the state included. With `keep` the files stay, to look at logs; the next
    /// [`up`](Self::up) removes them.
    ///
    /// # Errors
    /// If something cannot be ended or removed.
    pub fn end(keep: bool) -> Result<()> {
        let directories = Directories::of_user()?;
        let _lock = group::lock(&directories.run())?;
        Group::all()?.remove()?;
        network::remove_all()?;
        let run = directories.run();
        if keep {
            let state = state_file(&directories);
            return match fs::remove_file(&state) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("remove {}", state.display()))
                }
                Ok(()) | Err(_) => Ok(()),
            };
        }
        remove_directory(&run)
    }

    /// Where clusters can be seen on this machine: their cgroup (all processes are in it), their network namespaces, their
    /// files. Nothing after an [`end`](Self::end).
    ///
    /// # Errors
    /// If no cgroup2 is mounted, or no home directory known.
    pub fn traces() -> Result<Vec<PathBuf>> {
        let own = [Group::all()?.path().to_owned(), Directories::of_user()?.run()];
        Ok(own.into_iter().filter(|path| path.exists()).chain(network::files()).collect())
    }

    /// [`end`](Self::end), nothing kept.
    ///
    /// # Errors
    /// As there.
    pub fn down(&self) -> Result<()> {
        Self::end(false)
    }

    fn find(directories: &Directories) -> Result<Option<Self>> {
        let file = state_file(directories);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
        };
        let state: State = serde_json::from_str(&text).with_context(|| format!("{}: not ours", file.display()))?;
        let clusters = state.shape.clusters()?;
        ensure!(clusters.len() == state.ports.len(), "{}: not ours: ports", file.display());
        Ok(Some(Self { directories: directories.clone(), state, clusters }))
    }

    fn plan(directories: Directories, shape: &Shape) -> Result<Self> {
        // What is there without a state was left by somebody who was interrupted, or to look at logs.
        Group::all()?.remove()?;
        network::remove_all()?;
        remove_directory(&directories.run())?;
        control_plane::make_directory(&directories.run())?;
        let clusters = shape.clusters()?;
        let ports = clusters.iter().map(|_| control_plane::free_port()).collect::<Result<Vec<u16>>>()?;
        let state = State { shape: shape.clone(), ports };
        let file = state_file(&directories);
        fs::write(&file, serde_json::to_string_pretty(&state)?).with_context(|| format!("write {}", file.display()))?;
        Ok(Self { directories, state, clusters })
    }

    fn start(&self, say: &(dyn Fn(&str) + Sync)) -> Result<()> {
        network::ensure_fabric()?;
        for cluster in &self.clusters {
            control_plane::make_directory(&control_plane::directory(&self.directories, cluster))?;
            network::ensure_cluster(cluster)?;
        }
        let planes = self.planes()?;
        self.write_kubeconfigs(&planes)?;
        say("network, keys and kubeconfigs");
        at_once(&planes, |plane| plane.start())?;
        say("API servers ready");
        let started = at_once(&planes, start_nodes)?;
        let new: usize = started.iter().map(|(names, _)| names.len()).sum();
        say(&format!("{new} nodes started"));
        let both: Vec<_> = planes.iter().zip(&started).filter(|(plane, _)| plane.cluster.nodes > 0).collect();
        at_once(&both, |(plane, (names, before))| {
            if !names.is_empty() {
                dns::apply(plane, self.answers_for_clusterset(plane.cluster))?;
            }
            node::until_ready(plane, names, before)?;
            dns::until_ready(plane)
        })?;
        say("nodes Ready, CoreDNS running");
        Ok(())
    }

    /// What is needed to start a cluster's parts.
    pub(crate) fn planes(&self) -> Result<Vec<ControlPlane<'_>>> {
        let both = self.clusters.iter().zip(&self.state.ports);
        both.map(|(cluster, port)| ControlPlane::prepare(cluster, &self.directories, *port)).collect()
    }

    fn write_kubeconfigs(&self, planes: &[ControlPlane<'_>]) -> Result<()> {
        for (name, file) in [("loopback", self.kubeconfig()), ("admin", self.kubeconfig_inside())] {
            let read = |plane: &ControlPlane<'_>| {
                let path = plane.kubeconfig(name);
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
            };
            write_secret(&file, &merge(&planes.iter().map(read).collect::<Result<Vec<String>>>()?)?)?;
        }
        Ok(())
    }

    /// The kubeconfig with a context for each cluster, for programs of this machine: the servers' addresses are ports of
    /// 127.0.0.1.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directories.run().join("kubeconfig")
    }

    /// The same with the addresses that nodes, pods and [`inside`](Self::inside) know.
    #[must_use]
    pub fn kubeconfig_inside(&self) -> PathBuf {
        self.directories.run().join("kubeconfig.inside")
    }

    /// What was asked for.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.state.shape
    }

    /// The clusters, the broker last.
    #[must_use]
    pub fn clusters(&self) -> &[Cluster] {
        &self.clusters
    }

    /// A cluster.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn cluster(&self, name: &str) -> Result<&Cluster> {
        let names = || self.clusters.iter().map(|cluster| cluster.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = self.clusters.iter().find(|cluster| cluster.name == name);
        found.with_context(|| format!("cluster {name}: not one of {}", names()))
    }

    /// The loopback port of each cluster's API server.
    pub(crate) fn port(&self, cluster: &Cluster) -> u16 {
        let both = self.clusters.iter().zip(&self.state.ports);
        both.filter(|(one, _)| *one == cluster).map(|(_, port)| *port).next().unwrap_or_default()
    }

    /// kubectl as a cluster's admin, to be given its arguments.
    #[must_use]
    pub fn kubectl(&self, cluster: &str) -> Command {
        let program = self.directories.program("kubectl").unwrap_or_else(|_| "kubectl".into());
        let mut kubectl = Command::new(program);
        kubectl.arg("--kubeconfig").arg(self.kubeconfig()).args(["--context", cluster]);
        kubectl
    }

    /// A program in the router's network, from where all API servers, nodes and pods are reached, with
    /// [`kubeconfig_inside`](Self::kubeconfig_inside) as its `KUBECONFIG`.
    pub fn inside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = network::command(network::FABRIC, program);
        command.env("KUBECONFIG", self.kubeconfig_inside());
        command
    }

    /// A program on a node: in all its namespaces, as root.
    ///
    /// # Errors
    /// If there is no such node or it does not run.
    pub fn on_node(&self, node: &str, program: impl AsRef<OsStr>) -> Result<Command> {
        let init = self.init_of(node)?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={init}")).args(["--all", "--"]).arg(program);
        Ok(command)
    }

    fn init_of(&self, node: &str) -> Result<u32> {
        let known = self.clusters.iter().flat_map(Cluster::nodes).any(|known| known.name == node);
        ensure!(known, "node {node}: not known");
        Group::named(node)?.init().with_context(|| format!("node {node}: does not run"))
    }

    /// Loads an image archive on all nodes, and on those that start later. The next [`up`](Self::up) after a
    /// [`down`](Self::down) forgets it.
    ///
    /// # Errors
    /// If the archive cannot be read or a node refuses it.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let ctr = self.directories.program("ctr")?;
        let archive = fs::canonicalize(archive).with_context(|| format!("image {}", archive.display()))?;
        let kept = self.directories.loaded_images();
        control_plane::make_directory(&kept)?;
        let name = archive.file_name().with_context(|| format!("image {}: not a file", archive.display()))?;
        fs::copy(&archive, kept.join(name)).with_context(|| format!("copy {}", archive.display()))?;
        let running: Vec<String> = self.clusters.iter().flat_map(Cluster::nodes).map(|node| node.name).collect();
        let running: Vec<String> =
            running.into_iter().filter(|node| Group::named(node).is_ok_and(|group| group.is_alive())).collect();
        at_once(&running, |node| {
            let mut import = self.on_node(node, &ctr)?;
            import.args(["--namespace", "k8s.io", "images", "import", "--local"]).arg(&archive);
            capture(&mut import).with_context(|| format!("node {node}"))
        })
        .map(drop)
    }

    /// Lets CoreDNS of a cluster answer for `clusterset.local` too, by its option `multicluster`, and waits until it does.
    /// The definition of ServiceImports must be there.
    ///
    /// # Errors
    /// If the definition is missing, or CoreDNS does not become ready.
    pub fn answer_for_clusterset(&self, cluster: &str) -> Result<()> {
        let cluster = self.cluster(cluster)?;
        let plane = ControlPlane::prepare(cluster, &self.directories, self.port(cluster))?;
        // Without it CoreDNS would wait for ever, and answer for nothing.
        let definition = plane.kubectl()?.ask(&["get", "crd", "serviceimports.multicluster.x-k8s.io", "-o", "name"]);
        definition.with_context(|| format!("CoreDNS of {}: ServiceImports are not defined", cluster.name))?;
        let mark = self.clusterset_mark(cluster);
        fs::write(&mark, "").with_context(|| format!("write {}", mark.display()))?;
        dns::apply(&plane, true)?;
        dns::until_ready(&plane)
    }

    fn clusterset_mark(&self, cluster: &Cluster) -> PathBuf {
        control_plane::directory(&self.directories, cluster).join("answers-for-clusterset")
    }

    fn answers_for_clusterset(&self, cluster: &Cluster) -> bool {
        self.clusterset_mark(cluster).exists()
    }
}

/// Starts those nodes of a cluster that do not run: their names, and what the cluster said of its nodes before.
fn start_nodes(plane: &ControlPlane<'_>) -> Result<(Vec<String>, Vec<NodeReport>)> {
    let before = plane.kubectl()?.nodes()?;
    Ok((node::start(plane, plane.cluster.nodes())?, before))
}

/// Does the same for all at the same time, and returns what came of it in their order; the first error counts.
fn at_once<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    thread::scope(|scope| {
        let threads: Vec<_> = all.iter().map(|one| scope.spawn(|| work(one))).collect();
        let ends = threads.into_iter().map(|thread| thread.join().map_err(|_panic| anyhow!("a thread panicked"))?);
        // All are waited for before the first error is returned.
        ends.collect::<Vec<Result<R>>>().into_iter().collect()
    })
}

fn state_file(directories: &Directories) -> PathBuf {
    directories.run().join("state.json")
}

fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
