//! The pin directory: where the kernel keeps our maps and links while no agent runs, and who may write them.
//!
//! ```text
//!  <pin-dir>/            locked (flock) by the agent that runs
//!    sync-…/             made by `mcs status`, removed by the agent: a barrier
//!    v1/                 one directory for each version of the contract
//!      maps/mcs_…
//!      links/connect4 …
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use aya::maps::MapData;
use mcs_ebpf::ABI_VERSION;
use rustix::fs::{FlockOperation, StatFs, flock, statfs};

use crate::maps::bpf::OpenMap;

/// `BPF_FS_MAGIC`, uapi/linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Who looks whether anybody holds the lock ([`PinDir::holder`]) holds it himself for a moment: so often, and with such
/// pauses, an agent tries again when nobody is known to hold it.
const LOOKERS: u32 = 50;
const LOOKED: Duration = Duration::from_millis(10);

/// The prefix of the directories that `mcs status` makes as barriers.
pub const BARRIER_PREFIX: &str = "sync-";

/// A pin directory of this version of the contract.
#[derive(Clone, Debug)]
pub struct PinDir {
    root: PathBuf,
}

/// The right to write a pin directory's maps; given back when dropped, and by the kernel when the process ends.
#[derive(Debug)]
pub struct Lock {
    directory: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would not do: a child that another thread forked a moment ago has the file too, until it executes.
        let _closing_does_it_then = flock(&self.directory, FlockOperation::Unlock);
    }
}

/// Who holds the lock of a pin directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// Nobody: no agent runs here.
    Nobody,
    /// This process. 0 where it lives in a pid namespace that we cannot see into.
    Process(u32),
}

impl PinDir {
    /// Names a pin directory; nothing is opened.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn version(&self) -> PathBuf {
        self.root.join(format!("v{ABI_VERSION}"))
    }

    /// Where maps are pinned.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.version().join("maps")
    }

    /// Where links are pinned.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.version().join("links")
    }

    /// A map's pin.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Makes the directory, mounts nothing.
    ///
    /// # Errors
    /// When it cannot be made, or does not lie on a bpf filesystem.
    pub fn create(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.root).with_context(|| format!("pin directory {}: create", self.root.display()))?;
        self.ensure_bpffs()
    }

    fn ensure_bpffs(&self) -> anyhow::Result<()> {
        let kind = statfs(&self.root).with_context(|| format!("pin directory {}: statfs", self.root.display()))?;
        ensure!(
            is_bpf_filesystem(&kind),
            "pin directory {}: not on a bpf filesystem: mount one (mount -t bpf bpf /sys/fs/bpf) and choose a directory \
             below it",
            self.root.display(),
        );
        Ok(())
    }

    /// Takes the lock.
    ///
    /// # Errors
    /// When another process holds it: the error names it.
    pub fn lock(&self) -> anyhow::Result<Lock> {
        let directory =
            File::open(&self.root).with_context(|| format!("pin directory {}: open", self.root.display()))?;
        let inode = directory.metadata().with_context(|| format!("pin directory {}: stat", self.root.display()))?.ino();
        for _ in 0..LOOKERS {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock { directory }),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(errno) => {
                    return Err(errno).with_context(|| format!("pin directory {}: lock", self.root.display()));
                }
            }
            if let Some(pid) = lock_holder(inode) {
                bail!("pin directory {}: in use by process {pid} ({})", self.root.display(), command_of(pid));
            }
            std::thread::sleep(LOOKED);
        }
        bail!("pin directory {}: in use by a process of another pid namespace", self.root.display())
    }

    /// Who holds the lock.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn holder(&self) -> anyhow::Result<Holder> {
        let directory =
            File::open(&self.root).with_context(|| format!("pin directory {}: open", self.root.display()))?;
        match flock(&directory, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Holder::Nobody),
            Err(_) => Ok(Holder::Process(lock_holder(directory.metadata()?.ino()).unwrap_or(0))),
        }
    }

    /// Other versions of the contract that have pins here.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn other_versions(&self) -> io::Result<Vec<PathBuf>> {
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            let is_version = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix('v'))
                .is_some_and(|rest| rest.parse::<u32>().is_ok());
            if is_version && path != self.version() {
                others.push(path);
            }
        }
        others.sort();
        Ok(others)
    }

    /// The maps that are pinned here, to be opened by name.
    #[must_use]
    pub fn pinned_maps(&self) -> PinnedMaps {
        PinnedMaps { pins: self.clone() }
    }
}

/// Whether a filesystem is one that things of BPF can be pinned on.
pub(crate) fn is_bpf_filesystem(kind: &StatFs) -> bool {
    kind.f_type == BPF_FS_MAGIC
}

/// Opens maps from their pins.
#[derive(Debug)]
pub struct PinnedMaps {
    pins: PinDir,
}

impl OpenMap for PinnedMaps {
    fn open(&mut self, name: &'static str) -> anyhow::Result<MapData> {
        let path = self.pins.map(name);
        if !path.exists() {
            let other = self.pins.other_versions().unwrap_or_default();
            if let Some(other) = other.first() {
                bail!(
                    "{}: pinned by another version of mcs (this one has map layout v{ABI_VERSION}): use that version, \
                     or `mcs detach`",
                    other.display()
                );
            }
            bail!("pin directory {}: nothing is pinned here: no agent ever ran on it", self.pins.root.display());
        }
        MapData::from_pin(&path).with_context(|| format!("{}: open the pinned map", path.display()))
    }
}

/// The process that holds a `flock` on an inode, by `/proc/locks` (proc_locks(5)): `1: FLOCK ADVISORY WRITE <pid>
/// <major>:<minor>:<inode> 0 EOF`. Device numbers are left out: bpffs instances share no inodes worth telling apart here.
fn lock_holder(inode: u64) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    parse_lock_holder(&locks, inode)
}

fn parse_lock_holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        // a READ lock is somebody's look
        if words.next()? != "FLOCK" || words.nth(1)? != "WRITE" {
            return None;
        }
        let pid = words.next()?;
        let file = words.next()?;
        (file.rsplit(':').next()?.parse::<u64>().ok()? == inode).then(|| pid.parse().ok()).flatten()
    })
}

fn command_of(pid: u32) -> String {
    fs::read(format!("/proc/{pid}/cmdline")).map_or_else(
        |_| "unknown".to_owned(),
        |bytes| String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_by_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:1f:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 42 00:1f:78 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 43 00:1f:78 0 EOF\n3: FLOCK  ADVISORY  WRITE 44 00:1f:79 0 EOF\n";
        assert_eq!(parse_lock_holder(locks, 78), Some(42));
        assert_eq!(parse_lock_holder(locks, 77), None);
        assert_eq!(parse_lock_holder("1: FLOCK  ADVISORY  READ 42 00:1f:78 0 EOF\n", 78), None);
        assert_eq!(parse_lock_holder("garbage\n\n", 78), None);
    }
}
