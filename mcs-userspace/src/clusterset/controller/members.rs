//! Who is a member, this cluster among them, and who is alive.

use std::collections::BTreeSet;

use super::super::event::{Kind, Now, Op};
use super::super::liveness::Health;
use super::super::local::{CLUSTER_ID_PROPERTY, Regarding};
use super::super::membership::{Change, Identity, Membership, Why};
use super::super::record::{MemberSpec, Statement, VERSION};
use super::super::validate;
use super::broker::digest_text;
use super::{Controller, local, mark_of};
use crate::model::ObjectKey;

impl Controller {
    /// The ClusterProperties say something else than before.
    pub(super) fn moved(&mut self, change: Change) {
        match change {
            Change::None => {}
            Change::Joined(identity) => _ = self.departed.remove(&identity.cluster),
            Change::Left(identity) => _ = self.departed.insert(identity.cluster),
            Change::Moved(from, to) => {
                if from.cluster != to.cluster {
                    self.departed.insert(from.cluster);
                }
                self.departed.remove(&to.cluster);
            }
        }
        self.stand();
    }

    /// Where the ClusterProperties went with their definition, the broker's list of members still says who this is.
    fn recognize(&mut self) {
        if self.properties.membership() != Membership::NotMember(Why::CrdGone) || self.cluster_uid.is_empty() {
            return;
        }
        let clustersets = &self.broker.clustersets_present;
        let ours = self.broker.members.iter().find(|(id, member)| {
            let left = self.broker.leases.get(*id).is_some_and(|lease| lease.statement.left);
            member.cluster_uid == self.cluster_uid && !member.revoked && !left
        });
        if let (Some((cluster, _)), Some(clusterset), 1) = (ours, clustersets.first(), clustersets.len()) {
            let identity = Identity { cluster: cluster.clone(), clusterset: clusterset.clone() };
            self.properties.remember(identity);
        }
    }

    /// Who this cluster is now, and whether it may act.
    pub(super) fn stand(&mut self) {
        if self.broker_known() {
            self.recognize();
        }
        let (identity, trouble) = match self.properties.membership() {
            Membership::NotMember(why) => (None, Some(why.to_string())),
            Membership::Member(identity) => (Some(identity), None),
            Membership::Held(identity, why) => (Some(identity), Some(why.to_string())),
        };
        let refused = identity.as_ref().and_then(|identity| self.refused(identity));
        let identity = identity.filter(|_| refused.is_none());
        self.trouble = refused.or(trouble);
        if self.identity == identity {
            return;
        }
        let old = std::mem::replace(&mut self.identity, identity);
        self.all_dirty = true;
        if let Some(Identity { cluster, .. }) = self.identity.clone() {
            self.liveness.member_removed(&cluster);
            self.read_cidrs();
        }
        if let Some(Identity { cluster, .. }) = old
            && self.broker.counts(&cluster)
            && self.identity.as_ref().is_none_or(|identity| identity.cluster != cluster)
        {
            self.liveness.member_added(&cluster);
        }
        self.recall();
        self.judge();
    }

    /// Why the broker's list of members does not have this cluster under this id. One that has no entry was emptied.
    fn refused(&self, identity: &Identity) -> Option<String> {
        let member = self.broker.members.get(&identity.cluster)?;
        let cluster = &identity.cluster;
        if member.revoked {
            return Some(format!("cluster id {cluster}: its membership was revoked by the broker's admin"));
        }
        let other = !self.cluster_uid.is_empty()
            && !member.cluster_uid.is_empty()
            && member.cluster_uid != self.cluster_uid
            // The same cluster, built anew or restored, is the brake's affair.
            && !self.marked_as_ours(cluster);
        other.then(|| {
            let uid = &member.cluster_uid;
            format!("cluster id {cluster}: is taken by the cluster with UID {uid}: give this cluster another id")
        })
    }

    /// An earlier process of this cluster wrote the lease of this id.
    fn marked_as_ours(&self, cluster: &str) -> bool {
        let lease = self.broker.leases.get(cluster);
        lease.is_some_and(|lease| lease.statement.source.cluster_uid == self.cluster_uid)
    }

    /// UID of our own Member object; empty if it is not there.
    fn own_member(&self) -> &str {
        let own = self.identity.as_ref().filter(|of| self.broker.members_present.contains(&of.cluster));
        own.and_then(|of| self.member_uids.get(&of.cluster)).map_or("", String::as_str)
    }

