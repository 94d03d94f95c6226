//! What an API server says, and what of it the world was told. Pure: sights in, events out.
//!
//! ```text
//!  applied ──► read ──► told before?  no: Apply      invalid as a whole: what it said before stays
//!  deleted on a live watch ──────────────► Delete    unless the definition is gone: then it takes its objects along
//!  list complete ──► what it lacks ──────► Delete    unless the list is empty, of another definition, or of the past
//! ```
//!
//! The controller of the cluster writes these objects, and what it deletes is meant: while nobody looked, too. But an API
//! server that was emptied or restored, and a definition that was deleted, tell of deletions that nobody meant. What is
//! kept against an API server's word is *held*: until it is there again, is deleted before our eyes, or is missing in a
//! later list that is above suspicion.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::definition::Definition;
use super::object::Text;
use crate::api;
use crate::manifest::{self, Interner, Parsed, Served};
use crate::model::{Event, Object, ObjectId, ObjectKey, Unread};
use crate::problem::{Problem, Severity};
use crate::source::{Stamp, digest};

/// Why objects are kept that the API server does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hold {
    /// The definition is gone.
    NoDefinition,
    /// The list has nothing at all.
    Empty,
    /// The definition was made anew since.
    OtherDefinition,
    /// The list is older than one before.
    WentBack,
}

/// One resource.
#[derive(Default, Debug)]
struct Listing {
    /// What a list that is under way has shown so far.
    seen: Option<HashSet<ObjectId>>,
    /// Whether a list was complete.
    listed: bool,
    /// Whether anything was ever seen.
    has_any: bool,
    /// Version of the last complete list.
    version: u64,
    /// The definition at that list.
    uid: String,
    /// What is held, and why.
    held: Option<(Hold, BTreeSet<ObjectId>)>,
}

/// The state of an API server's ServiceImports and EndpointSlices.
#[derive(Default, Debug)]
pub(super) struct KubeState {
    names: Interner,
    /// Digests of what the world was told last.
    told: HashMap<ObjectId, u64>,
    imports: Listing,
    slices: Listing,
    definition: Definition,
    problems: BTreeMap<ObjectId, Vec<Problem>>,
    /// Objects that are there and never were valid.
    unread: BTreeSet<ObjectId>,
    /// Whether an agent before left services that no list told of yet.
    left_over: bool,
    synced: bool,
    events: Vec<Event>,
    stamps: Vec<Stamp>,
    new_problems: Vec<Problem>,
    problem_version: u64,
}

/// What follows from what was heard.
#[derive(Default, Debug)]
pub(super) struct Settled {
    /// In the order in which it happened.
    pub(super) events: Vec<Event>,
    pub(super) stamps: Vec<Stamp>,
    pub(super) new_problems: Vec<Problem>,
}

impl KubeState {
    /// The definition of ServiceImports is this now.
    pub(super) fn define(&mut self, definition: Definition) {
        if definition == self.definition {
            return;
        }
        self.definition = definition;
        self.problem_version += 1;
    }

    /// A list begins.
    pub(super) fn list_started(&mut self, kind: Served) {
        self.listing(kind).seen = Some(HashSet::new());
    }

    /// The watch broke: a list that was under way will not be completed.
    pub(super) fn interrupted(&mut self, kind: Served) {
        self.listing(kind).seen = None;
    }

    /// An object exists.
    pub(super) fn applied(&mut self, kind: Served, object: &Text) {
        let id = id(kind, object.key.clone());
        let listing = self.listing(kind);
        listing.has_any = true;
        if let Some((_, held)) = &mut listing.held {
            held.remove(&id);
            if held.is_empty() {
                listing.held = None;
            }
            self.problem_version += 1;
        }
        let listing = self.listing(kind);
        if let Some(seen) = &mut listing.seen {
            seen.insert(id.clone());
        }
        let version = match kind {
            Served::Imports => self.definition.version().unwrap_or(api::IMPORT_VERSIONS[0]),
            Served::Slices => api::SLICE_VERSION,
        };
        let Parsed { objects, idle, mut problems, changed_at, .. } =
            manifest::parse_served(kind, version, object.json(), &mut self.names);
        let object = objects.into_iter().next();
        let is_idle = !idle.is_empty();
        if object.is_none() && !is_idle {
            match (self.told.contains_key(&id), problems.last_mut()) {
                (true, Some(problem)) => problem.reason.push_str("; the object stays as it was"),
                (true, None) => {}
                (false, _) => {
                    self.unread.insert(id.clone());
                }
            }
        } else {
            self.unread.remove(&id);
        }
        self.set_problems(&id, problems);
        match object {
            Some(object) => self.tell(id, object, changed_at),
            None if is_idle => self.untell(&id),
            None => {}
        }
        self.names.sweep();
    }

