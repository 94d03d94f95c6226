//! Writes under way, and those that failed and wait.
//!
//! ```text
//!             propose                    the object as wanted is seen
//!   decided ──────────► in flight ─────────────────────────────────────► forgotten
//!                          │ failed, or nothing heard for long
//!                          ▼
//!                        waits ── time passed, or news of the object ──► decided again
//! ```
//!
//! Every object has at most one write under way. What a write was for is not kept: when it may be tried again, the
//! service that it belongs to is decided anew. While an API server does not answer, one write at a time tries it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clusterset::event::{Failure, Kind, Now, Object, Op};
use crate::clusterset::local::{Condition, Import};
use crate::clusterset::record::{LEASE, SHARED_NAMESPACE, reservation_name};
use crate::model::ObjectKey;

/// The first wait after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// A write of which nothing is heard any more is taken for lost.
const LOST: Duration = Duration::from_secs(10);

/// An object that is written.
pub(super) type Target = (Kind, ObjectKey);

/// See the module.
#[derive(Debug)]
pub(super) struct Writes {
    cap: Duration,
    random: u64,
    in_flight: BTreeMap<Target, Flight>,
    waits: BTreeMap<Target, Wait>,
    /// When to decide again, and what.
    timers: BTreeSet<(Now, ObjectKey)>,
    /// The member's API server, and the broker.
    servers: [Server; 2],
    out: Vec<Op>,
}

#[derive(Debug)]
struct Flight {
    op: Op,
    service: ObjectKey,
    until: Now,
}

#[derive(Debug)]
struct Wait {
    tries: u32,
    until: Now,
    /// Ends when the object is heard of.
    for_news: bool,
    refused: bool,
    reason: String,
    service: ObjectKey,
}

#[derive(Debug, Default)]
struct Server {
    tries: u32,
    until: Now,
    reason: String,
    /// Services whose writes were not even tried meanwhile.
    turned_away: BTreeSet<ObjectKey>,
}

impl Writes {
    pub(super) const fn new(cap: Duration, seed: u64) -> Self {
        Self {
            cap,
            random: seed,
            in_flight: BTreeMap::new(),
            waits: BTreeMap::new(),
            timers: BTreeSet::new(),
            servers: [Server::new(), Server::new()],
            out: Vec::new(),
        }
    }

    /// Wants this written for the service, unless something is under way or waits.
    pub(super) fn propose(&mut self, service: &ObjectKey, op: Op, now: Now) {
        let Some(target) = target(&op) else {
            self.out.push(op);
            return;
        };
        if self.in_flight.contains_key(&target) || self.waits.get(&target).is_some_and(|wait| wait.until > now) {
            return;
        }
        let server = &mut self.servers[usize::from(target.0.at_broker())];
        if server.tries > 0 {
            if server.until > now {
                self.timers.insert((server.until, service.clone()));
                server.turned_away.insert(service.clone());
                return;
            }
            // This one tries; the next one after it.
            server.until = now + LOST;
        }
        let until = now + LOST;
        self.timers.insert((until, service.clone()));
        self.in_flight.insert(target, Flight { op: op.clone(), service: service.clone(), until });
        self.out.push(op);
    }

    /// The service is to be decided again then.
    pub(super) fn remind(&mut self, service: &ObjectKey, at: Now) {
        self.timers.insert((at, service.clone()));
    }

    /// Whether a write of this object is under way, or waits.
    pub(super) fn blocked(&self, target: &Target, now: Now) -> bool {
        let server = &self.servers[usize::from(target.0.at_broker())];
        self.in_flight.contains_key(target)
            || self.waits.get(target).is_some_and(|wait| wait.until > now)
            || server.tries > 0 && server.until > now
    }

    /// Whether the reservation of an address is being deleted.
    pub(super) fn releases(&self, address: std::net::IpAddr) -> bool {
        let flight = self.in_flight.get(&(Kind::Reservations, reservation_key(address)));
        flight.is_some_and(|flight| matches!(flight.op, Op::Release(..)))
    }

    /// An object was seen, none if deleted.
    pub(super) fn seen(&mut self, kind: Kind, key: &ObjectKey, object: Option<&Object>) {
        self.answered(kind.at_broker());
        let target = (kind, key.clone());
        if self.waits.get(&target).is_some_and(|wait| wait.for_news)
            && let Some(wait) = self.waits.remove(&target)
        {
            self.timers.insert((Now::ZERO, wait.service));
        }
        if self.in_flight.get(&target).is_some_and(|flight| done(&flight.op, object))
            && let Some(flight) = self.in_flight.remove(&target)
        {
            self.waits.remove(&target);
            self.timers.remove(&(flight.until, flight.service));
        }
    }

