//! `cargo xtask vm`: the kernel tier on other kernels.
//!
//! ```text
//!  kernel     Debian's linux-image-…-cloud-amd64, unpacked        ─┐
//!  modules    the .ko files that the tests need, in load order     │
//!  build      the tier and `mcs`, static                           ├─► initramfs ─► qemu (emulated) ─► verdict
//!  guest      /init, busybox, ip and its libraries                ─┘
//! ```
//!
//! What a test may rely on in the guest: root, `CI=true`, `MCS_VM=1`, `MCS_BIN=/bin/mcs`, `ip` and busybox's programs on
//! the `PATH`, bpffs at /sys/fs/bpf, cgroup2 at /sys/fs/cgroup, tmpfs on /tmp and /run. There is no network, no disk,
//! and no source tree. In a shell script `ip` is busybox's own (its shell prefers its applets): write
//! `/usr/sbin/ip` there.

mod boot;
mod build;
mod cpio;
mod guest;
mod kernel;
mod modules;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    setup::{self, Group, seconds},
    workspace::Workspace,
};

/// Run the kernel tier on Debian's kernels, under emulation.
///
/// For each version: fetches the kernel (once), builds the tier and mcs as static binaries, packs an initramfs, boots
/// it with `qemu-system-x86_64 -accel tcg`, and shows the serial console until the verdict. Everything is under target/vm;
/// the console's log is target/vm/VERSION/serial.log. Needs no root once qemu is installed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kernel versions, such as 6.1 (Debian 12) and 6.12 (Debian 13).
    #[arg(value_name = "VERSION", default_values = ["6.1", "6.12"])]
    versions: Vec<String>,
    /// Only tests whose name contains this; repeatable.
    #[arg(long, value_name = "NAME")]
    filter: Vec<String>,
    /// Longest time for one kernel, boot and tests, in seconds.
    #[arg(long, value_name = "SECONDS", env = "MCS_VM_TIMEOUT", default_value_t = TIMEOUT)]
    timeout: u64,
    /// Run this static program instead of the kernel tier.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Further arguments for the test binary.
    #[arg(last = true, value_name = "ARGS")]
    pass: Vec<String>,
}

const TIMEOUT: u64 = 1200;

/// `cargo xtask vm`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut words = args.filter.clone();
    words.extend(args.pass.iter().cloned());
    let plan = Plan { arguments: words, timeout: Duration::from_secs(args.timeout), program: args.program.clone() };
    plan.run(&Workspace::open()?, &args.versions)
}

/// The kernel tier on `versions`, as a tier of `cargo xtask test --full`.
pub(crate) fn kernels(workspace: &Workspace, versions: &[String], arguments: &[String]) -> Result<()> {
    let plan = Plan { arguments: arguments.to_vec(), timeout: Duration::from_secs(TIMEOUT), program: None };
    plan.run(workspace, versions)
}

struct Plan {
    arguments: Vec<String>,
    timeout: Duration,
    program: Option<PathBuf>,
}

impl Plan {
    fn run(&self, workspace: &Workspace, versions: &[String]) -> Result<()> {
        for version in versions {
            kernel::check_version(version)?;
        }
        setup::need(&[Group::Vm])?;
        let cache = workspace.cache("vm")?;
        let apt = workspace.cache("apt")?;
        let busybox = guest::busybox(&cache, &apt)?;
        let programs = match &self.program {
            Some(file) => build::Programs { tests: file.clone(), mcs: None },
            None => build::programs(workspace, &cache.join("build"))?,
        };
        let mut failed = Vec::new();
        for version in versions {
            let directory = cache.join(version);
            fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
            let kernel = kernel::obtain(version, &directory, &apt)?;
            println!("vm {version}: Linux {}", kernel.release);
            let start = Instant::now();
            let image = guest::initramfs(&kernel, &programs, &busybox)?;
            let initramfs = directory.join("initramfs.cpio");
            fs::write(&initramfs, &image).with_context(|| format!("write {}", initramfs.display()))?;
            println!("vm {version}: initramfs of {} MiB in {}", image.len() >> 20, seconds(start.elapsed()));
            let machine = boot::Machine {
                kernel: kernel.image,
                initramfs,
                log: directory.join("serial.log"),
                arguments: self.arguments.clone(),
                timeout: self.timeout,
            };
            match machine.boot(version) {
                Ok(()) => {}
                Err(error) => {
                    eprintln!("vm {version}: {error:#}");
                    failed.push(version.as_str());
                }
            }
        }
        if !failed.is_empty() {
            bail!("vm: failed on {}", failed.join(", "));
        }
        Ok(())
    }
}
