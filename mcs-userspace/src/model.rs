//! The world as the API objects describe it, reduced to what the dataplane needs. Pure: values in, values out.
//!
//! Sources turn manifests or API objects into these types, and into [`Event`]s; everything behind them neither knows
//! Kubernetes' types nor where an object came from. What can be wrong with an object was found and reported at the
//! source: a value of these types is well-formed in itself (families, ranges, lengths). What is wrong only beside other
//! objects or under this agent's flags is found in [`crate::claims`] and [`crate::desired`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use mcs_ebpf::{Addr, PortBe};
use serde::Serialize;

/// Namespace and name of an object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// From the two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The transport protocols that are programmed. SCTP is reported by the source and left out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Protocol {
    /// The number that the IP header and the maps carry.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => mcs_ebpf::TCP,
            Self::Udp => mcs_ebpf::UDP,
        }
    }

    /// From the number in a map.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            mcs_ebpf::TCP => Some(Self::Tcp),
            mcs_ebpf::UDP => Some(Self::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A ServiceImport of type ClusterSetIP.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Import {
    /// Its namespace and name.
    pub key: ObjectKey,
    /// `metadata.creationTimestamp`, Unix seconds. The older of two imports that claim one frontend keeps it.
    pub created: Option<i64>,
    /// The ClusterSetIPs, at most one of each family.
    pub vips: Vec<IpAddr>,
    /// TCP and UDP ports; names are unique, and so are (protocol, port).
    pub ports: Vec<ImportPort>,
    /// `sessionAffinity: ClientIP` with its timeout in seconds, 1..=86400.
    pub affinity_secs: Option<u32>,
    /// `internalTrafficPolicy: Local`: only backends of the client's own node.
    pub local_only: bool,
    /// `trafficDistribution`.
    pub distribution: Distribution,
    /// The annotation [`crate::api::CLUSTER_WEIGHTS`]: the share of each source cluster as a whole.
    pub cluster_weights: Option<BTreeMap<Arc<str>, u32>>,
    /// SCTP ports: names lead to them ([`crate::dns`]), the dataplane leaves them alone.
    pub sctp: Vec<SctpPort>,
}

/// An SCTP port of either kind of object.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SctpPort {
    /// Empty for an unnamed port. At most 63 bytes.
    pub name: Arc<str>,
    /// 1..=65535.
    pub port: u16,
}

/// A port of a ServiceImport.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ImportPort {
    /// Empty for an unnamed port. At most 63 bytes.
    pub name: Arc<str>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What clients dial, 1..=65535.
    pub port: u16,
}

/// Which backends a service would rather use. Always a preference: with none of the kind, the next wider circle is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Distribution {
    /// All alike.
    #[default]
    Anywhere,
    /// `PreferClose`, `PreferSameZone`: the client's zone, else anywhere.
    SameZone,
    /// `PreferSameNode`: the client's node, else its zone, else anywhere.
    SameNode,
}

/// An EndpointSlice of one source cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Slice {
    /// Its own namespace and name.
    pub key: ObjectKey,
    /// Name of the ServiceImport (same namespace) that it belongs to.
    pub import: Arc<str>,
    /// The source cluster's id. At most 63 bytes.
    pub cluster: Arc<str>,
    /// TCP and UDP ports with a number.
    pub ports: Vec<SlicePort>,
    /// The endpoints, one for each address.
    pub endpoints: Vec<Endpoint>,
    /// What only names need to know.
    pub names: SliceNames,
}

/// What of an EndpointSlice matters to names ([`crate::dns`]) and not to the dataplane. Most slices have none of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct SliceNames {
    /// `hostname` of the endpoints that have one, by their place in [`Slice::endpoints`], in its order.
    pub hostnames: Vec<(u32, Arc<str>)>,
    /// Addresses of an endpoint after its first, by its place in [`Slice::endpoints`], in its order.
    pub further: Vec<(u32, Addr)>,
    /// SCTP ports with a number.
    pub sctp: Vec<SctpPort>,
}

/// A port of an EndpointSlice.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SlicePort {
    /// Empty for an unnamed port. Serves the import's port of equal name and protocol.
    pub name: Arc<str>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What the pods listen on.
    pub port: PortBe,
}

/// One address of an EndpointSlice.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint {
    /// Unicast, neither loopback nor link-local.
    pub addr: Addr,
    /// `conditions.ready`; absent means true.
    pub ready: bool,
    /// `conditions.serving`; absent means as `ready`.
    pub serving: bool,
    /// `conditions.terminating`; absent means false.
    pub terminating: bool,
    /// `nodeName`: unique in its cluster only.
    pub node: Option<Arc<str>>,
    /// `zone`: compared as plain text across clusters.
    pub zone: Option<Arc<str>>,
}

