//! Whether the programs, attached where they are, meet the sockets of this node's pods.
//!
//! An attach works wherever it is done, and covers what lies below. A container without privilege has a cgroup namespace
//! of its own, and its `/sys/fs/cgroup` is its own cgroup: attached there, programs serve the agent and nobody else.
//!
//! ```text
//!  the host's root                    the agent in a pod attaches here: every pod lies below
//!   └─ kubepods.slice                 … or here
//!       └─ …pod<uid>.slice            here: one pod, the agent's own
//!           └─ cri-containerd-….scope here: nobody
//! ```
//!
//! A pod's agent is a process of a pod like any other. So where its own cgroup lies below what it attached to tells where
//! the others' lie.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::cgroup2;

/// Cgroups that are looked at before the search is given up.
const MOST: usize = 1 << 17;

/// What the attached cgroup covers, judged by a process of a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Coverage {
    /// Every process of the kernel.
    All,
    /// Pods, this process's among them.
    Pods,
    /// This process's cgroup alone: a cgroup namespace's own root.
    OwnCgroup,
    /// What may be this process's pod alone.
    OwnPod,
    /// A part of the hierarchy that this process, and so pods, are not in.
    Elsewhere,
}

impl Coverage {
    /// Whether pods are served.
    #[must_use]
    pub fn reaches_pods(&self) -> bool {
        match self {
            Self::All | Self::Pods => true,
            Self::OwnCgroup | Self::OwnPod | Self::Elsewhere => false,
        }
    }
}

/// What is covered, and what to do where that is too little.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "every process of this kernel",
            Self::Pods => "the pods of this node",
            Self::OwnCgroup => {
                "no pod but this container: it is the container's own cgroup: mount the host's /sys/fs/cgroup by hostPath, or \
                 name it with --cgroup"
            }
            Self::OwnPod => {
                "no pod but perhaps this one: mount the host's /sys/fs/cgroup itself by hostPath, not a directory below"
            }
            Self::Elsewhere => {
                "no pod: this process lies outside of it, and so do pods: mount the host's /sys/fs/cgroup itself by hostPath"
            }
        })
    }
}

/// Judges an attached cgroup: `is_whole` if it is the hierarchy's root, `own` the names of the cgroups that lead from it down
/// to this process, none if they do not.
#[must_use]
pub fn judge(is_whole: bool, own: Option<&[String]>) -> Coverage {
    match own {
        _ if is_whole => Coverage::All,
        None => Coverage::Elsewhere,
        Some([]) => Coverage::OwnCgroup,
        Some(path) if path.iter().any(|name| is_of_a_pod(name)) => Coverage::Pods,
        // Where kubelet makes no cgroups of pods, runtimes put containers below one of theirs.
        Some([_, _, ..]) => Coverage::Pods,
        Some([_]) => Coverage::OwnPod,
    }
}

/// Whether a cgroup's name is one that kubelet gives a pod's: `pod<uid>`, `kubepods-burstable-pod<uid>.slice`. A static pod's
/// uid is a hash without dashes.
fn is_of_a_pod(name: &str) -> bool {
    let Some((_, uid)) = name.trim_end_matches(".slice").rsplit_once("pod") else { return false };
    let hex = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    hex == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-' || byte == b'_')
}

/// What an attach to `cgroup` covers, for a process of a pod.
///
/// # Errors
/// The directory cannot be read.
pub fn of(cgroup: &Path) -> anyhow::Result<Coverage> {
    let is_whole = cgroup2::is_whole(cgroup).with_context(|| format!("cgroup {}: stat", cgroup.display()))?;
    let own = if is_whole { None } else { way_to(cgroup, std::process::id(), MOST)? };
    Ok(judge(is_whole, own.as_deref()))
}

