//! Events to maps, with restarts, faults and too little room.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use mcs_ebpf::{Addr, PortBe};
use proptest::prelude::*;

use super::*;
use crate::dump::{as_dumped, without_ids};
use crate::maps::Sizes;
use crate::maps::fake::FakeMaps;
use crate::model::{Distribution, Endpoint, Import, ImportPort, Object, Protocol, Slice, SliceNames, SlicePort};
use crate::plan::tests::reader::{Allowed, Reader, active};
use crate::plan::tests::{ROOMY, TIGHT, cases};

fn ctx() -> NodeContext {
    NodeContext {
        cluster: "a".into(),
        node: "n1".into(),
        zone: None,
        prefer_local_cluster: false,
        cidrs: vec!["10.96.0.0/16".parse().unwrap()],
    }
}

fn vip(n: u8) -> IpAddr {
    [10, 96, 0, n].into()
}

fn key(n: u8) -> ObjectKey {
    ObjectKey::new("shop", format!("i{n}"))
}

fn import(n: u8, vips: u8, created: Option<i64>, ports: &[(&str, Protocol, u16)]) -> Import {
    Import {
        key: key(n),
        created,
        vips: vec![vip(vips)],
        ports: ports
            .iter()
            .map(|(name, protocol, port)| ImportPort { name: (*name).into(), protocol: *protocol, port: *port })
            .collect(),
        affinity_secs: None,
        local_only: false,
        distribution: Distribution::Anywhere,
        cluster_weights: None,
        sctp: Vec::new(),
    }
}

const HTTP: (&str, Protocol, u16) = ("http", Protocol::Tcp, 80);
const DNS: (&str, Protocol, u16) = ("dns", Protocol::Udp, 53);

fn slice(n: u8, of: u8, cluster: &str, endpoints: &[u8]) -> Slice {
    let port = |(name, protocol, port): (&str, Protocol, u16)| SlicePort {
        name: name.into(),
        protocol,
        port: PortBe::new(port + 8000),
    };
    Slice {
        key: ObjectKey::new("shop", format!("s{n}")),
        import: key(of).name,
        cluster: cluster.into(),
        ports: vec![port(HTTP), port(DNS)],
        endpoints: endpoints
            .iter()
            .map(|n| Endpoint {
                addr: Addr::from(IpAddr::from([10, 0, 0, *n])),
                ready: true,
                serving: true,
                terminating: false,
                node: None,
                zone: None,
            })
            .collect(),
        names: SliceNames::default(),
    }
}

fn apply_import(import: Import) -> Event {
    Event::Apply(Object::Import(import))
}

fn apply_slice(slice: Slice) -> Event {
    Event::Apply(Object::Slice(slice))
}

fn programmer(sizes: Sizes) -> Programmer<FakeMaps> {
    Programmer::new(ctx(), FakeMaps::new(sizes)).unwrap()
}

fn handle(programmer: &mut Programmer<FakeMaps>, events: impl IntoIterator<Item = Event>) -> Outcome {
    programmer.handle(events, &mut || Ok(()))
}

fn text(programmer: &Programmer<FakeMaps>) -> String {
    programmer.tables().unwrap().to_string()
}

