//! A watch that a test reads at its own pace: every change in its order, so that what should *not* happen meanwhile
//! ("the import never disappears") is seen although nobody looked at that moment.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::StreamExt as _;
use kube::Api;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::{Kind, value};

/// What became of an object.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// It is there, or is another now.
    Put(Value),
    /// It was deleted: its last state.
    Deleted(Value),
    /// All that is there was listed: after the first list, and after each that the watch needed anew.
    Listed,
}

/// A running watch. Dropping it ends it.
pub struct Follow {
    changes: Receiver<Result<Change, String>>,
    task: JoinHandle<()>,
    objects: BTreeMap<String, Value>,
    listed: bool,
    error: Option<String>,
    scope: String,
}

impl Follow {
    pub(super) fn start(runtime: &Runtime, api: Api<DynamicObject>, kind: Kind, namespace: &str) -> Self {
        let (send, changes) = channel();
        let types = kube::api::TypeMeta { api_version: kind.api_version.to_owned(), kind: kind.name.to_owned() };
        let task = runtime.spawn(async move {
            let mut stream = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
            let mut before: BTreeMap<String, Value> = BTreeMap::new();
            let mut listing: BTreeMap<String, Value> = BTreeMap::new();
            while let Some(event) = stream.next().await {
                let typed = |mut object: DynamicObject| {
                    object.types = Some(types.clone());
                    value(object).unwrap_or_default()
                };
                let changes = match event {
                    Ok(Event::Init) => {
                        listing.clear();
                        Vec::new()
                    }
                    Ok(Event::InitApply(object)) => {
                        let object = typed(object);
                        listing.insert(key(&object), object);
                        Vec::new()
                    }
                    // What a list lacks was deleted while nobody watched.
                    Ok(Event::InitDone) => {
                        let old = std::mem::replace(&mut before, std::mem::take(&mut listing));
                        let gone = old.into_iter().filter(|(key, _)| !before.contains_key(key));
                        let mut changes: Vec<_> = gone.map(|(_, object)| Ok(Change::Deleted(object))).collect();
                        changes.extend(before.values().cloned().map(Change::Put).map(Ok));
                        changes.push(Ok(Change::Listed));
                        changes
                    }
                    Ok(Event::Apply(object)) => {
                        let object = typed(object);
                        before.insert(key(&object), object.clone());
                        vec![Ok(Change::Put(object))]
                    }
                    Ok(Event::Delete(object)) => {
                        let object = typed(object);
                        before.remove(&key(&object));
                        vec![Ok(Change::Deleted(object))]
                    }
                    Err(error) => vec![Err(error.to_string())],
                };
                for change in changes {
                    // Nobody reads any more: the test is over.
                    if send.send(change).is_err() {
                        return;
                    }
                }
            }
        });
        let scope = format!("{kind} in {namespace:?}");
        Self { changes, task, objects: BTreeMap::new(), listed: false, error: None, scope }
    }

    /// The next change, or none within a time.
    pub fn next(&mut self, limit: Duration) -> Option<Change> {
        let end = Instant::now() + limit;
        loop {
            match self.changes.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Ok(change)) => {
                    self.take(&change);
                    return Some(change);
                }
                Ok(Err(error)) => self.error = Some(error),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// What is there now, as far as changes were read.
    pub fn objects(&self) -> impl Iterator<Item = &Value> {
        self.objects.values()
    }

    /// Reads changes until the objects, all listed, are as they should be.
    pub fn until(
        &mut self,
        limit: Duration,
        what: &str,
        mut done: impl FnMut(&[&Value]) -> bool,
    ) -> Result<Vec<Value>> {
        let end = Instant::now() + limit;
        loop {
            if self.listed && done(&self.objects().collect::<Vec<_>>()) {
                return Ok(self.objects().cloned().collect());
            }
            if self.next(end.saturating_duration_since(Instant::now())).is_none() {
                bail!("{what}: not so in {limit:?}: {}", self.describe());
            }
        }
    }

    /// Reads changes for a time, all of which must be as they should be.
    pub fn always(
        &mut self,
        time: Duration,
        what: &str,
        mut holds: impl FnMut(&[&Value], &Change) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + time;
        while let Some(change) = self.next(end.saturating_duration_since(Instant::now())) {
            if !holds(&self.objects().collect::<Vec<_>>(), &change) {
                bail!("{what}: no more, after {change:?}: {}", self.describe());
            }
        }
        Ok(())
    }

    /// Every change that has come and was not read.
    pub fn drain(&mut self) -> Vec<Change> {
        std::iter::from_fn(|| self.next(Duration::ZERO)).collect()
    }

    fn take(&mut self, change: &Change) {
        match change {
            Change::Put(object) => drop(self.objects.insert(key(object), object.clone())),
            Change::Deleted(object) => drop(self.objects.remove(&key(object))),
            Change::Listed => self.listed = true,
        }
    }

    fn describe(&self) -> String {
        let shown = |object: &Value| {
            let mut object = object.clone();
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            serde_json::to_string_pretty(&object).unwrap_or_default()
        };
        let objects: Vec<String> = self.objects().take(8).map(shown).collect();
        let (scope, count, error) = (&self.scope, self.objects.len(), self.error.as_deref().unwrap_or("none"));
        format!("{count} of {scope}, last error of the watch: {error}: {}", objects.join("\n"))
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn key(object: &Value) -> String {
    let metadata = &object["metadata"];
    format!("{}/{}", metadata["namespace"].as_str().unwrap_or(""), metadata["name"].as_str().unwrap_or(""))
}
