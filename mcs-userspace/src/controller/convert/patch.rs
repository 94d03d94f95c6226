//! JSON patches (RFC 6902) that set just our fields of an object, each as a whole, at just one version of it.
//!
//! Others' fields stay: finalizers, owners, what a newer version of the API has. A merge patch could not take a key away
//! that it does not know of; a replacement would need the whole object.

use serde_json::{Value, json};

/// Sets `fields`, JSON pointers with their values, of the object at `version`. The API server answers 409 if it changed.
pub(in crate::controller) fn at_version<'a>(
    version: u64,
    fields: impl IntoIterator<Item = (&'a str, Value)>,
) -> Vec<Value> {
    let precondition = json!({"op": "add", "path": "/metadata/resourceVersion", "value": version.to_string()});
    let fields = fields.into_iter().map(|(path, value)| json!({"op": "add", "path": path, "value": value}));
    std::iter::once(precondition).chain(fields).collect()
}

/// Empties `metadata.managedFields`: a list of one empty entry says so. An API server keeps no account of who set which
/// field of such an object from then on, until somebody applies to it (server-side apply), and keeping it is a good part
/// of what an update costs: each field of each endpoint is compared. For kinds that nobody but us writes.
pub(in crate::controller) fn without_managers() -> Value {
    json!({"op": "add", "path": "/metadata/managedFields", "value": [{}]})
}

/// The fields of a whole object that its update sets.
pub(in crate::controller) fn fields_of<'a>(mut body: Value, pointers: &[&'a str]) -> Vec<(&'a str, Value)> {
    let take = |pointer: &&'a str| Some((*pointer, body.pointer_mut(pointer)?.take()));
    pointers.iter().filter_map(take).collect()
}