fn problems(programmer: &Programmer<FakeMaps>) -> Vec<String> {
    programmer.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_is_stored_before_all_has_been_read() {
    let mut first = programmer(ROOMY);
    let all = || {
        [
            apply_import(import(1, 1, None, &[HTTP])),
            apply_slice(slice(1, 1, "a", &[1, 2])),
            apply_import(import(2, 2, None, &[HTTP])),
        ]
    };
    handle(&mut first, all().into_iter().chain([Event::Synced]));
    let before = text(&first);
    let mut second = Programmer::new(ctx(), first.maps).unwrap();
    let ops = second.maps.ops;
    let [one, two, _] = all();
    assert!(!handle(&mut second, [one]).settled);
    assert!(!handle(&mut second, [two]).settled);
    assert_eq!((second.maps.ops, text(&second)), (ops, before));
    // at last it is known that the second import is gone
    let outcome = handle(&mut second, [Event::Synced]);
    assert!(outcome.settled && outcome.removed == 1 && outcome.changed == 0, "{outcome:?}");
    assert_eq!(second.tables().unwrap().services.len(), 1);
}

#[test]
fn what_could_not_be_read_is_not_taken_for_gone() {
    let mut first = programmer(ROOMY);
    let web = || [apply_import(import(1, 1, None, &[HTTP])), apply_slice(slice(1, 1, "a", &[1]))];
    let other = [apply_slice(slice(2, 1, "b", &[2])), apply_import(import(2, 2, None, &[HTTP]))];
    handle(&mut first, web().into_iter().chain(other.clone()).chain([Event::Synced]));
    let before = text(&first);

    // after a restart, the file that holds the others is damaged
    let mut second = Programmer::new(ctx(), first.maps).unwrap();
    second.set_unread(Unread { anything: true, ..Unread::default() });
    let outcome = handle(&mut second, web().into_iter().chain([Event::Synced]));
    assert!(outcome.settled && !outcome.retry, "{outcome:?}");
    assert_eq!(text(&second), before);

    // what is said after the start counts
    let outcome = handle(&mut second, [apply_slice(slice(1, 1, "a", &[3])), apply_slice(slice(2, 1, "b", &[2]))]);
    assert_eq!((outcome.changed, outcome.removed), (1, 0));

    // mended: the second import is still there, or gone for good
    second.set_unread(Unread::default());
    assert_eq!(handle(&mut second, []).removed, 1);
    assert_eq!(second.tables().unwrap().services.len(), 1);
}

#[test]
fn what_is_invalid_from_the_start_holds_its_namespace_and_nothing_else() {
    let web = || [apply_import(import(1, 1, None, &[HTTP])), apply_slice(slice(1, 1, "a", &[1]))];
    let other = || [apply_slice(slice(2, 1, "b", &[2])), apply_import(import(2, 2, None, &[HTTP]))];
    for (namespace, removed) in [(key(2).namespace, 0), ("elsewhere".into(), 1)] {
        let mut first = programmer(ROOMY);
        handle(&mut first, web().into_iter().chain(other()).chain([Event::Synced]));
        let mut second = Programmer::new(ctx(), first.maps).unwrap();
        second.set_unread(Unread { anything: false, namespaces: [namespace].into() });
        let outcome = handle(&mut second, web().into_iter().chain([Event::Synced]));
        assert!(outcome.settled && !outcome.retry && outcome.removed == removed, "{outcome:?}");
        second.set_unread(Unread::default());
        assert_eq!(handle(&mut second, []).removed, 1 - removed);
    }
}

#[test]
fn the_owner_of_a_frontend_is_named_and_its_heir_is_promoted() {
    let mut p = programmer(ROOMY);
    handle(
        &mut p,
        [
            apply_import(import(2, 1, Some(5), &[HTTP])),
            apply_slice(slice(2, 2, "b", &[2])),
            apply_import(import(1, 1, Some(9), &[HTTP, DNS])),
            apply_slice(slice(1, 1, "a", &[1])),
            Event::Synced,
        ],
    );
    assert_eq!(
        problems(&p),
        ["ServiceImport shop/i1: spec.ports[http]: 10.96.0.1:80/TCP belongs to ServiceImport shop/i2, which is older"]
    );
    assert!(
        text(&p).contains("service 10.96.0.1:80/TCP shop/i2") && text(&p).contains("service 10.96.0.1:53/UDP shop/i1")
    );
    let outcome = handle(&mut p, [Event::Delete(ObjectId::Import(key(2)))]);
    assert!(outcome.problems_changed && outcome.removed == 0);
    assert_eq!(problems(&p), [""; 0]);
    assert!(text(&p).contains("service 10.96.0.1:80/TCP shop/i1"));
}

#[test]
fn udp_is_prepared_before_the_first_udp_frontend() {
    let mut p = programmer(ROOMY);
    handle(&mut p, [Event::Synced]);
    let events = || [apply_import(import(1, 1, None, &[HTTP, DNS]))];
    let outcome = p.handle(events(), &mut || Err("no".into()));
    assert!(outcome.retry && !outcome.has_udp && !outcome.settled);
    assert_eq!(outcome.failures[0].to_string(), "prepare for UDP frontends: no");
    let mut calls = 0;
    let outcome = p.retry(&mut || {
        calls += 1;
        Ok(())
    });
    assert!(outcome.settled && outcome.has_udp);
    p.handle([apply_import(import(2, 2, None, &[DNS]))], &mut || {
        calls += 1;
        Ok(())
    });
    assert_eq!(calls, 1);
    let gone = [Event::Delete(ObjectId::Import(key(1))), Event::Delete(ObjectId::Import(key(2)))];
    assert!(!handle(&mut p, gone).has_udp);
    p.handle(events(), &mut || {
        calls += 1;
        Ok(())
    });
    assert_eq!(calls, 2, "it was taken away meanwhile");
}

#[test]
fn what_does_not_fit_waits_and_the_rest_works() {
    let mut p = programmer(Sizes { services: 2, ..ROOMY });
    let all = (1..=3).flat_map(|n| [apply_import(import(n, n, None, &[HTTP])), apply_slice(slice(n, n, "a", &[n]))]);
    let outcome = handle(&mut p, all.chain([Event::Synced]));
    assert_eq!((outcome.unprogrammed, outcome.changed), (1, 2));
    assert_eq!(
        problems(&p),
        ["ServiceImport shop/i3: spec.ports[http]: 10.96.0.3:80/TCP is not programmed, or without its new backends: \
          mcs_services is full: 1 needed, 0 free"]
    );
    let outcome = handle(&mut p, [Event::Delete(ObjectId::Import(key(1)))]);
    assert_eq!((outcome.unprogrammed, outcome.changed, outcome.removed), (0, 1, 1));
    assert!(outcome.problems_changed && p.problems().is_empty());
}

#[test]
fn without_room_a_service_still_loses_what_is_gone() {
    let mut p = programmer(Sizes { slots: 4, ..ROOMY });
    handle(
        &mut p,
        [apply_import(import(1, 1, None, &[HTTP])), apply_slice(slice(1, 1, "a", &[1, 2, 3, 4])), Event::Synced],
    );
    // no block of four is free; the gone one is the first
    let outcome = handle(&mut p, [apply_slice(slice(1, 1, "a", &[2, 3, 4, 5]))]);
    assert_eq!(outcome.unprogrammed, 1);
    let shown = text(&p);
    assert!(!shown.contains("10.0.0.1:"), "{shown}");
    assert!(shown.contains("10.0.0.3:8080 cluster=a weight=1") && !shown.contains("10.0.0.5"), "{shown}");
    let outcome = handle(&mut p, [apply_slice(slice(1, 1, "a", &[2]))]);
    assert_eq!(outcome.unprogrammed, 0);
    assert!(text(&p).contains("10.0.0.2:8080 cluster=a weight=1"));
}

#[test]
fn a_service_may_shrink_to_what_it_should_be_without_another_block() {
    let mut p = programmer(Sizes { slots: 8, ..ROOMY });
    let (six, five) = ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5]);
    handle(&mut p, [apply_import(import(1, 1, None, &[HTTP])), apply_slice(slice(1, 1, "a", &six)), Event::Synced]);
    let outcome = handle(&mut p, [apply_slice(slice(1, 1, "a", &five))]);
    assert_eq!((outcome.unprogrammed, outcome.problems_changed), (0, false));
    assert_eq!(text(&p).matches("weight=1").count(), 5);
}

