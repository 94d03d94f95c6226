//! The state machine of one member's controller: events in, writes out.
//!
//! ```text
//!   Event ──► lists     how far each list is
//!        ├──► local     what the member's API server holds     ─┐
//!        ├──► broker    what the broker holds, and held         ├─► dirty services ──ops──► sources: own exports → records
//!        ├──► own       what of ours may be withdrawn (brake)   │                      ├──► addresses: who has which
//!        └──► members   who is there, and alive                ─┘                      └──► sinks: everybody's → imports
//!                                                                                            │
//!   Op ◄──────────────────────────────────── writes: one at a time for each object ◄─────────┘
//! ```
//!
//! An event marks the services that it touches; [`Controller::ops`] decides those anew, compares what should be with what
//! was seen, and writes the difference. Nothing is remembered of a decision: what it was for is decided again. Where
//! something is not known, what an import shows is taken for true: an import's *ghosts* are the clusters that it names and
//! that nobody has told of yet, neither good nor bad, and they keep it, its spec and their endpoints as they are.

mod addresses;
mod broker;
mod grouped;
mod hear;
mod lists;
mod local;
mod members;
mod own;
mod report;
mod sinks;
mod sources;
mod writes;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::brake::{Brake, Part};
use super::event::{CrdState, Event, Kind, Now, Op};
use super::liveness::{Liveness, Timings, Verdict};
use super::local::{Condition, Regarding};
use super::membership::{Identity, Membership, Properties, Why};
use super::record::SourceMark;
use crate::model::ObjectKey;
use crate::problem::Problem;
use broker::Broker;
use lists::Lists;
use local::Local;
pub use report::{Held, MemberReport, Report};
use writes::Writes;

/// What may be set. The defaults are the product's.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// How often members renew, and what silence means.
    pub timings: Timings,
    /// How long a tombstone stays at the broker.
    pub tombstone: Duration,
    /// The longest wait between two tries of a write.
    pub retry_cap: Duration,
    /// A Member object that went, and is not back after this, was removed by the broker's admin, if this cluster's own
    /// stayed all the time: the end of all Members at once removes nobody.
    pub removal: Duration,
    /// A reservation that nobody needs stays for so long: by then the imports that carry the address are gone everywhere,
    /// and whoever exports the service again meanwhile has its address again.
    pub release: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timings: Timings::default(),
            tombstone: Duration::from_secs(600),
            retry_cap: Duration::from_secs(5),
            removal: Duration::from_secs(3),
            release: Duration::from_secs(3),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Controller {
    settings: Settings,
    leader: bool,
    /// When something was last heard or asked.
    now: Now,
    lists: Lists,
    local: Local,
    broker: Broker,
    writes: Writes,
    dirty: BTreeSet<ObjectKey>,
    all_dirty: bool,

    // members.rs
    properties: Properties,
    cluster_uid: String,
    /// Who this cluster is, if it may act.
    identity: Option<Identity>,
    /// Why it may not.
    trouble: Option<String>,
    /// Ids under which it left: what they published is withdrawn.
    departed: BTreeSet<String>,
    liveness: Liveness,
    verdict: Verdict,
    remembered: Option<BTreeSet<String>>,
    /// Members whose object went while our own stayed, and when.
    removed: BTreeMap<String, Now>,
    /// UID of our own Member object, and version of the Members' list: another UID, or a version that went back, is
    /// another content of the broker.
    anchor: (String, u64),
    member_uids: BTreeMap<String, String>,
    members_listed: u64,
    renewed: Option<Now>,
    /// What the last renewal said of reservations.
    said_reserved: bool,

    // own.rs
    brake: Brake,
    export_crd: Option<CrdState>,
    /// What an earlier process knew was told to the brake.
    marked: bool,
    /// Published, missing, and not to be withdrawn, or not yet.
    pending: BTreeMap<ObjectKey, Part>,
    /// To be withdrawn, or withdrawn.
    withdrawn: BTreeSet<ObjectKey>,
    /// Withdrawn without a record at the broker that could become a tombstone: others may remember one.
    untold: BTreeSet<ObjectKey>,
    /// Their last endpoint was seen to go.
    emptied: BTreeSet<ObjectKey>,

    // sources.rs
    /// What each service adds to the digest of what is meant to be published.
    meant: BTreeMap<ObjectKey, u64>,
    meant_total: u64,
    /// Own exports whose records are not at the broker as they should be.
    unpublished: BTreeSet<ObjectKey>,
    /// When tombstones were first seen.
    tombstones: BTreeMap<ObjectKey, Now>,

    // addresses.rs
    /// Every healthy member's addresses are reserved, and ours.
    gate: bool,
    waiting: BTreeSet<ObjectKey>,
    exhausted: BTreeMap<ObjectKey, Vec<super::service::Family>>,
    unreserved: BTreeSet<ObjectKey>,
    /// Services that nobody exports any more and that have reservations, and since when.
    unneeded: BTreeMap<ObjectKey, Now>,

    // sinks.rs
    /// Dead members whose endpoints are still imported.
    stale: BTreeMap<ObjectKey, BTreeSet<String>>,
    told: BTreeMap<(Regarding, String), String>,
    problems: BTreeMap<ObjectKey, Vec<Problem>>,
}

