//! ClusterSets of members on real API servers, joined and run by `mcs` as a user would.
//!
//! Tests that only use namespaces of their own share one ([`World::shared`]), as starting one costs more than most tests;
//! those that break something have theirs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use anyhow::{Context as _, Result};
use mcs_tests::apiserver::ApiServer;
use mcs_tests::client::{Client, Kind};
use mcs_tests::mcs::{self, Controller, init_broker, join_arguments};
use serde_json::Value;

use crate::SOON;
use crate::objects::{self, label};

/// A broker and its members.
pub(crate) struct World {
    /// Of its own, or the first member's server.
    pub(crate) broker: ApiServer,
    pub(crate) broker_client: Client,
    pub(crate) members: Vec<Member>,
}

/// A cluster that joined.
pub(crate) struct Member {
    pub(crate) id: String,
    /// Before the server, which has its log: what is dropped first can still read it.
    pub(crate) controller: Controller,
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
}

/// What kind of world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// Two members, and the broker's API server is the first one's.
    TwoOneIsTheBroker,
    /// Three members and a broker with an API server of its own, which runs nothing else.
    ThreeAndABroker,
}

impl World {
    /// A world that tests share: what they write must be in a namespace of their own ([`World::namespace`]).
    pub(crate) fn shared(shape: Shape) -> Arc<Self> {
        static SHARED: [OnceLock<Result<Arc<World>, String>>; 2] = [OnceLock::new(), OnceLock::new()];
        // Whoever comes first starts it, the others wait; what failed once is not tried again by every test.
        let shared = SHARED[usize::from(shape == Shape::ThreeAndABroker)].get_or_init(|| {
            let world = match shape {
                Shape::TwoOneIsTheBroker => Self::start_on_a_member(2),
                Shape::ThreeAndABroker => Self::start(3),
            };
            world.map(Arc::new).map_err(|error| format!("{error:#}"))
        });
        Arc::clone(shared.as_ref().unwrap_or_else(|error| panic!("start a shared world: {error}")))
    }

    /// Members `a`, `b`, … and a broker of its own.
    pub(crate) fn start(members: usize) -> Result<Self> {
        let (broker, servers) = thread::scope(|scope| {
            let broker = scope.spawn(|| ApiServer::start("broker"));
            let servers = ApiServer::start_many(members);
            (broker.join().expect("no panic"), servers)
        });
        Self::join(broker?, servers?)
    }

    /// Members `a`, `b`, … of which the first is the broker too.
    pub(crate) fn start_on_a_member(members: usize) -> Result<Self> {
        let servers = ApiServer::start_many(members)?;
        Self::join(servers[0].clone(), servers)
    }

    fn join(broker: ApiServer, servers: Vec<ApiServer>) -> Result<Self> {
        init_broker(&broker)?;
        let members: Vec<Member> =
            servers.into_iter().map(|server| Member::join(server, &broker)).collect::<Result<_>>()?;
        let world = Self { broker_client: broker.client()?, broker, members };
        for member in &world.members {
            world.wait_for_lease(member)?;
        }
        Ok(world)
    }

    /// Waits until a member's controller has shown a sign of life at the broker.
    pub(crate) fn wait_for_lease(&self, member: &Member) -> Result<()> {
        let namespace = format!("mcs-{}", member.id);
        let lease = (Kind::LEASE, namespace.as_str(), "member");
        let there = |object: Option<&Value>| object.is_some_and(|lease| lease["spec"]["renewTime"].is_string());
        self.broker_client.wait(lease, SOON, "renewed", there).map(drop)
    }

    /// A new namespace in every member.
    pub(crate) fn namespace(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        for member in &self.members {
            member.client.create(&objects::namespace(&name)).unwrap();
        }
        name
    }
}

