//! A question to its answer: values in, values out.
//!
//! `Z` is the zone, `S` is `<svc>.<ns>.svc.Z`. Where the specification (KEP-1645, `specification.md`) and CoreDNS differ,
//! the answer is CoreDNS's, so that a client cannot tell which of them it asks; but a name that exists is never denied.
//!
//! ```text
//!  labels before Z
//!    0   Z                             SOA, NS
//!    1   dns-version | svc | pod | dns
//!    2   <ns>.svc | ns.dns
//!    3   S
//!    5   _<port>._<protocol>.S   or   <hostname>.<clusterid>.S; six with a cluster id of two labels
//! ```

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use domain::base::Rtype;

use super::name::Name;
use super::service::{Endpoint, Host, Kind, Port, Service, Turn, only_v4, only_v6};
use super::zone::Zone;

/// What is to be said to a question.
#[derive(Debug)]
pub enum Answer<'z> {
    /// REFUSED: not of this zone, or a transfer of it.
    Refused,
    /// SERVFAIL: the name is not known, and not everything that exists has been heard of.
    Unsynced,
    /// NXDOMAIN with the SOA record: there is no such name.
    NoName,
    /// NOERROR with the SOA record: the name has no such records.
    NoData,
    /// The zone's SOA record.
    Soa,
    /// The zone's NS record, and the addresses of the name server.
    NameServer,
    /// The version of the schema that names follow.
    Version,
    /// A records, to be given from a place on and then around.
    V4(Cow<'z, [Ipv4Addr]>, usize),
    /// AAAA records, to be given from a place on and then around.
    V6(Cow<'z, [Ipv6Addr]>, usize),
    /// SRV records.
    Srv(Targets<'z>),
}

/// What a name below the services tells apart.
#[derive(Clone, Copy, Debug)]
enum Asked<'z, 'n> {
    /// `S`
    Whole,
    /// `_<port>._<protocol>.S`, without underscores; empty ones are as good as any.
    Port { port: &'n [u8], transport: &'n [u8] },
    /// `<hostname>.<clusterid>.S`
    Host(&'z Host),
}

impl Asked<'_, '_> {
    fn takes(&self, port: &Port) -> bool {
        match *self {
            Self::Whole | Self::Host(_) => true,
            Self::Port { port: name, transport } => {
                (name.is_empty() || *name == *port.name) && (transport.is_empty() || *transport == *port.transport)
            }
        }
    }
}

impl Zone {
    /// Answers a question of class IN.
    #[must_use]
    pub fn lookup<'z>(&'z self, name: &'z Name, rtype: Rtype) -> Answer<'z> {
        let Some(below) = name.below(&self.settings.zone) else { return Answer::Refused };
        if matches!(rtype, Rtype::AXFR | Rtype::IXFR) {
            return Answer::Refused;
        }
        let answer = self.find(name, below, rtype);
        if matches!(answer, Answer::NoName) && !self.is_synced() { Answer::Unsynced } else { answer }
    }

    fn find<'z>(&'z self, name: &'z Name, below: usize, rtype: Rtype) -> Answer<'z> {
        let Some(root) = below.checked_sub(1) else {
            return match rtype {
                Rtype::SOA => Answer::Soa,
                Rtype::NS => Answer::NameServer,
                _ => Answer::NoData,
            };
        };
        match (name.label(root), root) {
            (b"dns-version", 0) if rtype == Rtype::TXT => Answer::Version,
            // `dns` exists for what lies below it; `pod` for CoreDNS
            (b"dns-version" | b"svc" | b"pod" | b"dns", 0) => Answer::NoData,
            (b"dns", 1) if name.label(0) == b"ns" => self.name_server(rtype),
            (b"svc", 1) if self.has_namespace(name.labels_from_to(0, 1)) => Answer::NoData,
            (b"svc", 2..) => self.below_services(name, root - 2, rtype),
            _ => Answer::NoName,
        }
    }

    fn name_server(&self, rtype: Rtype) -> Answer<'_> {
        let servers = &self.settings.name_servers;
        match rtype {
            Rtype::A => v4(servers.iter().filter_map(only_v4).collect::<Vec<_>>(), 0),
            Rtype::AAAA => v6(servers.iter().filter_map(only_v6).collect::<Vec<_>>(), 0),
            _ => Answer::NoData,
        }
    }

    /// A name at a service or below it: `at` is the service's label.
    fn below_services<'z>(&'z self, name: &'z Name, at: usize, rtype: Rtype) -> Answer<'z> {
        let Some(service) = self.service(name.labels_from_to(at, at + 2)) else { return Answer::NoName };
        let asked = match at {
            0 => Asked::Whole,
            // KEP-1645: a cluster's id alone must not be a name
            1 => return Answer::NoName,
            2 if name.label(0).starts_with(b"_") || name.label(1).starts_with(b"_") => {
                Asked::Port { port: without_underscore(name.label(0)), transport: without_underscore(name.label(1)) }
            }
            _ => match service.host(name.labels_from_to(0, at)) {
                Some(host) => Asked::Host(host),
                None => return Answer::NoName,
            },
        };
        let targets = Targets { zone: self, service, asked, below: at };
        if !targets.exist() {
            return Answer::NoName;
        }
        match rtype {
            Rtype::A => targets.v4(),
            Rtype::AAAA => targets.v6(),
            Rtype::SRV if targets.has_srv() => Answer::Srv(targets),
            _ => Answer::NoData,
        }
    }
}

/// The records of a name at a service or below it.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'z> {
    zone: &'z Zone,
    service: &'z Service,
    asked: Asked<'z, 'z>,
    /// How many labels of the name stand before the service's.
    pub below: usize,
}

/// An SRV record (RFC 2782), of priority 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SrvRecord<'z> {
    /// A hundredth of the whole where there are few, and never 0, as CoreDNS says it.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The `<hostname>.<clusterid>` of the target in wire form; empty for the service itself.
    pub target: &'z [u8],
}

