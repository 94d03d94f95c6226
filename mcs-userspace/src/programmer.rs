//! Events in, kernel maps out: the whole pure core over any [`Maps`].
//!
//! ```text
//!  Event ──► World ──► touched imports ──► desired ──► claims: whose? ──► plan ──► maps
//!                          ▲                              │ others who claim the same
//!                          └──────────────────────────────┘
//! ```
//!
//! Only imports that an event touches are looked at, so the work is that of the change. What cannot be done is kept:
//! services without room are aside until something is freed, imports whose stores failed wait for [`Programmer::retry`].
//!
//! Before [`Event::Synced`] nothing is stored at all. The maps serve what the agent before wrote, and half of the
//! objects would take backends away from services whose other slices have not been read yet.

mod aside;
mod outcome;

use std::collections::{BTreeMap, BTreeSet};

use mcs_ebpf::addr::socket_addr;
use mcs_ebpf::{Frontend, UDP};

use self::aside::Aside;
pub use self::outcome::{Failure, Outcome};
use crate::claims::Claims;
use crate::desired::{NodeContext, desired};
use crate::dump::dump;
use crate::maps::{MapError, Maps, Op};
use crate::model::{Event, ObjectId, ObjectKey, Unread, World};
use crate::plan::{Free, Planner};
use crate::problem::{Problem, Severity};
use crate::tables::{Service, Tables};

/// After so many failed stores in one call the rest waits for the next one.
const FAILURES_AT_A_TIME: usize = 3;

/// What has to happen before the first UDP frontend can be dialled: sendmsg and recvmsg get their programs. It may be
/// called when they have them already.
pub type BeforeUdp<'a> = dyn FnMut() -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Keeps maps as the objects of a world say.
pub struct Programmer<M> {
    ctx: NodeContext,
    maps: M,
    planner: Planner,
    world: World,
    claims: Claims,
    synced: bool,
    /// Whether what the agent before left, and nobody claims, has been found.
    pruned: bool,
    /// What of the source could not be read since this start.
    unread: Unread,
    /// Whether the imports have been looked at once since [`Event::Synced`].
    looked: bool,
    /// Imports whose services stay as the agent before left them, as what is not known may be what they would lose.
    held: BTreeSet<ObjectKey>,
    /// Imports to be looked at. While there are any, the claims are not complete and nothing is removed.
    dirty: BTreeSet<ObjectKey>,
    /// Imports whose stores failed.
    failed: BTreeSet<ObjectKey>,
    /// Frontends to be removed, unless somebody claims them by then.
    removals: BTreeSet<Frontend>,
    /// Services that do not fit, by import.
    aside: BTreeMap<ObjectKey, Vec<Aside>>,
    /// By import.
    problems: BTreeMap<ObjectKey, Vec<Problem>>,
    /// A store failed: the planner is ahead of the maps.
    stale: bool,
    /// Whether [`BeforeUdp`] was called since there were no UDP frontends.
    udp_ready: bool,
}

impl<M: Maps> Programmer<M> {
    /// Takes over what the maps hold, mends what an agent that was killed left half done, and waits for a grace period.
    ///
    /// # Errors
    /// [`MapError`]: the maps could not be read or mended.
    pub fn new(ctx: NodeContext, mut maps: M) -> Result<Self, MapError> {
        let planner = adopt(&mut maps)?;
        Ok(Self {
            ctx,
            maps,
            planner,
            world: World::default(),
            claims: Claims::default(),
            synced: false,
            pruned: false,
            unread: Unread::default(),
            looked: false,
            held: BTreeSet::new(),
            dirty: BTreeSet::new(),
            failed: BTreeSet::new(),
            removals: BTreeSet::new(),
            aside: BTreeMap::new(),
            problems: BTreeMap::new(),
            stale: false,
            udp_ready: false,
        })
    }

    /// Takes events in and carries out what follows from them. Events of one burst belong into one call: an import
    /// that several of them touch is looked at once.
    ///
    /// `before_udp` is called before the first UDP frontend appears. After a call whose outcome has no UDP frontend, the
    /// caller may take sendmsg's and recvmsg's programs away again.
    pub fn handle(&mut self, events: impl IntoIterator<Item = Event>, before_udp: &mut BeforeUdp<'_>) -> Outcome {
        for event in events {
            match event {
                Event::Apply(object) => self.dirty.extend(self.world.apply(object)),
                Event::Delete(id) => self.dirty.extend(self.world.delete(&id)),
                Event::Synced => self.synced = true,
            }
        }
        self.settle(before_udp)
    }

    /// Says anew what this agent knows about itself. All imports are looked at again if it is something else.
    pub fn set_context(&mut self, ctx: NodeContext) {
        if ctx != self.ctx {
            self.ctx = ctx;
            self.dirty.extend(self.world.iter().map(|(key, _)| key.clone()));
        }
    }

