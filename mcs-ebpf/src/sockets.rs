//! Reverse state of connected sockets: which frontend a socket was translated from.
//!
//! Neither a hash nor socket storage: an array indexed by the low bits of the socket's cookie. The kernel hands cookies
//! out in sequence (`__sock_gen_cookie`, in batches per CPU), so N entries hold the last N translated sockets, give or
//! take. A connect writes one cache line, and nothing has to be deleted, ever.
//!
//! ```text
//!  set[low bits of the cookie]: four entries of { word0, word1 }, one cache line; among entries that are worth the same
//!  the cookie's next two bits choose, so that each has its turn and none becomes a fossil
//!     word1 = service 20 | generation 10 | used 1 | udp 1 | hash of the backend's address and port 32
//!     word0 = cookie XOR mix(word1 without `used`)
//! ```
//!
//! One comparison of word0 proves that cookie and word1 belong together, so writers that race need no lock: an entry
//! torn between two of them reads as none. `used` lies outside the mix, so that setting it is a single store.
//!
//! A reader translates only when the peer that the socket has *now* hashes to the backend in the entry. So a socket that
//! connected elsewhere later needs no clean-up, and a miss on the connect path stays free.

use crate::{Addr, PortBe};

/// Entries of a set.
pub const WAYS: usize = 4;

/// One socket's entry; all zero while free.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// Cookie XOR [`mix`] of `word1` without [`USED`].
    pub word0: u64,
    /// Service, generation, [`USED`], [`IS_UDP`] and the backend's hash.
    pub word1: u64,
}

/// A cache line of entries.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Set {
    /// In no order.
    pub entries: [Entry; WAYS],
}

/// Set by `recvmsg`, cleared when a replacement passes by: second chance for sockets that live long and work.
pub const USED: u64 = 1 << 30;
/// The socket is a UDP one: replaced only after the TCP ones, which only `getpeername` reads.
pub const IS_UDP: u64 = 1 << 31;

const SERVICE_BITS: u32 = 20;
const GENERATION_BITS: u32 = 10;

/// The bits of a service's generation that an entry has room for.
pub const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

/// Service index of a `word1`.
#[inline(always)]
#[must_use]
pub const fn service(word1: u64) -> u32 {
    word1 as u32 & ((1 << SERVICE_BITS) - 1)
}

/// Low bits of the service's generation in a `word1`.
#[inline(always)]
#[must_use]
pub const fn generation(word1: u64) -> u32 {
    (word1 >> SERVICE_BITS) as u32 & GENERATION_MASK
}

/// The backend's hash in a `word1`.
#[inline(always)]
#[must_use]
pub const fn backend(word1: u64) -> u32 {
    (word1 >> 32) as u32
}

/// The `word1` of a socket translated to a backend (by its [`backend_hash`]) of a service.
#[inline(always)]
#[must_use]
pub const fn word1(service: u32, generation: u32, is_udp: bool, backend: u32) -> u64 {
    (service as u64 & ((1 << SERVICE_BITS) - 1))
        | ((generation & GENERATION_MASK) as u64) << SERVICE_BITS
        | if is_udp { IS_UDP } else { 0 }
        | (backend as u64) << 32
}

/// Spreads `word1` over 64 bits. `mix(0)` is 0 and no cookie is 0: a free entry is nobody's.
#[inline(always)]
#[must_use]
pub const fn mix(word1: u64) -> u64 {
    let x = (word1 & !USED).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^ (x >> 32)
}

/// The `word0` that ties a cookie to a `word1`.
#[inline(always)]
#[must_use]
pub const fn word0(cookie: u64, word1: u64) -> u64 {
    cookie ^ mix(word1)
}

/// 32 bits for a backend: two multiplications that do not wait for each other, whose upper halves depend on every bit.
/// The port is a word, as programs hold it.
#[inline(always)]
#[must_use]
pub const fn backend_hash(addr: Addr, port_be: u32) -> u32 {
    let w = addr.words_be;
    let high = (w[1] as u64) << 32 | (w[0] ^ port_be) as u64;
    let low = (w[2] as u64) << 32 | w[3] as u64;
    ((high.wrapping_mul(0xc4ce_b9fe_1a85_ec53) ^ low.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 32) as u32
}

/// [`backend_hash`] for userspace types.
#[must_use]
pub const fn backend_hash_of(addr: Addr, port: PortBe) -> u32 {
    backend_hash(addr, port.0 as u32)
}

/// The set of a socket, of 2 to the power `bits`.
#[inline(always)]
#[must_use]
pub const fn set(cookie: u64, bits: u32) -> u32 {
    (cookie & ((1 << bits) - 1)) as u32
}

/// The entry of its set whose turn it is: the socket that comes N cookies later has the same, and no other within N.
#[inline(always)]
#[must_use]
pub const fn way(cookie: u64, bits: u32) -> usize {
    (cookie >> bits) as usize & (WAYS - 1)
}

/// How much an entry is worth keeping: free 0, TCP 1, unused UDP 2, used UDP 3.
#[inline(always)]
#[must_use]
pub const fn worth(entry: Entry) -> u32 {
    if entry.word1 == 0 {
        0
    } else if entry.word1 & IS_UDP == 0 {
        1
    } else if entry.word1 & USED == 0 {
        2
    } else {
        3
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_entry_names_its_socket_and_nothing_else(cookie in 1u64.., other in 1u64.., svc in 0u32..1 << 20, gen_ in 1u32..1024, udp: bool, hash: u32) {
            let w1 = word1(svc, gen_, udp, hash);
            let w0 = word0(cookie, w1);
            prop_assert_eq!(w0 ^ mix(w1), cookie);
            prop_assert_eq!(w0 ^ mix(w1 | USED), cookie);
            prop_assert_eq!((service(w1), generation(w1), backend(w1)), (svc, gen_, hash));
            prop_assert!(other == cookie || w0 ^ mix(w1) != other);
        }

        /// Two writers that race may leave the words of both: such an entry must not read as either socket's.
        #[test]
        fn a_torn_entry_reads_as_none(a in 1u64..1 << 40, b in 1u64..1 << 40, s1 in 0u32..1000, s2 in 0u32..1000, h1: u32, h2: u32) {
            let (x, y) = (word1(s1, 1, true, h1), word1(s2, 1, true, h2));
            prop_assume!(x != y);
            let torn = word0(a, x) ^ mix(y);
            prop_assert!(torn != a && torn != b || a == b);
        }
    }

    #[test]
    fn as_many_sockets_in_sequence_as_there_are_entries_have_one_each() {
        for bits in [0, 1, 8, 16] {
            let entries = WAYS << bits;
            let places = (1000..).take(entries).map(|cookie| (set(cookie, bits), way(cookie, bits)));
            assert_eq!(places.collect::<std::collections::HashSet<_>>().len(), entries);
        }
    }

    #[test]
    fn backends_of_one_service_rarely_share_a_hash() {
        let mut seen = std::collections::HashSet::new();
        let mut collisions = 0;
        for a in 0..64u8 {
            for b in 0..=255u8 {
                for port in [80u16, 8080, 53] {
                    let hash = backend_hash_of(Addr::from(IpAddr::from([10, a, 0, b])), PortBe::new(port));
                    collisions += u32::from(!seen.insert(hash));
                }
            }
        }
        // 49 152 values of 2³²: 0.28 collisions are expected of a random function
        assert!(collisions <= 5, "{collisions} collisions");
    }
}
