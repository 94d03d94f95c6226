use proptest::prelude::*;

use super::*;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn present(uid: &str) -> CrdState {
    CrdState::Present(uid.to_owned())
}

/// These exports are missing.
fn exports(names: &[&str]) -> BTreeMap<ObjectKey, Part> {
    names.iter().map(|name| (key(name), Part::Export)).collect()
}

fn endpoints(names: &[&str]) -> BTreeMap<ObjectKey, Part> {
    names.iter().map(|name| (key(name), Part::Endpoints)).collect()
}

/// All lists, of this resourceVersion.
fn relist(brake: &mut Brake, resource_version: u64) {
    for kind in Brake::KINDS {
        brake.list_started(kind);
        brake.listed(kind, resource_version);
    }
}

/// A source that has listed everything at version 100, and misses nothing.
fn settled() -> Brake {
    let mut brake = Brake::new();
    brake.crd(present("crd"));
    brake.cluster_uid("cluster");
    relist(&mut brake, 100);
    assert_eq!(brake.decide(10, &BTreeMap::new()), BTreeMap::new());
    brake
}

/// The next process of the same source, at this version.
fn restarted(before: &Brake, resource_version: u64) -> Brake {
    let mut brake = Brake::new();
    brake.remember(before.mark());
    brake.crd(present("crd"));
    brake.cluster_uid("cluster");
    relist(&mut brake, resource_version);
    brake
}

fn reasons(brake: &Brake) -> Vec<&'static str> {
    brake.held().values().map(|held| held.reason.code()).collect()
}

#[test]
fn what_was_seen_deleted_on_a_live_watch_is_withdrawn_one_or_all() {
    let mut brake = settled();
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(brake.deleted(&key(name)), Decision::Withdraw);
    }
    assert!(brake.held().is_empty());
}

#[test]
fn a_few_that_are_missing_from_a_first_list_are_withdrawn() {
    let missing = exports(&["a", "b", "c", "d", "e"]);
    assert_eq!(restarted(&settled(), 101).decide(10, &missing), missing, "half is not more than half");
    let missing = exports(&["a", "b", "c", "d"]);
    assert_eq!(restarted(&settled(), 101).decide(4, &missing), missing, "all of less than five");
}

#[test]
fn more_than_half_of_at_least_five_missing_from_a_first_list_is_held() {
    let mut brake = restarted(&settled(), 101);
    assert_eq!(brake.decide(5, &exports(&["a", "b", "c"])), BTreeMap::new());
    assert_eq!(reasons(&brake), ["MoreThanHalfMissing"; 3]);
    let reason = &brake.held()[&key("a")].reason;
    assert_eq!(reason.to_string(), "3 of 5 published exports are missing at once");
    let mut brake = settled();
    relist(&mut brake, 101);
    assert_eq!(brake.decide(11, &exports(&["a", "b", "c", "d", "e", "f"])), BTreeMap::new(), "of a later list too");
}

#[test]
fn whatever_the_numbers_a_resource_version_that_went_back_holds() {
    let mut brake = restarted(&settled(), 99);
    assert_eq!(brake.decide(100, &exports(&["a"])), BTreeMap::new());
    assert_eq!(brake.held()[&key("a")].reason, HoldReason::WentBack { listed: 99, known: 100 });
    // So does the list of a kind that no mark is kept of, in one process.
    for kind in Brake::KINDS {
        let mut brake = settled();
        brake.list_started(kind);
        brake.listed(kind, 7);
        assert_eq!(brake.decide(100, &exports(&["a"])), BTreeMap::new(), "{kind:?}");
        assert_eq!(reasons(&brake), ["ResourceVersionWentBack"]);
    }
}

