//! A file's text to its documents, lists taken apart.
//!
//! JSON is read in two passes that keep no tree: the first finds where documents and list items lie, the second reads
//! each by itself. So ten thousand slices in one list need memory for one at a time, and one bad item costs itself.
//! YAML goes through a tree; people write it by hand, and they write little.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::lax::{Key, Lax};
use super::shapes::{Document, Identity};
use crate::api;

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One or more JSON values.
    Json,
    /// A YAML stream; one that is JSON in truth is read as such, which is much faster.
    Yaml,
}

impl Format {
    /// By the file's ending: `.json`, all else is YAML, of which JSON is nearly a part.
    #[must_use]
    pub fn of(file: &str) -> Self {
        if file.ends_with(".json") { Self::Json } else { Self::Yaml }
    }
}

/// A document or an item of a list.
pub(super) struct Item<'a> {
    /// What to put before a field's path: empty, or like `items[3].`, `documents[1].items[3].`.
    pub(super) place: String,
    /// The document.
    pub(super) content: Content<'a>,
}

/// What there is of a document.
pub(super) enum Content<'a> {
    /// Its fields.
    Document(Box<Document<'a>>),
    /// It is no object, or no deserializer takes it.
    Unreadable {
        /// What could be read.
        identity: Box<Identity<'a>>,
        /// What is wrong.
        why: String,
    },
}

/// Calls `each` for every document and list item.
///
/// # Errors
/// The text cannot be taken apart. `each` may have been called before that came to light.
pub(super) fn each(format: Format, text: &[u8], each: &mut dyn FnMut(Item<'_>)) -> Result<(), String> {
    let text = std::str::from_utf8(text).map_err(|error| format!("not UTF-8: {error}"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let count = match format {
        Format::Json => json(text, each)?,
        Format::Yaml => {
            let looks_like_json = text.trim_start().starts_with('{');
            // taken apart first, so that `each` sees nothing of a text that then turns out to be YAML
            match looks_like_json.then(|| heads(text)) {
                Some(Ok(heads)) => {
                    let count = heads.len();
                    json_documents(heads, each);
                    count
                }
                Some(Err(_)) | None => yaml(text, each)?,
            }
        }
    };
    if count == 0 {
        return Err("empty: to delete its objects, delete the file or write an empty List".to_owned());
    }
    Ok(())
}

/// One object as an API server sends it: kind and version are known by what was asked for, and items of lists leave them
/// out.
pub(super) fn served<'a>(kind: &'static str, api_version: &str, text: &'a str) -> Item<'a> {
    let mut content = json_content(text);
    inherit(&mut content, kind, &Lax::Good(api_version.to_owned().into()));
    Item { place: String::new(), content }
}

fn json(text: &str, each: &mut dyn FnMut(Item<'_>)) -> Result<usize, String> {
    let heads = heads(text).map_err(|error| format!("not JSON: {error}"))?;
    let count = heads.len();
    json_documents(heads, each);
    Ok(count)
}

/// Where a JSON document lies, and its items if it is a list.
struct Located<'a> {
    text: &'a str,
    head: Head<'a>,
}

fn heads(text: &str) -> Result<Vec<Located<'_>>, serde_json::Error> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Head<'_>>();
    let mut located = Vec::new();
    loop {
        let start = stream.byte_offset();
        match stream.next() {
            None => return Ok(located),
            Some(head) => {
                let head = head?;
                located.push(Located { text: text.get(start..stream.byte_offset()).unwrap_or_default(), head });
            }
        }
    }
}

fn json_documents(located: Vec<Located<'_>>, each: &mut dyn FnMut(Item<'_>)) {
    let several = located.len() > 1;
    for (n, Located { text, head }) in located.into_iter().enumerate() {
        let place = document_place(several, n);
        let kind = if let Lax::Good(kind) = &head.kind { kind } else { "" };
        let api_version = if let Lax::Good(version) = &head.api_version { version } else { "" };
        match list_of(kind) {
            None if matches!(head.items, Items::List(_)) && !is_other_list(kind, api_version) => {
                each(unknown_list(place, kind));
            }
            None => each(Item { place, content: json_content(text) }),
            Some(item_kind) => match head.items {
                Items::List(items) => {
                    for (i, item) in items.into_iter().enumerate() {
                        let mut content = json_content(item.get());
                        inherit(&mut content, item_kind, &head.api_version);
                        each(Item { place: format!("{place}items[{i}]."), content });
                    }
                }
                Items::Missing => each(no_items(place)),
            },
        }
    }
}

fn json_content(text: &str) -> Content<'_> {
    match serde_json::from_str(text) {
        Ok(document) => content(document),
        Err(error) => Content::Unreadable {
            identity: match serde_json::from_str(text) {
                Ok(Lax::Good(identity)) => Box::new(identity),
                Ok(Lax::Absent | Lax::Bad(_)) | Err(_) => Box::default(),
            },
            why: error.to_string(),
        },
    }
}

