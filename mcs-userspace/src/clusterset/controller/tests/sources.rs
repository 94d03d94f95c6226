//! Exports, their records, and their withdrawal.

use std::time::Duration;

use super::fake::{World, endpoint, key, web};
use crate::clusterset::event::{CrdState, Event, Kind, Object, Op};
use crate::clusterset::local::{Service, WITHDRAWAL_HELD};

#[test]
fn one_endpoint_changes_one_slice() {
    let mut world = World::new(2);
    world.export(0, "shop/cart", 5, &["10.1.0.1"]);
    world.run(1);
    assert_eq!(world.backends(1), ["a:10.1.0.1"]);
    for cluster in &mut world.clusters {
        cluster.wanted.clear();
    }
    world.endpoints(0, "shop/cart", &["10.1.0.1", "10.1.0.2"]);
    world.settle();
    assert!(matches!(world.clusters[0].wanted.as_slice(), [Op::PutSliceRecord(..), Op::PutImportedSlice(..)]));
    assert!(matches!(world.clusters[1].wanted.as_slice(), [Op::PutImportedSlice(..)]));
    assert_eq!(world.backends(1), ["a:10.1.0.1", "a:10.1.0.2"]);
}

#[test]
fn deleting_the_export_withdraws_and_cleans_up() {
    let mut world = World::new(2);
    world.export(0, "shop/cart", 5, &["10.1.0.1"]);
    world.run(1);
    world.delete(0, Kind::Exports, "shop/cart");
    world.run(1);
    assert!(world.import(0, "shop/cart").is_none() && world.import(1, "shop/cart").is_none());
    assert!(world.slices(0).is_empty() && world.slices(1).is_empty());
    let left = |world: &World, kind: Kind| world.broker.objects.keys().filter(|(of, _)| *of == kind).count();
    assert_eq!(left(&world, Kind::SliceRecords), 0);
    assert_eq!(left(&world, Kind::Reservations), 1, "others may still carry the address");
    world.run(3);
    assert_eq!(left(&world, Kind::Reservations), 0);
    assert_eq!(left(&world, Kind::ExportRecords), 1, "the tombstone");
    world.run(601);
    assert_eq!(left(&world, Kind::ExportRecords), 0);
    world.export(0, "shop/cart", 5, &["10.1.0.1"]);
    world.run(1);
    assert_eq!(world.backends(1), ["a:10.1.0.1"]);
}

#[test]
fn conditions_say_what_is_wrong() {
    let mut world = World::new(2);
    world.export(0, "shop/cart", 5, &[]);
    world.run(1);
    let reasons = |world: &World, cluster| {
        ["Valid", "Ready", "Conflict"].map(|kind| world.reason(cluster, "shop/cart", kind)).join(" ")
    };
    assert_eq!(reasons(&world, 0), "Valid Exported NoConflicts");
    world.delete(0, Kind::Services, "shop/cart");
    world.run(1);
    assert_eq!(reasons(&world, 0), "NoService Pending NoConflicts");
    assert!(world.import(1, "shop/cart").is_none(), "a Service that is deleted is exported no more");
    let external = Object::Service(Service::Unexportable { kind: "ExternalName".to_owned() });
    world.put(0, Kind::Services, "shop/cart", external);
    world.run(1);
    assert_eq!(reasons(&world, 0), "InvalidServiceType Pending NoConflicts");

    world.export(0, "shop/cart", 5, &[]);
    world.export(1, "shop/cart", 9, &[]);
    let mut other = web();
    other.ports[0].port = 81;
    world.put(1, Kind::Services, "shop/cart", Object::Service(Service::Exportable(other)));
    world.run(1);
    assert_eq!(reasons(&world, 0), "Valid Exported PortConflict");
    assert_eq!(reasons(&world, 1), "Valid Exported PortConflict");
    assert_eq!(world.import(1, "shop/cart").unwrap().spec.ports[0].port, 80);
}

#[test]
fn a_record_that_is_deleted_at_the_broker_is_written_again() {
    let mut world = World::new(2);
    world.export(0, "shop/cart", 5, &["10.1.0.1"]);
    world.run(1);
    let records: Vec<_> = world.broker.objects.keys().cloned().collect();
    for (kind, key) in records.into_iter().filter(|(kind, _)| matches!(kind, Kind::ExportRecords | Kind::SliceRecords))
    {
        world.broker_delete(kind, &key);
    }
    // The other hears of the deletion first, and takes nothing for withdrawn.
    let ops = world.clusters[1].controller.ops(world.now);
    assert!(ops.iter().all(|op| matches!(op, Op::Renew(_))), "{ops:?}");
    world.run(12);
    assert_eq!(world.backends(1), ["a:10.1.0.1"]);
    assert!(world.broker.objects.contains_key(&(Kind::ExportRecords, key("mcs-a/shop.cart"))));
}

#[test]
fn the_end_of_the_crd_withdraws_nothing() {
    let mut world = World::new(2);
    world.export(0, "shop/cart", 5, &["10.1.0.1"]);
    world.run(1);
    let now = world.now;
    world.clusters[0].controller.handle(Event::Crd(Kind::Exports, CrdState::Gone), now);
    world.delete(0, Kind::Exports, "shop/cart");
    world.run(2);
    assert_eq!(world.backends(1), ["a:10.1.0.1"]);
    let held = &world.import(0, "shop/cart").unwrap().conditions;
    assert!(held.iter().any(|condition| condition.kind == WITHDRAWAL_HELD), "{held:?}");
    assert_eq!(world.clusters[0].controller.report(now).held.len(), 1);

    let event = Event::WithdrawalApproved;
    world.clusters[0].controller.handle(event, now);
    world.run(1);
    assert!(world.import(1, "shop/cart").is_none());
}

