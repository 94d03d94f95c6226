//! Cgroups for nodes and pods, into which *single threads* can be put.
//!
//! A cgroup program sees a socket through the cgroup of the task that made it. So that a test can open sockets in a pod
//! without a helper process, all cgroups of a fleet are *threaded* (cgroup-v2.rst, "Threads"): threads of one process may
//! sit in different cgroups below one domain. That domain is the cgroup2 root, the only cgroup that may have
//! processes, domain children and threaded children at once, whatever controllers are enabled in it; and several fleets
//! of one process need one domain. Programs attached to a threaded cgroup run for its children like any others
//! (tests/fleet proves it).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};

/// How long a cgroup may stay busy after its tasks were killed: an exiting task leaves it a moment after it is reaped.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// Where cgroup2 is mounted: `/sys/fs/cgroup`, or `…/unified` beside v1 controllers.
pub fn root() -> Result<&'static Path> {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(root) = ROOT.get() {
        return Ok(root);
    }
    let table = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let Some(found) = table.lines().find_map(cgroup2_mount_point) else {
        bail!("no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup");
    };
    Ok(ROOT.get_or_init(|| found))
}

/// The mount point in a line of mountinfo, if it is one of cgroup2. Mount points with blanks are nobody's cgroup root.
fn cgroup2_mount_point(line: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    if kind.split(' ').next()? != "cgroup2" {
        return None;
    }
    mount.split(' ').nth(4).map(PathBuf::from)
}

/// Puts this whole process into the cgroup2 root, where its threads can be moved below from. It mostly is there already;
/// on a systemd machine it starts in a slice.
pub(crate) fn join_root() -> Result<()> {
    let own = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    // A process with threads in a fleet shows the fleet's cgroup here when asked from such a thread.
    if own == "/" || own.starts_with("/mcs-") {
        return Ok(());
    }
    let procs = root()?.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("leave cgroup {own}: write {}", procs.display()))
}

/// Makes one threaded cgroup; its parent is the root or a threaded one.
pub(crate) fn create(path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("create cgroup {}", path.display()))?;
    fs::write(path.join("cgroup.type"), "threaded").with_context(|| format!("make cgroup {} threaded", path.display()))
}

/// Moves the calling thread, and no other, into a cgroup.
pub(crate) fn enter(path: &Path) -> Result<()> {
    fs::write(path.join("cgroup.threads"), "0").with_context(|| format!("enter cgroup {}", path.display()))
}

/// Kills every process but our own that sits in the cgroup or below, and removes them all. Nothing is there: no error.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let children = match fs::read_dir(path) {
        Ok(children) => children,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("list cgroup {}", path.display())),
    };
    for child in children {
        let child = child.with_context(|| format!("list cgroup {}", path.display()))?;
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&child.path())?;
        }
    }
    let end = Instant::now() + BUSY_LIMIT;
    loop {
        kill_members(path);
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => {
                return Err(error).with_context(|| format!("remove cgroup {}", path.display()));
            }
        }
    }
}

/// Kills the processes that have a thread here. (`cgroup.kill` and `cgroup.procs` do not exist for threaded cgroups.)
/// Our own threads are left: they end by themselves.
fn kill_members(path: &Path) {
    let threads = fs::read_to_string(path.join("cgroup.threads")).unwrap_or_default();
    for thread in threads.lines().filter_map(|line| line.parse().ok()) {
        let Some(process) = process_of(thread) else {
            continue;
        };
        if process != rustix::process::getpid() {
            // It may be gone by now, which is what is wanted.
            rustix::process::kill_process(process, Signal::KILL).ok();
        }
    }
}

fn process_of(thread: i32) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    Pid::from_raw(line.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_point_is_found_in_hybrid_and_unified_tables() {
        let hybrid = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let shared = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        let v1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu";
        assert_eq!(cgroup2_mount_point(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_mount_point(shared), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(cgroup2_mount_point(v1), None);
    }
}
