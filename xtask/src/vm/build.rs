//! The programs for the guest: the kernel tier and `mcs`, static, because the guest has no C library.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{child, workspace::Workspace};

/// The tier that runs on other kernels.
const TIER: &str = "kernel";
/// Named explicitly, so that the flags do not apply to build scripts and macros: those cannot be static.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What the guest gets.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The test binary.
    pub(crate) tests: PathBuf,
    /// The binary under test.
    pub(crate) mcs: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Builds both in one go; they share all dependencies. A directory of its own keeps the flags out of the main build.
pub(crate) fn programs(workspace: &Workspace, directory: &Path) -> Result<Programs> {
    if !workspace.tiers.iter().any(|tier| tier == TIER) {
        bail!("tests/Cargo.toml: test {TIER}: none: nothing to run on other kernels");
    }
    let mut build = child::cargo(["build", "--workspace", "--test", TIER, "--bin", "mcs"]);
    build
        .args(["--target", TARGET, "--message-format=json-render-diagnostics", "--target-dir"])
        .arg(directory)
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // The initramfs is unpacked by an emulated processor: leave out what only a debugger reads.
        .env("CARGO_PROFILE_DEV_STRIP", "debuginfo")
        // And it is some thirty times slower than this one.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .stderr(std::process::Stdio::inherit())
        .current_dir(&workspace.root);
    println!("vm: building the static test binary and mcs …");
    let messages = build.output().with_context(|| format!("start {}", child::show(&build)))?;
    if !messages.status.success() {
        bail!("{}: {}", child::show(&build), messages.status);
    }
    let messages = String::from_utf8(messages.stdout).context("cargo build: output")?;
    Ok(Programs { tests: executable(&messages, TIER, "test")?, mcs: Some(executable(&messages, "mcs", "bin")?) })
}

/// The file that cargo's messages (one JSON object a line) name for a target.
fn executable(messages: &str, name: &str, kind: &str) -> Result<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .find_map(|Message { target, executable }| {
            let target = target?;
            (target.name == name && target.kind.iter().any(|known| known == kind)).then_some(executable?)
        })
        .with_context(|| format!("cargo build: {kind} {name}: no executable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_of_a_target_is_found_among_other_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"kernel","kind":["lib"]},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"mcs","kind":["bin"]},"executable":"/t/mcs"}
{"reason":"compiler-artifact","target":{"name":"kernel","kind":["test"]},"executable":"/t/kernel-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "kernel", "test").unwrap(), Path::new("/t/kernel-1"));
        assert_eq!(executable(messages, "mcs", "bin").unwrap(), Path::new("/t/mcs"));
        assert!(executable(messages, "e2e", "test").is_err());
    }
}
