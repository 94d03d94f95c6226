//! Whose fleet is it? A fleet's id names its process, so that what a killed process left can be told from what a living one
//! uses: everything of a fleet, wherever it lies, is called `mcs-<id>` or `mcs-<id>-<rest>`.

use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

/// What all names of fleets start with.
pub(crate) const PREFIX: &str = "mcs-";

/// `<pid>-<start time>-<counter>`: unique on this machine since it booted. A pid alone is reused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FleetId {
    pid: u32,
    started: u64,
    number: u32,
}

impl FleetId {
    /// An id that no other fleet has.
    pub(crate) fn next() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let pid = std::process::id();
        let started = start_time(pid).with_context(|| format!("read start time of own process {pid}"))?;
        Ok(Self { pid, started, number: NUMBER.fetch_add(1, Ordering::Relaxed) })
    }

    /// The fleet that a thing with this name belongs to.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let pid = parts.next()?.parse().ok()?;
        let started = u64::from_str_radix(parts.next()?, 16).ok()?;
        let number = parts.next()?.parse().ok()?;
        Some(Self { pid, started, number })
    }

    /// Does the process that made the fleet still run?
    pub(crate) fn owner_lives(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

impl fmt::Display for FleetId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, started, number } = self;
        write!(out, "{pid}-{started:x}-{number}")
    }
}

/// When a process started, in clock ticks since boot: field 22 of its stat, counted behind the command's `)`.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    // A zombie has ended: only its parent has not noticed.
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_fleet() {
        let id = FleetId::next().unwrap();
        assert_eq!(FleetId::of_name(&format!("mcs-{id}")).as_ref(), Some(&id));
        assert_eq!(FleetId::of_name(&format!("mcs-{id}-a1p1")).as_ref(), Some(&id));
        for foreign in ["mcs", "mcs-", "mcs-a1", "mcs-12", "mcs-12-zz-1", "cilium-1-1-1", "mcs-1-2"] {
            assert_eq!(FleetId::of_name(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn own_process_lives_and_a_reused_pid_does_not() {
        let id = FleetId::next().unwrap();
        assert!(id.owner_lives());
        assert!(!FleetId { started: id.started + 1, ..id }.owner_lives());
    }
}
