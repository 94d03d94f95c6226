//! `mcs services`.

use std::fmt;
use std::process::ExitCode;

use clap::Args;
use mcs_ebpf::addr::socket_addr;
use serde::Serialize;

use super::table::Table;
use super::{Output, Pins};
use crate::dump::dump;
use crate::maps::bpf::BpfMaps;
use crate::tables;

/// A line for each frontend.
#[derive(Args, Debug)]
pub(super) struct Services {
    #[command(flatten)]
    pins: Pins,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Answer {
    services: Vec<Service>,
}

/// One frontend.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    namespace: String,
    name: String,
    port_name: String,
    protocol: String,
    #[serde(rename = "clusterSetIP")]
    cluster_set_ip: String,
    port: u16,
    clusters: ReadyOfTotal,
    endpoints: ReadyOfTotal,
    connections: u64,
    refusals: u64,
    sources: Vec<Source>,
}

#[derive(Serialize)]
struct ReadyOfTotal {
    ready: u32,
    total: u32,
}

#[derive(Serialize)]
struct Source {
    cluster: String,
    ready: u32,
    total: u32,
    connections: u64,
}

impl Services {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let maps = BpfMaps::new(&mut self.pins.open().pinned_maps(), false)?;
        let tables = dump(&maps)?;
        self.output.print(&Answer { services: tables.services.values().map(Service::from).collect() })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl From<&tables::Service> for Service {
    fn from(service: &tables::Service) -> Self {
        let sources: Vec<Source> = service
            .sources
            .iter()
            .map(|source| Source {
                cluster: source.cluster.to_string(),
                ready: source.ready,
                total: source.total,
                connections: source.connections.unwrap_or(0),
            })
            .collect();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            namespace: service.import.namespace.to_string(),
            name: service.import.name.to_string(),
            port_name: service.port_name.to_string(),
            protocol: service.protocol().to_string(),
            cluster_set_ip: service.frontend.addr.to_string(),
            port: service.frontend.port_be.host(),
            clusters: ReadyOfTotal {
                ready: count(sources.iter().filter(|source| source.ready > 0).count()),
                total: count(sources.len()),
            },
            endpoints: ReadyOfTotal {
                ready: sources.iter().map(|source| source.ready).sum(),
                total: sources.iter().map(|source| source.total).sum(),
            },
            connections: sources.iter().map(|source| source.connections).sum(),
            refusals: service.realized.map_or(0, |realized| realized.refusals),
            sources,
        }
    }
}

impl fmt::Display for ReadyOfTotal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ready, self.total)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.services.is_empty() {
            return writeln!(f, "no services are programmed");
        }
        let header = ["NAMESPACE", "NAME", "CLUSTERSETIP", "CLUSTERS", "ENDPOINTS", "CONNS", "REFUSED"];
        let mut table = Table::new(&header);
        for service in &self.services {
            let address = service.cluster_set_ip.parse().map_or_else(
                |_| service.cluster_set_ip.clone(),
                |ip: std::net::IpAddr| socket_addr(ip.into(), mcs_ebpf::PortBe::new(service.port)).to_string(),
            );
            table.row(vec![
                service.namespace.clone(),
                service.name.clone(),
                format!("{address}/{}", service.protocol),
                service.clusters.to_string(),
                service.endpoints.to_string(),
                service.connections.to_string(),
                service.refusals.to_string(),
            ]);
        }
        table.fmt(f)
    }
}
