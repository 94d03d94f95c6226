//! One resource, listed and watched for ever.
//!
//! ```text
//!  ┌─► list (pages) ──► watch from the list's version ──► the time that was asked for is over ─┐
//!  │     │ fails            │ broke, ended early, version too old, server replaced              │ version did not
//!  │     ▼                  ▼                                                                   │ go back: on
//!  └──── pause ≤ 5 s, jitter ◄──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Why not `kube_runtime::watcher`: decisions need the version of a list as a whole and must know what was seen live. And
//! after any interruption the whole is listed again, as an API server that was restored from a backup takes a watch from
//! a version of its future and says nothing until it gets there.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::Client;
use kube::api::{DynamicObject, ListParams, Request, WatchEvent, WatchParams};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::backoff::Backoff;
use super::place::Place;
use super::server::{REQUEST, Reach, Server, chain};
use super::troubles::Troubles;

/// How long a page may take.
const LIST: Duration = Duration::from_secs(15);

/// How long the API server is asked to keep a watch, and how much earlier than that its end is no surprise.
const WATCH: Duration = Duration::from_secs(290);
const SLACK: Duration = Duration::from_secs(5);

/// Events that are handed on together, if they are there already.
const CHUNK: usize = 512;

/// An object as a watch hands it on.
pub(crate) trait Watched: Clone + DeserializeOwned + Send + 'static {
    /// Objects in one page of a list.
    const PAGE: u32 = 500;

    /// `metadata.resourceVersion`, 0 if it is no number.
    fn version(&self) -> u64;
}

impl Watched for DynamicObject {
    fn version(&self) -> u64 {
        parse_version(self.metadata.resource_version.as_deref()).unwrap_or_default()
    }
}

/// A resourceVersion as the number that it is by the API's rules since Kubernetes 1.35, and always was where etcd is the
/// store.
pub(crate) fn parse_version(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}

/// What was seen.
#[derive(Debug)]
pub(crate) enum Sight<K> {
    ListStarted,
    Applied(K),
    /// On a live watch.
    Deleted(K),
    /// The list is complete, and had this version.
    Listed(u64),
    Interrupted,
}

/// Who is told what a watch sees.
pub(crate) trait Listener<K>: Send {
    /// Asks what has to be known before a list, and what has to be known before deletions are believed.
    ///
    /// # Errors
    /// It could not be asked: neither is the list to be made, nor are the deletions to be believed.
    fn look_around(&mut self, reach: &Reach) -> impl Future<Output = Result<(), kube::Error>> + Send;

    /// Hears of something. False when nobody listens any more.
    fn hear(&mut self, sight: Sight<K>) -> impl Future<Output = bool> + Send;
}

/// A page of a list. `kube`'s own type reads each page twice over, and cannot hand on an object's text.
#[derive(Deserialize)]
#[serde(bound = "K: DeserializeOwned")]
struct Page<K> {
    #[serde(default)]
    metadata: ListMeta,
    /// `null` where there are none, of an API server that is written in Go.
    #[serde(default)]
    items: Option<Vec<K>>,
}

/// Why a watch, or what should have become one, is over.
enum End {
    /// Nobody listens.
    Unheard,
    /// Its time is over, at this version.
    Expired(u64),
    /// The version is too old, the server was replaced: list at once.
    Stale,
    /// It failed.
    Failed(String),
}

impl From<kube::Error> for End {
    fn from(error: kube::Error) -> Self {
        if let kube::Error::Api(status) = error {
            return match status.code {
                410 => Self::Stale,
                404 => Self::Failed("there is no such resource: its CustomResourceDefinition is missing".to_owned()),
                code => Self::Failed(format!("{code} {}", status.message)),
            };
        }
        Self::Failed(chain(&error))
    }
}

/// Follows everything at `place` until nobody listens.
pub(crate) async fn follow<K: Watched>(
    what: String,
    place: Place,
    mut server: Server,
    mut listener: impl Listener<K>,
    troubles: Troubles,
) {
    let mut backoff = Backoff::new();
    let mut from: Option<u64> = None;
    while let Some(reach) = server.known().await {
        let version = match from.take() {
            Some(version) => Ok(version),
            None => list(&what, &place, &reach, &mut listener, &troubles).await,
        };
        let began = Instant::now();
        let end = match version {
            Ok(version) => watch(&place, &reach, version, &mut server, &mut listener).await,
            Err(end) => end,
        };
        let end = match end {
            End::Expired(version) => match newest(&place, &reach.client).await {
                Ok(newest) if newest >= version => {
                    from = Some(version);
                    continue;
                }
                Ok(_went_back) => End::Stale,
                Err(end) => end,
            },
            other @ (End::Unheard | End::Stale | End::Failed(_)) => other,
        };
        if began.elapsed() > super::backoff::MOST {
            backoff.reset();
        }
        match end {
            End::Unheard => return,
            End::Stale | End::Expired(_) => {}
            End::Failed(why) => troubles.report(&what, &why),
        }
        if !listener.hear(Sight::Interrupted).await {
            return;
        }
        // A server that is replaced meanwhile is tried at once.
        tokio::select! {
            () = tokio::time::sleep(backoff.pause()) => {}
            () = server.left(reach.epoch) => {}
        }
    }
}

