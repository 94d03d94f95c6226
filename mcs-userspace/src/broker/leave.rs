//! `mcs leave`: a member is none any more, and nothing of it stays with the others.
//!
//! ```text
//!  member: ClusterProperty clusterset.k8s.io deleted     a controller that runs stops publishing
//!  broker: tombstones, slices, reservations, until two looks in a row find nothing; then the lease's last
//!          word, Member, account
//!  member: imports, their slices, the id, credentials
//! ```
//!
//! CRDs and RBAC stay: users' ServiceExports are in the former.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Resource};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::apply::{Progress, Site};
use super::credentials::{Credentials, SERVICE_ACCOUNT};
use super::kubeconfig::{self, is_code, why};
use super::objects::account;
use super::preflight::MemberFacts;
use super::records::{self, Count};
use super::{join, member_objects};
use crate::api::v1beta1::ServiceImport;
use crate::clusterset::local::{CLUSTER_ID_PROPERTY, CLUSTERSET_PROPERTY, EXPORTED_KEYS};
use crate::clusterset::record::{GROUP, Member, SHARED_NAMESPACE};
use crate::controller::{MANAGED_BY, MANAGER};

/// How long a controller may go on writing after the property was deleted.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks.
const POLL: Duration = Duration::from_secs(1);
/// Writes to one API server at a time.
const AT_ONCE: usize = 16;

/// Lets the cluster leave. What is gone already is no error.
///
/// `without_broker`: the broker will never answer again; its admin, if there is one, revokes the member.
///
/// # Errors
/// An API server refuses something, or cannot be reached. The same command takes it up again.
pub async fn run(member: &Site, without_broker: bool, progress: &mut Progress<'_>) -> anyhow::Result<()> {
    let facts = MemberFacts::read(&member.client).await?;
    let credentials = join::existing(&member.client).await?;
    let properties = [CLUSTERSET_PROPERTY, CLUSTER_ID_PROPERTY];
    if credentials.is_none() && !properties.iter().any(|name| facts.properties.contains_key(*name)) {
        // one that stopped half way may still have imports
        clean(member, progress).await?;
        progress.say("member: is in no ClusterSet");
        return Ok(());
    }
    member.delete(&member_objects::membership_property(""), progress).await?;
    match &credentials {
        Some(credentials) if !without_broker => withdraw(credentials, progress).await.with_context(|| {
            format!(
                "the broker still has what {} published: run this again when it answers; if it never will, `mcs leave \
                 --without-broker`, and its admin `mcs broker revoke {}`",
                credentials.cluster, credentials.cluster
            )
        })?,
        Some(credentials) => progress.say(&format!(
            "broker: not asked: until its admin says `mcs broker revoke {}`, the others keep what only this member serves",
            credentials.cluster
        )),
        None => progress.say("broker: no credentials for it: its admin may have to say `mcs broker revoke`"),
    }
    clean(member, progress).await?;
    member.delete(&member_objects::id_property(""), progress).await?;
    for object in member_objects::credentials_by_name() {
        member.delete(&object, progress).await?;
    }
    progress.say("left");
    Ok(())
}

/// As the member, at the broker.
async fn withdraw(credentials: &Credentials, progress: &mut Progress<'_>) -> anyhow::Result<()> {
    let client = kubeconfig::client(credentials.client_config()?).context("broker: the member's credentials")?;
    let cluster = &credentials.cluster;
    let deadline = Instant::now() + SETTLED_WITHIN;
    let (mut sum, mut quiet) = (Count::default(), 0);
    if !join::accepted(credentials).await? {
        progress.say(&format!(
            "broker: refuses this member's credentials: they ended, or it was revoked: what it may still have there is its \
             admin's to remove, with `mcs broker revoke {cluster}`"
        ));
        return Ok(());
    }
    while quiet < 2 {
        let count = records::withdraw(&client, cluster).await?;
        quiet = if count.is_nothing() { quiet + 1 } else { 0 };
        sum += count;
        if quiet < 2 {
            if Instant::now() >= deadline {
                bail!("broker: something writes records of {cluster} again and again: stop its controller");
            }
            sleep(POLL).await;
        }
    }
    let Count { exports, slices, reservations } = sum;
    let line = format!("broker: {exports} exports withdrawn, {slices} slices and {reservations} reservations deleted");
    if sum.is_nothing() {
        progress.say(&line)
    } else {
        progress.changed(&line)
    }
    records::say_farewell(&client, cluster).await?;
    let broker = Site { name: "broker", client };
    let kind = Member::kind(&());
    let object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {"namespace": SHARED_NAMESPACE, "name": cluster},
    });
    broker.delete(&object, progress).await?;
    broker.delete(&account(&credentials.namespace, SERVICE_ACCOUNT), progress).await
}

/// Imports and their slices, in the member.
async fn clean(member: &Site, progress: &mut Progress<'_>) -> anyhow::Result<()> {
    let imports: Api<DynamicObject> =
        Api::all_with(member.client.clone(), &kube::api::ApiResource::erase::<ServiceImport>(&()));
    let imports = all(imports, &ListParams::default()).await.context("member: ServiceImports")?;
    // somebody else's stay
    let imports: Vec<_> = imports.into_iter().filter(|one| one.annotations().contains_key(EXPORTED_KEYS)).collect();
    let slices: Api<EndpointSlice> = Api::all(member.client.clone());
    let ours = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let slices = all(slices, &ours).await.context("member: EndpointSlices")?;
    let line = format!("member: {} ServiceImports and {} EndpointSlices deleted", imports.len(), slices.len());
    let any = !imports.is_empty() || !slices.is_empty();
    delete::<ServiceImport>(&member.client, imports.iter().map(place).collect()).await?;
    delete::<EndpointSlice>(&member.client, slices.iter().map(place).collect()).await?;
    if any {
        progress.changed(&line);
    }
    Ok(())
}

async fn all<K>(api: Api<K>, params: &ListParams) -> anyhow::Result<Vec<K>>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match api.list(params).await {
        Ok(list) => Ok(list.items),
        // no CRD, no objects
        Err(error) if is_code(&error, 404) => Ok(Vec::new()),
        Err(error) => Err(why(error)),
    }
}

fn place<K: Resource>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

async fn delete<K>(client: &Client, places: Vec<(String, String)>) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let work = |(namespace, name): (String, String)| async move {
        let api: Api<K> = Api::namespaced(client.clone(), &namespace);
        match api.delete(&name, &DeleteParams::default()).await {
            Err(error) if !is_code(&error, 404) => {
                Err(why(error)).with_context(|| format!("member: {} {namespace}/{name}", K::kind(&())))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    };
    stream::iter(places).map(work).buffer_unordered(AT_ONCE).try_collect().await
}