/// The names of the cgroups that lead from `root` to the one that holds process `pid`; none if none of the first `most` does.
/// Of processes in other pid namespaces `cgroup.procs` says 0, so a pid is found where it is and nowhere else.
fn way_to(root: &Path, pid: u32, most: usize) -> anyhow::Result<Option<Vec<String>>> {
    let holds = |cgroup: &Path| -> std::io::Result<bool> {
        // A threaded cgroup lists threads alone; a process's first has its id.
        let listed = fs::read_to_string(cgroup.join("cgroup.procs"))
            .or_else(|error| fs::read_to_string(cgroup.join("cgroup.threads")).map_err(|_neither| error))?;
        Ok(listed.lines().any(|line| line.parse() == Ok(pid)))
    };
    // Only the root has to be readable: others come and go.
    if holds(root).with_context(|| format!("cgroup {}: read cgroup.procs", root.display()))? {
        return Ok(Some(Vec::new()));
    }
    let mut queue = VecDeque::from([root.to_owned()]);
    let mut seen = 0;
    while let Some(parent) = queue.pop_front() {
        for child in children(&parent) {
            if holds(&child).unwrap_or(false) {
                let below = child.strip_prefix(root).unwrap_or(&child);
                return Ok(Some(below.iter().map(|name| name.to_string_lossy().into_owned()).collect()));
            }
            seen += 1;
            if seen >= most {
                return Ok(None);
            }
            queue.push_back(child);
        }
    }
    Ok(None)
}

fn children(cgroup: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(path: &[&str]) -> Coverage {
        let path: Vec<String> = path.iter().map(|&name| name.to_owned()).collect();
        judge(false, Some(&path))
    }

    #[test]
    fn the_whole_hierarchy_needs_no_look() {
        assert_eq!(judge(true, None), Coverage::All);
    }

    #[test]
    fn a_pods_cgroup_on_the_way_means_that_pods_lie_below() {
        let systemd = "kubepods-besteffort-pod0f3e9a52_77c3_4f0e_9a53_2a6e0a3d6f11.slice";
        let container = "cri-containerd-5d1f.scope";
        assert_eq!(judged(&["kubepods.slice", "kubepods-besteffort.slice", systemd, container]), Coverage::Pods);
        assert_eq!(judged(&[systemd, container]), Coverage::Pods, "attached to kubepods-besteffort.slice");
        let cgroupfs = "pod0f3e9a52-77c3-4f0e-9a53-2a6e0a3d6f11";
        assert_eq!(judged(&["kubepods", "burstable", cgroupfs, "5d1f"]), Coverage::Pods);
        assert_eq!(judged(&["pod0123456789abcdef0123456789abcdef", "5d1f"]), Coverage::Pods, "a static pod");
    }

    #[test]
    fn a_runtime_without_cgroups_of_pods() {
        assert_eq!(judged(&["k8s.io", "5d1f"]), Coverage::Pods);
    }

    #[test]
    fn wrong_mounts_reach_no_pod() {
        for (coverage, word) in [
            (judge(false, Some(&[])), "container's own cgroup"),
            (judged(&["cri-containerd-5d1f.scope"]), "perhaps this one"),
            (judge(false, None), "outside of it"),
        ] {
            assert!(!coverage.reaches_pods() && coverage.to_string().contains(word), "{coverage:?} {coverage}");
        }
    }

    #[test]
    fn the_way_is_found_by_who_is_listed() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, pids: &str| {
            let cgroup = root.path().join(path);
            fs::create_dir_all(&cgroup).unwrap();
            fs::write(cgroup.join("cgroup.procs"), pids).unwrap();
        };
        put("", "");
        put("a", "0\n0\n");
        put("a/b", "0\n17\n");
        put("c", "170\n1\n");
        let way = |pid, most| way_to(root.path(), pid, most).unwrap();
        assert_eq!(way(17, MOST), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(way(1, MOST), Some(vec!["c".to_owned()]));
        assert_eq!(way(7, MOST), None);
        assert_eq!(way(17, 1), None, "the search ends");
        put("", "17\n");
        assert_eq!(way(17, MOST), Some(Vec::new()));
        assert!(way_to(&root.path().join("gone"), 17, MOST).is_err());
    }
}