    /// Says what of the source could not be read since this start: a damaged file, an invalid object. As long as that is
    /// so, nothing that the agent before left and that may be in it is removed for being in no object that was read:
    /// neither a service, nor, at the first look, a backend. To be said before [`Programmer::handle`].
    pub fn set_unread(&mut self, unread: Unread) {
        if unread != self.unread {
            self.unread = unread;
            self.pruned = false;
            self.dirty.extend(self.held.extract_if(.., |key| !self.unread.may_concern(&key.namespace)));
        }
    }

    /// Tries again what failed, if anything did. To be called some time after an outcome that says so.
    pub fn retry(&mut self, before_udp: &mut BeforeUdp<'_>) -> Outcome {
        self.dirty.append(&mut self.failed);
        self.settle(before_udp)
    }

    /// Everything that is wrong with objects now, sorted. The source's own problems are not among them.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let no_room = self.aside.iter().flat_map(|(key, aside)| aside.iter().map(|a| a.problem(key)));
        let mut problems: Vec<Problem> = self.problems.values().flatten().cloned().chain(no_room).collect();
        problems.sort_unstable();
        problems.dedup();
        problems
    }

    /// What this agent knows about itself.
    #[must_use]
    pub fn context(&self) -> &NodeContext {
        &self.ctx
    }

    /// Frontends in the maps that no object that was read claims: what an agent before left and is kept, or could not be
    /// removed yet.
    #[must_use]
    pub fn stale_count(&self) -> usize {
        self.planner.frontends().filter(|frontend| self.claims.owner(frontend).is_none()).count()
    }

    /// Rows that can be taken now.
    #[must_use]
    pub fn free(&self) -> Free {
        self.planner.free()
    }

    /// How many services are in the maps.
    #[must_use]
    pub fn service_count(&self) -> usize {
        self.planner.service_count()
    }

    /// Whether any UDP frontend is in the maps: after a restart, say.
    #[must_use]
    pub fn has_udp(&self) -> bool {
        self.planner.has_udp()
    }

    /// What the maps hold, with ids and counters.
    ///
    /// # Errors
    /// [`MapError::List`].
    pub fn tables(&self) -> Result<Tables, MapError> {
        dump(&self.maps)
    }

    /// The objects as events told.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The maps.
    #[must_use]
    pub fn maps(&self) -> &M {
        &self.maps
    }

    /// The maps, for rows that are not services': the agent's own, the report.
    pub fn maps_mut(&mut self) -> &mut M {
        &mut self.maps
    }

    fn settle(&mut self, before_udp: &mut BeforeUdp<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        if self.synced {
            self.look_at_dirty(before_udp, &mut outcome);
            self.remove_unclaimed(&mut outcome);
            if self.reconsider_aside(&mut outcome) {
                self.look_at_dirty(before_udp, &mut outcome);
            }
            self.looked = true;
        }
        if !self.planner.has_udp() {
            self.udp_ready = false;
        }
        outcome.has_udp = self.planner.has_udp();
        outcome.unprogrammed = self.aside.values().map(Vec::len).sum();
        outcome.retry = self.stale || !self.failed.is_empty() || (self.synced && self.is_unfinished());
        outcome.settled = self.synced && !outcome.retry;
        outcome
    }

    fn is_unfinished(&self) -> bool {
        !self.dirty.is_empty() || !self.removals.is_empty() || (!self.pruned && !self.unread.anything)
    }

    /// Whether the planner agrees with the maps, after it was made to if need be.
    fn is_sound(&mut self, outcome: &mut Outcome) -> bool {
        if !self.stale {
            return true;
        }
        if outcome.failures.len() >= FAILURES_AT_A_TIME {
            return false;
        }
        match adopt(&mut self.maps) {
            Ok(planner) => self.planner = planner,
            Err(error) => {
                outcome.failures.push(Failure::Maps(error));
                return false;
            }
        }
        self.stale = false;
        // adopting may have cut out what was damaged
        let lost = self.claims.owners().filter(|(frontend, owner)| {
            !self.planner.has(frontend) && !self.aside.contains_key(*owner) && !self.failed.contains(*owner)
        });
        self.dirty.extend(lost.map(|(_, owner)| owner.clone()));
        true
    }

    fn look_at_dirty(&mut self, before_udp: &mut BeforeUdp<'_>, outcome: &mut Outcome) {
        while self.is_sound(outcome)
            && let Some(key) = self.dirty.pop_first()
        {
            if let Err(failure) = self.look_at(&key, before_udp, outcome) {
                outcome.failures.push(failure);
                self.failed.insert(key);
            }
        }
    }

    /// Brings everything that an import wants into the maps.
    fn look_at(
        &mut self,
        key: &ObjectKey,
        before_udp: &mut BeforeUdp<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let state = self.world.get(key);
        let wanted = state.map(|state| desired(&self.ctx, state)).unwrap_or_default();
        let created = state.and_then(|state| state.import.as_ref()).and_then(|import| import.created);
        let frontends = wanted.services.iter().map(|service| service.frontend).collect();
        let change = self.claims.set(key, created, frontends);
        self.dirty.extend(change.others);
        self.removals.extend(change.abandoned);
        self.failed.remove(key);

        let mut problems = wanted.problems;
        let mut owned = Vec::with_capacity(wanted.services.len());
        for service in wanted.services {
            match self.claims.owner(&service.frontend) {
                Some(owner) if owner != key => problems.push(claimed(&service, owner)),
                Some(_) | None => owned.push(service),
            }
        }
        outcome.problems_changed |= set_or_remove(&mut self.problems, key, problems);
        let mut aside = Vec::new();
        let mut result = Ok(());
        for service in owned {
            match self.program(&service, before_udp, outcome) {
                Ok(left_out) => aside.extend(left_out),
                Err(failure) => {
                    result = Err(failure);
                    break;
                }
            }
        }
        outcome.problems_changed |= set_or_remove(&mut self.aside, key, aside);
        result
    }

    /// Brings one service into the maps, or as much of it as there is room for.
    fn program(
        &mut self,
        service: &Service,
        before_udp: &mut BeforeUdp<'_>,
        outcome: &mut Outcome,
    ) -> Result<Option<Aside>, Failure> {
        let is_new = !self.planner.has(&service.frontend);
        if !self.looked
            && self.unread.may_concern(&service.import.namespace)
            && self.planner.would_lose(&self.maps, service)
        {
            self.held.insert(service.import.clone());
            return Ok(None);
        }
        if is_new && service.frontend.protocol == UDP && !self.udp_ready {
            before_udp().map_err(Failure::Udp)?;
            self.udp_ready = true;
        }
        let mut plan = self.planner.plan_service(&self.maps, service);
        if plan.as_ref().is_err_and(|missed| missed.waiting) {
            self.grace()?;
            plan = self.planner.plan_service(&self.maps, service);
        }
        let missed = match plan {
            Ok(ops) => {
                outcome.changed += usize::from(self.apply(&ops)?);
                return Ok(None);
            }
            Err(missed) => missed,
        };
        if is_new {
            return Ok(Some(Aside::new(service, missed, missed)));
        }
        self.reduce(service, missed, outcome)
    }

    /// Carries out a plan. Tells whether there was anything to do.
    fn apply(&mut self, ops: &[Op]) -> Result<bool, MapError> {
        for op in ops {
            if let Err(error) = self.maps.apply(op) {
                self.stale = true;
                return Err(error);
            }
        }
        Ok(!ops.is_empty())
    }

    /// Waits for a grace period and frees what had been given up before it.
    fn grace(&mut self) -> Result<(), MapError> {
        let mark = self.planner.mark();
        self.maps.grace()?;
        self.planner.grace_passed(mark);
        Ok(())
    }

    /// Removes what nobody claims, once all claims are known.
    fn remove_unclaimed(&mut self, outcome: &mut Outcome) {
        if self.stale || !self.dirty.is_empty() {
            return;
        }
        if !self.pruned && !self.unread.anything {
            self.pruned = true;
            let Self { planner, maps, claims, unread, .. } = self;
            let is_known =
                |f: &Frontend| unread.namespaces.is_empty() || !unread.may_concern(&planner.namespace(maps, f));
            let unclaimed = planner.frontends().filter(|f| claims.owner(f).is_none() && is_known(f));
            self.removals.extend(unclaimed);
        }
        while let Some(frontend) = self.removals.pop_first() {
            if self.claims.owner(&frontend).is_some() {
                continue;
            }
            let ops = self.planner.plan_removal(&self.maps, &frontend);
            match self.apply(&ops) {
                Ok(any) => outcome.removed += usize::from(any),
                Err(error) => {
                    outcome.failures.push(Failure::Maps(error));
                    self.removals.insert(frontend);
                    return;
                }
            }
        }
    }
}

