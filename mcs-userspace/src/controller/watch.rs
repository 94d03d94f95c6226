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
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};

use super::backoff::Backoff;
use super::convert::parse_version;
use super::kinds::Place;
use super::server::{REQUEST, Reach, Server, Troubles, chain};

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// How long a page may take.
const LIST: Duration = Duration::from_secs(15);

/// How long the API server is asked to keep a watch, and how much earlier than that its end is no surprise.
const WATCH: Duration = Duration::from_secs(290);
const SLACK: Duration = Duration::from_secs(5);

/// Events that are handed on together, if they are there already.
const CHUNK: usize = 512;

/// What was seen.
#[derive(Debug)]
pub(super) enum Sight {
    ListStarted,
    Applied(DynamicObject),
    /// On a live watch.
    Deleted(DynamicObject),
    /// The list is complete, and had this version.
    Listed(u64),
    Interrupted,
}

/// Who is told what a watch sees.
pub(super) trait Listener: Send {
    /// Asks what has to be known before a list, and what has to be known before deletions are believed.
    ///
    /// # Errors
    /// It could not be asked: neither is the list to be made, nor are the deletions to be believed.
    fn look_around(&mut self, reach: &Reach) -> impl Future<Output = Result<(), kube::Error>> + Send;

    /// Hears of something. False when nobody listens any more.
    fn hear(&mut self, sight: Sight) -> impl Future<Output = bool> + Send;
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
pub(super) async fn follow(
    what: String,
    place: Place,
    mut server: Server,
    mut listener: impl Listener,
    troubles: Troubles,
) {
    let mut backoff = Backoff::new();
    let mut from: Option<u64> = None;
    while let Some(reach) = server.known().await {
        let api = place.api(reach.client.clone());
        let version = match from.take() {
            Some(version) => Ok(version),
            None => list(&what, &place, &api, &reach, &mut listener, &troubles).await,
        };
        let began = Instant::now();
        let end = match version {
            Ok(version) => watch(&place, &api, &reach, version, &mut server, &mut listener).await,
            Err(end) => end,
        };
        let end = match end {
            End::Expired(version) => match newest(&api).await {
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
async fn list(
    what: &str,
    place: &Place,
    api: &Api<DynamicObject>,
    reach: &Reach,
    listener: &mut impl Listener,
    troubles: &Troubles,
) -> Result<u64, End> {
    within(REQUEST, listener.look_around(reach)).await?;
    if !listener.hear(Sight::ListStarted).await {
        return Err(End::Unheard);
    }
    let mut params = ListParams {
        label_selector: place.labels.clone(),
        field_selector: place.fields.clone(),
        limit: Some(PAGE),
        ..ListParams::default()
    };
    loop {
        let page = within(LIST, api.list(&params)).await?;
        let version = parse_version(page.metadata.resource_version.as_deref())
            .ok_or_else(|| End::Failed("a list has no resourceVersion".to_owned()))?;
        for object in page.items {
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
async fn newest(api: &Api<DynamicObject>) -> Result<u64, End> {
    let page = within(REQUEST, api.list_metadata(&ListParams::default().limit(1))).await?;
    parse_version(page.metadata.resource_version.as_deref())
        .ok_or_else(|| End::Failed("a list has no resourceVersion".to_owned()))
}

/// Hands on what happens from `version` on.
async fn watch(
    place: &Place,
    api: &Api<DynamicObject>,
    reach: &Reach,
    mut version: u64,
    server: &mut Server,
    listener: &mut impl Listener,
) -> End {
    let params = WatchParams {
        label_selector: place.labels.clone(),
        field_selector: place.fields.clone(),
        timeout: u32::try_from(WATCH.as_secs()).ok(),
        bookmarks: true,
        ..WatchParams::default()
    };
    let began = Instant::now();
    let stream = match within(REQUEST, api.watch(&params, &version.to_string())).await {
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
                    version = super::convert::version(&object).max(version);
                    Sight::Applied(object)
                }
                Ok(WatchEvent::Deleted(object)) => {
                    version = super::convert::version(&object).max(version);
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
