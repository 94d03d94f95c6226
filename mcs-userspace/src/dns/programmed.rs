//! Which ClusterSetIPs work on this node: those that the agent has put into the kernel's maps.
//!
//! The maps are looked at again when the agent says that it changed something, which costs a read of mapped memory
//! meanwhile. While they cannot be read, what was read last stays: the programs go on with it too. Where nothing is
//! pinned, no address works.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use mcs_ebpf::{AgentRow, map};

use crate::dataplane::pins::PinDir;
use crate::maps::bpf::{BpfMaps, mapped};
use crate::maps::mapped::Mapped;
use crate::maps::{MapError, Maps as _};

/// How often it is looked whether the agent changed something: what a name comes later than its address.
pub const LOOK: Duration = Duration::from_millis(5);
/// How often it is looked whether the pin directory was made anew, by another version of the agent.
const REOPEN: u32 = 400;

/// Follows an agent's maps.
#[derive(Debug)]
pub struct Programmed {
    pins: PinDir,
    open: Option<Open>,
    looks: u32,
}

#[derive(Debug)]
struct Open {
    maps: BpfMaps,
    agent: Mapped<AgentRow>,
    changed_ns: Option<u64>,
}

impl Programmed {
    /// Of a pin directory, which need not be there yet.
    #[must_use]
    pub fn new(pins: PinDir) -> Self {
        Self { pins, open: None, looks: 0 }
    }

    /// The ClusterSetIPs that work, if they may have changed since the last look.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn look(&mut self) -> anyhow::Result<Option<HashSet<IpAddr>>> {
        self.looks = self.looks.wrapping_add(1);
        if self.open.is_none() || self.looks.is_multiple_of(REOPEN) {
            if !self.pins.maps().is_dir() {
                self.open = None;
                return Ok(Some(HashSet::new()));
            }
            let mut pinned = self.pins.pinned_maps();
            let open = Open {
                maps: BpfMaps::new(&mut pinned, false)?,
                agent: mapped(&mut pinned, map::AGENT, false)?,
                changed_ns: None,
            };
            self.open = Some(open);
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        let row: AgentRow = open.agent.read(0).unwrap_or_default();
        if open.changed_ns == Some(row.changed_ns) {
            return Ok(None);
        }
        let vips = read(&open.maps)?;
        open.changed_ns = Some(row.changed_ns);
        Ok(Some(vips))
    }
}

fn read(maps: &BpfMaps) -> Result<HashSet<IpAddr>, MapError> {
    let frontends = maps.frontends()?.into_iter();
    // rows that lead nowhere are no services, to the programs either
    let live = frontends.filter(|(frontend, index)| maps.service(*index).frontend == *frontend);
    Ok(live.map(|(frontend, _)| frontend.addr.ip()).collect())
}
