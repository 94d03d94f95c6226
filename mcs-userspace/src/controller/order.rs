//! Which of two words about an object is the newer one: a watch's, or the answer to a write of ours.
//!
//! ```text
//!  write ──────────────► answer: version 12        both tell of the same object, over different connections
//!  watch ──► 9 ──► 12 ──► 15 deleted               whatever is older than what was heard already is not passed on
//! ```
//!
//! Only objects with a write under way, or with an answer that the watch has not come to yet, are kept here.

use std::collections::{HashMap, HashSet};

use super::sight::Heard;
use crate::clusterset::event::{Event, Kind};
use crate::model::ObjectKey;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Order {
    objects: HashMap<(Kind, ObjectKey), Track>,
    /// Kinds whose list is being read. An object of a list is passed on though it be older than an answer: that it is
    /// there at all is news.
    listing: HashSet<Kind>,
}

#[derive(Debug, Default)]
struct Track {
    /// Writes under way.
    writes: usize,
    /// The newest version that the watch told of while a write was under way.
    watched: u64,
    /// The version of the last answer.
    answered: u64,
}

impl Order {
    /// A write begins.
    pub(super) fn written(&mut self, kind: Kind, key: &ObjectKey) {
        self.objects.entry((kind, key.clone())).or_default().writes += 1;
    }

    /// A watch told this. Whether it is news.
    pub(super) fn watched(&mut self, heard: &Heard) -> bool {
        match &heard.event {
            Event::ListStarted(kind) => {
                self.listing.insert(*kind);
                true
            }
            Event::Listed(kind, version) => {
                self.listing.remove(kind);
                self.objects.retain(|(of, _), track| of != kind || track.writes > 0 || track.answered > *version);
                true
            }
            Event::Interrupted(kind) => {
                self.listing.remove(kind);
                true
            }
            Event::Applied(kind, key, _) | Event::Deleted(kind, key) => {
                let id = (*kind, key.clone());
                let Some(track) = self.objects.get_mut(&id) else { return true };
                if heard.version < track.answered && !self.listing.contains(kind) {
                    return false;
                }
                track.watched = track.watched.max(heard.version);
                if track.writes == 0 && track.watched >= track.answered {
                    self.objects.remove(&id);
                }
                true
            }
            Event::Crd(..)
            | Event::ClusterUid(_)
            | Event::Leader(_)
            | Event::Failed(..)
            | Event::WithdrawalApproved
            | Event::Remembered(_) => true,
        }
    }

    /// A write of this object is over, and said that it is now at `version` (0 if it is gone, none if the write failed).
    /// Whether that is news.
    pub(super) fn answered(&mut self, kind: Kind, key: &ObjectKey, version: Option<u64>) -> bool {
        let id = (kind, key.clone());
        let Some(track) = self.objects.get_mut(&id) else { return true };
        track.writes = track.writes.saturating_sub(1);
        let news = match version {
            None => true,
            Some(0) => track.watched == 0,
            Some(version) => version > track.watched,
        };
        if news {
            track.answered = track.answered.max(version.unwrap_or_default());
        }
        if track.writes == 0 && track.watched >= track.answered {
            self.objects.remove(&id);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clusterset::event::Object;

    const KIND: Kind = Kind::Imports;

    fn key() -> ObjectKey {
        ObjectKey::new("shop", "cart")
    }

    fn applied(version: u64) -> Heard {
        let object = Object::Unreadable { reason: "does not matter".to_owned() };
        Heard { event: Event::Applied(KIND, key(), Box::new(object)), version }
    }

    fn deleted(version: u64) -> Heard {
        Heard { event: Event::Deleted(KIND, key()), version }
    }

    #[test]
    fn an_answer_that_the_watch_overtook_is_no_news() {
        let mut order = Order::default();
        order.written(KIND, &key());
        assert!(order.watched(&applied(12)));
        assert!(order.watched(&deleted(15)));
        assert!(!order.answered(KIND, &key(), Some(12)), "it is deleted, and this is older");
        assert!(order.objects.is_empty());
    }

    #[test]
    fn what_the_watch_tells_late_is_no_news() {
        let mut order = Order::default();
        order.written(KIND, &key());
        assert!(order.answered(KIND, &key(), Some(12)));
        assert!(!order.watched(&applied(9)));
        assert!(order.watched(&applied(12)));
        assert!(order.objects.is_empty());
        assert!(order.watched(&applied(3)), "nothing is remembered of what is settled");
    }

    #[test]
    fn the_deletion_of_an_earlier_incarnation_is_no_news() {
        let mut order = Order::default();
        order.written(KIND, &key());
        assert!(order.answered(KIND, &key(), Some(0)), "deleted");
        order.written(KIND, &key());
        assert!(order.answered(KIND, &key(), Some(20)), "created again");
        assert!(!order.watched(&deleted(15)));
        assert!(order.watched(&applied(20)));
    }

    #[test]
    fn lists_are_passed_on_whole() {
        let mut order = Order::default();
        order.written(KIND, &key());
        assert!(order.answered(KIND, &key(), Some(12)));
        assert!(order.watched(&Event::ListStarted(KIND).into()));
        assert!(order.watched(&applied(9)));
        assert!(order.watched(&Event::Listed(KIND, 30).into()));
        assert!(order.objects.is_empty());
    }

    #[test]
    fn failures_are_always_news() {
        let mut order = Order::default();
        order.written(KIND, &key());
        assert!(order.watched(&applied(12)));
        assert!(order.answered(KIND, &key(), None));
        assert!(order.objects.is_empty());
    }
}
