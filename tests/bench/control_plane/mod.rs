//! The control plane on real API servers: a broker, two members, `mcs controller` in each.

mod agent;
pub(crate) mod propagation;
pub(crate) mod scale;

use std::time::Duration;

use anyhow::{Context as _, Result};
use mcs_tests::apiserver::ApiServer;
use mcs_tests::client::{Client, Kind};
use mcs_tests::mcs::{self, Controller};
use serde_json::{Value, json};

/// How long anything may take before the bench gives up.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// The namespace of everything that is exported.
pub(crate) const NAMESPACE: &str = "bench";

/// A broker and two members.
pub(crate) struct ClusterSet {
    pub(crate) broker: ApiServer,
    pub(crate) broker_client: Client,
    /// Where services are exported.
    pub(crate) source: Member,
    /// Where they are imported.
    pub(crate) sink: Member,
}

/// A member.
pub(crate) struct Member {
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
    pub(crate) controller: Controller,
}

impl ClusterSet {
    pub(crate) fn start() -> Result<Self> {
        let mut servers = ApiServer::start_many(3)?;
        let (broker, second, first) = servers
            .pop()
            .zip(servers.pop())
            .zip(servers.pop())
            .map(|((c, b), a)| (c, b, a))
            .context("three servers")?;
        mcs::init_broker(&broker)?;
        let (source, sink) = (Member::join(first, &broker)?, Member::join(second, &broker)?);
        for member in [&source, &sink] {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
            member.client.create(&namespace)?;
        }
        Ok(Self { broker_client: broker.client()?, broker, source, sink })
    }

    /// The API servers' processor time until now, with their etcd: source, sink, broker.
    pub(crate) fn servers_time(&self) -> Result<[Duration; 3]> {
        let of = |server: &ApiServer| server.processor_time().map(|(api, etcd)| api + etcd);
        Ok([of(&self.source.server)?, of(&self.sink.server)?, of(&self.broker)?])
    }

    /// Writes that the API servers have answered until now, whoever made them, Leases left out: source, sink, broker.
    pub(crate) fn writes(&self) -> Result<[f64; 3]> {
        let of = |client: &Client| client.raw("/metrics").map(|text| writes_of(&text));
        Ok([of(&self.source.client)?, of(&self.sink.client)?, of(&self.broker_client)?])
    }
}

/// The sum of `apiserver_request_total` over all that writes but Leases, which are renewed by time and not by change.
fn writes_of(metrics: &str) -> f64 {
    const VERBS: [&str; 5] = ["POST", "PUT", "PATCH", "APPLY", "DELETE"];
    let is_write = |labels: &str| {
        VERBS.iter().any(|verb| labels.contains(&format!("verb=\"{verb}\""))) && !labels.contains("resource=\"leases\"")
    };
    let counts = metrics.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")?.rsplit_once("} "));
    counts.filter(|(labels, _)| is_write(labels)).filter_map(|(_, count)| count.trim().parse::<f64>().ok()).sum()
}

impl Member {
    fn join(server: ApiServer, broker: &ApiServer) -> Result<Self> {
        mcs::run(mcs::join_arguments(&server, broker, server.name()))?;
        let controller = Controller::start(&server)?;
        Ok(Self { client: server.client()?, server, controller })
    }

    pub(crate) fn controller_pid(&self) -> Result<u32> {
        self.controller.pid().context("the controller does not run")
    }
}

/// A Service of one port, without a selector: its slices are written by hand.
pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": {"ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
    })
}

pub(crate) fn export(name: &str) -> Value {
    json!({
        "apiVersion": Kind::EXPORT.api_version, "kind": "ServiceExport",
        "metadata": {"namespace": NAMESPACE, "name": name},
    })
}

/// The only slice of a service, with these endpoints.
pub(crate) fn slice(service: &str, addresses: &[String]) -> Value {
    json!({
        "apiVersion": Kind::SLICE.api_version, "kind": "EndpointSlice",
        "metadata": {
            "namespace": NAMESPACE, "name": format!("{service}-1"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": endpoints(addresses),
    })
}

pub(crate) fn endpoints(addresses: &[String]) -> Value {
    addresses.iter().map(|address| json!({"addresses": [address], "conditions": {"ready": true}})).collect()
}

/// Whether a slice is an imported one with this endpoint.
pub(crate) fn has_endpoint(slice: &Value, service: &str, address: &str) -> bool {
    slice["metadata"]["labels"]["multicluster.kubernetes.io/service-name"] == service
        && slice["endpoints"].as_array().is_some_and(|all| all.iter().any(|one| one["addresses"][0] == address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_and_reads_and_leases_are_not() {
        let metrics = r#"# TYPE apiserver_request_total counter
apiserver_request_total{code="200",resource="endpointslices",verb="PATCH"} 40
apiserver_request_total{code="201",resource="serviceimports",verb="POST"} 2
apiserver_request_total{code="200",resource="leases",verb="PATCH"} 500
apiserver_request_total{code="200",resource="endpointslices",verb="WATCH"} 7
apiserver_request_total_other{verb="PATCH"} 9
"#;
        assert!((writes_of(metrics) - 42.0).abs() < f64::EPSILON);
    }
}
