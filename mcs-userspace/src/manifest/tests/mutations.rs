//! Damaged manifests: nothing panics, nothing else is lost, nothing is deleted.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{good_spec, import, slice};
use crate::manifest::{Interner, parse};
use crate::model::{Event, ObjectId};
use crate::source::dir::DirState;

/// Three objects of each kind.
fn objects() -> Vec<Value> {
    let mut objects = Vec::new();
    for name in ["x", "y", "z"] {
        let mut import = import(good_spec());
        import["metadata"]["name"] = json!(name);
        let mut slice = slice(json!({}));
        slice["metadata"]["name"] = json!(format!("{name}-a"));
        slice["endpoints"] = json!([
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "n", "zone": "z"},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        ]);
        objects.extend([import, slice]);
    }
    objects[0]["metadata"]["annotations"] = json!({crate::api::CLUSTER_WEIGHTS: "{\"a\":1}"});
    objects[0]["spec"]["sessionAffinity"] = json!("ClientIP");
    objects[0]["spec"]["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 7}});
    objects
}

fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn ids(text: &str) -> BTreeSet<ObjectId> {
    let parsed = parse("a.json", text.as_bytes(), &mut Interner::default()).unwrap();
    parsed.objects.iter().map(crate::model::Object::id).collect()
}

/// What the world is told when a file changes from one text to another.
fn change(file: &str, from: &str, to: &[u8]) -> Vec<Event> {
    let mut state = DirState::default();
    state.file_read(file, Ok(from.as_bytes()));
    assert!(state.settle().events.len() >= 2);
    state.file_read(file, Ok(to));
    state.settle().events
}

fn deletes(events: &[Event]) -> Vec<&ObjectId> {
    events.iter().filter_map(|event| if let Event::Delete(id) = event { Some(id) } else { None }).collect()
}

#[test]
fn json_cut_off_anywhere_changes_nothing() {
    let text = list(&objects()).to_string();
    let mut state = DirState::default();
    state.file_read("a.json", Ok(text.as_bytes()));
    assert_eq!(state.settle().events.len(), 6);
    for end in 0..text.len() {
        state.file_read("a.json", Ok(&text.as_bytes()[..end]));
        assert_eq!(state.settle().events, [], "{end}");
        assert_eq!(state.problems().count(), 1);
    }
}

/// YAML that is cut off may be valid and say less; but it never loses an object by being unreadable.
#[test]
fn yaml_cut_off_anywhere_deletes_only_what_it_no_longer_names() {
    let objects = &objects()[..2];
    let texts = [
        serde_saphyr::to_string(&list(objects)).unwrap(),
        objects.iter().map(|object| format!("---\n{}", serde_saphyr::to_string(object).unwrap())).collect::<String>(),
    ];
    for text in texts {
        for end in 0..text.len() {
            let cut = &text[..end];
            let events = change("a.yaml", &text, cut.as_bytes());
            for id in deletes(&events) {
                let (ObjectId::Import(key) | ObjectId::Slice(key)) = id;
                let lines: Vec<&str> = cut.lines().map(str::trim_start).collect();
                let names = [format!("name: {}", key.name), format!("namespace: {}", key.namespace)];
                let named = lines.windows(2).any(|lines| lines == names);
                assert!(!named, "{end}: {id} is named in\n{cut}");
            }
        }
    }
}

/// Every place of a value, as a JSON pointer.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                pointers(item, &format!("{at}/{i}"), all);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                pointers(field, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), all);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// One value replaced by one of another type: the other five objects stay, and so does this one in some form, unless
/// the new value says something else in valid words.
#[test]
fn any_value_replaced_costs_at_most_its_object() {
    let objects = objects();
    let text = list(&objects).to_string();
    let mut places = Vec::new();
    for (i, object) in objects.iter().enumerate() {
        let mut all = Vec::new();
        pointers(object, "", &mut all);
        places.extend(all.into_iter().map(|pointer| (i, pointer)));
    }
    let others = [
        json!(null),
        json!(true),
        json!(-1),
        json!(70000),
        json!(1.5),
        json!("wrong"),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"a": null}),
    ];
    for (i, pointer) in places {
        let id = ids(&list(&objects[i..=i]).to_string()).pop_first().unwrap();
        for other in &others {
            let mut damaged = objects.clone();
            *damaged[i].pointer_mut(&pointer).unwrap() = other.clone();
            let to = list(&damaged).to_string();
            let events = change("a.json", &text, to.as_bytes());
            let touched = |event: &Event| match event {
                Event::Apply(object) => object.id() == id,
                Event::Delete(deleted) => *deleted == id,
                Event::Synced => false,
            };
            // a valid other name, and the label that makes a slice ours
            let renamed = pointer == "/metadata/name" || pointer == "/metadata/namespace" || pointer == "/kind";
            let disowned = pointer == "/metadata/labels" || pointer.ends_with("service-name");
            if !renamed {
                assert!(events.iter().all(touched), "{pointer} = {other}: {events:?}");
            }
            // without metadata or with null in place of an optional value an object may well say something else
            let may_delete = renamed || disowned || (pointer == "/metadata/namespace");
            assert!(may_delete || deletes(&events).is_empty(), "{pointer} = {other}: {events:?}");
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9./:-]{0,20}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{1,8}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), yaml: bool) {
        let file = if yaml { "a.yaml" } else { "a.json" };
        drop(parse(file, &bytes, &mut Interner::default()));
    }

    #[test]
    fn random_yaml_is_read_or_refused(text in "[-a-z0-9:{}\\[\\],&*!|>'\" \n#?%]{0,200}") {
        drop(parse("a.yaml", text.as_bytes(), &mut Interner::default()));
    }

    #[test]
    fn damaged_bytes_delete_nothing_in_json(at in any::<prop::sample::Index>(), byte: u8) {
        let text = list(&objects()).to_string();
        let mut damaged = text.clone().into_bytes();
        let at = at.index(damaged.len());
        damaged[at] = byte;
        // a byte may turn a name, a kind or a key into a valid other one: that is not damage that anyone can see
        let events = change("a.json", &text, &damaged);
        prop_assert!(deletes(&events).len() <= 1, "{:?}", events);
    }

    #[test]
    fn random_values_cost_at_most_their_object(which in 0_usize..6, at in any::<prop::sample::Index>(), new in any_json()) {
        let mut objects = objects();
        let before = list(&objects).to_string();
        let id = ids(&list(&objects[which..=which]).to_string()).pop_first().unwrap();
        let mut places = Vec::new();
        pointers(&objects[which], "", &mut places);
        *objects[which].pointer_mut(at.get::<String>(&places)).unwrap() = new;
        let events = change("a.json", &before, list(&objects).to_string().as_bytes());
        prop_assert!(deletes(&events).into_iter().all(|deleted| *deleted == id), "{:?}", events);
    }
}
