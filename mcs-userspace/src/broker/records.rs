//! What a member has at the broker, taken away: by itself when it leaves, by the broker's admin when it is revoked.

use std::fmt::Debug;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Resource};
use kube::core::NamespaceResourceScope;
use kube::{Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::kubeconfig::{is_code, why};
use crate::clusterset::record::{
    ExportRecord, LEASE, Reservation, SHARED_NAMESPACE, STATEMENT, SliceRecord, Statement, VERSION, member_namespace,
};

/// Writes to one API server at a time.
const AT_ONCE: usize = 16;

/// Objects in one answer.
const PAGE: u32 = 500;

/// How many objects of each sort were changed or deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Exports that became tombstones, or records of exports that were deleted.
    pub exports: usize,
    /// Slice records that were deleted.
    pub slices: usize,
    /// Reservations that were deleted.
    pub reservations: usize,
}

impl Count {
    /// Whether nothing was left to do.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.exports += other.exports;
        self.slices += other.slices;
        self.reservations += other.reservations;
    }
}

/// As the member itself: every export becomes a tombstone, which is what makes others withdraw it; then its slices and
/// reservations go. Tombstones stay: those who cannot see them now shall see them later.
///
/// # Errors
/// The broker refuses something, or cannot be reached. What was done is done.
pub async fn withdraw(client: &Client, cluster: &str) -> anyhow::Result<Count> {
    let namespace = member_namespace(cluster);
    let exports: Api<ExportRecord> = Api::namespaced(client.clone(), &namespace);
    let in_force = list(&exports).await.context("broker: ExportRecords")?;
    let in_force: Vec<_> = in_force.into_iter().filter(|record| !record.spec.withdrawn).collect();
    let mut count = Count { exports: in_force.len(), ..Count::default() };
    each(in_force, |mut record| {
        record.spec.withdrawn = true;
        record.spec.ips.clear();
        replace(&exports, record)
    })
    .await?;

    let slices: Api<SliceRecord> = Api::namespaced(client.clone(), &namespace);
    let all = list(&slices).await.context("broker: SliceRecords")?;
    count.slices = all.len();
    each(all, |mut record| {
        let slices = &slices;
        async move {
            // the mere end of a record withdraws nothing, that of an emptied one does
            let name = record.name_any();
            if !record.spec.slice.endpoints.is_empty() {
                record.spec.slice.endpoints.clear();
                replace(slices, record).await?;
            }
            delete(slices, &name).await
        }
    })
    .await?;
    count.reservations = release(client, cluster).await?;
    Ok(count)
}

/// As the broker's admin: everything that the member wrote is deleted, its lease included.
///
/// # Errors
/// The broker refuses something, or cannot be reached. What was done is done.
pub async fn remove(client: &Client, cluster: &str) -> anyhow::Result<Count> {
    let namespace = member_namespace(cluster);
    let slices = delete_all::<SliceRecord>(client, &namespace, |_| true).await?;
    let exports = delete_all::<ExportRecord>(client, &namespace, |_| true).await?;
    let reservations = release(client, cluster).await?;
    delete_lease(client, cluster).await?;
    Ok(Count { exports, slices, reservations })
}

async fn delete_lease(client: &Client, cluster: &str) -> anyhow::Result<()> {
    delete(&Api::<Lease>::namespaced(client.clone(), &member_namespace(cluster)), LEASE).await
}

/// The member's last word: it carries nothing and publishes nothing, and nobody waits for it. One that never had a lease
/// has nobody who waits.
///
/// # Errors
/// The broker refuses, or cannot be reached.
pub async fn say_farewell(client: &Client, cluster: &str) -> anyhow::Result<()> {
    let api: Api<Lease> = Api::namespaced(client.clone(), &member_namespace(cluster));
    let what = || format!("broker: Lease {}/{LEASE}", member_namespace(cluster));
    let Some(lease) = api.get_opt(LEASE).await.map_err(why).with_context(what)? else { return Ok(()) };
    let said = lease.annotations().get(STATEMENT).and_then(|text| serde_json::from_str(text).ok());
    let said: Statement = said.unwrap_or_default();
    if said.left {
        return Ok(());
    }
    let nothing = format!("{:016x}", 0);
    let left = Statement { version: VERSION, reserved: true, published: Some(nothing), left: true, ..said };
    let patch = json!({"metadata": {"annotations": {STATEMENT: serde_json::to_string(&left)?}}});
    let patched = api.patch(LEASE, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.map(drop).map_err(why).with_context(what)
}

/// Deletes the member's reservations. Where others carry an address, they reserve it again; until they have, it is theirs
/// because they carry it.
async fn release(client: &Client, cluster: &str) -> anyhow::Result<usize> {
    delete_all::<Reservation>(client, SHARED_NAMESPACE, |reservation| reservation.spec.holder == cluster).await
}

async fn delete_all<K>(client: &Client, namespace: &str, which: impl Fn(&K) -> bool) -> anyhow::Result<usize>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let all = list(&api).await.with_context(|| format!("broker: {}", K::plural(&())))?;
    let names: Vec<String> = all.iter().filter(|object| which(object)).map(|object| object.name_any()).collect();
    let count = names.len();
    each(names, |name| {
        let api = &api;
        async move { delete(api, &name).await }
    })
    .await?;
    Ok(count)
}

async fn list<K>(api: &Api<K>) -> anyhow::Result<Vec<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut all = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = match api.list(&params).await {
            Err(error) if is_code(&error, 404) => return Ok(all),
            other => other.map_err(why)?,
        };
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

async fn each<T, F, Fut>(items: Vec<T>, work: F) -> anyhow::Result<()>
where
    F: FnMut(T) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    stream::iter(items).map(work).buffer_unordered(AT_ONCE).try_collect().await
}

/// One that is gone, or was changed meanwhile, is somebody else's to see to, or the next pass's.
async fn replace<K>(api: &Api<K>, object: K) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + serde::Serialize + Debug,
{
    let name = object.name_any();
    let params = PostParams { field_manager: Some(super::apply::MANAGER.to_owned()), ..PostParams::default() };
    match api.replace(&name, &params, &object).await {
        Err(error) if !is_code(&error, 404) && !is_code(&error, 409) => {
            Err(why(error)).with_context(|| format!("broker: {} {name}", K::kind(&())))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn delete<K>(api: &Api<K>, name: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    match api.delete(name, &DeleteParams::default()).await {
        Err(error) if !is_code(&error, 404) => {
            Err(why(error)).with_context(|| format!("broker: {} {name}", K::kind(&())))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}
