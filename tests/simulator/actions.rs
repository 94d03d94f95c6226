//! What users, admins and fate do, one action a step. Every step has random numbers of its own, so that leaving one out
//! changes no other: that is how a failing seed is cut down.

use std::time::Duration;

use mcs::api::{ServiceImportType, SessionAffinityConfig};
use mcs::clusterset::event::{CrdState, Event, Kind, Object};
use mcs::clusterset::local::{CLUSTERSET_PROPERTY, Export, Service, SourceSlice};
use mcs::clusterset::record::{self, SHARED_NAMESPACE};
use mcs::clusterset::service::{ChangedAt, Endpoint, Endpoints, Exported, Family, Port, SlicePort, Transport};
use mcs::model::ObjectKey;

use crate::random::Random;
use crate::world::{Member, Task, World};

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    PutService,
    DeleteService,
    PutExport,
    DeleteExport,
    ChangeEndpoints,
    DeleteSlice,
    DeleteNamespace,
    CreateNamespace,
    Approve,
    Nothing,
    Interrupt,
    Relist,
    Freeze,
    Partition,
    PartitionMost,
    Kill,
    KillMember,
    MemberDown,
    BrokerDown,
    BrokerBackup,
    BrokerRestore,
    BrokerEmpty,
    MemberBackup,
    MemberRestore,
    DeleteCrd,
    DeleteUnseen,
    Revoke,
    Leave,
    Join,
    Skew,
    LongPause,
}

/// How long most members are cut off at once.
const MOST_ARE_SILENT: Duration = Duration::from_secs(85);

/// What users do always happens.
const USERS: &[(usize, Action)] = &[
    (8, Action::PutService),
    (2, Action::DeleteService),
    (12, Action::PutExport),
    (4, Action::DeleteExport),
    (14, Action::ChangeEndpoints),
    (2, Action::DeleteSlice),
    (1, Action::DeleteNamespace),
    (3, Action::CreateNamespace),
    (4, Action::Nothing),
    (2, Action::Join),
];

/// Of fate, each seed has its own selection: with all of it at once nothing would ever be quiet.
const FATE: &[(usize, Action)] = &[
    (8, Action::Interrupt),
    (3, Action::Relist),
    (5, Action::Freeze),
    (4, Action::Partition),
    (3, Action::Kill),
    (1, Action::KillMember),
    (2, Action::MemberDown),
    (1, Action::BrokerDown),
    (2, Action::BrokerBackup),
    (1, Action::BrokerRestore),
    (1, Action::BrokerEmpty),
    (2, Action::MemberBackup),
    (1, Action::MemberRestore),
    (1, Action::DeleteCrd),
    (1, Action::DeleteUnseen),
    (1, Action::Revoke),
    (1, Action::Leave),
    (2, Action::Skew),
    (1, Action::LongPause),
    (1, Action::Approve),
    (1, Action::PartitionMost),
];

/// The actions of a seed, with their weights.
pub(crate) fn selection(seed: u64) -> Vec<(usize, Action)> {
    let mut random = Random::new(seed, 1);
    let share = *random.pick(&[0, 200, 400, 800]).unwrap();
    let mut selection = USERS.to_vec();
    for &(weight, action) in FATE {
        if random.chance(share) {
            // A restore without a backup is none.
            match action {
                Action::BrokerRestore => selection.push((3, Action::BrokerBackup)),
                Action::MemberRestore => selection.push((3, Action::MemberBackup)),
                _ => {}
            }
            selection.push((weight, action));
        }
    }
    selection
}

/// The ports that a service may have: several under one name, several names for one number.
fn ports(random: &mut Random) -> Vec<Port> {
    const POOL: [(&str, Transport, u16); 5] = [
        ("http", Transport::Tcp, 80),
        ("http", Transport::Tcp, 8080),
        ("web", Transport::Tcp, 80),
        ("dns", Transport::Udp, 53),
        ("alt", Transport::Tcp, 8080),
    ];
    let mut ports: Vec<Port> = Vec::new();
    if random.chance(30) {
        return ports;
    }
    for _ in 0..=random.below(2) {
        let &(name, protocol, port) = random.pick(&POOL).unwrap();
        if ports.iter().all(|other| other.name != name && (other.protocol, other.port) != (protocol, port)) {
            ports.push(Port { name: name.to_owned(), protocol, port, app_protocol: None });
        }
    }
    ports
}

