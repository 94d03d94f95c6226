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

use ipnet::IpNet;

pub use self::cidrs::{Agreed, CidrError, MAX_CIDRS_PER_FAMILY, agree, check_unused, overlap, parse_cidr, parse_cidrs};
use super::liveness::Health;
use super::service::Family;
use crate::model::ObjectKey;

mod cidrs;
#[cfg(test)]
mod tests;

/// How many addresses of a CIDR are tried. Every one of a /16 is; in a larger one that has less than 99.9 % taken, this
/// many tries find a free address but for one time in 10²⁸.
const MAX_TRIES: u128 = 1 << 16;

/// Of a larger CIDR only the first 2⁶⁴ addresses are used.
const MAX_BITS: u32 = 64;

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
