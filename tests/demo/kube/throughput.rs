//! What a ClusterSetIP costs a pod: iperf3 through it, and straight to the pod of the other cluster behind it.

use std::thread;

use anyhow::{Result, bail};
use mcs_tests::Family;
use mcs_tests::kube::iperf::{self, HTTP};
use mcs_tests::kube::shop::{self, SHOP};

use super::shell::{Shell, Show::First};
use crate::iperf::parse;
use crate::screen::Screen;
use crate::throughput::{RUN, judge, side_by_side};

/// Who serves, and who measures.
const TO: &str = "c0";
const FROM: &str = "c1";
/// Where servers listen: one for each side, as one takes one test at a time.
const PORTS: [u16; 2] = [5201, 5202];

pub(crate) fn show(shell: &Shell<'_>, runs: u32, screen: &mut Screen) -> Result<()> {
    screen.step(
        "Throughput: the ClusterSetIP against the pod itself",
        &[
            "iperf3 from a pod of c1 to a pod of c0. connect() is translated once and no",
            "packet pays anything, so both should be alike. They run at the same time on the",
            "same processors: whatever else the machine does hits both, and together they are",
            "what it gives. UDP is sent as fast as it goes: what is lost is what the receiver",
            &format!("had no CPU for. Medians of {runs} runs of {RUN} s each."),
        ],
    )?;
    let kube = shell.kube;
    shell.write("iperf.yaml", &[iperf::service(&PORTS), iperf::pod(&PORTS), shop::export_of(iperf::IPERF)])?;
    shell.run(&format!("kubectl --context {TO} apply --server-side -f iperf.yaml"), First(3), screen)?;
    let [pods, vips] = screen.during("until iperf3 is reached", |_| {
        let all = [iperf::own_addresses(kube, TO)?, iperf::cluster_set_ips(kube, FROM)?];
        for ip in all.iter().flatten() {
            let url = format!("{}:{HTTP}", shop::host(&ip.to_string()));
            kube.until(&format!("{url} answers"), || Ok(Some(shop::ask(kube, FROM, &url)?)))?;
        }
        Ok(all)
    })?;
    for (ips, port) in [pods, vips].iter().zip(PORTS) {
        screen
            .command(&format!("kubectl --context {FROM} -n {SHOP} exec client -- iperf3 -c {} -p {port} &", ips[0]))?;
    }
    screen.line("  and so on: IPv6; UDP with -u -b 0\n")?;
    let mut peers_hidden = true;
    let slowest = side_by_side(runs, screen, |protocol, family, _run| {
        let index = usize::from(family == Family::V6);
        let one = |side: usize| {
            let to = [pods, vips][side][index];
            parse(&iperf::run(kube, FROM, to, PORTS[side], protocol, RUN)?, protocol)
        };
        let both = thread::scope(|scope| {
            let straight = scope.spawn(|| one(0));
            let through = one(1);
            [straight.join().unwrap_or_else(|_panic| bail!("a run panicked")), through]
        });
        let [straight, through] = both;
        let both = [straight?, through?];
        peers_hidden &= both[1].peer == vips[index].to_string();
        Ok(both)
    })?;
    screen.line("")?;
    judge(slowest, peers_hidden, screen)
}
