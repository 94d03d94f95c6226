//! `mcs join`: a cluster becomes a member.
//!
//! What can refuse comes first (a join token is one cluster's from then on), then the member's CRDs and rights, then the
//! broker, and the ClusterProperty that makes the cluster a member last: whatever fails in between, the same command takes
//! it up again.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::apply::{MANAGER, Progress, Site};
use super::credentials::{Credentials, SECRET, SERVICE_ACCOUNT, TOKEN_LIFE};
use super::invitation::{self, Invitation};
use super::kubeconfig::{self, Server, is_code, why};
use super::preflight::{BrokerFacts, Decision, MemberFacts, Wanted};
use super::{PART_OF, init, member_objects, objects};
use crate::api::crds::{self, RELEASE_VERSION, SCHEMA_REVISION};
use crate::clusterset::local::SYSTEM_NAMESPACE;
use crate::clusterset::record::{ClusterSet, Member, MemberSpec, SHARED_NAMESPACE, member_namespace};

/// How long an API server may take to know an account or a right that was just made.
const KNOWN_WITHIN: Duration = Duration::from_secs(15);
/// A token that ends within this many seconds is replaced.
const ENDS_SOON: i64 = 60 * 60;
/// How often it is asked.
const POLL: Duration = Duration::from_millis(100);

/// As whom we speak to the broker.
pub enum Door {
    /// As its admin: everything is prepared as needed.
    Admin(Site, Server),
    /// With a join token: the admin has prepared everything.
    Invited(Site, Invitation),
}

impl Door {
    /// Who speaks to it.
    #[must_use]
    pub const fn site(&self) -> &Site {
        match self {
            Self::Admin(site, _) | Self::Invited(site, _) => site,
        }
    }

    /// Whether the broker lets us in. A join token that it does not is worth a word of its own.
    ///
    /// # Errors
    /// The join token was used, or it ended.
    pub async fn check(&self) -> anyhow::Result<()> {
        let Self::Invited(site, invitation) = self else { return Ok(()) };
        let api: Api<ClusterSet> = Api::namespaced(site.client.clone(), SHARED_NAMESPACE);
        match api.get_opt(&invitation.clusterset).await {
            Err(error) if is_code(&error, 401) => {
                bail!("join token: the broker refuses it: it was used, or replaced by another, or its time is over")
            }
            Err(error) => Err(why(error)).context("broker"),
            Ok(_) => Ok(()),
        }
    }

    /// Where it is.
    #[must_use]
    pub const fn server(&self) -> &Server {
        match self {
            Self::Admin(_, server) => server,
            Self::Invited(_, invitation) => &invitation.server,
        }
    }
}

/// Makes the cluster a member. Again, it changes nothing.
///
/// # Errors
/// Id, CIDRs or the cluster are refused; or one of the API servers refuses something, or cannot be reached.
pub async fn run(member: &Site, door: &Door, wanted: &Wanted, progress: &mut Progress<'_>) -> anyhow::Result<()> {
    let (site, Wanted { cluster, clusterset, .. }) = (door.site(), wanted);
    let facts = MemberFacts::read(&member.client).await?;
    let secret = existing(&member.client).await?;
    if let Some(other) = secret.as_ref().filter(|secret| secret.cluster != *cluster || secret.clusterset != *clusterset)
    {
        bail!(
            "member: is {} of {} by its Secret {SYSTEM_NAMESPACE}/{SECRET}: `mcs leave` first",
            other.cluster,
            other.clusterset
        );
    }
    door.check().await?;
    let decision = BrokerFacts::read(&site.client).await?.decide(wanted, &facts)?;

    if let Door::Invited(site, _) = door {
        claim(site, wanted, &decision, progress).await?;
    }
    member.install(&crds::all(), (RELEASE_VERSION, SCHEMA_REVISION), progress).await?;
    member.apply_all(&member_objects::objects(), progress).await?;
    if let Door::Admin(site, _) = door {
        register(site, wanted, &decision, progress).await?;
    }
    let credentials = credentials_for(door, wanted, secret, progress).await?;
    match credentials {
        None => progress.say(&format!("member: Secret {SYSTEM_NAMESPACE}/{SECRET} unchanged")),
        Some(credentials) => {
            let secret = serde_json::to_value(secret_of(&credentials))?;
            member.apply(&secret, progress).await?;
        }
    }
    member.apply(&member_objects::config_map(cluster, clusterset, &decision.cidrs), progress).await?;
    member.apply(&member_objects::id_property(cluster), progress).await?;
    member.apply(&member_objects::membership_property(clusterset), progress).await?;
    if let Door::Invited(site, _) = door {
        let account = objects::account(&member_namespace(cluster), objects::JOIN_ACCOUNT);
        site.delete(&account, progress).await.context("join token")?;
    }
    let cidrs = if decision.cidrs.is_empty() { "none yet".to_owned() } else { decision.cidrs.join(",") };
    let word = if progress.changes() == 0 { ": no change" } else { "" };
    progress.say(&format!("{cluster} is a member of {clusterset}, ClusterSet CIDRs {cidrs}{word}"));
    if decision.cidrs.is_empty() {
        progress.say("without ClusterSet CIDRs only headless services are imported: name some with --clusterset-cidr");
    }
    Ok(())
}

