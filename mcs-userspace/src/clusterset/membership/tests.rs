use super::*;
use crate::clusterset::record::{MAX_CLUSTER_ID, MemberSpec, member_namespace};

fn identity(cluster: &str, clusterset: &str) -> Identity {
    Identity { cluster: cluster.to_owned(), clusterset: clusterset.to_owned() }
}

fn present(uid: &str) -> CrdState {
    CrdState::Present(uid.to_owned())
}

/// A list that delivers these.
fn list(properties: &mut Properties, values: &[(&str, &str)]) -> Change {
    properties.list_started();
    for (name, value) in values {
        assert_eq!(properties.applied(name, value), Change::None, "nothing is decided within a list");
    }
    properties.listed()
}

fn member() -> Properties {
    let mut properties = Properties::new();
    properties.crd(present("crd"));
    let change = list(&mut properties, &[(CLUSTER_ID_PROPERTY, "east"), (CLUSTERSET_PROPERTY, "set")]);
    assert_eq!(change, Change::Joined(identity("east", "set")));
    properties
}

#[test]
fn both_properties_make_a_member() {
    assert_eq!(member().membership(), Membership::Member(identity("east", "set")));
    let mut properties = Properties::new();
    assert_eq!(properties.membership(), Membership::NotMember(Why::Unknown));
    properties.crd(present("crd"));
    assert_eq!(list(&mut properties, &[(CLUSTER_ID_PROPERTY, "east")]), Change::None);
    assert_eq!(properties.membership(), Membership::NotMember(Why::NoClusterSet));
    assert_eq!(properties.applied("fleet.example.org", "set"), Change::None);
    assert_eq!(properties.applied(CLUSTERSET_PROPERTY, "set"), Change::Joined(identity("east", "set")));
    assert_eq!(properties.applied(CLUSTERSET_PROPERTY, "set"), Change::None);
}

#[test]
fn joining_without_an_id_is_refused() {
    let mut properties = Properties::new();
    properties.crd(present("crd"));
    assert_eq!(list(&mut properties, &[(CLUSTERSET_PROPERTY, "set")]), Change::None);
    assert_eq!(properties.membership(), Membership::NotMember(Why::NoClusterId));
    assert_eq!(properties.approved(), Change::None, "who is no member cannot leave");
}

#[test]
fn joining_with_a_malformed_id_is_refused() {
    let mut properties = Properties::new();
    properties.crd(present("crd"));
    let change = list(&mut properties, &[(CLUSTER_ID_PROPERTY, "East"), (CLUSTERSET_PROPERTY, "set")]);
    assert_eq!(change, Change::None);
    let Membership::NotMember(why @ Why::ClusterId(_)) = properties.membership() else { panic!() };
    assert!(
        why.to_string().starts_with("ClusterProperty cluster.clusterset.k8s.io: \"East\" is no DNS label: "),
        "{why}"
    );
}

#[test]
fn an_id_is_one_dns_label_that_leaves_room_for_the_brokers_namespace() {
    let joins = |id: &str, clusterset: &str| {
        let mut properties = Properties::new();
        properties.crd(present("crd"));
        list(&mut properties, &[(CLUSTER_ID_PROPERTY, id), (CLUSTERSET_PROPERTY, clusterset)]) != Change::None
    };
    for good in ["a", "0", "east-1", "9f0c6d6e-0a5f-4d5c-8f0e-3b2d9a0c1e77", &"a".repeat(MAX_CLUSTER_ID)] {
        assert!(joins(good, "set"), "{good}");
        assert!(member_namespace(good).len() <= 63);
    }
    for bad in ["", "-a", "a-", "A", "a_b", "a b", "a/b", "a.b", "ä", "a\n", &"a".repeat(MAX_CLUSTER_ID + 1)] {
        assert!(!joins(bad, "set"), "{bad}");
    }
    assert!(joins("east", "prod.example.org"));
    for bad in ["", "prod..org", ".prod", "prod.", "Prod", &"a.".repeat(127)] {
        assert!(!joins("east", bad), "{bad}");
    }
}

