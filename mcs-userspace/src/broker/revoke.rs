//! `mcs broker revoke`, `mcs broker forget`: the broker's admin ends a membership.
//!
//! Revoked first, then the rights, then the records: at no time can the member write what was deleted. Nothing here counts
//! on garbage collection or on namespaces that go: the namespace stays, empty.

use anyhow::{Context as _, bail};
use kube::Resource as _;
use kube::api::{Api, PostParams};
use serde_json::json;

use super::apply::{MANAGER, Progress, Site};
use super::kubeconfig::why;
use super::{objects, records};
use crate::clusterset::record::{GROUP, Member, SHARED_NAMESPACE};

/// Ends a membership: what the member published counts for nothing from now on, and it cannot publish any more. Its id
/// stays taken.
///
/// # Errors
/// There is no such member, or the broker refuses something, or cannot be reached.
pub async fn revoke(broker: &Site, cluster: &str, progress: &mut Progress<'_>) -> anyhow::Result<()> {
    let what = || format!("broker: Member {cluster}");
    let members: Api<Member> = Api::namespaced(broker.client.clone(), SHARED_NAMESPACE);
    let Some(mut member) = members.get_opt(cluster).await.map_err(why).with_context(what)? else {
        bail!("{}: does not exist; `mcs broker forget {cluster}` removes what may be left of it", what());
    };
    if member.spec.revoked {
        progress.say(&format!("{} revoked already", what()));
    } else {
        member.spec.revoked = true;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        members.replace(cluster, &params, &member).await.map_err(why).with_context(what)?;
        progress.changed(&format!("{} revoked", what()));
    }
    remove(broker, cluster, progress).await
}

/// Removes everything of a member, the Member too: the id is free. One that was not revoked is, first.
///
/// # Errors
/// The broker refuses something, or cannot be reached.
pub async fn forget(broker: &Site, cluster: &str, progress: &mut Progress<'_>) -> anyhow::Result<()> {
    let members: Api<Member> = Api::namespaced(broker.client.clone(), SHARED_NAMESPACE);
    let found = members.get_opt(cluster).await.map_err(why).with_context(|| format!("broker: Member {cluster}"))?;
    match found {
        Some(_) => revoke(broker, cluster, progress).await?,
        None => remove(broker, cluster, progress).await?,
    }
    let object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": Member::kind(&()),
        "metadata": {"namespace": SHARED_NAMESPACE, "name": cluster},
    });
    broker.delete(&object, progress).await?;
    progress.say(&format!("the id {cluster} is free"));
    Ok(())
}

async fn remove(broker: &Site, cluster: &str, progress: &mut Progress<'_>) -> anyhow::Result<()> {
    for object in objects::rights(cluster) {
        broker.delete(&object, progress).await?;
    }
    let count = records::remove(&broker.client, cluster).await?;
    let records::Count { exports, slices, reservations } = count;
    let line =
        format!("broker: {exports} exports, {slices} slices and {reservations} reservations of {cluster} deleted");
    if count.is_nothing() {
        progress.say(&line)
    } else {
        progress.changed(&line)
    }
    Ok(())
}
