//! A cluster's control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler in a network namespace of its
//! own, and a forwarder that leads a loopback port of this machine to the API server.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::directories::Directories;
use crate::group::Group;
use crate::keys::{Keys, write_secret};
use crate::kubectl::Kubectl;
use crate::network;
use crate::shape::Cluster;

/// How long an API server may take to be ready, on a machine that brings up many.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// The parts of a control plane, in the order in which they start.
pub(crate) const PARTS: [&str; 5] = ["etcd", API_SERVER, CONTROLLER_MANAGER, SCHEDULER, FORWARDER];
pub(crate) const API_SERVER: &str = "kube-apiserver";
pub(crate) const CONTROLLER_MANAGER: &str = "kube-controller-manager";
pub(crate) const SCHEDULER: &str = "kube-scheduler";
pub(crate) const FORWARDER: &str = "forwarder";

/// The name of a part's cgroup.
pub(crate) fn group_of(cluster: &Cluster, part: &str) -> String {
    format!("{}-{part}", cluster.name)
}

/// A cluster's control plane with its files.
pub(crate) struct ControlPlane<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) directories: &'a Directories,
    /// The loopback port of its API server.
    pub(crate) port: u16,
    keys: Keys,
}

impl<'a> ControlPlane<'a> {
    /// Its keys and kubeconfigs are made if they are missing; nothing is started.
    pub(crate) fn prepare(cluster: &'a Cluster, directories: &'a Directories, port: u16) -> Result<Self> {
        let own = directory(directories, cluster);
        let keys = Keys::ensure(cluster, own.join("pki"))?;
        let plane = Self { cluster, directories, port, keys };
        for user in ["admin", CONTROLLER_MANAGER, SCHEDULER, "kube-proxy"] {
            plane.write_kubeconfig(user, user, &plane.url())?;
        }
        for node in cluster.nodes() {
            plane.write_kubeconfig(&node.name, &node.name, &plane.url())?;
        }
        plane.write_kubeconfig("loopback", "admin", &format!("https://127.0.0.1:{port}"))?;
        Ok(plane)
    }

    /// The API server's address for everybody in the namespaces.
    pub(crate) fn url(&self) -> String {
        format!("https://{}:6443", self.cluster.control_plane().0)
    }

    fn write_kubeconfig(&self, file: &str, user: &str, server: &str) -> Result<()> {
        write_secret(&self.kubeconfig(file), &self.keys.kubeconfig(&self.cluster.name, user, server)?)
    }

    /// One of its kubeconfigs.
    pub(crate) fn kubeconfig(&self, file: &str) -> PathBuf {
        directory(self.directories, self.cluster).join(format!("{file}.kubeconfig"))
    }

    /// One of its keys or certificates.
    pub(crate) fn key(&self, file: &str) -> PathBuf {
        self.keys.file(file)
    }

    /// kubectl as its admin, over the loopback port.
    pub(crate) fn kubectl(&self) -> Result<Kubectl> {
        Ok(Kubectl::new(self.directories.program("kubectl")?, self.kubeconfig("loopback")))
    }

    /// Starts what does not run, and waits until the API server is ready.
    pub(crate) fn start(&self) -> Result<()> {
        for part in ["etcd", API_SERVER, FORWARDER] {
            self.start_part(part)?;
        }
        let what = || format!("API server of {}: look at {}", self.cluster.name, self.log(API_SERVER).display());
        self.kubectl()?.until(READY_LIMIT, &["get", "--raw", "/readyz"], |said| said == "ok").with_context(what)?;
        // Both end if the rules are not made yet that let them in; a ready API server has made them.
        self.start_part(CONTROLLER_MANAGER)?;
        if self.cluster.nodes > 0 {
            self.start_part(SCHEDULER)?;
            self.kubectl()?.apply(&proxies_rights().to_string())?;
        }
        Ok(())
    }

    /// Starts one part, if it does not run.
    pub(crate) fn start_part(&self, part: &str) -> Result<()> {
        let group = Group::named(&group_of(self.cluster, part))?;
        if group.is_alive() {
            return Ok(());
        }
        let command = match part {
            "etcd" => self.etcd()?,
            API_SERVER => self.api_server()?,
            CONTROLLER_MANAGER => self.controller_manager()?,
            SCHEDULER => self.scheduler()?,
            _ => self.forwarder(),
        };
        group.start(&command, &self.log(part))
    }

