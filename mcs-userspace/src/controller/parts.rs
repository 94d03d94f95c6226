//! The tasks around the loop: who watches, who probes, who stands for leader.

use std::sync::Arc;

use kube::Client;
use kube::api::{ApiResource, DynamicObject};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use super::broker::Credential;
use super::kinds;
use super::leader::Candidate;
use super::question::LeaseQuestion;
use super::run::FAREWELL;
use super::sight::{CrdListener, CrdWitness, Events, Heard, KindListener, ObjectListener};
use super::tenure::Tenure;
use super::{leader, state};
use crate::apiserver::{Backoff, Place, REQUEST, Server, Troubles, chain, follow, probe, server};
use crate::broker::credentials;
use crate::clusterset::event::{Event, Kind};
use crate::clusterset::local::SYSTEM_NAMESPACE;
use crate::clusterset::record;

/// Events that wait for the loop before watches wait.
const QUEUE: usize = 4096;

/// The tasks, and what they tell.
pub(super) struct Parts {
    pub(super) events: mpsc::Receiver<Heard>,
    pub(super) config_maps: mpsc::Receiver<Option<DynamicObject>>,
    pub(super) leads: watch::Receiver<bool>,
    pub(super) member: Server,
    pub(super) broker: Server,
    pub(super) tenure: Tenure,
    pub(super) troubles: Troubles,
    stop: oneshot::Sender<()>,
    candidate: JoinHandle<()>,
}

impl Parts {
    /// Starts them all.
    pub(super) fn start(client: Client, identity: &str) -> Self {
        let troubles = Troubles::default();
        let tenure = Tenure::none();
        let (member_connector, member) = server("member");
        let (broker_connector, broker) = server("broker");
        let (member_connector, broker_connector) = (Arc::new(member_connector), Arc::new(broker_connector));
        member_connector.connect(client, "", false);
        let question = LeaseQuestion { server: "member", lease: leader::LEASE };
        spawn(probe(member_connector, member.clone(), question, troubles.clone()));
        let question = LeaseQuestion { server: "broker", lease: record::LEASE };
        spawn(probe(Arc::clone(&broker_connector), broker.clone(), question, troubles.clone()));

        let (sender, secrets) = mpsc::channel(1);
        watch_object::<k8s_openapi::api::core::v1::Secret>(credentials::SECRET, &member, sender, &troubles);
        let (sender, config_maps) = mpsc::channel(1);
        watch_object::<k8s_openapi::api::core::v1::ConfigMap>(credentials::CONFIG_MAP, &member, sender, &troubles);
        let credential = Credential {
            connector: broker_connector,
            member: member.clone(),
            broker: broker.clone(),
            tenure: tenure.clone(),
            troubles: troubles.clone(),
            secrets,
        };
        spawn(credential.run());

        let (sender, events) = mpsc::channel(QUEUE);
        for kind in Kind::LOCAL {
            watch_kind(kind, &member, &sender, &troubles);
        }
        spawn(watch_broker(member.clone(), broker.clone(), sender, troubles.clone()));

        let (stop, stopped) = oneshot::channel();
        let (leads_sender, leads) = watch::channel(false);
        let candidate = Candidate {
            identity: identity.to_owned(),
            member: member.clone(),
            tenure: tenure.clone(),
            leads: leads_sender,
            troubles: troubles.clone(),
        };
        let candidate = tokio::spawn(candidate.run(stopped));
        Self { events, config_maps, leads, member, broker, tenure, troubles, stop, candidate }
    }

    /// Lets another one lead at once.
    pub(super) async fn stop(self) {
        let _it_ended_by_itself = self.stop.send(());
        if tokio::time::timeout(FAREWELL, self.candidate).await.is_err() {
            warn!("the Lease is not released: the API server does not answer");
        }
    }
}

/// Lets a task run until the process ends.
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

/// Watches one object of the system namespace.
fn watch_object<K: kube::Resource<DynamicType = ()>>(
    name: &str,
    member: &Server,
    sender: mpsc::Sender<Option<DynamicObject>>,
    troubles: &Troubles,
) {
    let place = Place::one(ApiResource::erase::<K>(&()), Some(SYSTEM_NAMESPACE), name);
    let what = format!("watch of {} {SYSTEM_NAMESPACE}/{name}", place.resource.kind);
    spawn(follow(what, place, member.clone(), ObjectListener(sender), troubles.clone()));
}

/// Watches all objects of a kind, and the definition that guards them.
fn watch_kind(kind: Kind, server: &Server, events: &Events, troubles: &Troubles) {
    let crd = kinds::guarding_crd(kind).map(|name| {
        let what = format!("watch of {name} at the {}", server.name);
        let witness = CrdWitness::new(kind, name, events.clone());
        let listener = CrdListener(Arc::clone(&witness));
        spawn(follow(what, witness.place(), server.clone(), listener, troubles.clone()));
        witness
    });
    let place = kinds::place(kind);
    let what = format!("watch of {} ({kind:?}) at the {}", place.resource.plural, server.name);
    let listener = KindListener { kind, events: events.clone(), crd, listing: false };
    spawn(follow(what, place, server.clone(), listener, troubles.clone()));
}

/// Watches what is at the broker, once it is known who was dead.
async fn watch_broker(member: Server, broker: Server, events: Events, troubles: Troubles) {
    const WHAT: &str = "remembered members";
    let mut backoff = Backoff::new();
    while let Some(reach) = member.now() {
        let why = match tokio::time::timeout(REQUEST, state::remembered(&reach.client)).await {
            Ok(Ok(dead)) => {
                troubles.clear(WHAT);
                if events.send(Event::Remembered(dead).into()).await.is_err() {
                    return;
                }
                break;
            }
            Ok(Err(error)) => chain(&error),
            Err(_elapsed) => format!("no answer within {} s", REQUEST.as_secs()),
        };
        troubles.report(WHAT, &why);
        tokio::time::sleep(backoff.pause()).await;
    }
    for kind in Kind::BROKER {
        watch_kind(kind, &broker, &events, &troubles);
    }
}