    /// The member's own lease was seen.
    pub(super) fn renewed(&mut self) {
        let target = (Kind::Leases, ObjectKey::new("", LEASE));
        if let Some(flight) = self.in_flight.remove(&target) {
            self.timers.remove(&(flight.until, flight.service));
        }
        self.waits.remove(&target);
    }

    /// A server said something: it is there.
    pub(super) fn answered(&mut self, broker: bool) {
        let server = &mut self.servers[usize::from(broker)];
        if server.tries > 0 {
            let turned_away = std::mem::take(server).turned_away;
            let waiting: Vec<ObjectKey> = self
                .waits
                .iter_mut()
                .filter(|((kind, _), wait)| kind.at_broker() == broker && !wait.refused)
                .map(|(_, wait)| {
                    wait.until = Now::ZERO;
                    wait.service.clone()
                })
                .collect();
            self.timers.extend(waiting.into_iter().chain(turned_away).map(|service| (Now::ZERO, service)));
        }
    }

    /// A write failed.
    pub(super) fn failed(&mut self, op: &Op, failure: Failure, now: Now) {
        let Some(target) = target(op) else { return };
        let Some(flight) = self.in_flight.get(&target).filter(|flight| flight.op == *op) else { return };
        let (service, until) = (flight.service.clone(), flight.until);
        self.in_flight.remove(&target);
        self.timers.remove(&(until, service.clone()));
        let (reason, for_news, refused) = match failure {
            Failure::Conflict => ("it changed meanwhile".to_owned(), true, false),
            Failure::NotFound => ("it, or its namespace, is gone".to_owned(), true, false),
            Failure::Refused(reason) => (reason, false, true),
            Failure::Unreachable(reason) => {
                let jitter = self.pause(self.servers[usize::from(target.0.at_broker())].tries);
                let server = &mut self.servers[usize::from(target.0.at_broker())];
                server.tries += 1;
                server.until = now + jitter;
                server.reason.clone_from(&reason);
                (reason, false, false)
            }
        };
        self.wait(target, service, reason, (for_news, refused), now);
    }

    /// Takes what was decided.
    pub(super) fn take(&mut self) -> Vec<Op> {
        std::mem::take(&mut self.out)
    }

