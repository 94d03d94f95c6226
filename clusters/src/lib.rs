//! Real Kubernetes clusters on this one machine: etcd, kube-apiserver, controllers, scheduler, and nodes with kubelet,
//! containerd, runc, CNI, kube-proxy (or none) and CoreDNS, IPv4 and IPv6, with routed pod networks between the clusters. No
//! container engine, no registry, no virtual machine: a node is a set of namespaces and a cgroup.
//!
//! ```text
//!        this machine, 127.0.0.1:PORT ──socat──┐                    namespaces, one router between them
//!                                              ▼
//!   c0  172.30.0.2 etcd, kube-apiserver, …   br0 ┐           ┌ br1   c1  172.30.1.2 etcd, kube-apiserver, …
//!   c0n0 172.30.0.10 containerd, kubelet, …  ────┼── fabric ─┼────   c1n0 172.30.1.10 containerd, kubelet, …
//!   c0n1 172.30.0.11        pods 10.10.1.0/24 ───┘  (cuts)   └────   c1n1 172.30.1.11        pods 10.11.1.0/24
//! ```
//!
//! Everything that runs is in a cgroup below `mcsk`, which is all the bookkeeping of processes that there is: what is
//! running is what is populated, and what is ended is what is in there. Nothing is changed in the machine's own network
//! namespace, mounts or directories but [`Directories::run`].
//!
//! ```no_run
//! use mcs_clusters::{Clusters, Part, Shape};
//!
//! # fn main() -> anyhow::Result<()> {
//! let clusters = Clusters::up(&Shape::default(), &|line| eprintln!("{line}"))?;      // or find those that run
//! let pods = clusters.kubectl("c0").args(["get", "pods", "-A"]).output()?;
//! clusters.cut("c0", "c1")?;
//! clusters.kill(&Part::Node("c1n0".into()))?;
//! clusters.restart(&Part::Node("c1n0".into()), &|line| eprintln!("{line}"))?;
//! clusters.restore("c0", "c1")?;
//! clusters.down()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! * [`shape`]: how many of what, and who has which address. [`directories`]: where programs, images and state lie.
//! * [`up`] the order in which they come up; `network`, `keys`, `control_plane`, `node`, `dns`: their parts.
//! * [`fault`] cuts, kills, restarts; [`status`] what runs.
//! * `group` processes; [`archive`] image archives; [`images`] those that the clusters run.

pub mod archive;
mod control_plane;
pub mod directories;
mod dns;
pub mod fault;
mod group;
pub mod images;
mod keys;
mod kubectl;
mod network;
mod node;
pub mod shape;
pub mod status;
pub mod up;

pub use directories::Directories;
pub use fault::Part;
pub use shape::{Cni, Proxy, Shape};
pub use up::Clusters;
