//! A controller's process: its watches of two API servers, and its writes. What a real edge promises the decisions is
//! kept here as well: one object never goes back, and the CRD is looked at before a deletion is passed on. Everything else
//! happens: delays, other kinds ahead, duplicates, interruptions anywhere, lists in pieces, answers that are lost.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mcs::clusterset::controller::{Controller, Settings};
use mcs::clusterset::event::{CrdState, Event, Failure, Kind, Now, Object, Op};
use mcs::clusterset::record::{self, SHARED_NAMESPACE};
use mcs::model::ObjectKey;

use crate::server::{Refusal, Server};
use crate::told::Told;
use crate::world::{Task, World};

/// A list and watch of one kind.
#[derive(Debug)]
pub(crate) struct Stream {
    state: State,
    incarnation: u32,
    /// A delivery of it is in the queue.
    pub(crate) scheduled: bool,
    /// It stands and delivers nothing until then.
    pub(crate) frozen_until: Now,
    /// Versions that answers to writes brought before the watch did: (version, index in the log).
    ahead: BTreeMap<ObjectKey, (u64, usize)>,
}

#[derive(Debug)]
enum State {
    /// Resumed from this index in the log, or listed.
    Broken(Option<usize>),
    /// What is still to come, the list's version, and where its watch begins.
    Listing(VecDeque<(ObjectKey, Object)>, u64, usize),
    /// Index in the log of what comes next.
    Watching(usize),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) member: usize,
    pub(crate) controller: Controller,
    pub(crate) alive: bool,
    pub(crate) leader: bool,
    pub(crate) streams: BTreeMap<Kind, Stream>,
    pub(crate) told: Told,
    /// When `ops` is called next.
    pub(crate) pump: Option<Now>,
}

impl Process {
    pub(crate) fn new(member: usize, seed: u64) -> Self {
        Self {
            member,
            controller: Controller::new(Settings::default(), seed),
            alive: true,
            leader: false,
            streams: BTreeMap::new(),
            told: Told::default(),
            pump: None,
        }
    }

    /// Lists it as soon as possible.
    pub(crate) fn watch(&mut self, kind: Kind) {
        let stream = Stream {
            state: State::Broken(None),
            incarnation: u32::MAX,
            scheduled: false,
            frozen_until: Now::ZERO,
            ahead: BTreeMap::new(),
        };
        self.streams.entry(kind).or_insert(stream);
    }
}

/// What an op writes; nothing of ours is seen of the others.
pub(crate) fn target(op: &Op, cluster: &str) -> Option<(Kind, ObjectKey)> {
    Some(match op {
        Op::PutImport(key, _) | Op::DeleteImport(key, _) => (Kind::Imports, key.clone()),
        Op::PutImportedSlice(key, _) | Op::DeleteImportedSlice(key, _) => (Kind::ImportedSlices, key.clone()),
        Op::SetExportConditions(key, ..) => (Kind::Exports, key.clone()),
        Op::PutExportRecord(key, ..) | Op::DeleteExportRecord(key, _) => (Kind::ExportRecords, key.clone()),
        Op::PutSliceRecord(key, ..) | Op::DeleteSliceRecord(key, _) => (Kind::SliceRecords, key.clone()),
        Op::Reserve(spec) => {
            let name = spec.address.parse().map(record::reservation_name).unwrap();
            (Kind::Reservations, ObjectKey::new(SHARED_NAMESPACE, name))
        }
        Op::Release(key, _) => (Kind::Reservations, key.clone()),
        Op::Renew(_) => (Kind::Leases, ObjectKey::new(record::member_namespace(cluster), record::LEASE)),
        Op::Tell { .. } | Op::Remember(_) => return None,
    })
}

impl World {
    fn server(&self, member: usize, kind: Kind) -> &Server {
        if kind.at_broker() { &self.broker } else { &self.members[member].server }
    }

