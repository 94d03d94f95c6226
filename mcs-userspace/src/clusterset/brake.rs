//! The source's side: which of its published exports may be withdrawn.
//!
//! ```text
//!   deleted on a live watch ───────────────► CRD there? ──yes──► withdraw at once, one or all
//!                                                └──no──┐
//!   absent from a list ──► believable? ──yes──► withdraw│
//!                               └──no───────────────────┴──────► held ──► came back: published as before
//!                                                                    └──► approved:  withdraw
//! ```
//!
//! A withdrawal is a record that the source writes, and it writes it because it knows. That an object is not in a list is
//! knowledge only if the list comes from the API server that had the object, of a later time, with the same CRD, and if
//! not most of what there was is missing: an API server that was restored, emptied or exchanged lists little, and
//! truthfully. While something is held, what the source knew of its API server before stays its measure
//! ([`Brake::mark`]), so that a restart does not forget why.
//!
//! The deletion of a CRD deletes its objects on the live watch. The edge therefore looks at the CRD after it saw a
//! deletion and before it tells of it: a CRD is marked for deletion before its objects are.

use std::collections::BTreeMap;
use std::fmt;

use super::event::{CrdState, Kind};
use super::fault::{Fault, planted};
use super::record::SourceMark;
use crate::model::ObjectKey;

#[cfg(test)]
mod tests;

/// So many published exports make a share of them say something.
pub const SHARE_COUNTS_FROM: usize = 5;

/// What of an export is missing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Part {
    /// All of it: the ServiceExport, or its Service, is not there.
    Export,
    /// The export is there; it had endpoints, and has none. Replaced ones are not missing.
    Endpoints,
}

/// Whether something may be withdrawn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It may.
    Withdraw,
    /// It stays as it was published.
    Hold(HoldReason),
}

/// Why something is held.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HoldReason {
    /// The CRD is gone or goes, and its objects with it.
    CrdGone,
    /// The UID of kube-system is another one: so is the cluster, or it was built anew.
    OtherCluster,
    /// The UID of the CRD is another one: its objects went with the old one.
    OtherCrd,
    /// The API server went back in time.
    WentBack {
        /// The resourceVersion of the list.
        listed: u64,
        /// The highest of an earlier list.
        known: u64,
    },
    /// Too many at once.
    MoreThanHalfMissing {
        /// How many.
        missing: usize,
        /// Of how many.
        published: usize,
    },
    /// Others are held, by this process or by an earlier one: lists are not believed at all until that is settled.
    HeldAlready,
}

impl HoldReason {
    /// CamelCase, for conditions and events.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::CrdGone => "CustomResourceDefinitionGone",
            Self::OtherCluster => "ClusterChanged",
            Self::OtherCrd => "CustomResourceDefinitionChanged",
            Self::WentBack { .. } => "ResourceVersionWentBack",
            Self::MoreThanHalfMissing { .. } => "MoreThanHalfMissing",
            Self::HeldAlready => "HeldAlready",
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CrdGone => f.write_str("the CustomResourceDefinition of ServiceExports is gone or being deleted"),
            Self::OtherCluster => f.write_str("the UID of the namespace kube-system changed"),
            Self::OtherCrd => f.write_str("the UID of the CustomResourceDefinition of ServiceExports changed"),
            Self::WentBack { listed, known } => {
                write!(f, "the API server's resourceVersion went back from {known} to {listed}")
            }
            Self::MoreThanHalfMissing { missing, published } => {
                write!(f, "{missing} of {published} published exports are missing at once")
            }
            Self::HeldAlready => f.write_str("it is missing while other withdrawals are held"),
        }
    }
}

/// An export that is held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// What of it is missing.
    pub part: Part,
    /// Why that is not believed.
    pub reason: HoldReason,
}

