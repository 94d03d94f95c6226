//! The cgroups, programs and maps of all variants, and which variants there are.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use mcs::dataplane::shape::Capacity;
use mcs::model::{Endpoint, Event, Object, Protocol};
use mcs_ebpf::Addr;
use mcs_tests::Family;
use mcs_tests::addresses::clusterset_ip;
use mcs_tests::manifest::load_address;

use super::meter::Case;
use crate::Size;
use crate::bpf::{Hook, Program};
use crate::load::{Kind, Load, Names, apply};
use crate::progress::say;
use crate::site::Site;
use crate::world::World;

const PORT: u16 = 80;
/// Where the TCP listener is; the load's endpoints have it too.
const TARGET: u16 = 8080;

/// Which service of the world `kinds` is what, by the number of its ClusterSetIP less one.
const AFFINITY: u16 = 0;
const WEIGHTED: u16 = 1;
const LISTENED: u16 = 2;

const HOOKS: [Hook; 2] = [Hook::Connect4, Hook::Connect6];

/// Cases that begin so are measured while nothing is attached.
const NONE: &str = super::NONE;
const NONE_RANDOM: &str = "no program, random addresses";
const ELSEWHERE: &str = "none, but one elsewhere";
const EMPTY: &str = "empty program";

/// A program and where it belongs.
struct Attachable {
    program: Program,
    cgroup: PathBuf,
    hook: Hook,
}

/// Everything that stands while `connect` is measured.
pub(crate) struct Variants<'a> {
    none: PathBuf,
    empty: PathBuf,
    one: PathBuf,
    kinds: PathBuf,
    many: PathBuf,
    /// Empty and `one`'s, at connect4 and connect6: the first four that are attached.
    programs: Vec<Attachable>,
    links: RefCell<Vec<OwnedFd>>,
    _worlds: [World; 3],
    many_services: u16,
    site: &'a Site,
}

impl<'a> Variants<'a> {
    /// On the thread that is to measure, as maps that are mapped stay on theirs.
    pub(crate) fn set_up(site: &'a Site, size: Size) -> Result<Self> {
        let [none, empty, one, kinds, many] = ["none", "empty", "one", "kinds", "many"].map(|name| site.cgroup(name));
        let (none, empty, one, kinds, many) = (none?, empty?, one?, kinds?, many?);
        let small = Capacity { services: 1 << 10, backends: 1 << 16, sources: 1 << 12, ..Capacity::default() };
        let load = Load { services: 1, endpoints: 100, protocol: Protocol::Udp };
        let mut one_world = World::open(site.pins("one"), &one, small)?;
        one_world.program(both_families(load))?;
        let mut kinds_world = World::open(site.pins("kinds"), &kinds, small)?;
        kinds_world.program(of_all_kinds(load, site.pod().ip(Family::V4)))?;
        let many_services = if size == Size::Quick { 1_000 } else { 10_000 };
        say(&format!("programming {many_services} services × 100"));
        let mut many_world = World::open(site.pins("many"), &many, Capacity::default())?;
        many_world.program(Load { services: many_services, ..load }.events(Family::V4))?;
        let mut programs = Vec::new();
        for hook in HOOKS {
            programs.push(Attachable { program: Program::empty(hook)?, cgroup: empty.clone(), hook });
        }
        for (world, cgroup) in [(&one_world, &one), (&kinds_world, &kinds), (&many_world, &many)] {
            for hook in HOOKS {
                programs.push(Attachable { program: world.take(hook.name())?, cgroup: cgroup.clone(), hook });
            }
        }
        Ok(Self {
            none,
            empty,
            one,
            kinds,
            many,
            programs,
            links: RefCell::default(),
            _worlds: [one_world, kinds_world, many_world],
            many_services,
            site,
        })
    }

    /// Attaches all programs, or none at all.
    pub(crate) fn attach(&self, wanted: bool) -> Result<()> {
        let mut links = self.links.borrow_mut();
        if !wanted {
            links.clear();
        } else if links.is_empty() {
            for Attachable { program, cgroup, hook } in &self.programs {
                links.push(program.attach(cgroup, *hook)?);
            }
        }
        Ok(())
    }

    /// The empty program and ours, at a hook.
    pub(crate) fn programs_at(&self, hook: Hook) -> Result<[&Program; 2]> {
        let of = |cgroup: &PathBuf| {
            let found = self.programs.iter().find(|known| known.hook == hook && known.cgroup == *cgroup);
            found.map(|found| &found.program).with_context(|| format!("{}: no program", hook.name()))
        };
        Ok([of(&self.empty)?, of(&self.one)?])
    }

    /// A VIP of service 0 of a world.
    fn vip(&self, family: Family, service: u16) -> Vec<SocketAddr> {
        vec![SocketAddr::new(clusterset_ip(family, service + 1), PORT)]
    }

    /// One of the load's endpoints, past which nothing translates.
    fn outside(family: Family) -> Vec<SocketAddr> {
        vec![SocketAddr::new(load_address(family, 7), TARGET)]
    }

    /// A ClusterSetIP that nobody has.
    fn nobodys(family: Family) -> Vec<SocketAddr> {
        vec![SocketAddr::new(clusterset_ip(family, u16::MAX - 1), PORT)]
    }

    fn random_vips(&self) -> Vec<SocketAddr> {
        let mut draw = Draw(1);
        let services = u32::from(self.many_services);
        let number = (0..20_000).map(|_| u16::try_from(draw.below(services)).unwrap_or(0));
        number.map(|service| SocketAddr::new(clusterset_ip(Family::V4, service + 1), PORT)).collect()
    }

