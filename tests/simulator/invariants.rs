//! What must hold, and precisely when.
//!
//! At each op as it is wanted ([`World::check_op`]), whatever was or was not delivered so far:
//! * no import is deleted while a member exports the service, by truth and by the last word that the deleting member got;
//! * no export is withdrawn while it is there, or while it is only lost (the CRD went, the API server was restored) and
//!   nobody approved;
//! * no reservation is released while an import that the releaser has carries the address, or some member exports it.
//!
//! At each write of an import: in one cluster no address has two services, ever; across clusters that have been in contact
//! for [`SETTLE`] neither; and the address of an import (by UID) does not change, unless the member was out of contact or
//! restored less than [`SETTLE`] ago.
//!
//! After each step, for members that nothing has ailed for [`SETTLE`] (no partition, outage, restart, frozen or broken
//! watch): what is wrong for [`SETTLE`] without a break is a violation: a missing import, or an endpoint at a port that its
//! cluster does not export.
//!
//! Once quiet ([`World::check_quiet`]), [`SETTLE`] after everything was healed: every cluster has just what it should.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use mcs::api::ServiceImportType;
use mcs::clusterset::event::{Kind, Object, Op};
use mcs::clusterset::local::{Import, Truth};
use mcs::clusterset::record;
use mcs::clusterset::service::{Endpoint, Family, Transport};
use mcs::model::ObjectKey;

use crate::world::{Member, SETTLE, World};

impl World {
    /// Before a wanted op is on its way.
    pub(crate) fn check_op(&mut self, process: usize, op: &Op) {
        let of = &self.processes[process];
        let (member, leader) = (of.member, of.leader);
        let who = self.who(process);
        if !leader {
            return self.violate(format!("{who} is a follower and wants {op:?}"));
        }
        match op {
            Op::DeleteImport(service, _) => {
                if let Some(exporter) = self.known_exporter(process, service) {
                    self.violate(format!("{who} deletes the import of {service}, which {exporter} exports"));
                }
            }
            Op::PutExportRecord(_, _, spec) if spec.withdrawn => {
                let service = ObjectKey::new(spec.namespace.as_str(), spec.name.as_str());
                let own = &self.members[member];
                if !own.active() {
                    return;
                }
                if own.lost.contains(&service) && self.exported(member, &service).is_none() {
                    self.violate(format!("{who} withdraws {service}, whose deletion nobody wanted"));
                } else if self.processes[process].told.exports_itself(&service) {
                    self.violate(format!("{who} withdraws {service}, which it knows as exported"));
                }
            }
            Op::Release(key, _) => {
                let Some(Object::Reservation(_, spec)) = self.broker.get(Kind::Reservations, key) else {
                    return;
                };
                let Some((namespace, name)) = spec.service.split_once('/') else {
                    return;
                };
                let (service, address) = (ObjectKey::new(namespace, name), spec.address.clone());
                let carried = self.import(member, &service).is_some_and(|import| import.spec.ips.contains(&address));
                if carried && self.known_exporter(process, &service).is_some() {
                    self.violate(format!("{who} releases {address}, which its import of {service} carries"));
                }
            }
            Op::PutImport(..)
            | Op::PutImportedSlice(..)
            | Op::DeleteImportedSlice(..)
            | Op::SetExportConditions(..)
            | Op::Tell { .. }
            | Op::PutExportRecord(..)
            | Op::DeleteExportRecord(..)
            | Op::PutSliceRecord(..)
            | Op::DeleteSliceRecord(..)
            | Op::Reserve(_)
            | Op::Renew(_)
            | Op::Remember(_) => self.check_endpoints_stay(process, op),
        }
    }

