//! Who is a member.

use super::fake::World;
use crate::clusterset::event::{CrdState, Event, Kind, Object};
use crate::clusterset::local::{CLUSTER_ID_PROPERTY, CLUSTERSET_PROPERTY, Meta};
use crate::clusterset::record::{MemberSpec, SHARED_NAMESPACE};
use crate::model::ObjectKey;

#[test]
fn leaving_withdraws_everything_of_ours() {
    let mut world = World::new(2);
    world.export(0, "shop/cart", 5, &["10.1.0.1"]);
    world.export(1, "shop/other", 5, &["10.2.0.1"]);
    world.run(1);
    world.delete(0, Kind::Properties, CLUSTERSET_PROPERTY);
    world.run(2);
    assert!(world.import(0, "shop/cart").is_none() && world.import(0, "shop/other").is_none());
    assert!(world.slices(0).is_empty());
    assert!(world.import(1, "shop/cart").is_none());
    assert_eq!(world.backends(1), ["b:10.2.0.1"]);
    world.put(0, Kind::Properties, CLUSTERSET_PROPERTY, Object::Property("set".to_owned()));
    world.run(12);
    assert_eq!(world.backends(1), ["a:10.1.0.1", "b:10.2.0.1"]);
}

#[test]
fn properties_that_go_with_their_crd_change_nothing() {
    let mut world = World::new(2);
    world.export(0, "shop/cart", 5, &["10.1.0.1"]);
    world.run(1);
    let now = world.now;
    world.clusters[0].controller.handle(Event::Crd(Kind::Properties, CrdState::Gone), now);
    world.delete(0, Kind::Properties, CLUSTERSET_PROPERTY);
    world.delete(0, Kind::Properties, CLUSTER_ID_PROPERTY);
    world.run(90);
    assert_eq!(world.backends(1), ["a:10.1.0.1"]);
    assert_eq!(world.backends(0), ["a:10.1.0.1"]);
}

#[test]
fn who_is_no_member_neither_exports_nor_imports() {
    let mut world = World::new(2);
    world.delete(0, Kind::Properties, CLUSTERSET_PROPERTY);
    world.start(0);
    world.export(0, "shop/cart", 5, &["10.1.0.1"]);
    world.export(1, "shop/other", 5, &["10.2.0.1"]);
    world.run(2);
    assert!(world.import(0, "shop/other").is_none() && world.import(1, "shop/cart").is_none());
    assert_eq!(world.reason(0, "shop/cart", "Ready"), "Pending");
    assert!(world.clusters[0].controller.report(world.now).membership.unwrap().contains(CLUSTERSET_PROPERTY));
}

#[test]
fn nothing_is_renewed_or_decided_before_the_broker_was_seen() {
    let mut world = World::new(2);
    world.export(1, "shop/cart", 5, &["10.2.0.1"]);
    world.run(1);
    world.disconnect(0);
    world.clusters[0].wanted.clear();
    world.start(0);
    world.run(20);
    assert!(world.clusters[0].wanted.is_empty(), "{:?}", world.clusters[0].wanted);
    assert_eq!(world.backends(0), ["b:10.2.0.1"]);
}

#[test]
fn nobody_waits_for_who_left() {
    let mut world = World::new(2);
    world.delete(0, Kind::Properties, CLUSTERSET_PROPERTY);
    world.run(2);
    assert!(world.statement("a").left);
    world.reconnect(1);
    world.export(1, "shop/cart", 5, &["10.2.0.1"]);
    world.run(2);
    assert_eq!(world.import(1, "shop/cart").unwrap().spec.ips.len(), 1);
    world.put(0, Kind::Properties, CLUSTERSET_PROPERTY, Object::Property("set".to_owned()));
    world.run(12);
    assert!(!world.statement("a").left);
    assert_eq!(world.backends(0), ["b:10.2.0.1"]);
}

#[test]
fn who_is_only_invited_is_no_member_yet() {
    let mut world = World::new(2);
    let guest = ObjectKey::new(SHARED_NAMESPACE, "guest");
    let invited = Object::Member(Meta { uid: "guest".to_owned(), ..Meta::default() }, MemberSpec::default());
    world.broker_put(Kind::Members, &guest, invited);
    world.run(70);
    assert!(!world.clusters[0].controller.report(world.now).members.contains_key("guest"));
    let joined = MemberSpec { cluster_uid: "uid of guest".to_owned(), ..MemberSpec::default() };
    world.broker_put(
        Kind::Members,
        &guest,
        Object::Member(Meta { uid: "guest".to_owned(), ..Meta::default() }, joined),
    );
    world.run(1);
    assert!(world.clusters[0].controller.report(world.now).members.contains_key("guest"));
}
