//! The few `bpf(2)` commands on links that aya 0.14 does not offer for cgroup programs. One of the two modules that may
//! use `unsafe`.

#![expect(unsafe_code, reason = "system calls that no library of ours wraps")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

type Log = aya_log::EbpfLogger<&'static dyn log::Log>;

// enum bpf_cmd, uapi/linux/bpf.h.
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// `bpf(2)` with one of the attribute structs below.
///
/// # Safety
/// `attr` must be the command's part of `union bpf_attr`, and pointers in it valid for the call.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the caller's promise; the size tells the kernel how much of the union we know, the rest counts as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Lets the runtime tell when the programs' log has something to read.
///
/// # Errors
/// When there is no runtime, or it cannot watch the descriptor.
pub(super) fn watch(logger: Log) -> io::Result<AsyncFd<Log>> {
    // SAFETY: the logger owns its descriptor, and keeps it as long as it lives inside the result.
    unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}

/// Opens a pinned object.
///
/// # Errors
/// `ENOENT` when nothing is pinned there, or what the kernel says.
pub(super) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Attr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the string lives until after the call; the result is a new descriptor of ours.
    unsafe {
        let fd = bpf(BPF_OBJ_GET, &mut attr)?;
        let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Lets a link run another program from now on, without a moment in which none runs.
///
/// # Errors
/// `ENOLINK` when the cgroup is gone, `EINVAL` when the program is of another kind.
pub(super) fn link_update(link: impl AsFd, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr = Attr {
        link_fd: link.as_fd().as_raw_fd().cast_unsigned(),
        new_prog_fd: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// Detaches a link now, whoever else holds it.
///
/// # Errors
/// What the kernel says; `EOPNOTSUPP` for kinds of links that cannot be detached.
pub(super) fn link_detach(link: impl AsFd) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
    }
    let mut attr = Attr { link_fd: link.as_fd().as_raw_fd().cast_unsigned() };
    // SAFETY: no pointers.
    unsafe { bpf(BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// The id of the cgroup that a link is attached to, which is the inode number of its directory; 0 once that is gone.
///
/// # Errors
/// What the kernel says, for one when the descriptor is not a link's.
pub(super) fn link_cgroup(link: impl AsFd) -> io::Result<u64> {
    /// The head of `struct bpf_link_info`, with the cgroup part of its union.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        prog_id: u32,
        gap: u32,
        cgroup_id: u64,
        attach_type: u32,
        tail: u32,
    }
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut info = Info::default();
    let mut attr = Attr {
        bpf_fd: link.as_fd().as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of::<Info>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` outlives the call and has the length that is given.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info.cgroup_id)
}
