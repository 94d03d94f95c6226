//! Where objects are found: resource, namespace, selectors. A watch tells only of what its selectors take in.

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Resource as _};

/// Where the objects of a watch are found.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) resource: ApiResource,
    /// All namespaces if none.
    pub(crate) namespace: Option<&'static str>,
    pub(crate) labels: Option<String>,
    pub(crate) fields: Option<String>,
}

impl Place {
    /// All objects of a kind, in all namespaces.
    pub(crate) fn of(resource: ApiResource) -> Self {
        Self { resource, namespace: None, labels: None, fields: None }
    }

    /// One object by its name.
    pub(crate) fn one(resource: ApiResource, namespace: Option<&'static str>, name: &str) -> Self {
        Self { namespace, fields: Some(format!("metadata.name={name}")), ..Self::of(resource) }
    }

    /// A resource by its parts.
    pub(crate) fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: format!("{group}/{version}"),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        }
    }

    /// All of a kind, whatever the selectors.
    pub(crate) fn api(&self, client: Client) -> Api<DynamicObject> {
        match self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &self.resource),
            None => Api::all_with(client, &self.resource),
        }
    }

    /// The path of its URL.
    pub(super) fn path(&self) -> String {
        DynamicObject::url_path(&self.resource, self.namespace)
    }
}