impl World {
    /// One action. `random` is the step's own.
    pub(crate) fn act(&mut self, action: Action, random: &mut Random) {
        self.set_clocks();
        let member = random.below(self.members.len());
        let service = random.pick(&self.shape.services.clone()).unwrap().clone();
        self.note(|| format!("{action:?} {} {service}", self.members[member].id));
        self.touch(action, member, &service);
        let reachable = self.members[member].up;
        // Whoever deletes what is left of a lost export wants it gone.
        let lost = &mut self.members[member].lost;
        match action {
            Action::DeleteService | Action::DeleteExport => _ = lost.remove(&service),
            Action::DeleteNamespace => lost.retain(|key| key.namespace != service.namespace),
            _ => {}
        }
        let lasting = match random.below(20) {
            0 => random.millis(40_000..150_000),
            1..=5 => random.millis(5_000..20_000),
            _ => random.millis(50..5_000),
        };
        match action {
            Action::Nothing | Action::LongPause => {}
            Action::PutService if reachable => self.put_service(member, &service, random),
            Action::DeleteService if reachable => self.members[member].server.remove(Kind::Services, &service),
            Action::PutExport if reachable => self.put_export(member, &service, random),
            Action::DeleteExport if reachable => self.delete_export(member, &service),
            Action::ChangeEndpoints if reachable => self.change_endpoints(member, &service, random),
            Action::DeleteSlice if reachable => {
                let key = ObjectKey::new(&*service.namespace, format!("{}-{}", service.name, random.below(2)));
                self.members[member].server.remove(Kind::SourceSlices, &key);
            }
            Action::DeleteNamespace if reachable => {
                let key = ObjectKey::new("", &*service.namespace);
                if self.members[member].server.has_namespace(&service.namespace).is_ok() {
                    let going = Object::Namespace { terminating: true };
                    self.members[member].server.put(Kind::Namespaces, &key, going);
                    let namespace = service.namespace.to_string();
                    self.later(random.millis(1..500), Task::Sweep { member, namespace });
                }
            }
            Action::CreateNamespace if reachable => {
                let key = ObjectKey::new("", &*service.namespace);
                if self.members[member].server.get(Kind::Namespaces, &key).is_none() {
                    self.disturb(member, Duration::ZERO);
                    let namespace = Object::Namespace { terminating: false };
                    self.members[member].server.put(Kind::Namespaces, &key, namespace);
                }
            }
            Action::Approve => self.approve(member),
            Action::Interrupt | Action::Relist | Action::Freeze => {
                self.disturb_watches(action, member, lasting, random)
            }
            Action::Partition => {
                self.members[member].linked = false;
                self.cut();
                self.disturb(member, lasting);
                self.later(lasting, Task::Link { member });
            }
            Action::PartitionMost => {
                // All others: to this one they fall silent at once, and for longer than it takes to be dead.
                for other in (0..self.members.len()).filter(|other| *other != member) {
                    self.members[other].linked = false;
                    self.disturb(other, MOST_ARE_SILENT);
                    self.later(MOST_ARE_SILENT, Task::Link { member: other });
                }
                self.cut();
            }
            Action::Kill => {
                if let Some(process) = self.leader(member) {
                    self.kill(process);
                    self.later(random.millis(100..15_000), Task::Start { member });
                    self.later(random.millis(1_000..15_000), Task::Elect { member });
                }
            }
            Action::KillMember => {
                for process in self.members[member].processes.clone() {
                    self.kill(process);
                }
                self.later(random.millis(1_000..180_000), Task::Start { member });
            }
            Action::MemberDown => {
                self.members[member].up = false;
                self.disturb(member, lasting);
                self.later(lasting, Task::Up { member });
            }
            Action::BrokerDown => {
                self.broker_up = false;
                self.cut();
                self.disturb_all(lasting);
                self.later(lasting, Task::BrokerUp);
            }
            Action::BrokerBackup => self.broker_backup = Some(self.broker.snapshot()),
            Action::BrokerRestore => {
                if let Some(backup) = self.broker_backup.clone() {
                    self.broker.restore(backup);
                    self.broker_lost();
                    // What the admin decided since is decided again.
                    self.later(random.millis(100..3_000), Task::Reinit);
                }
            }
            Action::BrokerEmpty => {
                self.broker.empty();
                self.broker_backup = None;
                self.broker_lost();
                self.later(random.millis(100..8_000), Task::Reinit);
            }
            Action::MemberBackup => {
                let crd = self.members[member].crd(Kind::Exports) != Some(&CrdState::Gone);
                let of = &mut self.members[member];
                if crd && of.server.crds.values().all(|crd| *crd != CrdState::Gone) {
                    of.backup = Some(of.server.snapshot());
                }
            }
            Action::MemberRestore => self.restore_member(member),
            Action::DeleteCrd if reachable => {
                let kind = *random.pick(&[Kind::Exports, Kind::Exports, Kind::Properties]).unwrap();
                if self.members[member].crd(kind) != Some(&CrdState::Gone) {
                    self.delete_crd(member, kind, random);
                }
            }
            Action::DeleteUnseen => self.delete_unseen(member, random),
            Action::Revoke => {
                if self.active() > 2 && self.members[member].active() && random.chance(300) {
                    self.members[member].revoked = true;
                    self.register(member);
                    self.disturb_all(Duration::ZERO);
                }
            }
            Action::Leave if reachable => {
                if self.active() > 2 && self.healthy(member) {
                    self.members[member].leaving = true;
                    self.members[member].lost.clear();
                    let key = ObjectKey::new("", CLUSTERSET_PROPERTY);
                    self.members[member].server.remove(Kind::Properties, &key);
                    self.disturb_all(Duration::ZERO);
                    self.later(Duration::from_secs(40), Task::FinishLeave { member });
                }
            }
            Action::Join if reachable => {
                let of = &self.members[member];
                let crds = of.server.crds.values().all(|crd| *crd != CrdState::Gone);
                if !of.joined && !of.revoked && !of.leaving && crds && self.broker_up {
                    self.join(member);
                    self.disturb_all(Duration::ZERO);
                }
            }
            Action::Skew => self.members[member].skew = [-600, -1, 0, 1, 600][random.below(5)],
            Action::PutService
            | Action::DeleteService
            | Action::PutExport
            | Action::DeleteExport
            | Action::ChangeEndpoints
            | Action::DeleteSlice
            | Action::DeleteNamespace
            | Action::CreateNamespace
            | Action::DeleteCrd
            | Action::Leave
            | Action::Join => {}
        }
    }