#[test]
fn a_grace_period_that_fails_is_tried_again() {
    let mut p = programmer(Sizes { services: 1, ..ROOMY });
    handle(&mut p, [apply_import(import(1, 1, None, &[HTTP])), Event::Synced]);
    handle(&mut p, [Event::Delete(ObjectId::Import(key(1)))]);
    p.maps.fail_grace = true;
    let outcome = handle(&mut p, [apply_import(import(2, 2, None, &[HTTP]))]);
    assert!(outcome.retry && outcome.failures.len() == 1, "{outcome:?}");
    assert!(p.retry(&mut || Ok(())).settled);
    assert!(text(&p).contains("10.96.0.2:80"));
}

#[test]
fn failures_are_bounded_and_leave_the_others_alone() {
    let mut p = programmer(ROOMY);
    handle(&mut p, [Event::Synced]);
    p.maps.fail_frontends = true;
    let outcome = handle(&mut p, (1..=8).map(|n| apply_import(import(n, n, None, &[HTTP]))));
    assert_eq!((outcome.failures.len(), outcome.changed, outcome.retry), (FAILURES_AT_A_TIME, 0, true));
    p.maps.fail_frontends = false;
    p.maps.fail_frontend_after = Some(2);
    let outcome = p.retry(&mut || Ok(()));
    assert_eq!((outcome.failures.len(), outcome.changed, outcome.retry), (1, 7, true));
    let outcome = p.retry(&mut || Ok(()));
    assert_eq!((outcome.changed, outcome.settled), (1, true));
    assert_eq!(p.tables().unwrap().services.len(), 8);
}

#[derive(Clone, Debug)]
enum Step {
    Events(Vec<Event>),
    /// So many more ops on frontends succeed, then one fails.
    Fault(u32),
    Restart,
}

fn events() -> impl Strategy<Value = Event> {
    let created = prop::option::of(0i64..3);
    let imports = (0u8..4, 0u8..3, created, any::<bool>(), any::<bool>(), prop::option::of((0u32..3, 0u32..3)))
        .prop_map(|(n, vip, created, http, dns, shares)| {
            let ports: Vec<_> = [(http, HTTP), (dns, DNS)].into_iter().filter(|(on, _)| *on).map(|(_, p)| p).collect();
            let cluster_weights = shares.map(|(a, b)| [("a".into(), a), ("b".into(), b)].into());
            apply_import(Import { cluster_weights, ..import(n, vip, created, &ports) })
        });
    let slices = (0u8..6, 0u8..4, any::<bool>(), prop::collection::btree_set(0u8..9, 0..7)).prop_map(
        |(n, of, cluster, endpoints)| {
            let endpoints: Vec<u8> = endpoints.into_iter().collect();
            apply_slice(slice(n, of, if cluster { "a" } else { "b" }, &endpoints))
        },
    );
    prop_oneof![
        4 => imports,
        6 => slices,
        1 => (0u8..4).prop_map(|n| Event::Delete(ObjectId::Import(key(n)))),
        1 => (0u8..6).prop_map(|n| Event::Delete(ObjectId::Slice(ObjectKey::new("shop", format!("s{n}"))))),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop::collection::vec(events(), 1..6).prop_map(Step::Events),
        1 => (0u32..4).prop_map(Step::Fault),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..16)
}