    /// The services that are to be decided again by now.
    pub(super) fn due(&mut self, now: Now) -> Vec<ObjectKey> {
        let mut due = Vec::new();
        while let Some((at, service)) = self.timers.first().cloned().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, service.clone()));
            due.push(service);
        }
        if due.is_empty() {
            return due;
        }
        let lost: Vec<Target> =
            self.in_flight.iter().filter(|(_, flight)| flight.until <= now).map(|(target, _)| target.clone()).collect();
        for target in lost {
            if let Some(flight) = self.in_flight.remove(&target) {
                self.wait(target, flight.service, "no answer".to_owned(), (false, false), now);
            }
        }
        due
    }

    /// When [`Self::due`] has something.
    pub(super) fn wake(&self) -> Option<Now> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Why an object's last write was refused.
    pub(super) fn refusal(&self, target: &Target) -> Option<&str> {
        self.waits.get(target).filter(|wait| wait.refused).map(|wait| wait.reason.as_str())
    }

    /// Nothing is under way any more: another process writes, or did.
    pub(super) fn forget(&mut self) {
        self.in_flight.clear();
        self.waits.clear();
        self.timers.clear();
        self.servers = [Server::new(), Server::new()];
        self.out.clear();
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.in_flight.len()
    }

    /// What failed and is tried again, and why.
    pub(super) fn retrying(&self, now: Now) -> BTreeMap<String, String> {
        // What was decided again since, and needed no further write, is as it should be.
        let tried = |target: &Target, wait: &Wait| wait.until + self.cap > now || self.in_flight.contains_key(target);
        let waits = self.waits.iter().filter(|(target, wait)| tried(target, wait));
        waits.map(|((kind, key), wait)| (format!("{kind:?} {key}"), wait.reason.clone())).collect()
    }

    /// Why the broker does not take writes, if it does not.
    pub(super) fn broker_trouble(&self) -> Option<&str> {
        (self.servers[1].tries > 0).then_some(self.servers[1].reason.as_str())
    }

    fn wait(
        &mut self,
        target: Target,
        service: ObjectKey,
        reason: String,
        (for_news, refused): (bool, bool),
        now: Now,
    ) {
        let tries = self.waits.get(&target).map_or(0, |wait| wait.tries);
        // What is refused stays so until somebody does something about it.
        let until = now + if refused { self.jittered(self.cap) } else { self.pause(tries) };
        self.timers.insert((until, service.clone()));
        // The failure may show in a condition.
        self.timers.insert((now, service.clone()));
        self.waits.insert(target, Wait { tries: tries + 1, until, for_news, refused, reason, service });
    }

    fn pause(&mut self, tries: u32) -> Duration {
        let pause = FIRST_WAIT.saturating_mul(1 << tries.min(10)).min(self.cap);
        self.jittered(pause)
    }

    /// Between half of it and all of it.
    fn jittered(&mut self, pause: Duration) -> Duration {
        let half = pause / 2;
        let range = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_millis(self.next() % range)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Server {
    const fn new() -> Self {
        Self { tries: 0, until: Now::ZERO, reason: String::new(), turned_away: BTreeSet::new() }
    }
}

/// What an op writes; none if nothing of it is ever seen.
fn target(op: &Op) -> Option<Target> {
    Some(match op {
        Op::PutImport(key, _) | Op::DeleteImport(key, _) => (Kind::Imports, key.clone()),
        Op::PutImportedSlice(key, _) | Op::DeleteImportedSlice(key, _) => (Kind::ImportedSlices, key.clone()),
        Op::SetExportConditions(key, ..) => (Kind::Exports, key.clone()),
        Op::PutExportRecord(key, ..) | Op::DeleteExportRecord(key, _) => (Kind::ExportRecords, key.clone()),
        Op::PutSliceRecord(key, ..) | Op::DeleteSliceRecord(key, _) => (Kind::SliceRecords, key.clone()),
        Op::Reserve(spec) => (Kind::Reservations, reservation_key(spec.address.parse().ok()?)),
        Op::Release(key, _) => (Kind::Reservations, key.clone()),
        // The member's own, and it has one.
        Op::Renew(_) => (Kind::Leases, ObjectKey::new("", LEASE)),
        Op::Tell { .. } | Op::Remember(_) => return None,
    })
}

/// Where the reservation of an address is.
pub(super) fn reservation_key(address: std::net::IpAddr) -> ObjectKey {
    ObjectKey::new(SHARED_NAMESPACE, reservation_name(address))
}

/// Whether this is what the op was to bring about.
fn done(op: &Op, object: Option<&Object>) -> bool {
    match (op, object) {
        (
            Op::DeleteImport(..)
            | Op::DeleteImportedSlice(..)
            | Op::DeleteExportRecord(..)
            | Op::DeleteSliceRecord(..)
            | Op::Release(..),
            None,
        )
        | (Op::Reserve(_) | Op::Renew(_), Some(_)) => true,
        (Op::PutImport(_, wanted), Some(Object::Import(seen))) => same_import(wanted, seen),
        (Op::PutImportedSlice(_, wanted), Some(Object::ImportedSlice(seen))) => {
            let mut wanted = (**wanted).clone();
            wanted.meta = seen.meta.clone();
            wanted == *seen
        }
        (Op::SetExportConditions(.., wanted), Some(Object::Export(seen))) => has_conditions(&seen.conditions, wanted),
        (Op::PutExportRecord(_, _, wanted), Some(Object::ExportRecord(_, seen))) => **wanted == *seen,
        (Op::PutSliceRecord(_, _, wanted), Some(Object::SliceRecord(_, seen))) => **wanted == *seen,
        // An object that was to be changed, and is gone: the write fails.
        (_, _) => false,
    }
}

/// Whether all these conditions are among them.
pub(super) fn has_conditions(seen: &[Condition], wanted: &[Condition]) -> bool {
    wanted.iter().all(|condition| seen.contains(condition))
}

/// Whether two imports are the same but for what their API server gives them.
pub(super) fn same_import(one: &Import, other: &Import) -> bool {
    let Import { meta: _, labels, annotations, spec, clusters, conditions, slices_present } = one;
    *labels == other.labels
        && *annotations == other.annotations
        && *spec == other.spec
        && *clusters == other.clusters
        && *slices_present == other.slices_present
        && conditions.len() == other.conditions.len()
        && has_conditions(&other.conditions, conditions)
}