#[test]
fn a_backup_that_is_younger_than_the_last_list_went_back_too() {
    let mut brake = settled();
    brake.applied(Kind::Exports, 500);
    assert_eq!(brake.mark().resource_version, 500);
    let mut next = restarted(&brake, 400);
    assert_eq!(next.decide(100, &exports(&["a"])), BTreeMap::new());
    assert_eq!(next.held()[&key("a")].reason, HoldReason::WentBack { listed: 400, known: 500 });
    relist(&mut brake, 400);
    assert_eq!(brake.decide(100, &exports(&["a"])), BTreeMap::new());
    // Once that is settled, what is seen from then on counts.
    brake.applied(Kind::Exports, 410);
    brake.approved();
    assert_eq!(brake.mark().resource_version, 410);
}

#[test]
fn a_server_that_went_back_is_judged_when_all_its_lists_came_again() {
    let mut brake = settled();
    brake.applied(Kind::Exports, 300);
    for kind in Brake::KINDS {
        brake.interrupted(kind);
    }
    // this list alone is later than the one before
    brake.list_started(Kind::Services);
    brake.listed(Kind::Services, 200);
    assert_eq!(brake.decide(3, &exports(&["a"])), BTreeMap::new());
    relist(&mut brake, 200);
    assert_eq!(brake.decide(3, &exports(&["a"])), BTreeMap::new());
    assert_eq!(reasons(&brake), ["ResourceVersionWentBack"]);
}

#[test]
fn what_is_new_does_not_hide_that_a_list_went_back() {
    let mut brake = settled();
    for kind in Brake::KINDS {
        brake.interrupted(kind);
    }
    brake.list_started(Kind::Exports);
    brake.listed(Kind::Exports, 50);
    brake.applied(Kind::Exports, 110);
    assert_eq!(brake.mark().resource_version, 110);
    for kind in [Kind::Services, Kind::SourceSlices] {
        brake.list_started(kind);
        brake.listed(kind, 110);
    }
    assert_eq!(brake.decide(3, &exports(&["a"])), BTreeMap::new());
    assert_eq!(reasons(&brake), ["ResourceVersionWentBack"]);
}

#[test]
fn whatever_the_numbers_another_uid_of_the_crd_holds() {
    let mut brake = settled();
    brake.crd(present("another"));
    relist(&mut brake, 101);
    assert_eq!(brake.decide(100, &exports(&["a"])), BTreeMap::new());
    assert_eq!(reasons(&brake), ["CustomResourceDefinitionChanged"]);
}

#[test]
fn another_uid_is_not_believed_before_the_lists_that_belong_to_it() {
    // Told while everything known is still there.
    let mut brake = settled();
    brake.crd(present("another"));
    assert_eq!(brake.decide(2, &BTreeMap::new()), BTreeMap::new());
    relist(&mut brake, 101);
    assert_eq!(brake.decide(2, &exports(&["a"])), BTreeMap::new());
    assert_eq!(reasons(&brake), ["CustomResourceDefinitionChanged"]);

    let mut brake = settled();
    brake.cluster_uid("another");
    assert_eq!(brake.decide(2, &BTreeMap::new()), BTreeMap::new());
    for kind in [Kind::Services, Kind::SourceSlices] {
        brake.list_started(kind);
        brake.listed(kind, 101);
        assert_eq!(brake.decide(2, &BTreeMap::new()), BTreeMap::new());
    }
    assert_eq!(brake.mark().cluster_uid, "cluster");
    brake.list_started(Kind::Exports);
    brake.listed(Kind::Exports, 101);
    assert_eq!(brake.decide(2, &exports(&["a"])), BTreeMap::new());
    assert_eq!(reasons(&brake), ["ClusterChanged"]);
    brake.came_back(&key("a"), None);
    assert_eq!(brake.mark().cluster_uid, "another");
}

#[test]
fn whatever_the_numbers_another_uid_of_kube_system_holds() {
    let mut brake = Brake::new();
    brake.remember(settled().mark());
    brake.crd(present("crd"));
    brake.cluster_uid("another");
    relist(&mut brake, 101);
    assert_eq!(brake.decide(100, &exports(&["a"])), BTreeMap::new());
    assert_eq!(reasons(&brake), ["ClusterChanged"]);
}

