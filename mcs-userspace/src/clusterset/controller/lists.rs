//! How far the lists are: nothing is deleted before everything that could speak for it was listed.

use std::collections::{BTreeMap, BTreeSet};

use crate::clusterset::event::Kind;
use crate::model::ObjectKey;

/// Of all kinds.
#[derive(Debug, Default)]
pub(super) struct Lists(BTreeMap<Kind, List>);

#[derive(Debug, Default)]
struct List {
    /// What the list under way delivered.
    delivered: Option<BTreeSet<ObjectKey>>,
    /// It was complete once.
    complete: bool,
    /// The watch is broken, and not known to be whole again.
    interrupted: bool,
}

impl Lists {
    pub(super) fn started(&mut self, kind: Kind) {
        let list = self.0.entry(kind).or_default();
        list.delivered = Some(BTreeSet::new());
        list.interrupted = false;
    }

    /// An object of the kind was heard of. A watch that was broken is whole again.
    pub(super) fn heard(&mut self, kind: Kind, key: &ObjectKey, exists: bool) {
        let list = self.0.entry(kind).or_default();
        list.interrupted = false;
        if let Some(delivered) = &mut list.delivered {
            if exists {
                delivered.insert(key.clone());
            } else {
                delivered.remove(key);
            }
        }
    }

    /// What the list delivered; none if none was under way.
    pub(super) fn complete(&mut self, kind: Kind) -> Option<BTreeSet<ObjectKey>> {
        let list = self.0.entry(kind).or_default();
        let delivered = list.delivered.take()?;
        list.complete = true;
        Some(delivered)
    }

    pub(super) fn interrupted(&mut self, kind: Kind) {
        let list = self.0.entry(kind).or_default();
        list.delivered = None;
        list.interrupted = true;
    }

    /// Whether it was complete once.
    pub(super) fn known(&self, kind: Kind) -> bool {
        self.0.get(&kind).is_some_and(|list| list.complete)
    }

    /// Whether all were complete once.
    pub(super) fn all_known(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|kind| self.known(*kind))
    }

    /// Whether all were complete once, and none of them is being listed again or broken.
    pub(super) fn all_current(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|kind| {
            self.0.get(kind).is_some_and(|list| list.complete && list.delivered.is_none() && !list.interrupted)
        })
    }

    /// Whether all were complete once, and none of them is being listed again.
    pub(super) fn settled(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|kind| self.0.get(kind).is_some_and(|list| list.complete && list.delivered.is_none()))
    }
}
