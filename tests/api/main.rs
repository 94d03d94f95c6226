//! The control plane on real API servers: what users and other programs see in the objects, with the programs that users
//! run. No nodes: EndpointSlices are written by hand, except where a test is about Kubernetes' own controllers.
//!
//! ```text
//!   conformance   upstream's rules that need no pods, with a broker of its own and with a member as the broker
//!   crds          our definitions against upstream's        joining      who may join, leave, and who is refused
//!   slices        endpoints from source to import           rights       what a member may not do at the broker
//!   agent         from objects to a pod's connect, on a node without Kubernetes
//!   monitoring    health and metrics, and how long a change takes from its source to a node's maps
//!   failures      outages, losses, deletions, garbage: what the user sees, and what stays
//! ```

#![expect(clippy::unwrap_used, reason = "clippy allows it in functions marked as tests only, not in those they call")]
#![expect(clippy::expect_used, reason = "as above")]

mod agent;
mod conformance;
mod crds;
mod failures;
mod harness;
mod joining;
mod monitoring;
mod objects;
mod rights;
mod slices;
mod world;

use std::time::Duration;

/// How long anything may take that should happen soon. Upstream's suite grants 20 s; a test machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// How long nothing may happen, where that is the promise.
pub(crate) const QUIET: Duration = Duration::from_secs(4);
