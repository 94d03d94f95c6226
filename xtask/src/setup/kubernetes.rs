//! Programs of Kubernetes, for tests with real API servers and for real clusters. No archive of Debian has them in a version
//! that serves, so they are built from Go modules: the versions are in `xtask/kubernetes/*/go.mod`, and what may come for
//! them in `go.sum`.
//!
//! ```text
//!  KUBEBUILDER_ASSETS has all of a module ──► used as they are
//!  else <cache>/mcs/bin, of our versions ──► nothing to do
//!  else go build (Go from Debian if there is none) ──► <cache>/mcs/bin
//!  all there ──► images of some of them ──► <cache>/mcs/images
//! ```

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use mcs_clusters::{Directories, images};

use super::{
    Group, Outcome,
    go::{self, Module},
    step,
};
use crate::child;

/// How long the compiler may take for a program of forty lines.
const LIMIT: Duration = Duration::from_secs(60);

const API: &[Group] = &[Group::Test, Group::Bench, Group::Cluster];
const CLUSTER: &[Group] = &[Group::Cluster];

const MODULES: [Module; 9] = [
    Module {
        name: "etcd",
        source: "etcd",
        upstream: Some("go.etcd.io/etcd/server/v3"),
        programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
        groups: API,
        takes: "3 minutes",
        ..Module::PLAIN
    },
    Module {
        name: "kubernetes",
        source: "kubernetes",
        upstream: Some("k8s.io/kubernetes"),
        programs: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ],
        groups: API,
        takes: "10 minutes",
        ..Module::PLAIN
    },
    Module {
        name: "nodes",
        source: "kubernetes",
        upstream: Some("k8s.io/kubernetes"),
        programs: &[
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
            ("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
        ],
        groups: CLUSTER,
        takes: "4 minutes",
        ..Module::PLAIN
    },
    Module {
        name: "coredns",
        source: "coredns",
        upstream: Some("github.com/coredns/coredns"),
        programs: &[("coredns", "github.com/coredns/coredns")],
        groups: API,
        takes: "3 minutes",
        ..Module::PLAIN
    },
    Module {
        name: "helm",
        source: "helm",
        upstream: Some("helm.sh/helm/v3"),
        programs: &[("helm", "helm.sh/helm/v3/cmd/helm")],
        groups: &[Group::Test],
        takes: "3 minutes",
        ..Module::PLAIN
    },
    Module {
        name: "containerd",
        source: "containerd",
        upstream: Some("github.com/containerd/containerd/v2"),
        programs: &[
            ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
            ("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
            ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
        ],
        groups: CLUSTER,
        takes: "3 minutes",
        ..Module::PLAIN
    },
    Module {
        name: "runc",
        source: "runc",
        upstream: Some("github.com/opencontainers/runc"),
        programs: &[("runc", "github.com/opencontainers/runc")],
        groups: CLUSTER,
        // Its way into namespaces is C, and so is the library for system call filters.
        with_c: true,
        flags: &["-tags=seccomp"],
        takes: "1 minute",
    },
    Module {
        name: "cni",
        source: "cni",
        upstream: Some("github.com/containernetworking/plugins"),
        programs: &[
            ("cni/ptp", "github.com/containernetworking/plugins/plugins/main/ptp"),
            ("cni/bridge", "github.com/containernetworking/plugins/plugins/main/bridge"),
            ("cni/loopback", "github.com/containernetworking/plugins/plugins/main/loopback"),
            ("cni/host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local"),
            ("cni/portmap", "github.com/containernetworking/plugins/plugins/meta/portmap"),
        ],
        groups: CLUSTER,
        takes: "1 minute",
        ..Module::PLAIN
    },
    Module {
        name: "runtime",
        source: "runtime",
        upstream: None,
        programs: &[("runc-uncontrolled", ".")],
        groups: CLUSTER,
        takes: "some seconds",
        ..Module::PLAIN
    },
];

/// Builds what is missing for these groups, and reports each part that was.
pub(super) fn ensure(root: &Path, groups: &[Group], mut report: impl FnMut(&str, bool, Result<Outcome>)) {
    let wanted = |of: &[Group]| groups.contains(&Group::All) || of.iter().any(|group| groups.contains(group));
    let mut complete = true;
    for module in MODULES.iter().filter(|module| wanted(module.groups) && !is_elsewhere(module)) {
        let result = bin().and_then(|bin| module.ensure(root, &bin));
        complete &= result.is_ok();
        let essential = module.groups == CLUSTER && groups.contains(&Group::Cluster);
        report(module.name, essential, result.map_err(|error| anyhow!("{error:#} (what needs it is skipped)")));
    }
    if wanted(CLUSTER) && complete {
        let essential = groups.contains(&Group::Cluster);
        report("pause", essential, pause(root));
        report("images", essential, ensure_images());
    }
}

/// Whether somebody else's directory has all of a module's programs.
fn is_elsewhere(module: &Module) -> bool {
    let assets = env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty()).map(PathBuf::from);
    assets.is_some_and(|assets| module.programs.iter().all(|(program, _)| assets.join(program).is_file()))
}

/// Where programs are kept.
pub(super) fn bin() -> Result<PathBuf> {
    let bin = Directories::of_user()?.bin();
    fs::create_dir_all(&bin).with_context(|| format!("make {}", bin.display()))?;
    Ok(bin)
}

/// What holds a pod's namespaces: forty lines of C that lie beside Kubernetes' Go.
fn pause(root: &Path) -> Result<Outcome> {
    let program = bin()?.join("pause");
    if program.is_file() {
        return Ok(Outcome::Present);
    }
    let source = go::directory_of(&root.join("xtask/kubernetes/kubernetes"), "k8s.io/kubernetes")?;
    let source = source.join("build/pause/linux/pause.c");
    step("gcc pause", || {
        let mut gcc = child::command("gcc");
        gcc.args(["-Os", "-Wall", "-static", "-o"]).arg(&program).arg(&source);
        child::attend(&mut gcc, LIMIT)
    })
}

fn ensure_images() -> Result<Outcome> {
    let start = std::time::Instant::now();
    let made = images::ensure(&Directories::of_user()?)?;
    if made.is_empty() {
        return Ok(Outcome::Present);
    }
    println!("setup: images {}: done in {}", made.join(", "), super::seconds(start.elapsed()));
    Ok(Outcome::Installed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_versions_are_read_from_our_own_modules() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for module in &MODULES {
            let version = module.version(&root.join("kubernetes").join(module.source)).unwrap();
            assert!(module.upstream.is_none() || version.split('.').count() == 3, "{version}");
        }
    }

    #[test]
    fn the_image_of_coredns_is_named_after_what_is_in_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let coredns = MODULES.iter().find(|module| module.name == "coredns").unwrap();
        assert!(images::COREDNS.ends_with(&format!(":{}", coredns.version(&root.join("kubernetes/coredns")).unwrap())));
    }
}