    /// Whether the Members that were just listed are of the content that was seen before, and not of an earlier time.
    pub(super) fn same_members(&self) -> bool {
        let (uid, version) = &self.anchor;
        !uid.is_empty() && self.own_member() == uid && self.members_listed >= *version
    }

    /// What the next list is compared with.
    pub(super) fn cast_anchor(&mut self) {
        self.anchor = (self.own_member().to_owned(), self.members_listed);
    }

    pub(super) fn put_member(&mut self, key: &ObjectKey, uid: &str, spec: MemberSpec) {
        // A join token was made for it, and nobody has used it: it is no member yet.
        if spec.cluster_uid.is_empty() && !self.broker.members_present.contains(&*key.name) {
            return;
        }
        let id = key.name.to_string();
        self.removed.remove(&id);
        let other = self.member_uids.insert(id.clone(), uid.to_owned()).is_some_and(|old| old != uid);
        if other && self.identity.as_ref().is_some_and(|of| of.cluster == id) {
            // Our own was made anew, and the others may be about to.
            self.removed.clear();
        }
        self.broker.members_present.insert(id.clone());
        self.broker.expelled.remove(&id);
        self.broker.note("member", key, validate::member(&id, &spec));
        let old = self.broker.members.insert(id.clone(), spec.clone());
        if old.as_ref() == Some(&spec) {
            return;
        }
        let ours = self.identity.as_ref().is_some_and(|identity| identity.cluster == id);
        if spec.revoked {
            self.liveness.member_removed(&id);
        } else if !ours && !self.broker.leases.get(&id).is_some_and(|lease| lease.statement.left) {
            self.liveness.member_added(&id);
        }
        if old.is_none_or(|old| old.pod_cidrs != spec.pod_cidrs) {
            self.broker.recheck_slices(&id);
        }
        self.touch_cluster(&id);
        self.stand();
    }

    /// Everything of the broker was listed: what an earlier process knew of this source's API server is told to the brake.
    pub(super) fn recall(&mut self) {
        let Some(Identity { cluster, .. }) = &self.identity else { return };
        if self.marked || !self.lists.all_known(&[Kind::Leases, Kind::Members]) {
            return;
        }
        let lease = self.broker.leases.get(cluster);
        for known in lease.iter().flat_map(|lease| &lease.statement.members) {
            if !self.broker.members_present.contains(known) {
                self.removed.insert(known.clone(), self.now);
            }
        }
        if let Some(mark) = mark_of(lease.map(|lease| &lease.statement)) {
            self.brake.remember(mark);
        }
        self.marked = true;
        self.judge();
    }

    /// The user approved what is held.
    pub(super) fn approve(&mut self) {
        for (key, part) in self.brake.approved() {
            self.pending.remove(&key);
            if part == super::super::brake::Part::Export {
                self.withdrawn.insert(key.clone());
            }
            self.dirty.insert(key);
        }
        let change = self.properties.approved();
        self.moved(change);
    }

    /// What time brings.
    pub(super) fn tick(&mut self, now: Now) {
        let removed: Vec<String> = self
            .removed
            .iter()
            .filter(|(_, at)| now.saturating_sub(**at) >= self.settings.removal)
            .map(|(id, _)| id.clone())
            .collect();
        for id in removed {
            self.removed.remove(&id);
            let stands = !self.own_member().is_empty();
            if stands && !self.broker.members_present.contains(&id) {
                self.broker.members.remove(&id);
                self.broker.expelled.insert(id.clone());
                self.liveness.member_removed(&id);
                self.touch_cluster(&id);
            }
        }
        self.weigh();
    }

    /// Who is alive now.
    pub(super) fn weigh(&mut self) {
        let verdict = self.liveness.evaluate();
        let before = std::mem::replace(&mut self.verdict, verdict);
        if before == self.verdict {
            return;
        }
        let changed: Vec<String> = before
            .health
            .keys()
            .chain(self.verdict.health.keys())
            .filter(|id| before.health.get(*id) != self.verdict.health.get(*id))
            .cloned()
            .collect();
        for id in changed {
            self.touch_cluster(&id);
        }
    }

