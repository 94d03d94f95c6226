//! A service as its names tell it: made anew whenever its import or one of its slices changes, and then only read.
//!
//! ```text
//!  import ┐            ┌─ ClusterSetIP: its addresses and ports      ──► <svc>.<ns>.svc.<zone>
//!  slices ┴─ compile ──┤  Headless: all ready addresses by family    ──►   "
//!                      └─ hosts, sorted by name: addresses and ports ──► <hostname>.<clusterid>.<svc>.<ns>.svc.<zone>
//! ```

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::name::push_label;
use crate::model::{self, Protocol};

/// What SRV records name below a service: `_<name>._<transport>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Port {
    /// Lower case, empty for an unnamed port.
    pub name: Box<[u8]>,
    /// `tcp`, `udp` or `sctp`.
    pub transport: &'static [u8],
    /// What clients dial: of a service its own port, of an endpoint that which the pod listens on.
    pub number: u16,
}

/// A service that names lead to.
#[derive(Debug)]
pub struct Service {
    /// How clients reach it.
    pub kind: Kind,
    /// Its ready endpoints by name, sorted.
    pub hosts: Box<[Host]>,
    /// The different lists of ports that endpoints have.
    lists: Box<[Box<[Port]>]>,
    /// Where the next answer of each kind begins.
    turns: [AtomicUsize; 3],
}

/// Kinds of answers that take turns each for itself: clients ask for both families, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// A records.
    V4,
    /// AAAA records.
    V6,
    /// SRV records.
    Srv,
}

/// How clients reach a service.
#[derive(PartialEq, Eq, Debug)]
pub enum Kind {
    /// By its ClusterSetIPs.
    ClusterSetIp {
        /// The IPv4 one.
        v4: Option<Ipv4Addr>,
        /// The IPv6 one.
        v6: Option<Ipv6Addr>,
        /// Its ports.
        ports: Box<[Port]>,
    },
    /// By its endpoints.
    Headless {
        /// The IPv4 addresses of all ready endpoints, each once.
        v4: Box<[Ipv4Addr]>,
        /// The IPv6 addresses of all ready endpoints, each once.
        v6: Box<[Ipv6Addr]>,
    },
}

/// All ready endpoints of one name in one cluster: those of several families, or with a hostname in common.
#[derive(PartialEq, Eq, Debug)]
pub struct Host {
    /// `<hostname>.<clusterid>`, in wire form without a root label.
    pub name: Box<[u8]>,
    /// Its endpoints.
    pub endpoints: Box<[Endpoint]>,
}

/// An address of a [`Host`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Endpoint {
    /// The address.
    pub addr: IpAddr,
    /// Which list of ports it has: for [`Service::ports`].
    list: u32,
}

impl Kind {
    /// The ClusterSetIPs.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (v4, v6) = match self {
            Self::ClusterSetIp { v4, v6, ports: _ } => (*v4, *v6),
            Self::Headless { .. } => (None, None),
        };
        v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6))
    }
}

impl Service {
    /// The ports of an endpoint.
    #[must_use]
    pub fn ports(&self, endpoint: &Endpoint) -> &[Port] {
        self.lists.get(endpoint.list as usize).map_or(&[], |list| list)
    }

    /// A host by its `<hostname>.<clusterid>` in wire form.
    #[must_use]
    pub fn host(&self, name: &[u8]) -> Option<&Host> {
        let at = self.hosts.binary_search_by(|host| (*host.name).cmp(name)).ok()?;
        self.hosts.get(at)
    }

    /// A number that is one more at each call: answers begin each at another record, in turns.
    #[must_use]
    pub fn turn(&self, of: Turn) -> usize {
        let [v4, v6, srv] = &self.turns;
        let turn = match of {
            Turn::V4 => v4,
            Turn::V6 => v6,
            Turn::Srv => srv,
        };
        turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// What an import says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Imported {
    ClusterSetIp { v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>, ports: Box<[Port]> },
    Headless,
}

/// What names need of an EndpointSlice: its ready endpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Part {
    cluster: Arc<str>,
    ports: Box<[Port]>,
    endpoints: Box<[(IpAddr, Option<Arc<str>>)]>,
}

impl From<&model::Import> for Imported {
    fn from(import: &model::Import) -> Self {
        let programmed = import.ports.iter().map(|port| named(&port.name, transport(port.protocol), port.port));
        let sctp = import.sctp.iter().map(|port| named(&port.name, SCTP, port.port));
        Self::ClusterSetIp {
            v4: import.vips.iter().find_map(only_v4),
            v6: import.vips.iter().find_map(only_v6),
            ports: programmed.chain(sctp).collect(),
        }
    }
}