    /// The controller hears it.
    pub(crate) fn tell(&mut self, process: usize, event: Event) {
        self.note(|| format!("  {} hears {event:?}", self.who(process)));
        self.hear(process, &event);
        let now = self.now;
        self.processes[process].controller.handle(event, now);
        let soon = now + self.random.millis(0..4);
        self.pump_at(process, soon);
    }

    fn pump_at(&mut self, process: usize, at: Now) {
        let of = &mut self.processes[process];
        if of.pump.is_none_or(|planned| planned > at) {
            of.pump = Some(at);
            self.later_at(at, Task::Pump { process });
        }
    }

    /// Its next delivery, soon.
    pub(crate) fn rouse(&mut self, process: usize, kind: Kind, delay: Duration) {
        let at = self.now + delay;
        let Some(stream) = self.processes[process].streams.get_mut(&kind) else {
            return;
        };
        if !std::mem::replace(&mut stream.scheduled, true) {
            self.later_at(at, Task::Deliver { process, kind });
        }
    }

    /// A watch that stood goes on.
    pub(crate) fn thaw(&mut self, process: usize, kind: Kind) {
        if let Some(stream) = self.processes[process].streams.get_mut(&kind) {
            stream.frozen_until = self.now;
            stream.scheduled = false;
            self.rouse(process, kind, Duration::ZERO);
        }
    }

    /// The time that a message takes.
    pub(crate) fn latency(&mut self, kind: Kind) -> Duration {
        match (self.random.chance(4), kind.at_broker()) {
            (true, _) => self.random.millis(100..2000),
            (false, true) => self.random.millis(2..40),
            (false, false) => self.random.millis(1..15),
        }
    }

    /// One happening on a watch.
    pub(crate) fn deliver(&mut self, process: usize, kind: Kind) {
        let now = self.now;
        let of = &mut self.processes[process];
        let member = of.member;
        let Some(stream) = of.streams.get_mut(&kind).filter(|_| of.alive) else {
            return;
        };
        stream.scheduled = false;
        if stream.frozen_until > now {
            stream.scheduled = true;
            let at = stream.frozen_until;
            return self.later_at(at, Task::Deliver { process, kind });
        }
        if !self.reaches(member, kind) {
            if self.random.chance(300) {
                self.interrupt(process, kind, true);
            }
            let retry = self.random.millis(500..2500);
            return self.rouse(process, kind, retry);
        }
        let incarnation = self.server(member, kind).incarnation;
        let stream = self.processes[process].streams.get_mut(&kind).unwrap();
        if stream.incarnation != incarnation {
            stream.incarnation = incarnation;
            stream.ahead.clear();
            self.interrupt(process, kind, true);
        }
        self.look_at_crd(process, kind);
        let gone = self.server(member, kind).crds.get(&kind) == Some(&CrdState::Gone);
        let log = self.server(member, kind).log(kind);
        let length = log.len();
        let mut events = Vec::new();
        let mut more = self.latency(kind);
        let stream = self.processes[process].streams.get_mut(&kind).unwrap();
        let state = match std::mem::replace(&mut stream.state, State::Broken(None)) {
            State::Broken(_) if gone => {
                more = self.random.millis(500..2000);
                events.push(Event::Crd(kind, CrdState::Gone));
                State::Broken(None)
            }
            State::Broken(Some(next)) => State::Watching(next),
            State::Broken(None) => {
                let server = self.server(member, kind);
                if let Some(crd) = server.crds.get(&kind).filter(|_| !kind.at_broker()) {
                    events.push(Event::Crd(kind, crd.clone()));
                }
                events.push(Event::ListStarted(kind));
                let rest = server.all(kind).map(|(key, object)| (key.clone(), object.clone())).collect();
                State::Listing(rest, server.revision(), length)
            }
            State::Listing(mut rest, revision, next) => {
                for _ in 0..=self.random.below(8) {
                    let Some((key, object)) = rest.pop_front() else {
                        break;
                    };
                    events.extend(self.listed(process, kind, key, object));
                }
                if rest.is_empty() {
                    events.push(Event::Listed(kind, revision));
                    State::Watching(next)
                } else {
                    State::Listing(rest, revision, next)
                }
            }
            State::Watching(next) => {
                let twice = self.random.chance(30);
                if let Some(change) = self.server(member, kind).log(kind).get(next) {
                    let (key, revision) = (change.key.clone(), change.revision);
                    let event = seen(kind, &change.key, change.object.as_ref());
                    let stream = self.processes[process].streams.get_mut(&kind).unwrap();
                    match stream.ahead.get(&key) {
                        Some(&(ahead, _)) if ahead >= revision => {
                            if ahead == revision {
                                stream.ahead.remove(&key);
                            }
                        }
                        _ => {
                            if twice {
                                events.push(event.clone());
                            }
                            events.push(event);
                        }
                    }
                }
                State::Watching((next + 1).min(length))
            }
        };
        let idle = matches!(state, State::Watching(next) if next >= length);
        self.processes[process].streams.get_mut(&kind).unwrap().state = state;
        for event in events {
            self.tell(process, event);
        }
        if !idle {
            self.rouse(process, kind, more);
        }
    }

