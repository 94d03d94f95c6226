use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Of a member that adds nothing.
const fn version(version: u64) -> Token {
    Token { version, serial: 0 }
}

/// One observer, the members that it watches, and a broker that answers once a second unless told otherwise.
struct Observer {
    liveness: Liveness,
    now: Now,
    token: u64,
}

impl Observer {
    /// With these members, each of which renewed just now.
    fn of(members: &[&str]) -> Self {
        let mut observer = Self::restarted(members, &[]);
        observer.renew(members);
        observer
    }

    /// One that has only just listed the leases, and remembers these as dead.
    fn restarted(members: &[&str], dead: &[&str]) -> Self {
        let mut observer = Self { liveness: Liveness::new(Timings::default()), now: 1000 * SECOND, token: 100 };
        observer.liveness.remember_dead(dead.iter().map(ToString::to_string).collect());
        for member in members {
            observer.liveness.member_added(member);
        }
        observer.renew(members);
        observer
    }

    fn renew(&mut self, members: &[&str]) {
        for member in members {
            self.token += 1;
            self.liveness.renewal_seen(member, version(self.token), self.now);
        }
    }

    /// Seconds in which the broker answers, and these renew every fifth.
    fn pass(&mut self, seconds: u32, renewing: &[&str]) -> &mut Self {
        for second in 1..=seconds {
            self.now += SECOND;
            self.liveness.broker_answered(self.now);
            if second % 5 == 0 {
                self.renew(renewing);
            }
            self.liveness.evaluate();
        }
        self
    }

    /// `east=healthy west=dead`, and `held` if so.
    fn verdict(&mut self) -> String {
        let Verdict { health, held } = self.liveness.evaluate();
        let mut words: Vec<_> = health.iter().map(|(member, health)| format!("{member}={}", health.as_str())).collect();
        words.extend(held.then(|| "held".to_owned()));
        words.join(" ")
    }
}

#[test]
fn suspect_after_20_seconds_and_dead_after_60() {
    let mut observer = Observer::of(&["a", "b"]);
    assert_eq!(observer.pass(19, &["b"]).verdict(), "a=healthy b=healthy");
    assert_eq!(observer.pass(1, &["b"]).verdict(), "a=suspect b=healthy");
    assert_eq!(observer.pass(39, &["b"]).verdict(), "a=suspect b=healthy");
    assert_eq!(observer.pass(1, &["b"]).verdict(), "a=dead b=healthy");
}

#[test]
fn a_dead_member_comes_back_by_itself() {
    let mut observer = Observer::of(&["a", "b"]);
    observer.pass(60, &["b"]);
    observer.renew(&["a"]);
    assert_eq!(observer.verdict(), "a=healthy b=healthy");
    assert!(observer.liveness.dead().is_empty());
}

#[test]
fn silence_is_measured_since_the_renewal_that_was_last_seen() {
    let mut observer = Observer::of(&["a", "b"]);
    observer.pass(59, &["b"]).renew(&["a"]);
    assert_eq!(observer.pass(19, &["b"]).verdict(), "a=healthy b=healthy");
    assert_eq!(observer.pass(41, &["b"]).verdict(), "a=dead b=healthy");
}

#[test]
fn an_outage_of_the_broker_adds_no_silence() {
    let mut observer = Observer::of(&["a", "b"]);
    observer.pass(15, &["b"]);
    observer.liveness.broker_lost();
    observer.now += 3600 * SECOND;
    assert_eq!(observer.verdict(), "a=healthy b=healthy");
    assert_eq!(
        observer.pass(1, &[]).verdict(),
        "a=healthy b=healthy",
        "the first answer says nothing of the time before"
    );
    assert_eq!(observer.pass(5, &["b"]).verdict(), "a=suspect b=healthy", "silence goes on where it stood");
}

#[test]
fn a_short_outage_adds_no_silence_either() {
    let mut observer = Observer::of(&["a", "b"]);
    for _ in 0..100 {
        observer.pass(1, &[]).renew(&["b"]);
        observer.liveness.broker_lost();
        observer.now += 8 * SECOND;
    }
    // The first second of each round begins it anew: none of them counts.
    assert_eq!(observer.verdict(), "a=healthy b=healthy");
}

#[test]
fn a_connection_that_hangs_adds_no_silence() {
    let mut observer = Observer::of(&["a"]);
    for _ in 0..100 {
        observer.now += 11 * SECOND;
        observer.liveness.broker_answered(observer.now);
        assert_eq!(observer.verdict(), "a=healthy");
    }
}