impl Controller {
    /// One that has heard nothing. `seed` is that of its jitter.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            leader: false,
            now: Now::ZERO,
            lists: Lists::default(),
            local: Local::default(),
            broker: Broker::default(),
            writes: Writes::new(settings.retry_cap, seed),
            dirty: BTreeSet::new(),
            all_dirty: true,
            properties: Properties::new(),
            cluster_uid: String::new(),
            identity: None,
            trouble: None,
            departed: BTreeSet::new(),
            liveness: Liveness::new(settings.timings),
            verdict: Verdict::default(),
            remembered: None,
            removed: BTreeMap::new(),
            anchor: (String::new(), 0),
            member_uids: BTreeMap::new(),
            members_listed: 0,
            renewed: None,
            said_reserved: false,
            brake: Brake::new(),
            export_crd: None,
            marked: false,
            pending: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            untold: BTreeSet::new(),
            emptied: BTreeSet::new(),
            meant: BTreeMap::new(),
            meant_total: 0,
            unpublished: BTreeSet::new(),
            tombstones: BTreeMap::new(),
            gate: false,
            waiting: BTreeSet::new(),
            exhausted: BTreeMap::new(),
            unreserved: BTreeSet::new(),
            unneeded: BTreeMap::new(),
            stale: BTreeMap::new(),
            told: BTreeMap::new(),
            problems: BTreeMap::new(),
            settings,
        }
    }

    /// Takes in what the edge saw at `now`.
    pub fn handle(&mut self, event: Event, now: Now) {
        self.now = self.now.max(now);
        self.broker.now = self.now;
        self.hear(event, now);
    }

    /// What should be written now. Every object has at most one write under way.
    pub fn ops(&mut self, now: Now) -> Vec<Op> {
        self.now = self.now.max(now);
        self.dirty.extend(self.writes.due(now));
        self.tick(now);
        if !self.leader {
            // A new leader decides everything anew.
            self.dirty.clear();
            return Vec::new();
        }
        if std::mem::take(&mut self.all_dirty) {
            let local = self.local.services_of_interest();
            self.dirty.extend(local.chain(self.broker.services()).cloned());
        }
        self.open_gate();
        while let Some(key) = self.dirty.pop_first() {
            self.reconcile(&key, now);
        }
        self.renew(now);
        self.writes.take()
    }

    /// When [`Self::ops`] must be called again though nothing was heard.
    #[must_use]
    pub fn wake(&self) -> Option<Now> {
        if !self.leader {
            return None;
        }
        let silence = self.liveness.next_change().filter(|at| *at > self.now);
        let removal = self.removed.values().map(|at| *at + self.settings.removal).filter(|at| *at > self.now).min();
        [self.writes.wake(), self.next_renewal(), silence, removal].into_iter().flatten().min()
    }

    /// Decides one service.
    fn reconcile(&mut self, key: &ObjectKey, now: Now) {
        for left in self.departed.clone() {
            self.withdraw(key, &left, now);
        }
        let Some(Identity { cluster: me, .. }) = self.identity.clone() else {
            if !self.departed.is_empty() {
                self.clear(key, now);
            }
            // Until it is known whether this is a member, what an earlier process said of the export stands.
            if self.properties.membership() != Membership::NotMember(Why::Unknown) {
                self.judge_export(key, None, now);
            }
            return;
        };
        let merged = self.merged(key, &me);
        let addressing = self.address(key, &me, &merged, now);
        self.publish(key, &me, &merged.own, now);
        self.import(key, &me, &merged, &addressing, now);
        self.release(key, &me, &merged, now);
        self.judge_export(key, Some((&me, &merged)), now);
    }

    /// Tells users, once.
    fn tell(&mut self, regarding: Regarding, warning: bool, reason: &str, message: &str, now: Now) {
        let topic = (regarding.clone(), reason.to_owned());
        if self.told.get(&topic).is_some_and(|told| told == message) {
            return;
        }
        self.told.insert(topic, message.to_owned());
        let nobody = ObjectKey::new("", "");
        let (reason, message) = (reason.to_owned(), message.to_owned());
        self.writes.propose(&nobody, Op::Tell { regarding, warning, reason, message }, now);
    }

    /// All that speaks of this cluster's own exports was listed once.
    fn own_known(&self) -> bool {
        self.lists.all_known(&Brake::KINDS)
    }

    /// Everything at the broker was listed once.
    fn broker_known(&self) -> bool {
        self.lists.all_known(&Kind::BROKER)
    }

    /// What was listed of the broker is what is there now, as far as watches tell.
    fn broker_settled(&self) -> bool {
        self.lists.settled(&Kind::BROKER)
    }

    /// What imports there are is known.
    fn sink_known(&self) -> bool {
        self.lists.all_known(&[Kind::Namespaces, Kind::Imports, Kind::ImportedSlices])
    }
}

