//! What an agent is started with, and where its program lies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::addresses;
use crate::fleet::Fleet;
use crate::member::Node;
use crate::removal;

/// What an agent is started with. [`AgentOptions::new`] fills in what the fleet knows.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The program: [`mcs_binary`], unless set.
    pub binary: Option<PathBuf>,
    /// `--source dir:`, if it is that.
    pub source: PathBuf,
    /// `--source kube`, with this kubeconfig. API servers listen on this machine's own loopback interface, so such an agent
    /// runs in this machine's network namespace, and sets no rules there.
    pub kubeconfig: Option<PathBuf>,
    /// `--cluster`.
    pub cluster: String,
    /// `--node`.
    pub node: String,
    /// `--zone`.
    pub zone: Option<String>,
    /// `--clusterset-cidr`, each.
    pub clusterset_cidrs: Vec<String>,
    /// `--cgroup`.
    pub cgroup: PathBuf,
    /// `--pin-dir`.
    pub pin_dir: PathBuf,
    /// What else stands on its command line.
    pub arguments: Vec<String>,
    /// What else stands in its environment.
    pub environment: Vec<(String, String)>,
}

impl AgentOptions {
    /// For an agent on a node of a fleet, with the fleet's ClusterSet CIDRs and a pin directory that goes with the fleet.
    pub fn new(fleet: &Fleet, node: &Node, source: impl Into<PathBuf>) -> Self {
        Self {
            binary: None,
            source: source.into(),
            kubeconfig: None,
            cluster: node.cluster(),
            node: node.name().to_owned(),
            zone: None,
            clusterset_cidrs: addresses::clusterset_cidrs().into(),
            cgroup: node.cgroup().to_owned(),
            pin_dir: removal::pins_of(fleet.id()).join(node.name()),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// For an agent that follows an API server, which tells it which cluster it is in and where ClusterSetIPs come from.
    pub fn kube(fleet: &Fleet, node: &Node, kubeconfig: impl Into<PathBuf>) -> Self {
        Self {
            kubeconfig: Some(kubeconfig.into()),
            cluster: String::new(),
            clusterset_cidrs: Vec::new(),
            ..Self::new(fleet, node, "")
        }
    }

    /// The agent's command line.
    pub(super) fn command(&self, binary: &Path) -> Command {
        let Self {
            binary: _,
            source,
            kubeconfig,
            cluster,
            node,
            zone,
            clusterset_cidrs,
            cgroup,
            pin_dir,
            arguments,
            environment,
        } = self;
        let mut command = Command::new(binary);
        command.arg("agent");
        match kubeconfig {
            None => command.arg("--source").arg(format!("dir:{}", source.display())),
            Some(file) => command.args(["--source", "kube", "--fail-closed", "off", "--kubeconfig"]).arg(file),
        };
        command.args((!cluster.is_empty()).then_some(["--cluster", cluster]).into_iter().flatten());
        command.args(["--node", node]);
        command.args(zone.iter().flat_map(|zone| ["--zone", zone]));
        command.args(clusterset_cidrs.iter().flat_map(|cidr| ["--clusterset-cidr", cidr]));
        command.arg("--cgroup").arg(cgroup).arg("--pin-dir").arg(pin_dir).args(arguments);
        command.envs(environment.iter().map(|(key, value)| (key, value)));
        command
    }
}

/// The `mcs` binary to test: what `MCS_BIN` names, or the newest that cargo built beside the running program.
pub fn mcs_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MCS_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("find own program")?;
    // target/debug/deps/fleet-0123 → target/debug, target/release; target/debug/xtask likewise.
    let target = own.ancestors().find(|dir| dir.ends_with("debug") || dir.ends_with("release")).and_then(Path::parent);
    let target =
        target.with_context(|| format!("find mcs: {} is not in a target folder: set MCS_BIN", own.display()))?;
    let built = ["release", "debug"].map(|profile| target.join(profile).join("mcs"));
    let newest = built.into_iter().filter(|path| path.is_file()).max_by_key(|path| {
        // Unreadable counts as oldest.
        fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
    });
    newest.with_context(|| {
        format!("find mcs: none in {}: cargo build -p mcs-userspace, or set MCS_BIN", target.display())
    })
}