/// What is held, and the measure by which lists are believed.
#[derive(Clone, Debug, Default)]
pub struct Brake {
    /// The API server as it was when nothing was held. What is empty is unknown. Versions are in `lists`.
    known: SourceMark,
    /// The API server as it is.
    seen: SourceMark,
    crd: Option<CrdState>,
    /// By kind of list. Versions of different kinds do not compare.
    lists: BTreeMap<Kind, Lists>,
    held: BTreeMap<ObjectKey, Held>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lists {
    /// The last one is complete.
    complete: bool,
    /// It is one of the API server and the CRD as they are: their UIDs are the same since before it began.
    current: bool,
    /// resourceVersion of the last one.
    last: u64,
    /// The highest one of it, and of objects seen since. A measure for the next list: after a list that went back, what is
    /// written next may well be newer than all that was known.
    since: u64,
    /// The highest one from before it, by which it is believed.
    highest: u64,
}

impl Brake {
    /// The kinds whose absence is absence of an export or of its endpoints.
    pub const KINDS: [Kind; 3] = [Kind::Exports, Kind::Services, Kind::SourceSlices];

    /// Of a source that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What an earlier process of the source knew, from its own Lease at the broker. To be called before the first
    /// [`Self::decide`], and before the Lease is written again.
    pub fn remember(&mut self, mark: SourceMark) {
        let lists = self.lists.entry(Kind::Exports).or_default();
        lists.highest = lists.highest.max(mark.resource_version);
        self.known = mark;
    }

    /// What the next process should know, for the Lease: the API server as it was when nothing was held.
    #[must_use]
    pub fn mark(&self) -> SourceMark {
        SourceMark {
            resource_version: self.lists.get(&Kind::Exports).map_or(0, |lists| lists.highest.max(lists.since)),
            holding: self.holding(),
            ..self.known.clone()
        }
    }

    /// State of the CRD of ServiceExports.
    pub fn crd(&mut self, state: CrdState) {
        if let CrdState::Present(uid) = &state {
            if !self.seen.crd_uid.is_empty() && self.seen.crd_uid != *uid {
                self.lists.entry(Kind::Exports).or_default().current = false;
            }
            self.seen.crd_uid.clone_from(uid);
        }
        self.crd = Some(state);
    }

    /// UID of kube-system.
    pub fn cluster_uid(&mut self, uid: &str) {
        if !self.seen.cluster_uid.is_empty() && self.seen.cluster_uid != uid {
            self.lists.values_mut().for_each(|lists| lists.current = false);
        }
        uid.clone_into(&mut self.seen.cluster_uid);
    }

    /// A list begins; kinds other than [`Self::KINDS`] do not matter. Nothing is decided before it is complete.
    pub fn list_started(&mut self, kind: Kind) {
        let lists = self.lists.entry(kind).or_default();
        lists.complete = false;
        lists.current = true;
        lists.highest = lists.highest.max(lists.since);
    }

    /// A watch broke: whatever comes next may be another content. Watches of one server break together and are made again
    /// one by one, so what one kind lists is judged only when the others were listed again, too.
    pub fn interrupted(&mut self, kind: Kind) {
        self.lists.entry(kind).or_default().complete = false;
    }

    /// A list is complete. [`Self::decide`] is to be called then.
    pub fn listed(&mut self, kind: Kind, resource_version: u64) {
        let lists = self.lists.entry(kind).or_default();
        lists.complete = true;
        lists.last = resource_version;
        lists.since = resource_version;
    }

    /// An object of this version was seen. A list of an earlier version, if it lacks the object, lacks it for that reason.
    pub fn applied(&mut self, kind: Kind, resource_version: u64) {
        let lists = self.lists.entry(kind).or_default();
        let known = if lists.complete { &mut lists.since } else { &mut lists.highest };
        *known = resource_version.max(*known);
    }

    /// A published export's ServiceExport or Service was seen deleted on a live watch.
    pub fn deleted(&mut self, key: &ObjectKey) -> Decision {
        let reason = match &self.crd {
            Some(CrdState::Present(_)) if self.lists.get(&Kind::Exports).is_some_and(|lists| lists.current) => {
                self.came_back(key, None);
                return Decision::Withdraw;
            }
            Some(CrdState::Present(_)) => HoldReason::OtherCrd,
            Some(CrdState::Gone) | None => HoldReason::CrdGone,
        };
        self.held.insert(key.clone(), Held { part: Part::Export, reason: reason.clone() });
        Decision::Hold(reason)
    }

