//! The network: a namespace for each control plane and node, and a router, the fabric, with a bridge for each cluster. The
//! router knows each node's pods and nothing else; a cut between clusters is a pair of bridges that it does not forward
//! between, established connections included.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::shape::{Cluster, Node};

/// What all our namespaces' names start with.
const PREFIX: &str = "mcsk-";
/// Where iproute2 keeps named namespaces.
const DIRECTORY: &str = "/run/netns";
/// The router.
pub(crate) const FABRIC: &str = "fabric";
/// The cuts: pairs of bridges between which nothing is forwarded.
const CUTS: &str = "table inet cuts {
    set pairs { type ifname . ifname; }
    chain forward { type filter hook forward priority 0; iifname . oifname @pairs drop; }
}";

/// The file of a namespace, for `nsenter --net=`.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{PREFIX}{name}"))
}

/// A command that runs in a namespace.
pub(crate) fn command(name: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", path(name).display())).arg("--").arg(program);
    command
}

/// Makes the router, if it is not there.
pub(crate) fn ensure_fabric() -> Result<()> {
    if !add_namespace(FABRIC)? {
        return Ok(());
    }
    forward(FABRIC)?;
    feed(command(FABRIC, "nft").args(["-f", "-"]), CUTS)
}

/// Makes a cluster's bridge and control plane's namespace, if they are not there.
pub(crate) fn ensure_cluster(cluster: &Cluster) -> Result<()> {
    let (gateway4, gateway6) = cluster.gateway();
    let bridge = bridge(cluster.number);
    if !capture(command(FABRIC, "ip").args(["-o", "link"]))?.contains(&format!(": {bridge}: ")) {
        batch(
            FABRIC,
            &format!(
                "link add {bridge} type bridge\naddr add {gateway4}/24 dev {bridge}\n\
                 addr add {gateway6}/64 dev {bridge} nodad\nlink set {bridge} up\n"
            ),
        )?;
    }
    ensure_attached(&cluster.name, cluster.number, cluster.control_plane())
}

/// Makes a node's namespace and the routes to its pods, if they are not there.
pub(crate) fn ensure_node(node: &Node) -> Result<()> {
    let (v4, v6) = node.addresses();
    ensure_attached(&node.name, node.cluster, (v4, v6))?;
    let (pods4, pods6) = node.pod_cidrs();
    batch(FABRIC, &format!("route replace {pods4} via {v4}\nroute replace {pods6} via {v6}\n"))
}

/// A namespace that is linked to a cluster's bridge.
fn ensure_attached(name: &str, cluster: u8, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> Result<()> {
    if !add_namespace(name)? {
        return Ok(());
    }
    let (gateway4, gateway6) = crate::shape::gateway(cluster);
    let link = format!("v-{name}");
    // What is left of a namespace that was taken away goes with it, but not at once.
    drop(capture(command(FABRIC, "ip").args(["link", "delete", &link])));
    let made = batch(
        FABRIC,
        &format!(
            "link add {link} type veth peer name eth0 netns {PREFIX}{name}\nlink set {link} master {} up\n",
            bridge(cluster)
        ),
    );
    let made = made.and_then(|()| {
        batch(
            name,
            &format!(
                "addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\nlink set eth0 up\n\
                 route add default via {gateway4}\nroute add default via {gateway6}\n"
            ),
        )
    });
    // Half a namespace would pass for a whole one the next time.
    made.inspect_err(|_| drop(remove(name)))
}

/// Makes a namespace with its loopback up; false if it was there.
fn add_namespace(name: &str) -> Result<bool> {
    if path(name).exists() {
        return Ok(false);
    }
    capture(Command::new("ip").args(["netns", "add", &format!("{PREFIX}{name}")]))?;
    batch(name, "link set lo up\n")?;
    Ok(true)
}

fn forward(name: &str) -> Result<()> {
    let sysctls = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    capture(command(name, "sh").args(["-ec", sysctls])).map(drop)
}

/// Takes a namespace away; what is in it must have ended. No such namespace: no error.
pub(crate) fn remove(name: &str) -> Result<()> {
    if !path(name).exists() {
        return Ok(());
    }
    capture(Command::new("ip").args(["netns", "delete", &format!("{PREFIX}{name}")])).map(drop)
}

/// Takes all our namespaces away.
pub(crate) fn remove_all() -> Result<()> {
    all().iter().try_for_each(|name| remove(name))
}

/// The files of our namespaces.
pub(crate) fn files() -> Vec<PathBuf> {
    all().iter().map(|name| path(name)).collect()
}

/// The names of our namespaces.
fn all() -> Vec<String> {
    let names = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned)).collect()
}

