//! What differs between two CRDs, field by field. Descriptions do not count: ours are our own words.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

/// One field that differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// `spec.versions[v1beta1].schema.openAPIV3Schema.properties.spec.required`.
    pub path: String,
    /// Ours, if we have it.
    pub ours: Option<Value>,
    /// Theirs, if they have it.
    pub theirs: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, ours, theirs } = self;
        match (ours, theirs) {
            (Some(ours), Some(theirs)) => write!(f, "{path}: ours {ours}, theirs {theirs}"),
            (Some(ours), None) => write!(f, "{path}: only ours: {ours}"),
            (None, theirs) => write!(f, "{path}: only theirs: {}", theirs.as_ref().unwrap_or(&Value::Null)),
        }
    }
}

/// Compares name, labels and spec of two CRDs, given as JSON. Lists of versions are compared by name, and other lists as
/// sets where their order means nothing (`required`, `enum`, short names). A field that the API server fills in with
/// nothing but its default (`listKind`) differs only if both sides have it.
#[must_use]
pub fn differences(ours: &Value, theirs: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    for pointer in ["/metadata/name", "/metadata/labels"] {
        let path = pointer.trim_start_matches('/').replace('/', ".");
        compare(path, ours.pointer(pointer), theirs.pointer(pointer), Within::Keywords, &mut found);
    }
    compare("spec".to_owned(), ours.get("spec"), theirs.get("spec"), Within::Keywords, &mut found);
    found.retain(|difference| {
        !(difference.path == "spec.names.listKind" && (difference.ours.is_none() || difference.theirs.is_none()))
    });
    found
}

/// What an object's keys are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Keywords: `description` is one.
    Keywords,
    /// Names that the schema's author chose: `description` may be one of them.
    Names,
}

fn compare(path: String, ours: Option<&Value>, theirs: Option<&Value>, within: Within, found: &mut Vec<Difference>) {
    match (ours, theirs) {
        (Some(Value::Object(ours)), Some(Value::Object(theirs))) => objects(&path, ours, theirs, within, found),
        (Some(Value::Array(ours)), Some(Value::Array(theirs))) if is_named(ours) && is_named(theirs) => {
            lists_of_named(&path, ours, theirs, found);
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if is_set(&path) && as_set(a) == as_set(b) => {}
        (Some(Value::Number(a)), Some(Value::Number(b))) if a.as_f64() == b.as_f64() => {}
        (ours, theirs) if ours == theirs => {}
        (ours, theirs) => found.push(Difference { path, ours: ours.cloned(), theirs: theirs.cloned() }),
    }
}

fn objects(
    path: &str,
    ours: &Map<String, Value>,
    theirs: &Map<String, Value>,
    within: Within,
    found: &mut Vec<Difference>,
) {
    let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for key in keys {
        // a printer column's description is a keyword of text, too
        if within == Within::Keywords && key == "description" {
            continue;
        }
        let next = if within == Within::Keywords && key == "properties" { Within::Names } else { Within::Keywords };
        compare(format!("{path}.{key}"), ours.get(key), theirs.get(key), next, found);
    }
}

/// Versions and printer columns have names of their own.
fn is_named(list: &[Value]) -> bool {
    !list.is_empty() && list.iter().all(|item| item.get("name").is_some_and(Value::is_string))
}

fn lists_of_named(path: &str, ours: &[Value], theirs: &[Value], found: &mut Vec<Difference>) {
    let name = |item: &Value| item.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let names = |list: &[Value]| list.iter().map(name).collect::<Vec<_>>();
    for wanted in names(ours).into_iter().chain(names(theirs)).collect::<BTreeSet<_>>() {
        let get = |list: &[Value]| list.iter().find(|item| name(item) == wanted).cloned();
        compare(format!("{path}[{wanted}]"), get(ours).as_ref(), get(theirs).as_ref(), Within::Keywords, found);
    }
    // columns are shown in their order; versions are not
    if path.ends_with("additionalPrinterColumns") && names(ours) != names(theirs) {
        let list = |names: Vec<String>| Some(Value::from(names));
        found.push(Difference { path: path.to_owned(), ours: list(names(ours)), theirs: list(names(theirs)) });
    }
}

fn is_set(path: &str) -> bool {
    ["required", "enum", "shortNames", "categories"].iter().any(|end| path.ends_with(&format!(".{end}")))
}

fn as_set(list: &[Value]) -> BTreeSet<String> {
    list.iter().map(Value::to_string).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(ours: &Value, theirs: &Value) -> Vec<String> {
        differences(ours, theirs).iter().map(Difference::to_string).collect()
    }

    #[test]
    fn words_and_the_order_of_sets_do_not_count_and_all_else_does() {
        let ours = json!({"spec": {"versions": [
            {"name": "v1", "schema": {"description": "ours", "required": ["a", "b"], "properties": {"a": {"type": "string"}}}},
            {"name": "v2", "storage": true},
        ]}});
        let mut theirs = json!({"spec": {"versions": [
            {"name": "v2", "storage": true},
            {"name": "v1", "schema": {"required": ["b", "a"], "properties": {"a": {"type": "string"}}}},
        ]}});
        assert_eq!(texts(&ours, &theirs), [""; 0]);

        let v1 = &mut theirs["spec"]["versions"][1]["schema"];
        v1["properties"]["a"]["maxLength"] = 5.into();
        v1["properties"]["description"] = json!({"type": "string"});
        v1["required"] = json!(["a"]);
        assert_eq!(
            texts(&ours, &theirs),
            [
                "spec.versions[v1].schema.properties.a.maxLength: only theirs: 5",
                r#"spec.versions[v1].schema.properties.description: only theirs: {"type":"string"}"#,
                r#"spec.versions[v1].schema.required: ours ["a","b"], theirs ["a"]"#,
            ]
        );
    }

    #[test]
    fn a_version_or_a_label_of_one_side_is_found() {
        let ours = json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"versions": [{"name": "v1"}]}});
        let theirs = json!({"metadata": {"name": "a"}, "spec": {"versions": [{"name": "v2"}]}});
        assert_eq!(
            texts(&ours, &theirs),
            [
                r#"metadata.labels: only ours: {"x":"1"}"#,
                r#"spec.versions[v1]: only ours: {"name":"v1"}"#,
                r#"spec.versions[v2]: only theirs: {"name":"v2"}"#,
            ]
        );
    }

    #[test]
    fn columns_have_an_order() {
        let ours = json!({"spec": {"additionalPrinterColumns": [{"name": "a"}, {"name": "b"}]}});
        let theirs = json!({"spec": {"additionalPrinterColumns": [{"name": "b"}, {"name": "a"}]}});
        assert_eq!(texts(&ours, &theirs), [r#"spec.additionalPrinterColumns: ours ["a","b"], theirs ["b","a"]"#]);
    }
}
