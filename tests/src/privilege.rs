//! What the harness needs from the machine, and what happens where it is missing.
//!
//! Namespaces, cgroups and BPF need root. A developer without it should see that tests did not run and why; CI must
//! never go green because nothing ran.

use std::io::Write as _;

use crate::cgroup;
use crate::child::find_program;

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`, as bits of `CapEff`.
const NEEDED: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];

/// Why no fleet can be built here, or `None` if one can.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    let status = match std::fs::read_to_string("/proc/self/status") {
        Ok(status) => status,
        Err(error) => return Some(format!("read /proc/self/status: {error}")),
    };
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    for (name, bit) in NEEDED {
        if effective & (1 << bit) == 0 {
            return Some(format!("no {name}"));
        }
    }
    if let Err(error) = cgroup::root() {
        return Some(format!("{error:#}"));
    }
    if find_program("ip").is_none() {
        return Some("no `ip` (iproute2) in PATH".to_owned());
    }
    None
}

/// Says that a test is skipped, or panics under `CI=true`. Used by [`require_root!`](crate::require_root) and
/// [`require_api_server!`](crate::require_api_server).
///
/// # Panics
/// Under `CI=true`.
pub fn skip(test: &str, why: &str) {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    assert!(!ci, "{test}: cannot run on this machine: {why}");
    // Not eprintln!: libtest would hide it, as the test "passes".
    drop(std::io::stderr().write_all(format!("SKIP: {test}: {why}\n").as_bytes()));
}

/// Returns from the calling test if this machine cannot build a fleet: with a visible `SKIP:` line by hand, with a
/// panic under `CI=true`.
#[macro_export]
macro_rules! require_root {
    () => {
        if let Some(why) = $crate::privilege::missing() {
            let thread = ::std::thread::current();
            $crate::privilege::skip(thread.name().unwrap_or("test"), &why);
            return;
        }
    };
}
