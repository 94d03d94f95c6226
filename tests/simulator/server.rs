//! An API server, as far as a client can tell: objects with versions, writes with preconditions, and what happened since,
//! for watches.

use std::collections::BTreeMap;
use std::ops::Bound;

use mcs::clusterset::event::{CrdState, Kind, Object};
use mcs::clusterset::local::Meta;
use mcs::model::ObjectKey;

/// What a write came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// 409.
    Conflict,
    /// 404.
    NotFound,
    /// 403: the namespace is going.
    Terminating,
}

/// What an object became, or that it went.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: ObjectKey,
    pub(crate) object: Option<Object>,
}

/// Everything that a backup has.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    objects: BTreeMap<(Kind, ObjectKey), Object>,
    revision: u64,
    crds: BTreeMap<Kind, CrdState>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    objects: BTreeMap<(Kind, ObjectKey), Object>,
    revision: u64,
    uids: u64,
    /// Another one after each restore: nothing that was learned of the one before can be resumed.
    pub(crate) incarnation: u32,
    log: BTreeMap<Kind, Vec<Change>>,
    /// Of [`Kind::Exports`] and [`Kind::Properties`].
    pub(crate) crds: BTreeMap<Kind, CrdState>,
    /// What its clock shows, Unix seconds: set by the world before each write.
    pub(crate) clock: i64,
}

impl Server {
    pub(crate) fn new(name: &str) -> Self {
        let crds =
            [Kind::Exports, Kind::Properties].map(|kind| (kind, CrdState::Present(format!("{name}-{kind:?}-1"))));
        Self {
            name: name.to_owned(),
            objects: BTreeMap::new(),
            revision: 1,
            uids: 0,
            incarnation: 0,
            log: BTreeMap::new(),
            crds: crds.into(),
            clock: 0,
        }
    }

    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, kind: Kind, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(&(kind, key.clone()))
    }

    /// All of a kind, by key.
    pub(crate) fn all(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        let first = (kind, ObjectKey::new("", ""));
        self.objects
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(move |((of, _), _)| *of == kind)
            .map(|((_, key), object)| (key, object))
    }

    /// What happened to a kind, oldest first.
    pub(crate) fn log(&self, kind: Kind) -> &[Change] {
        self.log.get(&kind).map_or(&[], Vec::as_slice)
    }

    fn append(&mut self, kind: Kind, key: &ObjectKey, object: Option<Object>) {
        let change = Change { revision: self.revision, key: key.clone(), object };
        self.log.entry(kind).or_default().push(change);
    }

    /// Whether a namespace is there, and not going.
    pub(crate) fn has_namespace(&self, name: &str) -> Result<(), Refusal> {
        match self.get(Kind::Namespaces, &ObjectKey::new("", name)) {
            Some(Object::Namespace { terminating: false }) => Ok(()),
            Some(_) => Err(Refusal::Terminating),
            None => Err(Refusal::NotFound),
        }
    }

    /// Creates or changes, whatever was there. An object that stays as it was keeps its version.
    pub(crate) fn put(&mut self, kind: Kind, key: &ObjectKey, mut object: Object) {
        let old = self.get(kind, key);
        let stamp = match old.and_then(meta) {
            Some(meta) => meta.clone(),
            None => {
                self.uids += 1;
                Meta { uid: format!("{}-{}", self.name, self.uids), resource_version: 0, created: self.clock }
            }
        };
        set_meta(&mut object, stamp);
        // A renewal is a change though nothing that we keep of it changes.
        if kind != Kind::Leases && self.get(kind, key) == Some(&object) {
            return;
        }
        self.revision += 1;
        if let Some(mut new) = meta(&object).cloned() {
            new.resource_version = self.revision;
            set_meta(&mut object, new);
        }
        self.append(kind, key, Some(object.clone()));
        self.objects.insert((kind, key.clone()), object);
    }

    /// Creates if `expected` has version 0, else changes just that version.
    pub(crate) fn write(
        &mut self,
        kind: Kind,
        key: &ObjectKey,
        expected: &Meta,
        object: Object,
    ) -> Result<(), Refusal> {
        let old = self.get(kind, key).and_then(meta);
        match (expected.resource_version, old) {
            (0, Some(_)) => return Err(Refusal::Conflict),
            (0, None) if !kind.at_broker() => self.has_namespace(&key.namespace)?,
            (0, None) => {}
            (_, None) => return Err(Refusal::NotFound),
            (version, Some(old)) if version != old.resource_version => return Err(Refusal::Conflict),
            (_, Some(_)) => {}
        }
        self.put(kind, key, object);
        Ok(())
    }

    pub(crate) fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        if self.objects.remove(&(kind, key.clone())).is_some() {
            self.revision += 1;
            self.append(kind, key, None);
        }
    }

    /// Deletes just the object of this UID.
    pub(crate) fn delete(&mut self, kind: Kind, key: &ObjectKey, expected: &Meta) -> Result<(), Refusal> {
        match self.get(kind, key).and_then(meta) {
            None => Err(Refusal::NotFound),
            Some(meta) if meta.uid != expected.uid => Err(Refusal::Conflict),
            Some(_) => {
                self.remove(kind, key);
                Ok(())
            }
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { objects: self.objects.clone(), revision: self.revision, crds: self.crds.clone() }
    }

    /// Everything is as it was then, the version of the whole included. UIDs are never given twice.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) {
        let Snapshot { objects, revision, crds } = snapshot;
        (self.objects, self.revision, self.crds) = (objects, revision, crds);
        self.log.clear();
        self.incarnation += 1;
    }

    /// An API server with nothing in it took its place.
    pub(crate) fn empty(&mut self) {
        self.objects.clear();
        self.revision = 1;
        self.log.clear();
        self.incarnation += 1;
    }

    /// A CRD comes or goes. Its objects go by themselves, later.
    pub(crate) fn set_crd(&mut self, kind: Kind, state: CrdState) {
        self.revision += 1;
        self.crds.insert(kind, state);
    }
}

/// UID, version and age, of kinds that show them.
pub(crate) const fn meta(object: &Object) -> Option<&Meta> {
    match object {
        Object::Export(export) => Some(&export.meta),
        Object::Import(import) => Some(&import.meta),
        Object::ImportedSlice(slice) => Some(&slice.meta),
        Object::ClusterSet(meta, _)
        | Object::Member(meta, _)
        | Object::Reservation(meta, _)
        | Object::ExportRecord(meta, _)
        | Object::SliceRecord(meta, _)
        | Object::Lease(meta, _) => Some(meta),
        Object::Namespace { .. }
        | Object::Service(_)
        | Object::SourceSlice(_)
        | Object::Property(_)
        | Object::Unreadable { .. } => None,
    }
}

fn set_meta(object: &mut Object, new: Meta) {
    match object {
        Object::Export(export) => export.meta = new,
        Object::Import(import) => import.meta = new,
        Object::ImportedSlice(slice) => slice.meta = new,
        Object::ClusterSet(meta, _)
        | Object::Member(meta, _)
        | Object::Reservation(meta, _)
        | Object::ExportRecord(meta, _)
        | Object::SliceRecord(meta, _)
        | Object::Lease(meta, _) => *meta = new,
        Object::Namespace { .. }
        | Object::Service(_)
        | Object::SourceSlice(_)
        | Object::Property(_)
        | Object::Unreadable { .. } => {}
    }
}
