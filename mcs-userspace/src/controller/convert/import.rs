//! ServiceImports.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::condition;
use super::{Unreadable, field, meta};
use crate::api::v1beta1::ServiceImportSpec;
use crate::api::{GROUP, IMPORT_VERSIONS};
use crate::clusterset::local::Import;
use crate::model::ObjectKey;

/// A ServiceImport as it is. A status that cannot be read counts as none: it is ours to write again.
pub(super) fn import(mut object: DynamicObject) -> Result<Import, Unreadable> {
    let spec: ServiceImportSpec = field(&mut object, "spec")?;
    let conditions = condition::of_status(&object.data);
    let status = object.data.get("status");
    let clusters = status.and_then(|status| status.get("clusters")).and_then(Value::as_array);
    let mut clusters: Vec<String> = clusters
        .into_iter()
        .flatten()
        .filter_map(|cluster| cluster.get("cluster").and_then(Value::as_str).map(str::to_owned))
        .collect();
    clusters.sort_unstable();
    Ok(Import {
        meta: meta(&object)?,
        labels: object.metadata.labels.clone().unwrap_or_default(),
        annotations: object.metadata.annotations.clone().unwrap_or_default(),
        spec,
        clusters,
        conditions: condition::read(&conditions),
        slices_present: status.and_then(|status| status.get("endpointSliceObjects")).and_then(Value::as_str)
            == Some("Present"),
    })
}

/// The whole object, without its status.
pub(in crate::controller) fn import_body(key: &ObjectKey, import: &Import) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{}", IMPORT_VERSIONS[1]),
        "kind": "ServiceImport",
        "metadata": {
            "namespace": &*key.namespace,
            "name": &*key.name,
            "labels": import.labels,
            "annotations": import.annotations,
        },
        "spec": import.spec,
    })
}
