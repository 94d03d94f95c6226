//! Who owns a frontend when several imports claim it: the oldest, and of equally old ones the first by namespace and name.
//!
//! The owner is a function of the set of claims and not of their order of arrival, so every node of every cluster that
//! sees the same imports decides alike. The others are left out until the owner goes or stops claiming. A change costs
//! as much as the import that changed has frontends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use mcs_ebpf::Frontend;

use crate::model::ObjectKey;

/// An import's claim to a frontend. Sorts by precedence: the owner's is the smallest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Claim {
    /// Unix seconds; an import without a creation time counts as the newest.
    created: i64,
    key: ObjectKey,
}

/// All claims.
#[derive(Default, Debug)]
pub struct Claims {
    /// The claims to each frontend, sorted, never empty: nearly always one.
    by_frontend: HashMap<Frontend, Vec<Claim>>,
    /// What each import claims, sorted.
    by_import: HashMap<ObjectKey, (i64, Vec<Frontend>)>,
}

/// What an import's new claims did to others.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ClaimChange {
    /// Other imports with a claim to a frontend whose owner changed: sorted, each once.
    pub others: Vec<ObjectKey>,
    /// Frontends that nobody claims any more.
    pub abandoned: Vec<Frontend>,
}

impl Claims {
    /// An import claims these frontends and no others from now on; none when it is gone.
    pub fn set(&mut self, key: &ObjectKey, created: Option<i64>, mut frontends: Vec<Frontend>) -> ClaimChange {
        let mut change = ClaimChange::default();
        frontends.sort_unstable();
        frontends.dedup();
        let created = created.unwrap_or(i64::MAX);
        let before = match self.by_import.get(key) {
            // the usual case: endpoints changed, claims did not
            Some((at, claimed)) if *at == created && *claimed == frontends => return change,
            Some(_) => self.by_import.remove(key),
            None => None,
        };
        let claim = Claim { created, key: key.clone() };
        if let Some((at, claimed)) = before {
            let old = Claim { created: at, key: key.clone() };
            // a claim that moves in time is taken back and made anew
            for frontend in claimed.into_iter().filter(|f| at != created || frontends.binary_search(f).is_err()) {
                self.take_back(frontend, &old, &mut change);
            }
        }
        for frontend in &frontends {
            self.make(*frontend, &claim, &mut change);
        }
        // given up and claimed again, in the loops above
        change.abandoned.retain(|f| !self.by_frontend.contains_key(f));
        change.others.sort_unstable();
        change.others.dedup();
        if !frontends.is_empty() {
            self.by_import.insert(key.clone(), (created, frontends));
        }
        change
    }

    fn take_back(&mut self, frontend: Frontend, claim: &Claim, change: &mut ClaimChange) {
        let Entry::Occupied(mut entry) = self.by_frontend.entry(frontend) else { return };
        let claims = entry.get_mut();
        if let Ok(at) = claims.binary_search(claim) {
            claims.remove(at);
            if at == 0 {
                change.others.extend(claims.iter().map(|c| c.key.clone()));
            }
        }
        if claims.is_empty() {
            entry.remove();
            change.abandoned.push(frontend);
        }
    }

    fn make(&mut self, frontend: Frontend, claim: &Claim, change: &mut ClaimChange) {
        let claims = self.by_frontend.entry(frontend).or_insert_with(|| Vec::with_capacity(1));
        if let Err(at) = claims.binary_search(claim) {
            if at == 0 {
                change.others.extend(claims.iter().map(|c| c.key.clone()));
            }
            claims.insert(at, claim.clone());
        }
    }

    /// Whose frontend this is. None when nobody claims it.
    #[must_use]
    pub fn owner(&self, frontend: &Frontend) -> Option<&ObjectKey> {
        self.by_frontend.get(frontend)?.first().map(|claim| &claim.key)
    }

