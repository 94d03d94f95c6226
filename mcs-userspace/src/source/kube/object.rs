//! Objects as the API server sends them, reduced while they are read.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::apiserver::{Watched, parse_version};
use crate::model::ObjectKey;

/// What is read of any object's metadata. Everything else, `managedFields` above all, is skipped where it stands.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Head {
    namespace: String,
    name: String,
    pub(super) uid: String,
    resource_version: String,
    pub(super) deletion_timestamp: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
}

impl Head {
    fn version(&self) -> u64 {
        parse_version(Some(&self.resource_version)).unwrap_or_default()
    }
}

/// An object's own text. Its fields are read by [`crate::manifest`], which does not fail as a whole for one of them.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) key: ObjectKey,
    version: u64,
    json: Box<RawValue>,
}

impl Text {
    pub(super) fn json(&self) -> &str {
        self.json.get()
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The labels, which may be wrong, are not read here.
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Identity {
            namespace: String,
            name: String,
            resource_version: String,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Object {
            metadata: Identity,
        }
        let json = Box::<RawValue>::deserialize(deserializer)?;
        // An object that has no such metadata is no API server's: it has no name, and is reported as that.
        let Identity { namespace, name, resource_version } =
            serde_json::from_str::<Object>(json.get()).unwrap_or_default().metadata;
        let version = parse_version(Some(&resource_version)).unwrap_or_default();
        Ok(Self { key: ObjectKey::new(namespace, name), version, json })
    }
}

impl Watched for Text {
    /// A page of full slices is a few megabytes.
    const PAGE: u32 = 250;

    fn version(&self) -> u64 {
        self.version
    }
}

/// A ConfigMap.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ConfigMap {
    metadata: Head,
    #[serde(default)]
    pub(super) data: BTreeMap<String, String>,
}

/// A Node.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Node {
    pub(super) metadata: Head,
}

/// A CustomResourceDefinition.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Crd {
    pub(super) metadata: Head,
    pub(super) spec: CrdSpec,
}

/// Its spec.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct CrdSpec {
    #[serde(default)]
    pub(super) versions: Vec<CrdVersion>,
}

/// One version of it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct CrdVersion {
    pub(super) name: String,
    #[serde(default)]
    pub(super) served: bool,
}

macro_rules! watched {
    ($($kind:ty),*) => {$(
        impl Watched for $kind {
            fn version(&self) -> u64 {
                self.metadata.version()
            }
        }
    )*};
}
watched!(ConfigMap, Node, Crd);
