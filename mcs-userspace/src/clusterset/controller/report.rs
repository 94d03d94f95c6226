//! What the controller says of itself: `mcs status`, metrics and the log are made from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// The ClusterSet as this member sees it.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether this process writes. A follower knows the same and writes nothing.
    pub leader: bool,
    /// This cluster's id, if it is a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The ClusterSet's id, if it is a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusterset: Option<String>,
    /// Why it is not a member, or why that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<String>,
    /// Whether everything of the member's own API server was listed.
    pub local_synced: bool,
    /// Whether everything of the broker was listed, and its watches stand.
    pub broker_connected: bool,
    /// Whether everything of the broker was listed at least once.
    pub broker_synced: bool,
    /// Where ClusterSetIPs come from.
    pub cidrs: Vec<String>,
    /// Every registered member, by id.
    pub members: BTreeMap<String, MemberReport>,
    /// More than half of the members fell silent at once: none is taken for dead for now.
    pub deaths_held: bool,
    /// Services that this cluster exports.
    pub exports: usize,
    /// Services that this cluster imports.
    pub imports: usize,
    /// Imported EndpointSlices.
    pub slices: usize,
    /// Withdrawals that wait for their objects' return, or for `mcs approve-withdrawal`, and why.
    pub held: Vec<Held>,
    /// Imports that still have endpoints of dead members, for want of others: service and members.
    pub stale: BTreeMap<String, Vec<String>>,
    /// Services for which no address was left, and of which family.
    pub exhausted: BTreeMap<String, Vec<String>>,
    /// Whether every address that an import carries has its reservation.
    pub reserved: bool,
    /// Services that wait for an address because not every healthy member has said that its own are reserved.
    pub waiting: usize,
    /// Writes under way.
    pub in_flight: usize,
    /// Writes that failed and are tried again, with the last reason.
    pub retrying: BTreeMap<String, String>,
    /// What is wrong with which object.
    pub problems: Vec<Problem>,
}

/// A member, as this one sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberReport {
    /// `healthy`, `suspect`, `dead`; `self` for this one; `revoked`; `unknown` for one that is being removed.
    pub health: String,
    /// Services that it exports.
    pub exports: usize,
    /// Its statement says that its addresses are reserved.
    pub reserved: bool,
    /// The record version that it writes.
    pub version: u32,
}

/// A withdrawal that waits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// `namespace/name`, or empty for all.
    pub service: String,
    /// Why.
    pub reason: String,
}
