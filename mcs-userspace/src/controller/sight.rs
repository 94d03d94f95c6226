//! From what watches see to what decisions hear.
//!
//! A CustomResourceDefinition that is deleted takes its objects along, and each is seen deleted on a live watch. So
//! before deletions of such objects are passed on, and before each of their lists, the definition is looked at, and so
//! is the identity of the whole cluster.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject};
use tokio::sync::{Mutex, mpsc};
use tracing::warn;

use super::convert;
use crate::apiserver::{Listener, Place, Reach, Sight, parse_version};
use crate::clusterset::event::{CrdState, Event, Kind, Object};
use crate::clusterset::service::ChangedAt;

/// An event, with the version of the object that it is about (0 where that does not matter).
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) event: Event,
    pub(super) version: u64,
}

impl From<Event> for Heard {
    fn from(event: Event) -> Self {
        Self { event, version: 0 }
    }
}

/// Where everything that is heard goes.
pub(super) type Events = mpsc::Sender<Heard>;

/// Passes on what the watch of a [`Kind`] sees.
pub(super) struct KindListener {
    pub(super) kind: Kind,
    pub(super) events: Events,
    /// What guards the kind's objects, if something does.
    pub(super) crd: Option<Arc<CrdWitness>>,
    /// Whether a list is under way: what it shows is not new.
    pub(super) listing: bool,
}

impl KindListener {
    async fn send(&self, event: Event, version: u64) -> bool {
        self.events.send(Heard { event, version }).await.is_ok()
    }
}

impl Listener<DynamicObject> for KindListener {
    async fn look_around(&mut self, reach: &Reach) -> Result<(), kube::Error> {
        match &self.crd {
            Some(crd) => crd.look(reach).await?,
            // Their absence is an export's or its endpoints': it counts only in the cluster that had them.
            None if matches!(self.kind, Kind::Services | Kind::SourceSlices) => {}
            None => return Ok(()),
        }
        let namespaces: Api<Namespace> = Api::all(reach.client.clone());
        let uid = namespaces.get_metadata("kube-system").await?.metadata.uid.unwrap_or_default();
        self.send(Event::ClusterUid(uid), 0).await;
        Ok(())
    }

    async fn hear(&mut self, sight: Sight<DynamicObject>) -> bool {
        let kind = self.kind;
        match &sight {
            Sight::ListStarted => self.listing = true,
            Sight::Listed(_) | Sight::Interrupted => self.listing = false,
            Sight::Applied(_) | Sight::Deleted(_) => {}
        }
        match sight {
            Sight::ListStarted => self.send(Event::ListStarted(kind), 0).await,
            Sight::Listed(version) => self.send(Event::Listed(kind, version), version).await,
            Sight::Interrupted => self.send(Event::Interrupted(kind), 0).await,
            Sight::Applied(object) => {
                let (key, version) = (convert::key(&object), convert::version(&object));
                let Some(mut object) = convert::read(kind, object) else {
                    // What was ours to look at and is no more is as good as deleted.
                    return kind != Kind::SourceSlices || self.send(Event::Deleted(kind, key), version).await;
                };
                if let (Object::SourceSlice(slice), false) = (&mut object, self.listing) {
                    slice.endpoints.changed_at = ChangedAt(Some(Timestamp::now().as_millisecond()));
                }
                if let Object::Unreadable { reason } = &object {
                    warn!("{kind:?} {key}: {reason}");
                }
                self.send(Event::Applied(kind, key, Box::new(object)), version).await
            }
            Sight::Deleted(object) => {
                let (key, version) = (convert::key(&object), convert::version(&object));
                if convert::read(kind, object).is_none() {
                    return true;
                }
                self.send(Event::Deleted(kind, key), version).await
            }
        }
    }
}

/// What is known of a CustomResourceDefinition. Asked for and watched at the same time: what is older than what is known
/// is not passed on.
pub(super) struct CrdWitness {
    kind: Kind,
    name: String,
    events: Events,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    version: u64,
    state: Option<CrdState>,
}

impl CrdWitness {
    pub(super) fn new(kind: Kind, name: String, events: Events) -> Arc<Self> {
        Arc::new(Self { kind, name, events, known: Mutex::default() })
    }

    /// Where the definition is, and only it.
    pub(super) fn place(&self) -> Place {
        Place::one(ApiResource::erase::<CustomResourceDefinition>(&()), None, &self.name)
    }

    /// Asks for it.
    async fn look(&self, reach: &Reach) -> Result<(), kube::Error> {
        // Whoever looks waits for whoever is looking: two answers cannot overtake each other.
        let mut known = self.known.lock().await;
        let api = self.place().api(reach.client.clone());
        match api.get_metadata_opt(&self.name).await? {
            Some(found) => {
                let version = parse_version(found.metadata.resource_version.as_deref()).unwrap_or_default();
                let terminating = found.metadata.deletion_timestamp.is_some();
                // An API server that went back in time is believed too: what it has now is what counts.
                known.version = version;
                known.state = Some(state(found.metadata.uid, terminating));
            }
            None => known.state = Some(CrdState::Gone),
        }
        // Even if it is as it was: a list follows, and is to be preceded by it.
        if let Some(state) = known.state.clone() {
            self.tell(state).await;
        }
        Ok(())
    }

    /// Hears of it, as of `version`.
    async fn saw(&self, version: u64, state: CrdState) -> bool {
        let mut known = self.known.lock().await;
        if version <= known.version {
            return !self.events.is_closed();
        }
        known.version = version;
        if known.state.as_ref() == Some(&state) {
            return !self.events.is_closed();
        }
        known.state = Some(state.clone());
        self.tell(state).await
    }

    async fn tell(&self, state: CrdState) -> bool {
        self.events.send(Event::Crd(self.kind, state).into()).await.is_ok()
    }
}

fn state(uid: Option<String>, terminating: bool) -> CrdState {
    if terminating { CrdState::Gone } else { CrdState::Present(uid.unwrap_or_default()) }
}

/// Passes on what the watch of a definition sees.
pub(super) struct CrdListener(pub(super) Arc<CrdWitness>);

impl Listener<DynamicObject> for CrdListener {
    async fn look_around(&mut self, reach: &Reach) -> Result<(), kube::Error> {
        self.0.look(reach).await
    }

    async fn hear(&mut self, sight: Sight<DynamicObject>) -> bool {
        match sight {
            Sight::Applied(object) => {
                let terminating = object.metadata.deletion_timestamp.is_some();
                self.0.saw(convert::version(&object), state(object.metadata.uid, terminating)).await
            }
            Sight::Deleted(object) => self.0.saw(convert::version(&object), CrdState::Gone).await,
            // The list's own word on absence is `look_around`.
            Sight::ListStarted | Sight::Listed(_) | Sight::Interrupted => !self.0.events.is_closed(),
        }
    }
}

/// Passes on, without conversion, what the watch of one object sees.
pub(super) struct ObjectListener(pub(super) mpsc::Sender<Option<DynamicObject>>);

impl Listener<DynamicObject> for ObjectListener {
    async fn look_around(&mut self, _reach: &Reach) -> Result<(), kube::Error> {
        Ok(())
    }

    async fn hear(&mut self, sight: Sight<DynamicObject>) -> bool {
        match sight {
            Sight::Applied(object) => self.0.send(Some(object)).await.is_ok(),
            Sight::Deleted(_) => self.0.send(None).await.is_ok(),
            Sight::ListStarted | Sight::Listed(_) | Sight::Interrupted => !self.0.is_closed(),
        }
    }
}