    /// Which services of a member an action may change.
    fn touch(&mut self, action: Action, member: usize, service: &ObjectKey) {
        let all = matches!(
            action,
            Action::DeleteNamespace
                | Action::MemberRestore
                | Action::DeleteCrd
                | Action::DeleteUnseen
                | Action::Approve
        );
        for other in self.shape.services.clone() {
            if all || other == *service {
                self.touched.insert((member, other), self.now);
            }
        }
    }

    fn active(&self) -> usize {
        self.members.iter().filter(|member| member.active()).count()
    }

    fn put_service(&mut self, member: usize, key: &ObjectKey, random: &mut Random) {
        let Member { server, lost, .. } = &mut self.members[member];
        if server.has_namespace(&key.namespace).is_err() {
            return;
        }
        let service = if random.chance(50) {
            // Whoever makes it so wants no export of it, there or lost.
            lost.remove(key);
            Service::Unexportable { kind: "ExternalName".to_owned() }
        } else {
            let families = &self.shape.families;
            let ip_families = if random.chance(300) { families[..1].to_vec() } else { families.clone() };
            let affinity = random.chance(150);
            Service::Exportable(Exported {
                kind: if random.chance(100) { ServiceImportType::Headless } else { ServiceImportType::ClusterSetIP },
                ports: ports(random),
                ip_families,
                session_affinity: affinity.then(|| "ClientIP".to_owned()),
                session_affinity_config: affinity.then(SessionAffinityConfig::default),
                ..Default::default()
            })
        };
        server.put(Kind::Services, key, Object::Service(service));
    }

