//! An API server as watches and writes reach it: a client that may be replaced.
//!
//! ```text
//!  kubeconfig, ServiceAccount ► member ┐
//!  Secret mcs-broker ─────────► broker ┴─► Server ──► watches, writes
//!                                            ▲ epoch: what stands is to be made again
//!                             probe ─────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Config};
use tokio::sync::watch;

/// How long one request may take.
pub(crate) const REQUEST: Duration = Duration::from_secs(5);

/// How a server is reached now.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) client: Client,
    /// Who we are there: the member's namespace at the broker; empty at the member.
    pub(crate) namespace: Arc<str>,
    /// Changes when what stands is to be made again.
    pub(crate) epoch: u64,
}

/// A server that may not be known yet.
#[derive(Clone)]
pub(crate) struct Server {
    /// `member` or `broker`, for the log.
    pub(crate) name: &'static str,
    reach: watch::Receiver<Option<Reach>>,
}

/// The other side of a [`Server`].
pub(crate) struct Connector(watch::Sender<Option<Reach>>);

/// A server, and the way to say how it is reached.
pub(crate) fn server(name: &'static str) -> (Connector, Server) {
    let (sender, reach) = watch::channel(None);
    (Connector(sender), Server { name, reach })
}

impl Connector {
    /// From now on the server is reached like this. `same_server` if only the credentials are new, so that what stands
    /// may go on.
    pub(crate) fn connect(&self, client: Client, namespace: &str, same_server: bool) {
        self.0.send_modify(|reach| {
            let epoch = reach.as_ref().map_or(0, |reach| reach.epoch);
            let epoch = if same_server { epoch } else { epoch + 1 };
            *reach = Some(Reach { client, namespace: Arc::from(namespace), epoch });
        });
    }

    /// What stands is to be made again.
    pub(super) fn broke(&self) {
        self.0.send_modify(|reach| {
            if let Some(reach) = reach {
                reach.epoch += 1;
            }
        });
    }
}

impl Server {
    /// How it is reached now, if that is known.
    pub(crate) fn now(&self) -> Option<Reach> {
        self.reach.borrow().clone()
    }

    /// How it is reached, as soon as that is known. None when the process ends.
    pub(crate) async fn known(&mut self) -> Option<Reach> {
        self.reach.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Returns when what was made in `epoch` is to be made again.
    pub(crate) async fn left(&mut self, epoch: u64) {
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
pub(crate) fn client(mut config: Config) -> kube::Result<Client> {
    config.default_retry = false;
    config.connect_timeout = Some(REQUEST - Duration::from_secs(1));
    // Of watches the probe takes care; a request has a timeout of its own.
    config.read_timeout = None;
    Client::try_from(config)
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
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
