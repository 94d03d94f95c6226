//! Waiting until no program run can still see what was replaced.
//!
//! `membarrier(MEMBARRIER_CMD_GLOBAL)` returns after an RCU grace period (`synchronize_rcu`, kernel/sched/membarrier.c);
//! cgroup programs run inside an RCU read-side section, so every run that began before the call has ended. It costs
//! milliseconds, and is only taken when rows have run out.

#![expect(unsafe_code, reason = "a system call that no library of ours wraps")]

use std::io;
use std::time::Duration;

/// `MEMBARRIER_CMD_GLOBAL`, uapi/linux/membarrier.h.
const GLOBAL: libc::c_int = 1;

/// Kernels with `nohz_full` CPUs refuse the global barrier. A run takes microseconds; this is a million times that.
const WITHOUT_BARRIER: Duration = Duration::from_secs(1);

/// Returns after a grace period.
///
/// # Errors
/// What the system call says, if it is there and fails.
pub fn wait() -> io::Result<()> {
    // SAFETY: three integers, no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS | libc::EPERM) => {
            std::thread::sleep(WITHOUT_BARRIER);
            Ok(())
        }
        Some(_) | None => Err(error),
    }
}
