//! Clusters and a broker that do what they are told at once: every write is an event to all who watch.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clusterset::controller::{Controller, Settings};
use crate::clusterset::event::{CrdState, Event, Failure, Kind, Now, Object, Op};
use crate::clusterset::local::{
    CLUSTER_ID_PROPERTY, CLUSTERSET_PROPERTY, Export, Import, ImportedSlice, Meta, Service, SourceSlice,
};
use crate::clusterset::record::{
    ClusterSetSpec, LEASE, MemberSpec, SHARED_NAMESPACE, Statement, member_namespace, reservation_name,
};
use crate::clusterset::service::{ChangedAt, Endpoint, Endpoints, Exported, Family, Port, SlicePort};
use crate::model::ObjectKey;

pub(super) fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    ObjectKey::new(namespace, name)
}

/// What an API server holds.
#[derive(Clone, Default)]
pub(super) struct Server {
    pub(super) objects: BTreeMap<(Kind, ObjectKey), Object>,
    version: u64,
}

fn meta_of(object: &mut Object) -> Option<&mut Meta> {
    match object {
        Object::Export(export) => Some(&mut export.meta),
        Object::Import(import) => Some(&mut import.meta),
        Object::ImportedSlice(slice) => Some(&mut slice.meta),
        Object::ClusterSet(meta, _)
        | Object::Member(meta, _)
        | Object::Reservation(meta, _)
        | Object::ExportRecord(meta, _)
        | Object::SliceRecord(meta, _)
        | Object::Lease(meta, _) => Some(meta),
        Object::Namespace { .. }
        | Object::Service(_)
        | Object::SourceSlice(_)
        | Object::Property(_)
        | Object::Unreadable { .. } => None,
    }
}

impl Server {
    fn put(&mut self, kind: Kind, key: &ObjectKey, mut object: Object) -> Event {
        self.version += 1;
        let old =
            self.objects.get_mut(&(kind, key.clone())).and_then(meta_of).map(|meta| (meta.uid.clone(), meta.created));
        if let Some(meta) = meta_of(&mut object) {
            let created = meta.created;
            let (uid, created) = old.unwrap_or_else(|| (format!("uid-{}", self.version), created));
            *meta = Meta { uid, created, resource_version: self.version };
        }
        self.objects.insert((kind, key.clone()), object.clone());
        Event::Applied(kind, key.clone(), Box::new(object))
    }

    fn write(&mut self, kind: Kind, key: &ObjectKey, expected: u64, object: Object) -> Result<Event, Failure> {
        let old = self.objects.get_mut(&(kind, key.clone())).and_then(meta_of).map(|meta| meta.resource_version);
        match (expected, old) {
            (0, None) => Ok(self.put(kind, key, object)),
            (0, Some(_)) => Err(Failure::Conflict),
            (_, None) => Err(Failure::NotFound),
            (expected, Some(old)) if expected == old => Ok(self.put(kind, key, object)),
            (_, Some(_)) => Err(Failure::Conflict),
        }
    }

    fn delete(&mut self, kind: Kind, key: &ObjectKey) -> Result<Event, Failure> {
        self.version += 1;
        let old = self.objects.remove(&(kind, key.clone()));
        old.map(|_| Event::Deleted(kind, key.clone())).ok_or(Failure::NotFound)
    }
}

pub(super) struct Cluster {
    pub(super) id: String,
    pub(super) controller: Controller,
    pub(super) server: Server,
    /// The broker answers it.
    pub(super) connected: bool,
    /// It runs.
    pub(super) alive: bool,
    /// Everything that it wanted.
    pub(super) wanted: Vec<Op>,
}

pub(super) struct World {
    pub(super) now: Now,
    pub(super) broker: Server,
    pub(super) clusters: Vec<Cluster>,
}

impl World {
    /// Members `a`, `b` … of one ClusterSet, each with the namespace `shop`.
    pub(super) fn new(members: usize) -> Self {
        Self::with_cidrs(members, &["10.97.0.0/16"])
    }

