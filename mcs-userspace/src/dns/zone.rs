//! The zone: what names there are. A builder follows the source's events, and hands on only the services that changed.
//!
//! ```text
//!  Event ──► Builder: imports, ready endpoints by slice ──► Update: the services that changed ──► Zone, under a lock
//! ```
//!
//! Making a service anew costs as much as that service is large, and is done outside of the lock; under it, pointers
//! change hands.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::name::{ZoneName, push_label};
use super::service::{Imported, Kind, Part, Service, compile};
use crate::model::{Event, Object, ObjectId, ObjectKey};

/// How the zone is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The zone's name.
    pub zone: ZoneName,
    /// Time to live of records, seconds.
    pub ttl: u32,
    /// How long the absence of a name or record may be remembered (RFC 2308 §5), seconds.
    pub negative_ttl: u32,
    /// The addresses of `ns.dns.<zone>`: those that are listened on, where they are known.
    pub name_servers: Vec<IpAddr>,
}

/// What names there are.
#[derive(Debug)]
pub struct Zone {
    /// How the zone is served.
    pub settings: Settings,
    /// By `<service>.<namespace>` in wire form.
    services: HashMap<Box<[u8]>, Arc<Service>>,
    /// How many services each namespace has, by its label in wire form.
    namespaces: HashMap<Box<[u8]>, usize>,
    /// Whether everything that existed at the start has been heard of.
    synced: bool,
    /// When the zone changed last, Unix seconds: the SOA record's serial number.
    serial: u32,
    /// The ClusterSetIPs that work on this node; none if nobody looks.
    programmed: Option<HashSet<IpAddr>>,
}

impl Zone {
    /// An empty zone. With `wait_for_node`, services by ClusterSetIP have no name until [`Zone::set_programmed`] says
    /// that the address works on this node.
    #[must_use]
    pub fn new(settings: Settings, wait_for_node: bool) -> Self {
        Self {
            settings,
            services: HashMap::new(),
            namespaces: HashMap::new(),
            synced: false,
            serial: 0,
            programmed: wait_for_node.then(HashSet::new),
        }
    }

    /// Takes changes in. `now` is the time, Unix seconds.
    pub fn apply(&mut self, update: Update, now: u32) {
        self.synced |= update.synced;
        for (key, service) in update.services {
            // the label after the service's
            let namespace = key.get(1 + usize::from(key.first().copied().unwrap_or_default())..).unwrap_or_default();
            match service {
                Some(service) => {
                    if !self.services.contains_key(&key) {
                        *self.namespaces.entry(namespace.into()).or_default() += 1;
                    }
                    self.services.insert(key, service);
                    self.serial = now;
                }
                None => {
                    if self.services.remove(&key).is_some()
                        && let Some(count) = self.namespaces.get_mut(namespace)
                    {
                        self.serial = now;
                        *count -= 1;
                        if *count == 0 {
                            self.namespaces.remove(namespace);
                        }
                    }
                }
            }
        }
    }

    /// Says which ClusterSetIPs work on this node now, the whole set.
    pub fn set_programmed(&mut self, vips: HashSet<IpAddr>, now: u32) {
        if self.programmed.as_ref() != Some(&vips) {
            self.programmed = Some(vips);
            self.serial = now;
        }
    }

    /// Whether everything that existed at the start has been heard of: before, a name that is not there may be.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The SOA record's serial number.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// How many services have names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether no service has a name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// A service by `<service>.<namespace>` in wire form, lower case, if clients of this node can use it.
    #[must_use]
    pub fn service(&self, key: &[u8]) -> Option<&Service> {
        let service = self.services.get(key)?;
        match &service.kind {
            kind @ Kind::ClusterSetIp { .. } => {
                let is_without = kind.vips().next().is_none();
                (is_without || kind.vips().any(|vip| self.is_usable(vip))).then_some(service)
            }
            Kind::Headless { .. } => Some(service),
        }
    }

    /// Whether a ClusterSetIP works on this node, as far as is known.
    #[must_use]
    pub fn is_usable(&self, vip: IpAddr) -> bool {
        self.programmed.as_ref().is_none_or(|programmed| programmed.contains(&vip))
    }