#[test]
fn an_observer_that_was_suspended_removes_nothing() {
    let mut observer = Observer::of(&["a", "b"]);
    observer.now += 600 * SECOND;
    observer.liveness.broker_answered(observer.now);
    assert_eq!(observer.verdict(), "a=healthy b=healthy");
}

#[test]
fn silence_counts_only_up_to_the_last_answer() {
    let mut observer = Observer::of(&["a"]);
    observer.pass(59, &[]);
    observer.now += 3600 * SECOND;
    assert_eq!(observer.verdict(), "a=suspect");
}

#[test]
fn the_observers_own_lease_is_an_answer() {
    let mut observer = Observer::of(&["a", "b"]);
    for _ in 0..12 {
        observer.now += 5 * SECOND;
        observer.renew(&["observer", "b"]);
    }
    assert_eq!(observer.verdict(), "a=dead b=healthy");
}

#[test]
fn only_a_new_token_is_a_sign_of_life() {
    let mut observer = Observer::of(&["a", "b"]);
    let token = observer.token - 1;
    for _ in 0..60 {
        observer.pass(1, &[]).renew(&["b"]);
        observer.liveness.renewal_seen("a", version(token), observer.now);
    }
    assert_eq!(observer.verdict(), "a=dead b=healthy");
}

#[test]
fn versions_that_a_restored_broker_gives_again_are_signs_of_life() {
    let mut observer = Observer::of(&["b"]);
    observer.liveness.member_added("a");
    let mut serial = 0;
    let mut renew = |observer: &mut Observer, version| {
        serial += 1;
        observer.liveness.renewal_seen("a", Token { version, serial }, observer.now);
    };
    let versions = (0..12).map(|round| 1000 + 10 * round);
    for version in versions.clone() {
        observer.pass(5, &["b"]);
        renew(&mut observer, version);
    }
    // The broker is what it was before all of them, and gives each version a second time.
    observer.liveness.broker_replaced();
    renew(&mut observer, 990);
    for version in versions {
        observer.pass(5, &["b"]);
        renew(&mut observer, version);
    }
    assert_eq!(observer.verdict(), "a=healthy b=healthy");
}

#[test]
fn who_comes_back_last_is_not_dead_for_it() {
    let mut observer = Observer::of(&["a", "b", "c"]);
    observer.pass(80, &[]);
    assert_eq!(observer.verdict(), "a=suspect b=suspect c=suspect held");
    observer.renew(&["a"]);
    assert_eq!(observer.verdict(), "a=healthy b=suspect c=suspect held");
    assert!(observer.liveness.next_change().is_some_and(|at| at <= observer.now + 10 * SECOND));
    observer.pass(5, &["a"]).renew(&["b"]);
    assert_eq!(observer.verdict(), "a=healthy b=healthy c=suspect held");
    observer.pass(5, &["a", "b"]);
    assert_eq!(observer.verdict(), "a=healthy b=healthy c=dead");
}

#[test]
fn dead_survives_the_observers_restart() {
    let mut observer = Observer::of(&["a", "b"]);
    observer.pass(60, &["b"]);
    let dead = observer.liveness.dead();
    assert_eq!(dead, BTreeSet::from(["a".to_owned()]));

    let mut next = Observer::restarted(&["a", "b"], &["a"]);
    assert_eq!(next.verdict(), "a=dead b=healthy", "its old lease in the first list is no sign of life");
    assert_eq!(next.liveness.dead(), dead);
    next.renew(&["a"]);
    assert_eq!(next.verdict(), "a=healthy b=healthy");

    let mut other_order = Observer::restarted(&["a", "b"], &[]);
    other_order.liveness.remember_dead(dead);
    assert_eq!(other_order.verdict(), "a=dead b=healthy");
    assert_eq!(other_order.liveness.dead(), BTreeSet::from(["a".to_owned()]));
}

#[test]
fn the_dead_are_remembered_even_before_they_are_known_as_members() {
    let mut liveness = Liveness::new(Timings::default());
    liveness.remember_dead(BTreeSet::from(["a".to_owned()]));
    assert_eq!(liveness.dead(), BTreeSet::from(["a".to_owned()]));
    liveness.member_added("a");
    assert_eq!(liveness.evaluate().health["a"], Health::Dead);
    liveness.member_removed("a");
    assert!(liveness.dead().is_empty());
}

#[test]
fn a_memory_that_comes_late_does_not_kill_who_renewed_since() {
    let mut observer = Observer::of(&["a"]);
    observer.liveness.broker_replaced();
    observer.liveness.remember_dead(BTreeSet::from(["a".to_owned()]));
    assert_eq!(observer.verdict(), "a=healthy");
}

