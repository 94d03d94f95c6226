use super::*;

fn wanted(cluster: &str) -> Wanted {
    Wanted { cluster: cluster.to_owned(), clusterset: "prod".to_owned(), ..Wanted::default() }
}

fn cidrs(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn facts(uid: &str) -> MemberFacts {
    MemberFacts { uid: uid.to_owned(), ..MemberFacts::default() }
}

fn member(uid: &str, pods: &[&str]) -> MemberSpec {
    MemberSpec {
        cluster_uid: uid.to_owned(),
        pod_cidrs: pods.iter().map(|&pod| pod.to_owned()).collect(),
        ..MemberSpec::default()
    }
}

fn broker(set: &[&str], members: &[(&str, MemberSpec)]) -> BrokerFacts {
    let spec = ClusterSetSpec { cidrs: set.iter().map(|&cidr| cidr.to_owned()).collect(), ..ClusterSetSpec::default() };
    BrokerFacts {
        prepared: true,
        clustersets: [("prod".to_owned(), spec)].into(),
        cidrs_to_be: Vec::new(),
        members: members.iter().map(|(id, spec)| ((*id).to_owned(), spec.clone())).collect(),
    }
}

fn refusal(broker: &BrokerFacts, wanted: &Wanted, facts: &MemberFacts) -> String {
    format!("{:#}", broker.decide(wanted, facts).unwrap_err())
}

#[test]
fn the_first_join_fixes_the_cidrs_and_later_ones_take_them() {
    let with = |texts: &[&str]| Wanted { clusterset_cidrs: cidrs(texts), ..wanted("a") };
    let unprepared = refusal(&BrokerFacts::default(), &wanted("a"), &facts("1"));
    assert!(unprepared.contains("mcs broker init"), "{unprepared}");
    let new = BrokerFacts { prepared: true, ..BrokerFacts::default() };
    let first = new.decide(&with(&["10.97.0.0/16", "fd97::/112"]), &facts("1")).unwrap();
    assert_eq!((first.cidrs, first.write_clusterset), (vec!["10.97.0.0/16".to_owned(), "fd97::/112".to_owned()], true));

    // CIDRs that `broker init` was given are as fixed as those of a ClusterSet
    let initialized = BrokerFacts { cidrs_to_be: vec!["10.97.0.0/16".to_owned()], ..new };
    let taken = initialized.decide(&wanted("a"), &facts("1")).unwrap();
    assert_eq!((taken.cidrs, taken.write_clusterset), (vec!["10.97.0.0/16".to_owned()], true));
    let other = refusal(&initialized, &with(&["10.98.0.0/16"]), &facts("1"));
    assert!(other.contains("10.98.0.0/16") && other.contains("10.97.0.0/16, fixed at the broker"), "{other}");

    let later = broker(&["10.97.0.0/16"], &[]);
    assert!(!later.decide(&wanted("b"), &facts("2")).unwrap().write_clusterset);
    assert!(!later.decide(&with(&["10.97.0.0/16"]), &facts("2")).unwrap().write_clusterset);
    assert!(refusal(&later, &with(&["10.98.0.0/16"]), &facts("2")).contains("never changed"));
    assert!(broker(&[], &[]).decide(&with(&["10.97.0.0/16"]), &facts("1")).unwrap().write_clusterset);
}

#[test]
fn a_broker_serves_one_clusterset() {
    let other = Wanted { clusterset: "test".to_owned(), ..wanted("a") };
    assert_eq!(
        refusal(&broker(&["10.97.0.0/16"], &[]), &other, &facts("1")),
        "broker: ClusterSet test: the broker serves ClusterSet prod, and one broker serves one"
    );
}

#[test]
fn joining_again_changes_nothing_and_keeps_what_it_does_not_know() {
    let mut known = member("1", &["10.1.0.0/16"]);
    known.other.insert("tier".to_owned(), "gold".into());
    let broker = broker(&["10.97.0.0/16"], &[("a", known.clone())]);
    let again = broker.decide(&wanted("a"), &facts("1")).unwrap();
    assert_eq!(
        again,
        Decision { cidrs: again.cidrs.clone(), write_clusterset: false, member: known, write_member: false }
    );
    let moved = Wanted { pod_cidrs: cidrs(&["10.2.0.0/16"]), ..wanted("a") };
    let moved = broker.decide(&moved, &facts("1")).unwrap();
    assert!(moved.write_member && moved.member.other.contains_key("tier"));
    assert_eq!(moved.member.pod_cidrs, ["10.2.0.0/16"]);
}

#[test]
fn duplicate_ids_other_ids_and_revoked_ones_are_refused() {
    let revoked = MemberSpec { revoked: true, ..member("3", &[]) };
    let broker = broker(&["10.97.0.0/16"], &[("a", member("1", &["10.1.0.0/16"])), ("c", revoked)]);
    assert!(refusal(&broker, &wanted("a"), &facts("2")).contains("is taken by the cluster with UID 1"));
    assert!(refusal(&broker, &wanted("b"), &facts("1")).contains("is a member as a"));
    assert!(refusal(&broker, &wanted("c"), &facts("3")).contains("revoked"));
    let overlapping = Wanted { pod_cidrs: cidrs(&["10.1.2.0/24"]), ..wanted("b") };
    assert!(refusal(&broker, &overlapping, &facts("2")).contains("overlaps 10.1.0.0/16 of member a"));
}

#[test]
fn a_member_that_a_token_was_made_for_has_no_uid_and_is_taken_by_the_first() {
    let broker = broker(&["10.97.0.0/16"], &[("a", member("", &["10.1.0.0/16"]))]);
    let first = broker.decide(&wanted("a"), &facts("1")).unwrap();
    assert_eq!((first.write_member, first.member), (true, member("1", &["10.1.0.0/16"])));
}

#[test]
fn properties_that_say_otherwise_are_not_overwritten() {
    let is = |name: &str, value: &str| MemberFacts {
        properties: [(name.to_owned(), value.to_owned())].into(),
        ..facts("1")
    };
    let broker = broker(&["10.97.0.0/16"], &[]);
    assert!(broker.decide(&wanted("a"), &is(CLUSTER_ID_PROPERTY, "a")).is_ok());
    assert_eq!(
        refusal(&broker, &wanted("a"), &is(CLUSTER_ID_PROPERTY, "b")),
        "member: ClusterProperty cluster.clusterset.k8s.io: is \"b\", not \"a\": `mcs leave` first, or delete it"
    );
    assert!(refusal(&broker, &wanted("a"), &is(CLUSTERSET_PROPERTY, "test")).contains("is \"test\""));
}

#[test]
fn clusterset_cidrs_must_be_free_in_the_member_and_of_all_members_pods() {
    let used = MemberFacts {
        used: vec![(cidrs(&["10.97.3.4/32"])[0], "the cluster IP of Service a/b".to_owned())],
        ..facts("2")
    };
    let free = broker(&["10.97.0.0/16"], &[]);
    assert_eq!(
        refusal(&free, &wanted("b"), &used),
        "member: ClusterSet CIDR 10.97.0.0/16: overlaps 10.97.3.4/32, the cluster IP of Service a/b"
    );
    let own = Wanted { pod_cidrs: cidrs(&["10.97.128.0/17"]), ..wanted("b") };
    assert!(refusal(&free, &own, &facts("2")).contains("its pods' addresses"));
    let open = broker(&[], &[("a", member("1", &["10.97.0.0/24"]))]);
    let fixing = Wanted { clusterset_cidrs: cidrs(&["10.97.0.0/16"]), ..wanted("b") };
    assert!(refusal(&open, &fixing, &facts("2")).contains("the addresses of pods of member a"));
}
