//! What a member's own API server holds, reduced to what decisions need. The edge (`crate::controller`) turns Kubernetes
//! objects into these and back.

use std::collections::BTreeMap;

use super::service::{ChangedAt, Endpoint, Exported, Family, SlicePort};
use crate::api::v1beta1::ServiceImportSpec;
use crate::model::ObjectKey;

/// What every object has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`, as the number it is.
    pub resource_version: u64,
    /// `metadata.creationTimestamp`, Unix seconds.
    pub created: i64,
}

/// A Service, in the words of its export. `labels`, `annotations` and `created` of [`Exported`] are empty here: they come
/// from the ServiceExport.
#[derive(Clone, PartialEq, Debug)]
pub enum Service {
    /// Of type ClusterIP, NodePort or LoadBalancer; headless included.
    Exportable(Exported),
    /// Of a type that cannot be exported: `ExternalName`.
    Unexportable {
        /// The type.
        kind: String,
    },
}

/// A ServiceExport.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Export {
    /// UID, version, age.
    pub meta: Meta,
    /// `metadata.generation`, for the conditions.
    pub generation: i64,
    /// `spec.exportedLabels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.exportedAnnotations`.
    pub annotations: BTreeMap<String, String>,
    /// The conditions that the object has now.
    pub conditions: Vec<Condition>,
}

/// A condition without its times, which the edge adds: the transition time changes only when `status` does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// `Valid`, `Ready`, `Conflict`.
    pub kind: String,
    /// `True`, `False`, `Unknown`.
    pub status: Truth,
    /// One of the API's reasons; several joined with commas.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// The status of a condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truth {
    /// It is so.
    True,
    /// It is not.
    False,
    /// Nobody can tell yet.
    Unknown,
}

impl Truth {
    /// As Kubernetes spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// An EndpointSlice of a Service, not of an import: one that carries `kubernetes.io/service-name` and is not ours.
#[derive(Clone, PartialEq, Debug)]
pub struct SourceSlice {
    /// Name of the Service, in the slice's namespace.
    pub service: String,
    /// The content.
    pub endpoints: super::service::Endpoints,
}

/// A ServiceImport, as it is or as it should be.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Import {
    /// UID, version, age; empty in a desired one.
    pub meta: Meta,
    /// The exported labels.
    pub labels: BTreeMap<String, String>,
    /// The exported annotations, and ours.
    pub annotations: BTreeMap<String, String>,
    /// The spec; both versions have this shape.
    pub spec: ServiceImportSpec,
    /// `status.clusters`, sorted.
    pub clusters: Vec<String>,
    /// `status.conditions`.
    pub conditions: Vec<Condition>,
    /// `status.endpointSliceObjects` is `Present`.
    pub slices_present: bool,
}

/// An EndpointSlice that belongs to an import and that we manage, as it is or as it should be.
#[derive(Clone, PartialEq, Debug)]
pub struct ImportedSlice {
    /// UID, version, age; empty in a desired one.
    pub meta: Meta,
    /// Name of the ServiceImport, in the slice's namespace: label [`crate::api::SERVICE_NAME`].
    pub import: String,
    /// Whose endpoints: label [`crate::api::SOURCE_CLUSTER`].
    pub cluster: String,
    /// `addressType`.
    pub family: Family,
    /// Named as the import's ports are.
    pub ports: Vec<SlicePort>,
    /// As at the source.
    pub endpoints: Vec<Endpoint>,
    /// When they became so there: annotation [`crate::api::CHANGED_AT`].
    pub changed_at: ChangedAt,
    /// Marked as kept although its member is dead (annotation), because no other serves these ports.
    pub stale: bool,
}

/// The ClusterProperty of the cluster's id (KEP-2149).
pub const CLUSTER_ID_PROPERTY: &str = "cluster.clusterset.k8s.io";
/// The ClusterProperty of membership (KEP-2149).
pub const CLUSTERSET_PROPERTY: &str = "clusterset.k8s.io";

/// Annotation of a ServiceImport of ours: the keys of the labels and annotations that come from exports, as JSON
/// (`{"labels":["team"],"annotations":[]}`). A ServiceImport without it is somebody else's and never touched; labels and
/// annotations that it does not name are somebody else's and stay.
pub const EXPORTED_KEYS: &str = "mcs.internal/exported-keys";

/// Condition of a ServiceImport, in the cluster that exports the service: the export's withdrawal is held.
pub const WITHDRAWAL_HELD: &str = "WithdrawalHeld";

/// Condition of a ServiceImport: it still has endpoints of dead members, because no other serves them.
pub const STALE: &str = "Stale";

/// A namespace of its own for what the control plane keeps in a member.
pub const SYSTEM_NAMESPACE: &str = "mcs-system";

/// Which object an event is for users about.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Regarding {
    /// A ServiceExport.
    Export(ObjectKey),
    /// A ServiceImport.
    Import(ObjectKey),
    /// A ClusterProperty.
    Property(String),
}