    /// An object of a list; or what an answer to a write said of it since, which is newer.
    fn listed(&mut self, process: usize, kind: Kind, key: ObjectKey, object: Object) -> Option<Event> {
        let of = &self.processes[process];
        let version = crate::server::meta(&object).map_or(0, |meta| meta.resource_version);
        match of.streams[&kind].ahead.get(&key) {
            Some(&(ahead, index)) if ahead > version => {
                let change = self.server(of.member, kind).log(kind).get(index)?;
                change.object.as_ref().map(|object| seen(kind, &key, Some(object)))
            }
            _ => Some(Event::Applied(kind, key, Box::new(object))),
        }
    }

    /// The edge looks at the CRD before it passes on what happened to its objects.
    fn look_at_crd(&mut self, process: usize, kind: Kind) {
        if kind.at_broker() {
            return;
        }
        let of = &self.processes[process];
        let Some(crd) = self.server(of.member, kind).crds.get(&kind) else {
            return;
        };
        if of.told.crds.get(&kind).is_some_and(|told| told != crd) {
            let crd = crd.clone();
            self.tell(process, Event::Crd(kind, crd));
        }
    }

    /// The watch breaks, and is resumed where it was or made anew.
    pub(crate) fn interrupt(&mut self, process: usize, kind: Kind, anew: bool) {
        let of = &mut self.processes[process];
        let Some(stream) = of.streams.get_mut(&kind).filter(|_| of.alive) else {
            return;
        };
        let resume = match &stream.state {
            State::Broken(None) => return,
            State::Broken(Some(_)) if !anew => return,
            State::Broken(Some(_)) | State::Listing(..) => None,
            State::Watching(next) => (!anew).then_some(*next),
        };
        stream.state = State::Broken(resume);
        // A watch that ends in time is resumed, and nobody hears of it; one that broke begins with a list.
        if resume.is_none() {
            self.tell(process, Event::Interrupted(kind));
        }
        let retry = self.random.millis(1..2000);
        self.rouse(process, kind, retry);
    }

    /// Asks for what is due, and sends it on its way.
    pub(crate) fn pump(&mut self, process: usize) {
        let now = self.now;
        let of = &mut self.processes[process];
        if !of.alive || of.pump.is_none_or(|planned| planned > now) {
            return;
        }
        of.pump = None;
        let ops = of.controller.ops(now);
        let wake = of.controller.wake();
        for op in ops {
            self.note(|| format!("  {} wants {op:?}", self.who(process)));
            self.check_op(process, &op);
            let cluster = self.members[self.processes[process].member].id.clone();
            let kind = target(&op, &cluster).map_or(Kind::Imports, |(kind, _)| kind);
            let latency = self.latency(kind);
            self.later(latency, Task::Execute { process, op: Box::new(op) });
        }
        if let Some(wake) = wake {
            if wake <= now {
                self.idle_pumps += 1;
                if self.idle_pumps > 1000 {
                    self.violate(format!("{} wakes at {wake:?} again and again", self.who(process)));
                }
            } else {
                self.idle_pumps = 0;
            }
            let at = wake.max(now + Duration::from_millis(1));
            self.pump_at(process, at);
        }
    }

