//! ClusterProperty: what a cluster says of itself (KEP-2149, the About API). The cluster's id and its membership are two
//! well-known ones: [`crate::clusterset::local::CLUSTER_ID_PROPERTY`], [`crate::clusterset::local::CLUSTERSET_PROPERTY`].

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A version of ClusterProperty, in a module of its name.
macro_rules! cluster_property {
    ($module:ident, $version:literal, $doc:literal) => {
        #[doc = $doc]
        pub mod $module {
            use super::*;

            /// What the property is.
            #[derive(CustomResource, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
            #[kube(
                group = "about.k8s.io",
                version = $version,
                kind = "ClusterProperty",
                plural = "clusterproperties",
                doc = "What this cluster says of itself to tools that see several clusters.",
                status = "ClusterPropertyStatus",
                category = "multicluster",
                annotation("api-approved.kubernetes.io", "https://github.com/kubernetes/enhancements/pull/3084"),
                derive = "PartialEq",
                derive = "Default",
                printcolumn = r#"{"name":"value","type":"string","jsonPath":".spec.value"}"#,
                printcolumn = r#"{"name":"age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
            )]
            pub struct ClusterPropertySpec {
                /// The value; the object's name is that of the property.
                #[schemars(length(min = 1))]
                pub value: String,
            }
        }
    };
}

cluster_property!(v1alpha1, "v1alpha1", "ClusterProperty as clients of the first version know it.");
cluster_property!(v1beta1, "v1beta1", "ClusterProperty as it is stored.");

/// The API has a status subresource, and nothing in it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ClusterPropertyStatus {}