/// Stops all forwarding between two clusters, or lets it go on; twice is no error.
pub(crate) fn cut(a: &Cluster, b: &Cluster, cut: bool) -> Result<()> {
    let (a, b) = (bridge(a.number), bridge(b.number));
    let pairs = format!("{{ {a} . {b}, {b} . {a} }}");
    // Adding what is there is no error to nft, deleting what is not is one: so it is added first.
    let mut script = format!("add element inet cuts pairs {pairs}\n");
    if !cut {
        let _infallible = writeln!(script, "delete element inet cuts pairs {pairs}");
    }
    feed(command(FABRIC, "nft").args(["-f", "-"]), &script)
}

/// The pairs of clusters' numbers that are cut, each once, the smaller first.
pub(crate) fn cuts() -> Result<Vec<(u8, u8)>> {
    if !path(FABRIC).exists() {
        return Ok(Vec::new());
    }
    let json = capture(command(FABRIC, "nft").args(["--json", "list", "set", "inet", "cuts", "pairs"]))?;
    pairs_in(&json).context("nft: list the cuts")
}

fn pairs_in(json: &str) -> Result<Vec<(u8, u8)>> {
    #[derive(Deserialize)]
    struct Listing {
        nftables: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        set: Option<Set>,
    }
    #[derive(Deserialize)]
    struct Set {
        #[serde(default)]
        elem: Vec<Element>,
    }
    #[derive(Deserialize)]
    struct Element {
        concat: [String; 2],
    }
    let listing: Listing = serde_json::from_str(json)?;
    let elements = listing.nftables.into_iter().filter_map(|entry| entry.set).flat_map(|set| set.elem);
    let number = |bridge: &str| bridge.strip_prefix("br")?.parse().ok();
    let pairs = elements.filter_map(|Element { concat: [a, b] }| Some((number(&a)?, number(&b)?)));
    let mut pairs: Vec<(u8, u8)> = pairs.filter(|(a, b)| a < b).collect();
    pairs.sort_unstable();
    Ok(pairs)
}

fn bridge(cluster: u8) -> String {
    format!("br{cluster}")
}

fn batch(name: &str, script: &str) -> Result<()> {
    feed(Command::new("ip").args(["-netns", &format!("{PREFIX}{name}"), "-batch", "-"]), script)
        .with_context(|| format!("network namespace {PREFIX}{name}"))
}

/// Runs a command to its end with this on its standard input.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<()> {
    let what = command.get_program().display().to_string();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {what}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A broken pipe only says that it stopped at an error, which it reports itself.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output().with_context(|| format!("run {what}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what}: {}: {}", output.status, said.trim());
    Ok(())
}

/// Runs a command to its end and returns what it wrote.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("start {}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {}", show(command), output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_read_from_nft() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {"family": "inet", "name": "pairs",
            "table": "cuts", "type": ["ifname", "ifname"], "handle": 1, "elem": [{"concat": ["br1", "br0"]},
            {"concat": ["br0", "br1"]}, {"concat": ["br0", "br9"]}, {"concat": ["br9", "br0"]}]}}]}"#;
        assert_eq!(pairs_in(json).unwrap(), [(0, 1), (0, 9)]);
        let none = r#"{"nftables": [{"set": {"name": "pairs", "type": ["ifname", "ifname"]}}]}"#;
        assert_eq!(pairs_in(none).unwrap(), []);
        assert!(pairs_in("{}").is_err());
    }
}
