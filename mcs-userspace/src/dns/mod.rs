//! Names of the ClusterSet: `mcs dns`, authoritative for `clusterset.local`.
//!
//! ```text
//!  source ──Event──► Builder ──Update──► Zone (behind a lock) ◄── read ── UDP threads, TCP tasks
//!                       pure               pure: lookup, respond             edges
//!  pinned maps ──► the ClusterSetIPs that work on this node ──┘  only with --pin-dir
//! ```
//!
//! * [`name`] names in wire form; [`service`] a service as its names tell it; [`zone`] all of them.
//! * [`lookup`] a question to its answer; [`message`] octets to octets.
//! * [`server`] sockets; [`programmed`] what works on this node; [`run`] all of it together.
//!
//! Answering costs a hash look-up, and no allocation unless the name is one of a port or an endpoint.

pub mod lookup;
pub mod message;
mod metrics;
pub mod name;
mod packet;
pub mod programmed;
pub mod run;
pub mod server;
pub mod service;
#[cfg(test)]
mod tests;
pub mod zone;