    pub(super) fn with_cidrs(members: usize, cidrs: &[&str]) -> Self {
        let mut broker = Server::default();
        let cidrs = cidrs.iter().map(|&cidr| cidr.to_owned()).collect();
        let set = ClusterSetSpec { cidrs, ..ClusterSetSpec::default() };
        broker.put(
            Kind::ClusterSets,
            &ObjectKey::new(SHARED_NAMESPACE, "set"),
            Object::ClusterSet(Meta::default(), set),
        );
        let mut world = Self { now: Duration::from_secs(1), broker, clusters: Vec::new() };
        for id in ["a", "b", "c", "d", "e"].into_iter().take(members) {
            world.register(id);
            let mut server = Server::default();
            server.put(Kind::Namespaces, &key("shop"), Object::Namespace { terminating: false });
            server.put(Kind::Properties, &key(CLUSTER_ID_PROPERTY), Object::Property(id.to_owned()));
            server.put(Kind::Properties, &key(CLUSTERSET_PROPERTY), Object::Property("set".to_owned()));
            world.clusters.push(Cluster {
                id: id.to_owned(),
                controller: Controller::new(Settings::default(), 1),
                server,
                connected: true,
                alive: true,
                wanted: Vec::new(),
            });
        }
        for cluster in 0..members {
            world.start(cluster);
        }
        world.run(12);
        world
    }

    fn register(&mut self, id: &str) {
        let spec = MemberSpec { cluster_uid: format!("uid-of-{id}"), ..MemberSpec::default() };
        self.broker.put(Kind::Members, &ObjectKey::new(SHARED_NAMESPACE, id), Object::Member(Meta::default(), spec));
    }

    /// A new process, which lists everything that it can reach.
    pub(super) fn start(&mut self, cluster: usize) {
        let of = &mut self.clusters[cluster];
        of.controller = Controller::new(Settings::default(), 1);
        of.alive = true;
        let uid = format!("uid-of-{}", of.id);
        for event in [
            Event::ClusterUid(uid),
            Event::Crd(Kind::Exports, CrdState::Present("crd".to_owned())),
            Event::Crd(Kind::Properties, CrdState::Present("crd".to_owned())),
            Event::Leader(true),
        ] {
            of.controller.handle(event, self.now);
        }
        for kind in Kind::LOCAL {
            self.list(cluster, kind);
        }
        if self.clusters[cluster].connected {
            for kind in Kind::BROKER {
                self.list(cluster, kind);
            }
        }
    }

    /// Lists a kind to a cluster's process.
    pub(super) fn list(&mut self, cluster: usize, kind: Kind) {
        let now = self.now;
        let of = &mut self.clusters[cluster];
        let server = if kind.at_broker() { &self.broker } else { &of.server };
        let objects: Vec<_> = server.objects.iter().filter(|((of, _), _)| *of == kind).collect();
        let version = server.version;
        of.controller.handle(Event::ListStarted(kind), now);
        for ((_, key), object) in objects {
            of.controller.handle(Event::Applied(kind, key.clone(), Box::new(object.clone())), now);
        }
        of.controller.handle(Event::Listed(kind, version), now);
    }

    /// The broker is back, with what it has now.
    pub(super) fn reconnect(&mut self, cluster: usize) {
        self.clusters[cluster].connected = true;
        for kind in Kind::BROKER {
            self.list(cluster, kind);
        }
    }

    pub(super) fn disconnect(&mut self, cluster: usize) {
        self.clusters[cluster].connected = false;
        for kind in Kind::BROKER {
            self.clusters[cluster].controller.handle(Event::Interrupted(kind), self.now);
        }
    }

    fn broadcast(&mut self, event: &Event) {
        for cluster in self.clusters.iter_mut().filter(|cluster| cluster.connected && cluster.alive) {
            cluster.controller.handle(event.clone(), self.now);
        }
    }

