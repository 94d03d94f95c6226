//! Text to objects, and what is wrong with it.
//!
//! A file holds JSON or YAML: one object, several documents, or lists of them. What is wrong costs as little as can be:
//! a port, an endpoint, an object. Only text that cannot be taken apart at all is refused as a whole.
//!
//! ```text
//!  text ──► documents ──► items of lists ──► lax::Lax fields ──► import, slice: checked parts ──► model::Object
//!  parse    documents                        shapes                      report: Problems
//! ```
//!
//! An object of which nothing usable is left (no address of those listed, no port, no endpoint) is invalid as a whole.
//! Whoever has an earlier form of it keeps that: a mistake must not read like a deletion. For the same reason
//! [`Parsed::unidentified`] tells that something was there of which not even the name could be read.

mod documents;
pub(crate) mod field;
mod import;
mod interner;
mod lax;
mod report;
mod shapes;
mod slice;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use k8s_openapi::jiff::Timestamp;

pub use self::documents::Format;
use self::documents::Item;
pub use self::interner::Interner;
use self::lax::Lax;
pub(crate) use self::lax::quoted;
use self::report::Report;
use self::shapes::{Document, Identity, Metadata};
use crate::api;
use crate::model::{Object, ObjectId, ObjectKey};
use crate::problem::{Problem, Severity};

/// What a file gives.
#[derive(Default, Debug)]
pub struct Parsed {
    /// The valid objects, each once.
    pub objects: Vec<Object>,
    /// Objects that are there and invalid as a whole.
    pub broken: Vec<ObjectId>,
    /// Valid objects that mean nothing to anybody here: slices of local services.
    pub idle: Vec<ObjectId>,
    /// Something was there that may be a ServiceImport or EndpointSlice, and its name could not be read. So it cannot
    /// be told that any object is *not* in the file.
    pub unidentified: bool,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// How many there were of what.
    pub counts: Counts,
    /// The last [`api::CHANGED_AT`] that was read, Unix milliseconds.
    pub changed_at: Option<i64>,
}

/// Documents and items by kind, valid or not.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// ServiceImports.
    pub imports: usize,
    /// EndpointSlices, those of local services among them.
    pub slices: usize,
    /// Everything else.
    pub other: usize,
}

/// What became of a document.
enum Verdict {
    /// A valid object.
    Object(Object),
    /// Valid, and nothing to anybody here: a local service's slice.
    Idle,
    /// Invalid as a whole, as reported.
    Broken,
}

/// Reads a file's text. `file` names it in problems, and its ending tells the format.
///
/// # Errors
/// The text cannot be taken apart, or there is no document in it: it is half-written or damaged, and says nothing about
/// what it once held.
pub fn parse(file: &str, text: &[u8], names: &mut Interner) -> Result<Parsed, Problem> {
    // JSON says itself where it ends
    let is_unfinished = Format::of(file) == Format::Yaml && !(text.ends_with(b"\n") || text.ends_with(b"}"));
    let mut reader =
        Reader { file, names, is_unfinished, is_served: false, seen: HashSet::new(), parsed: Parsed::default() };
    match documents::each(Format::of(file), text, &mut |item| reader.item(item)) {
        Ok(()) => Ok(reader.parsed),
        Err(why) => Err(Problem {
            object: file.to_owned(),
            file: Some(file.to_owned()),
            field: String::new(),
            reason: why,
            severity: Severity::Invalid,
        }),
    }
}

/// Kinds of objects that are read from an API server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Served {
    /// ServiceImports.
    Imports,
    /// EndpointSlices.
    Slices,
}

/// Reads one object's JSON as an API server gave it, in the version of its group that it was asked for.
pub fn parse_served(served: Served, version: &str, text: &str, names: &mut Interner) -> Parsed {
    let (kind, group) = match served {
        Served::Imports => ("ServiceImport", api::GROUP),
        Served::Slices => ("EndpointSlice", api::SLICE_GROUP),
    };
    let mut reader = Reader {
        file: "",
        names,
        is_unfinished: false,
        is_served: true,
        seen: HashSet::new(),
        parsed: Parsed::default(),
    };
    reader.item(documents::served(kind, &format!("{group}/{version}"), text));
    reader.parsed
}