/// A condition.
fn condition(kind: &str, status: super::local::Truth, reason: &str, message: impl Into<String>) -> Condition {
    Condition { kind: kind.to_owned(), status, reason: reason.to_owned(), message: message.into() }
}

/// What the member says of its API server, if that is known.
fn mark_of(statement: Option<&super::record::Statement>) -> Option<SourceMark> {
    statement.map(|statement| statement.source.clone())
}

impl Controller {
    /// How things stand.
    #[must_use]
    pub fn report(&self, now: Now) -> Report {
        let me = self.identity.as_ref().map(|identity| identity.cluster.as_str());
        let mut exports: BTreeMap<&str, usize> = BTreeMap::new();
        // A service may have both records and reservations.
        for service in self.broker.services().collect::<BTreeSet<_>>() {
            for (cluster, record) in self.broker.records(service).filter(|(_, record)| !record.withdrawn) {
                if record.exported.is_some() {
                    *exports.entry(cluster).or_default() += 1;
                }
            }
        }
        let members = self.broker.members.keys().map(|id| {
            let lease = self.broker.leases.get(id);
            let health = if Some(id.as_str()) == me { "self" } else { self.health(id) };
            let report = MemberReport {
                health: health.to_owned(),
                exports: exports.get(id.as_str()).copied().unwrap_or_default(),
                reserved: lease.is_some_and(|lease| lease.statement.reserved),
                version: lease.map_or(0, |lease| lease.statement.version),
            };
            (id.clone(), report)
        });
        let held = self
            .brake
            .held()
            .iter()
            .map(|(key, held)| Held { service: key.to_string(), reason: held.reason.to_string() });
        let problems = self.broker.problems.values().chain(self.problems.values()).flatten();
        Report {
            leader: self.leader,
            cluster: me.map(str::to_owned),
            clusterset: self.identity.as_ref().map(|identity| identity.clusterset.clone()),
            membership: self.trouble.clone(),
            local_synced: self.lists.all_known(&Kind::LOCAL),
            broker_connected: self.lists.all_current(&Kind::BROKER) && self.writes.broker_trouble().is_none(),
            broker_synced: self.broker_known(),
            cidrs: self.broker.cidrs.iter().map(ToString::to_string).collect(),
            members: members.collect(),
            deaths_held: self.verdict.held,
            exports: self.local.exports.keys().filter(|key| self.local.exported(key).is_some()).count(),
            imports: self.local.imports.values().filter(|import| local::ours(import)).count(),
            slices: self.local.imported_slices.len(),
            held: held.collect(),
            stale: self
                .stale
                .iter()
                .map(|(key, clusters)| (key.to_string(), clusters.iter().cloned().collect()))
                .collect(),
            exhausted: self
                .exhausted
                .iter()
                .map(|(key, families)| (key.to_string(), families.iter().map(ToString::to_string).collect()))
                .collect(),
            reserved: self.all_reserved(),
            waiting: self.waiting.len(),
            in_flight: self.writes.count(),
            retrying: self.writes.retrying(now),
            problems: problems.cloned().collect(),
        }
    }
}
