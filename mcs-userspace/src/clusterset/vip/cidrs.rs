//! Which CIDRs a ClusterSet may have, and which it has: fixed once, at the broker.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use crate::clusterset::service::Family;

/// How many CIDRs of each family a ClusterSet may have: each is a range that every node of every member claims.
pub const MAX_CIDRS_PER_FAMILY: usize = 4;

/// What is wrong with CIDRs.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CidrError {
    /// Not a CIDR at all.
    #[error("CIDR {0:?}: not an address and a prefix length, as in 10.97.0.0/16")]
    Malformed(String),
    /// `10.0.0.1/8`: nobody knows which of the two is the mistake.
    #[error("CIDR {given}: has bits set behind its prefix: {network} is meant, or another prefix length")]
    HostBits {
        /// As given.
        given: IpNet,
        /// Without the bits.
        network: IpNet,
    },
    /// Not a range that ClusterSetIPs, or pods, can come from.
    #[error("CIDR {cidr}: overlaps {reserved}, {what}")]
    Unusable {
        /// As given.
        cidr: IpNet,
        /// What it overlaps.
        reserved: IpNet,
        /// What that is.
        what: &'static str,
    },
    /// More than [`MAX_CIDRS_PER_FAMILY`].
    #[error("{family} CIDRs: {count} given: at most {MAX_CIDRS_PER_FAMILY} are possible")]
    TooMany {
        /// Of which there are too many.
        family: Family,
        /// How many.
        count: usize,
    },
    /// Two that are given have addresses in common.
    #[error("CIDR {0}: overlaps {1}, which is given too")]
    Twice(IpNet, IpNet),
    /// A CIDR has addresses in common with what is used otherwise.
    #[error("ClusterSet CIDR {cidr}: overlaps {used}, {what}")]
    InUse {
        /// Of the ClusterSet.
        cidr: IpNet,
        /// What is in use.
        used: IpNet,
        /// For what.
        what: String,
    },
    /// Others than those that are fixed at the broker.
    #[error("ClusterSet CIDRs {given}: the ClusterSet has {fixed}, fixed at the broker and never changed")]
    Different {
        /// Joined with commas.
        given: String,
        /// Joined with commas.
        fixed: String,
    },
}

/// Reads the CIDRs of a ClusterSet.
///
/// # Errors
/// One that is malformed or that no unicast service can use, two that overlap, or too many of a family.
pub fn parse_cidrs<S: AsRef<str>>(texts: &[S]) -> Result<Vec<IpNet>, CidrError> {
    let cidrs = texts.iter().map(|text| parse_cidr(text.as_ref())).collect::<Result<Vec<_>, _>>()?;
    for family in Family::ALL {
        let count = cidrs.iter().filter(|cidr| Family::of(cidr.addr()) == family).count();
        if count > MAX_CIDRS_PER_FAMILY {
            return Err(CidrError::TooMany { family, count });
        }
    }
    for (i, cidr) in cidrs.iter().enumerate() {
        if let Some(other) = cidrs[..i].iter().find(|other| overlap(**other, *cidr)) {
            return Err(CidrError::Twice(*cidr, *other));
        }
    }
    Ok(cidrs)
}

/// Reads one CIDR of unicast addresses: of a ClusterSet, or of a member's pods.
///
/// # Errors
/// It is malformed, or overlaps a range that is no service's.
pub fn parse_cidr(text: &str) -> Result<IpNet, CidrError> {
    let Ok(cidr) = text.trim().parse::<IpNet>() else { return Err(CidrError::Malformed(text.to_owned())) };
    if cidr.trunc() != cidr {
        return Err(CidrError::HostBits { given: cidr, network: cidr.trunc() });
    }
    match unusable().into_iter().find(|(reserved, _)| overlap(*reserved, cidr)) {
        Some((reserved, what)) => Err(CidrError::Unusable { cidr, reserved, what }),
        None => Ok(cidr),
    }
}

/// RFC 6890 and its registries, as far as a packet to such an address does not reach a service.
fn unusable() -> [(IpNet, &'static str); 9] {
    let v4 = |a, b, len| IpNet::V4(Ipv4Net::new_assert([a, b, 0, 0].into(), len));
    let v6 = |segments: [u16; 8], len| IpNet::V6(Ipv6Net::new_assert(segments.into(), len));
    [
        (v4(0, 0, 8), "which is no destination"),
        (v4(127, 0, 8), "loopback"),
        (v4(169, 254, 16), "link-local"),
        (v4(224, 0, 4), "multicast"),
        (v4(240, 0, 4), "which is reserved"),
        (v6([0; 8], 127), "unspecified and loopback"),
        (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), "IPv4 in IPv6"),
        (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
        (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
    ]
}

/// Whether two CIDRs have addresses in common.
#[must_use]
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// ClusterSetIPs must not overlap what a member uses: its Services' and pods' CIDRs, say, each with what it is for.
///
/// # Errors
/// The first overlap.
pub fn check_unused<'a>(cidrs: &[IpNet], used: impl IntoIterator<Item = (IpNet, &'a str)>) -> Result<(), CidrError> {
    for (used, what) in used {
        if let Some(cidr) = cidrs.iter().find(|cidr| overlap(**cidr, used)) {
            return Err(CidrError::InUse { cidr: *cidr, used, what: what.to_owned() });
        }
    }
    Ok(())
}

/// Which CIDRs count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Agreed {
    /// Those that the broker has. Nothing is to be written.
    Fixed,
    /// The given ones: they are to be fixed at the broker now.
    Fix,
    /// Neither the broker nor the user named one: the ClusterSet has headless services only, until a join names some.
    None,
}

/// The CIDRs are fixed at the broker once; the order in which they are given does not matter.
///
/// # Errors
/// Some are given, and the broker has others.
pub fn agree(fixed: &[IpNet], given: &[IpNet]) -> Result<Agreed, CidrError> {
    let set = |cidrs: &[IpNet]| cidrs.iter().copied().collect::<BTreeSet<_>>();
    let list = |cidrs: &[IpNet]| cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match (fixed, given) {
        ([], []) => Ok(Agreed::None),
        ([], _) => Ok(Agreed::Fix),
        (_, []) => Ok(Agreed::Fixed),
        _ if set(fixed) == set(given) => Ok(Agreed::Fixed),
        _ => Err(CidrError::Different { given: list(given), fixed: list(fixed) }),
    }
}