/// What the broker has to have of the member.
async fn register(
    site: &Site,
    wanted: &Wanted,
    decision: &Decision,
    progress: &mut Progress<'_>,
) -> anyhow::Result<()> {
    let Decision { cidrs, write_clusterset, member, write_member } = decision;
    init::fix(site, &wanted.clusterset, cidrs, *write_clusterset, progress).await?;
    put_member(site, &wanted.cluster, member, *write_member, progress).await?;
    site.apply_all(&objects::member(&wanted.cluster), progress).await
}

/// With a join token: the Member that it was made for becomes this cluster's, if it is nobody's yet.
async fn claim(site: &Site, wanted: &Wanted, decision: &Decision, progress: &mut Progress<'_>) -> anyhow::Result<()> {
    ensure!(!decision.write_clusterset, "join token: cannot fix the ClusterSet's CIDRs: leave --clusterset-cidr out");
    put_member(site, &wanted.cluster, &decision.member, decision.write_member, progress).await.context("join token")
}

/// Writes a Member. Whoever comes second is told so by the API server.
pub(super) async fn put_member(
    broker: &Site,
    cluster: &str,
    spec: &MemberSpec,
    write: bool,
    progress: &mut Progress<'_>,
) -> anyhow::Result<()> {
    let what = || format!("broker: Member {cluster}");
    if !write {
        progress.say(&format!("{} unchanged", what()));
        return Ok(());
    }
    let api: Api<Member> = Api::namespaced(broker.client.clone(), SHARED_NAMESPACE);
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let written = match api.get_opt(cluster).await.map_err(why).with_context(what)? {
        None => api.create(&params, &member_object(cluster, spec)).await.map(|_| "created"),
        Some(found) if !found.spec.cluster_uid.is_empty() && found.spec.cluster_uid != spec.cluster_uid => {
            bail!("{}: the cluster with UID {} has it now", what(), found.spec.cluster_uid);
        }
        Some(mut found) => {
            found.spec = spec.clone();
            api.replace(cluster, &params, &found).await.map(|_| "changed")
        }
    };
    match written {
        Ok(word) => progress.changed(&format!("{} {word}", what())),
        Err(error) if is_code(&error, 409) => {
            bail!("{}: somebody else wrote it at the same time: run this again", what())
        }
        Err(error) => return Err(why(error)).with_context(what),
    }
    Ok(())
}

