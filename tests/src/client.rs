//! What tests ask of an API server, without a runtime of their own: objects are JSON values, kinds are found by discovery,
//! and waiting means watching, with a deadline and the last that was seen in the error.

mod follow;
mod kind;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, TypeMeta};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, ApiResource, Scope};
use kube::{Api, Config};
use serde_json::Value;
use tokio::runtime::Runtime;

pub use follow::{Change, Follow};
pub use kind::Kind;

/// Who the tests are in `managedFields`.
const MANAGER: &str = "tests";
/// How long one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// A client of one API server, with the rights of one kubeconfig.
pub struct Client {
    client: kube::Client,
    known: Mutex<BTreeMap<Kind, (ApiResource, ApiCapabilities)>>,
}

/// Where objects are: a namespace's name, or empty for all namespaces and for kinds without.
pub type Namespace<'a> = &'a str;

impl Client {
    /// For the current context of a kubeconfig. Nothing is sent yet.
    pub fn connect(kubeconfig: &Path) -> Result<Self> {
        let read = || format!("kubeconfig {}", kubeconfig.display());
        let file = Kubeconfig::read_from(kubeconfig).with_context(read)?;
        let client = runtime()?.block_on(async {
            let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            // A server that hangs is a case that tests make.
            config.connect_timeout = Some(REQUEST_LIMIT);
            anyhow::Ok(kube::Client::try_from(config)?)
        });
        Ok(Self { client: client.with_context(read)?, known: Mutex::default() })
    }

    /// What a path of the server answers.
    pub fn raw(&self, path: &str) -> Result<String> {
        let request = http::Request::get(path).body(Vec::new()).with_context(|| format!("GET {path}"))?;
        self.run(&format!("GET {path}"), self.client.request_text(request))
    }

    /// What a POST of an object to a path answers, for subresources such as tokens.
    pub fn post(&self, path: &str, object: &Value) -> Result<Value> {
        let body = serde_json::to_vec(object).context("write an object")?;
        let request = http::Request::post(path).header("Content-Type", "application/json").body(body);
        let request = request.with_context(|| format!("POST {path}"))?;
        self.run(&format!("POST {path}"), self.client.request(request))
    }

    /// An object, or none.
    pub fn get(&self, kind: Kind, namespace: Namespace<'_>, name: &str) -> Result<Option<Value>> {
        let api = self.api(kind, namespace)?;
        let object = self.run(&format!("get {kind} {namespace}/{name}"), api.get_opt(name))?;
        object.map(value).transpose()
    }

    /// All objects of a kind.
    pub fn list(&self, kind: Kind, namespace: Namespace<'_>) -> Result<Vec<Value>> {
        let api = self.api(kind, namespace)?;
        let list = self.run(&format!("list {kind} in {namespace:?}"), api.list(&ListParams::default()))?;
        // Objects of a list do not say what they are.
        let types = TypeMeta { api_version: kind.api_version.to_owned(), kind: kind.name.to_owned() };
        let typed = |object: DynamicObject| value(DynamicObject { types: Some(types.clone()), ..object });
        list.items.into_iter().map(typed).collect()
    }

    /// Creates an object that must not be there yet.
    pub fn create(&self, object: &Value) -> Result<Value> {
        let Addressed { api, what, object, .. } = self.address("create", object)?;
        value(self.run(&what, api.create(&PostParams::default(), &object))?)
    }

    /// Creates an object, or makes it what is said: server-side apply, with force.
    pub fn apply(&self, object: &Value) -> Result<Value> {
        let Addressed { api, what, name, object } = self.address("apply", object)?;
        let parameters = PatchParams::apply(MANAGER).force();
        value(self.run(&what, api.patch(&name, &parameters, &Patch::Apply(&object)))?)
    }

    /// [`apply`](Self::apply), each document of a YAML text.
    pub fn apply_yaml(&self, text: &str) -> Result<()> {
        for document in serde_saphyr::from_multiple::<Value>(text).context("read YAML")? {
            self.apply(&document)?;
        }
        Ok(())
    }

    /// Changes an object by a merge patch.
    pub fn patch(&self, kind: Kind, namespace: Namespace<'_>, name: &str, patch: &Value) -> Result<Value> {
        let api = self.api(kind, namespace)?;
        let what = format!("patch {kind} {namespace}/{name}");
        value(self.run(&what, api.patch(name, &PatchParams::default(), &Patch::Merge(patch)))?)
    }

