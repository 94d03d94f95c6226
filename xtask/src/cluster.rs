//! `cargo xtask cluster`: real Kubernetes clusters on this machine. A thin caller of the package `mcs-clusters`, which
//! tests use too.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, bail};
use mcs_clusters::{Clusters, Cni, Part, Proxy, Shape};

use crate::{
    child,
    setup::{self, Group, seconds},
};

/// Real Kubernetes clusters on this machine: etcd, kube-apiserver, controllers, and nodes with kubelet, containerd, runc,
/// CNI, kube-proxy and CoreDNS, IPv4 and IPv6.
///
/// Everything is in network namespaces (`ip netns list`: mcsk-…), below the cgroup `mcsk`, and in mcs/clusters of the user's
/// cache; the API servers are reached on ports of 127.0.0.1. Needs root. There is one set of clusters at a time.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Bring clusters up, or start again what has ended of them.
    ///
    /// Builds the programs the first time (`cargo xtask setup --for cluster`, 20 to 25 minutes on two cores); then about
    /// 20 s, and 1 s when all runs. Prints how to reach them: a kubeconfig with the contexts c0, c1, ….
    Up(Up),
    /// End everything and remove all of it.
    Down {
        /// Leave the files, to look at logs, until the next `up`.
        #[arg(long)]
        keep: bool,
    },
    /// What runs. Exits with 0 if all does, else with 1.
    Status {
        /// `json`, or `text` for people.
        #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
        output: String,
    },
    /// Load an image archive (docker-archive or OCI) on all nodes.
    Load {
        /// The archive, as `cargo xtask image` writes it.
        archive: PathBuf,
    },
    /// Let CoreDNS answer for clusterset.local too; the definition of ServiceImports must be there.
    Dns {
        /// Clusters; default: all that have nodes.
        clusters: Vec<String>,
    },
    /// Stop all traffic between two clusters.
    Cut {
        /// One.
        a: String,
        /// The other.
        b: String,
    },
    /// Undo a cut.
    Restore {
        /// One.
        a: String,
        /// The other.
        b: String,
    },
    /// Kill a part as a crash does: `node c0n1`, `apiserver c0`, `etcd c0`, `controller-manager c0`, `scheduler c0`,
    /// `cluster c1`, `broker`.
    Kill {
        /// What.
        #[arg(required = true, num_args = 1..=2)]
        part: Vec<String>,
    },
    /// Kill a part and start it again, and wait until it is ready. Parts as for `kill`.
    Restart {
        /// What.
        #[arg(required = true, num_args = 1..=2)]
        part: Vec<String>,
    },
    /// Let a part hang as SIGSTOP does. Parts as for `kill`.
    Pause {
        /// What.
        #[arg(required = true, num_args = 1..=2)]
        part: Vec<String>,
    },
    /// Let a part go on that hangs.
    Resume {
        /// What.
        #[arg(required = true, num_args = 1..=2)]
        part: Vec<String>,
    },
    /// Run a program in the clusters' network, from where all API servers, nodes and pods are reached; KUBECONFIG has their
    /// addresses there. With --node: on a node, in all its namespaces.
    Exec {
        /// The node.
        #[arg(long)]
        node: Option<String>,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Up {
    /// How many clusters.
    #[arg(long, value_name = "N", default_value_t = 2)]
    clusters: u8,
    /// Nodes of each.
    #[arg(long, value_name = "M", default_value_t = 2)]
    nodes: u8,
    /// kube-proxy's mode, or `none`; one for each cluster, the last for the rest.
    #[arg(long, value_name = "nftables|iptables|none", value_delimiter = ',', default_value = "nftables,iptables")]
    proxy: Vec<Proxy>,
    /// How pods are attached; one for each cluster, the last for the rest.
    #[arg(long, value_name = "ptp|bridge", value_delimiter = ',', default_value = "ptp,bridge")]
    cni: Vec<Cni>,
    /// An API server without nodes too, called `broker`.
    #[arg(long)]
    broker: bool,
    /// Load these image archives.
    #[arg(long, value_name = "TAR")]
    image: Vec<PathBuf>,
}

/// `cargo xtask cluster`.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.verb {
        Verb::Up(args) => up(args),
        Verb::Down { keep } => {
            root()?;
            Clusters::end(keep)
        }
        Verb::Status { output } => status(output == "json"),
        Verb::Load { archive } => running()?.load(&archive),
        Verb::Dns { clusters } => {
            let running = running()?;
            let all = running.clusters().iter().filter(|cluster| cluster.nodes > 0).map(|cluster| cluster.name.clone());
            let named = if clusters.is_empty() { all.collect() } else { clusters };
            named.iter().try_for_each(|cluster| running.answer_for_clusterset(cluster))
        }
        Verb::Cut { a, b } => running()?.cut(&a, &b),
        Verb::Restore { a, b } => running()?.restore(&a, &b),
        Verb::Kill { part } => running()?.kill(&parse(&part)?),
        Verb::Restart { part } => {
            let (running, start) = (running()?, Instant::now());
            running.restart(&parse(&part)?, &|line| println!("{:>8}  {line}", seconds(start.elapsed())))
        }
        Verb::Pause { part } => running()?.pause(&parse(&part)?, true),
        Verb::Resume { part } => running()?.pause(&parse(&part)?, false),
        Verb::Exec { node, command } => exec(node.as_deref(), &command),
    }
}

