//! Join tokens: for those who may not hold the broker's admin's kubeconfig.
//!
//! ```text
//!  broker's admin                                      whoever has the member's kubeconfig
//!  mcs broker token create --cluster east ──token──►   mcs join --kubeconfig MEMBER --token …
//!    Member east, without a UID                          puts its UID into Member east: the first who does has it
//!    ServiceAccount mcs-east/join, for an hour           gets a token of ServiceAccount mcs-east/member
//!                                                        deletes ServiceAccount mcs-east/join: the join token ends
//! ```
//!
//! The token is good for one cluster only: the UID is set by an update that the broker's admission policy lets through
//! while there is none. Within its life the same cluster may try again until it is through.

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use serde::{Deserialize, Serialize};

use super::apply::{Progress, Site};
use super::kubeconfig::{self, Server, why};
use super::preflight::BrokerFacts;
use super::{init, join, objects};
use crate::clusterset::membership::admit;
use crate::clusterset::record::member_namespace;
use crate::clusterset::vip::parse_cidrs;

/// What every join token begins with: the version of what follows, base64 of JSON.
const PREFIX: &str = "mcs1.";

/// A join token's content.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invitation {
    /// Where the broker is.
    #[serde(flatten)]
    pub server: Server,
    /// Bearer token of the account [`objects::JOIN_ACCOUNT`].
    pub token: String,
    /// The id that the cluster will have.
    pub cluster: String,
    /// Of this ClusterSet.
    pub clusterset: String,
}

impl Invitation {
    /// As users see it.
    ///
    /// # Errors
    /// None that could be provoked: it is all text.
    pub fn to_token(&self) -> anyhow::Result<String> {
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(self)?)))
    }

    /// Reads what [`Self::to_token`] wrote.
    ///
    /// # Errors
    /// It is no join token, or was cut off.
    pub fn from_token(text: &str) -> anyhow::Result<Self> {
        let encoded = text.trim().strip_prefix(PREFIX).context("join token: does not begin with `mcs1.`")?;
        // the content is secret: no error repeats it
        let Ok(json) = URL_SAFE_NO_PAD.decode(encoded) else { bail!("join token: was cut off or changed on its way") };
        let Ok(invitation) = serde_json::from_slice(&json) else {
            bail!("join token: was cut off or changed on its way")
        };
        Ok(invitation)
    }

    /// A client that speaks with the join token.
    ///
    /// # Errors
    /// The server, the proxy or the CA in the token cannot be read.
    pub fn client(&self) -> anyhow::Result<Client> {
        let credentials = join::credentials(&self.server, &self.cluster, &self.clusterset, &self.token, 0);
        let config = credentials.client_config().context("join token")?;
        kubeconfig::client(config).context("join token")
    }
}

/// For whom a token is made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Guest {
    /// The id that it will have.
    pub cluster: String,
    /// The ClusterSet's id; that of the broker's, if it serves one already.
    pub clusterset: Option<String>,
    /// The ClusterSet's CIDRs, if none are fixed yet.
    pub clusterset_cidrs: Vec<IpNet>,
    /// What its pods' addresses are in; any if empty. It cannot change that.
    pub pod_cidrs: Vec<IpNet>,
    /// How long the token lives, seconds. API servers grant no less than ten minutes.
    pub seconds: i64,
}

/// Makes a join token. One that was made for the same cluster before ends.
///
/// # Errors
/// The id is a member's, the CIDRs are refused, or the broker is, or cannot be reached.
pub async fn create(
    broker: &Site,
    server: &Server,
    guest: &Guest,
    progress: &mut Progress<'_>,
) -> anyhow::Result<Invitation> {
    let Guest { cluster, clusterset, clusterset_cidrs, pod_cidrs, seconds } = guest;
    let facts = BrokerFacts::read(&broker.client).await?;
    facts.check_prepared()?;
    let id = clusterset.as_ref().or_else(|| facts.clustersets.keys().next()).cloned();
    let id = id.context("broker: serves no ClusterSet yet: say which with --clusterset")?;
    let (cidrs, write) = facts.cidrs(Some(&id), clusterset_cidrs)?;
    facts.check_members_pods(&parse_cidrs(&cidrs)?)?;
    let known = facts.members.get(cluster);
    ensure!(
        known.is_none_or(|known| known.cluster_uid.is_empty() && !known.revoked),
        "broker: Member {cluster}: is a member already, or was revoked: `mcs broker forget {cluster}` frees the id"
    );
    let others = facts.members.iter().filter(|(id, _)| *id != cluster).map(|(id, spec)| (id.as_str(), spec));
    admit(cluster, "unknown until it joins", pod_cidrs, others).context("broker")?;

    init::fix(broker, &id, &cidrs, write, progress).await?;
    let mut spec = known.cloned().unwrap_or_default();
    spec.pod_cidrs = pod_cidrs.iter().map(ToString::to_string).collect();
    let write = known != Some(&spec);
    join::put_member(broker, cluster, &spec, write, progress).await?;
    broker.apply_all(&objects::member(cluster), progress).await?;
    let account = objects::account(&member_namespace(cluster), objects::JOIN_ACCOUNT);
    broker.delete(&account, progress).await?;
    broker.apply_all(&objects::invitation(cluster), progress).await?;
    let (token, _) = token(&broker.client, cluster, objects::JOIN_ACCOUNT, *seconds).await?;
    Ok(Invitation { server: server.clone(), token, cluster: cluster.clone(), clusterset: id })
}

/// A token of an account in a member's namespace, and when it ends (Unix seconds), by TokenRequest.
///
/// # Errors
/// The broker refuses, or cannot be reached.
pub async fn token(client: &Client, cluster: &str, account: &str, seconds: i64) -> anyhow::Result<(String, i64)> {
    let namespace = member_namespace(cluster);
    let what = || format!("broker: ServiceAccount {namespace}/{account}: token");
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(seconds), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer = api.create_token_request(account, &PostParams::default(), &request).await.map_err(why);
    let status = answer.with_context(what)?.status.with_context(what)?;
    Ok((status.token, status.expiration_timestamp.0.as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_as_they_were_written_and_tell_nothing_when_they_do_not() {
        let invitation = Invitation {
            server: Server { server: "https://192.0.2.1:6443".to_owned(), ca: "PEM\n".to_owned(), ..Server::default() },
            token: "very secret".to_owned(),
            cluster: "east".to_owned(),
            clusterset: "prod".to_owned(),
        };
        let text = invitation.to_token().unwrap();
        assert!(text.starts_with("mcs1.") && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
        assert!(Invitation::from_token(&format!(" {text}\n")).unwrap() == invitation);
        for broken in [&text[..text.len() - 5], &text["mcs1.".len()..], "mcs1.", "mcs1.e30"] {
            let error = Invitation::from_token(broken).map(|_| ()).unwrap_err().to_string();
            assert!(error.starts_with("join token: ") && !error.contains("secret"), "{error}");
        }
    }
}
