//! What a member's users write: Services, ServiceExports, ClusterProperties.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use kube::api::DynamicObject;
use serde::Deserialize;

use super::condition::{self, KubeCondition};
use super::{Unreadable, family, field, meta, port_number, transport};
use crate::api::{ClientIPConfig, ServiceImportType, SessionAffinityConfig};
use crate::clusterset::local::{Export, Service};
use crate::clusterset::service::{Exported, Port};

/// A Service in the words of its export (KEP-1645 "Exporting Services").
pub(super) fn service(mut object: DynamicObject) -> Result<Service, Unreadable> {
    let spec: ServiceSpec = field(&mut object, "spec")?;
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        return Ok(Service::Unexportable { kind: kind.to_owned() });
    }
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let ports = spec.ports.unwrap_or_default().into_iter().enumerate();
    let families = spec.ip_families.unwrap_or_default();
    Ok(Service::Exportable(Exported {
        created: 0,
        kind: if headless { ServiceImportType::Headless } else { ServiceImportType::ClusterSetIP },
        ports: ports.map(|(index, port)| service_port(index, port)).collect::<Result<_, _>>()?,
        ip_families: families
            .iter()
            .enumerate()
            .map(|(index, name)| family(|| format!("spec.ipFamilies[{index}]"), name))
            .collect::<Result<_, _>>()?,
        session_affinity: spec.session_affinity,
        session_affinity_config: spec.session_affinity_config.map(|config| SessionAffinityConfig {
            client_ip: config.client_ip.map(|client_ip| ClientIPConfig { timeout_seconds: client_ip.timeout_seconds }),
        }),
        internal_traffic_policy: spec.internal_traffic_policy,
        traffic_distribution: spec.traffic_distribution,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }))
}

fn service_port(index: usize, port: ServicePort) -> Result<Port, Unreadable> {
    Ok(Port {
        name: port.name.unwrap_or_default(),
        protocol: transport(|| format!("spec.ports[{index}].protocol"), port.protocol.as_deref())?,
        port: port_number(|| format!("spec.ports[{index}].port"), port.port)?,
        app_protocol: port.app_protocol,
    })
}

/// `spec` of a ServiceExport.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ExportSpec {
    exported_labels: Option<BTreeMap<String, String>>,
    exported_annotations: Option<BTreeMap<String, String>>,
}

/// A ServiceExport. Conditions that cannot be read count as none: they are ours to write again.
pub(super) fn export(mut object: DynamicObject) -> Result<Export, Unreadable> {
    let spec: ExportSpec = field(&mut object, "spec")?;
    let conditions: Vec<KubeCondition> = condition::of_status(&object.data);
    Ok(Export {
        meta: meta(&object)?,
        generation: object.metadata.generation.unwrap_or_default(),
        labels: spec.exported_labels.unwrap_or_default(),
        annotations: spec.exported_annotations.unwrap_or_default(),
        conditions: condition::read(&conditions),
    })
}

/// `spec.value` of a ClusterProperty (KEP-2149).
pub(super) fn property(object: &DynamicObject) -> Result<String, Unreadable> {
    let value = object.data.get("spec").and_then(|spec| spec.get("value"));
    let text = value.and_then(serde_json::Value::as_str);
    text.map(str::to_owned).ok_or_else(|| Unreadable::new("spec.value", "is not a string"))
}
