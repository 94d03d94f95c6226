//! What clusters need of the system: tools that bring them up, a compiler for runc, and programs for the image that test
//! pods run.

use anyhow::{Result, anyhow};

use super::{Outcome, packages};
use crate::child;

/// A package, and a file that it brings: a program, or a path.
const PACKAGES: [(&str, &str); 13] = [
    ("iproute2", "ip"),
    ("nftables", "nft"),
    ("iptables", "iptables"),
    ("socat", "socat"),
    ("gcc", "gcc"),
    ("pkg-config", "pkg-config"),
    ("libseccomp-dev", "/usr/include/seccomp.h"),
    ("busybox-static", "busybox"),
    ("netcat-openbsd", "nc.openbsd"),
    ("bind9-dnsutils", "dig"),
    ("tcpdump", "tcpdump"),
    ("curl", "curl"),
    ("iperf3", "iperf3"),
];

/// Installs what is missing.
pub(super) fn ensure() -> Result<Outcome> {
    let missing = || PACKAGES.iter().filter(|(_, file)| child::find(file).is_none()).map(|(package, _)| *package);
    let names: Vec<&str> = missing().collect();
    if names.is_empty() {
        return Ok(Outcome::Present);
    }
    let outcome = packages::install(&names)?;
    match missing().next() {
        None => Ok(outcome),
        Some(package) => Err(anyhow!("{package}: what it is wanted for is not there: look at `dpkg -L {package}`")),
    }
}