    /// Judges what is missing after a list, of so many published exports, the missing and the held among them. What is
    /// returned may be withdrawn; the rest is [`Self::held`], or not decided yet while a list is under way or the CRD or
    /// the cluster's UID unknown. What is held and not missing any more is released. O(missing + held).
    pub fn decide(&mut self, published: usize, missing: &BTreeMap<ObjectKey, Part>) -> BTreeMap<ObjectKey, Part> {
        let gone = self.crd == Some(CrdState::Gone);
        if !gone && !self.complete() {
            return BTreeMap::new();
        }
        self.held.retain(|key, _| missing.contains_key(key));
        if let Some(reason) = self.disbelief(published, missing.len()) {
            for (key, part) in missing {
                let held = self.held.entry(key.clone()).or_insert_with(|| Held { part: *part, reason: reason.clone() });
                held.part = *part;
            }
        }
        self.believe_if_free();
        missing.iter().filter(|(key, _)| !self.held.contains_key(key)).map(|(key, part)| (key.clone(), *part)).collect()
    }

    /// A published export is there again, all of it or, with something missing still, its endpoints not yet. Whether it was
    /// held and is no more.
    pub fn came_back(&mut self, key: &ObjectKey, missing: Option<Part>) -> bool {
        match (self.held.get_mut(key), missing) {
            (None, _) => false,
            (Some(held), Some(part)) => {
                held.part = part;
                false
            }
            (Some(_), None) => {
                self.held.remove(key);
                self.believe_if_free();
                true
            }
        }
    }

    /// The user approved the withdrawal of what is held now, and of nothing else: it is returned, to be withdrawn, and the
    /// API server is believed as it is.
    pub fn approved(&mut self) -> BTreeMap<ObjectKey, Part> {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            self.believe();
        }
        held.into_iter().map(|(key, held)| (key, held.part)).collect()
    }

    /// What is held, and why.
    #[must_use]
    pub const fn held(&self) -> &BTreeMap<ObjectKey, Held> {
        &self.held
    }

    /// Why a list with so many missing is not believed.
    fn disbelief(&self, published: usize, missing: usize) -> Option<HoldReason> {
        let changed = |known: &str, seen: &str| !known.is_empty() && known != seen;
        let went_back =
            self.lists.values().find(|lists| lists.last < lists.highest && !planted(Fault::WentBackIgnored));
        if self.crd == Some(CrdState::Gone) {
            Some(HoldReason::CrdGone)
        } else if changed(&self.known.cluster_uid, &self.seen.cluster_uid) {
            Some(HoldReason::OtherCluster)
        } else if changed(&self.known.crd_uid, &self.seen.crd_uid) {
            Some(HoldReason::OtherCrd)
        } else if let Some(Lists { last, highest, .. }) = went_back {
            Some(HoldReason::WentBack { listed: *last, known: *highest })
        } else if published >= SHARE_COUNTS_FROM && missing * 2 > published {
            Some(HoldReason::MoreThanHalfMissing { missing, published })
        } else if self.holding() {
            Some(HoldReason::HeldAlready)
        } else {
            None
        }
    }

    fn holding(&self) -> bool {
        self.known.holding || !self.held.is_empty()
    }

    /// All that a decision needs was heard.
    fn complete(&self) -> bool {
        self.all_lists(|lists| lists.complete) && self.crd.is_some() && !self.seen.cluster_uid.is_empty()
    }

    /// With nothing held, what there is becomes the measure, if it was listed as what it is.
    fn believe_if_free(&mut self) {
        let current = self.complete() && self.all_lists(|lists| lists.current);
        if current && self.held.is_empty() && self.crd != Some(CrdState::Gone) {
            self.believe();
        }
    }

    fn all_lists(&self, are: impl Fn(&Lists) -> bool) -> bool {
        Self::KINDS.iter().all(|kind| self.lists.get(kind).is_some_and(&are))
    }

    fn believe(&mut self) {
        self.known = self.seen.clone();
        for lists in self.lists.values_mut() {
            lists.highest = lists.last;
        }
    }
}
