//! Addresses and ports, always in network byte order.
//!
//! One type serves both families: an IPv4 address is kept in its IPv4-mapped form `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2),
//! which is also what an `AF_INET6` socket shows of an IPv4 peer. So maps need one key layout and programs one code
//! path, and a v4 hook and a v6 hook that see the same socket agree about it.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An IPv6 or IPv4-mapped address. The words hold network order in memory, as `bpf_sock_addr` hands them out.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Addr {
    /// The 16 bytes of the address as four words, network order in memory.
    pub words_be: [u32; 4],
}

/// The third word of every IPv4-mapped address, `00 00 ff ff` in memory.
pub const MAPPED_WORD_BE: u32 = 0xffff_u32.to_be();

impl Addr {
    /// The mapped form of an IPv4 address given as a network-order word.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4_be(v4_be: u32) -> Self {
        Self { words_be: [0, 0, MAPPED_WORD_BE, v4_be] }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.words_be[0] == 0 && self.words_be[1] == 0 && self.words_be[2] == MAPPED_WORD_BE
    }

    /// The IPv4 address as a network-order word; meaningful when [`Addr::is_v4`].
    #[inline(always)]
    #[must_use]
    pub const fn v4_be(&self) -> u32 {
        self.words_be[3]
    }

    /// The standard library's address, IPv4 unmapped.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::from(self.words_be[3].to_ne_bytes()))
        } else {
            IpAddr::V6(Ipv6Addr::from(self.octets()))
        }
    }

    /// The address's bytes in network order.
    #[must_use]
    pub fn octets(&self) -> [u8; 16] {
        let mut octets = [0; 16];
        let mut i = 0;
        while i < 4 {
            let word = self.words_be[i].to_ne_bytes();
            octets[i * 4] = word[0];
            octets[i * 4 + 1] = word[1];
            octets[i * 4 + 2] = word[2];
            octets[i * 4 + 3] = word[3];
            i += 1;
        }
        octets
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let word = |i: usize| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
        Self { words_be: [word(0), word(4), word(8), word(12)] }
    }
}

impl PartialOrd for Addr {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Addr {
    /// As numbers, so that sorted output reads naturally.
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.words_be.map(u32::from_be).cmp(&other.words_be.map(u32::from_be))
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.ip(), f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A transport port in network order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PortBe(pub u16);

impl PortBe {
    /// From a port number as people write it.
    #[must_use]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// The port number as people write it.
    #[must_use]
    pub const fn host(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl PartialOrd for PortBe {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PortBe {
    /// By port number, so that sorted output reads naturally.
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.host().cmp(&other.host())
    }
}

impl fmt::Display for PortBe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.host(), f)
    }
}

impl fmt::Debug for PortBe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address and port as people write them, IPv6 in brackets.
#[must_use]
pub fn socket_addr(addr: Addr, port: PortBe) -> SocketAddr {
    SocketAddr::new(addr.ip(), port.host())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["10.1.2.3", "255.255.255.255", "0.0.0.0", "fd00::1", "::", "2001:db8::ff"] {
            let ip: IpAddr = text.parse().unwrap();
            let addr = Addr::from(ip);
            assert_eq!(addr.ip(), ip);
            assert_eq!(addr.is_v4(), ip.is_ipv4());
            assert_eq!(addr.to_string(), text);
        }
    }

    #[test]
    fn words_are_in_network_order() {
        let addr = Addr::from(IpAddr::from([10, 1, 2, 3]));
        assert_eq!(addr.v4_be().to_ne_bytes(), [10, 1, 2, 3]);
        assert_eq!(addr, Addr::from_v4_be(u32::from_ne_bytes([10, 1, 2, 3])));
        assert_eq!(PortBe::new(0x1234).0.to_ne_bytes(), [0x12, 0x34]);
    }
}
