//! Ctrl-C: cleaning up must not happen in a signal handler, where hardly anything is allowed, so the handler wakes a thread.

use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use anyhow::{Context as _, Result};

const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// The pipe's end that the handler writes to; -1 before it is there.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// Runs `clean_up` when one of the signals comes, and then lets it end the process as it would have without us.
/// Only the first call has an effect.
pub(crate) fn before_ending(clean_up: fn()) -> Result<()> {
    let (woken, wake) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("make a pipe for signals")?;
    let wake = wake.into_raw_fd();
    if WAKE.compare_exchange(-1, wake, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        return Ok(());
    }
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || wait(&woken, clean_up))
        .context("start the thread for signals")?;
    for signal in SIGNALS {
        set_action(signal, on_signal as *const () as libc::sighandler_t)?;
    }
    Ok(())
}

extern "C" fn on_signal(signal: libc::c_int) {
    let number = [signal as u8];
    // SAFETY: write(2) is async-signal-safe, and the buffer is one byte on this stack. A full pipe means that the thread
    // was woken long ago.
    unsafe { libc::write(WAKE.load(Ordering::Relaxed), number.as_ptr().cast(), 1) };
}

fn wait(woken: &OwnedFd, clean_up: fn()) {
    let mut number = [0];
    while !matches!(rustix::io::read(woken, &mut number), Ok(1)) {}
    let signal = libc::c_int::from(number[0]);
    for signal in SIGNALS {
        // A second Ctrl-C ends the process at once.
        if let Err(error) = set_action(signal, libc::SIG_DFL) {
            eprintln!("{error:#}");
        }
    }
    clean_up();
    // SAFETY: raise has no preconditions. The action is the default one: the process ends here, with the right status.
    unsafe { libc::raise(signal) };
}

fn set_action(signal: libc::c_int, action: libc::sighandler_t) -> Result<()> {
    // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    new.sa_sigaction = action;
    new.sa_flags = libc::SA_RESTART;
    // SAFETY: `new` is valid, and the handler only calls what signal handlers may.
    let result = unsafe { libc::sigaction(signal, &new, std::ptr::null_mut()) };
    if result < 0 {
        Err(std::io::Error::last_os_error()).with_context(|| format!("handle signal {signal}"))
    } else {
        Ok(())
    }
}
