//! What a directory's files say, and what of it the world was told. Pure: names and texts in, events out.
//!
//! Objects themselves are not kept, the world has them; a digest tells whether one changed. So a million endpoints are
//! in memory once. The price: when an object's file goes and another file has the object too, that one must be read
//! again, which [`Settled::reread`] asks for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;

use crate::manifest::{self, Counts, Interner, Parsed};
use crate::model::{Event, Object, ObjectId, Unread};
use crate::problem::{Problem, Severity};
use crate::source::digest;

/// The state of a directory of manifests.
///
/// An object that several files have is taken from the first of them by name. Calls of [`DirState::file_read`] and
/// [`DirState::file_gone`] collect, [`DirState::settle`] tells what follows from all of them together: an object that
/// moved from one file to another is then one change, or none.
#[derive(Default, Debug)]
pub struct DirState {
    files: BTreeMap<Arc<str>, File>,
    /// Which files have an object.
    holders: HashMap<ObjectId, BTreeSet<Arc<str>>>,
    /// Digests of what the world was told last.
    told: HashMap<ObjectId, u64>,
    /// Objects that were touched since they were settled.
    dirty: BTreeSet<ObjectId>,
    /// New forms of objects, until they are settled.
    staged: HashMap<ObjectId, Vec<(Arc<str>, Object)>>,
    /// A problem for each object in each file whose form is not the one that counts.
    shadowed: BTreeMap<(ObjectId, Arc<str>), Problem>,
    new_problems: Vec<Problem>,
    names: Interner,
}

#[derive(Default, Debug)]
struct File {
    /// Digests of its objects' last good forms.
    objects: HashMap<ObjectId, u64>,
    problems: Vec<Problem>,
    counts: Counts,
    /// Whether all its objects could be told apart at least once.
    was_read: bool,
    /// Objects that never were valid.
    unread: HashSet<ObjectId>,
}

/// What follows from the files that were read.
#[derive(Default, Debug)]
pub struct Settled {
    /// Imports first, then slices, each by name.
    pub events: Vec<Event>,
    /// Files whose form of an object counts now, and whose text is needed for that.
    pub reread: BTreeSet<Arc<str>>,
    /// Problems that were not there before.
    pub new_problems: Vec<Problem>,
}

impl DirState {
    /// A file is new, was changed, or was asked for: its text, or why that could not be had.
    ///
    /// Text that cannot be taken apart leaves the file's objects as they were.
    pub fn file_read(&mut self, name: &str, text: io::Result<&[u8]>) {
        let parsed = match text {
            Ok(text) => manifest::parse(name, text, &mut self.names),
            Err(error) => Err(Problem {
                object: name.to_owned(),
                file: Some(name.to_owned()),
                field: String::new(),
                reason: format!("cannot be read: {error}"),
                severity: Severity::Invalid,
            }),
        };
        let name = self.names.get(name);
        let mut file = self.files.remove(&name).unwrap_or_default();
        let before = std::mem::take(&mut file.problems);
        file.problems = match parsed {
            Ok(parsed) => self.take(&name, &mut file, parsed),
            Err(mut problem) => {
                if !file.objects.is_empty() {
                    problem.reason.push_str(&format!("; its {} objects stay as they were", file.objects.len()));
                }
                vec![problem]
            }
        };
        let known: HashSet<&Problem> = before.iter().collect();
        self.new_problems.extend(file.problems.iter().filter(|problem| !known.contains(problem)).cloned());
        self.files.insert(name, file);
        self.names.sweep();
    }

    /// A file is gone, and what only it had.
    pub fn file_gone(&mut self, name: &str) {
        let Some((name, file)) = self.files.remove_entry(name) else { return };
        for id in file.objects.into_keys() {
            self.unhold(&name, id);
        }
    }

