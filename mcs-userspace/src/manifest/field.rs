//! The rules for single values: names, addresses, ports.

use std::net::IpAddr;

use super::lax::quoted;
use crate::model::Protocol;

/// A DNS label (RFC 1123): what namespaces, services, ports and clusters are called.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn dns_label(text: &str) -> Result<(), String> {
    label(text).map_err(|why| format!("{} is no DNS label: {why}", quoted(text)))
}

/// A DNS name of several labels: what an EndpointSlice is called.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn dns_name(text: &str) -> Result<(), String> {
    if text.len() > 253 {
        return Err(format!("{} is no DNS name: longer than 253 characters", quoted(text)));
    }
    text.split('.').try_for_each(label).map_err(|why| format!("{} is no DNS name: {why}", quoted(text)))
}

/// A cluster's id. KEP-1645 allows a dot in it; the maps have room for 63 bytes.
///
/// # Errors
/// What is wrong with it.
pub(super) fn cluster_id(text: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err(format!("{} is no cluster id: longer than 63 characters", quoted(text)));
    }
    text.split('.').try_for_each(label).map_err(|why| format!("{} is no cluster id: {why}", quoted(text)))
}

fn label(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("empty");
    }
    if text.len() > 63 {
        return Err("longer than 63 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err("only a-z, 0-9 and '-' are allowed");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err("a '-' may not be at its ends");
    }
    Ok(())
}

/// An address that pods or ClusterSetIPs may have.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_not_an_address| format!("{} is no IP address", quoted(text))).and_then(assignable)
}

/// An address that pods or ClusterSetIPs may have, once it is read.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn assignable(ip: IpAddr) -> Result<IpAddr, String> {
    let kind = match ip {
        ip if ip.is_unspecified() => "unspecified",
        ip if ip.is_loopback() => "a loopback address",
        ip if ip.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_link_local() => "a link-local address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local address",
        // the maps keep IPv4 in this form: it would alias the IPv4 address
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4 address in IPv6 form: write it as IPv4",
        IpAddr::V4(_) | IpAddr::V6(_) => return Ok(ip),
    };
    Err(format!("{ip} is {kind}"))
}

/// The name of an address's family, as `addressType` spells it.
pub(super) fn family(ip: &IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// A port number.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn port(number: i64) -> Result<u16, String> {
    u16::try_from(number).ok().filter(|port| *port != 0).ok_or_else(|| format!("{number} is not in 1..=65535"))
}

/// What a port's `protocol` says.
pub(super) enum Transport {
    /// One that is programmed.
    Programmed(Protocol),
    /// SCTP: has names, and is not programmed.
    Sctp,
}

/// The protocol of a port; TCP where none is written.
///
/// # Errors
/// What is wrong with it.
pub(super) fn protocol(text: Option<&str>) -> Result<Transport, String> {
    match text {
        None | Some("" | "TCP") => Ok(Transport::Programmed(Protocol::Tcp)),
        Some("UDP") => Ok(Transport::Programmed(Protocol::Udp)),
        Some("SCTP") => Ok(Transport::Sctp),
        Some(other) => Err(format!("{} is none of TCP, UDP, SCTP", quoted(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for good in ["a", "a-b", "0", "x".repeat(63).as_str()] {
            assert_eq!(dns_label(good), Ok(()));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", "x".repeat(64).as_str()] {
            assert!(dns_label(bad).is_err(), "{bad}");
        }
        assert_eq!(dns_name("a.b-c.d"), Ok(()));
        assert!(dns_name("a..b").is_err());
        assert!(dns_name(&"a.".repeat(200)).is_err());
        assert_eq!(cluster_id("east.eu"), Ok(()));
        assert!(cluster_id(&"a.".repeat(40)).is_err());
    }

    #[test]
    fn addresses() {
        for good in ["10.0.0.1", "240.0.0.1", "fd00::1", "FD00::1", "2001:db8::1"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "10.0.0",
            "010.0.0.1",
            "0.0.0.0",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
        for bad in ["fe80::1", "ff02::1", "::ffff:10.0.0.1", "fd00::1%eth0", "10.0.0.1/32"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