    fn log(&self, part: &str) -> PathBuf {
        directory(self.directories, self.cluster).join(format!("{part}.log"))
    }

    fn command(&self, program: &str) -> Result<Command> {
        Ok(network::command(&self.cluster.name, self.directories.program(program)?))
    }

    fn etcd(&self) -> Result<Command> {
        let mut etcd = self.command("etcd")?;
        etcd.arg("--data-dir").arg(directory(self.directories, self.cluster).join("etcd"));
        etcd.args(["--unsafe-no-fsync", "--log-level=warn", "--initial-cluster=default=http://127.0.0.1:2380"]);
        etcd.args(["--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379"]);
        etcd.args(["--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380"]);
        Ok(etcd)
    }

    fn api_server(&self) -> Result<Command> {
        let (services4, services6) = self.cluster.service_cidrs();
        let mut server = self.command(API_SERVER)?;
        server.args(["--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", "--allow-privileged"]);
        server.arg(format!("--advertise-address={}", self.cluster.control_plane().0));
        server.arg(format!("--service-cluster-ip-range={services4},{services6}"));
        server.args(["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"]);
        server
            .args(["--kubelet-preferred-address-types=InternalIP", "--requestheader-allowed-names=front-proxy-client"]);
        server.args(["--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group"]);
        server.arg("--requestheader-extra-headers-prefix=X-Remote-Extra-");
        server.arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local");
        let files = [
            ("client-ca-file", "ca.crt"),
            ("tls-cert-file", "apiserver.crt"),
            ("tls-private-key-file", "apiserver.key"),
            ("kubelet-client-certificate", "kubelet-client.crt"),
            ("kubelet-client-key", "kubelet-client.key"),
            ("kubelet-certificate-authority", "ca.crt"),
            ("service-account-key-file", "sa.pub"),
            ("service-account-signing-key-file", "sa.key"),
            ("requestheader-client-ca-file", "front.crt"),
            ("proxy-client-cert-file", "front-client.crt"),
            ("proxy-client-key-file", "front-client.key"),
        ];
        server.args(files.map(|(flag, file)| format!("--{flag}={}", self.key(file).display())));
        Ok(server)
    }

    /// The flags with which both controllers reach the API server.
    fn controller(&self, program: &str) -> Result<Command> {
        let kubeconfig = self.kubeconfig(program);
        let mut controller = self.command(program)?;
        for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
            controller.arg(format!("--{flag}={}", kubeconfig.display()));
        }
        controller.args(["--bind-address=127.0.0.1", "--leader-elect=false"]);
        Ok(controller)
    }

    fn controller_manager(&self) -> Result<Command> {
        let mut manager = self.controller(CONTROLLER_MANAGER)?;
        manager.args(["--use-service-account-credentials", "--allocate-node-cidrs=false"]);
        // A test that loses a node should not wait for Kubernetes' own 50 s.
        manager.args(["--node-monitor-period=2s", "--node-monitor-grace-period=20s"]);
        let files = [
            ("service-account-private-key-file", "sa.key"),
            ("root-ca-file", "ca.crt"),
            ("cluster-signing-cert-file", "ca.crt"),
            ("cluster-signing-key-file", "ca.key"),
        ];
        manager.args(files.map(|(flag, file)| format!("--{flag}={}", self.key(file).display())));
        Ok(manager)
    }

    fn scheduler(&self) -> Result<Command> {
        self.controller(SCHEDULER)
    }

    /// Each connection is a process that enters the control plane's namespace.
    fn forwarder(&self) -> Command {
        let namespace = network::path(&self.cluster.name);
        let mut forwarder = Command::new("socat");
        forwarder.arg(format!("TCP-LISTEN:{},bind=127.0.0.1,reuseaddr,fork", self.port));
        forwarder.arg(format!("EXEC:nsenter --net={} socat STDIO TCP\\:127.0.0.1\\:6443", namespace.display()));
        forwarder
    }
}

/// kube-proxy's rights, which an API server has a role but no binding for.
fn proxies_rights() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "mcsk-node-proxier"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-proxier"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy"}],
    })
}

/// The directory of a cluster's files.
pub(crate) fn directory(directories: &Directories, cluster: &Cluster) -> PathBuf {
    directories.run().join(&cluster.name)
}

/// A loopback port that nobody uses now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

/// Makes a directory and those above it.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))
}