/// Every import's services by brute force: of those who claim a frontend, the oldest's.
fn expected(world: &World) -> BTreeMap<Frontend, Service> {
    let mut imports: Vec<_> = world.iter().filter_map(|(_, state)| Some((state.import.as_ref()?, state))).collect();
    imports.sort_by_key(|(import, _)| (import.created.is_none(), import.created, &import.key));
    let mut services = BTreeMap::new();
    for (_, state) in imports {
        for service in desired(&ctx(), state).services {
            services.entry(service.frontend).or_insert(service);
        }
    }
    services
}

/// Whoever any import wants now for a frontend, beside those whom it has.
fn allowed(world: &World, maps: &FakeMaps) -> Allowed {
    let mut allowed: Allowed = dump(maps).unwrap().services.into_iter().map(|(f, s)| (f, active(&s))).collect();
    for (_, state) in world.iter() {
        for service in desired(&ctx(), state).services {
            allowed.entry(service.frontend).or_default().extend(active(&service));
        }
    }
    allowed
}

fn history(sizes: Sizes, steps: Vec<Step>) {
    let watch: Rc<RefCell<(Reader, Allowed)>> = Rc::default();
    let mut maps = FakeMaps::new(sizes);
    let watched = Rc::clone(&watch);
    maps.observer = Some(Box::new(move |maps, op| {
        let (reader, allowed) = &mut *watched.borrow_mut();
        reader.look(maps, op, allowed);
    }));
    let mut p = Programmer::new(ctx(), maps).unwrap();
    handle(&mut p, [Event::Synced]);
    let mut world = World::default();
    let ends = (0..4).map(|n| Event::Delete(ObjectId::Import(key(n)))).collect();
    for step in steps.into_iter().chain([Step::Events(ends)]) {
        let events = match step {
            Step::Events(events) => events,
            Step::Fault(after) => {
                p.maps.fail_frontend_after = Some(after);
                continue;
            }
            Step::Restart => {
                p.maps.fail_frontend_after = None;
                p = Programmer::new(ctx(), p.maps).unwrap();
                let imports = world.iter().filter_map(|(_, state)| state.import.clone()).map(apply_import);
                let slices = world.iter().flat_map(|(_, state)| state.slices.values().cloned()).map(apply_slice);
                imports.chain(slices).chain([Event::Synced]).collect()
            }
        };
        for event in &events {
            match event.clone() {
                Event::Apply(object) => drop(world.apply(object)),
                Event::Delete(id) => drop(world.delete(&id)),
                Event::Synced => {}
            }
        }
        watch.borrow_mut().1 = allowed(&world, &p.maps);
        let mut outcome = handle(&mut p, events);
        for _ in 0..4 {
            if outcome.retry {
                outcome = p.retry(&mut || Ok(()));
            }
        }
        assert!(outcome.settled, "{outcome:?}");

        let wanted = expected(&world);
        let there = p.tables().unwrap().services;
        assert!(there.keys().all(|f| wanted.contains_key(f)));
        assert_eq!(outcome.has_udp, there.keys().any(|f| f.protocol == UDP));
        let mut missing = 0;
        for (frontend, service) in wanted {
            match there.get(&frontend).cloned().map(without_ids) {
                Some(found) if found == as_dumped(service.clone()) => {}
                Some(found) => {
                    assert!(active(&found).is_subset(&active(&service)), "what is gone gets flows");
                    missing += 1;
                }
                None => missing += 1,
            }
        }
        // a service that misses only backends for show counts as left out too
        assert_eq!(outcome.unprogrammed, missing);
        assert_eq!(p.problems().iter().filter(|x| x.severity == Severity::NoRoom).count(), missing);
    }
    p.grace().unwrap();
    assert_eq!(p.planner.free(), sizes, "nothing leaks");
    let unique: BTreeSet<_> = p.problems().into_iter().collect();
    assert!(unique.is_empty());
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn any_history_leads_to_what_the_objects_say(steps in steps()) {
        history(ROOMY, steps);
    }

    #[test]
    fn any_history_without_room_leads_to_what_fits(steps in steps()) {
        history(TIGHT, steps);
    }
}
