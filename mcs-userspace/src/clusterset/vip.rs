//! ClusterSetIPs: which CIDRs they come from, which address a service tries first, and who may take or free one.
//!
//! ```text
//!  namespace/name ──hash──► candidate, candidate, … ──first not taken──► Reservation named after it, at the broker
//!                           the same order everywhere                    created: ours   exists: the next one
//! ```
//!
//! One address of each family, the same in every cluster, and the same as long as the import lives. The broker's unique
//! names make the allocation atomic; no leader is needed. **An address that an import carries wins**: it counts as taken
//! with or without a reservation, and after the broker was emptied or restored it is reserved again before anything new is.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use super::liveness::Health;
use super::service::Family;
use crate::model::ObjectKey;

/// How many CIDRs of each family a ClusterSet may have: each is a range that every node of every member claims.
pub const MAX_CIDRS_PER_FAMILY: usize = 4;

/// How many addresses of a CIDR are tried. Every one of a /16 is; in a larger one that has less than 99.9 % taken, this
/// many tries find a free address but for one time in 10²⁸.
const MAX_TRIES: u128 = 1 << 16;

/// Of a larger CIDR only the first 2⁶⁴ addresses are used.
const MAX_BITS: u32 = 64;

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

/// Candidate addresses of a service in a CIDR, in the order in which they are tried, each once, at most 65536 of them.
/// Network and broadcast address (RFC 1122 3.2.1.3) and the subnet-router anycast address (RFC 4291 2.6.1) are left out
/// where a CIDR is large enough to have them (RFC 3021, RFC 6164).
pub fn candidates(cidr: IpNet, service: &ObjectKey) -> impl Iterator<Item = IpAddr> {
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
    let size = 1_u128 << bits.min(MAX_BITS);
    let (first, last) = match cidr {
        _ if bits < 2 => (0, size - 1),
        IpNet::V4(_) => (1, size - 2),
        IpNet::V6(_) => (1, size - 1),
    };
    let count = last - first + 1;
    let hash = u128::from(hash(service));
    let step = step(u128::from(mix(hash as u64)), count);
    (0..count.min(MAX_TRIES)).map(move |i| address(cidr, first + (hash + i * step) % count))
}

/// The first candidate that is not taken, in the first CIDR of the family that has one; none if they are exhausted.
pub fn choose(cidrs: &[IpNet], family: Family, service: &ObjectKey, taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let of_family = cidrs.iter().filter(|cidr| Family::of(cidr.addr()) == family);
    of_family.flat_map(|cidr| candidates(*cidr, service)).find(|address| !taken(*address))
}

/// FNV-1a over `namespace/name`, mixed: the same in every build, unlike the standard library's hash.
fn hash(service: &ObjectKey) -> u64 {
    let bytes = service.namespace.bytes().chain([b'/']).chain(service.name.bytes());
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// The finalizer of SplitMix64.
const fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The first step from a wish on that visits every one of `count` places: one that has no divisor in common with it.
fn step(wish: u128, count: u128) -> u128 {
    const fn gcd(a: u128, b: u128) -> u128 {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    let wish = wish % count;
    (wish..).find(|step| gcd(*step, count) == 1).unwrap_or(1)
}

fn address(cidr: IpNet, offset: u128) -> IpAddr {
    match cidr {
        // An offset in a CIDR has no more bits than the address.
        IpNet::V4(net) => IpAddr::V4((u32::from(net.network()) | offset as u32).into()),
        IpNet::V6(net) => IpAddr::V6((u128::from(net.network()) | offset).into()),
    }
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
    let set = |cidrs: &[IpNet]| cidrs.iter().copied().collect::<std::collections::BTreeSet<_>>();
    let list = |cidrs: &[IpNet]| cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match (fixed, given) {
        ([], []) => Ok(Agreed::None),
        ([], _) => Ok(Agreed::Fix),
        (_, []) => Ok(Agreed::Fixed),
        _ if set(fixed) == set(given) => Ok(Agreed::Fixed),
        _ => Err(CidrError::Different { given: list(given), fixed: list(fixed) }),
    }
}

/// What a member says of its own addresses, as the observer knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word<'a> {
    /// Id of the member.
    pub cluster: &'a str,
    /// Only the healthy are waited for.
    pub health: Health,
    /// It says so in its lease: [`super::record::Statement::reserved`].
    pub reserved: bool,
    /// The lease was renewed in the broker's present content: [`super::liveness::Liveness::renewed`]. A restored
    /// broker's leases say what was true of another one.
    pub renewed: bool,
}

/// The healthy members whose word is still missing that all addresses that they carry are reserved. A new address is
/// allocated only when there are none.
pub fn awaited<'a>(members: impl Iterator<Item = Word<'a>>) -> impl Iterator<Item = &'a str> {
    members.filter(|word| word.health == Health::Healthy && !(word.reserved && word.renewed)).map(|word| word.cluster)
}

/// An address that somebody has for a service: by a reservation, or because an import carries it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// An import carries it, of the observer or by another member's records.
    pub carried: bool,
    /// When its reservation was created by the broker's clock, Unix seconds; none if it has none.
    pub reserved: Option<i64>,
}

/// The address of a service in a family, if there is one already: everybody who sees the same claims gets the same. What
/// imports carry comes before what is only reserved, the reserved before the unreserved, the older reservation before the
/// newer; the rest is settled by the address itself.
#[must_use]
pub fn settle(family: Family, claims: &[Claim]) -> Option<IpAddr> {
    let of_family = claims.iter().filter(|claim| Family::of(claim.address) == family);
    let first = of_family.min_by_key(|claim| {
        (!claim.carried, claim.reserved.is_none(), claim.reserved.unwrap_or_default(), claim.address)
    });
    first.map(|claim| claim.address)
}

/// Who is to do something about a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Release {
    /// Nobody: the service is exported, or its holder will see to it.
    Keep,
    /// The observer, its holder.
    Delete,
    /// The broker's admin: its holder is no member any more.
    Orphaned,
}

/// Whether a reservation is to be freed. Its holder frees it, and only after the last export of the service is gone,
/// whoever exports: a dead member's export and a held one are exports still. That the holder itself left changes nothing
/// before.
#[must_use]
pub const fn release(exported: bool, holder_is_observer: bool, holder_is_member: bool) -> Release {
    match (exported, holder_is_observer, holder_is_member) {
        (true, _, _) | (false, false, true) => Release::Keep,
        (false, true, _) => Release::Delete,
        (false, false, false) => Release::Orphaned,
    }
}
