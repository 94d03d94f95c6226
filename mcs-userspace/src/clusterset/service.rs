//! What a cluster says of a service that it exports, and of its endpoints. The same words travel in records and come
//! from the member's own API server, so a cluster's own export and another's are merged by one code path.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{ServiceImportType, SessionAffinityConfig};

/// An address family, as Kubernetes spells it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub enum Family {
    /// RFC 791.
    IPv4,
    /// RFC 8200.
    IPv6,
}

impl Family {
    /// Both, in the order in which they are shown when nothing else orders them.
    pub const ALL: [Self; 2] = [Self::IPv4, Self::IPv6];

    /// The family of an address.
    #[must_use]
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::IPv4,
            IpAddr::V6(_) => Self::IPv6,
        }
    }

    /// `IPv4` or `IPv6`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A transport protocol that the API may name. Unlike [`crate::model::Protocol`] it has SCTP: the control plane carries
/// such ports, the dataplane leaves them out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// RFC 9293.
    #[default]
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Transport {
    /// As Kubernetes spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A port of a Service, as its export carries it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Empty for the only port of a service, if that has no name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// None given means TCP.
    #[serde(default)]
    pub protocol: Transport,
    /// What clients dial, 1..=65535.
    pub port: u16,
    /// What is spoken on it; none stays none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// Everything of a Service and its ServiceExport that the ClusterSet gets to know (KEP-1645 "Exporting Services": the
/// properties come from the Service, labels and annotations only from `spec.exported*` of the ServiceExport).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exported {
    /// `metadata.creationTimestamp` of the ServiceExport, Unix seconds: the oldest export wins a conflict.
    pub created: i64,
    /// Whether the Service has a cluster IP.
    #[serde(rename = "type")]
    pub kind: ServiceImportType,
    /// All its ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// The Service's families, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_families: Vec<Family>,
    /// `None` or `ClientIP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<String>,
    /// As the Service has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// `Cluster` or `Local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<String>,
    /// `PreferClose` and its like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<String>,
    /// `spec.exportedLabels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `spec.exportedAnnotations`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A port of an EndpointSlice: what the pods listen on.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlicePort {
    /// The name of the Service's port that it belongs to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// None given means TCP.
    #[serde(default)]
    pub protocol: Transport,
    /// 1..=65535. Ports of a slice without a number (all ports) do not occur behind a Service.
    pub port: u16,
    /// What is spoken on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// An endpoint of an EndpointSlice.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its address; `discovery/v1` allows more in one endpoint, all but the first are ignored as consumers do.
    pub address: IpAddr,
    /// `conditions.ready`, absent meaning true. Never computed anew: `publishNotReadyAddresses` shows in it.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub ready: bool,
    /// `conditions.serving`, absent meaning as `ready`.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub serving: bool,
    /// `conditions.terminating`, absent meaning false.
    #[serde(default, skip_serializing_if = "is_no")]
    pub terminating: bool,
    /// Of a StatefulSet's pods and their like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Unique in its cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Compared as plain text across clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_yes(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_no(value: &bool) -> bool {
    !*value
}

/// The endpoints of one EndpointSlice of a Service, at its source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// `addressType`; slices of type FQDN are not exported.
    pub family: Family,
    /// Named as the Service's ports are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<SlicePort>,
    /// In the slice's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// When the slice became this.
    #[serde(default, skip_serializing_if = "ChangedAt::is_unknown")]
    pub changed_at: ChangedAt,
}

/// When something became what it is at its source, Unix milliseconds by the source's clock, if that is known.
///
/// For measuring alone: all times are equal, so that no decision and no write follows from one.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ChangedAt(pub Option<i64>);

impl PartialEq for ChangedAt {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for ChangedAt {}

impl ChangedAt {
    /// Whether there is nothing to say.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        self.0.is_none()
    }
}
