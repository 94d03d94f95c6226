//! ServiceImport: a service of the ClusterSet, as an importing cluster knows it (KEP-1645 "Importing Services").

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A version of ServiceImport, in a module of its name.
macro_rules! service_import {
    ($module:ident, $version:literal, $doc:literal) => {
        #[doc = $doc]
        pub mod $module {
            use super::*;

            /// What a ServiceImport asks for.
            #[derive(CustomResource, Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
            #[kube(
                group = "multicluster.x-k8s.io",
                version = $version,
                kind = "ServiceImport",
                plural = "serviceimports",
                doc = "A service of the ClusterSet, imported into this cluster.",
                namespaced,
                status = "ServiceImportStatus",
                derive = "PartialEq",
                derive = "Default",
                shortname = "svcim",
                shortname = "svcimport",
                printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type","description":"The type of this ServiceImport"}"#,
                printcolumn = r#"{"name":"IP","type":"string","jsonPath":".spec.ips","description":"The VIP for this ServiceImport"}"#,
                printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
            )]
            #[serde(rename_all = "camelCase")]
            pub struct ServiceImportSpec {
                /// The union of the exported ports.
                #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
                pub ports: Vec<ServicePort>,
                /// The ClusterSetIPs, at most one of each family; none of a headless service.
                #[serde(default, skip_serializing_if = "Vec::is_empty")]
                #[schemars(length(max = 2))]
                pub ips: Vec<String>,
                /// `IPv4`, `IPv6`: the families of `ips`, in their order.
                #[serde(default, skip_serializing_if = "Vec::is_empty")]
                #[schemars(length(max = 2))]
                pub ip_families: Vec<String>,
                /// Whether the service has addresses of its own.
                #[serde(rename = "type")]
                pub kind: ServiceImportType,
                /// `ClientIP` or `None`. Ignored when headless.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub session_affinity: Option<String>,
                /// How long affinity lasts.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub session_affinity_config: Option<SessionAffinityConfig>,
                /// `Cluster` or `Local`: only endpoints on the client's node.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub internal_traffic_policy: Option<String>,
                /// `PreferClose`, `PreferSameZone`, `PreferSameNode`: a preference.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub traffic_distribution: Option<String>,
            }
        }
    };
}

service_import!(v1alpha1, "v1alpha1", "ServiceImport as clients of the first version know it, CoreDNS among them.");
service_import!(v1beta1, "v1beta1", "ServiceImport as it is stored.");

/// Whether a service has addresses of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum ServiceImportType {
    /// One address of each family in front of all endpoints.
    #[default]
    ClusterSetIP,
    /// The endpoints' addresses, by DNS.
    Headless,
}

/// A port of a ServiceImport.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Matches the name of a slice's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `TCP`, `UDP`, `SCTP`; none means TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// What is spoken on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// What clients dial, 1..=65535.
    pub port: i32,
}

/// How long affinity lasts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionAffinityConfig {
    /// Of `ClientIP` affinity.
    #[serde(default, rename = "clientIP", skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<ClientIPConfig>,
}

/// How long `ClientIP` affinity lasts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientIPConfig {
    /// Seconds, 1..=86400; none means 10800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
}

/// What the controller says of a ServiceImport.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceImportStatus {
    /// The clusters that export the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["cluster"]))]
    pub clusters: Vec<ClusterStatus>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::crds::conditions")]
    pub conditions: Vec<Condition>,
    /// `Present` or `Absent`: whether there are EndpointSlices for the import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Present", "Absent"]))]
    pub endpoint_slice_objects: Option<String>,
}

/// A cluster that exports a service.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ClusterStatus {
    /// Its id.
    pub cluster: String,
}
