//! Kubernetes' objects to the values that decisions are made of, and back.
//!
//! ```text
//!  DynamicObject ──read──► Object             what cannot be read is Object::Unreadable, and costs itself only
//!  Import, ImportedSlice, records, conditions ──► JSON of whole objects, for create
//!                                             └─► JSON patches of just our fields, for update (see `patch`)
//! ```
//!
//! The API server has checked the shape of its own kinds, and of custom resources as far as their schema goes. It is not
//! relied upon: a schema may be an older one, or somebody else's.

mod broker;
mod condition;
mod import;
mod local;
pub(super) mod patch;
mod slice;

use std::fmt;

use kube::api::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) use condition::{Transition, conditions_with_times};
pub(super) use import::import_body;
pub(super) use slice::slice_body;

use crate::apiserver::{Watched, parse_version};
use crate::clusterset::event::{Kind, Object};
use crate::clusterset::local::Meta;
use crate::model::ObjectKey;

/// Why an object cannot be read: which field, and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unreadable {
    field: String,
    reason: String,
}

impl Unreadable {
    fn new(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self { field: field.into(), reason: reason.to_string() }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// Namespace (empty if it has none) and name.
pub(super) fn key(object: &DynamicObject) -> ObjectKey {
    ObjectKey::new(
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.metadata.name.as_deref().unwrap_or_default(),
    )
}

/// `metadata.resourceVersion`, 0 if it is no number.
pub(super) fn version(object: &DynamicObject) -> u64 {
    Watched::version(object)
}

/// What `object` says, as `kind`. None for an object that is none of our business.
pub(super) fn read(kind: Kind, object: DynamicObject) -> Option<Object> {
    let read = match kind {
        Kind::Namespaces => Ok(Some(Object::Namespace { terminating: object.metadata.deletion_timestamp.is_some() })),
        Kind::Services => local::service(object).map(|service| Some(Object::Service(service))),
        Kind::Exports => local::export(object).map(|export| Some(Object::Export(export))),
        Kind::Properties => local::property(&object).map(|value| Some(Object::Property(value))),
        Kind::SourceSlices => slice::source(object).map(|slice| slice.map(Object::SourceSlice)),
        Kind::ImportedSlices => slice::imported(object).map(|slice| Some(Object::ImportedSlice(slice))),
        Kind::Imports => import::import(object).map(|import| Some(Object::Import(import))),
        Kind::ClusterSets => broker::spec(object).map(|(meta, spec)| Some(Object::ClusterSet(meta, spec))),
        Kind::Members => broker::spec(object).map(|(meta, spec)| Some(Object::Member(meta, spec))),
        Kind::Reservations => broker::spec(object).map(|(meta, spec)| Some(Object::Reservation(meta, spec))),
        Kind::ExportRecords => broker::spec(object).map(|(meta, spec)| Some(Object::ExportRecord(meta, spec))),
        Kind::SliceRecords => broker::spec(object).map(|(meta, spec)| Some(Object::SliceRecord(meta, spec))),
        Kind::Leases => broker::lease(&object),
    };
    read.unwrap_or_else(|unreadable| Some(Object::Unreadable { reason: unreadable.to_string() }))
}

/// `uid`, `resourceVersion`, `creationTimestamp`.
fn meta(object: &DynamicObject) -> Result<Meta, Unreadable> {
    let metadata = &object.metadata;
    let version = metadata.resource_version.as_deref();
    Ok(Meta {
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: parse_version(version).ok_or_else(|| {
            Unreadable::new("metadata.resourceVersion", format_args!("{:?} is no number", version.unwrap_or_default()))
        })?,
        created: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
    })
}

/// A field of the object's body, as a type; the default where it is missing or null.
fn field<T: DeserializeOwned + Default>(object: &mut DynamicObject, name: &str) -> Result<T, Unreadable> {
    match object.data.get_mut(name).map(Value::take) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(value) => serde_json::from_value(value).map_err(|error| Unreadable::new(name, error)),
    }
}

/// A port number, 1..=65535.
fn port_number(field: impl FnOnce() -> String, number: i32) -> Result<u16, Unreadable> {
    match u16::try_from(number) {
        Ok(0) | Err(_) => Err(Unreadable::new(field(), format_args!("{number} is not in 1..=65535"))),
        Ok(number) => Ok(number),
    }
}

/// A protocol by its name in the API; none given means TCP.
fn transport(
    field: impl FnOnce() -> String,
    name: Option<&str>,
) -> Result<crate::clusterset::service::Transport, Unreadable> {
    use crate::clusterset::service::Transport;
    match name {
        None | Some("" | "TCP") => Ok(Transport::Tcp),
        Some("UDP") => Ok(Transport::Udp),
        Some("SCTP") => Ok(Transport::Sctp),
        Some(other) => Err(Unreadable::new(field(), format_args!("{other:?} is none of TCP, UDP, SCTP"))),
    }
}

/// An address family by its name in the API.
fn family(field: impl FnOnce() -> String, name: &str) -> Result<crate::clusterset::service::Family, Unreadable> {
    use crate::clusterset::service::Family;
    match name {
        "IPv4" => Ok(Family::IPv4),
        "IPv6" => Ok(Family::IPv6),
        other => Err(Unreadable::new(field(), format_args!("{other:?} is neither IPv4 nor IPv6"))),
    }
}

#[cfg(test)]
mod tests;
