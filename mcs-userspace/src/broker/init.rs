//! `mcs broker init`: a Kubernetes API server becomes a broker.

use anyhow::{Context as _, ensure};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};
use serde_json::{Value, json};

use super::apply::{Progress, Site};
use super::kubeconfig::{is_code, why};
use super::member_objects::labelled;
use super::objects;
use super::preflight::BrokerFacts;
use super::{BROKER_CRD_RELEASE, BROKER_CRD_REVISION, CIDRS_TO_BE, PART_OF};
use crate::clusterset::record::{ClusterSet, ClusterSetSpec, SHARED_NAMESPACE};
use crate::clusterset::vip::parse_cidrs;

/// The first Kubernetes 1.x with ValidatingAdmissionPolicies, and addresses in their expressions.
const OLDEST_MINOR: u32 = 30;

/// What the broker is to serve, as far as that is known yet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Init {
    /// The ClusterSet's id; if none, the first join names it.
    pub clusterset: Option<String>,
    /// Its CIDRs; if none, the first that names some does.
    pub cidrs: Vec<IpNet>,
}

/// Prepares the broker. Again, it changes nothing.
///
/// # Errors
/// The broker serves another ClusterSet, or has other CIDRs, or refuses something, or cannot be reached.
pub async fn run(broker: &Site, init: &Init, progress: &mut Progress<'_>) -> anyhow::Result<()> {
    let facts = BrokerFacts::read(&broker.client).await?;
    let given: Vec<String> = init.cidrs.iter().map(ToString::to_string).collect();
    parse_cidrs(&given).context("--clusterset-cidr")?;
    let (cidrs, write) = facts.cidrs(init.clusterset.as_deref(), &init.cidrs)?;
    facts.check_members_pods(&parse_cidrs(&cidrs)?)?;

    prepare(broker, progress).await?;
    let id = init.clusterset.as_ref().or_else(|| facts.clustersets.keys().next());
    match id {
        Some(id) => fix(broker, id, &cidrs, write, progress).await?,
        None if cidrs.is_empty() => {}
        None => note(broker, &cidrs, facts.cidrs_to_be == cidrs, progress).await?,
    }
    if cidrs.is_empty() {
        progress.say("broker: no ClusterSet CIDRs yet: the first `mcs join --clusterset-cidr` fixes them");
    }
    Ok(())
}

/// CRDs, the shared namespace, roles and policies: what does not depend on the ClusterSet.
///
/// # Errors
/// The broker refuses something, or cannot be reached.
pub async fn prepare(broker: &Site, progress: &mut Progress<'_>) -> anyhow::Result<()> {
    let version = broker.client.apiserver_version().await.map_err(why).context("broker: its version")?;
    // some say `30+`
    let minor = version.minor.trim_end_matches('+').parse().unwrap_or(u32::MAX);
    ensure!(
        version.major != "1" || minor >= OLDEST_MINOR,
        "broker: is Kubernetes {}, without ValidatingAdmissionPolicies: 1.{OLDEST_MINOR} or newer is needed",
        version.git_version
    );
    broker.install(&objects::crds(), (BROKER_CRD_RELEASE, BROKER_CRD_REVISION), progress).await?;
    broker.apply_all(&objects::shared(), progress).await
}

/// Writes the ClusterSet. Its CIDRs are fixed once: who comes second is told so by the API server.
///
/// # Errors
/// Somebody else was faster, or the broker refuses.
pub async fn fix(
    broker: &Site,
    id: &str,
    cidrs: &[String],
    write: bool,
    progress: &mut Progress<'_>,
) -> anyhow::Result<()> {
    let what = || format!("broker: ClusterSet {id}");
    let api: Api<ClusterSet> = Api::namespaced(broker.client.clone(), SHARED_NAMESPACE);
    let found = api.get_opt(id).await.map_err(why).with_context(what)?;
    let fixed = found.as_ref().is_some_and(|found| !found.spec.cidrs.is_empty());
    if let Some(found) = found.as_ref().filter(|found| fixed && found.spec.cidrs != cidrs) {
        ensure!(!write, "{}: got the CIDRs {} meanwhile: run this again", what(), found.spec.cidrs.join(","));
    }
    if found.is_some() && !write {
        progress.say(&format!("{} unchanged", what()));
        return Ok(());
    }
    let params = PostParams { field_manager: Some(super::apply::MANAGER.to_owned()), ..PostParams::default() };
    let written = match found {
        None => api.create(&params, &clusterset(id, cidrs)).await.map(|_| "created"),
        Some(mut found) => {
            found.spec.cidrs = cidrs.to_vec();
            api.replace(id, &params, &found).await.map(|_| "changed")
        }
    };
    match written {
        Ok(word) => progress.changed(&format!("{} {word}: CIDRs {}", what(), shown(cidrs))),
        Err(error) if is_code(&error, 409) => {
            return Err(anyhow::anyhow!("somebody else wrote it at the same time: run this again")).with_context(what);
        }
        Err(error) => return Err(why(error)).with_context(what),
    }
    Ok(())
}

/// The ClusterSet as an object.
#[must_use]
pub fn clusterset(id: &str, cidrs: &[String]) -> ClusterSet {
    let (label, value) = PART_OF;
    let labels = [(label.to_owned(), value.to_owned())];
    ClusterSet {
        metadata: ObjectMeta {
            name: Some(id.to_owned()),
            namespace: Some(SHARED_NAMESPACE.to_owned()),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        },
        spec: ClusterSetSpec { cidrs: cidrs.to_vec(), ..ClusterSetSpec::default() },
    }
}

/// The shared namespace with the CIDRs that a ClusterSet without an id yet will have.
#[must_use]
pub fn namespace_with(cidrs: &[String]) -> Value {
    labelled(json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": SHARED_NAMESPACE, "annotations": {CIDRS_TO_BE: cidrs.join(",")}},
    }))
}

/// Keeps the CIDRs until there is a ClusterSet. Under a field manager of its own, so that preparing the broker once more
/// does not take them away.
async fn note(broker: &Site, cidrs: &[String], known: bool, progress: &mut Progress<'_>) -> anyhow::Result<()> {
    let what = || format!("broker: Namespace {SHARED_NAMESPACE}");
    if known {
        progress.say(&format!("broker: ClusterSet CIDRs {} unchanged", shown(cidrs)));
        return Ok(());
    }
    let api: Api<Namespace> = Api::all(broker.client.clone());
    let params = kube::api::PatchParams::apply("mcs-clusterset-cidrs").force();
    let patch = kube::api::Patch::Apply(namespace_with(cidrs));
    api.patch(SHARED_NAMESPACE, &params, &patch).await.map_err(why).with_context(what)?;
    progress.changed(&format!("broker: ClusterSet CIDRs {}: fixed", shown(cidrs)));
    Ok(())
}

fn shown(cidrs: &[String]) -> String {
    if cidrs.is_empty() { "none yet".to_owned() } else { cidrs.join(",") }
}