    /// Whether a namespace has services, by its label in wire form.
    #[must_use]
    pub fn has_namespace(&self, label: &[u8]) -> bool {
        self.namespaces.contains_key(label)
    }
}

/// The services that changed.
#[derive(Default, Debug)]
pub struct Update {
    services: Vec<Changed>,
    synced: bool,
}

/// A service by `<service>.<namespace>` in wire form; none if it is gone.
type Changed = (Box<[u8]>, Option<Arc<Service>>);

impl Update {
    /// How many services changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && !self.synced
    }
}

/// Follows a source's events.
#[derive(Default, Debug)]
pub struct Builder {
    imports: HashMap<ObjectKey, State>,
    /// Which import each slice is filed under, as a slice's label may change.
    filed: HashMap<ObjectKey, ObjectKey>,
}

/// What is known of one import: the object, its slices, or both.
#[derive(Default, Debug)]
struct State {
    imported: Option<Imported>,
    parts: BTreeMap<Arc<str>, Part>,
}

impl Builder {
    /// Takes events in, and makes anew what they touch.
    pub fn handle(&mut self, events: impl IntoIterator<Item = Event>) -> Update {
        let mut touched = BTreeSet::new();
        let mut update = Update::default();
        for event in events {
            match event {
                Event::Apply(object) => self.put(object, &mut touched),
                Event::Delete(id) => self.take(&id, &mut touched),
                Event::Synced => update.synced = true,
            }
        }
        for key in touched {
            let service = self.imports.get(&key).and_then(|state| {
                let imported = state.imported.as_ref()?;
                Some(Arc::new(compile(imported, state.parts.values())))
            });
            let mut wire = Vec::with_capacity(key.name.len() + key.namespace.len() + 2);
            push_label(&mut wire, &key.name);
            push_label(&mut wire, &key.namespace);
            update.services.push((wire.into_boxed_slice(), service));
        }
        update
    }

    fn put(&mut self, object: Object, touched: &mut BTreeSet<ObjectKey>) {
        match object {
            Object::Import(import) => self.put_import(import.key.clone(), (&import).into(), touched),
            Object::Headless(key) => self.put_import(key, Imported::Headless, touched),
            Object::Slice(slice) => {
                let import = ObjectKey { namespace: Arc::clone(&slice.key.namespace), name: Arc::clone(&slice.import) };
                if let Some(before) = self.filed.insert(slice.key.clone(), import.clone())
                    && before != import
                {
                    self.take_part(&before, &slice.key.name, touched);
                }
                let part = Part::from(&slice);
                let state = self.imports.entry(import.clone()).or_default();
                if state.parts.get(&slice.key.name) != Some(&part) {
                    state.parts.insert(Arc::clone(&slice.key.name), part);
                    touched.insert(import);
                }
            }
        }
    }

    fn put_import(&mut self, key: ObjectKey, imported: Imported, touched: &mut BTreeSet<ObjectKey>) {
        let state = self.imports.entry(key.clone()).or_default();
        if state.imported.as_ref() != Some(&imported) {
            state.imported = Some(imported);
            touched.insert(key);
        }
    }

    fn take(&mut self, id: &ObjectId, touched: &mut BTreeSet<ObjectKey>) {
        match id {
            ObjectId::Import(key) => {
                let Some(state) = self.imports.get_mut(key) else { return };
                state.imported = None;
                if state.parts.is_empty() {
                    self.imports.remove(key);
                }
                touched.insert(key.clone());
            }
            ObjectId::Slice(key) => {
                if let Some(import) = self.filed.remove(key) {
                    self.take_part(&import, &key.name, touched);
                }
            }
        }
    }

    fn take_part(&mut self, import: &ObjectKey, slice: &str, touched: &mut BTreeSet<ObjectKey>) {
        if let Some(state) = self.imports.get_mut(import) {
            state.parts.remove(slice);
            if state.parts.is_empty() && state.imported.is_none() {
                self.imports.remove(import);
            }
            touched.insert(import.clone());
        }
    }
}