fn content(document: Lax<Document<'_>>) -> Content<'_> {
    match document {
        Lax::Good(document) => Content::Document(Box::new(document)),
        Lax::Absent => Content::Unreadable { identity: Box::default(), why: "null where an object belongs".to_owned() },
        Lax::Bad(found) => {
            Content::Unreadable { identity: Box::default(), why: format!("{found} where an object belongs") }
        }
    }
}

fn document_place(several: bool, n: usize) -> String {
    if several { format!("documents[{n}].") } else { String::new() }
}

/// Of a list, the kind that its items need not repeat: empty for a plain `List`. Lists of other kinds hold nothing of
/// interest and count as one document.
fn list_of(kind: &str) -> Option<&'static str> {
    match kind {
        "List" => Some(""),
        "ServiceImportList" => Some("ServiceImport"),
        "EndpointSliceList" => Some("EndpointSlice"),
        _ => None,
    }
}

/// Whether a kind that is no list of ours is a list of something else, and not one of ours whose kind was damaged.
fn is_other_list(kind: &str, api_version: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    kind.ends_with("List") && kind != "List" && group != api::GROUP && group != api::SLICE_GROUP
}

/// What has items is a list, whatever it calls itself: whose objects they were, and whether they are gone, it does not say.
fn unknown_list(place: String, kind: &str) -> Item<'static> {
    let why = format!("items in an object of kind {kind:?}, which is no list");
    Item { place, content: Content::Unreadable { identity: Box::default(), why } }
}

/// The API server leaves `kind` and `apiVersion` out of the items of typed lists.
fn inherit<'a>(content: &mut Content<'a>, item_kind: &str, api_version: &Lax<std::borrow::Cow<'_, str>>) {
    let Content::Document(document) = content else { return };
    if item_kind.is_empty() {
        return;
    }
    if matches!(document.kind, Lax::Absent) {
        document.kind = Lax::Good(item_kind.to_owned().into());
    }
    if let (Lax::Absent, Lax::Good(version)) = (&document.api_version, api_version) {
        document.api_version = Lax::Good(version.clone().into_owned().into());
    }
}

/// A list that does not say that it is empty was cut off, or its author forgot something.
fn no_items(place: String) -> Item<'static> {
    let why = "a list without items: an empty one is written `items: []`".to_owned();
    Item { place, content: Content::Unreadable { identity: Box::default(), why } }
}

/// What the first pass over JSON keeps of a document.
#[derive(Default)]
struct Head<'a> {
    kind: Lax<std::borrow::Cow<'a, str>>,
    api_version: Lax<std::borrow::Cow<'a, str>>,
    items: Items<'a>,
}

#[derive(Default)]
enum Items<'a> {
    #[default]
    Missing,
    List(Vec<&'a RawValue>),
}

impl<'de> Deserialize<'de> for Head<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HeadVisitor)
    }
}

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemsVisitor)
    }
}

/// A visitor's answers for the kinds of values that it has no use for.
macro_rules! no_use_for {
    ($default:expr; $($visit:ident($type:ty)),*) => {
        $(fn $visit<E: serde::de::Error>(self, _: $type) -> Result<Self::Value, E> {
            Ok($default)
        })*

        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Ok($default)
        }
    };
}

struct HeadVisitor;

impl<'de> Visitor<'de> for HeadVisitor {
    type Value = Head<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    no_use_for!(Head::default(); visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64), visit_str(&str));

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Head<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Head::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Head<'de>, A::Error> {
        let mut head = Head::default();
        while let Some(key) = object.next_key::<Key<'de>>()? {
            match &*key.0 {
                "kind" => head.kind = object.next_value()?,
                "apiVersion" => head.api_version = object.next_value()?,
                "items" => head.items = object.next_value()?,
                _ => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(head)
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    no_use_for!(Items::Missing; visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64), visit_str(&str));

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Items<'de>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Items::Missing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Items::List(items))
    }
}

fn yaml(text: &str, each: &mut dyn FnMut(Item<'_>)) -> Result<usize, String> {
    // the limits of the parser that guard against aliases that blow up stay; those on plain size are ours to choose
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: None,
            max_events: usize::MAX,
            max_documents: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| format!("not YAML: {}", error.to_string().lines().next().unwrap_or_default()))?;
    let documents: Vec<&Value> = documents.iter().filter(|document| !document.is_null()).collect();
    let several = documents.len() > 1;
    for (n, document) in documents.iter().enumerate() {
        let place = document_place(several, n);
        let text = |field| document.get(field).and_then(Value::as_str);
        let kind = text("kind").unwrap_or_default();
        match (list_of(kind), document.get("items").and_then(Value::as_array)) {
            (None, Some(_)) if !is_other_list(kind, text("apiVersion").unwrap_or_default()) => {
                each(unknown_list(place, kind))
            }
            (None, _) => each(Item { place, content: yaml_content(document) }),
            (Some(_), None) => each(no_items(place)),
            (Some(item_kind), Some(items)) => {
                let version = text("apiVersion").map_or(Lax::Absent, |version| Lax::Good(version.into()));
                for (i, item) in items.iter().enumerate() {
                    let mut content = yaml_content(item);
                    inherit(&mut content, item_kind, &version);
                    each(Item { place: format!("{place}items[{i}]."), content });
                }
            }
        }
    }
    Ok(documents.len())
}

fn yaml_content(value: &Value) -> Content<'_> {
    match Lax::deserialize(value) {
        Ok(document) => content(document),
        Err(error) => Content::Unreadable { identity: Box::default(), why: error.to_string() },
    }
}