    /// Whether a member's endpoints leave what others serve.
    pub(super) fn is_dead(&self, cluster: &str) -> bool {
        self.verdict.health.get(cluster) == Some(&Health::Dead)
    }

    /// Whether a member can be expected to act.
    pub(super) fn is_healthy(&self, cluster: &str) -> bool {
        self.verdict.health.get(cluster) == Some(&Health::Healthy)
    }

    /// Whether this member may say something of itself.
    fn may_renew(&self) -> bool {
        self.leader && self.identity.is_some() && self.marked && self.broker_known()
    }

    /// All addresses that our imports carry are reserved, as far as can be told.
    pub(super) fn all_reserved(&self) -> bool {
        self.broker_settled() && self.sink_known() && self.unreserved.is_empty() && self.unpublished.is_empty()
    }

    /// The broker has what this process knows of its API server. As long as it has not, a process that comes after this one
    /// takes an API server that went back to before the last export for one that is believed.
    fn mark_is_told(&self) -> bool {
        let lease = self.identity.as_ref().and_then(|of| self.broker.leases.get(&of.cluster));
        lease.is_some_and(|lease| lease.statement.source == self.brake.mark())
    }

    /// When the lease is to be renewed.
    pub(super) fn next_renewal(&self) -> Option<Now> {
        if !self.may_renew() {
            return None;
        }
        let every = self.settings.timings.renew;
        let news = self.all_reserved() != self.said_reserved || !self.mark_is_told();
        let pause = if news { every / 5 } else { every };
        let due = self.renewed.map_or(Now::ZERO, |at| at + pause);
        // Otherwise the wait for an answer says when.
        (!self.writes.blocked(&(Kind::Leases, ObjectKey::new("", super::super::record::LEASE)), self.now))
            .then_some(due)
    }

    /// Renews the lease, and keeps for the next process who is dead.
    pub(super) fn renew(&mut self, now: Now) {
        let nobody = ObjectKey::new("", "");
        if self.identity.is_some() {
            let dead: BTreeSet<String> = self.liveness.dead();
            // A new leader may not know of those before it: it writes what it knows once.
            if self.broker_known() && self.remembered.as_ref() != Some(&dead) {
                self.remembered = Some(dead.clone());
                self.writes.propose(&nobody, Op::Remember(dead), now);
            }
        }
        self.say_farewell(now);
        if self.next_renewal().is_none_or(|due| due > now) {
            return;
        }
        self.renewed = Some(now);
        self.said_reserved = self.all_reserved();
        // What is published is known when all that is known was decided.
        let decided = self.own_known() && self.broker_known() && self.sink_known();
        let statement = Statement {
            version: VERSION,
            reserved: self.said_reserved,
            source: self.brake.mark(),
            published: decided.then(|| digest_text(self.meant_total)),
            members: self.broker.members_present.iter().cloned().collect(),
            serial: serial(now),
            left: false,
        };
        self.writes.propose(&nobody, Op::Renew(statement), now);
    }

    /// Who left says so once everything is withdrawn: then nobody waits for a word of it.
    fn say_farewell(&mut self, now: Now) {
        if self.identity.is_some() || !self.broker_known() || !self.local.imports.values().all(|of| !local::ours(of)) {
            return;
        }
        // Under one id at a time: the lease is that of the credentials.
        let Some(left) = self.departed.iter().next() else { return };
        let said = self.broker.leases.get(left).is_some_and(|lease| lease.statement.left);
        let withdrawn = self.broker.services_of(left).all(|(_, record)| record.spec.withdrawn);
        if said || !withdrawn || self.departed.len() > 1 {
            return;
        }
        let statement = Statement {
            version: VERSION,
            reserved: true,
            source: self.brake.mark(),
            published: Some(digest_text(0)),
            members: Vec::new(),
            serial: serial(now),
            left: true,
        };
        self.writes.propose(&ObjectKey::new("", ""), Op::Renew(statement), now);
    }

    /// Users look at ClusterProperties.
    pub(super) fn tell_trouble(&mut self, now: Now) {
        if let Some(trouble) = self.trouble.clone() {
            let about = Regarding::Property(CLUSTER_ID_PROPERTY.to_owned());
            self.tell(about, true, "NotAMember", &trouble, now);
        }
    }
}

/// No two renewals are made at the same nanosecond of their processes' lives and get the same version too.
fn serial(now: Now) -> u64 {
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