    /// A write arrives at its API server, or does not.
    pub(crate) fn execute(&mut self, process: usize, op: Op) {
        let member = self.processes[process].member;
        let cluster = self.members[member].id.clone();
        let Some((kind, key)) = target(&op, &cluster) else {
            if let Op::Remember(dead) = op {
                self.members[member].remembered = dead;
            }
            return;
        };
        if !self.reaches(member, kind) || self.random.chance(self.rates.failing) {
            let timeout = self.random.millis(5..3000);
            let failed = Err(Failure::Unreachable("no answer".to_owned()));
            return self.later(timeout, Task::Answer { process, op: Box::new(op), result: failed });
        }
        let result = self.write(member, &op, kind, &key);
        self.note(|| format!("  {}: {} {kind:?} {key}: {result:?}", self.who(process), name(&op)));
        let log = self.server(member, kind).log(kind);
        let index = log.iter().rposition(|change| change.key == key).unwrap_or(0);
        let incarnation = self.server(member, kind).incarnation;
        let result = match result {
            // The answer gets lost: who wrote does not know.
            Ok(()) if self.random.chance(self.rates.failing) => {
                Err(Failure::Unreachable("connection reset".to_owned()))
            }
            Ok(()) => Ok((incarnation, index)),
            Err(failure) => Err(failure),
        };
        let latency = self.latency(kind);
        self.later(latency, Task::Answer { process, op: Box::new(op), result });
    }

    fn write(&mut self, member: usize, op: &Op, kind: Kind, key: &ObjectKey) -> Result<(), Failure> {
        let broker = kind.at_broker();
        if broker {
            self.admit(member, op, key)?;
        }
        let half = self.random.chance(self.rates.failing);
        self.set_clocks();
        let server = if broker { &mut self.broker } else { &mut self.members[member].server };
        let clock = server.clock;
        let refused = |refusal: Refusal| match refusal {
            Refusal::Conflict => Failure::Conflict,
            Refusal::NotFound => Failure::NotFound,
            Refusal::Terminating => Failure::Refused("namespace is being terminated".to_owned()),
        };
        let done = match op {
            Op::PutImport(_, import) => {
                let mut first = (**import).clone();
                // Metadata and spec are one write, the status is another.
                if let Some(Object::Import(old)) = server.get(kind, key) {
                    first.conditions.clone_from(&old.conditions);
                    first.clusters.clone_from(&old.clusters);
                    first.slices_present = old.slices_present;
                } else {
                    first.conditions.clear();
                    first.clusters.clear();
                    first.slices_present = false;
                }
                server.write(kind, key, &import.meta, Object::Import(first)).map(|()| {
                    if !half {
                        server.put(kind, key, Object::Import((**import).clone()));
                    }
                })
            }
            Op::PutImportedSlice(_, slice) => {
                server.write(kind, key, &slice.meta, Object::ImportedSlice((**slice).clone()))
            }
            Op::SetExportConditions(_, meta, _, conditions) => match server.get(kind, key) {
                Some(Object::Export(old)) if old.meta.resource_version == meta.resource_version => {
                    let mut export = old.clone();
                    export.conditions.clone_from(conditions);
                    server.put(kind, key, Object::Export(export));
                    Ok(())
                }
                Some(_) => Err(Refusal::Conflict),
                None => Err(Refusal::NotFound),
            },
            Op::PutExportRecord(_, meta, spec) => {
                server.write(kind, key, meta, Object::ExportRecord(meta.clone(), (**spec).clone()))
            }
            Op::PutSliceRecord(_, meta, spec) => {
                server.write(kind, key, meta, Object::SliceRecord(meta.clone(), (**spec).clone()))
            }
            Op::Reserve(spec) => {
                let new = mcs::clusterset::local::Meta::default();
                server.write(kind, key, &new, Object::Reservation(new.clone(), spec.clone()))
            }
            Op::Renew(statement) => {
                let meta = mcs::clusterset::local::Meta { created: clock, ..Default::default() };
                server.put(kind, key, Object::Lease(meta, statement.clone()));
                Ok(())
            }
            Op::DeleteImport(_, meta)
            | Op::DeleteImportedSlice(_, meta)
            | Op::DeleteExportRecord(_, meta)
            | Op::DeleteSliceRecord(_, meta)
            | Op::Release(_, meta) => server.delete(kind, key, meta),
            Op::Tell { .. } | Op::Remember(_) => Ok(()),
        };
        done.map_err(refused)?;
        self.written(member, kind, key);
        if half && matches!(op, Op::PutImport(..)) {
            return Err(Failure::Unreachable("timeout between spec and status".to_owned()));
        }
        Ok(())
    }

