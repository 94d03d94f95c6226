//! What `mcs dns` counts, for Prometheus.

use domain::base::iana::Rcode;

use super::message::Transport;
use super::server::Shared;
use crate::monitoring::{Kind, Text};

/// The page `/metrics`.
pub(super) fn text(zone: &Shared, troubles: usize) -> String {
    let (services, is_synced, serial) = {
        let zone = zone.read();
        (zone.len(), zone.is_synced(), zone.serial())
    };
    let mut text = Text::default();
    text.gauge("dns_services", "Services that have names.", services);
    text.gauge("dns_synced", "Whether everything that existed at the start has been heard of.", usize::from(is_synced));
    text.family(Kind::Gauge, "dns_changed_timestamp_seconds", "When names changed last.");
    text.sample("dns_changed_timestamp_seconds", &[], f64::from(serial));
    text.gauge("dns_troubles", "What keeps the source from being followed.", troubles);
    text.family(Kind::Counter, "dns_responses_total", "Answers by transport and code.");
    for (transport, name) in [(Transport::Udp, "udp"), (Transport::Tcp, "tcp")] {
        for (code, count) in (0u8..).zip(zone.answered(transport)).filter(|(_, count)| *count > 0) {
            let code = Rcode::masked_from_int(code).to_string();
            text.sample("dns_responses_total", &[("transport", name), ("rcode", &code)], count as f64);
        }
    }
    text.into_string()
}
