//! What the member's own API server holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::grouped::Grouped;
use crate::clusterset::local::{EXPORTED_KEYS, Export, Import, ImportedSlice, Service, SourceSlice};
use crate::clusterset::service::{Endpoints, Exported};
use crate::model::ObjectKey;

/// By namespace and name.
#[derive(Debug, Default)]
pub(super) struct Local {
    /// Whether it goes.
    pub(super) namespaces: BTreeMap<ObjectKey, bool>,
    pub(super) services: BTreeMap<ObjectKey, Service>,
    pub(super) exports: BTreeMap<ObjectKey, Export>,
    /// By their Service.
    pub(super) source_slices: Grouped<ObjectKey, Endpoints>,
    pub(super) imports: BTreeMap<ObjectKey, Import>,
    /// By their import.
    pub(super) imported_slices: Grouped<ObjectKey, ImportedSlice>,
    /// Which imports carry an address.
    carriers: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
}

/// Whether an import is ours.
pub(super) fn ours(import: &Import) -> bool {
    import.annotations.contains_key(EXPORTED_KEYS)
}

/// The addresses of an import.
pub(super) fn ips(import: &Import) -> impl Iterator<Item = IpAddr> {
    import.spec.ips.iter().filter_map(|ip| ip.parse().ok())
}

impl Local {
    /// Whether objects can be created in it.
    pub(super) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.get(&ObjectKey::new("", namespace)) == Some(&false)
    }

    /// A service's export as it is here, if it is valid.
    pub(super) fn exported(&self, key: &ObjectKey) -> Option<Exported> {
        let (Some(export), Some(Service::Exportable(service))) = (self.exports.get(key), self.services.get(key)) else {
            return None;
        };
        Some(Exported {
            created: export.meta.created,
            labels: export.labels.clone(),
            annotations: export.annotations.clone(),
            ..service.clone()
        })
    }

    /// Whether a Service's slices have an endpoint.
    pub(super) fn has_endpoints(&self, key: &ObjectKey) -> bool {
        self.source_slices.group(key).any(|(_, slice)| !slice.endpoints.is_empty())
    }

    /// The import, if it is ours.
    pub(super) fn our_import(&self, key: &ObjectKey) -> Option<&Import> {
        self.imports.get(key).filter(|import| ours(import))
    }

    /// The imports that carry an address.
    pub(super) fn carriers(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.carriers.get(&address).into_iter().flatten()
    }

    pub(super) fn put_import(&mut self, key: &ObjectKey, import: Import) {
        self.drop_import(key);
        for address in ips(&import) {
            self.carriers.entry(address).or_default().insert(key.clone());
        }
        self.imports.insert(key.clone(), import);
    }

    pub(super) fn drop_import(&mut self, key: &ObjectKey) {
        let Some(import) = self.imports.remove(key) else { return };
        for address in ips(&import) {
            if let Some(carriers) = self.carriers.get_mut(&address) {
                carriers.remove(key);
                if carriers.is_empty() {
                    self.carriers.remove(&address);
                }
            }
        }
    }

    /// Takes in a slice; the Services that it is, and was, of.
    pub(super) fn put_source_slice(&mut self, key: &ObjectKey, slice: SourceSlice) -> [Option<ObjectKey>; 2] {
        let service = ObjectKey::new(std::sync::Arc::clone(&key.namespace), slice.service);
        let old = self.source_slices.insert(key.clone(), service.clone(), slice.endpoints);
        [Some(service), old]
    }

    /// Takes in an imported slice; the imports that it is, and was, of.
    pub(super) fn put_imported_slice(&mut self, key: &ObjectKey, slice: ImportedSlice) -> [Option<ObjectKey>; 2] {
        let import = import_of(key, &slice);
        let old = self.imported_slices.insert(key.clone(), import.clone(), slice);
        [Some(import), old]
    }

    /// All services of a namespace that something here is about.
    pub(super) fn of_namespace(&self, namespace: &str) -> Vec<ObjectKey> {
        let first = ObjectKey::new(namespace, "");
        let mut keys: Vec<ObjectKey> = Vec::new();
        let inside = |key: &&ObjectKey| &*key.namespace == namespace;
        keys.extend(self.exports.range(first.clone()..).map(|(key, _)| key).take_while(inside).cloned());
        keys.extend(self.imports.range(first..).map(|(key, _)| key).take_while(inside).cloned());
        keys
    }

    /// All services that something here is about.
    pub(super) fn services_of_interest(&self) -> impl Iterator<Item = &ObjectKey> {
        self.exports.keys().chain(self.imports.keys()).chain(self.imported_slices.groups())
    }
}

/// The import of a slice of ours: its label says it, or, if somebody took that away, its name.
fn import_of(key: &ObjectKey, slice: &ImportedSlice) -> ObjectKey {
    let namespace = std::sync::Arc::clone(&key.namespace);
    if slice.import.is_empty() {
        ObjectKey::new(namespace, key.name.split('.').next().unwrap_or_default())
    } else {
        ObjectKey::new(namespace, slice.import.as_str())
    }
}
