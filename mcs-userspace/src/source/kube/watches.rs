//! The watches of an agent, and what they tell.
//!
//! ```text
//!  ServiceImports (version by the definition) ┐
//!  EndpointSlices with the label of an import │
//!  CustomResourceDefinition of ServiceImports ├─► Heard ──► KubeSource
//!  ConfigMap mcs-system/mcs-clusterset        │
//!  Node, this one                             ┘
//! ```

use std::time::Duration;

use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, GetParams, Request, Resource as _};
use tokio::sync::{mpsc, watch};

use super::object::{ConfigMap, Crd, Node, Text};
use crate::api::{GROUP, SERVICE_NAME};
use crate::apiserver::{
    Access, Listener, Place, Question, Reach, Server, Sight, Troubles, Watched, follow, probe, server,
};
use crate::broker::credentials::CONFIG_MAP;
use crate::clusterset::local::SYSTEM_NAMESPACE;
use crate::manifest::Served;

/// Sights that wait before the watches wait: objects' texts, of which a page lies in memory anyway.
const QUEUE: usize = 64;

/// The definition of ServiceImports.
const CRD: &str = "serviceimports.multicluster.x-k8s.io";

/// What a watch saw.
#[derive(Debug)]
pub(super) enum Heard {
    ListStarted(Served),
    Applied(Served, Text),
    /// On a live watch.
    Deleted(Served, Text),
    Listed(Served, u64),
    Interrupted(Served),
    /// The definition as of a version; None if there is none.
    Crd(u64, Option<Box<Crd>>),
    /// The definition's watch starts over: versions may go back.
    CrdInterrupted,
    Joined(Option<ConfigMap>),
    Node(Option<Node>),
}

/// Where all that is seen goes.
pub(super) type Hearing = mpsc::Sender<Heard>;

/// What the tasks share with the one who listens.
#[derive(Debug)]
pub(super) struct Watches {
    pub(super) heard: mpsc::Receiver<Heard>,
    pub(super) troubles: Troubles,
    /// Told which version of ServiceImports to ask for.
    pub(super) version: watch::Sender<Option<&'static str>>,
}

impl Watches {
    /// Starts them, those of membership and Node only if a node is named. They end with the runtime.
    ///
    /// # Errors
    /// The API server's configuration cannot be used.
    pub(super) async fn start(access: &Access, node: Option<&str>) -> anyhow::Result<Self> {
        let client = access.client().await?;
        let troubles = Troubles::default();
        let (connector, server) = server("cluster");
        connector.connect(client, "", false);
        drop(tokio::spawn(probe(connector.into(), server.clone(), Version, troubles.clone())));

        let (sender, heard) = mpsc::channel(QUEUE);
        let (version, asked_for) = watch::channel(None);
        drop(tokio::spawn(follow_imports(asked_for, server.clone(), sender.clone(), troubles.clone())));
        let slices =
            Place { labels: Some(SERVICE_NAME.to_owned()), ..Place::of(ApiResource::erase::<EndpointSlice>(&())) };
        let listener = Objects { kind: Served::Slices, hearing: sender.clone() };
        let what = "watch of EndpointSlices".to_owned();
        drop(tokio::spawn(follow(what, slices, server.clone(), listener, troubles.clone())));

        let one = One {
            hearing: sender.clone(),
            seen: false,
            tell: Heard::of_crd,
            interrupted: || Some(Heard::CrdInterrupted),
        };
        watch_one::<CustomResourceDefinition, Crd>(&server, &troubles, None, CRD, one);
        if let Some(node) = node {
            let hearing = sender.clone();
            let one = One { hearing, seen: false, tell: |_, map| Heard::Joined(map), interrupted: || None };
            watch_one::<v1::ConfigMap, ConfigMap>(&server, &troubles, Some(SYSTEM_NAMESPACE), CONFIG_MAP, one);
            let one = One { hearing: sender, seen: false, tell: |_, node| Heard::Node(node), interrupted: || None };
            watch_one::<v1::Node, Node>(&server, &troubles, None, node, one);
        }
        Ok(Self { heard, troubles, version })
    }
}

impl Heard {
    fn of_crd(version: u64, crd: Option<Crd>) -> Self {
        Self::Crd(version, crd.map(Box::new))
    }
}

fn watch_one<R: kube::Resource<DynamicType = ()>, K: Watched>(
    server: &Server,
    troubles: &Troubles,
    namespace: Option<&'static str>,
    name: &str,
    listener: One<K>,
) {
    let place = Place::one(ApiResource::erase::<R>(&()), namespace, name);
    let what = format!("watch of {} {name}", place.resource.kind);
    drop(tokio::spawn(follow(what, place, server.clone(), listener, troubles.clone())));
}

