//! Imports and their slices.

use super::fake::{World, key};
use crate::clusterset::event::{Event, Kind, Object, Op};
use crate::clusterset::local::{Import, Meta};
use crate::clusterset::record::{LEASE, SHARED_NAMESPACE, member_namespace};
use crate::model::ObjectKey;

#[test]
fn everybody_with_the_namespace_imports_until_the_last_export_goes() {
    let mut world = World::new(3);
    world.delete(2, Kind::Namespaces, "shop");
    world.export(0, "shop/cart", 5, &[]);
    world.run(1);
    assert_eq!(world.import(1, "shop/cart").unwrap().clusters, ["a"]);
    assert!(world.import(2, "shop/cart").is_none());
    world.export(1, "shop/cart", 6, &["10.2.0.1"]);
    world.run(1);
    let before = world.import(0, "shop/cart").unwrap().clone();
    assert_eq!(before.clusters, ["a", "b"]);
    world.delete(0, Kind::Exports, "shop/cart");
    world.run(1);
    let after = world.import(0, "shop/cart").unwrap();
    assert_eq!((&after.meta.uid, &after.spec.ips), (&before.meta.uid, &before.spec.ips));
    assert_eq!(after.clusters, ["b"]);
    world.put(2, Kind::Namespaces, "shop", Object::Namespace { terminating: false });
    world.run(1);
    assert_eq!(world.backends(2), ["b:10.2.0.1"]);
    world.delete(1, Kind::Exports, "shop/cart");
    world.run(1);
    assert!((0..3).all(|cluster| world.import(cluster, "shop/cart").is_none()));
}

#[test]
fn the_import_comes_before_its_endpoints() {
    let mut world = World::new(2);
    world.clusters[1].wanted.clear();
    world.export(0, "shop/cart", 5, &["10.1.0.1"]);
    world.run(1);
    let wanted = &world.clusters[1].wanted;
    let import = wanted.iter().position(|op| matches!(op, Op::PutImport(..))).unwrap();
    let slice = wanted.iter().position(|op| matches!(op, Op::PutImportedSlice(..))).unwrap();
    assert!(import < slice, "{wanted:?}");
}

#[test]
fn a_dead_members_endpoints_leave_what_others_serve() {
    let mut world = World::new(3);
    world.export(0, "shop/cart", 5, &["10.1.0.1"]);
    world.export(1, "shop/cart", 6, &["10.2.0.1"]);
    world.export(1, "shop/only", 6, &["10.2.0.9"]);
    world.run(1);
    world.clusters[1].alive = false;
    world.run(30);
    assert_eq!(world.backends(2), ["a:10.1.0.1", "b:10.2.0.1", "b:10.2.0.9"]);
    world.run(60);
    assert_eq!(world.backends(2), ["a:10.1.0.1", "b:10.2.0.9"]);
    assert!(world.slices(2).iter().all(|slice| slice.stale == (slice.cluster == "b")));
    assert_eq!(world.import(2, "shop/cart").unwrap().clusters, ["a", "b"]);
    assert_eq!(world.clusters[2].controller.report(world.now).stale.len(), 1);
    // Others' last endpoint goes: what is there is better than nothing.
    world.endpoints(0, "shop/cart", &[]);
    world.run(1);
    assert_eq!(world.backends(2), ["b:10.2.0.1", "b:10.2.0.9"]);
    world.endpoints(0, "shop/cart", &["10.1.0.1"]);
    world.run(1);
    world.start(1);
    world.run(10);
    assert_eq!(world.backends(2), ["a:10.1.0.1", "b:10.2.0.1", "b:10.2.0.9"]);
    assert!(world.slices(2).iter().all(|slice| !slice.stale));
}

#[test]
fn revocation_takes_everything() {
    let mut world = World::new(2);
    world.export(1, "shop/cart", 6, &["10.2.0.1"]);
    world.run(1);
    let member = ObjectKey::new(SHARED_NAMESPACE, "b");
    let Some(Object::Member(_, mut spec)) = world.broker.objects.get(&(Kind::Members, member.clone())).cloned() else {
        panic!("no member")
    };
    spec.revoked = true;
    world.broker_put(Kind::Members, &member, Object::Member(Meta::default(), spec));
    world.run(1);
    assert!(world.import(0, "shop/cart").is_none());
    // The one revoked keeps what it has.
    assert_eq!(world.backends(1), ["b:10.2.0.1"]);
    assert!(world.clusters[1].controller.report(world.now).membership.unwrap().contains("revoked"));
}