    /// A member that exports the service, and of which this process knows or one before it did.
    fn known_exporter(&self, process: usize, service: &ObjectKey) -> Option<String> {
        let of = &self.processes[process];
        let here = &self.members[of.member];
        if !here.active() || here.server.has_namespace(&service.namespace).is_err() || self.uncertain.contains(service)
        {
            return None;
        }
        let exporter = (0..self.members.len()).find(|member| {
            let there = &self.members[*member];
            if !self.exports(*member, service) {
                return false;
            }
            if *member == of.member {
                return of.told.exports_itself(service) || there.lost.contains(service);
            }
            // The broker's admin said that it is no member: true or not by now, it is no guess.
            let member_still = of.told.members.get(&there.id).or(here.told.members.get(&there.id));
            // What an earlier process knew is known to this one by the import alone.
            let named = self.import(of.member, service).is_some_and(|import| import.clusters.contains(&there.id));
            let earlier = here.told.word(&there.id, service).filter(|_| named);
            let word = of.told.word(&there.id, service).or(earlier).flatten();
            // The source may have said of an earlier one that it is no more, and of this one nothing yet.
            let is_it = |created| self.exported(*member, service).is_none_or(|exported| exported.created == created);
            member_still != Some(&false) && word.is_some_and(is_it)
        });
        exporter.map(|member| self.members[member].id.clone())
    }

    /// Endpoints of a cluster that lives leave with their slices and exports only.
    fn check_endpoints_stay(&mut self, process: usize, op: &Op) {
        let (key, slice) = match op {
            Op::DeleteImportedSlice(key, _) => (key, None),
            Op::PutImportedSlice(key, slice) => (key, Some(slice)),
            _ => return,
        };
        let member = self.processes[process].member;
        let Some(Object::ImportedSlice(old)) = self.members[member].server.get(Kind::ImportedSlices, key) else {
            return;
        };
        let service = ObjectKey::new(&*key.namespace, old.import.as_str());
        let Some(source) = self.members.iter().position(|other| other.id == old.cluster) else {
            return;
        };
        let gone = |endpoint: &&Endpoint| {
            slice.is_none_or(|new| new.endpoints.iter().all(|kept| kept.address != endpoint.address))
        };
        let gone: Vec<IpAddr> = old.endpoints.iter().filter(gone).map(|endpoint| endpoint.address).collect();
        if gone.is_empty()
            || !self.exports(source, &service)
            || !self.constant(source, &service)
            || self.known_exporter(process, &service).is_none()
            || self.processes[process].told.members.get(&old.cluster) == Some(&false)
        {
            return;
        }
        let (cluster, who) = (old.cluster.clone(), self.who(process));
        // What it heard before it was cut off, it may write as soon as its own API server lets it.
        let here = &self.members[member];
        let wrote = here.up && self.now >= here.up_from + SETTLE;
        let cut = wrote && here.cut.is_some_and(|cut| self.now >= cut + SETTLE);
        if cut && source != member && self.constant(member, &service) {
            return self.violate(format!("{who} takes {gone:?} of {cluster} from {service} and is cut off"));
        }
        // What may take endpoints away: their cluster is silent for long, and not most of all clusters are.
        let silent = |other: &Member| self.now.saturating_sub(other.renewed) > Duration::from_secs(55);
        if silent(&self.members[source]) {
            let since = self.members[source].renewed;
            let active = self.members.iter().filter(|other| other.active());
            let at_once =
                active.clone().filter(|other| silent(other) && other.renewed.abs_diff(since) < SETTLE).count();
            // What its source changed before it fell silent was heard long ago.
            let changed = self.touched.get(&(source, service.clone())).is_some_and(|changed| *changed + SETTLE > since);
            if source != member && self.settled(member) && !changed && at_once * 2 > active.count() {
                self.violate(format!("{who} takes {gone:?} of {cluster} from {service} while most are silent"));
            }
            return;
        }
        if !self.settled(source) || !self.healthy(member) {
            return;
        }
        let Some(wanted) = self.wanted(&service) else {
            return;
        };
        let Some(import) = self.import(member, &service) else {
            return;
        };
        // Only where neither the import's ports nor this service are on the move.
        let ports: BTreeSet<(String, Transport, u16)> = dialled(import);
        if ports != wanted.ports {
            return;
        }
        let shown = self.shown(source, &service);
        // It was there all the time, as far as its own cluster's import shows.
        let stays = |address: &IpAddr| {
            let at = (cluster.clone(), *address);
            wanted.backends.contains_key(&at) && shown.contains_key(&at)
        };
        if let Some(address) = gone.into_iter().find(stays) {
            self.violate(format!("{who} takes {address} of {cluster} from {service}, which is there"));
        }
    }

    /// Whether a source's slices and export have been as they are for [`SETTLE`].
    fn constant(&self, source: usize, service: &ObjectKey) -> bool {
        let changed = self.touched.get(&(source, service.clone()));
        changed.is_none_or(|changed| self.now >= *changed + SETTLE)
    }