    fn put_export(&mut self, member: usize, key: &ObjectKey, random: &mut Random) {
        if self.members[member].crd(Kind::Exports) == Some(&CrdState::Gone)
            || self.members[member].server.has_namespace(&key.namespace).is_err()
        {
            return;
        }
        // Mostly for a service that there is, with endpoints.
        if self.members[member].server.get(Kind::Services, key).is_none() && random.chance(900) {
            self.put_service(member, key, random);
            self.change_endpoints(member, key, random);
        }
        let of = &mut self.members[member];
        of.lost.remove(key);
        let mut export = match of.server.get(Kind::Exports, key) {
            Some(Object::Export(export)) => export.clone(),
            _ => Export::default(),
        };
        export.generation += 1;
        export.labels = [("tier".to_owned(), format!("{}", random.below(3)))].into();
        of.server.put(Kind::Exports, key, Object::Export(export));
    }

    fn delete_export(&mut self, member: usize, key: &ObjectKey) {
        let Member { server, lost, .. } = &mut self.members[member];
        server.remove(Kind::Exports, key);
        lost.remove(key);
    }

    fn change_endpoints(&mut self, member: usize, key: &ObjectKey, random: &mut Random) {
        let number = self.shape.services.iter().position(|service| service == key).unwrap_or(0);
        let server = &mut self.members[member].server;
        let Some(Object::Service(Service::Exportable(service))) = server.get(Kind::Services, key) else {
            return;
        };
        let family = *random.pick(&service.ip_families).unwrap_or(&Family::IPv4);
        let ports = service.ports.iter().map(|port| SlicePort {
            name: port.name.clone(),
            protocol: port.protocol,
            port: 1000 + port.port + u16::try_from(member).unwrap(),
            app_protocol: None,
        });
        let ports = ports.collect();
        let slice = random.below(2);
        let endpoints = (0..random.below(4)).map(|_| {
            let host = slice * 100 + random.below(6) + 1;
            let address = match family {
                Family::IPv4 => format!("10.{}.{number}.{host}", member + 1),
                Family::IPv6 => format!("fd10:{:x}::{number:x}:{host:x}", member + 1),
            };
            let ready = random.chance(850);
            Endpoint {
                address: address.parse().unwrap(),
                ready,
                serving: ready,
                terminating: false,
                hostname: None,
                node_name: Some(format!("n{}", random.below(2))),
                zone: None,
            }
        });
        let mut endpoints: Vec<Endpoint> = endpoints.collect();
        endpoints.sort_by_key(|endpoint| endpoint.address);
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        let slice_key = ObjectKey::new(&*key.namespace, format!("{}-{family}-{slice}", key.name).to_lowercase());
        let content = Endpoints { family, ports, endpoints, changed_at: ChangedAt::default() };
        let slice = SourceSlice { service: key.name.to_string(), endpoints: content };
        server.put(Kind::SourceSlices, &slice_key, Object::SourceSlice(slice));
    }

    /// `mcs approve-withdrawal`: what is held then may go.
    pub(crate) fn approve(&mut self, member: usize) {
        // To approve while a membership property is missing is to leave, which has an action of its own.
        let whole = |process: &usize| {
            let told = &self.processes[*process].told;
            told.properties.len() == 2 && !matches!(told.crds.get(&Kind::Properties), Some(CrdState::Gone))
        };
        if !self.members[member].up || !self.members[member].processes.iter().all(whole) {
            return;
        }
        self.members[member].lost.clear();
        for process in self.members[member].processes.clone() {
            self.tell(process, Event::WithdrawalApproved);
        }
    }

    fn disturb_watches(&mut self, action: Action, member: usize, lasting: Duration, random: &mut Random) {
        let Some(&process) = random.pick(&self.members[member].processes) else {
            return;
        };
        self.disturb(member, Duration::ZERO);
        match action {
            Action::Relist => {
                for kind in Kind::LOCAL.into_iter().chain(Kind::BROKER) {
                    self.interrupt(process, kind, true);
                }
            }
            Action::Interrupt => {
                let kinds: Vec<Kind> = self.processes[process].streams.keys().copied().collect();
                let kind = *random.pick(&kinds).unwrap();
                self.interrupt(process, kind, random.chance(500));
            }
            _ => {
                self.disturb(member, lasting);
                let until = self.now + lasting;
                for stream in self.processes[process].streams.values_mut() {
                    if random.chance(300) {
                        stream.frozen_until = until;
                    }
                }
            }
        }
    }

