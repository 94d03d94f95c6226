//! `cargo xtask lint`: format and clippy, for the host and for the kernel programs.

use anyhow::Result;

use crate::{
    child,
    setup::{self, Group},
    workspace::Workspace,
};

/// Check format and lints; any warning fails.
///
/// Three steps: `cargo fmt --check`, clippy of the whole workspace with all targets, and clippy of the kernel programs
/// for their own target (the second step sees only their host side). `cargo fmt` and `cargo clippy --fix` mend much.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// `cargo xtask lint`.
pub(crate) fn run(Args {}: &Args) -> Result<()> {
    setup::need(&[Group::Build])?;
    check(&Workspace::open()?)
}

/// The steps, for a caller that has run setup.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let root = &workspace.root;
    child::run(child::cargo(["fmt", "--all", "--check"]).current_dir(root))?;
    child::run(child::cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).current_dir(root))?;
    // The variable allows `-Z` on the stable compiler; as in mcs-userspace/build.rs it is set for this child alone.
    child::run(
        child::cargo([
            "clippy",
            "-p",
            "mcs-ebpf",
            "--bins",
            "--target",
            "bpfel-unknown-none",
            "-Z",
            "build-std=core",
            "--",
            "-D",
            "warnings",
        ])
        .env("RUSTC_BOOTSTRAP", "1")
        .current_dir(root),
    )
}
