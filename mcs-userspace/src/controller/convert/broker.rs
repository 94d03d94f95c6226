//! What lies at the broker. Others wrote it: what is readable is still to be validated by the decisions.

use kube::api::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Unreadable, meta};
use crate::clusterset::event::Object;
use crate::clusterset::local::Meta;
use crate::clusterset::record::{STATEMENT, Statement};

/// The `spec` of a custom resource.
pub(super) fn spec<T: DeserializeOwned>(mut object: DynamicObject) -> Result<(Meta, T), Unreadable> {
    let meta = meta(&object)?;
    let spec = object.data.get_mut("spec").map(Value::take).ok_or_else(|| Unreadable::new("spec", "is missing"))?;
    Ok((meta, serde_json::from_value(spec).map_err(|error| Unreadable::new("spec", error))?))
}

/// A member's Lease; None for anybody else's. One that says nothing yet is a sign of life all the same.
pub(super) fn lease(object: &DynamicObject) -> Result<Option<Object>, Unreadable> {
    if !object.metadata.namespace.as_deref().is_some_and(|namespace| namespace.starts_with("mcs-")) {
        return Ok(None);
    }
    let meta = meta(object)?;
    let text = object.metadata.annotations.as_ref().and_then(|annotations| annotations.get(STATEMENT));
    let statement = match text {
        None => Statement::default(),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| Unreadable::new(format!("metadata.annotations[{STATEMENT}]"), error))?,
    };
    Ok(Some(Object::Lease(meta, statement)))
}