    /// What follows from all calls since the last one. Files that it asks for are to be read, and it called again; if
    /// they cannot be read, what the world was told stays, and they are asked for again the next time.
    pub fn settle(&mut self) -> Settled {
        let mut settled = Settled::default();
        for id in std::mem::take(&mut self.dirty) {
            self.name_shadowed(&id);
            let Some(owner) = self.holders.get(&id).and_then(BTreeSet::first) else {
                if self.told.remove(&id).is_some() {
                    settled.events.push(Event::Delete(id));
                }
                continue;
            };
            let digest = self.files.get(owner).and_then(|file| file.objects.get(&id)).copied();
            if digest == self.told.get(&id).copied() {
                continue;
            }
            let staged = self.staged.remove(&id).unwrap_or_default();
            match (digest, staged.into_iter().find(|(file, _)| file == owner)) {
                (Some(digest), Some((_, object))) => {
                    self.told.insert(id, digest);
                    settled.events.push(Event::Apply(object));
                }
                _ => {
                    settled.reread.insert(Arc::clone(owner));
                    self.dirty.insert(id);
                }
            }
        }
        self.staged.clear();
        settled.new_problems = std::mem::take(&mut self.new_problems);
        settled
    }

    /// Everything that is wrong now.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.files.values().flat_map(|file| &file.problems).chain(self.shadowed.values())
    }

    /// What is there and was never readable: a file that could not be taken apart, an object that never was valid.
    #[must_use]
    pub fn unread(&self) -> Unread {
        let objects = self.files.values().flat_map(|file| &file.unread).filter(|id| !self.told.contains_key(*id));
        Unread {
            anything: self.files.values().any(|file| !file.was_read),
            namespaces: objects.map(|id| Arc::clone(&id.key().namespace)).collect(),
        }
    }

    /// The names of all files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(|name| &**name)
    }

    /// How many objects there are of what, valid or not.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.files.values().fold(Counts::default(), |sum, file| Counts {
            imports: sum.imports + file.counts.imports,
            slices: sum.slices + file.counts.slices,
            other: sum.other + file.counts.other,
        })
    }

    /// Takes in what a file holds now. Returns its problems.
    fn take(&mut self, name: &Arc<str>, file: &mut File, parsed: Parsed) -> Vec<Problem> {
        let Parsed { objects, broken, idle: _, unidentified, mut problems, counts, changed_at: _ } = parsed;
        file.counts = counts;
        file.was_read |= !unidentified;
        file.unread.clear();
        let mut before = std::mem::take(&mut file.objects);
        for object in objects {
            let id = object.id();
            let digest = digest(&object);
            if before.remove(&id) != Some(digest) {
                self.holders.entry(id.clone()).or_default().insert(Arc::clone(name));
                self.dirty.insert(id.clone());
            }
            // also without a change: it may have been asked for
            if self.told.get(&id) != Some(&digest) {
                self.stage(&id, name, object);
            }
            file.objects.insert(id, digest);
        }
        for id in broken {
            let Some((id, digest)) = before.remove_entry(&id) else {
                file.unread.insert(id);
                continue;
            };
            let object = id.to_string();
            if let Some(problem) = problems.iter_mut().rev().find(|problem| problem.object == object) {
                problem.reason.push_str("; the object stays as it was");
            }
            file.objects.insert(id, digest);
        }
        if unidentified {
            file.objects.extend(before);
        } else {
            for id in before.into_keys() {
                self.unhold(name, id);
            }
        }
        problems
    }

    fn stage(&mut self, id: &ObjectId, name: &Arc<str>, object: Object) {
        let staged = self.staged.entry(id.clone()).or_default();
        staged.retain(|(file, _)| file != name);
        staged.push((Arc::clone(name), object));
    }

    fn unhold(&mut self, name: &Arc<str>, id: ObjectId) {
        if let Some(holders) = self.holders.get_mut(&id) {
            holders.remove(name);
            if holders.is_empty() {
                self.holders.remove(&id);
            }
        }
        self.dirty.insert(id);
    }

    /// Brings the problems of an object that several files have up to date.
    fn name_shadowed(&mut self, id: &ObjectId) {
        let mut before = Vec::new();
        while let Some((key, _)) = self.shadowed.range((id.clone(), Arc::from(""))..).next()
            && key.0 == *id
        {
            let key = key.clone();
            before.extend(self.shadowed.remove(&key));
        }
        let Some((first, others)) = self.holders.get(id).and_then(|holders| {
            let mut holders = holders.iter();
            Some((holders.next()?, holders))
        }) else {
            return;
        };
        for other in others {
            let problem = Problem {
                object: id.to_string(),
                file: Some(other.to_string()),
                field: String::new(),
                reason: format!("also in {first}, which comes first by name and is used"),
                severity: Severity::Invalid,
            };
            if !before.contains(&problem) {
                self.new_problems.push(problem.clone());
            }
            self.shadowed.insert((id.clone(), Arc::clone(other)), problem);
        }
    }
}