#[test]
fn while_the_crd_is_gone_everything_is_held() {
    let mut brake = settled();
    brake.crd(CrdState::Gone);
    assert_eq!(brake.deleted(&key("a")), Decision::Hold(HoldReason::CrdGone));
    // No list is possible; a process that begins now holds what it does not find all the same.
    assert_eq!(brake.decide(2, &exports(&["a", "b"])), BTreeMap::new());
    assert_eq!(reasons(&brake), ["CustomResourceDefinitionGone"; 2]);
    // Made anew and empty.
    brake.crd(present("another"));
    relist(&mut brake, 200);
    assert_eq!(brake.decide(3, &exports(&["a", "b", "c"])), BTreeMap::new());
    assert_eq!(
        reasons(&brake),
        ["CustomResourceDefinitionGone", "CustomResourceDefinitionGone", "CustomResourceDefinitionChanged"]
    );
}

#[test]
fn a_deletion_that_is_told_after_its_crd_was_made_anew_is_held() {
    let mut brake = settled();
    brake.crd(present("another"));
    assert_eq!(brake.deleted(&key("a")), Decision::Hold(HoldReason::OtherCrd));
}

#[test]
fn what_came_back_under_a_new_crd_is_withdrawn_when_it_is_deleted_there() {
    let mut brake = settled();
    brake.crd(present("another"));
    relist(&mut brake, 101);
    brake.decide(2, &exports(&["a", "b"]));
    assert!(brake.came_back(&key("a"), None));
    assert_eq!(brake.deleted(&key("a")), Decision::Withdraw);
    assert_eq!(reasons(&brake), ["CustomResourceDefinitionChanged"], "the other is still held");
}

#[test]
fn nothing_is_decided_before_everything_was_heard() {
    let missing = exports(&["a"]);
    for unheard in 0..5 {
        let mut brake = Brake::new();
        if unheard != 0 {
            brake.crd(present("crd"));
        }
        if unheard != 1 {
            brake.cluster_uid("cluster");
        }
        for (i, kind) in Brake::KINDS.into_iter().enumerate() {
            brake.list_started(kind);
            if unheard != i + 2 {
                brake.listed(kind, 100);
            }
        }
        assert_eq!(brake.decide(1, &missing), BTreeMap::new(), "{unheard}");
        assert!(brake.held().is_empty(), "undecided is not held");
    }
    let mut brake = settled();
    brake.list_started(Kind::Services);
    assert_eq!(brake.decide(1, &missing), BTreeMap::new(), "nor while a list is under way");
    brake.listed(Kind::Services, 100);
    assert_eq!(brake.decide(1, &missing), missing);
}

#[test]
fn endpoints_that_went_from_some_to_none_count_as_missing() {
    let mut brake = settled();
    relist(&mut brake, 101);
    let mut missing = exports(&["a", "b"]);
    missing.extend(endpoints(&["c"]));
    assert_eq!(brake.decide(5, &missing), BTreeMap::new());
    assert_eq!(brake.held()[&key("c")].part, Part::Endpoints);
    let few = endpoints(&["a"]);
    assert_eq!(settled().decide(5, &few), few, "one of five is believed");
}

#[test]
fn a_hold_ends_when_the_objects_come_back() {
    let mut brake = restarted(&settled(), 50);
    brake.decide(10, &exports(&["a", "b"]));
    assert!(!brake.came_back(&key("z"), None), "was never held");
    assert!(!brake.came_back(&key("a"), Some(Part::Endpoints)), "its endpoints are not there yet");
    assert_eq!(brake.held()[&key("a")].part, Part::Endpoints);
    assert!(brake.came_back(&key("a"), None));
    assert_eq!(brake.mark().resource_version, 100, "the measure stays while anything is held");
    assert!(brake.came_back(&key("b"), None));
    assert_eq!(brake.mark().resource_version, 50);
    assert!(!brake.mark().holding);
    let one = exports(&["a"]);
    assert_eq!(brake.decide(10, &one), one, "and the API server is believed again");
}