impl Member {
    /// Joins under the server's name and starts a controller, with the rights that it has in a Pod.
    pub(crate) fn join(server: ApiServer, broker: &ApiServer) -> Result<Self> {
        let id = server.name().to_owned();
        mcs::run(join_arguments(&server, broker, &id)).with_context(|| format!("join {id}"))?;
        let controller = Controller::start_as_account(&server)?;
        Ok(Self { id, client: server.client()?, server, controller })
    }

    /// Writes a service, its export and, behind both, endpoints: what every export test begins with.
    pub(crate) fn export(&self, namespace: &str, service: &Value) {
        let name = service["metadata"]["name"].as_str().unwrap();
        self.client.apply(service).unwrap();
        self.client.apply(&objects::export(namespace, name)).unwrap();
    }

    /// Takes an export back.
    pub(crate) fn unexport(&self, namespace: &str, name: &str) {
        self.client.delete(Kind::EXPORT, namespace, name).unwrap();
    }

    /// Writes a slice of each family for a service, with an endpoint at each of these last numbers of the member's own range.
    pub(crate) fn endpoints(&self, namespace: &str, service: &Value, last: &[u8]) -> Vec<String> {
        let name = service["metadata"]["name"].as_str().unwrap();
        let ports: Vec<Value> = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
        let number = 10 + self.id.bytes().next().unwrap_or_default() % 26;
        let v4: Vec<String> = last.iter().map(|last| format!("10.{number}.0.{last}")).collect();
        let v6: Vec<String> = last.iter().map(|last| format!("fd00:{number}::{last:x}")).collect();
        for (family, addresses) in [("v4", &v4), ("v6", &v6)] {
            let slice = objects::slice(namespace, name, &format!("{name}-{family}"), addresses, &ports);
            self.client.apply(&slice).unwrap();
        }
        let mut all = [v4, v6].concat();
        all.sort();
        all
    }

    /// Waits until an import is as it should be, and returns it.
    pub(crate) fn import(&self, namespace: &str, name: &str, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let done = |object: Option<&Value>| object.is_some_and(&done);
        let import = self.client.wait((Kind::IMPORT, namespace, name), SOON, what, done);
        import.unwrap_or_else(|error| panic!("{}: {error:#}", self.id)).expect("done only if there")
    }

    /// Waits until there is no import.
    pub(crate) fn no_import(&self, namespace: &str, name: &str) {
        let gone = self.client.wait((Kind::IMPORT, namespace, name), SOON, "gone", |object| object.is_none());
        gone.unwrap_or_else(|error| panic!("{}: {error:#}", self.id));
    }

    /// Waits until an export has a condition of this status, whatever else it has, and returns the export.
    pub(crate) fn exported(&self, namespace: &str, name: &str, kind: &str, status: &str) -> Value {
        let what = format!("{kind} is {status}");
        let done = |object: Option<&Value>| {
            object.and_then(|object| mcs_tests::client::condition(object, kind)).is_some_and(|c| c["status"] == status)
        };
        let export = self.client.wait((Kind::EXPORT, namespace, name), SOON, &what, done);
        export.unwrap_or_else(|error| panic!("{}: {error:#}", self.id)).expect("done only if there")
    }

    /// Waits until the imported slices of a service, from all clusters, have just these endpoints; returns the slices.
    pub(crate) fn imported(&self, namespace: &str, name: &str, expected: &[String]) -> Vec<Value> {
        let what = format!("endpoints of {name} are {expected:?}");
        let all = self.client.wait_all((Kind::SLICE, namespace), SOON, &what, |slices| {
            objects::addresses(imported_slices(slices.iter().copied(), name)) == expected
        });
        let all = all.unwrap_or_else(|error| panic!("{}: {error:#}", self.id));
        imported_slices(&all, name).cloned().collect()
    }
}

/// The slices that belong to an import.
pub(crate) fn imported_slices<'a>(
    slices: impl IntoIterator<Item = &'a Value>,
    import: &str,
) -> impl Iterator<Item = &'a Value> {
    slices.into_iter().filter(move |slice| label(slice, "multicluster.kubernetes.io/service-name") == Some(import))
}
