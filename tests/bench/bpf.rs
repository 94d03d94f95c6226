//! The few `bpf(2)` commands that the bench needs beside ours: a program that does nothing, run-time statistics, and what
//! the kernel says about pinned objects.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

// enum bpf_cmd, uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_LINK_GET_NEXT_ID: libc::c_long = 31;
const BPF_ENABLE_STATS: libc::c_long = 32;

/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
const SOCK_ADDR: u32 = 18;

/// Where a program is attached: `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Connect4 = 10,
    Connect6 = 11,
}

impl Hook {
    /// The name of our program's pin.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
        }
    }
}

/// # Safety
/// `attr` must be the command's part of `union bpf_attr`, and pointers in it valid for the call.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; what the size leaves out counts as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = libc::c_int::try_from(result).map_err(io::Error::other)?;
    // SAFETY: all commands of this module return a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A loaded program, and how often and how long it ran.
#[derive(Debug)]
pub(crate) struct Program(OwnedFd);

impl Program {
    /// `return 1`: what any program at a hook costs.
    pub(crate) fn empty(hook: Hook) -> Result<Self> {
        #[repr(C)]
        struct Attr {
            prog_type: u32,
            insn_cnt: u32,
            insns: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log_buf: u64,
            kern_version: u32,
            prog_flags: u32,
            prog_name: [u8; 16],
            prog_ifindex: u32,
            expected_attach_type: u32,
        }
        // r0 = 1; exit
        let instructions: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];
        let mut attr = Attr {
            prog_type: SOCK_ADDR,
            insn_cnt: 2,
            insns: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: 0,
            prog_name: *b"bench_empty\0\0\0\0\0",
            prog_ifindex: 0,
            expected_attach_type: hook as u32,
        };
        // SAFETY: instructions and license outlive the call.
        unsafe { bpf(BPF_PROG_LOAD, &mut attr) }.map(Self).context("load an empty program")
    }

    /// Attaches it to a cgroup for as long as the link lives.
    pub(crate) fn attach(&self, cgroup: &Path, hook: Hook) -> Result<OwnedFd> {
        #[repr(C)]
        struct Attr {
            prog_fd: u32,
            target_fd: u32,
            attach_type: u32,
            flags: u32,
        }
        let directory = fs::File::open(cgroup).with_context(|| format!("open cgroup {}", cgroup.display()))?;
        let mut attr = Attr {
            prog_fd: self.0.as_raw_fd().cast_unsigned(),
            target_fd: directory.as_raw_fd().cast_unsigned(),
            attach_type: hook as u32,
            flags: 0,
        };
        // SAFETY: no pointers.
        unsafe { bpf(BPF_LINK_CREATE, &mut attr) }.with_context(|| format!("attach a program to {}", cgroup.display()))
    }

    /// The program of a pinned link.
    pub(crate) fn of_link(pin: &Path) -> Result<Self> {
        #[repr(C)]
        struct Attr {
            prog_id: u32,
            next_id: u32,
            open_flags: u32,
        }
        let link = pinned(pin)?;
        let id = number(&fdinfo(&link)?, "prog_id").with_context(|| format!("{}: no prog_id", pin.display()))?;
        let mut attr = Attr { prog_id: u32::try_from(id)?, next_id: 0, open_flags: 0 };
        // SAFETY: no pointers.
        unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attr) }.map(Self).with_context(|| format!("open program {id}"))
    }

    /// Nanoseconds that it ran and how often, since statistics are on.
    pub(crate) fn runs(&self) -> Result<(u64, u64)> {
        let info = fdinfo(&self.0)?;
        let time_ns = number(&info, "run_time_ns").context("program: no run_time_ns in its fdinfo")?;
        Ok((time_ns, number(&info, "run_cnt").context("program: no run_cnt in its fdinfo")?))
    }
}

/// Counts the run time of all programs while the result lives.
pub(crate) fn run_time_stats() -> Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        kind: u32,
    }
    // BPF_STATS_RUN_TIME
    let mut attr = Attr { kind: 0 };
    // SAFETY: no pointers.
    unsafe { bpf(BPF_ENABLE_STATS, &mut attr) }.context("enable BPF run-time statistics")
}

/// Opens a pinned object.
fn pinned(path: &Path) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let name = CString::new(path.as_os_str().as_bytes()).context("a pin's path with a zero byte")?;
    let mut attr = Attr { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the string outlives the call.
    unsafe { bpf(BPF_OBJ_GET, &mut attr) }.with_context(|| format!("{}: open the pin", path.display()))
}

/// How many programs are attached to connect hooks by links, on the whole machine.
pub(crate) fn connect_links() -> Result<usize> {
    #[repr(C)]
    struct Attr {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let mut attr = Attr { id: 0, next_id: 0, open_flags: 0 };
    let mut found = 0;
    loop {
        // SAFETY: no pointers. This command alone returns no descriptor, but 0, and writes `next_id`.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_LINK_GET_NEXT_ID, std::ptr::from_mut(&mut attr), size_of::<Attr>())
        };
        if result < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ENOENT) {
                Ok(found)
            } else {
                Err(error).context("list links")
            };
        }
        attr = Attr { id: attr.next_id, next_id: 0, open_flags: 0 };
        // SAFETY: no pointers. A link may be gone by now.
        if let Ok(link) = unsafe { bpf(BPF_LINK_GET_FD_BY_ID, &mut attr) }
            && let Ok(info) = fdinfo(&link)
            && let Some(hook) = number(&info, "attach_type")
            && [Hook::Connect4 as u64, Hook::Connect6 as u64].contains(&hook)
            && info.contains("cgroup_id")
        {
            found += 1;
        }
    }
}

/// Kernel memory of all maps that are pinned in a directory, in bytes.
pub(crate) fn kernel_memory(maps: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(maps).with_context(|| format!("list {}", maps.display()))? {
        let path = entry.with_context(|| format!("list {}", maps.display()))?.path();
        sum +=
            number(&fdinfo(&pinned(&path)?)?, "memlock").with_context(|| format!("{}: no memlock", path.display()))?;
    }
    ensure!(sum > 0, "{}: no map is pinned there", maps.display());
    Ok(sum)
}

fn fdinfo(fd: &OwnedFd) -> Result<String> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

/// A line `name:\tnumber`.
fn number(info: &str, name: &str) -> Option<u64> {
    let rest = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.trim().parse().ok()
}