#[test]
fn a_message_is_short_however_long_the_property() {
    let mut properties = Properties::new();
    properties.crd(present("crd"));
    list(&mut properties, &[(CLUSTER_ID_PROPERTY, &"ä".repeat(100_000)), (CLUSTERSET_PROPERTY, "set")]);
    let Membership::NotMember(why) = properties.membership() else { panic!() };
    assert!(why.to_string().len() < 300, "{}", why.to_string().len());
}

#[test]
fn another_id_is_leave_and_join() {
    let mut properties = member();
    let moved = Change::Moved(identity("east", "set"), identity("west", "set"));
    assert_eq!(properties.applied(CLUSTER_ID_PROPERTY, "west"), moved);
    assert_eq!(properties.membership(), Membership::Member(identity("west", "set")));
    // Deleted and made anew is the same, and between the two nothing is withdrawn.
    let mut properties = member();
    assert_eq!(properties.deleted(CLUSTER_ID_PROPERTY), Change::None);
    assert_eq!(properties.membership(), Membership::Held(identity("east", "set"), Why::NoClusterId));
    assert_eq!(properties.applied(CLUSTER_ID_PROPERTY, "west"), moved);
}

#[test]
fn another_clusterset_is_leave_and_join() {
    let mut properties = member();
    let moved = Change::Moved(identity("east", "set"), identity("east", "other"));
    assert_eq!(properties.applied(CLUSTERSET_PROPERTY, "other"), moved);
}

#[test]
fn both_changed_in_one_list_is_one_move() {
    let mut properties = member();
    let change = list(&mut properties, &[(CLUSTER_ID_PROPERTY, "west"), (CLUSTERSET_PROPERTY, "other")]);
    assert_eq!(change, Change::Moved(identity("east", "set"), identity("west", "other")));
}

#[test]
fn an_id_that_changed_while_nobody_looked_is_leave_and_join() {
    let mut properties = Properties::new();
    properties.remember(identity("east", "set"));
    properties.crd(present("crd"));
    let change = list(&mut properties, &[(CLUSTER_ID_PROPERTY, "west"), (CLUSTERSET_PROPERTY, "set")]);
    assert_eq!(change, Change::Moved(identity("east", "set"), identity("west", "set")));
}

#[test]
fn removal_of_the_membership_property_is_leave() {
    let mut properties = member();
    assert_eq!(properties.deleted(CLUSTERSET_PROPERTY), Change::Left(identity("east", "set")));
    assert_eq!(properties.membership(), Membership::NotMember(Why::NoClusterSet));
    assert_eq!(properties.deleted(CLUSTERSET_PROPERTY), Change::None);
    assert_eq!(properties.applied(CLUSTERSET_PROPERTY, "set"), Change::Joined(identity("east", "set")));
}

#[test]
fn absence_without_a_deletion_seen_is_held() {
    for missing in [CLUSTER_ID_PROPERTY, CLUSTERSET_PROPERTY] {
        let mut properties = member();
        let rest: Vec<_> = [(CLUSTER_ID_PROPERTY, "east"), (CLUSTERSET_PROPERTY, "set")]
            .into_iter()
            .filter(|(name, _)| *name != missing)
            .collect();
        assert_eq!(list(&mut properties, &rest), Change::None);
        assert!(matches!(properties.membership(), Membership::Held(_, Why::NoClusterId | Why::NoClusterSet)));
    }
    let mut properties = Properties::new();
    properties.remember(identity("east", "set"));
    properties.crd(present("crd"));
    assert_eq!(list(&mut properties, &[]), Change::None);
    assert_eq!(properties.membership(), Membership::Held(identity("east", "set"), Why::NoClusterId));
}

#[test]
fn a_member_whose_id_becomes_malformed_is_held() {
    let mut properties = member();
    assert_eq!(properties.applied(CLUSTER_ID_PROPERTY, "East"), Change::None);
    assert!(matches!(properties.membership(), Membership::Held(_, Why::ClusterId(_))));
    assert_eq!(properties.approved(), Change::None, "a typing error is mended, not approved");
    assert_eq!(properties.applied(CLUSTER_ID_PROPERTY, "east"), Change::None);
    assert_eq!(properties.membership(), Membership::Member(identity("east", "set")));
}

