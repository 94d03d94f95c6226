//! ServiceExport: the Service of the same name and namespace is one of the ClusterSet (KEP-1645 "Exporting Services").

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// A version of ServiceExport, in a module of its name.
#[rustfmt::skip] // which indents what is in `kube` once more with each run
macro_rules! service_export {
    ($module:ident, $version:literal, $doc:literal) => {
        #[doc = $doc]
        pub mod $module {
            use super::*;

            /// What a ServiceExport asks for. An object without a spec is the usual case.
            #[derive(CustomResource, Clone, PartialEq, Eq, Debug, Default, Serialize, JsonSchema)]
            #[kube(
                group = "multicluster.x-k8s.io",
                version = $version,
                kind = "ServiceExport",
                plural = "serviceexports",
                doc = "The Service of the same name and namespace is to be one of the ClusterSet.",
                namespaced,
                status = "ServiceExportStatus",
                derive = "PartialEq",
                derive = "Default",
                shortname = "svcex",
                shortname = "svcexport",
                printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
            )]
            #[serde(rename_all = "camelCase")]
            pub struct ServiceExportSpec {
                /// Labels of the ServiceImport. The Service's own are not exported.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub exported_labels: Option<BTreeMap<String, String>>,
                /// Annotations of the ServiceImport. The Service's own are not exported.
                #[serde(skip_serializing_if = "Option::is_none")]
                pub exported_annotations: Option<BTreeMap<String, String>>,
            }

            impl<'de> Deserialize<'de> for ServiceExportSpec {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    // through an Option, because serde takes an absent field for none only if it is one
                    let SpecFields { exported_labels, exported_annotations } =
                        Option::deserialize(deserializer)?.unwrap_or_default();
                    Ok(Self { exported_labels, exported_annotations })
                }
            }
        }
    };
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecFields {
    exported_labels: Option<BTreeMap<String, String>>,
    exported_annotations: Option<BTreeMap<String, String>>,
}

service_export!(v1alpha1, "v1alpha1", "ServiceExport as clients of the first version know it.");
service_export!(v1beta1, "v1beta1", "ServiceExport as it is stored.");

/// What the controller says of a ServiceExport.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ServiceExportStatus {
    /// `Valid`, `Ready`, `Conflict`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::crds::conditions")]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_needs_no_spec() {
        let text = serde_json::json!({
            "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
            "metadata": {"name": "cart", "namespace": "shop"}
        });
        let export: v1beta1::ServiceExport = serde_json::from_value(text).unwrap();
        assert_eq!(export.metadata.name.as_deref(), Some("cart"));
        assert_eq!(export.spec, v1beta1::ServiceExportSpec::default());
    }
}
