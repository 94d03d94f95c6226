//! What lies at the broker. Group `broker.mcs.internal`, version v1; every kind is namespaced.
//!
//! ```text
//!  clusterset-broker/             the shared namespace
//!    ClusterSet  <clusterset id>    CIDRs                           written by the broker's admin
//!    Member      <cluster id>       UID, namespace, pod CIDRs       written by the broker's admin (join, revoke)
//!    Reservation <address>          one ClusterSetIP of one service created and deleted by the member that it names
//!  mcs-<cluster id>/              a member's own namespace, which only that member writes
//!    ExportRecord <ns>.<service>          an export, or its withdrawal (a tombstone)
//!    SliceRecord  <ns>.<service>.<hash>   the endpoints of one EndpointSlice of it
//!    Lease        member                  its sign of life, and its [`Statement`]
//! ```
//!
//! The API server's unique names do what needs doing at one place only: an address is reserved by creating an object of
//! its name. A namespace has no dot, so `<ns>.<service>` names one service and no other.
//!
//! Versions: a reader takes records of its own [`VERSION`] and of the one before, and reports others. Fields that a
//! reader does not know survive its rewrite (`other`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::service::{Endpoints, Exported};
use crate::model::ObjectKey;

/// Group of the broker's kinds.
pub const GROUP: &str = "broker.mcs.internal";

/// The version of records that this build writes.
pub const VERSION: u32 = 1;

/// The namespace that all members share. No member's namespace can have this name: theirs begin with `mcs-`.
pub const SHARED_NAMESPACE: &str = "clusterset-broker";

/// Name of a member's Lease in its namespace.
pub const LEASE: &str = "member";

/// Annotation of a member's Lease: a [`Statement`] as JSON.
pub const STATEMENT: &str = "mcs.internal/statement";

/// The longest cluster id: its namespace's name, a DNS label, has a prefix.
pub const MAX_CLUSTER_ID: usize = 63 - "mcs-".len();

/// The namespace of a member at the broker.
#[must_use]
pub fn member_namespace(cluster: &str) -> String {
    format!("mcs-{cluster}")
}

/// The name of a service's [`ExportRecord`].
#[must_use]
pub fn export_name(service: &ObjectKey) -> String {
    format!("{}.{}", service.namespace, service.name)
}

/// The name of an address' [`Reservation`]: `10-97-3-4`, or all 32 digits of an IPv6 address.
#[must_use]
pub fn reservation_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string().replace('.', "-"),
        IpAddr::V6(v6) => {
            let segments = Ipv6Addr::segments(&v6).map(|segment| format!("{segment:04x}"));
            segments.join("-")
        }
    }
}

/// What fixes a ClusterSet: where its ClusterSetIPs come from. One broker serves one ClusterSet.
#[derive(CustomResource, Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "broker.mcs.internal",
    version = "v1",
    kind = "ClusterSet",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"CIDRs","type":"string","jsonPath":".spec.cidrs"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ClusterSetSpec {
    /// The CIDRs of ClusterSetIPs, at most four of each family. Never changed.
    pub cidrs: Vec<String>,
    /// What this build does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: BTreeMap<String, Value>,
}

/// A cluster that joined.
#[derive(CustomResource, Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "broker.mcs.internal",
    version = "v1",
    kind = "Member",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"UID","type":"string","jsonPath":".spec.clusterUid"}"#,
    printcolumn = r#"{"name":"Revoked","type":"boolean","jsonPath":".spec.revoked"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct MemberSpec {
    /// UID of the cluster's namespace kube-system: the same cluster under another id is told by it. Empty while a join
    /// token was made for the id and nobody has used it: such a member is none yet.
    pub cluster_uid: String,
    /// What the member's endpoints may lie in; any address if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<String>,
    /// Set by the broker's admin: its records count for nothing.
    #[serde(default)]
    pub revoked: bool,
    /// What this build does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: BTreeMap<String, Value>,
}

