//! Services that do not fit: what is done for them meanwhile, and when they are tried again.

use mcs_ebpf::Frontend;
use mcs_ebpf::addr::socket_addr;

use super::{Failure, Outcome, Programmer};
use crate::maps::Maps;
use crate::model::{ObjectId, ObjectKey};
use crate::plan::NoRoom;
use crate::problem::{Problem, Severity};
use crate::tables::Service;

/// A service that is not in the maps as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Aside {
    frontend: Frontend,
    port_name: String,
    /// What its full form lacks.
    missed: NoRoom,
    /// What would already be an improvement.
    hoped: NoRoom,
    /// `TCP` or `UDP`.
    protocol: crate::model::Protocol,
}

impl Aside {
    pub(super) fn new(service: &Service, missed: NoRoom, hoped: NoRoom) -> Self {
        Self {
            frontend: service.frontend,
            port_name: service.port_name.to_string(),
            missed,
            hoped,
            protocol: service.protocol(),
        }
    }

    pub(super) fn problem(&self, key: &ObjectKey) -> Problem {
        let Self { frontend, port_name, missed, hoped: _, protocol } = self;
        Problem {
            object: ObjectId::Import(key.clone()).to_string(),
            file: None,
            field: format!("spec.ports[{port_name}]"),
            reason: format!(
                "{}/{protocol} is not programmed, or without its new backends: {missed}",
                socket_addr(frontend.addr, frontend.port_be)
            ),
            severity: Severity::NoRoom,
        }
    }
}

impl<M: Maps> Programmer<M> {
    /// Takes from a service what is gone when its new form does not fit, for want of `missed`. Returns what is left to
    /// be done; None when there was room for all of it in the end.
    pub(super) fn reduce(
        &mut self,
        service: &Service,
        missed: NoRoom,
        outcome: &mut Outcome,
    ) -> Result<Option<Aside>, Failure> {
        if let Ok(ops) = self.planner.plan_survivors(&self.maps, service) {
            outcome.changed += usize::from(self.apply(&ops)?);
            return Ok(Some(Aside::new(service, missed, missed)));
        }
        let ops = self.planner.plan_shrink(&self.maps, service);
        outcome.changed += usize::from(self.apply(&ops)?);
        // what the shrinking gave up may be just the room that was missing
        self.grace()?;
        let missed = match self.planner.plan_service(&self.maps, service) {
            Ok(ops) => {
                self.apply(&ops)?;
                return Ok(None);
            }
            Err(missed) => missed,
        };
        let hoped = match self.planner.plan_survivors(&self.maps, service) {
            Ok(ops) => {
                self.apply(&ops)?;
                missed
            }
            Err(hoped) => hoped,
        };
        Ok(Some(Aside::new(service, missed, hoped)))
    }

    /// Marks those imports to be looked at again whose services may fit by now. Tells whether there are any.
    pub(super) fn reconsider_aside(&mut self, outcome: &mut Outcome) -> bool {
        if self.aside.is_empty() || self.stale {
            return false;
        }
        if self.planner.is_waiting()
            && let Err(error) = self.grace()
        {
            outcome.failures.push(error.into());
            return false;
        }
        let may_fit = |aside: &Aside| self.planner.has_room(&aside.missed) || self.planner.has_room(&aside.hoped);
        let hopeful = self.aside.iter().filter(|(_, aside)| aside.iter().any(may_fit));
        self.dirty.extend(hopeful.map(|(key, _)| key.clone()));
        !self.dirty.is_empty()
    }
}