    pub(crate) fn import(&self, member: usize, service: &ObjectKey) -> Option<&Import> {
        match self.members[member].server.get(Kind::Imports, service) {
            Some(Object::Import(import)) => Some(import),
            _ => None,
        }
    }

    /// After a write took place.
    pub(crate) fn written(&mut self, member: usize, kind: Kind, key: &ObjectKey) {
        match kind {
            Kind::Leases => self.members[member].renewed = self.now,
            Kind::Imports => self.check_addresses(member, key),
            _ => {}
        }
    }

    fn check_addresses(&mut self, member: usize, service: &ObjectKey) {
        let Some(import) = self.import(member, service) else {
            return;
        };
        let (uid, ips) = (import.meta.uid.clone(), import.spec.ips.clone());
        let headless = import.spec.kind == ServiceImportType::Headless;
        let id = self.members[member].id.clone();
        if headless {
            self.members[member].vips.retain(|(of, _), _| *of != uid);
            if !ips.is_empty() {
                self.violate(format!("{id}: headless {service} has {ips:?}"));
            }
            return;
        }
        for other in 0..self.members.len() {
            let apart = other != member && !(self.settled(member) && self.settled(other));
            if apart {
                continue;
            }
            let mut imports = self.members[other].server.all(Kind::Imports);
            let twice = imports.find_map(|(key, object)| match object {
                Object::Import(import) if key != service => import
                    .spec
                    .ips
                    .iter()
                    .find(|ip| ips.contains(ip))
                    .map(|ip| format!("{key} in {} has {ip}", self.members[other].id)),
                _ => None,
            });
            drop(imports);
            if let Some(twice) = twice {
                return self.violate(format!("{id}: {service} has {ips:?}, and {twice}"));
            }
        }
        let excused = !self.settled(member) || self.members[member].restored;
        for ip in ips {
            let family = Family::of(ip.parse().unwrap());
            let old = self.members[member].vips.insert((uid.clone(), family), ip.clone());
            // A restore may bring back another address, and with that two: all take the same.
            let restored = |other: &usize| {
                self.members[*other].restored
                    && self.import(*other, service).is_some_and(|import| import.spec.ips.contains(&ip))
            };
            let excused = excused || (0..self.members.len()).any(|other| restored(&other));
            if let Some(old) = old.filter(|old| *old != ip && !excused) {
                self.violate(format!("{id}: the address of {service} changes from {old} to {ip}"));
            }
        }
    }

    /// After a step.
    pub(crate) fn check_standing(&mut self) {
        let settled: Vec<usize> = (0..self.members.len()).filter(|member| self.settled(*member)).collect();
        let mut wrong = BTreeSet::new();
        for service in self.shape.services.clone() {
            if self.uncertain.contains(&service) {
                continue;
            }
            let exporters = settled.iter().filter(|member| self.exported(**member, &service).is_some());
            let exporter = exporters.map(|member| self.members[*member].id.clone()).next();
            for &member in &settled {
                let of = &self.members[member];
                let import = self.import(member, &service);
                if let Some(exporter) = &exporter
                    && import.is_none()
                    && of.server.has_namespace(&service.namespace).is_ok()
                {
                    wrong.insert(format!("{}: no import of {service}, which {exporter} exports", of.id));
                }
                let Some(import) = import else {
                    continue;
                };
                let ports = dialled(import);
                for ((cluster, address), served) in self.shown(member, &service) {
                    let source = settled.iter().copied().find(|source| self.members[*source].id == cluster);
                    let Some(exported) = source.and_then(|source| self.exported(source, &service)) else {
                        continue;
                    };
                    for (name, protocol, _) in served {
                        let port = ports.iter().find(|port| (&port.0, port.1) == (&name, protocol));
                        if let Some((_, _, number)) = port
                            && !exported.ports.iter().any(|own| (own.protocol, own.port) == (protocol, *number))
                        {
                            let at = format!("{protocol} {number} ({name})");
                            wrong.insert(format!(
                                "{}: {service}: {address} of {cluster} at {at}, which that does not export",
                                of.id
                            ));
                        }
                    }
                }
            }
        }
        self.wrong.retain(|what, _| wrong.contains(what));
        for what in wrong {
            let since = *self.wrong.entry(what.clone()).or_insert(self.now);
            if self.now > since + SETTLE {
                return self.violate(what);
            }
        }
    }

