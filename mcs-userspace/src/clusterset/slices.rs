//! A source's EndpointSlice as its import has it: ports renamed to the import's, or left out.
//!
//! ```text
//!  slice port "web" ──by name──► source's Service port 80/TCP ──by (protocol, port)──► import's port "http" 80/TCP
//! ```
//!
//! After that a reader needs nothing but names: the slice's port of equal name and protocol serves the import's port
//! (mcs-api's rule of strict port conflicts). Addresses of different families or clusters never share a slice.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::merge::{Merged, merged_name};
use super::service::{Endpoint, Endpoints, Exported, Family, Port, SlicePort};
use crate::model::ObjectKey;

/// The content of the imported slice, or none if it serves nothing of the import.
///
/// `leave_out` says which ports this source does not serve, dead as it is while others do. It is asked with `None` for a
/// slice without ports, which serves by its addresses alone (a headless service may have no ports).
#[must_use]
pub fn imported(
    merged: &Merged,
    source: &Exported,
    slice: &Endpoints,
    leave_out: &dyn Fn(Option<&Port>) -> bool,
) -> Option<(Vec<SlicePort>, Vec<Endpoint>)> {
    let ports: Vec<SlicePort> = served_ports(merged, source, slice)
        .filter(|(port, _)| !leave_out(Some(port)))
        .map(|(port, slice_port)| SlicePort { name: port.name.clone(), ..slice_port.clone() })
        .collect();
    if ports.is_empty() && (has_ports(source, slice) || leave_out(None)) {
        return None;
    }
    Some((ports, slice.endpoints.clone()))
}

/// What a source serves with at least one ready endpoint in these slices: (family, merged port), and for each family with
/// a ready endpoint at all (family, none): the service by its addresses alone.
pub fn serves<'m, 's>(
    merged: &'m Merged,
    source: &'s Exported,
    slices: impl IntoIterator<Item = &'s Endpoints>,
) -> BTreeSet<(Family, Option<&'m Port>)> {
    let mut served = BTreeSet::new();
    for slice in slices.into_iter().filter(|slice| slice.endpoints.iter().any(|endpoint| endpoint.ready)) {
        let ports = served_ports(merged, source, slice);
        served.insert((slice.family, None));
        served.extend(ports.map(|(port, _)| (slice.family, Some(port))));
    }
    served
}

/// Name of the imported slice of a source's slice (or of the name of its record). One name means one (service, cluster,
/// slice): services and clusters are DNS labels and have no dot, and only the owner of `source_slice` could make two of
/// its own collide. Valid for valid ids: at most 63 + 1 + 63 + 1 + 16 characters.
#[must_use]
pub fn imported_name(service: &str, cluster: &str, source_slice: &str) -> String {
    format!("{service}.{cluster}.{:016x}", fnv1a(source_slice))
}

/// Name of the [`super::record::SliceRecord`] of a slice.
#[must_use]
pub fn slice_record_name(service: &ObjectKey, source_slice: &str) -> String {
    format!("{}.{:016x}", super::record::export_name(service), fnv1a(source_slice))
}

/// Whether there are ports that it could serve. A slice may lag behind its Service, which lost them all.
fn has_ports(source: &Exported, slice: &Endpoints) -> bool {
    !slice.ports.is_empty() && !source.ports.is_empty()
}

/// The merged ports that the slice serves, and by which of its own.
fn served_ports<'m, 's>(
    merged: &'m Merged,
    source: &'s Exported,
    slice: &'s Endpoints,
) -> impl Iterator<Item = (&'m Port, &'s SlicePort)> {
    slice.ports.iter().filter_map(move |port| Some((merged_name(merged, source, port)?, port)))
}

/// FNV-1a, 64 bits: names must be the same in every build, which the standard library's hashes do not promise.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
