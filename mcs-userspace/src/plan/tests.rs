//! Properties of plans, over random histories in small maps.

pub(crate) mod reader;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mcs_ebpf::{Addr, Frontend, PortBe, TCP, UDP};
use proptest::prelude::*;

use self::reader::{Allowed, Reader, active};
use super::*;
use crate::dump::{as_dumped, dump, without_ids};
use crate::maps::fake::FakeMaps;
use crate::model::ObjectKey;
use crate::tables::{Backend, Service, Source};

pub(crate) const ROOMY: Sizes = Sizes { services: 12, slots: 512, members: 200, sources: 60, clusters: 8 };
pub(crate) const TIGHT: Sizes = Sizes { services: 3, slots: 21, members: 14, sources: 7, clusters: 3 };

/// So many cases, or as many as the environment says.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(cases),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(Service),
    Remove(Frontend),
    Grace,
    Restart,
}

fn frontend(n: u8) -> Frontend {
    let ip: std::net::IpAddr =
        if n.is_multiple_of(2) { [10, 96, 0, n].into() } else { [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)].into() };
    let protocol = if n.is_multiple_of(3) { UDP } else { TCP };
    Frontend::new(Addr::from(ip), PortBe::new(80), protocol)
}

pub(crate) fn service(n: u8, backends: &[(&str, u8, u64)]) -> Service {
    let by_cluster: BTreeMap<(&str, u8), u64> = backends.iter().map(|(c, a, w)| ((*c, *a), *w)).collect();
    let mut sources: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for ((cluster, _), weight) in &by_cluster {
        let counts = sources.entry(cluster).or_default();
        counts.0 += u32::from(*weight > 0);
        counts.1 += 1;
    }
    Service {
        frontend: frontend(n),
        import: ObjectKey::new("shop", format!("s{n}")),
        port_name: "http".into(),
        affinity_secs: None,
        backends: by_cluster
            .into_iter()
            .map(|((cluster, a), weight)| Backend {
                addr: Addr::from(std::net::IpAddr::from([10, 0, 0, a])),
                port: PortBe::new(8080),
                cluster: cluster.into(),
                weight,
                realized: None,
            })
            .collect(),
        sources: sources
            .into_iter()
            .map(|(cluster, (ready, total))| Source { cluster: cluster.into(), ready, total, connections: None })
            .collect(),
        realized: None,
    }
}

