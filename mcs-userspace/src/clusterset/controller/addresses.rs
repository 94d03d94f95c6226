//! Who has which ClusterSetIP.
//!
//! ```text
//!   an import carries it ───────────────► it stays; it is reserved again if its reservation vanished
//!   others carry it, or it is reserved ─► taken over, once every healthy member has said that its own are reserved
//!   nobody has one ─────────────────────► the oldest healthy exporter reserves one, and everybody sees it
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::event::{Now, Op};
use super::super::fault::{Fault, planted};
use super::super::liveness::Health;
use super::super::record::ReservationSpec;
use super::super::service::Family;
use super::super::vip::{self, Claim, Release, Word};
use super::own::Own;
use super::sinks::Merging;
use super::writes::reservation_key;
use super::{Controller, local};
use crate::api::ServiceImportType;
use crate::model::ObjectKey;

/// The addresses of an import.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Addressing {
    /// In the order of the families.
    pub(super) ips: Vec<IpAddr>,
    /// Families for which one is still to come.
    pub(super) waiting: Vec<Family>,
    /// Families of which none is left.
    pub(super) exhausted: Vec<Family>,
    /// The ClusterSet has no addresses of the service's families.
    pub(super) unsupported: bool,
}

/// What came of looking for an address of a family.
enum Found {
    Is(IpAddr),
    Waits,
    Exhausted,
}

impl Controller {
    /// Looks whether new addresses may be taken, and lets those who waited know.
    pub(super) fn open_gate(&mut self) {
        let reserved = self.unreserved.is_empty() && vip::awaited(self.words()).next().is_none();
        let open = self.broker_settled() && self.sink_known() && (reserved || planted(Fault::AllocationWithoutGate));
        if open && !self.gate {
            // Who waited for an address, and what was to be released meanwhile.
            self.dirty.extend(self.waiting.iter().chain(self.broker.reserved()).cloned());
        }
        self.gate = open;
    }

