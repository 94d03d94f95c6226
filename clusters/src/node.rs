//! A node: namespaces, a cgroup that is the root of its cgroup2, and in them containerd, kubelet and kube-proxy, kept
//! running by `node.sh`. What these read is written here.
//!
//! How it differs from a real node: no limits of processor, memory or processes and no QoS cgroups, because on the machines
//! at hand cgroup2 has no controllers (cgroup v1 holds them), so containers lie in `<root>/k8s.io/<id>`; one kernel for all.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, make_directory};
use crate::directories::Directories;
use crate::group::Group;
use crate::images::PAUSE;
use crate::kubectl::NodeReport;
use crate::network;
use crate::shape::{Cluster, Cni, Node, Proxy};

const INIT: &str = include_str!("node.sh");
/// How long a node may take from its start to the first word of a Ready kubelet.
const READY_LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(300);

/// The directory of a node's files.
pub(crate) fn directory(directories: &Directories, node: &Node) -> PathBuf {
    directories.run().join(&node.name)
}

/// Starts those of a cluster's nodes that do not run, and says which. Their Node objects are made first, as only then are
/// their pods' addresses those that the router knows.
pub(crate) fn start(plane: &ControlPlane<'_>, nodes: impl Iterator<Item = Node>) -> Result<Vec<String>> {
    let mut stopped = Vec::new();
    for node in nodes {
        let group = Group::named(&node.name)?;
        if !group.is_alive() {
            stopped.push((node, group));
        }
    }
    if stopped.is_empty() {
        return Ok(Vec::new());
    }
    let objects: Vec<Value> = stopped.iter().map(|(node, _)| object(plane.cluster, node)).collect();
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    plane.kubectl()?.apply(&objects.to_string()).with_context(|| format!("nodes of {}", plane.cluster.name))?;
    for (node, group) in &stopped {
        start_one(plane, node, group).with_context(|| format!("node {}", node.name))?;
    }
    Ok(stopped.into_iter().map(|(node, _)| node.name).collect())
}

fn start_one(plane: &ControlPlane<'_>, node: &Node, group: &Group) -> Result<()> {
    // What a dead node left: its cgroups would keep kubelet busy, its namespace has its rules and its pods' addresses.
    group.remove()?;
    network::remove(&node.name)?;
    network::ensure_node(node)?;
    write_files(plane, node)?;
    let own = directory(plane.directories, node);
    group.start(&command(plane, node)?, &own.join("node.log"))
}

/// Waits until nodes are Ready by a word of their kubelets that is newer than `before`.
pub(crate) fn until_ready(plane: &ControlPlane<'_>, names: &[String], before: &[NodeReport]) -> Result<()> {
    let kubectl = plane.kubectl()?;
    let end = Instant::now() + READY_LIMIT;
    loop {
        let nodes = kubectl.nodes().unwrap_or_default();
        let Some(late) = names.iter().find(|name| !is_ready_again(name, &nodes, before)) else {
            return Ok(());
        };
        let own = plane.directories.run().join(late);
        ensure!(Group::named(late)?.is_alive(), "node {late}: ended: look at {}/node.log", own.display());
        ensure!(
            Instant::now() < end,
            "node {late}: not Ready in {READY_LIMIT:?}: look into {}/real/log",
            own.display()
        );
        thread::sleep(POLL);
    }
}

/// Whether a node is Ready by a word that was not there before: the condition of a dead node stays True for a while.
fn is_ready_again(name: &str, now: &[NodeReport], before: &[NodeReport]) -> bool {
    let of = |reports: &[NodeReport]| reports.iter().find(|report| report.name == name).cloned();
    of(now).is_some_and(|now| now.ready && Some(now.heard) != of(before).map(|before| before.heard))
}

fn object(cluster: &Cluster, node: &Node) -> Value {
    let (v4, v6) = node.pod_cidrs();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": {
            "topology.kubernetes.io/region": cluster.name,
            "topology.kubernetes.io/zone": node.zone(),
        }},
        "spec": {"podCIDR": v4, "podCIDRs": [v4, v6]},
    })
}

fn command(plane: &ControlPlane<'_>, node: &Node) -> Result<Command> {
    let own = directory(plane.directories, node);
    let script = own.join("node.sh");
    let unshare = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork", "--kill-child=KILL"];
    let mut command = network::command(&node.name, "unshare");
    command.args(unshare).arg("sh").arg(script).arg(&node.name).arg(&own).arg(plane.directories.images());
    command.arg(plane.directories.loaded_images());
    if let Proxy::Nftables | Proxy::Iptables = plane.cluster.proxy {
        let (pods4, pods6) = plane.cluster.pod_cidrs();
        command.args(["kube-proxy", "--kubeconfig=/etc/kubernetes/kube-proxy.kubeconfig"]);
        command.arg(format!("--hostname-override={}", node.name)).arg(format!("--proxy-mode={}", plane.cluster.proxy));
        command.arg(format!("--cluster-cidr={pods4},{pods6}"));
        // These would be the whole machine's.
        command.args(["--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s"]);
        command.arg("--conntrack-tcp-timeout-close-wait=0s");
    }
    let (v4, v6) = node.addresses();
    command.env("NODE_IPS", format!("{v4},{v6}"));
    command.env("PATH", search_path(plane.directories)?);
    Ok(command)
}