    /// When everything was healed [`SETTLE`] ago. `approved`: nothing may be held any more.
    pub(crate) fn check_quiet(&mut self, approved: bool) {
        for service in self.shape.services.clone() {
            if self.uncertain.contains(&service) {
                continue;
            }
            let held = !approved && (0..self.members.len()).any(|member| self.holds(member, &service));
            if held {
                self.check_held(&service);
                continue;
            }
            let wanted = self.wanted(&service);
            if !approved && self.cannot_be_told(&service) {
                continue;
            }
            let mut addresses: Option<(String, Vec<String>)> = None;
            for member in 0..self.members.len() {
                let of = &self.members[member];
                if !of.active() || of.server.has_namespace(&service.namespace).is_err() {
                    continue;
                }
                let wrong = self.difference(member, &service, wanted.as_ref());
                let id = self.members[member].id.clone();
                if let Some(wrong) = wrong {
                    return self.violate(format!("quiet: {id}: {service}: {wrong}"));
                }
                let Some(import) = self.import(member, &service) else {
                    continue;
                };
                let ips = import.spec.ips.clone();
                match &addresses {
                    Some((first, others)) if *others != ips => {
                        let text = format!("quiet: {service} has {others:?} in {first} and {ips:?} in {id}");
                        return self.violate(text);
                    }
                    _ => addresses = Some((id, ips)),
                }
            }
        }
        self.check_uniqueness();
        if approved {
            self.check_reservations();
        }
    }

    /// Whether a member says that it holds a withdrawal of the service, or of its endpoints.
    fn holds(&self, member: usize, service: &ObjectKey) -> bool {
        let report = self.leader(member).map(|process| self.processes[process].controller.report(self.now));
        let service = service.to_string();
        self.members[member].active()
            && report
                .is_some_and(|report| report.held.iter().any(|held| held.service.is_empty() || held.service == service))
    }

    /// Whether a member that an import of the service names, and that does not export it, cannot say so.
    /// After the broker was emptied, a member that holds a withdrawal has no record to write for it: what it exported is
    /// known to its readers alone. As long as it means to have such records, nobody knows which of those that vanished they
    /// are, and the mere deletion of a record withdraws nothing. It ends as every hold does: with the approval.
    fn cannot_be_told(&self, service: &ObjectKey) -> bool {
        let imports: Vec<&Import> = (0..self.members.len()).filter_map(|member| self.import(member, service)).collect();
        (0..self.members.len()).any(|source| {
            let of = &self.members[source];
            let key = ObjectKey::new(of.namespace(), record::export_name(service));
            let unrecorded = |held: &ObjectKey| self.holds(source, held) && self.published(source, held).is_none();
            imports.iter().any(|import| import.clusters.contains(&of.id))
                && !self.exports(source, service)
                && self.broker.get(Kind::ExportRecords, &key).is_none()
                && self.shape.services.iter().any(unrecorded)
        })
    }

    /// What is held stays as it is, in every cluster that can know of it.
    fn check_held(&mut self, service: &ObjectKey) {
        let recorded = |source: usize| self.holds(source, service) && self.published(source, service).is_some();
        if !(0..self.members.len()).any(recorded) {
            return;
        }
        for member in 0..self.members.len() {
            let of = &self.members[member];
            let here = of.active() && of.server.has_namespace(&service.namespace).is_ok();
            if here && self.import(member, service).is_none() {
                let id = of.id.clone();
                return self.violate(format!("quiet: {id}: no import of {service}, whose withdrawal is held"));
            }
        }
    }