#[test]
fn a_list_with_everything_in_it_ends_a_hold() {
    let mut brake = restarted(&settled(), 50);
    brake.decide(10, &exports(&["a"]));
    relist(&mut brake, 51);
    assert_eq!(brake.decide(10, &BTreeMap::new()), BTreeMap::new());
    assert!(brake.held().is_empty());
    assert_eq!(brake.mark().resource_version, 51);
}

#[test]
fn a_hold_ends_with_approval() {
    let mut brake = restarted(&settled(), 50);
    let mut missing = exports(&["a"]);
    missing.extend(endpoints(&["b"]));
    brake.decide(10, &missing);
    assert_eq!(brake.approved(), missing);
    assert!(brake.held().is_empty());
    let next = exports(&["c"]);
    assert_eq!(brake.decide(8, &next), next, "and the API server is believed again");
    assert_eq!(brake.approved(), BTreeMap::new());
}

#[test]
fn an_approval_is_for_what_is_held_and_for_nothing_else() {
    let mut next = restarted(&settled(), 50);
    assert_eq!(next.approved(), BTreeMap::new(), "before anything was looked at");
    assert_eq!(next.decide(10, &exports(&["a"])), BTreeMap::new());
    assert_eq!(reasons(&next), ["ResourceVersionWentBack"]);
}

#[test]
fn a_hold_ends_when_what_came_back_is_deleted() {
    let mut brake = restarted(&settled(), 50);
    brake.decide(10, &exports(&["a"]));
    assert_eq!(brake.deleted(&key("a")), Decision::Withdraw);
    assert!(brake.held().is_empty());
    assert_eq!(brake.mark().resource_version, 50);
}

#[test]
fn while_something_is_held_what_else_is_missing_is_held_too() {
    let mut brake = settled();
    relist(&mut brake, 101);
    brake.decide(10, &exports(&["a", "b", "c", "d", "e", "f"]));
    for name in ["a", "b", "c", "d", "e"] {
        brake.came_back(&key(name), None);
    }
    relist(&mut brake, 102);
    assert_eq!(brake.decide(10, &exports(&["f", "g"])), BTreeMap::new());
    assert_eq!(reasons(&brake), ["MoreThanHalfMissing", "HeldAlready"]);
    assert_eq!(brake.deleted(&key("a")), Decision::Withdraw, "a deletion that is seen is one");
}

#[test]
fn a_hold_survives_the_sources_restart() {
    // Because of the numbers: some came back meanwhile, so that the numbers alone would not hold.
    let mut brake = settled();
    relist(&mut brake, 101);
    brake.decide(10, &exports(&["a", "b", "c", "d", "e", "f"]));
    let mut next = restarted(&brake, 102);
    assert_eq!(next.decide(10, &exports(&["a"])), BTreeMap::new());
    assert_eq!(reasons(&next), ["HeldAlready"]);
    assert_eq!(next.approved(), exports(&["a"]));
    assert!(!next.mark().holding);

    // Because the API server went back: the next process finds the same lower version.
    let mut brake = restarted(&settled(), 50);
    brake.decide(10, &exports(&["a"]));
    let mut next = restarted(&brake, 51);
    assert_eq!(next.decide(10, &exports(&["a"])), BTreeMap::new());
    assert_eq!(reasons(&next), ["ResourceVersionWentBack"]);
}

#[test]
fn a_hold_that_an_earlier_process_had_ends_when_nothing_is_missing() {
    let mut brake = restarted(&settled(), 50);
    brake.decide(10, &exports(&["a"]));
    let mut next = restarted(&brake, 51);
    next.decide(10, &BTreeMap::new());
    assert!(!next.mark().holding);
    let one = exports(&["a"]);
    assert_eq!(next.decide(10, &one), one);
}