/// Lists everything, page by page; the version of the list.
async fn list<K: Watched>(
    what: &str,
    place: &Place,
    reach: &Reach,
    listener: &mut impl Listener<K>,
    troubles: &Troubles,
) -> Result<u64, End> {
    within(REQUEST, listener.look_around(reach)).await?;
    if !listener.hear(Sight::ListStarted).await {
        return Err(End::Unheard);
    }
    let mut params = ListParams {
        label_selector: place.labels.clone(),
        field_selector: place.fields.clone(),
        limit: Some(K::PAGE),
        ..ListParams::default()
    };
    loop {
        let request = Request::new(place.path()).list(&params).map_err(kube::Error::BuildRequest)?;
        let page: Page<K> = within(LIST, reach.client.request(request)).await?;
        let version = parse_version(page.metadata.resource_version.as_deref())
            .ok_or_else(|| End::Failed("a list has no resourceVersion".to_owned()))?;
        for object in page.items.unwrap_or_default() {
            if !listener.hear(Sight::Applied(object)).await {
                return Err(End::Unheard);
            }
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            troubles.clear(what);
            return if listener.hear(Sight::Listed(version)).await { Ok(version) } else { Err(End::Unheard) };
        }
    }
}

/// The version of everything now.
async fn newest(place: &Place, client: &Client) -> Result<u64, End> {
    let params = ListParams { field_selector: place.fields.clone(), ..ListParams::default().limit(1) };
    let request = Request::new(place.path()).list_metadata(&params).map_err(kube::Error::BuildRequest)?;
    let page: Page<IgnoredAny> = within(REQUEST, client.request(request)).await?;
    parse_version(page.metadata.resource_version.as_deref())
        .ok_or_else(|| End::Failed("a list has no resourceVersion".to_owned()))
}

/// Hands on what happens from `version` on.
async fn watch<K: Watched>(
    place: &Place,
    reach: &Reach,
    mut version: u64,
    server: &mut Server,
    listener: &mut impl Listener<K>,
) -> End {
    let params = WatchParams {
        label_selector: place.labels.clone(),
        field_selector: place.fields.clone(),
        timeout: u32::try_from(WATCH.as_secs()).ok(),
        bookmarks: true,
        ..WatchParams::default()
    };
    let began = Instant::now();
    let request = match Request::new(place.path()).watch(&params, &version.to_string()) {
        Ok(request) => request,
        Err(error) => return kube::Error::BuildRequest(error).into(),
    };
    let stream = match within(REQUEST, reach.client.request_events::<K>(request)).await {
        Ok(stream) => stream,
        Err(end) => return end,
    };
    let mut chunks = pin!(stream.ready_chunks(CHUNK));
    loop {
        let chunk = tokio::select! {
            chunk = chunks.next() => chunk,
            () = server.left(reach.epoch) => return End::Stale,
            () = tokio::time::sleep(WATCH + REQUEST) => return End::Failed("silent for minutes".to_owned()),
        };
        let Some(chunk) = chunk else {
            return if began.elapsed() + SLACK >= WATCH {
                End::Expired(version)
            } else {
                End::Failed("the API server ended the watch".to_owned())
            };
        };
        let deletes = chunk.iter().any(|event| matches!(event, Ok(WatchEvent::Deleted(_))));
        if deletes && let Err(end) = within(REQUEST, listener.look_around(reach)).await {
            return end;
        }
        for event in chunk {
            let sight = match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    version = object.version().max(version);
                    Sight::Applied(object)
                }
                Ok(WatchEvent::Deleted(object)) => {
                    version = object.version().max(version);
                    Sight::Deleted(object)
                }
                Ok(WatchEvent::Bookmark(bookmark)) => {
                    version = parse_version(Some(&bookmark.metadata.resource_version)).unwrap_or(version);
                    continue;
                }
                Ok(WatchEvent::Error(status)) => return kube::Error::Api(status).into(),
                Err(error) => return error.into(),
            };
            if !listener.hear(sight).await {
                return End::Unheard;
            }
        }
    }
}

/// The outcome of a request, or that there was none in time.
async fn within<T>(time: Duration, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, End> {
    match tokio::time::timeout(time, request).await {
        Ok(outcome) => Ok(outcome?),
        Err(_elapsed) => Err(End::Failed(format!("no answer within {} s", time.as_secs()))),
    }
}
