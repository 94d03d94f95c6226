//! TCP connect/request/response from a pod of cluster a to a pod of cluster b, through the ClusterSetIP and direct, in turn.
//!
//! The service has three endpoints; direct requests go to the same three in turn.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use mcs_tests::Family;

use crate::Size;
use crate::figures::{Found, Table, digits, quartiles, ratio};
use crate::network::{Network, RATE_PORT, rate_vip};
use crate::requests::{Server, measure};
use crate::turns::{in_turn, runs};

pub(crate) fn run(size: Size) -> Result<Found> {
    let (pairs, lasting) = if size == Size::Quick { (3, 300) } else { (12, 600) };
    let network = Network::build(1)?;
    let _server = Server::start(network.server(), RATE_PORT)?;
    let mut found = Found::default();
    let mut table = Table::new(["", "1/s", "p25–p75", "ratio", "p25–p75", "p50 µs", "ratio", "p99 µs"]);
    for family in Family::BOTH {
        for threads in [1, 2] {
            let name = format!("{}, {threads} client{}", family.as_str(), if threads == 1 { "" } else { "s" });
            let direct = network.rate_endpoints(family).into_iter().map(|ip| SocketAddr::new(ip, RATE_PORT)).collect();
            let variants = vec![("direct", direct), ("ClusterSetIP", vec![rate_vip(family)])];
            let results = in_turn(&format!("requests, {name}"), variants, pairs, true, |(_, to)| {
                measure(network.client("a1"), to, threads, Duration::from_millis(lasting))
            })?;
            let Some((_, direct)) = results.first() else { continue };
            let (direct_rate, direct_p50) = (runs(direct, |s| s.per_second), runs(direct, |s| s.p50));
            for ((variant, _), samples) in &results {
                let (rate, p50) = (runs(samples, |s| s.per_second), runs(samples, |s| s.p50));
                let p99 = runs(samples, |s| s.p99);
                let ratios = rate.with(&direct_rate, |a, b| a / b);
                table.row([
                    format!("{name}, {variant}"),
                    digits(rate.median()),
                    quartiles(rate.spread()),
                    ratio(ratios.median()),
                    quartiles(ratios.spread()),
                    digits(p50.median()),
                    ratio(p50.with(&direct_p50, |a, b| a / b).median()),
                    digits(p99.median()),
                ]);
                let name = format!("rate/{name}/{variant}");
                found.figures.push(rate.figure_against(&name, "1/s", &direct_rate));
                found.figures.push(p50.figure_against(format!("{name}: p50"), "µs", &direct_p50));
                found.figures.push(p99.figure(format!("{name}: p99"), "µs"));
            }
        }
    }
    println!("TCP connect/request/response, cluster a to cluster b ({pairs} pairs of {lasting} ms)\n{table}");
    Ok(found)
}