/// When what an object says became so at its source, Unix milliseconds: [`api::CHANGED_AT`], if it is there and readable.
fn changed_at(document: &Document<'_>) -> Option<i64> {
    let Lax::Good(Metadata { annotations: Lax::Good(annotations), .. }) = &document.metadata else { return None };
    let Lax::Good(text) = &annotations.changed_at else { return None };
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

struct Reader<'a> {
    file: &'a str,
    names: &'a mut Interner,
    /// Whether the last line has no end.
    is_unfinished: bool,
    /// Whether an API server has it, where some controller wrote it, and not a person.
    is_served: bool,
    seen: HashSet<ObjectId>,
    parsed: Parsed,
}

/// What is read may be called.
const KINDS: [&str; 3] = ["List", "ServiceImportList", "EndpointSliceList"];

/// The kinds of objects that are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Import,
    Slice,
}

impl Reader<'_> {
    fn item(&mut self, item: Item<'_>) {
        let Item { place, content } = item;
        match content {
            documents::Content::Document(document) => self.document(&place, &document),
            documents::Content::Unreadable { identity, why } => self.unreadable(&place, &identity, &why),
        }
    }

    fn document(&mut self, place: &str, document: &Document<'_>) {
        let Some(kind) = self.kind(place, &document.api_version, &document.kind) else { return };
        let Some(id) = self.identity(place, kind, &document.metadata) else { return };
        let (ObjectId::Import(key) | ObjectId::Slice(key)) = &id;
        let mut report = Report::new(id.to_string(), self.file, &mut self.parsed.problems);
        if !self.seen.insert(id.clone()) {
            report.invalid("", format_args!("a second time in one file{}: only the first is used", at(place)));
            return;
        }
        let verdict = if !version_is_known(kind, &document.api_version, &mut report) {
            Verdict::Broken
        } else {
            match kind {
                Kind::Import => import::read(document, key.clone(), &mut report, self.names),
                Kind::Slice => slice::read(document, key.clone(), self.is_served, &mut report, self.names),
            }
        };
        drop(report);
        self.parsed.changed_at = changed_at(document).or(self.parsed.changed_at);
        match verdict {
            Verdict::Object(object) => self.parsed.objects.push(object),
            Verdict::Idle => self.parsed.idle.push(id),
            Verdict::Broken => self.parsed.broken.push(id),
        }
    }

    /// A document that is well-formed as text only: a number beyond all types, half of a surrogate pair.
    fn unreadable(&mut self, place: &str, identity: &Identity<'_>, why: &str) {
        if matches!(identity.kind, Lax::Absent) {
            Report::new(self.file.to_owned(), self.file, &mut self.parsed.problems)
                .invalid(place.trim_end_matches('.'), why);
            self.parsed.unidentified = true;
            return;
        }
        let Some(kind) = self.kind(place, &identity.api_version, &identity.kind) else { return };
        let Some(id) = self.identity(place, kind, &identity.metadata) else { return };
        Report::new(id.to_string(), self.file, &mut self.parsed.problems).invalid("", why);
        if self.seen.insert(id.clone()) {
            self.parsed.broken.push(id);
        }
    }

    /// Which of our kinds it is, if it is one.
    fn kind(
        &mut self,
        place: &str,
        api_version: &Lax<std::borrow::Cow<'_, str>>,
        kind: &Lax<std::borrow::Cow<'_, str>>,
    ) -> Option<Kind> {
        let (Lax::Good(version), Lax::Good(kind)) = (api_version, kind) else {
            let mut report = Report::new(self.file.to_owned(), self.file, &mut self.parsed.problems);
            // reports whichever of them is wrong
            let _kind = report.required(kind, format_args!("{place}kind"));
            let _version = report.required(api_version, format_args!("{place}apiVersion"));
            self.parsed.unidentified = true;
            return None;
        };
        let group = version.split_once('/').map_or("", |(group, _)| group);
        match (group, &**kind) {
            (api::GROUP, "ServiceImport") => {
                self.parsed.counts.imports += 1;
                Some(Kind::Import)
            }
            (api::SLICE_GROUP, "EndpointSlice") => {
                self.parsed.counts.slices += 1;
                Some(Kind::Slice)
            }
            (_, "ServiceImport" | "EndpointSlice") => {
                self.parsed.counts.other += 1;
                let why = format_args!(
                    "{} {kind} is not read: its group is not {} or {}",
                    quoted(version),
                    api::GROUP,
                    api::SLICE_GROUP
                );
                Report::new(self.file.to_owned(), self.file, &mut self.parsed.problems)
                    .notice(format_args!("{place}apiVersion"), why);
                // a slip of the pen in an object that is in use must not end its use
                self.parsed.unidentified = true;
                None
            }
            (_, other) => {
                self.parsed.counts.other += 1;
                // YAML may be valid when it is cut off, and where keys are sorted the kind is what is cut
                self.parsed.unidentified |= self.is_unfinished && KINDS.iter().any(|kind| kind.starts_with(other));
                None
            }
        }
    }

    /// The object's kind, namespace and name.
    fn identity(&mut self, place: &str, kind: Kind, metadata: &Lax<Metadata<'_>>) -> Option<ObjectId> {
        let mut report = Report::new(self.file.to_owned(), self.file, &mut self.parsed.problems);
        let key = (|| {
            let metadata = report.required(metadata, format_args!("{place}metadata"))?;
            let field = format_args!("{place}metadata.name");
            let name = report.required(&metadata.name, field)?;
            let check = match kind {
                Kind::Import => field::dns_label(name),
                Kind::Slice => field::dns_name(name),
            };
            check.map_err(|why| report.invalid(field, why)).ok()?;
            let field = format_args!("{place}metadata.namespace");
            let namespace = match report.optional(&metadata.namespace, field).ok()? {
                Some(namespace) if !namespace.is_empty() => &**namespace,
                Some(_) | None => "default",
            };
            field::dns_label(namespace).map_err(|why| report.invalid(field, why)).ok()?;
            Some(ObjectKey { namespace: self.names.get(namespace), name: self.names.get(name) })
        })();
        drop(report);
        let Some(key) = key else {
            self.parsed.unidentified = true;
            return None;
        };
        Some(match kind {
            Kind::Import => ObjectId::Import(key),
            Kind::Slice => ObjectId::Slice(key),
        })
    }
}

