//! Event objects: what users see in `kubectl describe` and `kubectl events`.
//!
//! The same word about the same object is one Event with a count, not many (`events.k8s.io/v1`, `series`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::Mutex;

use super::kinds;
use crate::api::v1beta1::ServiceImport;
use crate::apiserver::random;
use crate::clusterset::local::Regarding;

/// How long the same word is counted rather than said again. API servers keep Events for an hour.
const SERIES: Duration = Duration::from_secs(30 * 60);

/// Words that are remembered.
const MOST: usize = 4096;

/// The API's limit of a note, bytes.
const NOTE: usize = 1024;

/// The controller's name in Events.
const REPORTER: &str = "mcs-controller";

/// Something to say.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Word {
    pub(super) regarding: Regarding,
    pub(super) warning: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

/// An Event that exists.
struct Said {
    name: String,
    count: u32,
    at: Instant,
}

/// Says things, and remembers what it said.
pub(super) struct Recorder {
    instance: String,
    said: Mutex<HashMap<Word, Said>>,
}

impl Recorder {
    /// Of the process `instance`.
    pub(super) fn new(instance: &str) -> Self {
        Self { instance: instance.to_owned(), said: Mutex::default() }
    }

    /// Says `word`.
    ///
    /// # Errors
    /// The API server refused or did not answer. Nothing is remembered of the word then.
    pub(super) async fn say(&self, client: &Client, word: &Word) -> kube::Result<()> {
        let (resource, namespace, name) = reference(&word.regarding);
        // Events about objects without a namespace are in `default`, where kubectl looks for them.
        let home = if namespace.is_empty() { "default" } else { namespace };
        let events: Api<DynamicObject> = Api::namespaced_with(client.clone(), home, &ApiResource::erase::<Event>(&()));

        let known = self.known(word).await;
        if let Some((event, count)) = known {
            let series = json!({"series": {"count": count, "lastObservedTime": micros(Timestamp::now())}});
            let patched = events.patch(&event, &PatchParams::default(), &Patch::Merge(&series)).await;
            match patched {
                Ok(_) => {
                    self.remember(word, event, count).await;
                    return Ok(());
                }
                // It expired.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }

        let about: Api<DynamicObject> = match namespace {
            "" => Api::all_with(client.clone(), &resource),
            namespace => Api::namespaced_with(client.clone(), namespace, &resource),
        };
        // kubectl finds the Events of an object by its UID.
        let uid = about.get_metadata_opt(name).await?.and_then(|object| object.metadata.uid);
        let event = format!("{}.{:016x}", name.get(..200).unwrap_or(name), random());
        let body = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": event, "namespace": home},
            "eventTime": micros(Timestamp::now()),
            "type": if word.warning { "Warning" } else { "Normal" },
            "reason": word.reason,
            "action": word.reason,
            "note": note(&word.message),
            "regarding": {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "namespace": namespace,
                "name": name,
                "uid": uid,
            },
            "reportingController": REPORTER,
            "reportingInstance": self.instance,
        });
        let body = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
        events.create(&PostParams::default(), &body).await?;
        self.remember(word, event, 1).await;
        Ok(())
    }

    /// The Event that said `word` before, and how often it will have been said now.
    async fn known(&self, word: &Word) -> Option<(String, u32)> {
        let said = self.said.lock().await;
        let known = said.get(word).filter(|said| said.at.elapsed() < SERIES)?;
        Some((known.name.clone(), known.count.saturating_add(1)))
    }

    async fn remember(&self, word: &Word, name: String, count: u32) {
        let mut said = self.said.lock().await;
        if said.len() >= MOST {
            said.retain(|_, said| said.at.elapsed() < SERIES);
        }
        if said.len() < MOST {
            said.insert(word.clone(), Said { name, count, at: Instant::now() });
        }
    }
}

/// Resource, namespace and name of what is talked about.
fn reference(regarding: &Regarding) -> (ApiResource, &str, &str) {
    match regarding {
        Regarding::Export(key) => (kinds::service_exports(), &key.namespace, &key.name),
        Regarding::Import(key) => (ApiResource::erase::<ServiceImport>(&()), &key.namespace, &key.name),
        Regarding::Property(name) => (kinds::cluster_properties(), "", name),
    }
}

/// RFC 3339 with microseconds, as `MicroTime` wants it.
pub(super) fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// As much of a message as the API takes.
fn note(message: &str) -> &str {
    let mut end = message.len().min(NOTE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_microseconds() {
        assert_eq!(micros(Timestamp::from_microsecond(1_700_000_000_000_001).unwrap()), "2023-11-14T22:13:20.000001Z");
    }

    #[test]
    fn long_notes_are_cut_between_characters() {
        let long = "ü".repeat(1000);
        assert_eq!(note(&long).len(), NOTE);
        assert_eq!(note(&long[..1023 - 1]).len(), 1022);
        assert_eq!(note(&format!("x{long}")).len(), NOTE - 1);
    }
}
