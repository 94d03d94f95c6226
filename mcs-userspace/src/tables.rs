//! What the maps hold, in words: desired state, realized state, the dump and the golden files are all this one type.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mcs_ebpf::addr::socket_addr;
use mcs_ebpf::{Addr, Frontend, Name, PortBe};

use crate::model::{ObjectKey, Protocol};

/// All services, by frontend.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tables {
    /// Sorted, so that text made of it can be compared.
    pub services: BTreeMap<Frontend, Service>,
}

/// A frontend and whom it leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// What clients dial.
    pub frontend: Frontend,
    /// The ServiceImport that it comes from.
    pub import: ObjectKey,
    /// The name of the import's port, empty if it has none.
    pub port_name: Arc<str>,
    /// `sessionAffinity: ClientIP` and its timeout.
    pub affinity_secs: Option<u32>,
    /// Sorted by (cluster, address, port), no (address, port) twice.
    pub backends: Vec<Backend>,
    /// One for each source cluster that has a slice with this port and family, sorted by cluster.
    pub sources: Vec<Source>,
    /// Ids and counters, where the value was read from maps.
    pub realized: Option<RealizedService>,
}

/// A backend that may be given to a flow, or that keeps those it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Its address.
    pub addr: Addr,
    /// Its port.
    pub port: PortBe,
    /// Its source cluster.
    pub cluster: Arc<str>,
    /// Its weight against the other backends of the service; 0: draining, no new flows. In values read from maps,
    /// its chance in units of 2⁻³² of a slot's part, or 1 each where all are alike.
    pub weight: u64,
    /// Ids and counters, where the value was read from maps.
    pub realized: Option<RealizedBackend>,
}

/// A source cluster of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// The cluster's id.
    pub cluster: Arc<str>,
    /// Endpoints that are ready.
    pub ready: u32,
    /// All endpoints.
    pub total: u32,
    /// Flows that were given to backends of this cluster, where the value was read from maps.
    pub connections: Option<u64>,
}

/// What a service has in the kernel beside what was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RealizedService {
    /// Index into `mcs_services`.
    pub index: u32,
    /// Generation of the index.
    pub generation: u32,
    /// First slot of the block.
    pub base: u32,
    /// Flows that were refused for want of a backend.
    pub refusals: u64,
}

/// What a backend has in the kernel beside what was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RealizedBackend {
    /// Index into `mcs_members`.
    pub member: u32,
    /// Generation of the id.
    pub generation: u32,
    /// Flows that were given to it.
    pub connections: u64,
}

/// A name as maps hold it: what does not fit in 63 bytes is cut off, between characters.
#[must_use]
pub fn name_bytes(text: &str) -> Name {
    let mut name = [0; 64];
    let cut = &text.as_bytes()[..text.floor_char_boundary(name.len() - 1)];
    name[..cut.len()].copy_from_slice(cut);
    name
}

/// The text of a name in a map; what is not UTF-8 shows as replacement characters.
#[must_use]
pub fn name_text(name: &Name) -> Arc<str> {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into()
}

impl Service {
    /// The part of new flows, 0.0..=1.0, that a backend of this weight gets.
    #[must_use]
    pub fn share(&self, weight: u64) -> f64 {
        let sum: f64 = self.backends.iter().map(|backend| backend.weight as f64).sum();
        if sum > 0.0 { weight as f64 / sum } else { 0.0 }
    }

    /// The frontend's protocol; TCP and UDP are all that is ever programmed.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        Protocol::from_number(self.frontend.protocol).unwrap_or(Protocol::Tcp)
    }
}

impl fmt::Display for Tables {
    /// The golden format. `{:#}` adds ids and counters: `mcs dump`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for service in self.services.values() {
            service.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frontend, import, port_name, affinity_secs, backends, sources, realized } = self;
        write!(f, "service {}/{} {import}", socket_addr(frontend.addr, frontend.port_be), self.protocol())?;
        if !port_name.is_empty() {
            write!(f, " port={port_name}")?;
        }
        if let Some(secs) = affinity_secs {
            write!(f, " affinity={secs}s")?;
        }
        if let (true, Some(r)) = (f.alternate(), realized) {
            write!(f, " index={} generation={} base={} refusals={}", r.index, r.generation, r.base, r.refusals)?;
        }
        writeln!(f)?;
        for Source { cluster, ready, total, connections } in sources {
            write!(f, "  source {cluster} ready={ready}/{total}")?;
            if let (true, Some(n)) = (f.alternate(), connections) {
                write!(f, " connections={n}")?;
            }
            writeln!(f)?;
        }
        for Backend { addr, port, cluster, weight, realized } in backends {
            write!(f, "  backend {} cluster={cluster}", socket_addr(*addr, *port))?;
            if *weight == 0 {
                write!(f, " draining")?;
            } else if f.alternate() {
                write!(f, " share={:.2}%", self.share(*weight) * 100.0)?;
            } else {
                write!(f, " weight={weight}")?;
            }
            if let (true, Some(r)) = (f.alternate(), realized) {
                write!(f, " member={} generation={} connections={}", r.member, r.generation, r.connections)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