#[test]
fn while_the_crd_is_gone_everything_is_held() {
    let mut properties = member();
    assert_eq!(properties.crd(CrdState::Gone), Change::None);
    assert_eq!(properties.deleted(CLUSTERSET_PROPERTY), Change::None);
    assert_eq!(properties.deleted(CLUSTER_ID_PROPERTY), Change::None);
    assert_eq!(properties.membership(), Membership::Held(identity("east", "set"), Why::CrdGone));
    properties.crd(present("another"));
    assert_eq!(list(&mut properties, &[]), Change::None);
    assert_eq!(properties.membership(), Membership::Held(identity("east", "set"), Why::NoClusterId));
    properties.applied(CLUSTER_ID_PROPERTY, "east");
    assert_eq!(properties.applied(CLUSTERSET_PROPERTY, "set"), Change::None);
    assert_eq!(properties.membership(), Membership::Member(identity("east", "set")));
    assert_eq!(properties.deleted(CLUSTERSET_PROPERTY), Change::Left(identity("east", "set")));
}

#[test]
fn a_deletion_that_is_told_after_its_crd_was_made_anew_is_held() {
    let mut properties = member();
    properties.crd(present("another"));
    assert_eq!(properties.deleted(CLUSTERSET_PROPERTY), Change::None);
    assert_eq!(properties.membership(), Membership::Held(identity("east", "set"), Why::NoClusterSet));
}

#[test]
fn a_hold_ends_when_the_property_comes_back_or_with_approval() {
    let mut properties = member();
    list(&mut properties, &[(CLUSTER_ID_PROPERTY, "east")]);
    assert_eq!(properties.applied(CLUSTERSET_PROPERTY, "set"), Change::None);
    assert_eq!(properties.membership(), Membership::Member(identity("east", "set")));
    list(&mut properties, &[(CLUSTER_ID_PROPERTY, "east")]);
    assert_eq!(properties.approved(), Change::Left(identity("east", "set")));
    assert_eq!(properties.membership(), Membership::NotMember(Why::NoClusterSet));
    assert_eq!(member().approved(), Change::None, "approval does not make a member leave");
}

fn listed(members: &[(&'static str, &str, &[&str], bool)]) -> Vec<(&'static str, MemberSpec)> {
    let spec = |uid: &str, cidrs: &[&str], revoked| MemberSpec {
        cluster_uid: uid.to_owned(),
        pod_cidrs: cidrs.iter().map(ToString::to_string).collect(),
        revoked,
        ..MemberSpec::default()
    };
    members.iter().map(|(id, uid, cidrs, revoked)| (*id, spec(uid, cidrs, *revoked))).collect()
}

#[test]
fn join_is_refused_on_a_duplicate_id_and_for_a_member_under_another_id() {
    let members =
        listed(&[("east", "u1", &["10.1.0.0/16"], false), ("west", "u2", &["garbage", "10.2.0.0/16"], false)]);
    let admit = |id, uid, cidrs: &[&str]| {
        let cidrs: Vec<_> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        super::admit(id, uid, &cidrs, members.iter().map(|(id, spec)| (*id, spec)))
    };
    assert_eq!(admit("north", "u3", &["10.3.0.0/16"]), Ok(()));
    assert_eq!(admit("east", "u1", &["10.1.0.0/16"]), Ok(()), "joining again is no change");
    assert_eq!(admit("east", "u3", &[]), Err(Refusal::Duplicate { cluster: "east".into(), uid: "u1".into() }));
    assert_eq!(
        admit("north", "u2", &[]),
        Err(Refusal::AlreadyMember { wanted: "north".into(), cluster: "west".into() })
    );
    let refusal = admit("north", "u3", &["10.2.4.0/24"]).unwrap_err();
    assert_eq!(refusal.to_string(), "pod CIDR 10.2.4.0/24: overlaps 10.2.0.0/16 of member west");
}

#[test]
fn a_revoked_member_is_refused_and_counts_for_nothing_but_its_id() {
    let members = listed(&[("east", "u1", &["10.1.0.0/16"], true)]);
    let cidrs = ["10.1.0.0/16".parse().unwrap()];
    let admit = |id, uid| super::admit(id, uid, &cidrs, members.iter().map(|(id, spec)| (*id, spec)));
    assert_eq!(admit("east", "u1"), Err(Refusal::Revoked("east".into())));
    assert_eq!(admit("north", "u1"), Ok(()));
    assert!(matches!(admit("east", "u2"), Err(Refusal::Duplicate { .. })));
}
