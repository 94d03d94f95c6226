//! Where cgroup2 is mounted, and which of several mounts shows most of it.
//!
//! A process in a cgroup namespace sees paths from that namespace's root on: a mount of the whole hierarchy that was bound
//! into a container from its host reads `/../../..` there, and the container's own mount reads `/`. So the one that
//! climbs highest is the host's.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A mounted cgroup2 filesystem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// Which cgroup is seen there, as seen from the reader's cgroup namespace.
    pub root: String,
}

impl Mount {
    /// How far it reaches: levels above the reader's namespace, then few levels below.
    fn reach(&self) -> (usize, Reverse<usize>) {
        let steps = self.root.split('/').filter(|step| !step.is_empty());
        let up = steps.clone().filter(|step| *step == "..").count();
        (up, Reverse(steps.count() - up))
    }
}

/// The cgroup2 mounts in a text like `/proc/self/mountinfo` (proc_pid_mountinfo(5)). A line that cannot be read counts for nothing.
#[must_use]
pub fn mounts(mountinfo: &str) -> Vec<Mount> {
    let fields = |line: &str| -> Option<Mount> {
        let (before, after) = line.split_once(" - ")?;
        let mut words = before.split(' ').skip(3);
        let (root, point) = (words.next()?, words.next()?);
        (after.split(' ').next()? == "cgroup2")
            .then(|| Mount { point: PathBuf::from(unescaped(point)), root: unescaped(root) })
    };
    mountinfo.lines().filter_map(fields).collect()
}

/// The first of those that show most of the hierarchy.
#[must_use]
pub fn widest(mounts: &[Mount]) -> Option<&Mount> {
    // The first of equals: `max_by_key` takes the last.
    mounts.iter().rev().max_by_key(|mount| mount.reach())
}

/// Where most of cgroup2 is seen: `/sys/fs/cgroup`, `/sys/fs/cgroup/unified` on a hybrid host, in a container wherever the
/// host's was mounted.
///
/// # Errors
/// None is mounted.
pub fn root() -> anyhow::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo: read")?;
    let mounts = mounts(&text);
    let widest = widest(&mounts).context(
        "no cgroup2 filesystem is mounted: mount one, or name a directory with --cgroup; `mcs doctor` tells more",
    )?;
    Ok(widest.point.clone())
}

/// `\040` and its like, as the kernel writes spaces in paths.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let octal = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a directory is the root of the whole hierarchy, whose kernfs node is the first that there is.
pub(crate) fn is_whole(directory: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(directory)?.ino() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "24 1 0:22 / /proc rw - proc proc rw\n\
        30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn chosen(mountinfo: &str) -> Option<PathBuf> {
        widest(&mounts(mountinfo)).map(|mount| mount.point.clone())
    }

    #[test]
    fn a_host_has_one() {
        assert_eq!(chosen(HOST), Some("/sys/fs/cgroup".into()));
        let hybrid = "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n\
                      32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(chosen(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(chosen("32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
    }

    #[test]
    fn in_a_container_the_hosts_climbs_above_the_containers_own() {
        let own = "700 690 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n";
        let host = "710 690 0:26 /../../.. /host/sys/fs/cgroup ro master:4 - cgroup2 cgroup2 rw\n";
        for both in [format!("{own}{host}"), format!("{host}{own}")] {
            assert_eq!(chosen(&both), Some("/host/sys/fs/cgroup".into()));
        }
        let part = "711 690 0:26 /../../../system.slice /part ro - cgroup2 cgroup2 rw\n";
        assert_eq!(chosen(&format!("{part}{host}")), Some("/host/sys/fs/cgroup".into()));
    }

    #[test]
    fn of_equals_the_first_counts_and_garbage_does_not() {
        let two = "1 2 0:26 / /first rw - cgroup2 a rw\n1 2 0:26 / /second rw - cgroup2 a rw\n";
        assert_eq!(chosen(two), Some("/first".into()));
        assert_eq!(mounts(" - cgroup2\n\n1 2 3\nx - cgroup2 a\n1 2 0:26 /a rw"), []);
        let spaced = "1 2 0:26 /a\\040b /with\\040space rw - cgroup2 a rw\n";
        assert_eq!(mounts(spaced), [Mount { point: "/with space".into(), root: "/a b".to_owned() }]);
        assert_eq!(unescaped("a\\b\\04"), "a\\b\\04");
    }
}
