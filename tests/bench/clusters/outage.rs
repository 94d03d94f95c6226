//! What connections see, one after the other without a pause, while parts of real clusters are replaced or gone.
//!
//! The client's pod is in c1, the backends in c0 and c1. "Last failure" counts from the part's end; "converged" from when the
//! part was ready again until the maps of a node of c1 have what changed in c0 meanwhile.

use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use mcs_clusters::Part;
use mcs_tests::kube::Kube;
use mcs_tests::kube::load::{Load, Seen, uptime};
use mcs_tests::kube::shop::{SHOP, addresses, backends, export, reaches, web};

use super::watch::Watch;
use crate::Size;
use crate::figures::{Found, Table, at_most, digits, once};
use crate::progress::say;

/// How long the maps may take to follow.
const LIMIT: Duration = Duration::from_secs(240);
/// How long connections go on after the maps have a loss: longer than one may take before it counts as failed.
const AFTERWARDS: Duration = Duration::from_secs(5);

pub(crate) fn run(size: Size) -> Result<Found> {
    let outage = Duration::from_secs(if size == Size::Quick { 10 } else { 60 });
    let kube = super::installed()?;
    for cluster in ["c0", "c1"] {
        kube.apply(cluster, &web(2))?;
        kube.apply(cluster, &[export()])?;
        kube.rolled_out(cluster, SHOP, "deployment/web")?;
    }
    let [ip, _] = addresses(&kube, "c1")?;
    let all = backends(&kube, "c0")?.into_iter().chain(backends(&kube, "c1")?).collect();
    reaches(&kube, "c1", &ip, &all)?;
    let watch = Watch::start(kube.clusters(), "c1n0", &format!("{SHOP}/web"))?;
    let mut bench = Bench { kube: &kube, ip, watch, found: Found::default(), table: Table::new(HEAD) };

    bench.replaced("agents", &["daemonset/mcs-agent"], "mcs-system", &["c1"])?;
    bench.replaced("controllers", &["deployment/mcs-controller"], "mcs-system", &["c0", "c1"])?;
    bench.replaced("backends, which drain", &["deployment/web"], SHOP, &["c0"])?;
    bench.down("API server of c1", &Part::ApiServer("c1".to_owned()), outage, 3)?;
    bench.down("broker", &Part::Broker, outage, 2)?;
    let on_node = ["-n", SHOP, "get", "pods", "-l", "app=web", "--field-selector=spec.nodeName=c0n1", "-o", "name"];
    let lost = kube.kubectl("c0", &on_node)?.lines().count();
    bench.lost("node c0n1", &Part::Node("c0n1".to_owned()), u32::try_from(4 - lost)?)?;
    bench.lost("cluster c0", &Part::Cluster("c0".to_owned()), 2)?;

    println!("{}", bench.table);
    Ok(bench.found)
}

const HEAD: [&str; 7] = ["", "connections", "per s", "failed", "slowest ms", "last failure s", "converged s"];

struct Bench<'a> {
    kube: &'a Kube,
    ip: String,
    watch: Watch,
    found: Found,
    table: Table,
}

impl Bench<'_> {
    /// A rolling restart of workloads.
    fn replaced(&mut self, what: &str, workloads: &[&str], namespace: &str, clusters: &[&str]) -> Result<()> {
        say(&format!("rolling restart: {what}"));
        let load = Load::start(self.kube, "c1", &self.ip, "replaced")?;
        let start = uptime()?;
        for (cluster, workload) in clusters.iter().flat_map(|cluster| workloads.iter().map(move |one| (cluster, one))) {
            self.kube.kubectl(cluster, &["-n", namespace, "rollout", "restart", workload])?;
            self.kube.rolled_out(cluster, namespace, workload)?;
        }
        let seen = load.stop()?;
        self.row(&format!("rolling restart of {what}"), &seen, start, None, true);
        Ok(())
    }

    /// A part is away for a time in which a service of c0 changes.
    fn down(&mut self, what: &str, part: &Part, outage: Duration, replicas: u32) -> Result<()> {
        say(&format!("{what}: down for {} s", outage.as_secs()));
        let load = Load::start(self.kube, "c1", &self.ip, "down")?;
        let start = uptime()?;
        let end = std::time::Instant::now() + outage;
        self.kube.clusters().kill(part)?;
        let scale = format!("--replicas={replicas}");
        self.kube.kubectl("c0", &["-n", SHOP, "scale", "deployment/web", &scale])?;
        self.kube.rolled_out("c0", SHOP, "deployment/web")?;
        // The outage itself: nothing is waited for.
        thread::sleep(end.saturating_duration_since(std::time::Instant::now()));
        self.kube.clusters().restart(part, &|line| say(line))?;
        let ready = SystemTime::now();
        let converged = self.watch.until(2 + replicas, LIMIT).with_context(|| format!("after {what}"))?;
        let seen = load.stop()?;
        let converged = converged.duration_since(ready).unwrap_or_default();
        self.row(&format!("{what} down for {} s", outage.as_secs()), &seen, start, Some(converged), true);
        Ok(())
    }

    /// A part with backends is lost for good; `left` backends stay.
    fn lost(&mut self, what: &str, part: &Part, left: u32) -> Result<()> {
        say(&format!("{what}: lost"));
        let load = Load::start(self.kube, "c1", &self.ip, "lost")?;
        let (start, killed) = (uptime()?, SystemTime::now());
        self.kube.clusters().kill(part)?;
        let converged = self.watch.until(left, LIMIT).with_context(|| format!("after {what} was lost"))?;
        // The figure is the last failure: without connections after the change there would be none to tell it from.
        thread::sleep(AFTERWARDS);
        let seen = load.stop()?;
        self.row(&format!("{what} lost"), &seen, start, converged.duration_since(killed).ok(), false);
        self.kube.clusters().restart(part, &|line| say(line))?;
        self.watch.until(4, LIMIT).with_context(|| format!("after {what} came back"))?;
        Ok(())
    }

    fn row(&mut self, what: &str, seen: &Seen, start: Duration, converged: Option<Duration>, whole: bool) {
        let failed = seen.failed().count();
        let slowest = seen.connections.iter().map(|one| one.took.as_secs_f64() * 1e3).fold(0.0, f64::max);
        let last = seen.failed().last().map(|one| (one.at + one.took).saturating_sub(start).as_secs_f64());
        let rate = seen.connections.len() as f64 / seen.time().as_secs_f64();
        let converged = converged.map(|time| time.as_secs_f64());
        let or_none = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), digits);
        self.table.row([
            what.to_owned(),
            seen.connections.len().to_string(),
            digits(rate),
            failed.to_string(),
            digits(slowest),
            or_none(last),
            or_none(converged),
        ]);
        for one in seen.failed().take(3) {
            eprintln!("    {what}: failed {:.1} s after: {:?}", one.at.saturating_sub(start).as_secs_f64(), one.failed);
        }
        if whole {
            self.found.goals.push(at_most(format!("{what}: failed connections"), failed as f64, 0.0, ""));
        }
        self.found.figures.push(once(format!("clusters/outage/{what}/failed"), failed as f64, ""));
        if let Some(last) = last {
            self.found.figures.push(once(format!("clusters/outage/{what}/last failure"), last, "s"));
        }
        if let Some(converged) = converged {
            self.found.figures.push(once(format!("clusters/outage/{what}/converged"), converged, "s"));
        }
    }
}