/// Our programs first, then the caller's, then the administrator's.
fn search_path(directories: &Directories) -> Result<std::ffi::OsString> {
    let own = directories.program("kubelet")?.parent().map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = own.into_iter().chain([directories.bin()]).chain(std::env::split_paths(&path));
    std::env::join_paths(all.chain(["/usr/sbin".into(), "/sbin".into()])).context("PATH")
}

fn write_files(plane: &ControlPlane<'_>, node: &Node) -> Result<()> {
    let own = directory(plane.directories, node);
    let etc = own.join("etc");
    for below in ["cni/net.d", "containerd", "kubernetes/pki"] {
        make_directory(&etc.join(below))?;
    }
    let write = |file: PathBuf, text: String| {
        // A file of the machine may be a link, and the node's must not follow it.
        if file.is_symlink() {
            fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        }
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    };
    let (v4, _) = node.addresses();
    write(etc.join("hosts"), format!("127.0.0.1 localhost\n::1 localhost\n{v4} {}\n", node.name))?;
    write(etc.join("hostname"), format!("{}\n", node.name))?;
    // Nobody listens there: names of the outside are refused at once.
    write(etc.join("resolv.conf"), format!("nameserver {}\n", plane.cluster.gateway().0))?;
    write(etc.join("cni/net.d/10-pods.conflist"), format!("{:#}\n", pod_network(plane.cluster.cni, node)))?;
    write(etc.join("containerd/config.toml"), containerd(plane.directories))?;
    write(etc.join("kubernetes/kubelet.json"), format!("{:#}\n", kubelet(plane.cluster, node)))?;
    let copies = [
        (plane.kubeconfig(&node.name), "kubelet.kubeconfig".to_owned()),
        (plane.kubeconfig("kube-proxy"), "kube-proxy.kubeconfig".to_owned()),
        (plane.key("ca.crt"), "pki/ca.crt".to_owned()),
        (plane.key(&format!("{}.crt", node.name)), "pki/kubelet.crt".to_owned()),
        (plane.key(&format!("{}.key", node.name)), "pki/kubelet.key".to_owned()),
    ];
    for (from, to) in copies {
        let to = etc.join("kubernetes").join(to);
        fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    let script = own.join("node.sh");
    write(script.clone(), INIT.to_owned())?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).with_context(|| format!("{}", script.display()))
}

fn pod_network(cni: Cni, node: &Node) -> Value {
    let (v4, v6) = node.pod_cidrs();
    let mut attach = match cni {
        Cni::Ptp => json!({"type": "ptp", "ipMasq": false}),
        // isDefaultGateway would add a default route beside the one below, and fail.
        Cni::Bridge => {
            json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true})
        }
    };
    attach["mtu"] = json!(1500);
    attach["ipam"] = json!({
        "type": "host-local",
        "dataDir": "/run/cni-ipam",
        "ranges": [[{"subnet": v4}], [{"subnet": v6}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    });
    let ports = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [attach, ports]})
}

fn containerd(directories: &Directories) -> String {
    let (runtime, plugins) = (directories.bin().join("runc-uncontrolled"), directories.cni());
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
  # Lowering it takes CAP_SYS_RESOURCE, which not every machine grants.
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = "{runtime}"
        SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{plugins}"]
    conf_dir = "/etc/cni/net.d"
"#,
        runtime = runtime.display(),
        plugins = plugins.display(),
    )
}

fn kubelet(cluster: &Cluster, _node: &Node) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": "/etc/kubernetes/pki/kubelet.crt",
        "tlsPrivateKeyFile": "/etc/kubernetes/pki/kubelet.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDomain": "cluster.local",
        "clusterDNS": [cluster.dns()],
        "resolvConf": "/etc/resolv.conf",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        // Without it /stats/summary fails; what it would enforce is switched off below.
        "localStorageCapacityIsolation": true,
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100,
        "oomScoreAdj": 0,
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    #[test]
    fn a_word_of_before_the_crash_does_not_make_a_node_ready() {
        let report = |ready, heard: &str| NodeReport { name: "n".to_owned(), ready, heard: Some(heard.to_owned()) };
        let before = [report(true, "2026-11-23T17:00:00Z")];
        assert!(!is_ready_again("n", &before, &before));
        assert!(!is_ready_again("n", &[], &before));
        assert!(!is_ready_again("n", &[report(false, "2026-11-23T17:00:09Z")], &before));
        assert!(is_ready_again("n", &[report(true, "2026-11-23T17:00:09Z")], &before));
        assert!(is_ready_again("n", &before, &[]), "a node that is new");
    }

    #[test]
    fn a_pod_has_an_address_of_each_family_from_its_node() {
        let cluster = &Shape::default().clusters().unwrap()[1];
        let node = cluster.nodes().nth(1).unwrap();
        for cni in [Cni::Ptp, Cni::Bridge] {
            let ranges = pod_network(cni, &node)["plugins"][0]["ipam"]["ranges"].clone();
            assert_eq!(ranges, json!([[{"subnet": "10.11.1.0/24"}], [{"subnet": "fd00:10:1:1::/64"}]]));
        }
        assert_eq!(object(cluster, &node)["spec"]["podCIDRs"], json!(["10.11.1.0/24", "fd00:10:1:1::/64"]));
    }
}
