//! What a ClusterSetIP costs a pod: iperf3 through it, and straight to the pod of the other cluster behind it.

use anyhow::Result;
use mcs_tests::Family;
use mcs_tests::kube::iperf::{self, HTTP};
use mcs_tests::kube::shop::{self, SHOP};

use super::shell::Shell;
use crate::iperf::parse;
use crate::screen::Screen;
use crate::throughput::{RUN, Side, judge, side_by_side};

/// Who serves, and who measures.
const TO: &str = "c0";
const FROM: &str = "c1";
/// Where the server listens.
const PORT: u16 = 5201;

pub(crate) fn show(shell: &Shell<'_>, runs: u32, screen: &mut Screen) -> Result<()> {
    screen.step(
        "Throughput: the ClusterSetIP against the pod itself",
        &[
            "iperf3 from a pod of c1 to a pod of c0. connect() is translated once and no",
            "packet pays anything, so both should be alike. UDP is sent as fast as it goes:",
            "what is lost is what the receiver had no CPU for.",
            &format!("Medians of {runs} runs of {RUN} s each, in turn."),
        ],
    )?;
    let kube = shell.kube;
    let servers = [PORT];
    shell.write("iperf.yaml", &[iperf::service(&servers), iperf::pod(&servers), shop::export_of(iperf::IPERF)])?;
    shell.run(&format!("kubectl --context {TO} apply --server-side -f iperf.yaml"), 3, screen)?;
    let [pods, vips] = screen.during("until iperf3 is reached", |_| {
        let all = [iperf::own_addresses(kube, TO)?, iperf::cluster_set_ips(kube, FROM)?];
        for ip in all.iter().flatten() {
            let url = format!("{}:{HTTP}", shop::host(&ip.to_string()));
            kube.until(&format!("{url} answers"), || Ok(Some(shop::ask(kube, FROM, &url)?)))?;
        }
        Ok(all)
    })?;
    for ip in [pods[0], vips[0]] {
        screen.command(&format!("kubectl --context {FROM} -n {SHOP} exec client -- iperf3 -c {ip} -t {RUN}"))?;
    }
    screen.line("  and so on: IPv6; UDP with -u -b 0\n")?;
    let mut peers_hidden = true;
    let slowest = side_by_side(runs, screen, |side, protocol, family| {
        let index = usize::from(family == Family::V6);
        let to = match side {
            Side::Straight => pods[index],
            Side::ClusterSetIp => vips[index],
        };
        let run = parse(&iperf::run(kube, FROM, to, PORT, protocol, RUN)?, protocol)?;
        peers_hidden &= run.peer == to.to_string();
        Ok(run)
    })?;
    screen.line("")?;
    judge(slowest, peers_hidden, screen)
}
