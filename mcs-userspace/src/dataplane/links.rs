//! Attaching programs to a cgroup so that they outlive the agent: a pinned `bpf_link` for each hook.
//!
//! A link whose cgroup is the one asked for gets the new program by `BPF_LINK_UPDATE`, which leaves no gap. Otherwise the
//! new link is attached beside the old one and takes over its pin: for a moment both run, which is harmless, as what one
//! has translated is no frontend to the other.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use rustix::fs::statfs;
use tracing::debug;

use super::sys;

/// `CGROUP2_SUPER_MAGIC`, uapi/linux/magic.h.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The hooks that are always attached, by the names of their pins; `mcs_<name>` is the program.
pub const ALWAYS: [&str; 4] = ["connect4", "connect6", "getpeername4", "getpeername6"];
/// The hooks that are attached only while a UDP frontend exists: their mere presence costs every datagram.
pub const FOR_UDP: [&str; 4] = ["sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6"];

/// What attaching came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attached {
    /// There was none.
    New,
    /// The program of an existing link was replaced.
    Replaced,
    /// The existing link was another cgroup's, or its cgroup is gone.
    Moved,
}

/// A cgroup, open.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: File,
    id: u64,
}

impl Cgroup {
    /// Opens a cgroup2 directory.
    ///
    /// # Errors
    /// When it does not exist, or is not one of cgroup2.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let directory = File::open(path).with_context(|| format!("cgroup {}: open", path.display()))?;
        let kind = statfs(path).with_context(|| format!("cgroup {}: statfs", path.display()))?;
        ensure!(
            kind.f_type == CGROUP2_MAGIC,
            "cgroup {}: not a cgroup2 directory (on a hybrid host cgroup2 is mounted at /sys/fs/cgroup/unified)",
            path.display(),
        );
        let id = directory.metadata().with_context(|| format!("cgroup {}: stat", path.display()))?.ino();
        Ok(Self { path: path.to_owned(), directory, id })
    }
}

/// Loads the program of a hook into the kernel.
///
/// # Errors
/// When the object has no such program or the verifier refuses it.
pub(super) fn load(ebpf: &mut Ebpf, hook: &str) -> anyhow::Result<()> {
    program(ebpf, hook)?.load().with_context(|| format!("load program mcs_{hook}"))
}

fn program<'a>(ebpf: &'a mut Ebpf, hook: &str) -> anyhow::Result<&'a mut CgroupSockAddr> {
    let name = format!("mcs_{hook}");
    let program = ebpf.program_mut(&name).with_context(|| format!("program {name}: not in the object"))?;
    program.try_into().with_context(|| format!("program {name}: not of kind cgroup_sock_addr"))
}

/// Attaches the (loaded) program of a hook and pins the link in `links`.
///
/// # Errors
/// When the kernel refuses; what was attached before stays.
pub(super) fn attach(ebpf: &mut Ebpf, hook: &str, cgroup: &Cgroup, links: &Path) -> anyhow::Result<Attached> {
    let what = || format!("attach {hook} to cgroup {}", cgroup.path.display());
    let program = program(ebpf, hook)?;
    let pin = links.join(hook);
    let attached = match sys::obj_get(&pin) {
        Ok(link) if sys::link_cgroup(&link).with_context(what)? == cgroup.id => {
            match sys::link_update(&link, program.fd().with_context(what)?.as_fd()) {
                Ok(()) => return Ok(Attached::Replaced),
                // The cgroup was removed; a new one may have its inode number.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Attached::Moved,
                Err(error) => return Err(error).with_context(what),
            }
        }
        Ok(_) => Attached::Moved,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Attached::New,
        Err(error) => return Err(error).with_context(|| format!("{}: open the pinned link", pin.display())),
    };
    // `Single` means flags 0; links are always multi (cgroup_bpf_link_attach), other flags are EINVAL.
    let id = program.attach(&cgroup.directory, CgroupAttachMode::Single).with_context(what)?;
    let link: FdLink = program.take_link(id).with_context(what)?.try_into().with_context(what)?;
    let beside = links.join(format!("{hook}-next"));
    remove_if_there(&beside)?;
    link.pin(&beside).with_context(what)?;
    // The rename drops the old link, if there is one, in the same moment.
    fs::rename(&beside, &pin).with_context(|| format!("{}: pin", pin.display()))?;
    Ok(attached)
}

/// Detaches a hook; fine if it is not attached.
///
/// # Errors
/// When its pin cannot be removed.
pub(super) fn detach(hook: &str, links: &Path) -> anyhow::Result<()> {
    let pin = links.join(hook);
    detach_now(&pin);
    remove_if_there(&pin)
}

/// Detaches the link behind a pin, so that its program does not run any more when this returns. Removing the pin alone
/// leaves that to the kernel, which takes its time (a grace period and a worker).
pub fn detach_now(pin: &Path) {
    // Where it cannot be detached so, removing the pin does it later.
    if let Err(error) = sys::obj_get(pin).and_then(sys::link_detach) {
        debug!(%error, pin = %pin.display(), "not detached at once");
    }
}

fn remove_if_there(pin: &Path) -> anyhow::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}: remove the pin", pin.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
