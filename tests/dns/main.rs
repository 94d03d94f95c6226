//! Names of the ClusterSet, asked with `dig`: `mcs dns` beside a real CoreDNS with its `multicluster` option, on the same
//! objects of a real API server.
//!
//! ```text
//!   agreement   every name and type, at both servers; what differs is listed here, with the reason
//!   following   a StatefulSet that moves, services that come and go
//!   serving     large answers over UDP and TCP, both families, what is no query
//! ```

#![expect(clippy::unwrap_used, reason = "clippy allows it in functions marked as tests only, not in those they call")]

mod agreement;
mod following;
mod objects;
mod serving;
mod world;