fn version_is_known(kind: Kind, api_version: &Lax<std::borrow::Cow<'_, str>>, report: &mut Report<'_>) -> bool {
    let Lax::Good(api_version) = api_version else { return false };
    let version = api_version.split_once('/').map_or("", |(_, version)| version);
    let known: &[&str] = match kind {
        Kind::Import => &api::IMPORT_VERSIONS,
        Kind::Slice => &[api::SLICE_VERSION],
    };
    let is_known = known.contains(&version);
    if !is_known {
        report.invalid(
            "apiVersion",
            format_args!("version {} is not known, only {}", quoted(version), known.join(" and ")),
        );
    }
    is_known
}

/// `metadata.creationTimestamp` in Unix seconds.
fn created(metadata: &Metadata<'_>, report: &mut Report<'_>) -> Option<i64> {
    const FIELD: &str = "metadata.creationTimestamp";
    let text = report.optional(&metadata.created, FIELD).ok()??;
    match text.parse::<Timestamp>() {
        Ok(time) => Some(time.as_second()),
        Err(_not_a_time) => {
            report
                .invalid(FIELD, format_args!("{} is no RFC 3339 time: the object counts as the newest", quoted(text)));
            None
        }
    }
}

/// Where a document is, for the middle of a sentence.
fn at(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!(" ({})", place.trim_end_matches('.')) }
}
