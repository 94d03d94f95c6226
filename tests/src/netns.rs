//! Network namespaces with names that `ip netns` knows.
//!
//! They are made by hand instead of by `ip netns add`, because the thread that makes one must be inside anyway to write its
//! sysctls (`/proc/sys/net` shows the namespace of the thread that opens it), and a thread costs less than a process.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use rustix::fs::FlockOperation;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Where iproute2 keeps named namespaces.
pub(crate) const DIR: &str = "/var/run/netns";

/// A named network namespace, open. Dropping it does not remove it: the fleet's end does.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    file: File,
}

impl NetNs {
    /// Makes a namespace and writes sysctls (paths below `/proc/sys/net`) in it.
    pub(crate) fn create(name: &str, sysctls: &[(&str, &str)]) -> Result<Self> {
        share_dir()?;
        thread::scope(|scope| {
            // The thread ends inside the new namespace; no other thread changes.
            let made = scope.spawn(|| Self::create_on_this_thread(name, sysctls)).join();
            made.map_err(|_panic| anyhow!("create network namespace {name}: its thread panicked"))?
        })
    }

    fn create_on_this_thread(name: &str, sysctls: &[(&str, &str)]) -> Result<Self> {
        // SAFETY: CLONE_NEWNET changes the calling thread only, and that thread ends here.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .with_context(|| format!("unshare network namespace {name}"))?;
        for (key, value) in sysctls {
            fs::write(Path::new("/proc/sys/net").join(key), value)
                .with_context(|| format!("write sysctl net/{key} in {name}"))?;
        }
        let path = path(name);
        File::create_new(&path).with_context(|| format!("create {}", path.display()))?;
        rustix::mount::mount_bind("/proc/thread-self/ns/net", &path)
            .with_context(|| format!("name network namespace: mount {}", path.display()))?;
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self { name: name.to_owned(), file })
    }

    /// Its name, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path: `--net=` of nsenter, `ns(PATH)` of others.
    pub fn path(&self) -> PathBuf {
        path(&self.name)
    }

    /// The open namespace, for setns(2).
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Moves the calling thread, and no other, into the namespace.
    pub(crate) fn enter(&self) -> Result<()> {
        use std::os::fd::AsFd as _;
        rustix::thread::move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter network namespace {}", self.name))
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// What `ip netns add` does before its first namespace: the folder becomes a shared mount, so that a name removed here goes
/// in every mount namespace, and does not keep the network namespace alive in one of them.
fn share_dir() -> Result<()> {
    fs::create_dir_all(DIR).with_context(|| format!("create {DIR}"))?;
    // The lock iproute2 takes too: two at once would mount it twice. Closing the file unlocks.
    let dir = File::open(DIR).with_context(|| format!("open {DIR}"))?;
    rustix::fs::flock(&dir, FlockOperation::LockExclusive).with_context(|| format!("lock {DIR}"))?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    match rustix::mount::mount_change(DIR, shared) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(error).with_context(|| format!("share mount {DIR}")),
    }
    rustix::mount::mount_bind_recursive(DIR, DIR).with_context(|| format!("bind {DIR} onto itself"))?;
    rustix::mount::mount_change(DIR, shared).with_context(|| format!("share mount {DIR}"))
}

/// Takes a namespace's name away; it ends with its last thread and socket. No such name: no error.
pub(crate) fn remove(name: &str) -> Result<()> {
    let path = path(name);
    match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
        // INVAL: a file without a namespace, left by one who died between making and naming it.
        Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(error).with_context(|| format!("unmount {}", path.display())),
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The names of all network namespaces of this machine that start so.
pub(crate) fn names_with_prefix(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(DIR) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}