    /// More exports than one go while nobody watches.
    fn delete_unseen(&mut self, member: usize, random: &mut Random) {
        for process in self.members[member].processes.clone() {
            self.kill(process);
        }
        let keys: Vec<ObjectKey> = self.members[member].server.all(Kind::Exports).map(|(key, _)| key.clone()).collect();
        let share = *random.pick(&[300, 1000]).unwrap();
        for key in keys {
            if random.chance(share) {
                self.delete_export(member, &key);
            }
        }
        self.later(random.millis(100..15_000), Task::Start { member });
    }

    fn delete_crd(&mut self, member: usize, kind: Kind, random: &mut Random) {
        if kind == Kind::Exports {
            let exports = self.valid_exports(member);
            self.lose(member, exports);
        }
        self.members[member].server.set_crd(kind, CrdState::Gone);
        self.disturb(member, Duration::ZERO);
        self.later(random.millis(1..300), Task::CrdSweep { member, kind });
        self.later(random.millis(2_000..40_000), Task::CrdBack { member, kind });
    }

    pub(crate) fn sweep_crd(&mut self, member: usize, kind: Kind) {
        if self.members[member].crd(kind) != Some(&CrdState::Gone) {
            return;
        }
        let next = self.members[member].server.all(kind).next().map(|(key, _)| key.clone());
        if let Some(key) = next {
            self.members[member].server.remove(kind, &key);
            let soon = self.random.millis(1..50);
            self.later(soon, Task::CrdSweep { member, kind });
        }
    }

    /// The CRD is installed again, and with that of ClusterProperties `join` is run again.
    pub(crate) fn crd_back(&mut self, member: usize, kind: Kind) {
        let rest: Vec<ObjectKey> = self.members[member].server.all(kind).map(|(key, _)| key.clone()).collect();
        for key in rest {
            self.members[member].server.remove(kind, &key);
        }
        let of = &mut self.members[member];
        of.crds_made += 1;
        let crd = CrdState::Present(format!("{}-{kind:?}-{}", of.id, of.crds_made));
        of.server.set_crd(kind, crd);
        if kind == Kind::Properties && of.active() {
            self.join(member);
        }
        self.disturb(member, Duration::ZERO);
    }

    /// Those of a Service that can be exported: whoever deleted the Service wants no export of it.
    fn valid_exports(&self, member: usize) -> Vec<ObjectKey> {
        let exports = self.members[member].server.all(Kind::Exports);
        exports.map(|(key, _)| key.clone()).filter(|key| self.exported(member, key).is_some()).collect()
    }

    /// These exports vanish though no user deletes them. What was never published is nobody's loss.
    fn lose(&mut self, member: usize, exports: Vec<ObjectKey>) {
        // By what does the next process know that its API server is not what it was?
        let lease = ObjectKey::new(self.members[member].namespace(), record::LEASE);
        let measured = !self.members[member].processes.is_empty() || self.broker.get(Kind::Leases, &lease).is_some();
        let (published, other): (Vec<_>, Vec<_>) =
            exports.into_iter().partition(|key| measured && self.published(member, key).is_some());
        // The broker lost it before: only imports still know of it, and who wrote them has no word of its source.
        let imported = other.into_iter().filter(|key| (0..self.members.len()).any(|at| self.import(at, key).is_some()));
        let imported: Vec<ObjectKey> = imported.collect();
        self.uncertain.extend(imported);
        self.members[member].lost.extend(published);
    }

    /// The member's API server is what it was. Exports that were made since are lost, though nobody deleted them.
    fn restore_member(&mut self, member: usize) {
        let Some(backup) = self.members[member].backup.take() else {
            return;
        };
        let was = self.valid_exports(member);
        let of = &mut self.members[member];
        of.server.restore(backup);
        of.restored = true;
        let is_there = |key: &ObjectKey| of.server.get(Kind::Exports, key).is_some();
        of.lost.retain(|key| !is_there(key));
        let lost: Vec<ObjectKey> = was.into_iter().filter(|key| !is_there(key)).collect();
        of.vips.clear();
        let going =
            of.server.all(Kind::Namespaces).filter(|(_, object)| **object == Object::Namespace { terminating: true });
        for namespace in going.map(|(key, _)| key.name.to_string()).collect::<Vec<_>>() {
            self.later(Duration::from_millis(100), Task::Sweep { member, namespace });
        }
        self.lose(member, lost);
        let is_member = self.members[member].active();
        if is_member {
            // Joining again changes nothing if the backup is younger than the first time.
            self.join(member);
        } else {
            let key = ObjectKey::new("", CLUSTERSET_PROPERTY);
            self.members[member].server.remove(Kind::Properties, &key);
        }
        self.disturb(member, Duration::ZERO);
    }