    /// An object's deletion was seen on a live watch.
    pub(super) fn deleted(&mut self, kind: Served, key: &ObjectKey) {
        let id = id(kind, key.clone());
        if self.definition == Definition::Gone {
            self.hold(kind, Hold::NoDefinition, BTreeSet::from([id]));
            return;
        }
        self.forget(&id);
    }

    /// The list is complete, as of `version`.
    pub(super) fn listed(&mut self, kind: Served, version: u64) {
        let uid = match (&self.definition, kind) {
            (Definition::Present { uid, .. }, Served::Imports) => uid.clone(),
            (Definition::Unknown | Definition::Gone | Definition::Present { .. }, _) => String::new(),
        };
        let listing = self.listing(kind);
        let Some(seen) = listing.seen.take() else { return };
        let before = std::mem::replace(&mut listing.version, version);
        let other_definition = listing.listed && listing.uid != uid;
        listing.uid = uid;
        listing.has_any |= !seen.is_empty();
        listing.listed = true;
        listing.held = None;
        let known = self.told.keys().chain(self.problems.keys());
        let missing: BTreeSet<ObjectId> =
            known.filter(|id| served(id) == kind && !seen.contains(*id)).cloned().collect();
        let hold = match () {
            () if missing.is_empty() => None,
            () if seen.is_empty() => Some(Hold::Empty),
            () if other_definition => Some(Hold::OtherDefinition),
            () if version < before => Some(Hold::WentBack),
            () => None,
        };
        // What is invalid and was never told is nothing that could be kept.
        let (kept, gone): (BTreeSet<_>, BTreeSet<_>) =
            missing.into_iter().partition(|id| hold.is_some() && self.told.contains_key(id));
        gone.iter().for_each(|id| self.forget(id));
        if let Some(why) = hold {
            self.hold(kind, why, kept);
        }
        self.problem_version += 1;
        if !self.synced && self.imports.listed && self.slices.listed {
            self.synced = true;
            self.events.push(Event::Synced);
        }
    }

    /// What follows from all calls since the last one.
    pub(super) fn settle(&mut self) -> Settled {
        Settled {
            events: std::mem::take(&mut self.events),
            stamps: std::mem::take(&mut self.stamps),
            new_problems: std::mem::take(&mut self.new_problems),
        }
    }

    /// Says that an agent before this one left services in the maps.
    pub(super) fn set_left_over(&mut self, any: bool) {
        self.left_over = any;
    }