    /// Changes an object's status by a merge patch.
    pub fn patch_status(&self, kind: Kind, namespace: Namespace<'_>, name: &str, patch: &Value) -> Result<Value> {
        let api = self.api(kind, namespace)?;
        let what = format!("patch status of {kind} {namespace}/{name}");
        value(self.run(&what, api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)))?)
    }

    /// Changes an object's status by a strategic merge patch, which knows that a list of conditions has one of each type.
    pub fn merge_status(&self, kind: Kind, namespace: Namespace<'_>, name: &str, patch: &Value) -> Result<Value> {
        let api = self.api(kind, namespace)?;
        let what = format!("merge into the status of {kind} {namespace}/{name}");
        value(self.run(&what, api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)))?)
    }

    /// Writes a whole object over the one that is there.
    pub fn replace(&self, object: &Value) -> Result<Value> {
        let Addressed { api, what, name, object } = self.address("replace", object)?;
        value(self.run(&what, api.replace(&name, &PostParams::default(), &object))?)
    }

    /// Deletes an object, which must be there.
    pub fn delete(&self, kind: Kind, namespace: Namespace<'_>, name: &str) -> Result<()> {
        let api = self.api(kind, namespace)?;
        let what = format!("delete {kind} {namespace}/{name}");
        self.run(&what, api.delete(name, &DeleteParams::default())).map(drop)
    }

    /// [`delete`](Self::delete) without a period of grace: of pods, which nobody runs here.
    pub fn delete_at_once(&self, kind: Kind, namespace: Namespace<'_>, name: &str) -> Result<()> {
        let api = self.api(kind, namespace)?;
        let what = format!("delete {kind} {namespace}/{name} at once");
        self.run(&what, api.delete(name, &DeleteParams::default().grace_period(0))).map(drop)
    }

    /// Watches the objects of a kind from now on, those that are there first.
    pub fn follow(&self, kind: Kind, namespace: Namespace<'_>) -> Result<Follow> {
        Ok(Follow::start(runtime()?, self.api(kind, namespace)?, kind, namespace))
    }

    /// Waits until an object is as it should be, or gone as it should be; `what` says so in the error.
    pub fn wait(
        &self,
        (kind, namespace, name): (Kind, Namespace<'_>, &str),
        limit: Duration,
        what: &str,
        mut done: impl FnMut(Option<&Value>) -> bool,
    ) -> Result<Option<Value>> {
        let mut follow = self.follow(kind, namespace)?;
        let find = |objects: &[&Value]| -> Option<Value> {
            objects.iter().find(|object| object["metadata"]["name"] == name).map(|object| (*object).clone())
        };
        let objects = follow
            .until(limit, what, |objects| done(find(objects).as_ref()))
            .with_context(|| format!("wait for {kind} {namespace}/{name}"))?;
        Ok(find(&objects.iter().collect::<Vec<_>>()))
    }

    /// Waits until the objects of a kind are as they should be.
    pub fn wait_all(
        &self,
        (kind, namespace): (Kind, Namespace<'_>),
        limit: Duration,
        what: &str,
        done: impl FnMut(&[&Value]) -> bool,
    ) -> Result<Vec<Value>> {
        let waiting = || format!("wait for {kind} in {namespace:?}");
        self.follow(kind, namespace)?.until(limit, what, done).with_context(waiting)
    }

    fn api(&self, kind: Kind, namespace: Namespace<'_>) -> Result<Api<DynamicObject>> {
        let (resource, _) = self.resource(kind)?;
        let client = self.client.clone();
        Ok(match namespace {
            "" => Api::all_with(client, &resource),
            namespace => Api::namespaced_with(client, namespace, &resource),
        })
    }

    /// What the server calls a kind; what was found is remembered.
    fn resource(&self, kind: Kind) -> Result<(ApiResource, ApiCapabilities)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&kind).cloned();
        if let Some(found) = known {
            return Ok(found);
        }
        let gvk = GroupVersionKind::gvk(kind.group(), kind.version(), kind.name);
        let found = self.run(&format!("find kind {kind}"), kube::discovery::pinned_kind(&self.client, &gvk))?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, found.clone());
        Ok(found)
    }

    fn address(&self, verb: &str, object: &Value) -> Result<Addressed> {
        let kind = Kind::of(object).with_context(|| format!("{verb}: no kind: {object}"))?;
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("");
        let name = object["metadata"]["name"].as_str().with_context(|| format!("{verb} {kind}: no name"))?.to_owned();
        let what = format!("{verb} {kind} {namespace}/{name}");
        let (_, capabilities) = self.resource(kind)?;
        let namespace = match (capabilities.scope, namespace) {
            (Scope::Namespaced, "") => return Err(anyhow!("{what}: no namespace")),
            (Scope::Namespaced, namespace) => namespace,
            (Scope::Cluster, _) => "",
        };
        let api = self.api(kind, namespace)?;
        let object = serde_json::from_value(object.clone()).with_context(|| what.clone())?;
        Ok(Addressed { api, what, name, object })
    }

    fn run<T, E>(&self, what: &str, request: impl Future<Output = Result<T, E>>) -> Result<T>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let answer = runtime()?.block_on(async { tokio::time::timeout(REQUEST_LIMIT, request).await });
        answer.with_context(|| format!("{what}: no answer in {REQUEST_LIMIT:?}"))?.with_context(|| what.to_owned())
    }
}

struct Addressed {
    api: Api<DynamicObject>,
    what: String,
    name: String,
    object: DynamicObject,
}

/// The HTTP status with which an API server refused, if it was the server that did.
#[must_use]
pub fn refused(error: &anyhow::Error) -> Option<u16> {
    error.chain().find_map(
        |cause| {
            if let kube::Error::Api(status) = cause.downcast_ref()? { Some(status.code) } else { None }
        },
    )
}

/// A condition of an object, by its type.
#[must_use]
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Whether an object has a condition of this status and reason.
#[must_use]
pub fn has_condition(object: &Value, kind: &str, status: &str, reason: &str) -> bool {
    condition(object, kind).is_some_and(|found| found["status"] == status && found["reason"] == reason)
}

fn value(object: DynamicObject) -> Result<Value> {
    serde_json::to_value(object).context("read an object")
}

/// One runtime for all clients of this process.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let made = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let made = made.context("start a runtime for clients")?;
    Ok(RUNTIME.get_or_init(|| made))
}