    fn difference(&self, member: usize, service: &ObjectKey, wanted: Option<&crate::oracle::Wanted>) -> Option<String> {
        let (wanted, import) = match (wanted, self.import(member, service)) {
            (None, None) => {
                let shown = self.shown(member, service);
                return (!shown.is_empty()).then(|| format!("no import, but {shown:?}"));
            }
            (None, Some(_)) => return Some("an import that nobody exports".to_owned()),
            (Some(_), None) => return Some("no import".to_owned()),
            (Some(wanted), Some(import)) => (wanted, import),
        };
        let is = (&import.spec.kind, &import.clusters, dialled(import));
        let should = (&wanted.kind, &wanted.clusters, wanted.ports.clone());
        if is != should {
            return Some(format!("is {is:?}, should be {should:?}"));
        }
        let tier = import.labels.get("tier");
        if tier != wanted.tier.as_ref() {
            return Some(format!("has label {tier:?}, should have {:?}", wanted.tier));
        }
        let families: BTreeSet<Family> = import.spec.ips.iter().map(|ip| Family::of(ip.parse().unwrap())).collect();
        if families != wanted.families && !(self.shape.scarce && families.is_subset(&wanted.families)) {
            return Some(format!("has {:?}, should have {:?}", import.spec.ips, wanted.families));
        }
        let shown = self.shown(member, service);
        if shown != wanted.backends {
            return Some(format!("backends are {shown:?}, should be {:?}", wanted.backends));
        }
        let Some(Object::Export(export)) = self.members[member].server.get(Kind::Exports, service) else {
            return None;
        };
        self.exported(member, service)?;
        let condition = |kind: &str| export.conditions.iter().find(|condition| condition.kind == kind);
        if condition("Valid").is_none_or(|condition| condition.status != Truth::True) {
            return Some(format!("a valid export has {:?}", export.conditions));
        }
        let Some(conflict) = condition("Conflict") else {
            return Some(format!("no condition Conflict: {:?}", export.conditions));
        };
        let reasons: BTreeSet<&str> = conflict.reason.split(',').collect();
        let missing: Vec<_> = wanted.conflicts.iter().filter(|reason| !reasons.contains(**reason)).collect();
        if !missing.is_empty() {
            return Some(format!("no {missing:?} in {conflict:?}"));
        }
        None
    }

    /// One address, one service, in all clusters that are members.
    fn check_uniqueness(&mut self) {
        let mut owners: BTreeMap<String, ObjectKey> = BTreeMap::new();
        let mut twice = None;
        for member in self.members.iter().filter(|member| member.active()) {
            for (key, object) in member.server.all(Kind::Imports) {
                let Object::Import(import) = object else {
                    continue;
                };
                for ip in &import.spec.ips {
                    let owner = owners.entry(ip.clone()).or_insert_with(|| key.clone());
                    if owner != key {
                        twice = Some(format!("quiet: {ip} is {owner}'s and {key}'s"));
                    }
                }
            }
        }
        if let Some(twice) = twice {
            self.violate(twice);
        }
    }

    /// Every address has its reservation, and of members' reservations none is left over.
    fn check_reservations(&mut self) {
        let mut wrong = None;
        for member in self.members.iter().filter(|member| member.active()) {
            for (key, object) in member.server.all(Kind::Imports) {
                let Object::Import(import) = object else {
                    continue;
                };
                for ip in &import.spec.ips {
                    let name = record::reservation_name(ip.parse().unwrap());
                    let reservation = ObjectKey::new(record::SHARED_NAMESPACE, name);
                    match self.broker.get(Kind::Reservations, &reservation) {
                        Some(Object::Reservation(_, spec)) if spec.service == key.to_string() => {}
                        other => wrong = Some(format!("quiet: {}: {key} has {ip}: {other:?}", member.id)),
                    }
                }
            }
        }
        for (_, object) in self.broker.all(Kind::Reservations) {
            let Object::Reservation(_, spec) = object else {
                continue;
            };
            let Some((namespace, name)) = spec.service.split_once('/') else {
                continue;
            };
            let held = self.members.iter().any(|member| member.active() && member.id == spec.holder);
            // A headless service may become another again.
            let service = ObjectKey::new(namespace, name);
            if held && !self.uncertain.contains(&service) && self.wanted(&service).is_none() {
                wrong = Some(format!("quiet: nobody needs {spec:?}"));
            }
        }
        if let Some(wrong) = wrong {
            self.violate(wrong);
        }
    }
}

/// What clients may dial.
fn dialled(import: &Import) -> BTreeSet<(String, Transport, u16)> {
    let ports = import.spec.ports.iter().map(|port| {
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => Transport::Udp,
            Some("SCTP") => Transport::Sctp,
            _ => Transport::Tcp,
        };
        (port.name.clone().unwrap_or_default(), protocol, u16::try_from(port.port).unwrap_or(0))
    });
    ports.collect()
}
