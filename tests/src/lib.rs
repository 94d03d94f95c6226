//! The fleet harness: clusters of nodes and pods on this one machine, for tests, the demo and benchmarks.
//!
//! A node or pod is a network namespace and a cgroup; nothing else of a container matters to the dataplane. A fleet stands
//! in about 50 ms and is gone without a trace when its value is dropped, after a panic, a signal, or (by the next fleet)
//! a `kill -9`.
//!
//! ```no_run
//! use mcs_tests::identity::{self, Protocol, Server};
//! use mcs_tests::{Family, Fleet, agent::Agent, addresses, manifest};
//!
//! # fn main() -> anyhow::Result<()> {
//! let fleet = Fleet::builder().clusters(2).nodes(2).pods(2).build()?;
//! let servers = Server::start_in(fleet.pods(), 8080)?;
//!
//! let vip = addresses::clusterset_ip(Family::V4, 1);
//! let source = fleet.dir("manifests")?;
//! manifest::write(&source, "web", &manifest::service("web", [vip], 80, 8080, fleet.pods()))?;
//! let agents = Agent::start_on_all(&fleet, &source)?;
//!
//! // Ask from a pod …
//! let backend = identity::ask(fleet.pod("a1p1"), Protocol::Tcp, (vip, 80).into())?;
//! assert!(fleet.pods().any(|pod| pod.name() == backend));
//! // … or do anything to sockets in it: the closure's thread is in the pod.
//! let peer = fleet.pod("a1p1").run(|| std::net::TcpStream::connect((vip, 80))?.peer_addr())?;
//! assert_eq!(peer.ip(), vip);
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! * [`shape`] says what a fleet is like; [`fleet`] builds and removes it; [`member`] nodes and pods; [`addresses`] who has which; `topology` the links and routes.
//! * [`place`] runs closures and programs in a node or pod: [`netns`], [`cgroup`], [`child`].
//! * [`identity`] servers that say who they are, and their clients.
//! * [`manifest`] writes what agents read; [`agent`] runs them.
//! * [`apiserver`] real API servers, without nodes; [`client`] what tests ask of them; [`mcs`] its verbs and controllers.
//! * [`clusters`] real clusters with kubelets and pods, for the tiers that need them.
//! * [`kube`] `mcs` on real clusters, installed with `deploy/`.
//! * [`dns`] DNS servers of the ClusterSet's zone, and `dig`.
//! * [`privilege`] what a machine must allow; [`owner`], `removal`, `registry`, `signal`: leaving nothing behind.

pub mod addresses;
pub mod agent;
pub mod apiserver;
pub mod cgroup;
pub mod child;
pub mod client;
pub mod clusters;
pub mod dns;
pub mod fleet;
pub mod identity;
mod iproute;
pub mod kube;
pub mod manifest;
pub mod mcs;
pub mod member;
pub mod netns;
pub mod owner;
pub mod place;
pub mod privilege;
mod registry;
mod removal;
pub mod shape;
mod signal;
mod topology;

pub use addresses::Family;
pub use fleet::Fleet;
pub use member::{Node, Pod};
pub use place::Place;
