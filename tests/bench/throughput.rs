//! iperf3 through the ClusterSetIP and direct, from a pod of cluster a to a pod of cluster b: TCP and UDP, both families.
//!
//! After the connect nothing of ours touches a packet of TCP or connected UDP, so the two should be alike; the figure is
//! the median of the pairs' ratios. UDP is sent as fast as it goes, and counted at the receiver.
//!
//! The two runs of a pair share their two seconds and their two processors, both senders on one and both receivers on the
//! other, to a server each. One after the other, what else this machine does moved a pair's ratio by 0.1 and more; together
//! it strikes both, and who needs more processor time for a byte gets fewer of them across.

use std::thread;

use anyhow::{Context as _, Result};
use mcs_tests::Family;
use mcs_tests::identity::Protocol;

use crate::Size;
use crate::figures::{Found, Runs, Table, at_least, digits, quartiles, ratio};
use crate::iperf::{Server, measure};
use crate::network::{IPERF_PORT, Network, iperf_vip};
use crate::progress::Progress;

/// Where the server of the direct runs listens.
const DIRECT_PORT: u16 = IPERF_PORT + 1;

pub(crate) fn run(size: Size) -> Result<Found> {
    let (pairs, seconds) = if size == Size::Quick { (2, 1) } else { (20, 2) };
    let network = Network::build(1)?;
    let _direct_server = Server::start(network.server(), DIRECT_PORT)?;
    let _server = Server::start(network.server(), IPERF_PORT)?;
    let mut found = Found::default();
    let mut table = Table::new(["", "direct Gbit/s", "p25–p75", "ClusterSetIP", "p25–p75", "ratio", "p25–p75"]);
    for protocol in Protocol::BOTH {
        for family in Family::BOTH {
            let name = format!("{protocol} {}", family.as_str());
            let (mut direct, mut vip) = (Runs::default(), Runs::default());
            let mut progress = Progress::new(format!("iperf3 {name}"), pairs);
            for pair in 0..pairs {
                let (one, other) = at_once(&network, family, protocol, seconds)?;
                direct.0.push(one);
                vip.0.push(other);
                progress.at(pair);
            }
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

/// Gbit/s of two runs that share their time: direct, and through the ClusterSetIP.
fn at_once(network: &Network, family: Family, protocol: Protocol, seconds: u32) -> Result<(f64, f64)> {
    let from = network.client("a1");
    let run = |to| measure(from, to, protocol, seconds);
    thread::scope(|scope| {
        let direct = scope.spawn(|| run(network.server().socket(family, DIRECT_PORT)));
        let vip = run(iperf_vip(family))?;
        Ok((direct.join().ok().context("the direct run panicked")??, vip))
    })
}