fn services() -> impl Strategy<Value = Service> {
    let weight = prop_oneof![1 => Just(0u64), 5 => Just(1u64), 2 => 2u64..5];
    let backends = prop::collection::btree_map((0usize..4, 0u8..12), weight, 0..12);
    (0u8..5, backends, prop::option::weighted(0.2, 1u32..100), any::<bool>()).prop_map(|(n, backends, secs, alike)| {
        let names = ["a", "b", "c", "dd"];
        let listed: Vec<_> =
            backends.iter().map(|((c, a), w)| (names[*c], *a, if alike { (*w).min(1) } else { *w })).collect();
        let mut service = service(n, &listed);
        service.affinity_secs = secs;
        service
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => services().prop_map(Step::Put),
        2 => (0u8..5).prop_map(|n| Step::Remove(frontend(n))),
        1 => Just(Step::Grace),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..14)
}

/// Maps, the planner over them, what they should hold, and a reader who looks on.
struct Bench {
    maps: FakeMaps,
    planner: Planner,
    wanted: BTreeMap<Frontend, Service>,
    reader: Reader,
}

impl Bench {
    fn new(sizes: Sizes) -> Self {
        let maps = FakeMaps::new(sizes);
        let (planner, repairs) = Planner::adopt(&maps).unwrap();
        assert!(repairs.is_empty());
        Self { maps, planner, wanted: BTreeMap::new(), reader: Reader::default() }
    }

    /// The same state once more, for a reader who comes anew.
    fn fork(&self) -> Self {
        let (planner, _) = Planner::adopt(&self.maps).unwrap();
        Self { maps: self.maps.fork(), planner, wanted: self.wanted.clone(), reader: Reader::default() }
    }

    fn grace(&mut self) {
        let mark = self.planner.mark();
        self.maps.grace().unwrap();
        self.planner.grace_passed(mark);
    }

    fn apply(&mut self, ops: &[Op], allowed: &Allowed) {
        for op in ops {
            self.maps.apply(op).unwrap();
            self.reader.look(&self.maps, op, allowed);
        }
    }

    /// Old and new backends of one frontend, and the present ones of all others.
    fn allowed(&self, frontend: Frontend, new: Option<&Service>) -> Allowed {
        let mut allowed: Allowed = self.wanted.iter().map(|(f, s)| (*f, active(s))).collect();
        if let Some(new) = new {
            allowed.entry(frontend).or_default().extend(active(new));
        }
        allowed
    }

    /// Plans, with a grace period when that helps. None when there is no room.
    fn plan(&mut self, service: &Service) -> Option<Vec<Op>> {
        let before = format!("{:?}", self.planner);
        match self.planner.plan_service(&self.maps, service) {
            Ok(ops) => return Some(ops),
            Err(missed) => {
                assert_eq!(before, format!("{:?}", self.planner), "a plan without room leaves nothing behind");
                assert!(!self.planner.has_room(&missed));
                if !missed.waiting {
                    return None;
                }
            }
        }
        self.grace();
        self.planner.plan_service(&self.maps, service).ok()
    }

    fn put(&mut self, service: Service) {
        let Some(ops) = self.plan(&service) else { return self.reduce(&service) };
        self.apply(&ops, &self.allowed(service.frontend, Some(&service)));
        assert_eq!(self.planner.plan_service(&self.maps, &service).unwrap(), [], "planning again leads nowhere");
        self.wanted.insert(service.frontend, service);
    }

    /// The service loses what is gone, whatever the room.
    fn reduce(&mut self, service: &Service) {
        let Some(old) = self.wanted.get(&service.frontend).cloned() else { return };
        let allowed = self.allowed(service.frontend, Some(service));
        let ops = match self.planner.plan_survivors(&self.maps, service) {
            Ok(ops) => ops,
            Err(_) => self.planner.plan_shrink(&self.maps, service),
        };
        self.apply(&ops, &allowed);
        let mut left = without_ids(dump(&self.maps).unwrap().services.remove(&service.frontend).unwrap());
        assert!(active(&left).is_subset(&active(service)), "what is gone gets no flows");
        let stay = |left: &Service| !active(left).is_disjoint(&active(service));
        assert!(stay(&left) || !stay(&old), "one that stays is enough to serve");
        // as a service that may be wanted: the dump's weights are chances, which lead to other blocks
        left.backends.iter_mut().for_each(|b| b.weight = b.weight.min(1));
        let Some(ops) = self.plan(&left) else { return drop(self.wanted.insert(service.frontend, left)) };
        self.apply(&ops, &self.allowed(service.frontend, Some(&left)));
        self.wanted.insert(service.frontend, left);
    }

    fn remove(&mut self, frontend: Frontend) {
        let ops = self.planner.plan_removal(&self.maps, &frontend);
        assert_eq!(ops.is_empty(), !self.wanted.contains_key(&frontend));
        self.apply(&ops, &self.allowed(frontend, None));
        self.wanted.remove(&frontend);
    }

    fn restart(&mut self) {
        let (planner, repairs) = Planner::adopt(&self.maps).unwrap();
        assert_eq!(repairs, [], "whole plans leave nothing to mend");
        self.planner = planner;
        self.grace();
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Put(service) => self.put(service),
            Step::Remove(frontend) => self.remove(frontend),
            Step::Grace => self.grace(),
            Step::Restart => self.restart(),
        }
        self.is_as_wanted();
    }

    fn is_as_wanted(&self) {
        let there: BTreeMap<_, _> =
            dump(&self.maps).unwrap().services.into_iter().map(|(f, s)| (f, without_ids(s))).collect();
        let wanted: BTreeMap<_, _> = self.wanted.iter().map(|(f, s)| (*f, as_dumped(s.clone()))).collect();
        assert_eq!(there, wanted);
        let udp = self.wanted.keys().any(|f| f.protocol == UDP);
        assert_eq!(self.planner.has_udp(), udp);
    }

    /// What maps that hold the same services and never held others have free.
    fn free_when_fresh(&self) -> Free {
        let mut fresh = Self::new(self.maps.sizes());
        for service in self.wanted.values() {
            fresh.put(service.clone());
        }
        fresh.grace();
        fresh.planner.free()
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn plans_lead_to_what_is_wanted_by_valid_states(steps in steps()) {
        let mut bench = Bench::new(ROOMY);
        for step in steps {
            bench.run(step);
        }
        bench.grace();
        assert_eq!(bench.planner.free(), bench.free_when_fresh(), "nothing leaks");
        for n in 0..5 {
            bench.run(Step::Remove(frontend(n)));
        }
        bench.grace();
        assert_eq!(bench.planner.free(), ROOMY);
    }

    #[test]
    fn without_room_nothing_is_lost_but_what_is_gone(steps in steps()) {
        let mut bench = Bench::new(TIGHT);
        for step in steps {
            bench.run(step);
        }
        for n in 0..5 {
            bench.run(Step::Remove(frontend(n)));
        }
        bench.grace();
        assert_eq!(bench.planner.free(), TIGHT);
    }

    #[test]
    fn a_plan_may_be_cut_after_any_op(history in steps(), last in prop_oneof![4 => services().prop_map(Step::Put), 1 => Just(Step::Remove(frontend(0)))], mend in 0usize..4) {
        let mut before = Bench::new(ROOMY);
        for step in history {
            before.run(step);
        }
        before.grace();
        for cut in 0.. {
            let mut bench = before.fork();
            let (frontend, new) = match &last {
                Step::Put(service) => (service.frontend, Some(service)),
                Step::Remove(frontend) => (*frontend, None),
                Step::Grace | Step::Restart => unreachable!("not generated"),
            };
            let ops = match new {
                Some(service) => bench.planner.plan_service(&bench.maps, service).unwrap(),
                None => bench.planner.plan_removal(&bench.maps, &frontend),
            };
            let allowed = bench.allowed(frontend, new);
            bench.apply(&ops[..cut.min(ops.len())], &allowed);

            // killed; the next one is killed too while it mends
            let (_, repairs) = Planner::adopt(&bench.maps).unwrap();
            bench.apply(&repairs[..mend.min(repairs.len())], &allowed);
            let (planner, repairs) = Planner::adopt(&bench.maps).unwrap();
            bench.apply(&repairs, &allowed);
            bench.planner = planner;
            bench.grace();
            let (_, none) = Planner::adopt(&bench.maps).unwrap();
            assert_eq!(none, [], "mended once is mended for good");

            match new {
                Some(service) => bench.put(service.clone()),
                None => {
                    let ops = bench.planner.plan_removal(&bench.maps, &frontend);
                    bench.apply(&ops, &allowed);
                    bench.wanted.remove(&frontend);
                }
            }
            bench.is_as_wanted();
            bench.grace();
            assert_eq!(bench.planner.free(), bench.free_when_fresh(), "nothing leaks");
            if cut >= ops.len() {
                break;
            }
        }
    }

    #[test]
    fn damaged_maps_are_mended(history in steps(), damage in prop::collection::vec((0u8..10, any::<prop::sample::Index>(), prop_oneof![0u32..30, any::<u32>()]), 1..6)) {
        let mut bench = Bench::new(ROOMY);
        for step in history {
            bench.run(step);
        }
        let maps = &mut bench.maps;
        for (what, at, value) in damage {
            let (n, m) = (at.index(8), at.index(30));
            match what {
                0 => maps.services[n].word ^= u64::from(value) << (n * 5),
                1 => maps.services[n].frontend = frontend(value as u8 % 6),
                2 => maps.services[n].refusals = value,
                3 => maps.slots[m].ids ^= 1 << (value % 64),
                4 => maps.members[m].state = value as u8,
                5 => maps.members[m].service = value,
                6 => maps.members[m].source = value,
                7 => maps.sources[m].cluster = value,
                8 => maps.sources[m].service = value,
                _ => drop(maps.frontends.insert(frontend(at.index(6) as u8), value)),
            }
        }
        maps.forget();
        let (planner, repairs) = Planner::adopt(&bench.maps).unwrap();
        for op in &repairs {
            bench.maps.apply(op).unwrap();
        }
        bench.planner = planner;
        bench.grace();
        for (frontend, index) in &bench.maps.frontends {
            reader::flows(&bench.maps, *frontend, *index, |_| {});
        }
        for service in bench.wanted.clone().into_values() {
            let ops = bench.planner.plan_service(&bench.maps, &service).unwrap();
            for op in &ops {
                bench.maps.apply(op).unwrap();
            }
        }
        let unwanted: Vec<_> = bench.planner.frontends().filter(|f| !bench.wanted.contains_key(f)).copied().collect();
        for frontend in unwanted {
            for op in bench.planner.plan_removal(&bench.maps, &frontend) {
                bench.maps.apply(&op).unwrap();
            }
        }
        bench.is_as_wanted();
        bench.grace();
        assert_eq!(bench.planner.free(), bench.free_when_fresh());
    }
}

fn ids(bench: &Bench, n: u8) -> HashMap<(Arc<str>, Addr), (u32, u32, bool)> {
    let service = dump(&bench.maps).unwrap().services.remove(&frontend(n)).unwrap();
    let of = |b: Backend| ((b.cluster, b.addr), b.realized.map(|r| (r.member, r.generation, b.weight > 0)).unwrap());
    service.backends.into_iter().map(of).collect()
}

#[test]
fn a_member_keeps_its_identity_through_flips_drain_and_back() {
    let mut bench = Bench::new(ROOMY);
    bench.put(service(0, &[("a", 1, 1), ("a", 2, 1), ("b", 1, 1)]));
    let first = ids(&bench, 0);
    bench.put(service(0, &[("a", 1, 0), ("a", 2, 1), ("a", 3, 1), ("b", 1, 7)]));
    bench.restart();
    bench.put(service(0, &[("a", 1, 1), ("a", 2, 1), ("a", 4, 1), ("b", 1, 1)]));
    let last = ids(&bench, 0);
    for (who, id) in &first {
        assert_eq!(last.get(who), Some(id));
    }
    bench.put(service(0, &[("a", 2, 1)]));
    bench.grace();
    bench.put(service(0, &[("a", 1, 1), ("a", 2, 1)]));
    let gone_and_back = ("a".into(), Addr::from(std::net::IpAddr::from([10, 0, 0, 1])));
    assert_ne!(ids(&bench, 0)[&gone_and_back], first[&gone_and_back]);
}

#[test]
fn a_change_costs_what_changed() {
    let mut bench = Bench::new(ROOMY);
    bench.put(service(1, &[("a", 1, 1), ("a", 2, 1), ("b", 1, 1)]));
    let kinds = |ops: &[Op]| {
        ops.iter().map(|op| format!("{op:?}").split([' ', '{']).next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let next = service(1, &[("a", 1, 1), ("a", 2, 1), ("a", 3, 1), ("b", 1, 1)]);
    let ops = bench.planner.plan_service(&bench.maps, &next).unwrap();
    assert_eq!(kinds(&ops), ["Source", "Member", "Block", "ServiceDetails", "Flip"]);
    bench.apply(&ops, &bench.allowed(next.frontend, Some(&next)));
    // to weights, from one set of weights to another, and back
    for weight in [3, 5, 1] {
        let next = service(1, &[("a", 1, 1), ("a", 2, 1), ("a", 3, weight), ("b", 1, 1)]);
        let ops = bench.planner.plan_service(&bench.maps, &next).unwrap();
        assert_eq!(kinds(&ops), ["Block", "Flip"]);
        bench.apply(&ops, &bench.allowed(next.frontend, Some(&next)));
        bench.wanted.insert(next.frontend, next);
        bench.is_as_wanted();
    }
}

#[test]
fn a_service_without_backends_is_there_and_refuses() {
    let mut bench = Bench::new(ROOMY);
    bench.put(service(1, &[]));
    let row = bench.maps.service(bench.maps.frontends[&frontend(1)]);
    assert_eq!((mcs_ebpf::ServiceWord::unpack(row.word).count, row.generation), (0, 1));
}

#[test]
fn indexes_come_back_with_another_generation() {
    let mut bench = Bench::new(Sizes { services: 1, ..ROOMY });
    for generation in 1..4 {
        bench.put(service(1, &[("a", 1, 1)]));
        assert_eq!(bench.maps.service(0).generation, generation);
        bench.remove(frontend(1));
        assert_eq!(bench.planner.plan_service(&bench.maps, &service(1, &[])).unwrap_err().full, Full::Services);
        bench.grace();
    }
}

#[test]
fn what_is_full_is_named() {
    let full = |sizes: Sizes, backends: &[(&str, u8, u64)]| {
        let mut bench = Bench::new(sizes);
        bench.planner.plan_service(&bench.maps, &service(0, backends)).unwrap_err().to_string()
    };
    let two = [("a", 1, 1), ("b", 2, 1), ("b", 3, 1)];
    assert_eq!(full(Sizes { services: 0, ..ROOMY }, &two), "mcs_services is full: 1 needed, 0 free");
    assert_eq!(full(Sizes { sources: 2, ..ROOMY }, &two), "mcs_sources is full: 3 needed, 2 free");
    assert_eq!(full(Sizes { members: 2, ..ROOMY }, &two), "mcs_members is full: 3 needed, 2 free");
    assert_eq!(full(Sizes { clusters: 1, ..ROOMY }, &two), "mcs_clusters is full: 2 needed, 1 free");
    assert_eq!(full(Sizes { slots: 3, ..ROOMY }, &two), "mcs_slots: 3 backends do not fit in one block");
    let mut bench = Bench::new(Sizes { slots: 4, ..ROOMY });
    bench.put(service(2, &[("a", 1, 1)]));
    let missed = bench.planner.plan_service(&bench.maps, &service(0, &two)).unwrap_err();
    assert_eq!(missed.to_string(), "mcs_slots is full: 4 slots in one block needed, 3 free in all");
}
