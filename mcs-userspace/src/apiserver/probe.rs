//! Whether a server is there.
//!
//! A watch through a network that swallows packets looks like a quiet one. So each server is asked something every few
//! seconds; when no answer comes, its watches are given up, and try again until one is answered.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::jittered;
use super::server::{Connector, REQUEST, Reach, Server, chain};
use super::troubles::Troubles;

/// What a server is asked.
pub(crate) trait Question: Send + Sync {
    /// How often it is asked.
    const EVERY: Duration;

    /// Asks.
    fn ask(&self, reach: &Reach) -> impl Future<Output = kube::Result<()>> + Send;

    /// What the server's refusal means to the one who can do something about it.
    fn refusal(&self, code: u16, message: &str) -> String;
}

/// The key of the [`Troubles`] that all others with a server of this name follow from.
#[must_use]
pub(crate) fn server_trouble(server: &str) -> String {
    format!("the {server}'s API server")
}

/// Asks the server every few seconds, for ever: whether it answers at all decides about watches, and whether it knows us
/// is reported.
pub(crate) async fn probe<Q: Question>(connector: Arc<Connector>, mut server: Server, question: Q, troubles: Troubles) {
    let what = server_trouble(server.name);
    let mut stood = true;
    // A server that starts refuses what it will grant once it has read who may do what.
    let mut refused_before = false;
    while let Some(reach) = server.known().await {
        let answer = tokio::time::timeout(REQUEST, question.ask(&reach)).await;
        let answers = match answer {
            Ok(Ok(())) => {
                troubles.clear(&what);
                refused_before = false;
                true
            }
            Ok(Err(kube::Error::Api(status))) => {
                if refused_before {
                    troubles.report(&what, &question.refusal(status.code, &status.message));
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
        let again = jittered(if answers && !refused_before { Q::EVERY } else { Q::EVERY / 2 });
        let replaced = reach.epoch;
        tokio::select! {
            () = tokio::time::sleep(again) => {}
            () = server.left(replaced), if answers => {}
        }
    }
}