    /// RBAC and admission at the broker.
    fn admit(&mut self, member: usize, op: &Op, key: &ObjectKey) -> Result<(), Failure> {
        let Self { broker, members, .. } = self;
        let cluster = &members[member].id;
        let registered = match broker.get(Kind::Members, &ObjectKey::new(SHARED_NAMESPACE, cluster.as_str())) {
            Some(Object::Member(_, spec)) => !spec.revoked,
            _ => false,
        };
        if !registered {
            return Err(Failure::Refused("forbidden".to_owned()));
        }
        let holder = match op {
            Op::Reserve(spec) => Some(spec.holder.clone()),
            // One that was made anew by another since it was seen is safe: the deletion is of the old one.
            Op::Release(_, seen) => match broker.get(Kind::Reservations, key) {
                Some(Object::Reservation(meta, spec)) if meta.uid == seen.uid => Some(spec.holder.clone()),
                _ => None,
            },
            _ => (*key.namespace != *record::member_namespace(cluster)).then(|| key.namespace.to_string()),
        };
        if holder.is_some_and(|holder| holder != *cluster) {
            let text = format!("{cluster} writes what is another's: {op:?}");
            self.violate(text);
            return Err(Failure::Refused("forbidden".to_owned()));
        }
        Ok(())
    }

    /// A write is answered.
    pub(crate) fn answer(&mut self, process: usize, op: Op, result: Result<(u32, usize), Failure>) {
        let member = self.processes[process].member;
        let Some((kind, key)) = target(&op, &self.members[member].id).filter(|_| self.processes[process].alive) else {
            return;
        };
        let (incarnation, index) = match result {
            Ok(at) => at,
            Err(failure) => return self.tell(process, Event::Failed(Box::new(op), failure)),
        };
        let server = self.server(member, kind);
        if server.incarnation != incarnation {
            let failure = Failure::Unreachable("the API server restarted".to_owned());
            return self.tell(process, Event::Failed(Box::new(op), failure));
        }
        let log = server.log(kind);
        // The watch was faster, perhaps by more than this one change.
        let stream = self.processes[process].streams.get(&kind).filter(|stream| stream.incarnation == incarnation);
        let passed = stream.and_then(|stream| match stream.state {
            State::Watching(next) if next > index => Some(next),
            _ => None,
        });
        let ahead = stream.and_then(|stream| stream.ahead.get(&key)).map(|(_, ahead)| *ahead);
        let watched = passed.and_then(|next| log[..next].iter().rposition(|change| change.key == key));
        let index = watched.unwrap_or(index).max(ahead.unwrap_or(0));
        let Some(change) = log.get(index) else {
            return;
        };
        let (revision, event) = (change.revision, seen(kind, &key, change.object.as_ref()));
        if passed.is_none()
            && let Some(stream) = self.processes[process].streams.get_mut(&kind)
        {
            stream.ahead.insert(key, (revision, index));
        }
        self.tell(process, event);
    }
}

fn seen(kind: Kind, key: &ObjectKey, object: Option<&Object>) -> Event {
    match object {
        Some(object) => Event::Applied(kind, key.clone(), Box::new(object.clone())),
        None => Event::Deleted(kind, key.clone()),
    }
}

fn name(op: &Op) -> String {
    format!("{op:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()
}
