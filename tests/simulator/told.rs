//! What a process was told, in the plainest words: what it may act on.

use std::collections::{BTreeMap, BTreeSet};

use mcs::clusterset::event::{CrdState, Event, Kind, Object};
use mcs::clusterset::local::Service;
use mcs::model::ObjectKey;

use crate::world::World;

/// See the module. Absence from a list is no word: what was said before stays.
#[derive(Clone, Default, Debug)]
pub(crate) struct Told {
    /// By cluster and service, when the export of the last word was created, unless that was a withdrawal.
    pub(crate) exports: BTreeMap<(String, ObjectKey), Option<i64>>,
    /// Whether a member is one: neither revoked nor gone.
    pub(crate) members: BTreeMap<String, bool>,
    /// The member's own ServiceExports, and its Services that can be exported.
    pub(crate) own: BTreeMap<ObjectKey, Own>,
    pub(crate) crds: BTreeMap<Kind, CrdState>,
    /// The ClusterProperties that it knows.
    pub(crate) properties: BTreeSet<ObjectKey>,
    /// What a list that is under way has delivered.
    listing: BTreeMap<Kind, BTreeSet<ObjectKey>>,
}

/// Of one service of the member's own.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Own {
    pub(crate) export: bool,
    pub(crate) service: bool,
}

impl Told {
    /// The last word about a cluster's export, if there was one: when it was created, unless it was withdrawn.
    pub(crate) fn word(&self, cluster: &str, service: &ObjectKey) -> Option<Option<i64>> {
        self.exports.get(&(cluster.to_owned(), service.clone())).copied()
    }

    pub(crate) fn exports_itself(&self, service: &ObjectKey) -> bool {
        self.own.get(service).is_some_and(|own| own.export && own.service)
    }

    fn applied(&mut self, kind: Kind, key: &ObjectKey, object: &Object) {
        match object {
            Object::ExportRecord(_, spec) => {
                if let Some(cluster) = key.namespace.strip_prefix("mcs-") {
                    let service = ObjectKey::new(spec.namespace.as_str(), spec.name.as_str());
                    let created = (!spec.withdrawn).then_some(spec.exported.created);
                    self.exports.insert((cluster.to_owned(), service), created);
                }
            }
            Object::Member(_, spec) => {
                self.members.insert(key.name.to_string(), !spec.revoked);
            }
            Object::Export(_) => self.own.entry(key.clone()).or_default().export = true,
            Object::Property(_) => _ = self.properties.insert(key.clone()),
            Object::Service(service) => {
                let exportable = matches!(service, Service::Exportable(_));
                self.own.entry(key.clone()).or_default().service = exportable;
            }
            Object::Namespace { .. }
            | Object::SourceSlice(_)
            | Object::Import(_)
            | Object::ImportedSlice(_)
            | Object::ClusterSet(..)
            | Object::Reservation(..)
            | Object::SliceRecord(..)
            | Object::Lease(..)
            | Object::Unreadable { .. } => debug_assert!(!matches!(kind, Kind::Exports)),
        }
    }

    fn gone(&mut self, kind: Kind, key: &ObjectKey) {
        match kind {
            Kind::Members => {
                self.members.insert(key.name.to_string(), false);
            }
            Kind::Exports => self.own.entry(key.clone()).or_default().export = false,
            Kind::Properties => _ = self.properties.remove(key),
            Kind::Services => self.own.entry(key.clone()).or_default().service = false,
            Kind::Namespaces
            | Kind::SourceSlices
            | Kind::Imports
            | Kind::ImportedSlices
            | Kind::ClusterSets
            | Kind::Reservations
            | Kind::ExportRecords
            | Kind::SliceRecords
            | Kind::Leases => {}
        }
    }
}

impl World {
    /// Keeps account of what is told; what the leader hears is what its member's next leader is held to as well.
    pub(crate) fn hear(&mut self, process: usize, event: &Event) {
        let of = &mut self.processes[process];
        let mut both = [Some(&mut of.told), of.leader.then_some(&mut self.members[of.member].told)];
        for told in both.iter_mut().flatten() {
            match event {
                Event::Applied(kind, key, object) => {
                    if let Some(listing) = told.listing.get_mut(kind) {
                        listing.insert(key.clone());
                    }
                    told.applied(*kind, key, object);
                }
                Event::Deleted(kind, key) => told.gone(*kind, key),
                Event::ListStarted(kind @ (Kind::Exports | Kind::Services)) => {
                    told.listing.insert(*kind, BTreeSet::new());
                }
                Event::Listed(kind, _) => {
                    let Some(listed) = told.listing.remove(kind) else {
                        continue;
                    };
                    for (_, own) in told.own.iter_mut().filter(|(key, _)| !listed.contains(*key)) {
                        if *kind == Kind::Exports { own.export = false } else { own.service = false }
                    }
                }
                Event::Interrupted(kind) => {
                    told.listing.remove(kind);
                }
                Event::Crd(kind, state) => {
                    told.crds.insert(*kind, state.clone());
                }
                Event::ListStarted(_)
                | Event::ClusterUid(_)
                | Event::Leader(_)
                | Event::Failed(..)
                | Event::WithdrawalApproved
                | Event::Remembered(_) => {}
            }
        }
    }
}
