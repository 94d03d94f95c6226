//! How the broker is reached: from the Secret in the member, which `mcs join` writes and the leader renews.
//!
//! ```text
//!  Secret mcs-broker ──watch──► Credentials ──► client ──► Connector (watches, writes, probe)
//!        ▲                          │ half of the token's life is over, and we lead
//!        └──── TokenRequest at the broker
//! ```

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::info;

use super::tenure::Tenure;
use crate::apiserver::{Connector, REQUEST, Server, Troubles, chain, client, jittered};
use crate::broker::credentials::{Credentials, SECRET, SERVICE_ACCOUNT, TOKEN_LIFE};
use crate::clusterset::local::SYSTEM_NAMESPACE;

/// How often a renewal that failed is tried again: there are days left.
const RETRY: Duration = Duration::from_secs(60);

/// How often a process looks whether it leads by now and has to renew.
const LOOK: Duration = Duration::from_secs(5);

/// The longest that one waits before it looks at the clock again, which may have been set.
const LONGEST: Duration = Duration::from_secs(3600);

/// Keeps the broker connected.
pub(super) struct Credential {
    pub(super) connector: Arc<Connector>,
    pub(super) member: Server,
    pub(super) broker: Server,
    pub(super) tenure: Tenure,
    pub(super) troubles: Troubles,
    /// The Secret, whenever it changes; none when it was deleted.
    pub(super) secrets: mpsc::Receiver<Option<DynamicObject>>,
}

/// The credentials that are in use.
struct InUse {
    credentials: Credentials,
    /// Of the Secret.
    version: String,
    /// When to renew them, Unix seconds.
    renew_at: Option<i64>,
    /// When those end that this process asked for.
    asked_for: Option<i64>,
}

impl Credential {
    /// Until nobody watches the Secret any more.
    pub(super) async fn run(mut self) {
        let mut in_use: Option<InUse> = None;
        loop {
            let wait = in_use.as_ref().map_or(LONGEST, |in_use| self.wait(in_use));
            tokio::select! {
                secret = self.secrets.recv() => match secret {
                    None => return,
                    Some(secret) => self.take(secret, &mut in_use),
                },
                () = tokio::time::sleep(wait) => self.renew_if_due(&mut in_use).await,
            }
        }
    }

    fn wait(&self, in_use: &InUse) -> Duration {
        let Some(at) = in_use.renew_at else { return LONGEST };
        let left = at.saturating_sub(Timestamp::now().as_second());
        let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
        left.clamp(LOOK, LONGEST)
    }

    /// Uses what the Secret says. What it said before goes on being used when it is gone or cannot be read: a member
    /// that leaves has to say so.
    fn take(&self, secret: Option<DynamicObject>, in_use: &mut Option<InUse>) {
        const WHAT: &str = "broker credentials";
        let Some(secret) = secret else {
            self.troubles.report(WHAT, &format!("Secret {SYSTEM_NAMESPACE}/{SECRET} is gone: run `mcs join` again"));
            return;
        };
        let version = secret.resource_version().unwrap_or_default();
        let read = secret.try_parse::<Secret>().map_err(|error| error.to_string()).and_then(|secret| {
            let credentials = Credentials::from_secret(&secret).map_err(|error| error.to_string())?;
            let config = credentials.client_config().map_err(|error| error.to_string())?;
            Ok((credentials, client(config).map_err(|error| chain(&error))?))
        });
        let (credentials, client) = match read {
            Ok(read) => read,
            Err(why) => return self.troubles.report(WHAT, &why),
        };
        self.troubles.clear(WHAT);
        let same_server = in_use.as_ref().is_some_and(|in_use| is_same_server(&in_use.credentials, &credentials));
        if in_use.as_ref().is_some_and(|in_use| in_use.credentials == credentials) {
            if let Some(in_use) = in_use {
                in_use.version = version;
            }
            return;
        }
        info!(server = credentials.server, namespace = credentials.namespace, "credentials for the broker");
        self.connector.connect(client, &credentials.namespace, same_server);
        let asked_for = in_use.as_ref().and_then(|in_use| in_use.asked_for);
        let fresh = asked_for == Some(credentials.expires);
        let renew_at = renewal(&credentials, fresh, Timestamp::now().as_second());
        *in_use = Some(InUse { credentials, version, renew_at, asked_for });
    }