fn up(args: Up) -> Result<()> {
    root()?;
    setup::need(&[Group::Cluster])?;
    let Up { clusters, nodes, proxy: proxies, cni: cnis, broker, image: images } = args;
    let shape = Shape { clusters, nodes, proxies, cnis, broker };
    let start = Instant::now();
    let up = Clusters::up(&shape, &|line| println!("{:>8}  {line}", seconds(start.elapsed())))?;
    for image in images {
        up.load(&image)?;
        println!("{:>8}  {} loaded", seconds(start.elapsed()), image.display());
    }
    print!("\n{}", up.status()?);
    println!("\nexport KUBECONFIG={}   # contexts {}", up.kubeconfig().display(), contexts(&up));
    println!("cargo xtask cluster exec -- PROGRAM …   # in the clusters' network");
    Ok(())
}

fn contexts(clusters: &Clusters) -> String {
    clusters.clusters().iter().map(|cluster| cluster.name.as_str()).collect::<Vec<&str>>().join(", ")
}

fn status(json: bool) -> Result<()> {
    let Some(clusters) = Clusters::open()? else {
        bail!("no clusters are up: run `cargo xtask cluster up`");
    };
    let status = clusters.status()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{status}");
        println!("KUBECONFIG={}", status.kubeconfig.display());
    }
    if !status.healthy {
        bail!("not all runs: `cargo xtask cluster up` with what they were brought up with starts what has ended");
    }
    Ok(())
}

/// Only root sees whether anything is there.
fn root() -> Result<()> {
    if !child::is_root() {
        bail!("clusters: namespaces, cgroups and mounts need root: run it as root");
    }
    Ok(())
}

fn running() -> Result<Clusters> {
    root()?;
    Clusters::open()?.context("no clusters are up: run `cargo xtask cluster up`")
}

fn parse(words: &[String]) -> Result<Part> {
    words.join(" ").parse()
}

fn exec(node: Option<&str>, command: &[String]) -> Result<()> {
    let running = running()?;
    let (program, arguments) = command.split_first().context("no program")?;
    let mut child: Command = match node {
        Some(node) => running.on_node(node, program)?,
        None => {
            // Found with this machine's PATH and directory, which are the same in there.
            let file = if program.contains('/') { fs::canonicalize(program).ok() } else { child::find(program) };
            running.inside(file.unwrap_or_else(|| program.into()))
        }
    };
    let status = child.args(arguments).status().with_context(|| format!("start {program}"))?;
    ended(program, status)
}

fn ended(program: &str, status: ExitStatus) -> Result<()> {
    if status.success() { Ok(()) } else { Err(anyhow!("{program}: {status}")) }
}
