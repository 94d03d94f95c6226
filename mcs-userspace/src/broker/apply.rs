//! Makes objects what they should be, and says in one line each what was done.
//!
//! Server-side apply with field manager `mcs`: fields of others stay, a second run changes nothing, and whether it changed
//! something is told by the resourceVersion.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::kubeconfig::{is_code, why};
use crate::api::crds;

/// Field manager of everything that the verbs write.
pub const MANAGER: &str = "mcs";

/// How long an API server may take to serve a CRD that it accepted.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(60);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(50);

/// Where the lines go: one for each thing done or found.
pub struct Progress<'a> {
    out: &'a mut (dyn Write + Send),
    changes: usize,
}

impl<'a> Progress<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut (dyn Write + Send)) -> Self {
        Self { out, changes: 0 }
    }

    /// Something was changed.
    pub fn changed(&mut self, line: &str) {
        self.changes += 1;
        self.say(line);
    }

    /// Something is as it should be, or is worth knowing.
    pub fn say(&mut self, line: &str) {
        let _a_closed_pipe_stops_no_work = writeln!(self.out, "{line}");
    }

    /// How many changes there were.
    #[must_use]
    pub const fn changes(&self) -> usize {
        self.changes
    }
}

/// One API server, with the name that its lines begin with.
#[derive(Clone)]
pub struct Site {
    /// `broker` or `member`.
    pub name: &'static str,
    /// Who speaks to it.
    pub client: Client,
}

/// The identity of an object that is JSON.
struct Target {
    resource: ApiResource,
    namespace: Option<String>,
    name: String,
}

impl Target {
    fn of(object: &Value) -> anyhow::Result<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let (version, kind) =
            (text("/apiVersion").context("apiVersion: missing")?, text("/kind").context("kind: missing")?);
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        Ok(Self {
            resource: ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind)),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name").context("metadata.name: missing")?,
        })
    }

    fn api(&self, client: Client) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &self.resource),
            None => Api::all_with(client, &self.resource),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = &self.resource.kind;
        match &self.namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{}", self.name),
            None => write!(f, "{kind} {}", self.name),
        }
    }
}

impl Site {
    /// Creates or changes one object.
    ///
    /// # Errors
    /// The API server refuses it, or cannot be reached.
    pub async fn apply(&self, object: &Value, progress: &mut Progress<'_>) -> anyhow::Result<()> {
        let target = Target::of(object)?;
        self.apply_target(object, &target, progress).await.with_context(|| format!("{}: {target}", self.name))
    }

    async fn apply_target(&self, object: &Value, target: &Target, progress: &mut Progress<'_>) -> anyhow::Result<()> {
        let api = target.api(self.client.clone());
        let before = match api.get_metadata_opt(&target.name).await {
            Ok(found) => found.and_then(|found| found.resource_version()),
            Err(error) => return Err(why(error)),
        };
        let params = PatchParams::apply(MANAGER).force();
        let deadline = Instant::now() + ESTABLISHED_WITHIN;
        let after = loop {
            match api.patch(&target.name, &params, &Patch::Apply(object)).await {
                // a kind is served a moment after its CRD says so, a namespace known a moment after it was created
                Err(error) if is_code(&error, 404) && Instant::now() < deadline => sleep(POLL).await,
                Err(error) => return Err(why(error)),
                Ok(after) => break after.resource_version(),
            }
        };
        let site = self.name;
        match before {
            None => progress.changed(&format!("{site}: {target} created")),
            Some(_) if before == after => progress.say(&format!("{site}: {target} unchanged")),
            Some(_) => progress.changed(&format!("{site}: {target} changed")),
        }
        Ok(())
    }

    /// [`Self::apply`] for each, in their order.
    ///
    /// # Errors
    /// The first that fails; the others are not tried.
    pub async fn apply_all(&self, objects: &[Value], progress: &mut Progress<'_>) -> anyhow::Result<()> {
        for object in objects {
            self.apply(object, progress).await?;
        }
        Ok(())
    }

    /// Installs CRDs and waits until all are served. One that is installed in a newer form stays as it is.
    ///
    /// `labels` are those that hold release and revision.
    ///
    /// # Errors
    /// The API server refuses one, or does not serve it in time, or is about to delete it.
    pub async fn install(
        &self,
        wanted: &[CustomResourceDefinition],
        labels: (&str, &str),
        progress: &mut Progress<'_>,
    ) -> anyhow::Result<()> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for crd in wanted {
            let name = crd.name_any();
            let what = || format!("{}: CustomResourceDefinition {name}", self.name);
            let installed = api.get_opt(&name).await.map_err(why).with_context(what)?;
            if let Some(installed) = &installed {
                if installed.metadata.deletion_timestamp.is_some() {
                    bail!("{}: is being deleted, and all its objects with it: try again when it is gone", what());
                }
                if let Some(newer) = crds::newer(installed, crd, labels.0, labels.1) {
                    progress.say(&format!("{} kept: {newer}, which is newer than this mcs knows", what()));
                    continue;
                }
            }
            self.apply(&serde_json::to_value(crd)?, progress).await?;
        }
        for crd in wanted {
            let name = crd.name_any();
            self.established(&api, &name)
                .await
                .with_context(|| format!("{}: CustomResourceDefinition {name}", self.name))?;
        }
        Ok(())
    }

    async fn established(&self, api: &Api<CustomResourceDefinition>, name: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + ESTABLISHED_WITHIN;
        loop {
            let crd = api.get(name).await.map_err(why)?;
            if crds::established(&crd) {
                return Ok(());
            }
            if let Some(refused) = crds::refused(&crd) {
                bail!("{refused}");
            }
            if Instant::now() >= deadline {
                bail!("is not served {} s after it was installed", ESTABLISHED_WITHIN.as_secs());
            }
            sleep(POLL).await;
        }
    }

    /// Deletes one object, which need not exist.
    ///
    /// # Errors
    /// The API server refuses, or cannot be reached.
    pub async fn delete(&self, object: &Value, progress: &mut Progress<'_>) -> anyhow::Result<()> {
        let target = Target::of(object)?;
        let api = target.api(self.client.clone());
        match api.delete(&target.name, &DeleteParams::default()).await {
            Ok(_) => progress.changed(&format!("{}: {target} deleted", self.name)),
            Err(error) if is_code(&error, 404) => {}
            Err(error) => return Err(why(error)).with_context(|| format!("{}: {target}", self.name)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::broker::{member_objects, objects};

    #[test]
    fn every_object_of_ours_is_found_under_its_plural() {
        let all =
            [objects::shared(), objects::member("a"), objects::invitation("a"), member_objects::objects()].concat();
        let mut plurals: Vec<String> = all.iter().map(|object| Target::of(object).unwrap().resource.plural).collect();
        plurals.sort();
        plurals.dedup();
        assert_eq!(
            plurals,
            [
                "clusterrolebindings",
                "clusterroles",
                "namespaces",
                "rolebindings",
                "roles",
                "serviceaccounts",
                "validatingadmissionpolicies",
                "validatingadmissionpolicybindings"
            ]
        );
        let property =
            json!({"apiVersion": "about.k8s.io/v1beta1", "kind": "ClusterProperty", "metadata": {"name": "x"}});
        assert_eq!(Target::of(&property).unwrap().resource.plural, "clusterproperties");
    }
}
