//! Kinds that tests name.

use std::fmt;

use serde_json::Value;

/// A kind of objects, in one version. Those that tests use most are constants here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Kind {
    /// `v1`, `multicluster.x-k8s.io/v1beta1`.
    pub api_version: &'static str,
    /// `Service`.
    pub name: &'static str,
}

impl Kind {
    /// Of the core group.
    pub const NAMESPACE: Self = Self::new("v1", "Namespace");
    /// Of the core group.
    pub const SERVICE: Self = Self::new("v1", "Service");
    /// Of the core group.
    pub const POD: Self = Self::new("v1", "Pod");
    /// Of the core group.
    pub const SECRET: Self = Self::new("v1", "Secret");
    /// Of the core group.
    pub const CONFIG_MAP: Self = Self::new("v1", "ConfigMap");
    /// The kind that `kubectl describe` shows beside an object.
    pub const EVENT: Self = Self::new("v1", "Event");
    /// Everybody's endpoints.
    pub const SLICE: Self = Self::new("discovery.k8s.io/v1", "EndpointSlice");
    /// Leases of leaders and members.
    pub const LEASE: Self = Self::new("coordination.k8s.io/v1", "Lease");
    /// Definitions of kinds.
    pub const CRD: Self = Self::new("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    /// What is exported.
    pub const EXPORT: Self = Self::new("multicluster.x-k8s.io/v1beta1", "ServiceExport");
    /// [`EXPORT`](Self::EXPORT) in the first version.
    pub const EXPORT_V1ALPHA1: Self = Self::new("multicluster.x-k8s.io/v1alpha1", "ServiceExport");
    /// What is imported.
    pub const IMPORT: Self = Self::new("multicluster.x-k8s.io/v1beta1", "ServiceImport");
    /// [`IMPORT`](Self::IMPORT) in the first version.
    pub const IMPORT_V1ALPHA1: Self = Self::new("multicluster.x-k8s.io/v1alpha1", "ServiceImport");
    /// What a cluster says of itself.
    pub const PROPERTY: Self = Self::new("about.k8s.io/v1beta1", "ClusterProperty");
    /// At the broker: what fixes a ClusterSet.
    pub const CLUSTERSET: Self = Self::new("broker.mcs.internal/v1", "ClusterSet");
    /// At the broker: a cluster that joined.
    pub const MEMBER: Self = Self::new("broker.mcs.internal/v1", "Member");
    /// At the broker: an address that is taken.
    pub const RESERVATION: Self = Self::new("broker.mcs.internal/v1", "Reservation");
    /// At the broker: an export, or its withdrawal.
    pub const EXPORT_RECORD: Self = Self::new("broker.mcs.internal/v1", "ExportRecord");
    /// At the broker: endpoints.
    pub const SLICE_RECORD: Self = Self::new("broker.mcs.internal/v1", "SliceRecord");

    /// Any other.
    #[must_use]
    pub const fn new(api_version: &'static str, name: &'static str) -> Self {
        Self { api_version, name }
    }

    /// What an object says that it is. Texts live as long as the process: tests have few kinds.
    pub(super) fn of(object: &Value) -> Option<Self> {
        let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
        Some(Self::new(leak(object["apiVersion"].as_str()?), leak(object["kind"].as_str()?)))
    }

    /// Empty for the core group.
    pub(super) fn group(self) -> &'static str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    pub(super) fn version(self) -> &'static str {
        self.api_version.split_once('/').map_or(self.api_version, |(_, version)| version)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.name, self.api_version)
    }
}