    fn random_addresses(&self) -> Vec<SocketAddr> {
        let mut draw = Draw(1);
        let most = u32::from(self.many_services) * 100;
        (0..20_000).map(|_| SocketAddr::new(load_address(Family::V4, draw.below(most)), TARGET)).collect()
    }

    /// UDP re-connects, IPv4.
    pub(crate) fn v4(&self) -> Result<Vec<Case>> {
        let family = Family::V4;
        Ok(vec![
            Case::new(NONE, NONE, &self.none, Self::outside(family))?,
            Case::new(ELSEWHERE, NONE, &self.none, Self::outside(family))?,
            Case::new(EMPTY, NONE, &self.empty, Self::outside(family))?,
            Case::new("miss, outside of the CIDRs", NONE, &self.one, Self::outside(family))?,
            Case::new("miss, inside", NONE, &self.one, Self::nobodys(family))?,
            Case::new("hit", NONE, &self.one, self.vip(family, 0))?,
            Case::new("hit, affinity", NONE, &self.kinds, self.vip(family, AFFINITY))?,
            Case::new("hit, weighted", NONE, &self.kinds, self.vip(family, WEIGHTED))?,
            Case::new("hit, 10 000 × 100, one VIP", NONE, &self.many, self.vip(family, 4_321 % self.many_services))?,
            Case::new(NONE_RANDOM, NONE_RANDOM, &self.none, self.random_addresses())?,
            Case::new("hit, 10 000 × 100, random VIPs", NONE_RANDOM, &self.many, self.random_vips())?,
        ])
    }

    /// UDP re-connects, IPv6.
    pub(crate) fn v6(&self) -> Result<Vec<Case>> {
        let family = Family::V6;
        Ok(vec![
            Case::new(NONE, NONE, &self.none, Self::outside(family))?,
            Case::new(ELSEWHERE, NONE, &self.none, Self::outside(family))?,
            Case::new(EMPTY, NONE, &self.empty, Self::outside(family))?,
            Case::new("miss, outside of the CIDRs", NONE, &self.one, Self::outside(family))?,
            Case::new("miss, inside", NONE, &self.one, Self::nobodys(family))?,
            Case::new("hit", NONE, &self.one, self.vip(family, 0))?,
        ])
    }

    /// New sockets for each connect, IPv4.
    pub(crate) fn fresh(&self) -> Result<Vec<Case>> {
        let mut cases = self.v4()?;
        cases.retain(|case| case.name != "miss, inside" && case.name != ELSEWHERE);
        Ok(cases)
    }

    /// What [`Self::tcp`] reaches.
    pub(crate) fn listener(&self) -> Result<TcpListener> {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET)).context("listen in the pod")
    }

    /// TCP to a listener in the same pod.
    pub(crate) fn tcp(&self) -> Result<Vec<Case>> {
        let listener = vec![SocketAddr::new(self.site.pod().ip(Family::V4), TARGET)];
        Ok(vec![
            Case::new(NONE, NONE, &self.none, listener.clone())?,
            Case::new(EMPTY, NONE, &self.empty, listener.clone())?,
            Case::new("miss, outside of the CIDRs", NONE, &self.one, listener)?,
            Case::new("hit", NONE, &self.kinds, self.vip(Family::V4, LISTENED))?,
        ])
    }

    /// For run-time statistics: our own program on misses, and on a hit, beside the empty one.
    pub(crate) fn stats(&self, family: Family) -> Result<[Case; 4]> {
        Ok([
            Case::new(EMPTY, EMPTY, &self.empty, Self::outside(family))?,
            Case::new("miss, outside of the CIDRs", EMPTY, &self.one, Self::outside(family))?,
            Case::new("miss, inside", EMPTY, &self.one, Self::nobodys(family))?,
            Case::new("hit", EMPTY, &self.one, self.vip(family, 0))?,
        ])
    }
}

/// One service with addresses of both families.
fn both_families(load: Load) -> Vec<Event> {
    let names = Names::default();
    let mut import = load.import(&names, 0, Family::V4, Kind::Plain);
    import.vips.push(clusterset_ip(Family::V6, 1));
    let mut events = vec![apply(Object::Import(import))];
    for family in Family::BOTH {
        for mut slice in load.slices(&names, 0, family) {
            slice.key.name = format!("{}-{}", slice.key.name, family.as_str()).into();
            events.push(apply(Object::Slice(slice)));
        }
    }
    events.push(Event::Synced);
    events
}

/// A service with affinity, one with weights, and a TCP one whose only endpoint is the pod itself.
fn of_all_kinds(load: Load, pod: IpAddr) -> Vec<Event> {
    let names = Names::default();
    let mut events = Vec::new();
    for (service, kind) in [(AFFINITY, Kind::Affinity), (WEIGHTED, Kind::Weighted)] {
        events.push(apply(Object::Import(load.import(&names, service, Family::V4, kind))));
        events.extend(load.slices(&names, service, Family::V4).map(|slice| apply(Object::Slice(slice))));
    }
    let tcp = Load { endpoints: 1, protocol: Protocol::Tcp, ..load };
    events.push(apply(Object::Import(tcp.import(&names, LISTENED, Family::V4, Kind::Plain))));
    for mut slice in tcp.slices(&names, LISTENED, Family::V4) {
        slice.endpoints.iter_mut().for_each(|Endpoint { addr, .. }| *addr = Addr::from(pod));
        events.push(apply(Object::Slice(slice)));
    }
    events.push(Event::Synced);
    events
}

/// Numbers without order, the same in every run (xorshift32, Marsaglia 2003).
struct Draw(u32);

impl Draw {
    fn below(&mut self, end: u32) -> u32 {
        let mut x = self.0;
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.0 = x;
        x % end.max(1)
    }
}
