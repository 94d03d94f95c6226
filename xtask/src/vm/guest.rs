//! What is in the guest: an init script, busybox, `ip`, modules, and the programs to run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{build::Programs, cpio::Archive, kernel::Kernel, modules};
use crate::{child, debian::suite::Suite};

/// What the tests need of the kernel and Debian builds as modules: links between namespaces, tc programs, and the
/// netlink that finds and ends sockets.
const MODULES: [&str; 5] = ["veth", "sch_ingress", "cls_bpf", "tcp_diag", "udp_diag"];

/// Printed when the guest is ready for the tests.
pub(crate) const BOOTED: &str = "MCS-VM-BOOTED";
/// Printed with the tests' exit code.
pub(crate) const VERDICT: &str = "MCS-VM-VERDICT: ";

/// Any suite's will do; this one is as old as the oldest kernel that we boot.
const BUSYBOX_SUITE: &str = "bookworm";

/// A static busybox, from the cache or from Debian. Unpacked rather than installed: it would replace the `busybox`
/// package of whoever has that.
pub(crate) fn busybox(cache: &Path, apt: &Path) -> Result<PathBuf> {
    let root = cache.join("busybox");
    if !root.exists() {
        println!("vm: fetching busybox-static …");
        let scratch = cache.join("busybox.partial");
        if scratch.exists() {
            fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
        }
        let suite = Suite::open(BUSYBOX_SUITE, apt)?;
        let versions = suite.versions("busybox-static")?;
        let version = versions.first().with_context(|| format!("busybox-static: not in {BUSYBOX_SUITE}"))?;
        suite.unpack("busybox-static", version, None, &scratch)?;
        fs::rename(&scratch, &root).with_context(|| format!("make {}", root.display()))?;
    }
    ["bin/busybox", "usr/bin/busybox"]
        .map(|place| root.join(place))
        .into_iter()
        .find(|file| file.is_file())
        .with_context(|| format!("busybox in {}: not there: remove that directory", root.display()))
}

/// Packs everything.
pub(crate) fn initramfs(kernel: &Kernel, programs: &Programs, busybox: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["/proc", "/sys", "/tmp", "/run", "/var"] {
        archive.directory(directory);
    }
    archive.link("/var/run", "/run");
    // The kernel opens it for init before /dev is mounted.
    archive.device("/dev/console", 5, 1);
    archive.program("/init", script().as_bytes());
    archive.program("/bin/busybox", &read(busybox)?);
    archive.link("/bin/sh", "busybox");
    for (position, module) in modules::load_order(&kernel.modules, &MODULES)?.into_iter().enumerate() {
        archive.file(&format!("/modules/{position:02}-{}.ko", module.name), &module.object);
    }
    let ip = child::find("ip").context("ip: not found: cargo xtask setup --for vm")?;
    archive.program("/usr/sbin/ip", &read(&ip)?);
    for library in libraries(&child::capture(child::command("ldd").arg(&ip))?) {
        archive.program(library, &read(Path::new(library))?);
    }
    archive.program("/bin/mcs-tests", &static_program(&programs.tests)?);
    if let Some(mcs) = &programs.mcs {
        archive.program("/bin/mcs", &static_program(mcs)?);
    }
    Ok(archive.finish())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("read {}", file.display()))
}

/// The content of a program that needs no loader. In the guest a dynamic one would only say "not found".
fn static_program(file: &Path) -> Result<Vec<u8>> {
    let content = read(file)?;
    if names_a_loader(&content) {
        bail!("{}: not a static program", file.display());
    }
    Ok(content)
}

/// Whether an ELF file asks for a dynamic loader: the name stands in its first page.
fn names_a_loader(content: &[u8]) -> bool {
    const LOADER: &[u8] = b"/ld-linux";
    let head = &content[..content.len().min(4096)];
    head.windows(LOADER.len()).any(|window| window == LOADER)
}

/// The files in ldd's output: `name => /path (0x…)` and, for the loader, `/path (0x…)`.
fn libraries(ldd: &str) -> Vec<&str> {
    ldd.lines()
        .filter_map(|line| {
            let file = line.split_once("=>").map_or(line, |(_, file)| file);
            file.split_whitespace().next().filter(|file| file.starts_with('/'))
        })
        .collect()
}

/// The guest's init. Its arguments are the words after `--` on the kernel's command line.
fn script() -> String {
    format!(
        r#"#!/bin/sh
export PATH=/usr/sbin:/bin
busybox=/bin/busybox
$busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
echo "MCS-VM-KERNEL: $(uname -r)"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /run/netns
for module in /modules/*.ko; do
    insmod "$module" || echo "MCS-VM-WARNING: $module: not loaded"
done
ip link set lo up
# Thousands of connections, each with both ends in this machine.
ulimit -n 262144
cd /tmp
echo "{BOOTED}"
CI=true MCS_VM=1 MCS_BIN=/bin/mcs RUST_BACKTRACE=1 mcs-tests "$@" </dev/null
verdict=$?
# A new line first: a test that died may have left half of one.
echo
echo "{VERDICT}$verdict"
poweroff -f
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_with_and_without_an_arrow() {
        let ldd = "\tlinux-vdso.so.1 (0x1)\n\tlibelf.so.1 => /lib/x86_64-linux-gnu/libelf.so.1 (0x2)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        assert_eq!(libraries(ldd), ["/lib/x86_64-linux-gnu/libelf.so.1", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        assert!(names_a_loader(b"\x7fELF....\0/lib64/ld-linux-x86-64.so.2\0"));
        assert!(!names_a_loader(b"\x7fELF"));
    }
}
