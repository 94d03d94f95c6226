//! What `deploy/` holds: that a real API server takes it, that Helm's chart says the same as kustomize, that it fits the
//! program, and that alerts and the dashboard ask for metrics that there are.
//!
//! kubectl (with kustomize in it) and Helm are `cargo xtask setup`'s; nothing here needs a node.

#![expect(clippy::unwrap_used, reason = "clippy allows them in functions marked as tests only, not in those they call")]

mod chart;
mod fits;
mod monitoring;
mod privileged;
mod rendered;
mod scraped;
mod served;