/// A Member as an object.
#[must_use]
pub fn member_object(cluster: &str, spec: &MemberSpec) -> Member {
    let (label, value) = PART_OF;
    Member {
        metadata: ObjectMeta {
            name: Some(cluster.to_owned()),
            namespace: Some(SHARED_NAMESPACE.to_owned()),
            labels: Some([(label.to_owned(), value.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: spec.clone(),
    }
}

/// The credentials that the member has.
pub(super) async fn existing(member: &Client) -> anyhow::Result<Option<Credentials>> {
    let what = || format!("member: Secret {SYSTEM_NAMESPACE}/{SECRET}");
    let api: Api<Secret> = Api::namespaced(member.clone(), SYSTEM_NAMESPACE);
    let secret = api.get_opt(SECRET).await.map_err(why).with_context(what)?;
    // one that cannot be read is made anew
    Ok(secret.and_then(|secret| Credentials::from_secret(&secret).ok()))
}

/// New credentials, unless those that the member has are good: of this broker, accepted, and with time left in which the
/// controller renews them.
async fn credentials_for(
    door: &Door,
    wanted: &Wanted,
    existing: Option<Credentials>,
    progress: &mut Progress<'_>,
) -> anyhow::Result<Option<Credentials>> {
    let Wanted { cluster, clusterset, .. } = wanted;
    if let Some(existing) = existing {
        let same = credentials(door.server(), cluster, clusterset, &existing.token, existing.expires);
        let soon = Timestamp::now().as_second() + ENDS_SOON;
        if existing == same && (existing.expires == 0 || existing.expires > soon) && accepted(&existing).await? {
            return Ok(None);
        }
    }
    let deadline = Instant::now() + KNOWN_WITHIN;
    let (token, expires) = loop {
        match invitation::token(&door.site().client, cluster, SERVICE_ACCOUNT, TOKEN_LIFE).await {
            Err(_) if Instant::now() < deadline => sleep(POLL).await,
            other => break other?,
        }
    };
    let new = credentials(door.server(), cluster, clusterset, &token, expires);
    let days = (expires - Timestamp::now().as_second()) / (24 * 60 * 60);
    progress.changed(&format!("broker: ServiceAccount {}/{SERVICE_ACCOUNT}: token for {days} days", new.namespace));
    while !accepted(&new).await? {
        ensure!(Instant::now() < deadline, "broker: does not accept the token that it gave for {}", new.namespace);
        sleep(POLL).await;
    }
    Ok(Some(new))
}

/// Whether the broker lets the member in, and see its ClusterSet.
pub(super) async fn accepted(credentials: &Credentials) -> anyhow::Result<bool> {
    let client = kubeconfig::client(credentials.client_config()?).context("broker: the member's credentials")?;
    let api: Api<ClusterSet> = Api::namespaced(client, SHARED_NAMESPACE);
    match api.get_opt(&credentials.clusterset).await {
        Ok(found) => Ok(found.is_some()),
        Err(error) if is_code(&error, 401) || is_code(&error, 403) => Ok(false),
        Err(error) => Err(why(error)).context("broker: with the member's credentials"),
    }
}

/// Credentials of a member for the broker that `server` is.
pub(super) fn credentials(server: &Server, cluster: &str, clusterset: &str, token: &str, expires: i64) -> Credentials {
    let Server { server, ca, tls_server_name, insecure_skip_tls_verify, proxy_url } = server.clone();
    Credentials {
        server,
        ca,
        token: token.to_owned(),
        expires,
        tls_server_name,
        insecure_skip_tls_verify,
        proxy_url,
        namespace: member_namespace(cluster),
        cluster: cluster.to_owned(),
        clusterset: clusterset.to_owned(),
    }
}

/// The Secret as it is written: with our label.
fn secret_of(credentials: &Credentials) -> Secret {
    let (label, value) = PART_OF;
    let mut secret = credentials.to_secret();
    secret.labels_mut().insert(label.to_owned(), value.to_owned());
    secret
}

/// Everything that a join writes at the broker and in the member, as objects. Two things are not declarative: a
/// ClusterSet's CIDRs are fixed once, and the token is one that the broker makes: it has to be put into the Secret.
///
/// # Errors
/// An object that is no JSON.
pub fn declarative(server: &Server, wanted: &Wanted, decision: &Decision) -> anyhow::Result<(Vec<Value>, Vec<Value>)> {
    let Wanted { cluster, clusterset, .. } = wanted;
    let mut broker = objects::crds().iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    broker.extend(objects::shared());
    broker.push(serde_json::to_value(init::clusterset(clusterset, &decision.cidrs))?);
    broker.push(serde_json::to_value(member_object(cluster, &decision.member))?);
    broker.extend(objects::member(cluster));

    let mut member = crds::all().iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    member.extend(member_objects::objects());
    let mut secret = serde_json::to_value(secret_of(&credentials(server, cluster, clusterset, "", 0)))?;
    if let Some(data) = secret.get_mut("data").and_then(Value::as_object_mut) {
        data.remove("expires");
    }
    secret["metadata"]["annotations"]["mcs.internal/to-do"] = format!(
        "add the key token: kubectl --namespace {} create token {SERVICE_ACCOUNT} --duration={TOKEN_LIFE}s, at the broker",
        member_namespace(cluster)
    )
    .into();
    member.push(secret);
    member.push(member_objects::config_map(cluster, clusterset, &decision.cidrs));
    member.push(member_objects::id_property(cluster));
    member.push(member_objects::membership_property(clusterset));
    Ok((broker, member))
}
