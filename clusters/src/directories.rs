//! Where things lie: programs and images in the user's cache, and the state of what runs.
//!
//! ```text
//!  <cache>/mcs/bin       programs (KUBEBUILDER_ASSETS comes first)
//!  <cache>/mcs/images    archives that every node loads
//!  <cache>/mcs/clusters  keys, logs, kubeconfigs, the nodes' files of the clusters that run
//! ```

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// What a control plane and its users run.
const CONTROL_PLANE: [&str; 5] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"];
/// What a node runs.
const NODE: [&str; 7] =
    ["kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "runc-uncontrolled"];
/// What the system must have, with the package that Debian has it in.
const SYSTEM: [(&str, &str); 5] =
    [("ip", "iproute2"), ("nft", "nftables"), ("socat", "socat"), ("nsenter", "util-linux"), ("setsid", "util-linux")];

/// The directories of one user on this machine.
#[derive(Clone, Debug)]
pub struct Directories {
    assets: Option<PathBuf>,
    cache: PathBuf,
}

impl Directories {
    /// Those that the environment names: `KUBEBUILDER_ASSETS`, `XDG_CACHE_HOME`, `HOME`.
    ///
    /// # Errors
    /// If neither a cache nor a home directory is known.
    pub fn of_user() -> Result<Self> {
        let named = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = named("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")));
        let cache = cache.context("no home directory: set XDG_CACHE_HOME")?.join("mcs");
        Ok(Self { assets: named("KUBEBUILDER_ASSETS"), cache })
    }

    /// Where `cargo xtask setup` puts programs.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.cache.join("bin")
    }

    /// CNI plugins.
    #[must_use]
    pub fn cni(&self) -> PathBuf {
        self.bin().join("cni")
    }

    /// Image archives that every node loads when it starts.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.cache.join("images")
    }

    /// The state of the clusters that run; without any it does not exist.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.cache.join("clusters")
    }

    /// Image archives that the nodes of the clusters that run load too.
    #[must_use]
    pub fn loaded_images(&self) -> PathBuf {
        self.run().join("images")
    }

    /// A program of Kubernetes.
    ///
    /// # Errors
    /// If it is not there.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let places = self.assets.iter().cloned().chain([self.bin()]);
        match places.map(|place| place.join(name)).find(|file| file.is_file()) {
            Some(file) => Ok(file),
            None => bail!("{name}: not in {}: run `cargo xtask setup --for cluster`", self.bin().display()),
        }
    }

    /// Why no clusters can be brought up on this machine, or `None` if they can.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("not root: namespaces, cgroups and mounts need it".to_owned());
        }
        if let Some((program, package)) = SYSTEM.iter().find(|(program, _)| !on_path(program)) {
            return Some(format!("{program}: not on the PATH: run `apt-get install {package}`"));
        }
        if let Err(error) = crate::group::root() {
            return Some(format!("{error:#}"));
        }
        if !images_there(&self.images()) {
            return Some(format!("no images in {}: run `cargo xtask setup --for cluster`", self.images().display()));
        }
        if !self.cni().join("ptp").is_file() {
            return Some(format!("no CNI plugins in {}: run `cargo xtask setup --for cluster`", self.cni().display()));
        }
        CONTROL_PLANE.iter().chain(&NODE).find_map(|name| self.program(name).err()).map(|error| error.to_string())
    }
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).is_file())
}

fn images_there(directory: &Path) -> bool {
    let archives = std::fs::read_dir(directory).into_iter().flatten().flatten();
    archives.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "tar")).count() >= 4
}
