//! ClusterSetIPs.

use std::time::Duration;

use super::fake::World;
use crate::clusterset::event::{Kind, Op};

#[test]
fn all_have_the_same_address_and_keep_it() {
    let mut world = World::new(3);
    world.export(0, "shop/cart", 5, &[]);
    world.export(1, "shop/cart", 5, &[]);
    world.run(1);
    let ips = world.import(0, "shop/cart").unwrap().spec.ips.clone();
    assert_eq!(ips.len(), 1);
    assert!((1..3).all(|cluster| world.import(cluster, "shop/cart").unwrap().spec.ips == ips));
    assert_eq!(world.import(0, "shop/cart").unwrap().spec.ip_families, ["IPv4"]);
    let reservations = world.broker.objects.keys().filter(|(kind, _)| *kind == Kind::Reservations).count();
    assert_eq!(reservations, 1);
    // Its creator leaves: others still export.
    world.delete(0, Kind::Exports, "shop/cart");
    world.run(10);
    assert!((0..3).all(|cluster| world.import(cluster, "shop/cart").unwrap().spec.ips == ips));
    assert_eq!(world.broker.objects.keys().filter(|(kind, _)| *kind == Kind::Reservations).count(), 1);
}

#[test]
fn an_emptied_broker_gets_the_same_reservations_before_new_ones() {
    let mut world = World::new(2);
    world.export(0, "shop/cart", 5, &[]);
    world.run(1);
    let ips = world.import(0, "shop/cart").unwrap().spec.ips.clone();
    let emptied = [Kind::Reservations, Kind::ExportRecords, Kind::SliceRecords, Kind::Leases];
    world.broker.objects.retain(|(kind, _), _| !emptied.contains(kind));
    world.reconnect(0);
    world.reconnect(1);
    world.export(1, "shop/other", 5, &[]);
    world.settle();
    assert_eq!(world.import(0, "shop/cart").unwrap().spec.ips, ips);
    assert!(world.import(1, "shop/other").unwrap().spec.ips.is_empty(), "nobody has said anything yet");
    world.run(15);
    assert_eq!(world.import(1, "shop/cart").unwrap().spec.ips, ips);
    let other = &world.import(1, "shop/other").unwrap().spec.ips;
    assert!(other.len() == 1 && *other != ips);
    assert!(world.statement("a").reserved && world.statement("b").reserved);
}

#[test]
fn an_address_that_is_being_released_is_not_taken() {
    let mut world = World::new(1);
    world.export(0, "shop/cart", 5, &[]);
    world.run(1);
    let mut released = Vec::new();
    let mut act = |world: &mut World| {
        for _ in 0..5 {
            for op in world.clusters[0].controller.ops(world.now) {
                if matches!(op, Op::Release(..)) { released.push(op) } else { world.execute(0, op) }
            }
        }
        released.clone()
    };
    world.delete(0, Kind::Exports, "shop/cart");
    assert!(act(&mut world).is_empty(), "not at once");
    world.now += Duration::from_secs(3);
    let [release] = <[Op; 1]>::try_from(act(&mut world)).unwrap();
    // It is exported again while the answer is awaited.
    world.export(0, "shop/cart", 6, &[]);
    act(&mut world);
    assert!(world.import(0, "shop/cart").unwrap().spec.ips.is_empty());
    world.execute(0, release);
    world.run(1);
    assert_eq!(world.import(0, "shop/cart").unwrap().spec.ips.len(), 1);
}

#[test]
fn exhaustion_is_a_condition_and_ends() {
    let mut world = World::with_cidrs(1, &["10.97.0.0/30"]);
    for service in ["shop/one", "shop/two", "shop/three"] {
        world.export(0, service, 5, &["10.1.0.1"]);
    }
    world.run(1);
    let without: Vec<&str> = ["shop/one", "shop/two", "shop/three"]
        .into_iter()
        .filter(|service| world.import(0, service).unwrap().spec.ips.is_empty())
        .collect();
    let [without] = without.as_slice() else { panic!("{without:?}") };
    let import = world.import(0, without).unwrap();
    assert_eq!(import.conditions[0].reason, "AddressesExhausted");
    assert_eq!(world.clusters[0].controller.report(world.now).exhausted.len(), 1);
    let other = ["shop/one", "shop/two", "shop/three"].into_iter().find(|service| service != without).unwrap();
    let without = (*without).to_owned();
    world.delete(0, Kind::Exports, other);
    world.run(5);
    assert_eq!(world.import(0, &without).unwrap().spec.ips.len(), 1);
    assert_eq!(world.import(0, &without).unwrap().conditions[0].reason, "Ready");
}

#[test]
fn families_without_addresses_are_a_condition() {
    let mut world = World::with_cidrs(1, &["fd00:97::/112"]);
    world.export(0, "shop/cart", 5, &[]);
    world.run(1);
    assert_eq!(world.import(0, "shop/cart").unwrap().conditions[0].reason, "IPFamilyNotSupported");
}
