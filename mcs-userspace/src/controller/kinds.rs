//! Where each [`Kind`] lies: resource, namespace, selectors.
//!
//! A watch tells only of what its selectors take in: EndpointSlices are watched twice, once as a Service's and once as
//! ours, and of the broker's Leases only those that are a member's sign of life.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, Resource};

use crate::api::{ABOUT_GROUP, GROUP, v1beta1};
use crate::apiserver::Place;
use crate::clusterset::event::Kind;
use crate::clusterset::record::{ClusterSet, ExportRecord, Member, Reservation, SHARED_NAMESPACE, SliceRecord};

/// Label of an EndpointSlice: who manages it.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Value of [`MANAGED_BY`] that is ours.
pub const MANAGER: &str = "mcs-controller";

/// Label of an EndpointSlice: the Service, in its namespace, that it belongs to.
pub(super) const SERVICE: &str = "kubernetes.io/service-name";

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
        Kind::ClusterSets => shared::<ClusterSet>(),
        Kind::Members => shared::<Member>(),
        Kind::Reservations => shared::<Reservation>(),
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
    Place::resource(GROUP, "v1beta1", "ServiceExport", "serviceexports")
}

/// ClusterProperty (KEP-2149), in the version that is stored.
pub(super) fn cluster_properties() -> ApiResource {
    Place::resource(ABOUT_GROUP, "v1beta1", "ClusterProperty", "clusterproperties")
}

fn shared<K: Resource<DynamicType = ()>>() -> Place {
    Place { namespace: Some(SHARED_NAMESPACE), ..Place::of(ApiResource::erase::<K>(&())) }
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
