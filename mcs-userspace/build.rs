//! Builds the kernel programs, so that `cargo build` gives one binary with everything inside.

use anyhow::{Context as _, anyhow};
use aya_build::Toolchain;

fn main() -> anyhow::Result<()> {
    // `-Z build-std=core` on the stable compiler. Set here and not for the workspace, where it would also switch on
    // the nightly probes of other build scripts.
    // SAFETY: a build script's main thread, before any other exists.
    unsafe {
        std::env::set_var("RUSTC_BOOTSTRAP", "1");
        // aya-build turns every line of the inner cargo into a warning, and cargo repeats warnings at each build.
        std::env::set_var("CARGO_TERM_QUIET", "true");
    }
    let toolchain = std::env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "1.95.0".to_owned());
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../mcs-ebpf");
    let package = aya_build::Package { name: "mcs-ebpf", root_dir: root, ..Default::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain))
        .context("build the kernel programs (`cargo xtask setup` installs what this needs)")?;

    let git = std::process::Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=9"]).output();
    let hash = match git {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).map_err(|e| anyhow!(e))?,
        Ok(_) | Err(_) => "unknown".to_owned(),
    };
    println!("cargo:rustc-env=MCS_GIT={}", hash.trim());
    if std::path::Path::new("../.git/logs/HEAD").exists() {
        println!("cargo:rerun-if-changed=../.git/logs/HEAD");
    }
    Ok(())
}