/// Takes maps over, mends them, and waits until no program run knows a row that is free.
fn adopt(maps: &mut impl Maps) -> Result<Planner, MapError> {
    let (planner, repairs) = Planner::adopt(maps)?;
    for op in &repairs {
        maps.apply(op)?;
    }
    maps.grace()?;
    Ok(planner)
}

/// Sets an import's list, or removes an empty one. Tells whether it is another than before.
fn set_or_remove<T: PartialEq>(lists: &mut BTreeMap<ObjectKey, Vec<T>>, key: &ObjectKey, list: Vec<T>) -> bool {
    let before = match list.is_empty() {
        true => return lists.remove(key).is_some(),
        false => lists.get(key),
    };
    let changes = before != Some(&list);
    if changes {
        lists.insert(key.clone(), list);
    }
    changes
}

pub(crate) fn claimed(service: &Service, owner: &ObjectKey) -> Problem {
    let frontend = service.frontend;
    Problem {
        object: ObjectId::Import(service.import.clone()).to_string(),
        file: None,
        field: format!("spec.ports[{}]", service.port_name),
        reason: format!(
            "{}/{} belongs to {}, which is older",
            socket_addr(frontend.addr, frontend.port_be),
            service.protocol(),
            ObjectId::Import(owner.clone())
        ),
        severity: Severity::Invalid,
    }
}

#[cfg(test)]
mod tests;
