//! What one process leaves to the next: which members were dead.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tracing::warn;

use crate::clusterset::local::SYSTEM_NAMESPACE;

/// The ConfigMap in [`SYSTEM_NAMESPACE`] that it lies in.
pub const CONFIG_MAP: &str = "mcs-controller-state";

/// Its key: ids, as a JSON list.
const DEAD: &str = "dead";

/// Writes which members are dead.
///
/// # Errors
/// The API server refused or did not answer.
pub(super) async fn remember(client: &Client, dead: &BTreeSet<String>) -> kube::Result<()> {
    let text = serde_json::to_string(dead).map_err(kube::Error::SerdeError)?;
    put_data(client, CONFIG_MAP, json!({DEAD: text})).await
}

/// Reads which members an earlier process took for dead. What cannot be read is nobody.
///
/// # Errors
/// The API server refused or did not answer.
pub(super) async fn remembered(client: &Client) -> kube::Result<BTreeSet<String>> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let data = maps.get_opt(CONFIG_MAP).await?.and_then(|map| map.data).unwrap_or_default();
    let Some(text) = data.get(DEAD) else { return Ok(BTreeSet::new()) };
    Ok(serde_json::from_str(text).unwrap_or_else(|error| {
        warn!("ConfigMap {SYSTEM_NAMESPACE}/{CONFIG_MAP}: {DEAD}: {error}: nobody is taken for dead");
        BTreeSet::new()
    }))
}

/// Sets keys of a ConfigMap of ours, which is created if need be.
///
/// # Errors
/// The API server refused or did not answer.
pub(super) async fn put_data(client: &Client, name: &str, data: Value) -> kube::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let body = json!({"data": data});
    match maps.patch(name, &PatchParams::default(), &Patch::Merge(&body)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let whole = json!({
                "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "mcs"}},
                "data": body["data"],
            });
            let whole: ConfigMap = serde_json::from_value(whole).map_err(kube::Error::SerdeError)?;
            maps.create(&PostParams::default(), &whole).await.map(drop)
        }
        other => other.map(drop),
    }
}
