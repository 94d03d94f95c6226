//! The Kubernetes types, labels and annotations that make up the multi-cluster service API.
//!
//! ServiceImport and ServiceExport are upstream's (kubernetes-sigs/mcs-api), ClusterProperty is the About API's; their two
//! versions have one schema. The types here are for reading and writing the API and for generating its CRDs ([`crds`]).
//! Manifests are not read through them but field by field ([`crate::manifest`]), so that one wrong field does not cost
//! the object. EndpointSlices are `k8s_openapi`'s `discovery/v1`.

pub mod cluster_property;
pub mod crds;
pub mod schema_difference;
pub mod service_export;
pub mod service_import;

pub use k8s_openapi::api::discovery::v1::EndpointSlice;

pub use self::service_export::ServiceExportStatus;
pub use self::service_import::{
    ClientIPConfig, ClusterStatus, ServiceImportStatus, ServiceImportType, ServicePort, SessionAffinityConfig,
};

/// The API as clients of the first version know it, CoreDNS among them.
pub mod v1alpha1 {
    pub use super::service_export::v1alpha1::*;
    pub use super::service_import::v1alpha1::*;
}

/// The API as it is stored.
pub mod v1beta1 {
    pub use super::service_export::v1beta1::*;
    pub use super::service_import::v1beta1::*;
}

/// Annotation of a ServiceImport: `{"a":90,"b":10}`, the share of each source cluster as a whole.
pub const CLUSTER_WEIGHTS: &str = "mcs.internal/cluster-weights";

/// Annotation of an imported EndpointSlice: when what it says became so at its source, RFC 3339 with milliseconds. It is
/// for measuring alone: nobody decides by it, and it causes no write.
pub const CHANGED_AT: &str = "mcs.internal/changed-at";

/// Label of an imported EndpointSlice: the name of the ServiceImport, in its own namespace, that it belongs to.
pub const SERVICE_NAME: &str = "multicluster.kubernetes.io/service-name";

/// Label of an imported EndpointSlice: the id of the cluster that its endpoints are in.
pub const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";

/// Group of ServiceImport and ServiceExport.
pub const GROUP: &str = "multicluster.x-k8s.io";

/// Group of ClusterProperty.
pub const ABOUT_GROUP: &str = "about.k8s.io";

/// The versions of ServiceImport, ServiceExport and ClusterProperty; the last is the one that is stored.
pub const VERSIONS: [&str; 2] = ["v1alpha1", "v1beta1"];

/// The versions of ServiceImport; the last is the one that is stored.
pub const IMPORT_VERSIONS: [&str; 2] = VERSIONS;

/// Group of EndpointSlice.
pub const SLICE_GROUP: &str = "discovery.k8s.io";

/// Version of EndpointSlice.
pub const SLICE_VERSION: &str = "v1";

#[cfg(test)]
mod tests {
    use kube::{CustomResourceExt, Resource};

    use super::*;

    #[test]
    fn both_versions_are_the_same_kind() {
        assert_eq!(v1alpha1::ServiceImport::api_version(&()), format!("{GROUP}/{}", IMPORT_VERSIONS[0]));
        assert_eq!(v1beta1::ServiceImport::api_version(&()), format!("{GROUP}/{}", IMPORT_VERSIONS[1]));
        let crd = v1beta1::ServiceImport::crd();
        assert_eq!(crd.metadata.name.as_deref(), Some("serviceimports.multicluster.x-k8s.io"));
        let spec = |crd| serde_json::to_value(crd).unwrap()["spec"]["versions"][0]["schema"].clone();
        assert_eq!(spec(crd), spec(v1alpha1::ServiceImport::crd()));
    }

    #[test]
    fn upstreams_example_is_read_and_written() {
        let text = serde_json::json!({
            "apiVersion": "multicluster.x-k8s.io/v1beta1",
            "kind": "ServiceImport",
            "metadata": {"name": "my-svc", "namespace": "my-ns"},
            "spec": {
                "ips": ["42.42.42.42"],
                "ipFamilies": ["IPv4"],
                "type": "ClusterSetIP",
                "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}}
            },
            "status": {"clusters": [{"cluster": "us-west2-a-my-cluster"}]}
        });
        let import: v1beta1::ServiceImport = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(import.spec.kind, ServiceImportType::ClusterSetIP);
        assert_eq!(serde_json::to_value(import).unwrap(), text);
    }
}