/// Follows ServiceImports in the version that is asked for, while one is.
async fn follow_imports(
    mut version: watch::Receiver<Option<&'static str>>,
    server: Server,
    hearing: Hearing,
    troubles: Troubles,
) {
    const WHAT: &str = "watch of ServiceImports";
    loop {
        let Ok(Some(now)) = version.wait_for(Option::is_some).await.map(|version| *version) else { return };
        let place = Place::of(Place::resource(GROUP, now, "ServiceImport", "serviceimports"));
        let listener = Objects { kind: Served::Imports, hearing: hearing.clone() };
        tokio::select! {
            () = follow(WHAT.to_owned(), place, server.clone(), listener, troubles.clone()) => return,
            changed = version.wait_for(|version| *version != Some(now)) => {
                if changed.is_err() {
                    return;
                }
            }
        }
        // Whether the definition is there is told by its own watch.
        troubles.clear(WHAT);
        if hearing.send(Heard::Interrupted(Served::Imports)).await.is_err() {
            return;
        }
    }
}

/// Passes on what the watch of ServiceImports or EndpointSlices sees.
struct Objects {
    kind: Served,
    hearing: Hearing,
}

impl Listener<Text> for Objects {
    /// A definition that is deleted takes its objects along, and each is seen deleted on a live watch: so before that is
    /// passed on, and before lists, it is looked at. It is marked for deletion before its objects go. Slices' own
    /// deletions follow those of imports, if at all: for them what its watch tells is soon enough.
    async fn look_around(&mut self, reach: &Reach) -> Result<(), kube::Error> {
        if self.kind == Served::Slices {
            return Ok(());
        }
        let path = CustomResourceDefinition::url_path(&(), None);
        let request = Request::new(path).get(CRD, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
        let heard = match reach.client.request::<Crd>(request).await {
            Ok(crd) => Heard::of_crd(crd.version(), Some(crd)),
            Err(kube::Error::Api(status)) if status.code == 404 => Heard::Crd(u64::MAX, None),
            Err(error) => return Err(error),
        };
        // If nobody listens, the next word notices.
        self.hearing.send(heard).await.ok();
        Ok(())
    }

    async fn hear(&mut self, sight: Sight<Text>) -> bool {
        let kind = self.kind;
        let heard = match sight {
            Sight::ListStarted => Heard::ListStarted(kind),
            Sight::Applied(object) => Heard::Applied(kind, object),
            Sight::Deleted(object) => Heard::Deleted(kind, object),
            Sight::Listed(version) => Heard::Listed(kind, version),
            Sight::Interrupted => Heard::Interrupted(kind),
        };
        self.hearing.send(heard).await.is_ok()
    }
}

/// Passes on what the watch of a single object sees, its absence included.
struct One<K> {
    hearing: Hearing,
    /// Whether the list that is under way has it.
    seen: bool,
    tell: fn(u64, Option<K>) -> Heard,
    interrupted: fn() -> Option<Heard>,
}

impl<K: Watched> Listener<K> for One<K> {
    async fn look_around(&mut self, _reach: &Reach) -> Result<(), kube::Error> {
        Ok(())
    }

    async fn hear(&mut self, sight: Sight<K>) -> bool {
        let heard = match sight {
            Sight::ListStarted => {
                self.seen = false;
                None
            }
            Sight::Applied(object) => {
                self.seen = true;
                Some((self.tell)(object.version(), Some(object)))
            }
            Sight::Deleted(object) => Some((self.tell)(object.version(), None)),
            Sight::Listed(version) => (!self.seen).then(|| (self.tell)(version, None)),
            Sight::Interrupted => (self.interrupted)(),
        };
        match heard {
            Some(heard) => self.hearing.send(heard).await.is_ok(),
            None => !self.hearing.is_closed(),
        }
    }
}

/// Asks the API server for its version: everybody may.
struct Version;

impl Question for Version {
    /// Every node asks: seldom, as nothing is lost by knowing late.
    const EVERY: Duration = Duration::from_secs(20);

    async fn ask(&self, reach: &Reach) -> kube::Result<()> {
        reach.client.apiserver_version().await.map(drop)
    }

    fn refusal(&self, code: u16, message: &str) -> String {
        match code {
            401 => "refuses our credentials: look at the kubeconfig, or at the ServiceAccount".to_owned(),
            code => format!("answers {code}: {message}"),
        }
    }
}