#[test]
fn a_source_without_a_memory_believes_its_first_list() {
    let mut brake = Brake::new();
    assert_eq!(brake.mark(), SourceMark::default());
    brake.crd(present("crd"));
    brake.cluster_uid("cluster");
    relist(&mut brake, 7);
    let missing = exports(&["a"]);
    assert_eq!(brake.decide(4, &missing), missing);
    let mark = SourceMark {
        crd_uid: "crd".to_owned(),
        cluster_uid: "cluster".to_owned(),
        resource_version: 7,
        holding: false,
    };
    assert_eq!(brake.mark(), mark);
}

#[test]
fn every_reason_is_a_word_and_a_sentence() {
    let all = [
        HoldReason::CrdGone,
        HoldReason::OtherCluster,
        HoldReason::OtherCrd,
        HoldReason::WentBack { listed: 1, known: 2 },
        HoldReason::MoreThanHalfMissing { missing: 3, published: 5 },
        HoldReason::HeldAlready,
    ];
    for reason in &all {
        // The pattern that the API server demands of a condition's reason.
        assert!(reason.code().bytes().all(|byte| byte.is_ascii_alphanumeric()), "{reason:?}");
        assert!(reason.to_string().split(' ').count() > 5, "{reason}");
    }
}

/// What happens to a source's API server, or to the source.
#[derive(Clone, Debug)]
enum Step {
    /// An export is deleted, by a user, on the live watch.
    Delete(usize),
    /// An export is made.
    Create(usize),
    /// The API server is restored from an empty backup; everything is listed anew.
    Lose,
    /// The CRD is deleted, with what there is, and made anew.
    Crd,
    /// The controller is restarted.
    Restart,
    /// All watches break.
    Relist,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..8_usize).prop_map(Step::Delete),
        6 => (0..8_usize).prop_map(Step::Create),
        1 => Just(Step::Lose),
        1 => Just(Step::Crd),
        2 => Just(Step::Restart),
        2 => Just(Step::Relist),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// As long as every deletion by a user is seen, only those are withdrawn: whatever API server and source go through, and
    /// whatever order that comes in.
    #[test]
    fn nothing_is_withdrawn_on_a_guess(steps in steps()) {
        let name = |i: usize| key(&format!("e{i}"));
        let mut brake = settled();
        let (mut there, mut published) = (BTreeMap::new(), BTreeMap::new());
        let (mut version, mut crd) = (100, 0);
        for step in steps {
            let mut relisted = false;
            match step {
                Step::Create(i) => {
                    there.insert(name(i), Part::Export);
                    published.insert(name(i), Part::Export);
                    version += 1;
                    brake.applied(Kind::Exports, version);
                    brake.came_back(&name(i), None);
                }
                Step::Delete(i) => {
                    if there.remove(&name(i)).is_some() {
                        prop_assert_eq!(brake.deleted(&name(i)), Decision::Withdraw);
                        published.remove(&name(i));
                    }
                }
                Step::Lose => {
                    there.clear();
                    version = 10;
                    relisted = true;
                }
                Step::Crd => {
                    brake.crd(CrdState::Gone);
                    for (key, _) in std::mem::take(&mut there) {
                        prop_assert_eq!(brake.deleted(&key), Decision::Hold(HoldReason::CrdGone));
                    }
                    crd += 1;
                    relisted = true;
                }
                Step::Restart => {
                    let mark = brake.mark();
                    brake = Brake::new();
                    brake.remember(mark);
                    brake.cluster_uid("cluster");
                    relisted = true;
                }
                Step::Relist => relisted = true,
            }
            version += 1;
            if relisted {
                brake.crd(present(if crd == 0 { "crd".to_owned() } else { format!("crd{crd}") }.as_str()));
                relist(&mut brake, version);
                let missing = published.clone().into_iter().filter(|(key, _)| !there.contains_key(key)).collect();
                prop_assert_eq!(brake.decide(published.len(), &missing), BTreeMap::new());
                prop_assert_eq!(brake.held().keys().collect::<Vec<_>>(), missing.keys().collect::<Vec<_>>());
            }
            prop_assert_eq!(brake.mark().holding, !brake.held().is_empty());
        }
    }
}