    /// What a broker forgot can be known by nobody, where its source forgot it as well.
    fn broker_lost(&mut self) {
        for member in &mut self.members {
            self.uncertain.extend(std::mem::take(&mut member.lost));
        }
        self.forget_who_left();
        self.disturb_all(Duration::ZERO);
    }

    /// The broker's admin: `init`, and `join` for everybody.
    pub(crate) fn reinit(&mut self) {
        self.init_broker();
        for member in 0..self.members.len() {
            let of = &self.members[member];
            let key = ObjectKey::new(SHARED_NAMESPACE, of.id.as_str());
            if of.joined || of.revoked {
                self.register(member);
            } else {
                self.broker.remove(Kind::Members, &key);
            }
        }
        self.disturb_all(Duration::ZERO);
    }

    pub(crate) fn sweep(&mut self, member: usize, namespace: &str) {
        let server = &mut self.members[member].server;
        let contents = [Kind::Exports, Kind::Services, Kind::SourceSlices, Kind::Imports, Kind::ImportedSlices];
        let next = contents.into_iter().find_map(|kind| {
            let mut of_kind = server.all(kind);
            of_kind.find(|(key, _)| *key.namespace == *namespace).map(|(key, _)| (kind, key.clone()))
        });
        let Some((kind, key)) = next else {
            server.remove(Kind::Namespaces, &ObjectKey::new("", namespace));
            return;
        };
        server.remove(kind, &key);
        let soon = self.random.millis(1..60);
        self.later(soon, Task::Sweep { member, namespace: namespace.to_owned() });
    }

    /// What `leave` does at the broker after the controller withdrew everything.
    pub(crate) fn finish_leave(&mut self, member: usize) {
        let of = &mut self.members[member];
        if !of.leaving {
            return;
        }
        (of.joined, of.leaving, of.credentials) = (false, false, false);
        let (id, namespace) = (of.id.clone(), of.namespace());
        for process in self.members[member].processes.clone() {
            self.kill(process);
        }
        for kind in [Kind::ExportRecords, Kind::SliceRecords, Kind::Leases] {
            let records = self.broker.all(kind).filter(|(key, _)| *key.namespace == *namespace);
            for key in records.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                self.broker.remove(kind, &key);
            }
        }
        self.broker.remove(Kind::Members, &ObjectKey::new(record::SHARED_NAMESPACE, id));
        self.forget_who_left();
        self.later(Duration::from_secs(1), Task::Start { member });
        self.disturb_all(Duration::ZERO);
    }

    /// Who left while a member did not run is known to it by its own lease alone, which says who was there before. Without
    /// that, its imports' word is all that there is.
    fn forget_who_left(&mut self) {
        for (index, member) in self.members.iter().enumerate() {
            let lease = ObjectKey::new(member.namespace(), record::LEASE);
            if self.leader(index).is_some() || self.broker.get(Kind::Leases, &lease).is_some() {
                continue;
            }
            let left = |id: &String| self.members.iter().any(|other| other.id == *id && !other.joined);
            for (service, object) in member.server.all(Kind::Imports) {
                if matches!(object, Object::Import(import) if import.clusters.iter().any(left)) {
                    self.uncertain.insert(service.clone());
                }
            }
        }
    }

    /// Everything works again.
    pub(crate) fn heal(&mut self) {
        self.note(|| "everything is healed".to_owned());
        self.broker_up = true;
        self.rates.failing = 0;
        self.set_clocks();
        for member in 0..self.members.len() {
            let of = &mut self.members[member];
            (of.linked, of.up, of.cut) = (true, true, None);
            for kind in [Kind::Exports, Kind::Properties] {
                if self.members[member].crd(kind) == Some(&CrdState::Gone) {
                    self.crd_back(member, kind);
                }
            }
            self.happen(Task::Start { member });
        }
        self.reinit();
        for process in 0..self.processes.len() {
            for kind in self.processes[process].streams.keys().copied().collect::<Vec<_>>() {
                self.thaw(process, kind);
            }
        }
        for member in &mut self.members {
            member.contact_from = self.now;
        }
    }
}
