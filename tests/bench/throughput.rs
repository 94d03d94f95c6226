//! iperf3 through the ClusterSetIP and direct, in turn, from a pod of cluster a to a pod of cluster b: TCP and UDP, both
//! families.
//!
//! After the connect nothing of ours touches a packet of TCP or connected UDP, so the two should be alike; the figure is
//! the median of the pairs' ratios. UDP is sent as fast as it goes, and counted at the receiver.

use anyhow::Result;
use mcs_tests::Family;
use mcs_tests::identity::Protocol;

use crate::Size;
use crate::figures::{Found, Runs, Table, at_least, digits, quartiles, ratio};
use crate::iperf::{Server, measure};
use crate::network::{IPERF_PORT, Network, iperf_vip};
use crate::turns::in_turn;

pub(crate) fn run(size: Size) -> Result<Found> {
    let (pairs, seconds) = if size == Size::Quick { (2, 1) } else { (16, 2) };
    let network = Network::build(1)?;
    let _server = Server::start(network.server())?;
    let mut found = Found::default();
    let mut table = Table::new(["", "direct Gbit/s", "p25–p75", "ClusterSetIP", "p25–p75", "ratio", "p25–p75"]);
    for protocol in Protocol::BOTH {
        for family in Family::BOTH {
            let name = format!("{protocol} {}", family.as_str());
            let targets = vec![network.server().socket(family, IPERF_PORT), iperf_vip(family)];
            let results = in_turn(&format!("iperf3 {name}"), targets, pairs, false, |to| {
                measure(network.client("a1"), *to, protocol, seconds)
            })?;
            let [direct, vip] =
                [0, 1].map(|index| Runs(results.get(index).map_or_else(Vec::new, |(_, runs)| runs.clone())));
            let ratios = vip.with(&direct, |vip, direct| vip / direct);
            table.row([
                format!("iperf3 {name}"),
                digits(direct.median()),
                quartiles(direct.spread()),
                digits(vip.median()),
                quartiles(vip.spread()),
                ratio(ratios.median()),
                quartiles(ratios.spread()),
            ]);
            found.figures.push(direct.figure(format!("throughput/{name}/direct"), "Gbit/s"));
            found.figures.push(vip.figure_against(format!("throughput/{name}/ClusterSetIP"), "Gbit/s", &direct));
            let goal = format!("iperf3 {name} through the ClusterSetIP, as a ratio to direct");
            found.goals.push(at_least(goal, ratios.median(), 0.98, ""));
        }
    }
    println!("Throughput, pod of cluster a to pod of cluster b ({pairs} pairs of {seconds} s)\n{table}");
    Ok(found)
}
