//! What a ClusterSetIP costs: iperf3 through it and straight to the pod behind it, side by side.

use anyhow::{Result, ensure};
use mcs_tests::Family;
use mcs_tests::identity::Protocol;

use crate::counters::Connections;
use crate::ending;
use crate::iperf::{self, Run};
use crate::screen::Screen;
use crate::stage::{IPERF, Stage};

/// A ratio below this is no noise, not even of a busy machine with two cores.
const TOO_SLOW: f64 = 0.5;
/// How long one run takes, in seconds. Short ones in turn: whatever else the machine does hits both sides.
pub(crate) const RUN: u32 = 1;

pub(crate) fn show(stage: &Stage, runs: u32, screen: &mut Screen) -> Result<()> {
    let (vip, pod) = stage.iperf(Family::V4);
    screen.step(
        "Throughput: the ClusterSetIP against the pod itself",
        &[
            &format!(
                "iperf3 from pod {} (cluster a) to {vip}, and to pod {} (cluster b)",
                stage.client.name(),
                pod.name()
            ),
            "behind it. connect() is translated once and no packet pays anything, so",
            "both should be alike. UDP is sent as fast as it goes: what is lost is what",
            &format!("the receiver had no CPU for. Medians of {runs} runs of {RUN} s each, in turn."),
        ],
    )?;
    if !stage.has_iperf() {
        return screen.check(false, "iperf3 is not installed: nothing measured");
    }
    let before = Connections::read(stage.agent(), IPERF)?;
    let mut peers_hidden = true;
    let slowest = side_by_side(runs, screen, |protocol, family, run| {
        let (vip, pod) = stage.iperf(family);
        let straight = || iperf::run(&stage.client, pod.ip(family), protocol, RUN);
        let through = || iperf::run(&stage.client, vip, protocol, RUN);
        // Straight first, then last, and so on: what changes slowly hits both sides too.
        let (straight, through) = if run % 2 == 0 {
            let straight = straight()?;
            (straight, through()?)
        } else {
            let through = through()?;
            (straight()?, through)
        };
        peers_hidden &= through.peer == vip.to_string();
        Ok([straight, through])
    })?;
    let counted = Connections::read(stage.agent(), IPERF)?.since(&before);
    screen.line("")?;
    judge(slowest, peers_hidden, screen)?;
    let (to_a, to_b) = (counted.to_cluster("a"), counted.to_cluster("b"));
    // Each run through it is a control and a data connection; asking a server again that was busy adds to that.
    let least = u64::from(runs) * 4 * 2;
    let what = format!("{to_b} connections counted to b and {to_a} to a, as the weights say");
    screen.check(to_a == 0 && to_b >= least, &what)
}

/// Measures each protocol and family, so many runs, each of the pod straight and of the ClusterSetIP, and writes the table.
/// The lowest ratio.
pub(crate) fn side_by_side(
    runs: u32,
    screen: &Screen,
    mut measure: impl FnMut(Protocol, Family, u32) -> Result<[Run; 2]>,
) -> Result<f64> {
    screen.line(&format!(
        "  {:<10} {:>16} {:>18} {:>7}   {}",
        "", "pod, straight", "ClusterSetIP", "ratio", "lost of UDP"
    ))?;
    let mut slowest = f64::INFINITY;
    for protocol in Protocol::BOTH {
        for family in Family::BOTH {
            let mut sides = [Vec::new(), Vec::new()];
            for run in 0..runs {
                if ending::interrupted() {
                    anyhow::bail!("interrupted");
                }
                screen.progress(&format!("  {protocol} {:<6} run {} of {runs}", family.as_str(), run + 1))?;
                for (side, run) in sides.iter_mut().zip(measure(protocol, family, run)?) {
                    side.push(run);
                }
            }
            let [direct, through] = sides.each_ref().map(|runs| median(runs.iter().map(|run| run.bits_per_second)));
            ensure!(direct > 0.0, "iperf3 {protocol} {}, straight: nothing arrived", family.as_str());
            let ratio = through / direct;
            slowest = slowest.min(ratio);
            let lost = match protocol {
                Protocol::Tcp => String::new(),
                Protocol::Udp => {
                    let [direct, through] = sides.map(|runs| median(runs.iter().map(|run| run.lost_percent)));
                    format!("   {direct:.1} % / {through:.1} %")
                }
            };
            let (direct, through) = (direct / 1e9, through / 1e9);
            screen.line(&format!(
                "  {protocol:<3} {:<6} {direct:>9.2} Gbit/s {through:>11.2} Gbit/s {ratio:>7.2}{lost}",
                family.as_str()
            ))?;
        }
    }
    Ok(slowest)
}

/// What must hold of that.
pub(crate) fn judge(slowest: f64, peers_hidden: bool, screen: &mut Screen) -> Result<()> {
    screen.check(slowest > TOO_SLOW, &format!("the ClusterSetIP kept up (lowest ratio {slowest:.2})"))?;
    screen.check(peers_hidden, "iperf3 saw the ClusterSetIP as its peer, TCP and UDP (getpeername)")
}

/// The middle one; of an even number, the mean of the two in the middle.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let half = figures.len() / 2;
    match figures.len() {
        0 => 0.0,
        even if even % 2 == 0 => f64::midpoint(figures[half - 1], figures[half]),
        _ => figures[half],
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median([].into_iter()), 0.0);
    }
}