impl<'z> Targets<'z> {
    /// Whether the name exists.
    fn exist(&self) -> bool {
        match (&self.service.kind, self.asked) {
            // also one without endpoints or ports: the service is there, and denying it would deny all below it too
            (_, Asked::Whole | Asked::Host(_)) => true,
            (Kind::ClusterSetIp { ports, .. }, Asked::Port { .. }) => ports.iter().any(|port| self.asked.takes(port)),
            (Kind::Headless { .. }, Asked::Port { .. }) => self.endpoints().next().is_some(),
        }
    }

    fn v4(&self) -> Answer<'z> {
        match (&self.service.kind, self.asked) {
            (Kind::Headless { v4: all, .. }, Asked::Whole) => v4(&**all, self.service.turn(Turn::V4)),
            (Kind::ClusterSetIp { v4: vip, .. }, Asked::Whole | Asked::Port { .. }) => match vip {
                Some(ip) if self.zone.is_usable(IpAddr::V4(*ip)) => v4(vip.as_slice(), 0),
                Some(_) | None => Answer::NoData,
            },
            (Kind::Headless { .. }, Asked::Port { .. }) | (_, Asked::Host(_)) => {
                let addresses = self.endpoints().filter_map(|(_, endpoint)| only_v4(&endpoint.addr));
                v4(addresses.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), self.service.turn(Turn::V4))
            }
        }
    }

    fn v6(&self) -> Answer<'z> {
        match (&self.service.kind, self.asked) {
            (Kind::Headless { v6: all, .. }, Asked::Whole) => v6(&**all, self.service.turn(Turn::V6)),
            (Kind::ClusterSetIp { v6: vip, .. }, Asked::Whole | Asked::Port { .. }) => match vip {
                Some(ip) if self.zone.is_usable(IpAddr::V6(*ip)) => v6(vip.as_slice(), 0),
                Some(_) | None => Answer::NoData,
            },
            (Kind::Headless { .. }, Asked::Port { .. }) | (_, Asked::Host(_)) => {
                let addresses = self.endpoints().filter_map(|(_, endpoint)| only_v6(&endpoint.addr));
                v6(addresses.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), self.service.turn(Turn::V6))
            }
        }
    }

    /// The service's own records, rather than those of endpoints.
    fn own(&self) -> Option<&'z [Port]> {
        match (&self.service.kind, self.asked) {
            (Kind::ClusterSetIp { ports, .. }, Asked::Whole | Asked::Port { .. }) => Some(ports),
            (Kind::Headless { .. }, _) | (Kind::ClusterSetIp { .. }, Asked::Host(_)) => None,
        }
    }

    /// The ClusterSetIPs that can be used.
    fn vips(&self) -> impl Iterator<Item = IpAddr> + use<'z> {
        let zone = self.zone;
        self.service.kind.vips().filter(move |vip| zone.is_usable(*vip))
    }

    /// The hosts that are asked for, from one on and then around.
    fn hosts(&self, first: usize) -> impl Iterator<Item = &'z Host> + use<'z> {
        let hosts: &[Host] = match self.asked {
            Asked::Whole | Asked::Port { .. } => &self.service.hosts,
            Asked::Host(host) => std::slice::from_ref(host),
        };
        let (before, after) = hosts.split_at(first.checked_rem(hosts.len()).unwrap_or(0));
        after.iter().chain(before)
    }

    /// The endpoints that have a port that is asked for; without a port in the question, those without ports too.
    fn endpoints(&self) -> impl Iterator<Item = (&'z Host, &'z Endpoint)> + use<'z> {
        let Self { service, asked, .. } = *self;
        self.hosts(0).flat_map(|host| host.endpoints.iter().map(move |endpoint| (host, endpoint))).filter(
            move |(_, endpoint)| {
                !matches!(asked, Asked::Port { .. }) || service.ports(endpoint).iter().any(|port| asked.takes(port))
            },
        )
    }

    fn has_srv(&self) -> bool {
        match self.own() {
            Some(ports) => self.vips().next().is_some() && ports.iter().any(|port| self.asked.takes(port)),
            None => self
                .endpoints()
                .any(|(_, endpoint)| self.service.ports(endpoint).iter().any(|port| self.asked.takes(port))),
        }
    }

    /// The SRV records, each pair of target and port once. Ends early if `each` says so.
    pub fn each_srv(&self, each: &mut dyn FnMut(SrvRecord<'z>) -> bool) {
        let weight = self.weight();
        let mut ports_seen = Vec::new();
        if let Some(ports) = self.own() {
            for port in ports.iter().filter(|port| self.asked.takes(port)) {
                if !ports_seen.contains(&port.number) {
                    ports_seen.push(port.number);
                    if !each(SrvRecord { weight, port: port.number, target: &[] }) {
                        return;
                    }
                }
            }
            return;
        }
        for host in self.hosts(self.service.turn(Turn::Srv)) {
            ports_seen.clear();
            for port in host.endpoints.iter().flat_map(|endpoint| self.service.ports(endpoint)) {
                if self.asked.takes(port) && !ports_seen.contains(&port.number) {
                    ports_seen.push(port.number);
                    if !each(SrvRecord { weight, port: port.number, target: &host.name }) {
                        return;
                    }
                }
            }
        }
    }

    /// The addresses of the SRV records' targets, as in [`SrvRecord::target`]. Ends early if `each` says so.
    pub fn each_address(&self, each: &mut dyn FnMut(&'z [u8], IpAddr) -> bool) {
        if self.own().is_some() {
            for vip in self.vips() {
                if !each(&[], vip) {
                    return;
                }
            }
            return;
        }
        for host in self.hosts(0) {
            for (at, endpoint) in host.endpoints.iter().enumerate() {
                let is_first = host.endpoints.get(..at).is_none_or(|seen| seen.iter().all(|e| e.addr != endpoint.addr));
                let has_port = self.service.ports(endpoint).iter().any(|port| self.asked.takes(port));
                if is_first && has_port && !each(&host.name, endpoint.addr) {
                    return;
                }
            }
        }
    }

    /// What CoreDNS gives each record: 100 shared among all pairs of address and port.
    fn weight(&self) -> u16 {
        let matching = |ports: &[Port]| ports.iter().filter(|port| self.asked.takes(port)).count();
        let pairs = match self.own() {
            Some(ports) => self.vips().count() * matching(ports),
            None => self
                .hosts(0)
                .flat_map(|host| host.endpoints.iter())
                // an endpoint without ports counts too, unless one is asked for
                .map(|endpoint| match (self.service.ports(endpoint), self.asked) {
                    ([], Asked::Whole | Asked::Host(_)) => 1,
                    (ports, _) => matching(ports),
                })
                .sum(),
        };
        u16::try_from((100 / pairs.max(1)).max(1)).unwrap_or(1)
    }
}

fn v4<'z>(addresses: impl Into<Cow<'z, [Ipv4Addr]>>, turn: usize) -> Answer<'z> {
    let addresses = addresses.into();
    if addresses.is_empty() { Answer::NoData } else { Answer::V4(addresses, turn) }
}

fn v6<'z>(addresses: impl Into<Cow<'z, [Ipv6Addr]>>, turn: usize) -> Answer<'z> {
    let addresses = addresses.into();
    if addresses.is_empty() { Answer::NoData } else { Answer::V6(addresses, turn) }
}

fn without_underscore(label: &[u8]) -> &[u8] {
    label.strip_prefix(b"_").unwrap_or(label)
}
