//! mcs on real clusters with real kubelets, installed with what `deploy/` holds and nothing else.
//!
//! Needs root, the clusters' programs (`cargo xtask setup --for cluster`) and an image (`cargo xtask image`);
//! `cargo xtask test --tier kube` makes both.

#![expect(clippy::unwrap_used, reason = "clippy allows them in functions marked as tests only, not in those they call")]

mod story;