    async fn renew_if_due(&self, in_use: &mut Option<InUse>) {
        const WHAT: &str = "renewal of the broker credentials";
        let Some(current) = in_use else { return };
        let now = Timestamp::now().as_second();
        if !self.tenure.lasts() || current.renew_at.is_none_or(|at| now < at) {
            return;
        }
        match self.renew(current).await {
            Ok(expires) => {
                current.asked_for = Some(expires);
                self.troubles.clear(WHAT);
            }
            Err(why) => {
                let days = (current.credentials.expires - now) / (24 * 60 * 60);
                self.troubles.report(WHAT, &format!("{why}; they end in {days} days"));
            }
        }
        // The Secret's watch brings what was written, and its time. Until then, and after a failure:
        let pause = jittered(RETRY * 2).as_secs();
        current.renew_at = Some(now.saturating_add(i64::try_from(pause).unwrap_or(i64::MAX)));
    }

    /// Asks for a token and writes it into the Secret, unless somebody changed that meanwhile.
    async fn renew(&self, current: &InUse) -> Result<i64, String> {
        let broker = self.broker.now().ok_or("the broker is not known")?;
        let member = self.member.now().ok_or("the member is not known")?;
        let renewed = self.request(&broker.client, &current.credentials).await?;
        let data = renewed.to_secret().data.unwrap_or_default();
        let patch = json!({"metadata": {"resourceVersion": current.version}, "data": data});
        let secrets: Api<Secret> = Api::namespaced(member.client, SYSTEM_NAMESPACE);
        within(secrets.patch(SECRET, &PatchParams::default(), &Patch::Merge(&patch))).await?;
        info!(expires = renewed.expires, "credentials for the broker are renewed");
        Ok(renewed.expires)
    }

    async fn request(&self, broker: &Client, credentials: &Credentials) -> Result<Credentials, String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(broker.clone(), &credentials.namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_LIFE), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let answer = within(accounts.create_token_request(SERVICE_ACCOUNT, &PostParams::default(), &request)).await?;
        let status = answer.status.ok_or("the answer to a TokenRequest has no token")?;
        Ok(Credentials {
            token: status.token,
            expires: status.expiration_timestamp.0.as_second(),
            ..credentials.clone()
        })
    }
}

/// When to renew credentials seen at `now`: when half of their life is over. A server may give shorter lives than we ask
/// for, which we know only of `fresh` ones, that we have just asked for.
fn renewal(credentials: &Credentials, fresh: bool, now: i64) -> Option<i64> {
    match credentials.expires {
        0 => None,
        expires if fresh => Some(now + (expires - now) / 2),
        expires => Some(expires - TOKEN_LIFE / 2),
    }
}

fn is_same_server(one: &Credentials, other: &Credentials) -> bool {
    let bare = |credentials: &Credentials| Credentials { token: String::new(), expires: 0, ..credentials.clone() };
    bare(one) == bare(other)
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(outcome) => outcome.map_err(|error| chain(&error)),
        Err(_elapsed) => Err(format!("no answer within {} s", REQUEST.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_renewed_at_half_of_their_life() {
        let now = 1_800_000_000;
        let ending = |expires| Credentials { expires, ..Credentials::default() };
        assert_eq!(renewal(&ending(0), false, now), None, "nobody knows when they end");
        let half = now + TOKEN_LIFE / 2;
        assert_eq!(renewal(&ending(now + TOKEN_LIFE), false, now), Some(half));
        assert_eq!(renewal(&ending(now + TOKEN_LIFE), true, now), Some(half));
        assert_eq!(renewal(&ending(now + 3600), true, now), Some(now + 1800), "the server gives an hour");
        assert!(renewal(&ending(now + 3600), false, now).unwrap() <= now, "half of 30 days is over");
    }

    #[test]
    fn another_token_is_no_other_server() {
        let one = Credentials { server: "https://a".to_owned(), token: "x".to_owned(), ..Credentials::default() };
        assert!(is_same_server(&one, &Credentials { token: "y".to_owned(), expires: 5, ..one.clone() }));
        assert!(!is_same_server(&one, &Credentials { server: "https://b".to_owned(), ..one.clone() }));
    }
}
