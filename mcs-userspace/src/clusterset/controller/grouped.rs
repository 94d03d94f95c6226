//! Objects by name, and all of a group.

use std::collections::BTreeMap;

use crate::model::ObjectKey;

/// Objects that belong to one group each.
#[derive(Debug)]
pub(super) struct Grouped<G, T> {
    groups: BTreeMap<G, BTreeMap<ObjectKey, T>>,
    of: BTreeMap<ObjectKey, G>,
}

impl<G, T> Default for Grouped<G, T> {
    fn default() -> Self {
        Self { groups: BTreeMap::new(), of: BTreeMap::new() }
    }
}

impl<G: Ord + Clone, T> Grouped<G, T> {
    /// Puts an object in a group, in place of what was there. The group that it was in.
    pub(super) fn insert(&mut self, key: ObjectKey, group: G, object: T) -> Option<G> {
        let old = self.remove(&key).map(|(group, _)| group);
        self.groups.entry(group.clone()).or_default().insert(key.clone(), object);
        self.of.insert(key, group);
        old
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) -> Option<(G, T)> {
        let group = self.of.remove(key)?;
        let members = self.groups.get_mut(&group)?;
        let object = members.remove(key)?;
        if members.is_empty() {
            self.groups.remove(&group);
        }
        Some((group, object))
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&T> {
        self.groups.get(self.of.get(key)?)?.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &ObjectKey) -> Option<(&G, &mut T)> {
        let group = self.of.get(key)?;
        Some((group, self.groups.get_mut(group)?.get_mut(key)?))
    }

    /// All of a group, by name.
    pub(super) fn group(&self, group: &G) -> impl Iterator<Item = (&ObjectKey, &T)> {
        self.groups.get(group).into_iter().flatten()
    }

    /// All groups.
    pub(super) fn groups(&self) -> impl Iterator<Item = &G> {
        self.groups.keys()
    }

    /// All names.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.of.keys()
    }

    /// All.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&G, &ObjectKey, &T)> {
        self.groups.iter().flat_map(|(group, objects)| objects.iter().map(move |(key, object)| (group, key, object)))
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }
}
