//! `mcs dump`.

use std::fmt;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde::ser::{SerializeMap as _, SerializeSeq as _, Serializer};

use super::{Output, Pins};
use crate::dump::dump;
use crate::maps::bpf::BpfMaps;
use crate::tables::{Backend, Service, Tables};

/// The maps as text or JSON.
#[derive(Args, Debug)]
pub(super) struct Dump {
    #[command(flatten)]
    pins: Pins,
    #[command(flatten)]
    output: Output,
}

impl Dump {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let maps = BpfMaps::new(&mut self.pins.open().pinned_maps(), false)?;
        self.output.print(&Answer(dump(&maps)?))?;
        Ok(ExitCode::SUCCESS)
    }
}

struct Answer(Tables);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("services", &Services(&self.0))?;
        map.end()
    }
}

struct Services<'a>(&'a Tables);

impl Serialize for Services<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.services.len()))?;
        for service in self.0.services.values() {
            list.serialize_element(&ServiceView::from(service))?;
        }
        list.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceView {
    namespace: String,
    name: String,
    port_name: String,
    protocol: String,
    #[serde(rename = "clusterSetIP")]
    cluster_set_ip: String,
    port: u16,
    affinity_seconds: Option<u32>,
    index: Option<u32>,
    generation: Option<u32>,
    base: Option<u32>,
    refusals: Option<u64>,
    sources: Vec<SourceView>,
    backends: Vec<BackendView>,
}

#[derive(Serialize)]
struct SourceView {
    cluster: String,
    ready: u32,
    total: u32,
    connections: Option<u64>,
}

#[derive(Serialize)]
struct BackendView {
    address: String,
    port: u16,
    cluster: String,
    /// Its part of new flows, 0 to 1.
    share: f64,
    draining: bool,
    member: Option<u32>,
    generation: Option<u32>,
    connections: Option<u64>,
}

impl From<&Service> for ServiceView {
    fn from(service: &Service) -> Self {
        let Service { frontend, import, port_name, affinity_secs, backends, sources, realized } = service;
        Self {
            namespace: import.namespace.to_string(),
            name: import.name.to_string(),
            port_name: port_name.to_string(),
            protocol: service.protocol().to_string(),
            cluster_set_ip: frontend.addr.to_string(),
            port: frontend.port_be.host(),
            affinity_seconds: *affinity_secs,
            index: realized.map(|r| r.index),
            generation: realized.map(|r| r.generation),
            base: realized.map(|r| r.base),
            refusals: realized.map(|r| r.refusals),
            sources: sources
                .iter()
                .map(|source| SourceView {
                    cluster: source.cluster.to_string(),
                    ready: source.ready,
                    total: source.total,
                    connections: source.connections,
                })
                .collect(),
            backends: backends.iter().map(|backend| BackendView::new(service, backend)).collect(),
        }
    }
}

impl BackendView {
    fn new(service: &Service, backend: &Backend) -> Self {
        let Backend { addr, port, cluster, weight, realized } = backend;
        Self {
            address: addr.to_string(),
            port: port.host(),
            cluster: cluster.to_string(),
            share: service.share(*weight),
            draining: *weight == 0,
            member: realized.map(|r| r.member),
            generation: realized.map(|r| r.generation),
            connections: realized.map(|r| r.connections),
        }
    }
}