    /// Somebody writes to the broker.
    pub(super) fn broker_put(&mut self, kind: Kind, key: &ObjectKey, object: Object) {
        let event = self.broker.put(kind, key, object);
        self.broadcast(&event);
    }

    pub(super) fn broker_delete(&mut self, kind: Kind, key: &ObjectKey) {
        if let Ok(event) = self.broker.delete(kind, key) {
            self.broadcast(&event);
        }
    }

    /// A user writes to a cluster.
    pub(super) fn put(&mut self, cluster: usize, kind: Kind, name: &str, object: Object) {
        let now = self.now;
        let of = &mut self.clusters[cluster];
        let event = of.server.put(kind, &key(name), object);
        if of.alive {
            of.controller.handle(event, now);
        }
    }

    pub(super) fn delete(&mut self, cluster: usize, kind: Kind, name: &str) {
        let now = self.now;
        let of = &mut self.clusters[cluster];
        let event = of.server.delete(kind, &key(name)).unwrap();
        if of.alive {
            of.controller.handle(event, now);
        }
    }

    /// A Service with one port, its endpoints, and its export.
    pub(super) fn export(&mut self, cluster: usize, service: &str, created: i64, endpoints: &[&str]) {
        self.put(cluster, Kind::Services, service, Object::Service(Service::Exportable(web())));
        self.endpoints(cluster, service, endpoints);
        let export = Export { meta: Meta { created, ..Meta::default() }, ..Export::default() };
        self.put(cluster, Kind::Exports, service, Object::Export(export));
    }

    pub(super) fn endpoints(&mut self, cluster: usize, service: &str, endpoints: &[&str]) {
        let endpoints = Endpoints {
            family: Family::IPv4,
            ports: vec![SlicePort { name: "web".to_owned(), port: 8080, ..SlicePort::default() }],
            endpoints: endpoints.iter().map(|address| endpoint(address)).collect(),
            changed_at: ChangedAt::default(),
        };
        let slice = SourceSlice { service: key(service).name.to_string(), endpoints };
        self.put(cluster, Kind::SourceSlices, &format!("{service}-1"), Object::SourceSlice(slice));
    }

