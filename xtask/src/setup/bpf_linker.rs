//! bpf-linker: links the kernel programs. 0.10.3 loads rustc's own LLVM; later releases want an LLVM installation.

use std::time::Duration;

use anyhow::{Result, anyhow};

use super::{Outcome, step};
use crate::child;

const VERSION: &str = "0.10.3";
const LIMIT: Duration = Duration::from_secs(1800);

pub(super) fn ensure() -> Result<Outcome> {
    if installed().as_deref() == Some(VERSION) {
        return Ok(Outcome::Present);
    }
    step(&format!("cargo install bpf-linker {VERSION} (about 70 s on two cores)"), || {
        let package = format!("bpf-linker@{VERSION}");
        // --force: another version that is there is in the way of the build.
        let mut install = child::cargo(["install", "--locked", "--force", &package]);
        // Flags meant for this workspace must not decide how a tool is built.
        install.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        child::attend(&mut install, LIMIT)
            .map_err(|error| anyhow!("{error:#}: run `cargo install --locked {package}` to see more"))
    })
}

/// The version that a build would use: children find `CARGO_HOME/bin` first.
fn installed() -> Option<String> {
    let program = child::find("bpf-linker")?;
    let line = child::capture(child::command(program).arg("--version")).ok()?;
    Some(line.split_whitespace().nth(1)?.to_owned())
}