#[test]
fn one_of_two_members_dies() {
    assert_eq!(Observer::of(&["a"]).pass(60, &[]).verdict(), "a=dead", "one of two is not more than half");
}

#[test]
fn more_than_half_dead_at_once_is_the_brokers_fault() {
    assert_eq!(Observer::of(&["a", "b"]).pass(600, &[]).verdict(), "a=suspect b=suspect held", "two of three");
    assert_eq!(Observer::of(&["a", "b", "c"]).pass(60, &["c"]).verdict(), "a=dead b=dead c=healthy", "two of four");
    let three = Observer::of(&["a", "b", "c", "d"]).pass(60, &["d"]).verdict();
    assert_eq!(three, "a=suspect b=suspect c=suspect d=healthy held", "three of five");
}

/// The simulator's weather does not show this mistake; the rule's own test does.
#[cfg(debug_assertions)]
#[test]
fn without_the_quorum_that_rule_would_not_hold() {
    use crate::clusterset::fault::plant;
    plant(Some(Fault::DeadWithoutQuorum));
    let verdict = Observer::of(&["a", "b"]).pass(600, &[]).verdict();
    plant(None);
    assert_eq!(verdict, "a=dead b=dead");
}

#[test]
fn renewals_that_stop_together_kill_nobody_one_by_one() {
    let names: Vec<_> = (0..10).map(|i| format!("m{i}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut observer = Observer::of(&names);
    for name in &names {
        observer.pass(1, &[]).renew(&[name]);
    }
    observer.pass(300, &[]);
    assert!(observer.liveness.dead().is_empty());
    assert!(observer.liveness.evaluate().held);
}

#[test]
fn the_brokers_fault_is_disproved_by_renewals_and_by_revocation() {
    let mut observer = Observer::of(&["a", "b"]);
    observer.pass(60, &[]).renew(&["b"]);
    assert_eq!(observer.verdict(), "a=suspect b=healthy held", "the other may be the next to be heard");
    assert_eq!(observer.pass(10, &["b"]).verdict(), "a=dead b=healthy");

    let mut observer = Observer::of(&["a", "b", "c"]);
    assert_eq!(observer.pass(60, &[]).verdict(), "a=suspect b=suspect c=suspect held");
    observer.liveness.member_removed("a");
    assert_eq!(observer.verdict(), "b=suspect c=suspect held", "two of three");
    observer.liveness.member_removed("b");
    assert_eq!(observer.pass(10, &[]).verdict(), "c=dead");
}

#[test]
fn who_died_before_stays_dead_when_the_rest_is_held() {
    let mut observer = Observer::of(&["a", "b"]);
    observer.pass(60, &["b"]);
    assert_eq!(observer.pass(60, &[]).verdict(), "a=dead b=suspect held");
}

#[test]
fn a_restored_broker_neither_revives_the_dead_nor_kills_the_living() {
    let mut observer = Observer::of(&["a", "b", "c"]);
    observer.pass(60, &["b", "c"]);
    // Leases as they were in the backup, and then renewals from a lower number on.
    observer.token = 10;
    observer.renew(&["a", "b", "c"]);
    observer.liveness.broker_replaced();
    assert!(!observer.liveness.renewed("b"), "what its lease says is of unknown age");
    assert_eq!(observer.verdict(), "a=dead b=healthy c=healthy");
    observer.pass(5, &["b", "c"]);
    assert!(observer.liveness.renewed("b") && !observer.liveness.renewed("a"));
    assert_eq!(observer.pass(100, &["b", "c"]).verdict(), "a=dead b=healthy c=healthy");
}

#[test]
fn a_watch_that_begins_in_the_past_revives_nobody() {
    let mut observer = Observer::restarted(&["a", "b"], &[]);
    let mut tokens = Vec::new();
    for _ in 0..10 {
        observer.pass(5, &["b", "a"]);
        tokens.push(observer.token);
    }
    observer.pass(60, &["b"]);
    for token in tokens {
        observer.liveness.renewal_seen("a", version(token), observer.now);
        assert_eq!(observer.verdict(), "a=dead b=healthy");
    }
}

#[test]
fn a_member_without_a_lease_is_silent_from_when_it_became_known() {
    let mut observer = Observer::of(&["b", "c"]);
    observer.pass(100, &["b", "c"]);
    observer.liveness.member_added("a");
    observer.liveness.member_added("a");
    assert_eq!(observer.pass(19, &["b", "c"]).verdict(), "a=healthy b=healthy c=healthy");
    observer.liveness.member_added("a");
    assert_eq!(observer.pass(41, &["b", "c"]).verdict(), "a=dead b=healthy c=healthy");
}

#[test]
fn the_next_change_is_when_something_may_change() {
    let mut observer = Observer::of(&["a"]);
    let start = observer.now;
    assert_eq!(observer.liveness.next_change(), Some(start + 20 * SECOND));
    observer.pass(20, &[]);
    assert_eq!(observer.liveness.next_change(), Some(start + 60 * SECOND));
    observer.pass(40, &[]);
    assert_eq!(observer.liveness.next_change(), None, "the dead wait for themselves");
    observer.liveness.broker_lost();
    observer.renew(&["b"]);
    observer.liveness.member_added("b");
    observer.liveness.broker_lost();
    assert_eq!(observer.liveness.next_change(), None, "nothing changes while the broker does not answer");
}

#[derive(Clone, Debug)]
enum Step {
    /// Milliseconds, and then an answer.
    Answer(u64),
    /// Milliseconds, and then nothing more.
    Lost(u64),
    /// One member renews.
    Renew(usize),
    /// The observer begins anew, with what it remembered.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..12_000_u64).prop_map(Step::Answer),
        1 => (0..100_000_u64).prop_map(Step::Lost),
        3 => (0..5_usize).prop_map(Step::Renew),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..120)
}

/// Plays a history; after each step, the verdict.
fn play(members: usize, steps: &[Step], epoch: Duration) -> Vec<Verdict> {
    let names: Vec<_> = (0..members).map(|i| format!("m{i}")).collect();
    let begin = |dead, tokens: &[u64], now| {
        let mut liveness = Liveness::new(Timings::default());
        liveness.remember_dead(dead);
        for (name, token) in names.iter().zip(tokens) {
            liveness.member_added(name);
            liveness.renewal_seen(name, version(*token), now);
        }
        liveness
    };
    let (mut now, mut tokens) = (epoch, vec![1; members]);
    let mut liveness = begin(BTreeSet::new(), &tokens, now);
    let mut verdicts = Vec::new();
    for step in steps {
        match *step {
            Step::Answer(ms) => {
                now += Duration::from_millis(ms);
                liveness.broker_answered(now);
            }
            Step::Lost(ms) => {
                now += Duration::from_millis(ms);
                liveness.broker_lost();
            }
            Step::Renew(member) => {
                let member = member % members;
                tokens[member] += 1;
                liveness.renewal_seen(&names[member], version(tokens[member]), now);
            }
            Step::Restart => liveness = begin(liveness.dead(), &tokens, now),
        }
        verdicts.push(liveness.evaluate());
    }
    verdicts
}

proptest! {
    /// Nobody dies but of a minute of answers without a renewal, nobody with more than half silent, and nobody comes back but
    /// by a renewal.
    #[test]
    fn nobody_dies_or_revives_on_a_guess(members in 1..5_usize, steps in steps()) {
        let verdicts = play(members, &steps, Duration::ZERO);
        let mut answered = vec![Duration::ZERO; members];
        let mut before = Verdict::default();
        for (step, verdict) in steps.iter().zip(verdicts) {
            match *step {
                Step::Answer(ms) => answered.iter_mut().for_each(|time| *time += Duration::from_millis(ms)),
                Step::Renew(member) => answered[member % members] = Duration::ZERO,
                Step::Lost(_) => {}
                Step::Restart => answered.iter_mut().for_each(|time| *time = Duration::ZERO),
            }
            let dead = |verdict: &Verdict, i| verdict.health.get(&format!("m{i}")) == Some(&Health::Dead);
            let newly: Vec<_> = (0..members).filter(|i| dead(&verdict, *i) && !dead(&before, *i)).collect();
            prop_assert!(newly.iter().all(|i| answered[*i] >= 60 * SECOND), "{newly:?} after {answered:?}");
            let silent = verdict.health.values().filter(|health| **health != Health::Healthy).count();
            prop_assert!(newly.is_empty() || silent * 2 <= members + 1);
            for i in 0..members {
                let renewed = matches!(step, Step::Renew(member) if member % members == i);
                prop_assert!(renewed || !dead(&before, i) || dead(&verdict, i), "m{i} came back by itself");
            }
            before = verdict;
        }
    }

    /// The observer's clock may begin anywhere: only differences count, and nobody else's clock is asked.
    #[test]
    fn clocks_do_not_matter(members in 1..5_usize, steps in steps(), epoch in 0..u64::from(u32::MAX)) {
        prop_assert_eq!(play(members, &steps, Duration::ZERO), play(members, &steps, Duration::from_secs(epoch)));
    }
}