    /// Lets time pass, a second at a time, and everybody do what is due.
    pub(super) fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.settle();
            self.now += Duration::from_secs(1);
        }
        self.settle();
    }

    /// Until nobody wants anything any more.
    pub(super) fn settle(&mut self) {
        for _ in 0..200 {
            let mut quiet = true;
            for cluster in 0..self.clusters.len() {
                if !self.clusters[cluster].alive {
                    continue;
                }
                let ops = self.clusters[cluster].controller.ops(self.now);
                for op in ops {
                    quiet = false;
                    self.clusters[cluster].wanted.push(op.clone());
                    self.execute(cluster, op);
                }
            }
            if quiet {
                return;
            }
        }
        panic!("no end of ops");
    }

    pub(super) fn execute(&mut self, cluster: usize, op: Op) {
        let now = self.now;
        let of = &mut self.clusters[cluster];
        let namespace = member_namespace(&of.id);
        let at_broker = matches!(
            op,
            Op::PutExportRecord(..)
                | Op::DeleteExportRecord(..)
                | Op::PutSliceRecord(..)
                | Op::DeleteSliceRecord(..)
                | Op::Reserve(_)
                | Op::Release(..)
                | Op::Renew(_)
        );
        if at_broker && !of.connected {
            let failure = Failure::Unreachable("no route".to_owned());
            return of.controller.handle(Event::Failed(Box::new(op), failure), now);
        }
        let server = if at_broker { &mut self.broker } else { &mut of.server };
        let result = match op.clone() {
            Op::PutImport(key, import) => {
                server.write(Kind::Imports, &key, import.meta.resource_version, Object::Import(*import))
            }
            Op::PutImportedSlice(key, slice) => {
                server.write(Kind::ImportedSlices, &key, slice.meta.resource_version, Object::ImportedSlice(*slice))
            }
            Op::DeleteImport(key, _) => server.delete(Kind::Imports, &key),
            Op::DeleteImportedSlice(key, _) => server.delete(Kind::ImportedSlices, &key),
            Op::SetExportConditions(key, meta, _, conditions) => {
                match server.objects.get(&(Kind::Exports, key.clone())) {
                    Some(Object::Export(old)) => {
                        let export = Export { conditions, ..old.clone() };
                        server.write(Kind::Exports, &key, meta.resource_version, Object::Export(export))
                    }
                    _ => Err(Failure::NotFound),
                }
            }
            Op::PutExportRecord(key, meta, spec) => {
                assert_eq!(*key.namespace, *namespace);
                let object = Object::ExportRecord(Meta::default(), *spec);
                server.write(Kind::ExportRecords, &key, meta.resource_version, object)
            }
            Op::PutSliceRecord(key, meta, spec) => {
                let object = Object::SliceRecord(Meta::default(), *spec);
                server.write(Kind::SliceRecords, &key, meta.resource_version, object)
            }
            Op::DeleteExportRecord(key, _) => server.delete(Kind::ExportRecords, &key),
            Op::DeleteSliceRecord(key, _) => server.delete(Kind::SliceRecords, &key),
            Op::Reserve(spec) => {
                let name = ObjectKey::new(SHARED_NAMESPACE, reservation_name(spec.address.parse().unwrap()));
                server.write(Kind::Reservations, &name, 0, Object::Reservation(Meta::default(), spec))
            }
            Op::Release(key, _) => server.delete(Kind::Reservations, &key),
            Op::Renew(statement) => Ok(server.put(
                Kind::Leases,
                &ObjectKey::new(namespace.as_str(), LEASE),
                Object::Lease(Meta::default(), statement),
            )),
            Op::Tell { .. } | Op::Remember(_) => return,
        };
        match result {
            Ok(event) if at_broker => self.broadcast(&event),
            Ok(event) => of.controller.handle(event, now),
            Err(failure) => of.controller.handle(Event::Failed(Box::new(op), failure), now),
        }
    }

    pub(super) fn import(&self, cluster: usize, service: &str) -> Option<&Import> {
        let object = self.clusters[cluster].server.objects.get(&(Kind::Imports, key(service)))?;
        let Object::Import(import) = object else { panic!("{object:?}") };
        Some(import)
    }

    pub(super) fn slices(&self, cluster: usize) -> Vec<&ImportedSlice> {
        let objects = self.clusters[cluster].server.objects.values();
        objects
            .filter_map(|object| if let Object::ImportedSlice(slice) = object { Some(slice) } else { None })
            .collect()
    }

    /// The endpoints that a cluster imports, with their clusters.
    pub(super) fn backends(&self, cluster: usize) -> Vec<String> {
        let mut all: Vec<String> = self
            .slices(cluster)
            .into_iter()
            .flat_map(|slice| slice.endpoints.iter().map(move |of| format!("{}:{}", slice.cluster, of.address)))
            .collect();
        all.sort();
        all
    }

    pub(super) fn statement(&self, id: &str) -> Statement {
        match self.broker.objects.get(&(Kind::Leases, ObjectKey::new(member_namespace(id), LEASE))) {
            Some(Object::Lease(_, statement)) => statement.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// The reason of a condition of an export.
    pub(super) fn reason(&self, cluster: usize, service: &str, kind: &str) -> String {
        match self.clusters[cluster].server.objects.get(&(Kind::Exports, key(service))) {
            Some(Object::Export(export)) => {
                let condition = export.conditions.iter().find(|condition| condition.kind == kind);
                condition.map(|condition| condition.reason.clone()).unwrap_or_default()
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn web() -> Exported {
    Exported {
        ports: vec![Port { name: "web".to_owned(), port: 80, ..Port::default() }],
        ip_families: vec![Family::IPv4],
        ..Exported::default()
    }
}

pub(super) fn endpoint(address: &str) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node_name: None,
        zone: None,
    }
}
