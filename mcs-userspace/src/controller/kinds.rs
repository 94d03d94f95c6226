//! Where each [`Kind`] lies: resource, namespace, selectors.
//!
//! A watch tells only of what its selectors take in: EndpointSlices are watched twice, once as a Service's and once as
//! ours, and of the broker's Leases only those that are a member's sign of life.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Resource};

use crate::api::{GROUP, v1beta1};
use crate::clusterset::event::Kind;
use crate::clusterset::record::{ClusterSet, ExportRecord, Member, Reservation, SHARED_NAMESPACE, SliceRecord};

/// Label of an EndpointSlice: who manages it.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Value of [`MANAGED_BY`] that is ours.
pub const MANAGER: &str = "mcs-controller";

/// Label of an EndpointSlice: the Service, in its namespace, that it belongs to.
pub(super) const SERVICE: &str = "kubernetes.io/service-name";

/// Where the objects of a [`Kind`] are found.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) resource: ApiResource,
    /// All namespaces if none.
    pub(super) namespace: Option<&'static str>,
    pub(super) labels: Option<String>,
    pub(super) fields: Option<String>,
}

impl Place {
    fn of(resource: ApiResource) -> Self {
        Self { resource, namespace: None, labels: None, fields: None }
    }

    fn shared<K: Resource<DynamicType = ()>>() -> Self {
        Self { namespace: Some(SHARED_NAMESPACE), ..Self::of(ApiResource::erase::<K>(&())) }
    }

    /// All of a kind that the selectors take in.
    pub(super) fn api(&self, client: Client) -> Api<DynamicObject> {
        match self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &self.resource),
            None => Api::all_with(client, &self.resource),
        }
    }
}

/// Where the objects of `kind` are.
pub(super) fn place(kind: Kind) -> Place {
    match kind {
        Kind::Namespaces => Place::of(ApiResource::erase::<Namespace>(&())),
        Kind::Services => Place::of(ApiResource::erase::<Service>(&())),
        Kind::Exports => Place::of(service_exports()),
        Kind::SourceSlices => Place {
            labels: Some(format!("{SERVICE},{MANAGED_BY}!={MANAGER}")),
            ..Place::of(ApiResource::erase::<EndpointSlice>(&()))
        },
        Kind::Imports => Place::of(ApiResource::erase::<v1beta1::ServiceImport>(&())),
        Kind::ImportedSlices => Place {
            labels: Some(format!("{MANAGED_BY}={MANAGER}")),
            ..Place::of(ApiResource::erase::<EndpointSlice>(&()))
        },
        Kind::Properties => Place::of(cluster_properties()),
        Kind::ClusterSets => Place::shared::<ClusterSet>(),
        Kind::Members => Place::shared::<Member>(),
        Kind::Reservations => Place::shared::<Reservation>(),
        Kind::ExportRecords => Place::of(ApiResource::erase::<ExportRecord>(&())),
        Kind::SliceRecords => Place::of(ApiResource::erase::<SliceRecord>(&())),
        Kind::Leases => Place {
            fields: Some(format!("metadata.name={}", crate::clusterset::record::LEASE)),
            ..Place::of(ApiResource::erase::<Lease>(&()))
        },
    }
}

/// The CustomResourceDefinition of a kind whose objects' deletion means nothing without it.
pub(super) fn guarding_crd(kind: Kind) -> Option<String> {
    let resource = match kind {
        Kind::Exports => service_exports(),
        Kind::Properties => cluster_properties(),
        Kind::Namespaces
        | Kind::Services
        | Kind::SourceSlices
        | Kind::Imports
        | Kind::ImportedSlices
        | Kind::ClusterSets
        | Kind::Members
        | Kind::Reservations
        | Kind::ExportRecords
        | Kind::SliceRecords
        | Kind::Leases => return None,
    };
    Some(format!("{}.{}", resource.plural, resource.group))
}

/// ServiceExport, in the version that is stored.
pub(super) fn service_exports() -> ApiResource {
    resource(GROUP, "v1beta1", "ServiceExport", "serviceexports")
}

/// ClusterProperty (KEP-2149), in the version that is stored.
pub(super) fn cluster_properties() -> ApiResource {
    resource("about.k8s.io", "v1beta1", "ClusterProperty", "clusterproperties")
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: format!("{group}/{version}"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_place_and_only_two_are_guarded() {
        for kind in Kind::LOCAL.into_iter().chain(Kind::BROKER) {
            let place = place(kind);
            assert_eq!(
                place.resource.api_version,
                match place.resource.group.as_str() {
                    "" => place.resource.version.clone(),
                    group => format!("{group}/{}", place.resource.version),
                }
            );
            assert!(place.namespace.is_none() || kind.at_broker(), "{kind:?}");
        }
        assert_eq!(guarding_crd(Kind::Exports).as_deref(), Some("serviceexports.multicluster.x-k8s.io"));
        assert_eq!(guarding_crd(Kind::Properties).as_deref(), Some("clusterproperties.about.k8s.io"));
        assert_eq!(guarding_crd(Kind::Imports), None);
    }
}