    /// The frontends that somebody claims and their owners, in no order.
    pub fn owners(&self) -> impl Iterator<Item = (&Frontend, &ObjectKey)> {
        self.by_frontend.iter().filter_map(|(frontend, claims)| Some((frontend, &claims.first()?.key)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mcs_ebpf::{Addr, PortBe, TCP};
    use proptest::prelude::*;

    use super::*;

    fn frontend(n: u8) -> Frontend {
        Frontend::new(Addr::from_v4_be(u32::from(n)), PortBe::new(80), TCP)
    }

    fn key(n: u8) -> ObjectKey {
        ObjectKey::new("shop", format!("i{n}"))
    }

    #[test]
    fn the_older_import_keeps_a_frontend_and_the_younger_is_promoted() {
        let mut claims = Claims::default();
        assert_eq!(claims.set(&key(1), Some(20), vec![frontend(1)]), ClaimChange::default());
        let change = claims.set(&key(2), Some(10), vec![frontend(1), frontend(2)]);
        assert_eq!(change, ClaimChange { others: vec![key(1)], abandoned: vec![] });
        assert_eq!(claims.owner(&frontend(1)), Some(&key(2)));
        assert_eq!(claims.set(&key(3), None, vec![frontend(1)]), ClaimChange::default(), "no time: the newest");
        // every loser hears of it, as its problem names the owner
        let change = claims.set(&key(2), Some(10), vec![frontend(2)]);
        assert_eq!(change, ClaimChange { others: vec![key(1), key(3)], abandoned: vec![] });
        assert_eq!(claims.owner(&frontend(1)), Some(&key(1)));
        let change = claims.set(&key(2), None, vec![]);
        assert_eq!(change, ClaimChange { others: vec![], abandoned: vec![frontend(2)] });
    }

    #[test]
    fn an_import_that_is_made_anew_may_lose() {
        let mut claims = Claims::default();
        claims.set(&key(1), Some(10), vec![frontend(1)]);
        claims.set(&key(2), Some(20), vec![frontend(1)]);
        let change = claims.set(&key(1), Some(30), vec![frontend(1)]);
        assert_eq!(change, ClaimChange { others: vec![key(2)], abandoned: vec![] });
        assert_eq!(claims.owner(&frontend(1)), Some(&key(2)));
        assert_eq!(claims.set(&key(2), None, vec![]).others, [key(1)]);
        assert_eq!(claims.set(&key(1), Some(40), vec![frontend(1)]), ClaimChange::default());
    }

    proptest! {
        #[test]
        fn the_owner_is_a_function_of_the_set(
            steps in prop::collection::vec((0u8..5, prop::option::of(0i64..3), prop::collection::btree_set(0u8..4, 0..4)), 1..40),
        ) {
            let mut claims = Claims::default();
            let mut set: BTreeMap<u8, (Option<i64>, Vec<Frontend>)> = BTreeMap::new();
            for (n, created, wants) in steps {
                let before: Vec<_> = (0..4).map(|f| claims.owner(&frontend(f)).cloned()).collect();
                let wants: Vec<_> = wants.into_iter().map(frontend).collect();
                set.insert(n, (created, wants.clone()));
                let change = claims.set(&key(n), created, wants);
                for f in 0..4 {
                    let owner = set.iter().filter(|(_, (_, wants))| wants.contains(&frontend(f)))
                        .min_by_key(|(n, (created, _))| (created.is_none(), *created, **n)).map(|(n, _)| key(*n));
                    prop_assert_eq!(claims.owner(&frontend(f)).cloned(), owner.clone());
                    prop_assert_eq!(change.abandoned.contains(&frontend(f)), owner.is_none() && before[f as usize].is_some());
                    // whoever's standing changed is told
                    if owner != before[f as usize] {
                        for (m, (_, wants)) in &set {
                            prop_assert!(*m == n || !wants.contains(&frontend(f)) || change.others.contains(&key(*m)));
                        }
                    }
                }
                prop_assert!(!change.others.contains(&key(n)));
            }
        }
    }
}
