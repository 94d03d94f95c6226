//! The user's word that a withdrawal that is held is meant: an annotation of a ConfigMap in the member.
//!
//! It is passed on once what is held is known, by the leader, and then taken away: so whoever wrote it sees that it was
//! heard, and a later leader does not hear it again.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::json;
use tracing::{info, warn};

use crate::apiserver::{REQUEST, Server, chain};
use crate::broker::credentials::{APPROVE_WITHDRAWAL, CONFIG_MAP};
use crate::clusterset::local::SYSTEM_NAMESPACE;

/// What was said, if anything was, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Approval {
    /// The annotation's value, and the version of the ConfigMap.
    said: Option<(String, String)>,
    /// The value that was passed on.
    heard: Option<String>,
}

impl Approval {
    /// The ConfigMap changed.
    pub(super) fn saw(&mut self, map: Option<&DynamicObject>) {
        self.said = map.and_then(|map| {
            let value = map.annotations().get(APPROVE_WITHDRAWAL)?;
            Some((value.clone(), map.resource_version().unwrap_or_default()))
        });
        if self.said.is_none() {
            self.heard = None;
        }
    }

    /// Whether there is something to pass on. To be asked by a leader that knows what is held.
    pub(super) fn is_due(&mut self) -> bool {
        let Some((value, _)) = &self.said else { return false };
        if self.heard.as_ref() == Some(value) {
            return false;
        }
        info!("withdrawal approved at {value}");
        self.heard = Some(value.clone());
        true
    }

    /// Takes the annotation away if it was passed on.
    pub(super) fn acknowledge(&self, member: &Server) {
        let Some((value, version)) = self.said.clone() else { return };
        let Some(reach) = member.now() else { return };
        if self.heard != Some(value) {
            return;
        }
        tokio::spawn(async move {
            let maps: Api<ConfigMap> = Api::namespaced(reach.client, SYSTEM_NAMESPACE);
            let patch = json!({
                "metadata": {"resourceVersion": version, "annotations": {APPROVE_WITHDRAWAL: null}},
            });
            let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
            match tokio::time::timeout(REQUEST, maps.patch(CONFIG_MAP, &params, &patch)).await {
                // Changed meanwhile: its watch tells, and this is tried again.
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => {}
                Ok(Err(error)) => warn!("ConfigMap {SYSTEM_NAMESPACE}/{CONFIG_MAP}: {}", chain(&error)),
                Ok(Ok(_)) | Err(_) => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ApiResource;

    use super::*;

    fn map(approved: Option<&str>) -> DynamicObject {
        let mut map = DynamicObject::new(CONFIG_MAP, &ApiResource::erase::<ConfigMap>(&()));
        if let Some(value) = approved {
            map.annotations_mut().insert(APPROVE_WITHDRAWAL.to_owned(), value.to_owned());
        }
        map
    }

    #[test]
    fn it_is_passed_on_once_and_again_when_said_again() {
        let mut approval = Approval::default();
        approval.saw(Some(&map(None)));
        assert!(!approval.is_due());
        approval.saw(Some(&map(Some("10:00"))));
        assert!(approval.is_due());
        assert!(!approval.is_due());
        approval.saw(Some(&map(Some("10:05"))));
        assert!(approval.is_due(), "it was said again before the first was taken away");
        approval.saw(Some(&map(None)));
        approval.saw(Some(&map(Some("10:05"))));
        assert!(approval.is_due());
        approval.saw(None);
        assert!(!approval.is_due());
    }
}
