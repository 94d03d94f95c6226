//! The controller's last report as numbers, and whether it is ready.

use std::collections::BTreeMap;

use crate::clusterset::controller::Report;
use crate::monitoring::Text;

/// Whether everything that is to be known is known: only then anything is written.
///
/// # Errors
/// What is missing.
pub(super) fn ready(report: &Report) -> Result<(), String> {
    if !report.local_synced {
        return Err("this cluster's own objects have not all been listed yet".to_owned());
    }
    if report.cluster.is_some() && !report.broker_synced {
        return Err("the broker's objects have not all been listed yet".to_owned());
    }
    Ok(())
}

/// A report as metrics.
pub(super) fn text(report: &Report, troubles: &BTreeMap<String, String>) -> String {
    let mut text = Text::default();
    let mut gauge = |name: &str, help: &str, value: usize| text.gauge(name, help, value);
    let healths = |health: &str| report.members.values().filter(|member| member.health == health).count();
    gauge("leader", "Whether this process writes.", usize::from(report.leader));
    gauge("member", "Whether this cluster is a member of a ClusterSet.", usize::from(report.cluster.is_some()));
    gauge("broker_connected", "Whether everything of the broker is watched.", usize::from(report.broker_connected));
    gauge("exports", "Services that this cluster exports.", report.exports);
    gauge("imports", "Services that this cluster imports.", report.imports);
    gauge("imported_endpointslices", "Imported EndpointSlices.", report.slices);
    gauge("members_healthy", "Other members that renew their leases.", healths("healthy"));
    gauge("members_suspect", "Other members that have been silent for a while.", healths("suspect"));
    gauge("members_dead", "Other members that are taken for dead.", healths("dead"));
    gauge("deaths_held", "Whether too many fell silent at once to be taken for dead.", usize::from(report.deaths_held));
    gauge("withdrawals_held", "Exports that are gone and whose withdrawal is held.", report.held.len());
    gauge("imports_stale", "Imports with endpoints of dead members, for want of others.", report.stale.len());
    gauge("addresses_exhausted", "Services for which no ClusterSetIP is left.", report.exhausted.len());
    gauge("addresses_waiting", "Services that wait for a ClusterSetIP.", report.waiting);
    gauge("writes_in_flight", "Writes under way.", report.in_flight);
    gauge("writes_retrying", "Writes that failed and are tried again.", report.retrying.len());
    gauge("problems", "Things that are wrong with objects.", report.problems.len());
    gauge("troubles", "Things that are wrong on the way to the two API servers.", troubles.len());
    text.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clusterset::controller::{Held, MemberReport};

    fn report() -> Report {
        let dead = MemberReport { health: "dead".to_owned(), ..MemberReport::default() };
        let held = vec![Held { service: "shop/cart".to_owned(), reason: "why".to_owned() }];
        Report { members: [("west".to_owned(), dead)].into(), held, imports: 7, ..Report::default() }
    }

    #[test]
    fn what_is_held_and_dead_is_counted() {
        let text = text(&report(), &BTreeMap::new());
        for line in ["mcs_withdrawals_held 1", "mcs_members_dead 1", "mcs_members_healthy 0", "mcs_imports 7"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
