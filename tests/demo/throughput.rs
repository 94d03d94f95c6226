//! What a ClusterSetIP costs: iperf3 through it and straight to the pod behind it, side by side.

use anyhow::{Result, ensure};
use mcs_tests::Family;
use mcs_tests::identity::Protocol;

use crate::counters::Connections;
use crate::iperf::{self, Run};
use crate::screen::Screen;
use crate::stage::{IPERF, Stage};

/// A ratio below this is no noise, not even of a busy machine with two cores.
const TOO_SLOW: f64 = 0.5;

pub(crate) fn show(stage: &Stage, seconds: u32, screen: &mut Screen) -> Result<()> {
    let (vip, pod) = stage.iperf(Family::V4);
    screen.step(
        "Throughput: the ClusterSetIP against the pod itself",
        &[
            &format!(
                "iperf3 from pod {} (cluster a) to {vip} and to pod {} (cluster b)",
                stage.client.name(),
                pod.name()
            ),
            "behind it. connect() is translated once and no packet pays anything, so",
            "both should be alike. UDP sends as fast as it can: what is lost is the",
            "receiver's lack of CPU. One pair of runs is noisy: see `xtask bench`.",
        ],
    )?;
    if !stage.has_iperf() {
        return screen.check(false, "iperf3 is not installed: nothing measured");
    }
    screen
        .line(&format!("  {:<10} {:>16} {:>20} {:>8}   lost, of UDP", "", "pod, straight", "ClusterSetIP", "ratio"))?;
    let before = Connections::read(stage.agent(), IPERF)?;
    let mut slowest = f64::INFINITY;
    let mut peers_hidden = true;
    for protocol in Protocol::BOTH {
        for family in Family::BOTH {
            let (vip, pod) = stage.iperf(family);
            screen.part(&format!("  {protocol:<3} {:<6}", family.as_str()))?;
            let direct = iperf::run(&stage.client, pod.ip(family), protocol, seconds)?;
            screen.part(&format!(" {:>9.2} Gbit/s", giga(&direct)))?;
            let through = iperf::run(&stage.client, vip, protocol, seconds)?;
            ensure!(direct.bits_per_second > 0.0, "iperf3 {protocol} to {}: nothing arrived", pod.ip(family));
            let ratio = through.bits_per_second / direct.bits_per_second;
            let lost = match protocol {
                Protocol::Tcp => String::new(),
                Protocol::Udp => format!("   {:.1} % / {:.1} %", direct.lost_percent, through.lost_percent),
            };
            screen.line(&format!(" {:>13.2} Gbit/s {ratio:>8.2}{lost}", giga(&through)))?;
            slowest = slowest.min(ratio);
            peers_hidden &= through.peer == vip.to_string();
        }
    }
    let counted = Connections::read(stage.agent(), IPERF)?.since(&before);
    screen.check(slowest > TOO_SLOW, &format!("the ClusterSetIP kept up (lowest ratio {slowest:.2})"))?;
    screen.check(peers_hidden, "iperf3 saw the ClusterSetIP as its peer, TCP and UDP (getpeername)")?;
    let (to_a, to_b) = (counted.to_cluster("a"), counted.to_cluster("b"));
    // Four runs through it, each of a control and a data connection; a server that was busy adds to that.
    screen.check(
        to_a == 0 && to_b >= 8,
        &format!("the agent counted {to_b} connections to b and {to_a} to a, as the weights say"),
    )
}

fn giga(run: &Run) -> f64 {
    run.bits_per_second / 1e9
}
