//! Who gets the connections: as the client sees it, and as the agent counted it.

use std::collections::BTreeMap;
use std::io;

use anyhow::{Context as _, Result, ensure};
use mcs_tests::Family;
use mcs_tests::identity::Connection;

use crate::counters::Connections;
use crate::ending;
use crate::screen::Screen;
use crate::stage::{Stage, WEB};

/// Connections of each family.
const CONNECTIONS: u32 = 1000;
/// How far a backend may be from its share, in standard deviations: chance does that once in millions of demos.
const DEVIATIONS: f64 = 6.0;

type Counts = BTreeMap<String, u32>;

pub(crate) fn show(stage: &Stage, screen: &mut Screen) -> Result<()> {
    screen.step(
        &format!("Spread: {CONNECTIONS} connections of each family to {WEB}"),
        &[
            "Each server says who it is. All backends are alike, so each pod of both",
            "clusters should get a quarter; the agent's counters should agree.",
        ],
    )?;
    let before = Connections::read(stage.agent(), WEB)?;
    let seen = Family::BOTH.map(|family| connect(stage, family));
    let [v4, v6] = seen;
    let seen = [v4?, v6?];
    let counted = Connections::read(stage.agent(), WEB)?.since(&before);

    screen.line(&format!("  {:<28} {:>7} {:>7}   {:>7}", "the client reached", "IPv4", "IPv6", "share"))?;
    let pods = stage.pod_names(&["a", "b"]);
    let mut agree = true;
    for cluster in ["a", "b"] {
        let of_cluster = stage.pod_names(&[cluster]);
        for pod in &of_cluster {
            row(screen, &format!("  pod {pod}"), seen.each_ref().map(|seen| u64::from(of(seen, pod))))?;
        }
        let sums = seen.each_ref().map(|seen| of_cluster.iter().map(|pod| u64::from(of(seen, pod))).sum::<u64>());
        let counts = Family::BOTH.map(|family| counted.to(family, cluster));
        row(screen, &format!("cluster {cluster}"), sums)?;
        row(screen, "  the agent counted", counts)?;
        agree &= sums == counts;
    }
    let fair = f64::from(CONNECTIONS) / pods.len() as f64;
    let deviation = (fair * (1.0 - 1.0 / pods.len() as f64)).sqrt();
    let farthest = seen
        .iter()
        .flat_map(|seen| pods.iter().map(move |pod| (f64::from(of(seen, pod)) - fair).abs()))
        .fold(0.0, f64::max);
    screen.line("")?;
    screen.check(
        farthest < DEVIATIONS * deviation,
        &format!("every pod has its {fair:.0}: off by {farthest:.0} at most; one standard deviation is {deviation:.0}"),
    )?;
    screen.check(agree, "the agent counted what the client saw, by cluster and family")
}

/// Connects again and again, one after the other.
fn connect(stage: &Stage, family: Family) -> Result<Counts> {
    let to = stage.web(family);
    let connect_all = || -> io::Result<Counts> {
        let mut counts = Counts::new();
        for _ in 0..CONNECTIONS {
            if ending::interrupted() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            *counts.entry(Connection::open(to)?.backend).or_default() += 1;
        }
        Ok(counts)
    };
    let counts = stage.client.try_run(connect_all)?.with_context(|| format!("connect to {to}"))?;
    let stranger = counts.keys().find(|name| !stage.pod_names(&["a", "b"]).contains(&name.as_str()));
    ensure!(stranger.is_none(), "connect to {to}: {stranger:?} answered, which is no backend");
    Ok(counts)
}

fn of(seen: &Counts, pod: &str) -> u32 {
    seen.get(pod).copied().unwrap_or(0)
}

fn row(screen: &Screen, who: &str, [v4, v6]: [u64; 2]) -> Result<()> {
    let share = (v4 + v6) as f64 / f64::from(2 * CONNECTIONS) * 100.0;
    screen.line(&format!("  {who:<28} {v4:>7} {v6:>7}   {share:>5.1} %"))
}
