//! EndpointSlices: those of Services, to be exported, and those of imports, ours.

use k8s_openapi::api::discovery::v1::{Endpoint as KubeEndpoint, EndpointPort};
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Map, Value, json};

use super::{Unreadable, family, field, meta, port_number, transport};
use crate::api::{CHANGED_AT, SERVICE_NAME, SLICE_GROUP, SLICE_VERSION, SOURCE_CLUSTER};
use crate::clusterset::local::{ImportedSlice, SourceSlice};
use crate::clusterset::service::{ChangedAt, Endpoint, Endpoints, Family, SlicePort};
use crate::controller::kinds::{MANAGED_BY, MANAGER, SERVICE};
use crate::model::ObjectKey;

/// Annotation of an imported EndpointSlice, `true`: its member is dead, and no other serves these ports.
pub(in crate::controller) const STALE: &str = "mcs.internal/stale";

/// An EndpointSlice of a Service. None for one of type FQDN, which is not exported, and for one of an import that
/// somebody else shows to kube-proxy as a Service's.
pub(super) fn source(object: DynamicObject) -> Result<Option<SourceSlice>, Unreadable> {
    let label = |name: &str| object.metadata.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
    let Some(service) = label(SERVICE) else { return Ok(None) };
    let fqdn = object.data.get("addressType").and_then(Value::as_str) == Some("FQDN");
    if fqdn || label(SERVICE_NAME).is_some() {
        return Ok(None);
    }
    Ok(Some(SourceSlice { service, endpoints: endpoints(object)? }))
}

/// An EndpointSlice of ours. Labels that somebody took away are empty, so that they are seen to differ and written again.
pub(super) fn imported(object: DynamicObject) -> Result<ImportedSlice, Unreadable> {
    let label = |name: &str| object.metadata.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
    let (import, cluster) = (label(SERVICE_NAME).unwrap_or_default(), label(SOURCE_CLUSTER).unwrap_or_default());
    let meta = meta(&object)?;
    let annotations = object.metadata.annotations.as_ref();
    let stale = annotations.and_then(|annotations| annotations.get(STALE)).is_some_and(|value| value == "true");
    let changed_at = annotations.and_then(|annotations| annotations.get(CHANGED_AT)?.parse::<Timestamp>().ok());
    let changed_at = ChangedAt(changed_at.map(Timestamp::as_millisecond));
    let Endpoints { family, ports, endpoints, changed_at: _ } = endpoints(object)?;
    Ok(ImportedSlice { meta, import, cluster, family, ports, endpoints, changed_at, stale })
}

/// The content of an EndpointSlice. Of an endpoint's addresses only the first counts, as for all consumers; endpoints
/// without one, and ports without a number, which a Service never has, are left out.
fn endpoints(mut object: DynamicObject) -> Result<Endpoints, Unreadable> {
    let address_type: String = field(&mut object, "addressType")?;
    let family = family(|| "addressType".to_owned(), &address_type)?;
    let ports: Vec<EndpointPort> = field(&mut object, "ports")?;
    let listed: Vec<KubeEndpoint> = field(&mut object, "endpoints")?;
    let ports = ports.into_iter().enumerate().filter_map(|(index, port)| {
        let number = port.port?;
        Some(slice_port(index, number, port))
    });
    let ports = ports.collect::<Result<Vec<_>, _>>()?;
    let endpoints = listed.into_iter().enumerate().filter_map(|(index, endpoint)| one(index, endpoint, family));
    let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
    Ok(Endpoints { family, ports, endpoints, changed_at: ChangedAt::default() })
}

fn slice_port(index: usize, number: i32, port: EndpointPort) -> Result<SlicePort, Unreadable> {
    Ok(SlicePort {
        name: port.name.unwrap_or_default(),
        protocol: transport(|| format!("ports[{index}].protocol"), port.protocol.as_deref())?,
        port: port_number(|| format!("ports[{index}].port"), number)?,
        app_protocol: port.app_protocol,
    })
}

fn one(index: usize, endpoint: KubeEndpoint, family: Family) -> Option<Result<Endpoint, Unreadable>> {
    let text = endpoint.addresses.first()?;
    let at = || format!("endpoints[{index}].addresses[0]");
    let address = match text.parse() {
        Ok(address) if Family::of(address) == family => address,
        Ok(_) => return Some(Err(Unreadable::new(at(), format_args!("{text} is no {family} address")))),
        Err(_) => return Some(Err(Unreadable::new(at(), format_args!("{text:?} is no IP address")))),
    };
    let conditions = endpoint.conditions.unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    Some(Ok(Endpoint {
        address,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        hostname: endpoint.hostname,
        node_name: endpoint.node_name,
        zone: endpoint.zone,
    }))
}

/// The whole object. It has no owner: were the import deleted by mistake, or its CRD, garbage collection must not take
/// the endpoints along.
pub(in crate::controller) fn slice_body(key: &ObjectKey, slice: &ImportedSlice) -> Value {
    let mut annotations = Map::new();
    if slice.stale {
        annotations.insert(STALE.to_owned(), json!("true"));
    }
    if let Some(changed_at) = slice.changed_at.0.and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
        annotations.insert(CHANGED_AT.to_owned(), json!(format!("{changed_at:.3}")));
    }
    json!({
        "apiVersion": format!("{SLICE_GROUP}/{SLICE_VERSION}"),
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": &*key.namespace,
            "name": &*key.name,
            "labels": {
                MANAGED_BY: MANAGER,
                SERVICE_NAME: slice.import,
                SOURCE_CLUSTER: slice.cluster,
            },
            "annotations": annotations,
        },
        "addressType": slice.family.as_str(),
        "ports": slice.ports.iter().map(port_body).collect::<Vec<_>>(),
        "endpoints": slice.endpoints.iter().map(endpoint_body).collect::<Vec<_>>(),
    })
}

fn port_body(port: &SlicePort) -> Value {
    let SlicePort { name, protocol, port, app_protocol } = port;
    let mut body = json!({"name": name, "protocol": protocol.as_str(), "port": port});
    if let Some(app_protocol) = app_protocol {
        body["appProtocol"] = json!(app_protocol);
    }
    body
}

fn endpoint_body(endpoint: &Endpoint) -> Value {
    let Endpoint { address, ready, serving, terminating, hostname, node_name, zone } = endpoint;
    let mut body = json!({
        "addresses": [address.to_string()],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
    });
    for (name, value) in [("hostname", hostname), ("nodeName", node_name), ("zone", zone)] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    body
}
