//! What is read of a document: the union of both kinds' fields, so that one pass does, wherever `kind` is written.

use std::borrow::Cow;

use super::lax::{Lax, Shape, shape};
use crate::api;

/// A list whose elements may each be wrong.
pub(super) type List<T> = Vec<Lax<T>>;

shape! {
    /// A document, or an item of a list.
    struct Document<'de> {
        "apiVersion" => api_version: Cow<'de, str>,
        "kind" => kind: Cow<'de, str>,
        "metadata" => metadata: Metadata<'de>,
        /// Of a ServiceImport.
        "spec" => spec: Spec<'de>,
        /// Of an EndpointSlice.
        "addressType" => address_type: Cow<'de, str>,
        /// Of an EndpointSlice.
        "endpoints" => endpoints: List<Endpoint<'de>>,
        /// Of an EndpointSlice.
        "ports" => ports: List<Port<'de>>,
    }
}

shape! {
    /// Only what tells which object it is: for documents whose rest cannot be read.
    struct Identity<'de> {
        "apiVersion" => api_version: Cow<'de, str>,
        "kind" => kind: Cow<'de, str>,
        "metadata" => metadata: Metadata<'de>,
    }
}

shape! {
    /// An object's metadata.
    struct Metadata<'de> {
        "name" => name: Cow<'de, str>,
        "namespace" => namespace: Cow<'de, str>,
        "creationTimestamp" => created: Cow<'de, str>,
        "labels" => labels: Labels<'de>,
        "annotations" => annotations: Annotations<'de>,
    }
}

shape! {
    /// The labels that matter.
    struct Labels<'de> {
        api::SERVICE_NAME => service_name: Cow<'de, str>,
        api::SOURCE_CLUSTER => source_cluster: Cow<'de, str>,
    }
}

shape! {
    /// The annotations that matter.
    struct Annotations<'de> {
        api::CLUSTER_WEIGHTS => cluster_weights: Cow<'de, str>,
        api::CHANGED_AT => changed_at: Cow<'de, str>,
    }
}

shape! {
    /// A ServiceImport's spec.
    struct Spec<'de> {
        "type" => kind: Cow<'de, str>,
        "ips" => ips: List<Cow<'de, str>>,
        "ports" => ports: List<Port<'de>>,
        "sessionAffinity" => affinity: Cow<'de, str>,
        "sessionAffinityConfig" => affinity_config: AffinityConfig,
        "internalTrafficPolicy" => traffic_policy: Cow<'de, str>,
        "trafficDistribution" => distribution: Cow<'de, str>,
    }
}

shape! {
    /// `sessionAffinityConfig`.
    struct AffinityConfig {
        "clientIP" => client_ip: ClientIp,
    }
}

shape! {
    /// `sessionAffinityConfig.clientIP`.
    struct ClientIp {
        "timeoutSeconds" => timeout_secs: i64,
    }
}

shape! {
    /// A port of either kind.
    struct Port<'de> {
        "name" => name: Cow<'de, str>,
        "protocol" => protocol: Cow<'de, str>,
        "port" => port: i64,
    }
}

shape! {
    /// An endpoint of an EndpointSlice.
    struct Endpoint<'de> {
        "addresses" => addresses: List<Cow<'de, str>>,
        "conditions" => conditions: Conditions,
        "hostname" => hostname: Cow<'de, str>,
        "nodeName" => node: Cow<'de, str>,
        "zone" => zone: Cow<'de, str>,
    }
}

shape! {
    /// An endpoint's conditions.
    struct Conditions {
        "ready" => ready: bool,
        "serving" => serving: bool,
        "terminating" => terminating: bool,
    }
}