#[test]
fn the_import_of_a_newcomers_export_stays_while_members_are_listed() {
    let mut world = World::new(2);
    world.export(1, "shop/cart", 6, &["10.2.0.1"]);
    world.run(1);
    let before = world.import(0, "shop/cart").unwrap().clone();
    // Cluster c joined and exports the service, and of that only the record has come yet.
    let record = |cluster: &str| ObjectKey::new(member_namespace(cluster), "shop.cart");
    let theirs = world.broker.objects[&(Kind::ExportRecords, record("b"))].clone();
    let now = world.now;
    world.clusters[0].controller.handle(Event::ListStarted(Kind::Members), now);
    world.broker_put(Kind::ExportRecords, &record("c"), theirs);
    world.delete(1, Kind::Exports, "shop/cart");
    world.run(1);
    assert_eq!(world.import(0, "shop/cart").map(|import| &import.meta.uid), Some(&before.meta.uid));
    // Its lease is renewed, though the list ends without it: the watch is late.
    let lease = ObjectKey::new(member_namespace("c"), LEASE);
    let renewal = Object::Lease(Meta::default(), world.statement("b"));
    for _ in 0..2 {
        world.broker_put(Kind::Leases, &lease, renewal.clone());
    }
    world.list(0, Kind::Members);
    world.run(1);
    assert!(world.import(0, "shop/cart").is_some());
    // Nobody gives a sign of life any more: it is nobody's record.
    world.run(81);
    assert!(world.import(0, "shop/cart").is_none());
}

#[test]
fn a_restart_before_an_emptied_broker_takes_nothing() {
    let mut world = World::new(2);
    world.export(1, "shop/cart", 6, &["10.2.0.1"]);
    world.run(1);
    let before = world.import(0, "shop/cart").unwrap().clone();
    world.clusters[1].alive = false;
    let all: Vec<_> = world.broker.objects.keys().cloned().collect();
    for object in all {
        world.broker.objects.remove(&object);
    }
    world.start(0);
    world.run(30);
    assert_eq!(world.import(0, "shop/cart"), Some(&before));
    assert_eq!(world.backends(0), ["b:10.2.0.1"]);
}

#[test]
fn what_was_withdrawn_meanwhile_goes_when_the_source_says_so() {
    let mut world = World::new(2);
    world.export(1, "shop/cart", 6, &["10.2.0.1"]);
    world.export(1, "shop/kept", 6, &["10.2.0.2"]);
    world.run(1);
    // Longer away than tombstones stay.
    world.clusters[0].alive = false;
    world.delete(1, Kind::Exports, "shop/cart");
    world.run(700);
    world.start(0);
    world.settle();
    assert!(world.import(0, "shop/cart").is_some(), "nobody has said so yet");
    world.run(12);
    assert!(world.import(0, "shop/cart").is_none());
    assert_eq!(world.backends(0), ["b:10.2.0.2"]);
}

#[test]
fn somebody_elses_import_is_left_alone() {
    let mut world = World::new(2);
    let theirs = Import { labels: [("made".to_owned(), "by-hand".to_owned())].into(), ..Import::default() };
    world.put(0, Kind::Imports, "shop/cart", Object::Import(theirs.clone()));
    world.export(1, "shop/cart", 6, &["10.2.0.1"]);
    world.run(1);
    assert_eq!(world.import(0, "shop/cart").unwrap().labels, theirs.labels);
    assert!(world.slices(0).is_empty());
    assert_eq!(world.import(1, "shop/cart").unwrap().clusters, ["b"]);
}

#[test]
fn others_annotations_stay() {
    let mut world = World::new(1);
    world.export(0, "shop/cart", 6, &[]);
    world.run(1);
    let mut import = world.import(0, "shop/cart").unwrap().clone();
    import.annotations.insert(crate::api::CLUSTER_WEIGHTS.to_owned(), "{}".to_owned());
    import.clusters.clear();
    world.put(0, Kind::Imports, "shop/cart", Object::Import(import));
    world.run(1);
    let import = world.import(0, "shop/cart").unwrap();
    assert_eq!(import.clusters, ["a"]);
    assert!(import.annotations.contains_key(crate::api::CLUSTER_WEIGHTS));
}

#[test]
fn a_follower_wants_nothing_and_takes_over() {
    let mut world = World::new(1);
    let now = world.now;
    world.clusters[0].controller.handle(Event::Leader(false), now);
    world.export(0, "shop/cart", 6, &[]);
    assert!(world.clusters[0].controller.ops(now).is_empty());
    assert!(world.clusters[0].controller.wake().is_none());
    world.clusters[0].controller.handle(Event::Leader(true), now);
    world.run(1);
    assert!(world.import(0, "shop/cart").is_some());
    assert!(world.broker.objects.contains_key(&(Kind::ExportRecords, key("mcs-a/shop.cart"))));
}