/// A ClusterSetIP that is taken.
#[derive(CustomResource, Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "broker.mcs.internal",
    version = "v1",
    kind = "Reservation",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".spec.address"}"#,
    printcolumn = r#"{"name":"Service","type":"string","jsonPath":".spec.service"}"#,
    printcolumn = r#"{"name":"Holder","type":"string","jsonPath":".spec.holder"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ReservationSpec {
    /// The ClusterSetIP; the object's name is its [`reservation_name`].
    pub address: String,
    /// `namespace/name` of the service.
    pub service: String,
    /// Id of the member that made the reservation, the only one that may delete it.
    pub holder: String,
    /// What this build does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: BTreeMap<String, Value>,
}

/// An export, or the word of its source that it is one no more.
#[derive(CustomResource, Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "broker.mcs.internal",
    version = "v1",
    kind = "ExportRecord",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"Service","type":"string","jsonPath":".spec.name"}"#,
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.exported.type"}"#,
    printcolumn = r#"{"name":"Withdrawn","type":"boolean","jsonPath":".spec.withdrawn"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ExportRecordSpec {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The service's namespace.
    pub namespace: String,
    /// The service's name.
    pub name: String,
    /// A tombstone: the source saw the export deleted. Its slices count for nothing.
    #[serde(default)]
    pub withdrawn: bool,
    /// What is exported; as it last was in a tombstone.
    pub exported: Exported,
    /// The ClusterSetIPs that the member's import carries: taken, whatever reservations say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<String>,
    /// What this build does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: BTreeMap<String, Value>,
}

/// One EndpointSlice of an exported service, as it is at its source.
#[derive(CustomResource, Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "broker.mcs.internal",
    version = "v1",
    kind = "SliceRecord",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"Service","type":"string","jsonPath":".spec.name"}"#,
    printcolumn = r#"{"name":"Family","type":"string","jsonPath":".spec.slice.family"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct SliceRecordSpec {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The service's namespace.
    pub namespace: String,
    /// The service's name.
    pub name: String,
    /// The slice's content.
    pub slice: Endpoints,
    /// What this build does not know.
    #[serde(flatten)]
    #[schemars(skip)]
    pub other: BTreeMap<String, Value>,
}

/// What a member says with every renewal of its Lease.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// [`VERSION`] of the writer.
    #[serde(default)]
    pub version: u32,
    /// Every address that an import of this member carries has its reservation, as of the broker's present incarnation
    /// as this member sees it. Others allocate new addresses only while every healthy member says so.
    #[serde(default)]
    pub reserved: bool,
    /// What the source knew of its own API server: kept here, because a restored API server restores what it keeps itself.
    #[serde(default)]
    pub source: SourceMark,
    /// Digest of the names of all records that this member means to have at the broker, tombstones left out (the sum of
    /// their hashes, in hexadecimal); none while it does not know. A reader that sees just these knows that what else it
    /// remembers is gone because the source withdrew it, and not because the broker lost it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<String>,
    /// Ids of the members that this one knew of: one of them that has no Member object any more, where this word is still
    /// there, was removed by the broker's admin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// A number that no renewal of this member had before: a broker that was restored gives resourceVersions again. 0 from
    /// writers that do not know of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub serial: u64,
    /// The last word of a member that left: it carries nothing, publishes nothing, and nobody waits for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How a source tells that its own API server went back in time, or is another one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceMark {
    /// UID of the CRD of ServiceExport.
    #[serde(default)]
    pub crd_uid: String,
    /// UID of the namespace kube-system.
    #[serde(default)]
    pub cluster_uid: String,
    /// The highest resourceVersion that ServiceExports, or a list of them, had.
    #[serde(default)]
    pub resource_version: u64,
    /// Withdrawals are held: the rest is how its API server was before.
    #[serde(default)]
    pub holding: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_addresses_are_names_of_objects() {
        assert_eq!(reservation_name("10.97.3.4".parse().unwrap()), "10-97-3-4");
        assert_eq!(reservation_name("fd00::1".parse().unwrap()), "fd00-0000-0000-0000-0000-0000-0000-0001");
    }

    #[test]
    fn what_a_build_does_not_know_survives_it() {
        let newer = serde_json::json!({
            "version": 1, "namespace": "shop", "name": "cart", "withdrawn": false, "tier": "gold",
            "exported": {"created": 5, "type": "ClusterSetIP"}
        });
        let record: ExportRecordSpec = serde_json::from_value(newer.clone()).unwrap();
        assert_eq!(serde_json::to_value(record).unwrap(), newer);
    }
}
