//! Whom the broker's list of members admits: one cluster for each id, one id for each cluster, no addresses twice.

use ipnet::IpNet;
use thiserror::Error;

use crate::clusterset::record::MemberSpec;
use crate::clusterset::vip::overlap;

/// Why the broker's list of members does not admit a cluster.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// Another cluster has the id.
    #[error(
        "cluster id {cluster}: is taken by the cluster with UID {uid}: give this cluster another id, or let that one leave"
    )]
    Duplicate {
        /// The id.
        cluster: String,
        /// UID of kube-system in the one that has it.
        uid: String,
    },
    /// The cluster is a member already, under another id.
    #[error("cluster id {wanted}: this cluster is a member as {cluster}: let it leave first")]
    AlreadyMember {
        /// The id that it asks for.
        wanted: String,
        /// The id that it has.
        cluster: String,
    },
    /// The broker's admin revoked its membership.
    #[error("cluster id {0}: its membership was revoked by the broker's admin")]
    Revoked(String),
    /// Its pods' addresses are another member's.
    #[error("pod CIDR {cidr}: overlaps {other} of member {cluster}")]
    PodCidr {
        /// The CIDR.
        cidr: IpNet,
        /// What it overlaps.
        other: IpNet,
        /// Whose that is.
        cluster: String,
    },
}

/// Whether the cluster with this UID of kube-system may be, or become, a member under this id, whose pods are in these
/// CIDRs. Itself among the members, it is admitted again. O(members).
///
/// # Errors
/// Why not.
pub fn admit<'a>(
    cluster: &str,
    cluster_uid: &str,
    pod_cidrs: &[IpNet],
    members: impl IntoIterator<Item = (&'a str, &'a MemberSpec)>,
) -> Result<(), Refusal> {
    for (id, member) in members {
        match (id == cluster, member.cluster_uid == cluster_uid) {
            (true, true) if member.revoked => return Err(Refusal::Revoked(cluster.to_owned())),
            (true, true) => continue,
            (true, false) => {
                return Err(Refusal::Duplicate { cluster: cluster.to_owned(), uid: member.cluster_uid.clone() });
            }
            (false, _) if member.revoked => continue,
            (false, true) => {
                return Err(Refusal::AlreadyMember { wanted: cluster.to_owned(), cluster: id.to_owned() });
            }
            (false, false) => {}
        }
        // What cannot be read is that member's problem, and reported as its own.
        for other in member.pod_cidrs.iter().filter_map(|cidr| cidr.parse::<IpNet>().ok()) {
            if let Some(cidr) = pod_cidrs.iter().find(|cidr| overlap(**cidr, other)) {
                return Err(Refusal::PodCidr { cidr: *cidr, other, cluster: id.to_owned() });
            }
        }
    }
    Ok(())
}