    /// The version of ServiceImports to ask for.
    pub(super) fn version(&self) -> Option<&'static str> {
        self.definition.version()
    }

    /// Whether everything was listed once.
    pub(super) fn is_synced(&self) -> bool {
        self.synced
    }

    /// Everything that is wrong with objects now.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// What is wrong with the whole, now.
    pub(super) fn whole_problems(&self) -> Vec<Problem> {
        let held = [(Served::Imports, &self.imports), (Served::Slices, &self.slices)];
        let mut problems: Vec<Problem> = held
            .into_iter()
            .filter_map(|(kind, listing)| {
                let (why, held) = listing.held.as_ref()?;
                Some(held_problem(kind, *why, held.len()))
            })
            .collect();
        if self.is_emptied() {
            problems.push(emptied());
        }
        match &self.definition {
            Definition::Gone => {
                let count = self.told.keys().filter(|id| served(id) == Served::Imports).count();
                problems.push(no_definition(count));
            }
            Definition::Present { version: None, .. } => problems.push(not_served()),
            Definition::Unknown | Definition::Present { version: Some(_), .. } => {}
        }
        problems
    }

    /// Changes whenever problems may have changed.
    pub(super) fn problem_version(&self) -> u64 {
        self.problem_version
    }

    /// What is there and was never readable; everything that an agent before left if the API server has nothing at all.
    pub(super) fn unread(&self) -> Unread {
        Unread {
            anything: self.is_emptied(),
            namespaces: self.unread.iter().map(|id| Arc::clone(&id.key().namespace)).collect(),
        }
    }

    /// Whether an agent before left services, and this API server has shown none, or no endpoints for them, ever.
    fn is_emptied(&self) -> bool {
        let nothing = |listing: &Listing| listing.listed && !listing.has_any;
        self.left_over && self.synced && (nothing(&self.imports) || nothing(&self.slices))
    }

    fn listing(&mut self, kind: Served) -> &mut Listing {
        match kind {
            Served::Imports => &mut self.imports,
            Served::Slices => &mut self.slices,
        }
    }

    fn tell(&mut self, id: ObjectId, object: Object, changed_at: Option<i64>) {
        let digest = digest(&object);
        if self.told.get(&id) == Some(&digest) {
            return;
        }
        // What was there before we looked says nothing of how fast it came.
        if let (true, Object::Slice(slice), Some(changed_ms)) = (self.synced, &object, changed_at) {
            self.stamps.push(Stamp { cluster: Arc::clone(&slice.cluster), changed_ms });
        }
        self.told.insert(id, digest);
        self.events.push(Event::Apply(object));
    }

    fn untell(&mut self, id: &ObjectId) {
        if self.told.remove(id).is_some() {
            self.events.push(Event::Delete(id.clone()));
        }
    }

    /// An object is gone.
    fn forget(&mut self, id: &ObjectId) {
        self.untell(id);
        self.unread.remove(id);
        self.set_problems(id, Vec::new());
        let listing = self.listing(served(id));
        if let Some((_, held)) = &mut listing.held {
            held.remove(id);
            if held.is_empty() {
                listing.held = None;
            }
            self.problem_version += 1;
        }
    }

    fn hold(&mut self, kind: Served, why: Hold, what: BTreeSet<ObjectId>) {
        let told: BTreeSet<ObjectId> = what.into_iter().filter(|id| self.told.contains_key(id)).collect();
        if told.is_empty() {
            return;
        }
        let listing = self.listing(kind);
        let (reason, held) = listing.held.get_or_insert_with(|| (why, BTreeSet::new()));
        *reason = why;
        held.extend(told);
        self.problem_version += 1;
    }

    fn set_problems(&mut self, id: &ObjectId, problems: Vec<Problem>) {
        let before = self.problems.remove(id).unwrap_or_default();
        if before != problems {
            self.problem_version += 1;
            self.new_problems.extend(problems.iter().filter(|problem| !before.contains(problem)).cloned());
        }
        if !problems.is_empty() {
            self.problems.insert(id.clone(), problems);
        }
    }
}

fn id(kind: Served, key: ObjectKey) -> ObjectId {
    match kind {
        Served::Imports => ObjectId::Import(key),
        Served::Slices => ObjectId::Slice(key),
    }
}

fn served(id: &ObjectId) -> Served {
    match id {
        ObjectId::Import(_) => Served::Imports,
        ObjectId::Slice(_) => Served::Slices,
    }
}

fn whole(object: &str, reason: String) -> Problem {
    Problem { object: object.to_owned(), file: None, field: String::new(), reason, severity: Severity::Invalid }
}

const DEFINITION: &str = "CustomResourceDefinition serviceimports.multicluster.x-k8s.io";

fn not_served() -> Problem {
    whole(DEFINITION, format!("serves none of {}", api::IMPORT_VERSIONS.join(" and ")))
}

fn no_definition(count: usize) -> Problem {
    let what = match count {
        0 => "nothing is imported until it is there: `mcs join` and `mcs crds` make it".to_owned(),
        count => format!("{count} ServiceImports stay as they were, and so do their endpoints"),
    };
    whole(DEFINITION, format!("is missing or being deleted: {what}"))
}

fn emptied() -> Problem {
    let reason = "the API server lists none, or none of their endpoints, but this node has services of an agent before: \
                  they stay until there is one; if they are meant to be gone, `mcs detach` and start the agent again";
    whole("ServiceImports", reason.to_owned())
}

fn held_problem(kind: Served, why: Hold, count: usize) -> Problem {
    let what = match kind {
        Served::Imports => "ServiceImports",
        Served::Slices => "EndpointSlices",
    };
    let why = match why {
        Hold::NoDefinition => "were deleted with the CustomResourceDefinition of ServiceImports",
        Hold::Empty => "are gone, and the list is empty: the API server may have lost what it had",
        Hold::OtherDefinition => "are gone, and the CustomResourceDefinition is another one than before",
        Hold::WentBack => "are gone, and the list is older than one before: the API server was put back",
    };
    let exit = "if they are meant to be gone, start the agent again once there are others";
    whole(what, format!("{count} {why}: they stay as they were until they are there again; {exit}"))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
