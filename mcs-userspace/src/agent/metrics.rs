//! The agent's numbers.
//!
//! Connections and refusals are counted by the kernel programs; who asks for the numbers has the rows of all sources read,
//! and nothing is kept for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcs_ebpf::map;

use crate::dump::{Flows, flows};
use crate::maps::{Maps, Sizes};
use crate::monitoring::{Histogram, Kind, Text};
use crate::programmer::Programmer;
use crate::report::AgentReport;
use crate::source::Stamp;

/// A stamp that is older tells of something else than how fast changes come: of a slice that was away, of a clock.
const LONGEST_MS: i64 = 3_600_000;

/// What is measured from one question to the next.
#[derive(Default, Debug)]
pub(super) struct Measures {
    programming: Histogram,
    /// By source cluster.
    propagation: BTreeMap<Arc<str>, Histogram>,
}

/// The numbers of an agent that does not know yet who it is.
pub(super) fn waiting() -> String {
    let mut text = Text::default();
    text.gauge("ready", READY, 0);
    text.into_string()
}

const READY: &str = "Whether everything valid was in the kernel at least once since the agent started.";

impl Measures {
    /// Services changed in the kernel, from the events to the last store.
    pub(super) fn programmed(&mut self, took: Duration) {
        self.programming.observe(took.as_secs_f64());
    }

    /// What these slices say is in the kernel now. A source's clock that is ahead of ours reads as no time at all.
    pub(super) fn arrived(&mut self, stamps: &[Stamp], now_ms: i64) {
        for Stamp { cluster, changed_ms } in stamps {
            let took = now_ms.saturating_sub(*changed_ms).max(0);
            if took <= LONGEST_MS {
                self.propagation.entry(Arc::clone(cluster)).or_default().observe(took as f64 / 1000.0);
            }
        }
    }

    /// All numbers.
    pub(super) fn text(
        &self,
        programmer: &Programmer<impl Maps>,
        report: &AgentReport,
        troubles: usize,
        ready: bool,
    ) -> String {
        let (sizes, free) = (programmer.maps().sizes(), programmer.free());
        let mut text = Text::default();
        text.gauge("ready", READY, usize::from(ready));
        text.gauge("services", "Frontends (ClusterSetIP, port, protocol) in the kernel.", programmer.service_count());
        text.gauge("backends", "Backends of all frontends in the kernel.", used(sizes.members, free.members));
        text.gauge("stale_entries", "Frontends in the kernel that no object asks for.", programmer.stale_count());
        text.gauge("invalid_objects", "Objects or parts of objects that were skipped as invalid.", report.invalid);
        text.gauge("unprogrammed_services", "Frontends that do not fit into the maps.", report.unprogrammed);
        text.gauge("troubles", "Things that are wrong on the way to the API server.", troubles);
        fill(&mut text, sizes, free);
        text.histograms(
            "programming_seconds",
            "Time from events of the source to the kernel's maps.",
            [(None, &self.programming)],
        );
        let propagation = self.propagation.iter().map(|(cluster, times)| (Some(("source_cluster", &**cluster)), times));
        let help = "Time from a change of endpoints, as stamped in the source cluster, to this node's maps.";
        text.histograms("propagation_seconds", help, propagation);
        connections(&mut text, &flows(programmer.maps()));
        text.into_string()
    }
}

fn used(size: u32, free: u32) -> usize {
    size.saturating_sub(free) as usize
}

fn fill(text: &mut Text, sizes: Sizes, free: Sizes) {
    let maps = [
        (map::SERVICES, sizes.services, free.services),
        (map::MEMBERS, sizes.members, free.members),
        (map::SLOTS, sizes.slots, free.slots),
        (map::SOURCES, sizes.sources, free.sources),
        (map::CLUSTERS, sizes.clusters, free.clusters),
    ];
    text.family(Kind::Gauge, "map_capacity", "Rows of a map.");
    for (map, size, _) in maps {
        text.sample("map_capacity", &[("map", map)], f64::from(size));
    }
    text.family(Kind::Gauge, "map_used", "Rows of a map that are taken.");
    for (map, size, free) in maps {
        text.sample("map_used", &[("map", map)], used(size, free) as f64);
    }
}

fn connections(text: &mut Text, flows: &Flows) {
    let help = "Connections and flows that were sent to a backend, by service and the cluster it is in.";
    text.family(Kind::Counter, "connections_total", help);
    for ((import, cluster), count) in &flows.connections {
        let labels =
            [("namespace", &*import.namespace), ("service", &*import.name), ("destination_cluster", &**cluster)];
        text.sample("connections_total", &labels, *count as f64);
    }
    text.family(Kind::Counter, "refusals_total", "Connections and flows that were refused: no usable backend.");
    for (import, count) in &flows.refusals {
        let labels = [("namespace", &*import.namespace), ("service", &*import.name)];
        text.sample("refusals_total", &labels, *count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_disagree_read_as_no_time_and_old_stamps_do_not_count() {
        let mut measures = Measures::default();
        let stamp = |cluster: &str, changed_ms| Stamp { cluster: cluster.into(), changed_ms };
        measures.arrived(&[stamp("a", 10_000), stamp("a", 99_000), stamp("b", 9_980)], 10_020);
        measures.arrived(&[stamp("c", 0)], 2 * LONGEST_MS);
        let mut text = Text::default();
        let times = measures.propagation.iter().map(|(cluster, times)| (Some(("c", &**cluster)), times));
        text.histograms("p", "P.", times);
        let text = text.into_string();
        for line in ["mcs_p_count{c=\"a\"} 2", "mcs_p_sum{c=\"a\"} 0.02", "mcs_p_sum{c=\"b\"} 0.04"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("c=\"c\""), "{text}");
    }
}
