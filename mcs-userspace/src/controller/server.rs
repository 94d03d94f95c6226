//! An API server as watches and writes reach it: a client that may be replaced, and a probe that tells when the server
//! went away.
//!
//! ```text
//!  kubeconfig ─────► member  ┐
//!  Secret mcs-broker ► broker┴─► Server ──► watches, writes
//!                                   ▲ epoch: what stands is to be made again
//!                    probe ─────────┘
//! ```
//!
//! A watch through a network that swallows packets looks like a quiet one. So each server is asked something every few
//! seconds; when no answer comes, its watches are given up, and try again until one is answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use kube::{Client, Config};
use tokio::sync::watch;
use tracing::{info, warn};

use super::backoff::jittered;

/// How long one request may take.
pub(super) const REQUEST: Duration = Duration::from_secs(5);

/// How often a server is asked whether it is there.
const PROBE: Duration = Duration::from_secs(5);

/// What is wrong now, by what it is wrong with. Each change is logged once; `mcs status` shows what is left.
#[derive(Clone, Debug, Default)]
pub(super) struct Troubles(Arc<Mutex<BTreeMap<String, String>>>);

impl Troubles {
    /// `what` does not work, because of `why`.
    pub(super) fn report(&self, what: &str, why: &str) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.get(what).is_none_or(|known| known != why) {
            warn!("{what}: {why}");
            troubles.insert(what.to_owned(), why.to_owned());
        }
    }

    /// `what` works.
    pub(super) fn clear(&self, what: &str) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(what).is_some() {
            info!("{what}: works again");
        }
    }

    /// All that is wrong now.
    pub(super) fn all(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How a server is reached now.
#[derive(Clone)]
pub(super) struct Reach {
    pub(super) client: Client,
    /// Who we are there: the member's namespace at the broker; empty at the member.
    pub(super) namespace: Arc<str>,
    /// Changes when what stands is to be made again.
    pub(super) epoch: u64,
}

/// A server that may not be known yet.
#[derive(Clone)]
pub(super) struct Server {
    /// `member` or `broker`, for the log.
    pub(super) name: &'static str,
    reach: watch::Receiver<Option<Reach>>,
}

/// The other side of a [`Server`].
pub(super) struct Connector(watch::Sender<Option<Reach>>);

/// A server, and the way to say how it is reached.
pub(super) fn server(name: &'static str) -> (Connector, Server) {
    let (sender, reach) = watch::channel(None);
    (Connector(sender), Server { name, reach })
}

impl Connector {
    /// From now on the server is reached like this. `same_server` if only the credentials are new, so that what stands
    /// may go on.
    pub(super) fn connect(&self, client: Client, namespace: &str, same_server: bool) {
        self.0.send_modify(|reach| {
            let epoch = reach.as_ref().map_or(0, |reach| reach.epoch);
            let epoch = if same_server { epoch } else { epoch + 1 };
            *reach = Some(Reach { client, namespace: Arc::from(namespace), epoch });
        });
    }

    /// What stands is to be made again.
    fn broke(&self) {
        self.0.send_modify(|reach| {
            if let Some(reach) = reach {
                reach.epoch += 1;
            }
        });
    }
}

impl Server {
    /// How it is reached now, if that is known.
    pub(super) fn now(&self) -> Option<Reach> {
        self.reach.borrow().clone()
    }

    /// How it is reached, as soon as that is known. None when the process ends.
    pub(super) async fn known(&mut self) -> Option<Reach> {
        self.reach.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Returns when what was made in `epoch` is to be made again.
    pub(super) async fn left(&mut self, epoch: u64) {
        let left = |reach: &Option<Reach>| reach.as_ref().is_some_and(|reach| reach.epoch != epoch);
        let ended = self.reach.wait_for(left).await.is_err();
        if ended {
            // The process ends; so will this task.
            std::future::pending().await
        }
    }
}

/// A client of `config` for watches and writes: failures are ours to try again, and nothing waits for ever.
///
/// # Errors
/// The configuration cannot be used: a certificate, say.
pub(super) fn client(mut config: Config) -> kube::Result<Client> {
    config.default_retry = false;
    config.connect_timeout = Some(REQUEST - Duration::from_secs(1));
    // Of watches the probe takes care; a request has a timeout of its own.
    config.read_timeout = None;
    Client::try_from(config)
}

/// Asks the server for the Lease `name` every few seconds, for ever: whether it answers at all decides about watches,
/// and whether it knows us is reported.
pub(super) async fn probe(connector: Arc<Connector>, mut server: Server, lease: String, troubles: Troubles) {
    let what = super::status::server_trouble(server.name);
    let mut stood = true;
    // A server that starts refuses what it will grant once it has read who may do what.
    let mut refused_before = false;
    while let Some(reach) = server.known().await {
        let namespace = match &*reach.namespace {
            "" => crate::clusterset::local::SYSTEM_NAMESPACE,
            namespace => namespace,
        };
        let leases: Api<Lease> = Api::namespaced(reach.client.clone(), namespace);
        let answer = tokio::time::timeout(REQUEST, leases.get_opt(&lease)).await;
        let answers = match answer {
            Ok(Ok(_)) => {
                troubles.clear(&what);
                refused_before = false;
                true
            }
            Ok(Err(kube::Error::Api(status))) => {
                if refused_before {
                    troubles.report(&what, &refusal(server.name, status.code, &status.message));
                }
                refused_before = true;
                true
            }
            Ok(Err(error)) => {
                troubles.report(&what, &format!("does not answer: {}", chain(&error)));
                false
            }
            Err(_elapsed) => {
                troubles.report(&what, &format!("does not answer within {} s", REQUEST.as_secs()));
                false
            }
        };
        if stood && !answers {
            connector.broke();
        }
        stood = answers;
        let again = jittered(if answers && !refused_before { PROBE } else { PROBE / 2 });
        let replaced = reach.epoch;
        tokio::select! {
            () = tokio::time::sleep(again) => {}
            () = server.left(replaced), if answers => {}
        }
    }
}

/// What an API server's refusal means to the one who can do something about it.
fn refusal(server: &str, code: u16, message: &str) -> String {
    match (server, code) {
        ("broker", 401) => {
            "refuses this member's credentials: they are wrong or expired: run `mcs join` again".to_owned()
        }
        ("broker", 403) => {
            format!("this member may not do what it has to: was it revoked? run `mcs join` again: {message}")
        }
        (_, 401) => "refuses our credentials: look at the kubeconfig, or at the ServiceAccount".to_owned(),
        (_, 403) => format!("we may not do what we have to: apply the RBAC of `mcs join` again: {message}"),
        (_, code) => format!("answers {code}: {message}"),
    }
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
