//! The BPF file system, where the agent pins its maps and links. systemd mounts it; a bare container or virtual machine
//! often does not have it.

use std::fs;

use anyhow::{Context as _, Result};

use super::{Outcome, as_root, step};
use crate::child;

const PLACE: &str = "/sys/fs/bpf";

pub(super) fn ensure() -> Result<Outcome> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    if mounted(&mounts) {
        return Ok(Outcome::Present);
    }
    as_root(&format!("mount -t bpf bpf {PLACE}"))?;
    step(&format!("mount bpffs at {PLACE}"), || {
        child::capture(child::command("mount").args(["-t", "bpf", "bpf", PLACE])).map(drop)
    })
}

fn mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(PLACE) && words.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bpffs_at_the_very_place_counts() {
        assert!(mounted("proc /proc proc rw 0 0\nnone /sys/fs/bpf bpf rw 0 0\n"));
        assert!(!mounted("none /sys/fs/bpf/mcs bpf rw 0 0\nnone /sys/fs/bpf tmpfs rw 0 0\n"));
    }
}
