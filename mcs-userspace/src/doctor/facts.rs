//! What is read of the machine, without judging it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::process::{Resource, getrlimit};

use crate::apiserver::in_pod;
use crate::dataplane::cgroup2::{self, Mount};
use crate::dataplane::coverage::{self, Coverage};
use crate::dataplane::pins::is_bpf_filesystem;
use crate::dataplane::probe;

/// The inode of the first cgroup namespace, `PROC_CGROUP_INIT_INO`.
const FIRST_CGROUP_NAMESPACE: u64 = 0xEFFF_FFFB;

/// A machine, as an agent would find it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `uname -r`.
    pub release: String,
    /// Mounted cgroup2 filesystems.
    pub cgroup2: Vec<Mount>,
    /// Whether cgroup v1 hierarchies are mounted.
    pub has_cgroup1: bool,
    /// The cgroup that an agent would attach to.
    pub cgroup: Option<Cgroup>,
    /// Whether this process is in the first cgroup namespace; none where that cannot be told.
    pub first_cgroup_namespace: Option<bool>,
    /// Where maps would be pinned.
    pub pin_dir: PathBuf,
    /// Whether that lies on a bpf filesystem, or why that cannot be told.
    pub on_bpffs: Result<bool, String>,
    /// Effective capabilities, a bit each (capabilities(7)).
    pub capabilities: Option<u64>,
    /// The most bytes that may be locked; none for no limit.
    pub memlock: Option<u64>,
    /// Whether the kernel tells its types.
    pub has_btf: bool,
    /// `net.core.bpf_jit_enable`.
    pub jit: Option<u32>,
    /// What became of loading the programs.
    pub trial: Trial,
}

/// A cgroup to attach to.
#[derive(Clone, Debug)]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
    /// What an attach there covers if this is a process of a pod, or why that cannot be told.
    pub coverage: Result<Coverage, String>,
    /// Whether this is a process of a pod.
    pub in_pod: bool,
}

/// What became of loading the programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trial {
    /// The kernel takes them all.
    Loaded,
    /// It does not.
    Refused(String),
}

impl Facts {
    /// Reads them. Attaches, pins and mounts nothing.
    #[must_use]
    pub fn read(pin_dir: &Path, cgroup: Option<&Path>) -> Self {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = cgroup2::mounts(&mountinfo);
        let chosen = cgroup.or_else(|| cgroup2::widest(&mounts).map(|mount| mount.point.as_path()));
        let cgroup = chosen.map(|path| Cgroup {
            path: path.to_owned(),
            coverage: coverage::of(path).map_err(|error| format!("{error:#}")),
            in_pod: in_pod(),
        });
        Self {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            has_cgroup1: mountinfo.lines().any(|line| line.contains(" - cgroup ")),
            cgroup,
            cgroup2: mounts,
            first_cgroup_namespace: inode("/proc/self/ns/cgroup").ok().map(|inode| inode == FIRST_CGROUP_NAMESPACE),
            on_bpffs: on_bpffs(pin_dir).map_err(|error| error.to_string()),
            pin_dir: pin_dir.to_owned(),
            capabilities: fs::read_to_string("/proc/self/status").ok().as_deref().and_then(effective),
            memlock: getrlimit(Resource::Memlock).current,
            has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            jit: fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok().and_then(|text| text.trim().parse().ok()),
            trial: probe().map_or_else(|error| Trial::Refused(one_line(&format!("{error:#}"))), |()| Trial::Loaded),
        }
    }
}

fn inode(path: &str) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(path)?.ino())
}

/// Of the directory, or of the nearest one above that is there.
fn on_bpffs(pin_dir: &Path) -> io::Result<bool> {
    for directory in pin_dir.ancestors() {
        match statfs(directory) {
            Ok(kind) => return Ok(is_bpf_filesystem(&kind)),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// `CapEff` of a text like `/proc/self/status` (proc_pid_status(5)).
fn effective(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

/// The beginning of what the kernel said, which may be a whole log.
fn one_line(text: &str) -> String {
    const MOST: usize = 400;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_as_the_kernel_writes_them() {
        assert_eq!(effective("Name:\tmcs\nCapEff:\t000000c000001000\nCapBnd:\t0\n"), Some(0xc0_0000_1000));
        assert_eq!(effective("CapEff:\tx\n"), None);
        assert_eq!(effective(""), None);
    }

    #[test]
    fn long_answers_are_cut() {
        assert_eq!(one_line("a\n  b\tc"), "a b c");
        let long = one_line(&"ü ".repeat(1000));
        assert!(long.ends_with(" …") && long.chars().count() == 402, "{long}");
    }
}