    /// What the other members say of their addresses.
    fn words(&self) -> impl Iterator<Item = Word<'_>> {
        self.verdict.health.iter().map(|(cluster, health)| Word {
            cluster,
            health: *health,
            reserved: self.broker.leases.get(cluster).is_some_and(|lease| lease.statement.reserved),
            renewed: self.liveness.renewed(cluster),
        })
    }

    /// Whom new addresses wait for.
    pub(super) fn awaited(&self) -> Vec<&str> {
        vip::awaited(self.words()).collect()
    }

    /// The addresses of a service's import.
    pub(super) fn address(&mut self, key: &ObjectKey, me: &str, merging: &Merging, now: Now) -> Addressing {
        let mut addressing = Addressing::default();
        let carried: Vec<IpAddr> = self.local.our_import(key).map(local::ips).into_iter().flatten().collect();
        self.unreserved.remove(key);
        if let Some(merged) = merging.merged.as_ref().filter(|merged| merged.kind == ServiceImportType::ClusterSetIP) {
            if self.broker.cidrs.is_empty() && !self.broker_known() {
                addressing.ips = carried;
            } else {
                let possible = |family: &Family| {
                    self.broker.cidrs.iter().any(|cidr| Family::of(cidr.addr()) == *family)
                        || carried.iter().any(|ip| Family::of(*ip) == *family)
                };
                let families: Vec<Family> = merged.ip_families.iter().copied().filter(possible).collect();
                addressing.unsupported = families.is_empty() && !merged.ip_families.is_empty();
                for family in families {
                    let mine = carried.iter().copied().find(|ip| Family::of(*ip) == family);
                    match self.find(key, me, merging, family, mine, now) {
                        Found::Is(ip) => addressing.ips.push(ip),
                        Found::Waits => addressing.waiting.push(family),
                        Found::Exhausted => addressing.exhausted.push(family),
                    }
                }
            }
        }
        if addressing.waiting.is_empty() && addressing.exhausted.is_empty() {
            self.waiting.remove(key);
        } else {
            self.waiting.insert(key.clone());
        }
        if addressing.exhausted.is_empty() {
            self.exhausted.remove(key);
        } else {
            self.exhausted.insert(key.clone(), addressing.exhausted.clone());
        }
        addressing
    }

    fn find(
        &mut self,
        key: &ObjectKey,
        me: &str,
        merging: &Merging,
        family: Family,
        mine: Option<IpAddr>,
        now: Now,
    ) -> Found {
        let mine = mine.filter(|ip| !self.lost(key, *ip) && !planted(Fault::AddressNotKept));
        if let Some(ip) = mine {
            let named = self.broker.reservations.contains_key(&ip)
                || self.broker.unreadable_reservations.contains(&reservation_key(ip));
            if !named {
                self.unreserved.insert(key.clone());
                self.reserve(key, me, ip, now);
                return Found::Is(ip);
            }
        }
        let settled = if self.gate { vip::settle(family, &self.claims(key, me, merging, family, mine)) } else { None };
        // What is being released is as good as gone: by the time that an import has it, another may have reserved it.
        let reserved = |ip: IpAddr| {
            self.broker.reservations.get(&ip).is_some_and(|of| of.service == *key) && !self.writes.releases(ip)
        };
        match (mine, settled) {
            // Two had one each: all take the same.
            (Some(mine), Some(other)) if other != mine && reserved(other) => Found::Is(other),
            (Some(mine), _) => Found::Is(mine),
            (None, _) if !self.gate => Found::Waits,
            (None, Some(other)) if reserved(other) => Found::Is(other),
            (None, Some(other)) => {
                self.reserve(key, me, other, now);
                Found::Waits
            }
            (None, None) if !self.allocates(me, merging) => Found::Waits,
            (None, None) => {
                let free = vip::choose(&self.broker.cidrs, family, key, |ip| self.taken(ip));
                match free {
                    Some(ip) => {
                        self.reserve(key, me, ip, now);
                        Found::Waits
                    }
                    None => Found::Exhausted,
                }
            }
        }
    }

    fn reserve(&mut self, key: &ObjectKey, me: &str, ip: IpAddr, now: Now) {
        if !self.broker_settled() {
            return;
        }
        let spec = ReservationSpec {
            address: ip.to_string(),
            service: key.to_string(),
            holder: me.to_owned(),
            other: Default::default(),
        };
        self.writes.propose(key, Op::Reserve(spec), now);
    }

    /// Whether an address that our import carries is another service's, which carries it too and has it reserved.
    fn lost(&self, key: &ObjectKey, ip: IpAddr) -> bool {
        let Some(reserved) = self.broker.reservations.get(&ip).filter(|of| of.service != *key) else { return false };
        self.gate && self.broker.claims(ip).any(|(service, _)| *service == reserved.service)
    }

    /// What speaks for which address of this service. What another service carries, or has reserved, is not for it.
    fn claims(&self, key: &ObjectKey, me: &str, merging: &Merging, family: Family, mine: Option<IpAddr>) -> Vec<Claim> {
        let by_records = |ip: IpAddr| self.broker.claims(ip).any(|(service, of)| service == key && of != me);
        let reserved = self.broker.reserved_for(key).map(|(ip, _)| ip);
        let carried = self.broker.records(key).flat_map(|(_, record)| record.ips.iter().copied());
        let all: BTreeSet<IpAddr> =
            reserved.chain(carried).chain(mine).filter(|ip| Family::of(*ip) == family).collect();
        // An import that exports do not speak for says nothing to others, so exports go first.
        let spoken = all.iter().any(|ip| by_records(*ip));
        let exporter = merging.own != Own::Absent;
        let claims = all.into_iter().filter_map(|address| {
            let reservation = self.broker.reservations.get(&address);
            if reservation.is_some_and(|of| of.service != *key) || self.foreign(key, address) {
                return None;
            }
            let own = mine == Some(address) && (exporter || !spoken);
            let reserved = reservation.map(|of| of.meta.created);
            Some(Claim { address, carried: own || by_records(address), reserved })
        });
        claims.collect()
    }

    /// Whether another service carries an address. A record that merely vanished does not outdo a reservation.
    fn foreign(&self, key: &ObjectKey, ip: IpAddr) -> bool {
        let present = |of: &ObjectKey, cluster| self.broker.record(of, cluster).is_some_and(|record| record.present);
        self.local.carriers(ip).any(|of| of != key)
            || self.broker.claims(ip).any(|(of, cluster)| of != key && present(of, cluster))
    }

    /// Whether an address cannot be had.
    fn taken(&self, ip: IpAddr) -> bool {
        self.broker.reservations.contains_key(&ip)
            || self.broker.unreadable_reservations.contains(&reservation_key(ip))
            || self.local.carriers(ip).next().is_some()
            || self.broker.claims(ip).next().is_some()
    }

    /// Whether this cluster is to reserve a new address: it is the oldest exporter of those that can be expected to act.
    fn allocates(&self, me: &str, merging: &Merging) -> bool {
        let acting = merging.exporters.iter().find(|cluster| *cluster == me || self.is_healthy(cluster));
        acting.is_some_and(|cluster| cluster == me)
    }

    /// Frees what this cluster reserved and nobody needs any more.
    pub(super) fn release(&mut self, key: &ObjectKey, me: &str, merging: &Merging, now: Now) {
        if !self.gate {
            return;
        }
        let import = self.local.our_import(key);
        let carried: Vec<IpAddr> = import.map(local::ips).into_iter().flatten().collect();
        let exported = if planted(Fault::ReleasedWhileOthersExport) {
            merging.own != Own::Absent
        } else {
            merging.merged.is_some() || import.is_some()
        };
        if exported {
            self.unneeded.remove(key);
        }
        let rested = exported || self.rests(key, now);
        let superseded = |ip: IpAddr| {
            let other = carried.iter().find(|other| Family::of(**other) == Family::of(ip));
            other.is_some_and(|other| {
                *other != ip && self.broker.reservations.get(other).is_some_and(|of| of.service == *key)
            }) && self.broker.claims(ip).next().is_none()
        };
        let free: Vec<Op> = self
            .broker
            .reserved_for(key)
            .filter(|(ip, of)| {
                let released = vip::release(exported, of.holder == me, self.broker.members.contains_key(&of.holder));
                released == Release::Delete && rested || (of.holder == me && superseded(*ip))
            })
            .map(|(ip, of)| Op::Release(reservation_key(ip), of.meta.clone()))
            .collect();
        for op in free {
            self.writes.propose(key, op, now);
        }
    }

    /// Whether a service that nobody exports has been so for long enough; if not, it is looked at again then.
    fn rests(&mut self, key: &ObjectKey, now: Now) -> bool {
        if self.broker.reserved_for(key).next().is_none() {
            self.unneeded.remove(key);
            return false;
        }
        let until = *self.unneeded.entry(key.clone()).or_insert(now) + self.settings.release;
        if until > now {
            self.writes.remind(key, until);
        }
        until <= now
    }

    /// How healthy a member is, in one word.
    pub(super) fn health(&self, cluster: &str) -> &'static str {
        if self.broker.revoked(cluster) {
            return "revoked";
        }
        self.verdict.health.get(cluster).copied().map_or("unknown", Health::as_str)
    }
}
