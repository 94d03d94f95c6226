//! Objects as a YAML stream for `kubectl apply -f -`.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Number, Value};

/// The objects, each a document, in their order. An object's keys are sorted; absent `status` stays absent.
///
/// # Errors
/// An object that is no JSON.
pub fn documents<T: Serialize>(objects: &[T]) -> anyhow::Result<String> {
    let mut text = String::new();
    for object in objects {
        let value = whole_numbers(serde_json::to_value(object).context("an object: to JSON")?);
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&value).context("an object: to YAML")?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

/// Schemas hold numbers as floating point; people write `0`, not `0.0`.
fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, whole_numbers(value))).collect(),
        Value::Array(items) => items.into_iter().map(whole_numbers).collect(),
        Value::Number(number) => Value::Number(whole(&number).unwrap_or(number)),
        other @ (Value::Null | Value::Bool(_) | Value::String(_)) => other,
    }
}

fn whole(number: &Number) -> Option<Number> {
    let float = number.as_f64().filter(|_| number.is_f64())?;
    format!("{float}").parse::<i64>().ok().map(Number::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a cluster needs whoever installs it, for those who do not run the verbs.
    #[test]
    fn deploy_has_what_the_verbs_write() {
        let mut broker: Vec<Value> =
            crate::broker::objects::crds().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        broker.extend(crate::broker::objects::shared());
        // Apart, because Helm makes the namespace itself.
        let (namespace, rbac) =
            crate::broker::member_objects::objects().into_iter().partition(|object| object["kind"] == "Namespace");
        let files = [("broker/broker.yaml", broker), ("base/namespace.yaml", namespace), ("base/rbac.yaml", rbac)];
        for (file, objects) in files {
            let path = format!("{}/../deploy/{file}", env!("CARGO_MANIFEST_DIR"));
            let text = documents(&objects).unwrap();
            if std::env::var_os("MCS_REGENERATE").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            assert!(
                std::fs::read_to_string(&path).unwrap_or_default() == text,
                "{path} is stale: MCS_REGENERATE=1 cargo test -p mcs-userspace --lib deploy_has"
            );
        }
    }

    #[test]
    fn what_is_written_reads_as_it_was() {
        let objects = [
            json!({"kind": "A", "minimum": 0.0, "half": 0.5, "text": "0", "yes": "yes", "true": true}),
            json!({"pattern": "^([a-z]*:)?# $", "long": "a: b\nc\n", "empty": "", "list": [], "map": {}, "enum": ["True", "null"]}),
        ];
        let text = documents(&objects).unwrap();
        let read: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(read[0], json!({"kind": "A", "minimum": 0, "half": 0.5, "text": "0", "yes": "yes", "true": true}));
        assert_eq!(read[1], objects[1]);
        assert!(text.contains("minimum: 0\n"), "{text}");
    }
}