/// An object that a source delivers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Object {
    /// A ServiceImport.
    Import(Import),
    /// A ServiceImport of type Headless: it has names, and no frontend.
    Headless(ObjectKey),
    /// An EndpointSlice.
    Slice(Slice),
}

/// What identifies an object to its source.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ObjectId {
    /// A ServiceImport.
    Import(ObjectKey),
    /// An EndpointSlice.
    Slice(ObjectKey),
}

impl Object {
    /// The object's identity.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Import(import) => ObjectId::Import(import.key.clone()),
            Self::Headless(key) => ObjectId::Import(key.clone()),
            Self::Slice(slice) => ObjectId::Slice(slice.key.clone()),
        }
    }
}

impl ObjectId {
    /// The object's namespace and name.
    #[must_use]
    pub const fn key(&self) -> &ObjectKey {
        let (Self::Import(key) | Self::Slice(key)) = self;
        key
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Import(key) => write!(f, "ServiceImport {key}"),
            Self::Slice(key) => write!(f, "EndpointSlice {key}"),
        }
    }
}

/// A change that a source saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The object is new, or is now this.
    Apply(Object),
    /// The object is gone, by the source's explicit word.
    Delete(ObjectId),
    /// Everything that existed when the source started has been delivered: from here on, what is not in the world may
    /// be removed from the kernel.
    Synced,
}

/// What a source has, and could not read since it started: what the agent before left may be in it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unread {
    /// Something of which nothing is known: a file that cannot be taken apart.
    pub anything: bool,
    /// Namespaces of objects that are invalid as a whole.
    pub namespaces: BTreeSet<Arc<str>>,
}

impl Unread {
    /// Whether an import or one of its slices may be among it.
    #[must_use]
    pub fn may_concern(&self, namespace: &str) -> bool {
        self.anything || self.namespaces.contains(namespace)
    }
}

/// All objects, indexed by the ServiceImport that they are about.
#[derive(Default, Debug)]
pub struct World {
    imports: HashMap<ObjectKey, ImportState>,
    /// Which import each slice is filed under, as a slice's label may change.
    filed: HashMap<ObjectKey, ObjectKey>,
}

/// What is known of one ServiceImport: the object, its slices, or both.
#[derive(Default, Debug)]
pub struct ImportState {
    /// None while only slices have been seen.
    pub import: Option<Import>,
    /// By slice name.
    pub slices: BTreeMap<Arc<str>, Slice>,
}

impl World {
    /// Takes an object in. Returns the imports that it touches: one, or two for a slice that changed its import.
    pub fn apply(&mut self, object: Object) -> Vec<ObjectKey> {
        match object {
            Object::Import(import) => {
                let key = import.key.clone();
                self.imports.entry(key.clone()).or_default().import = Some(import);
                vec![key]
            }
            // to the dataplane it is none
            Object::Headless(key) => self.delete(&ObjectId::Import(key)),
            Object::Slice(slice) => {
                let import = ObjectKey { namespace: Arc::clone(&slice.key.namespace), name: Arc::clone(&slice.import) };
                let mut touched = vec![import.clone()];
                if let Some(before) = self.filed.insert(slice.key.clone(), import.clone())
                    && before != import
                {
                    self.take_slice(&before, &slice.key);
                    touched.push(before);
                }
                let name = Arc::clone(&slice.key.name);
                self.imports.entry(import).or_default().slices.insert(name, slice);
                touched
            }
        }
    }

    /// Takes an object out. Returns the imports that it touches: none when it was not there.
    pub fn delete(&mut self, id: &ObjectId) -> Vec<ObjectKey> {
        match id {
            ObjectId::Import(key) => {
                let Some(state) = self.imports.get_mut(key) else { return Vec::new() };
                state.import = None;
                if state.slices.is_empty() {
                    self.imports.remove(key);
                }
                vec![key.clone()]
            }
            ObjectId::Slice(key) => {
                let Some(import) = self.filed.remove(key) else { return Vec::new() };
                self.take_slice(&import, key);
                vec![import]
            }
        }
    }

    fn take_slice(&mut self, import: &ObjectKey, slice: &ObjectKey) {
        if let Some(state) = self.imports.get_mut(import) {
            state.slices.remove(&slice.name);
            if state.slices.is_empty() && state.import.is_none() {
                self.imports.remove(import);
            }
        }
    }

    /// What is known of an import.
    #[must_use]
    pub fn get(&self, import: &ObjectKey) -> Option<&ImportState> {
        self.imports.get(import)
    }

    /// Every import that anything is known of, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &ImportState)> {
        self.imports.iter()
    }
}
