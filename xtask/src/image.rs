//! `cargo xtask image`: a container image of `mcs`, made without a container engine.

use std::{
    env::consts::ARCH,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use mcs_clusters::archive::{self, Layer};
use serde_json::json;

use crate::{
    child,
    setup::{self, Group, seconds},
    workspace::Workspace,
};

/// Make a container image that holds the program `mcs`, static, and nothing else.
///
/// Writes an archive that `ctr images import`, `podman load`, `docker load` and `cargo xtask cluster load` take. The same
/// sources at the same place give the same bytes. Needs no container engine, no registry and no root.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image's name.
    #[arg(long, value_name = "NAME", default_value = "localhost/mcs:dev")]
    name: String,
    /// The archive. Default: image/mcs.tar below the target directory.
    #[arg(long, value_name = "TAR")]
    output: Option<PathBuf>,
    /// Take the build that is quick to make instead of the optimized one: for tests.
    #[arg(long)]
    dev: bool,
}

/// `cargo xtask image`.
pub(crate) fn run(args: &Args) -> Result<()> {
    make(args).map(drop)
}

/// The image's archive, made for tests: with the build that is quick to make.
pub(crate) fn for_tests() -> Result<PathBuf> {
    make(&Args { name: "localhost/mcs:dev".to_owned(), output: None, dev: true })
}

/// The image's archive as users get it.
pub(crate) fn optimized() -> Result<PathBuf> {
    make(&Args { name: "localhost/mcs:dev".to_owned(), output: None, dev: false })
}

/// Builds a program of a package as the image's own is, optimized, beside that one: what both are made of is compiled once.
pub(crate) fn companion(workspace: &Workspace, package: &str, name: &str) -> Result<PathBuf> {
    build(workspace, &workspace.cache("image")?, package, name, false)
}

fn make(args: &Args) -> Result<PathBuf> {
    setup::need(&[Group::Build])?;
    let workspace = Workspace::open()?;
    let directory = workspace.cache("image")?;
    let start = Instant::now();
    let program = build(&workspace, &directory, "mcs-userspace", "mcs", args.dev)?;
    println!("image: built in {}", seconds(start.elapsed()));
    let archive = args.output.clone().unwrap_or_else(|| directory.join("mcs.tar"));
    let mut layer = Layer::default();
    layer.program("mcs", &program)?;
    let contents = layer.contents().to_vec();
    let config = json!({
        "Entrypoint": ["/mcs"],
        "Labels": {"org.opencontainers.image.title": "mcs", "org.opencontainers.image.licenses": "Apache-2.0"},
    });
    let written = archive::write(&[&args.name], &config, layer, &archive)?;
    println!("{:<32} {:>10}", args.name, "bytes");
    for (path, size) in contents {
        println!("  /{path:<29} {size:>10}");
    }
    println!("  {:<30} {:>10}", "archive", written.size);
    println!("{}\n{}", written.digest, archive.display());
    Ok(archive)
}

/// Builds a static program in a directory of its own, which keeps the flags out of the main build.
fn build(workspace: &Workspace, directory: &Path, package: &str, name: &str, dev: bool) -> Result<PathBuf> {
    // Named explicitly, so that the flags do not apply to build scripts and macros: those cannot be static.
    let target = format!("{ARCH}-unknown-linux-gnu");
    let profile = if dev { "dev" } else { "release" };
    println!("image: building {name}, static, profile {profile} …");
    let mut build = child::cargo(["build", "--locked", "-p", package, "--bin", name]);
    build.args(["--profile", profile, "--target", &target, "--target-dir"]).arg(directory);
    build
        .env(format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUSTFLAGS", ARCH.to_uppercase()), flags(workspace)?)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_INCREMENTAL", "0")
        // Names of functions are for debuggers, and as much as a third of the program.
        .env(format!("CARGO_PROFILE_{}_STRIP", profile.to_uppercase()), "symbols")
        .current_dir(&workspace.root);
    child::run(&mut build)?;
    Ok(directory.join(target).join(if dev { "debug" } else { "release" }).join(name))
}

/// Static, and without the paths of this machine that messages of panics would name.
fn flags(workspace: &Workspace) -> Result<String> {
    let crates = child::cargo_bin().and_then(|bin| Some(bin.parent()?.to_path_buf())).context("no CARGO_HOME")?;
    Ok(format!(
        "-Ctarget-feature=+crt-static --remap-path-prefix={}=/mcs --remap-path-prefix={}=/cargo",
        workspace.root.display(),
        crates.display()
    ))
}