#[test]
fn most_missing_from_a_first_list_are_held() {
    let mut world = World::new(2);
    let services: Vec<String> = (0..6).map(|index| format!("shop/s{index}")).collect();
    for service in &services {
        world.export(0, service, 5, &["10.1.0.1"]);
    }
    world.run(7);
    for service in &services[..5] {
        world.clusters[0].alive = false;
        world.delete(0, Kind::Exports, service);
    }
    world.start(0);
    world.run(1);
    assert_eq!(world.backends(1).len(), 6);
    assert_eq!(world.clusters[0].controller.report(world.now).held.len(), 5);
    world.export(0, "shop/s0", 5, &["10.1.0.9"]);
    world.run(1);
    assert_eq!(world.clusters[0].controller.report(world.now).held.len(), 4);

    // Few are believed.
    let mut world = World::new(2);
    for service in &services {
        world.export(0, service, 5, &["10.1.0.1"]);
    }
    world.run(7);
    world.clusters[0].alive = false;
    world.delete(0, Kind::Exports, "shop/s0");
    world.start(0);
    world.run(1);
    assert_eq!(world.backends(1).len(), 5);
}

#[test]
fn a_local_rollout_is_current_while_the_broker_is_away() {
    let mut world = World::new(2);
    world.export(0, "shop/cart", 5, &["10.1.0.1"]);
    world.export(1, "shop/cart", 5, &["10.2.0.1"]);
    world.run(1);
    world.disconnect(0);
    world.endpoints(0, "shop/cart", &["10.1.0.7"]);
    world.run(100);
    assert_eq!(world.backends(0), ["a:10.1.0.7", "b:10.2.0.1"]);
    // And after a restart in the meantime.
    world.start(0);
    world.endpoints(0, "shop/cart", &["10.1.0.8"]);
    world.run(5);
    assert_eq!(world.backends(0), ["a:10.1.0.8", "b:10.2.0.1"]);
    world.reconnect(0);
    world.run(10);
    assert_eq!(world.backends(1), ["a:10.1.0.8", "b:10.2.0.1"]);
}

#[test]
fn writes_that_fail_are_not_repeated_at_once() {
    let mut world = World::new(1);
    world.disconnect(0);
    for index in 0..20 {
        world.export(0, &format!("shop/s{index}"), 5, &["10.1.0.1"]);
    }
    world.clusters[0].wanted.clear();
    for _ in 0..600 {
        world.settle();
        world.now += Duration::from_millis(100);
    }
    let tries = world.clusters[0].wanted.iter().filter(|op| matches!(op, Op::PutExportRecord(..))).count();
    assert!((1..60).contains(&tries), "{tries}");
    world.reconnect(0);
    world.run(1);
    assert_eq!(world.clusters[0].controller.report(world.now).in_flight, 0);
    assert_eq!(world.broker.objects.keys().filter(|(kind, _)| *kind == Kind::ExportRecords).count(), 20);
}

#[test]
fn a_slice_that_goes_is_emptied_first() {
    let mut world = World::new(2);
    world.export(0, "shop/cart", 5, &["10.1.0.1"]);
    world.run(1);
    let second = crate::clusterset::local::SourceSlice {
        service: "cart".to_owned(),
        endpoints: crate::clusterset::service::Endpoints {
            family: crate::clusterset::service::Family::IPv4,
            ports: vec![],
            endpoints: vec![endpoint("10.1.0.2")],
            changed_at: Default::default(),
        },
    };
    let mut second = second;
    second.endpoints.ports =
        vec![crate::clusterset::service::SlicePort { name: "web".to_owned(), port: 8080, ..Default::default() }];
    world.put(0, Kind::SourceSlices, "shop/cart-2", Object::SourceSlice(second));
    world.run(12);
    assert_eq!(world.backends(1), ["a:10.1.0.1", "a:10.1.0.2"]);
    world.clusters[0].wanted.clear();
    world.delete(0, Kind::SourceSlices, "shop/cart-2");
    world.settle();
    let records = world.clusters[0].wanted.iter();
    let records: Vec<&Op> =
        records.filter(|op| matches!(op, Op::PutSliceRecord(..) | Op::DeleteSliceRecord(..))).collect();
    assert!(matches!(records.as_slice(), [Op::PutSliceRecord(_, _, spec), Op::DeleteSliceRecord(..)]
        if spec.slice.endpoints.is_empty()));
    assert_eq!(world.backends(1), ["a:10.1.0.1"]);
    assert_eq!(world.slices(1).len(), 1);
}

#[test]
fn what_was_just_exported_outlives_an_api_server_that_went_back_and_the_process_that_saw_it() {
    let mut world = World::new(2);
    let backup = world.clusters[0].server.clone();
    world.export(0, "shop/cart", 5, &["10.1.0.1"]);
    world.run(1);
    assert_eq!(world.backends(1), ["a:10.1.0.1"]);
    world.clusters[0].alive = false;
    world.clusters[0].server = backup;
    world.start(0);
    world.run(6);
    assert_eq!(world.backends(1), ["a:10.1.0.1"], "nobody deleted it");
    assert_eq!(world.clusters[0].controller.report(world.now).held.len(), 1);
}