impl From<&model::Slice> for Part {
    fn from(slice: &model::Slice) -> Self {
        let model::SliceNames { hostnames, further, sctp } = &slice.names;
        let hostnames: HashMap<u32, &Arc<str>> = hostnames.iter().map(|(at, name)| (*at, name)).collect();
        let mut endpoints = Vec::with_capacity(slice.endpoints.len());
        let mut further = further.iter().peekable();
        for (endpoint, at) in slice.endpoints.iter().zip(0u32..) {
            let hostname = hostnames.get(&at).map(|name| Arc::clone(name));
            let mut push = |addr: mcs_ebpf::Addr| {
                if endpoint.ready {
                    endpoints.push((addr.ip(), hostname.clone()));
                }
            };
            push(endpoint.addr);
            while let Some((_, addr)) = further.next_if(|(of, _)| *of == at) {
                push(*addr);
            }
        }
        let programmed = slice.ports.iter().map(|port| named(&port.name, transport(port.protocol), port.port.host()));
        let sctp = sctp.iter().map(|port| named(&port.name, SCTP, port.port));
        Self {
            cluster: Arc::clone(&slice.cluster),
            ports: programmed.chain(sctp).collect(),
            endpoints: endpoints.into_boxed_slice(),
        }
    }
}

/// Puts a service together. Costs as much as the service is large.
pub(super) fn compile<'p>(imported: &Imported, parts: impl Iterator<Item = &'p Part>) -> Service {
    let mut lists: Vec<Box<[Port]>> = Vec::new();
    let mut hosts: BTreeMap<Vec<u8>, Vec<Endpoint>> = BTreeMap::new();
    for part in parts {
        let list = lists.iter().position(|list| *list == part.ports).unwrap_or_else(|| {
            lists.push(part.ports.clone());
            lists.len() - 1
        });
        let list = u32::try_from(list).unwrap_or(u32::MAX);
        for (addr, hostname) in &part.endpoints {
            let mut name = Vec::with_capacity(40);
            match hostname {
                Some(hostname) => push_label(&mut name, hostname),
                None => push_label(&mut name, &dashed(*addr)),
            }
            part.cluster.split('.').for_each(|label| push_label(&mut name, label));
            let endpoints = hosts.entry(name).or_default();
            // while slices are rearranged, an endpoint may be in two of them
            let endpoint = Endpoint { addr: *addr, list };
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
    }
    let kind = match imported {
        Imported::ClusterSetIp { v4, v6, ports } => Kind::ClusterSetIp { v4: *v4, v6: *v6, ports: ports.clone() },
        Imported::Headless => {
            let (mut v4, mut v6) = (Vec::new(), Vec::new());
            for endpoint in hosts.values().flatten() {
                match endpoint.addr {
                    IpAddr::V4(addr) => v4.push(addr),
                    IpAddr::V6(addr) => v6.push(addr),
                }
            }
            v4.sort_unstable();
            v4.dedup();
            v6.sort_unstable();
            v6.dedup();
            Kind::Headless { v4: v4.into_boxed_slice(), v6: v6.into_boxed_slice() }
        }
    };
    let hosts = hosts.into_iter().map(|(name, endpoints)| Host { name: name.into(), endpoints: endpoints.into() });
    Service { kind, hosts: hosts.collect(), lists: lists.into(), turns: Default::default() }
}

/// The address if it is an IPv4 one.
pub(super) fn only_v4(ip: &IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    }
}

/// The address if it is an IPv6 one.
pub(super) fn only_v6(ip: &IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(*ip),
    }
}

const SCTP: &[u8] = b"sctp";

const fn transport(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Tcp => b"tcp",
        Protocol::Udp => b"udp",
    }
}

fn named(name: &str, transport: &'static [u8], number: u16) -> Port {
    Port { name: name.to_ascii_lowercase().into_bytes().into(), transport, number }
}

/// The name of an endpoint that has none, as CoreDNS makes it: `10-0-0-1`, `fd00--1`, and `fd00--0` for `fd00::`, as a
/// label may not end with a dash.
fn dashed(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(addr) => addr.to_string().replace('.', "-"),
        IpAddr::V6(addr) => {
            let text = addr.to_string().replace([':', '.'], "-");
            if text.ends_with('-') { text + "0" } else { text }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_without_a_hostname_are_named_by_their_address() {
        for (addr, name) in [
            ("10.0.0.1", "10-0-0-1"),
            ("2001:db8::1", "2001-db8--1"),
            ("2001:db8::", "2001-db8--0"),
            ("fd00:0:0:1:2:3:4:5", "fd00--1-2-3-4-5"),
        ] {
            assert_eq!(dashed(addr.parse().unwrap()), name);
        }
    }

    #[test]
    fn the_same_endpoint_in_two_slices_is_one() {
        let part = |list: &[&str]| Part {
            cluster: "east".into(),
            ports: Box::new([named("http", b"tcp", 80)]),
            endpoints: list.iter().map(|addr| (addr.parse().unwrap(), None)).collect(),
        };
        let parts = [part(&["10.0.0.2", "10.0.0.1"]), part(&["10.0.0.2"])];
        let service = compile(&Imported::Headless, parts.iter());
        assert_eq!(service.hosts.len(), 2);
        assert!(service.hosts.iter().all(|host| host.endpoints.len() == 1));
        assert_eq!(
            service.kind,
            Kind::Headless { v4: Box::new([[10, 0, 0, 1].into(), [10, 0, 0, 2].into()]), v6: Box::new([]) }
        );
        assert!(service.host(b"\x0810-0-0-1\x04east").is_some());
        assert!(service.host(b"\x0810-0-0-1\x04west").is_none());
    }
}
