//! How long it takes until a node of another cluster uses, or no longer uses, a pod that became ready, or no longer is.
//!
//! ```text
//!  readiness gate's condition ─► kubelet ─► pod's Ready ─► endpoints controller ─► mcs controllers, broker ─► agent ─► maps
//!  └──────── kubelet's part ──────────────┘└──────────────────────── the rest ──────────────────────────────────────────┘
//! ```
//!
//! The start is the request that sets the condition; the pod's watch tells the end of kubelet's part; a watcher on the node
//! tells when both families' maps have it. All by this machine's one clock.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result};
use mcs_clusters::images::TOOLS;
use mcs_tests::client::{Change, Client, Follow, Kind};
use mcs_tests::kube::Kube;
use mcs_tests::kube::shop::SHOP;
use serde_json::{Value, json};

use super::watch::Watch;
use crate::Size;
use crate::control_plane::{self, LIMIT, NAMESPACE, propagation};
use crate::figures::{Found, Runs, Table, at_most, digits};
use crate::progress::Progress;

const GATE: &str = "mcs.internal/bench";
/// The node whose maps are watched.
const NODE: &str = "c1n0";

pub(crate) fn run(size: Size) -> Result<Found> {
    let changes = if size == Size::Quick { 10 } else { 100 };
    let kube = super::installed()?;
    let source = kube.client("c0")?;
    prepare(&kube, &source)?;
    let watch = Watch::start(kube.clusters(), NODE, &format!("{SHOP}/gate"))?;
    watch.until(1, LIMIT).context("the service before the first change")?;
    let mut pods = source.follow(Kind::POD, SHOP)?;
    pods.until(LIMIT, "listed", |_| true)?;

    let mut found = Found::default();
    let mut table =
        Table::new(["ms", "all p50", "p99", "kubelet p50", "p99", "the rest p50", "p99", "most", "changes/s"]);
    for busy in [false, true] {
        let state = if busy { "busy" } else { "idle" };
        let (stop, made, began) = (AtomicBool::new(false), AtomicUsize::new(0), Instant::now());
        let times = thread::scope(|scope| {
            let writers = if busy { propagation::WRITERS } else { 0 };
            let writers: Vec<_> = (0..writers)
                .map(|writer| (writer, &stop, &made, &source))
                .map(|(writer, stop, made, client)| scope.spawn(move || propagation::write(client, writer, stop, made)))
                .collect();
            let times = measure(&source, &mut pods, &watch, changes, state);
            stop.store(true, Ordering::Relaxed);
            for writer in writers {
                writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            times
        })?;
        let rate = made.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
        for (direction, times) in ["ready", "not ready"].iter().zip(times) {
            let [all, kubelet, rest] = times;
            let name = format!("{direction}, {state}");
            let quantile = |runs: &Runs, q| digits(runs.quantile(q));
            table.row([
                name.clone(),
                quantile(&all, 0.5),
                quantile(&all, 0.99),
                quantile(&kubelet, 0.5),
                quantile(&kubelet, 0.99),
                quantile(&rest, 0.5),
                quantile(&rest, 0.99),
                quantile(&rest, 1.0),
                digits(rate),
            ]);
            found.goals.push(at_most(
                format!("pod {name}, until a remote node's maps have it, p99"),
                rest.quantile(0.99),
                500.0,
                "ms",
            ));
            found.figures.push(all.figure(format!("clusters/latency/{name}/all"), "ms"));
            found.figures.push(kubelet.figure(format!("clusters/latency/{name}/kubelet"), "ms"));
            found.figures.push(rest.figure(format!("clusters/latency/{name}/rest"), "ms"));
        }
    }
    println!(
        "a pod's readiness, from the condition at the source to the maps of {NODE}, {changes} changes each way\n{table}"
    );
    Ok(found)
}

/// A service with a pod that is ready and one that is when the bench says so; and the services that change beside it.
fn prepare(kube: &Kube, source: &Client) -> Result<()> {
    for cluster in ["c0", "c1"] {
        kube.apply(cluster, &[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})])?;
    }
    let metadata = |name: &str| json!({"namespace": SHOP, "name": name, "labels": {"app": "gate"}});
    let pod = |name: &str, gates: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata(name),
            "spec": {
                "terminationGracePeriodSeconds": 0, "readinessGates": gates,
                "containers": [{"name": "pod", "image": TOOLS, "command": ["sleep", "86400"]}],
            },
        })
    };
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata("gate"),
        "spec": {"selector": {"app": "gate"}, "ipFamilyPolicy": "RequireDualStack", "ports": [{"name": "http", "port": 80}]},
    });
    let export = json!({"apiVersion": Kind::EXPORT.api_version, "kind": "ServiceExport", "metadata": metadata("gate")});
    let gated = pod("gated", json!([{"conditionType": GATE}]));
    kube.apply("c0", &[service, export, pod("open", json!([])), gated])?;
    kube.kubectl("c0", &["-n", SHOP, "wait", "--for=condition=ContainersReady", "pod/gated", "--timeout=120s"])?;
    for number in 0..propagation::BUSY {
        let name = format!("load-{number}");
        let slice = control_plane::slice(&name, &[propagation::address(number, 0)]);
        for object in [control_plane::service(&name), control_plane::export(&name), slice] {
            source.create(&object)?;
        }
    }
    let all = |imports: &[&Value]| imports.len() == propagation::BUSY;
    kube.client("c1")?.wait_all((Kind::IMPORT, NAMESPACE), LIMIT, "the services are imported", all).map(drop)
}

/// For both directions, in milliseconds: all, kubelet's part, the rest.
fn measure(source: &Client, pods: &mut Follow, watch: &Watch, changes: usize, state: &str) -> Result<[[Runs; 3]; 2]> {
    let mut times: [[Runs; 3]; 2] = Default::default();
    let mut progress = Progress::new(format!("changes, {state}"), changes);
    for change in 0..changes {
        for (direction, (ready, usable)) in [("True", 2), ("False", 1)].into_iter().enumerate() {
            let condition = json!({"status": {"conditions": [{"type": GATE, "status": ready}]}});
            let start = SystemTime::now();
            source.merge_status(Kind::POD, SHOP, "gated", &condition)?;
            await_ready(pods, ready)?;
            let said = SystemTime::now();
            let mapped = watch.until(usable, LIMIT)?;
            let milliseconds = |from: SystemTime, to: SystemTime| match to.duration_since(from) {
                Ok(after) => after.as_secs_f64() * 1e3,
                Err(before) => -before.duration().as_secs_f64() * 1e3,
            };
            let of_change = [milliseconds(start, mapped), milliseconds(start, said), milliseconds(said, mapped)];
            for (runs, time) in times[direction].iter_mut().zip(of_change) {
                runs.0.push(time);
            }
        }
        progress.at(change + 1);
    }
    Ok(times)
}

fn await_ready(pods: &mut Follow, ready: &str) -> Result<()> {
    propagation::await_change(pods, &format!("pod gated, Ready={ready}"), |change| {
        let Change::Put(pod) = change else { return false };
        let conditions = pod["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let is_so = conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == ready);
        pod["metadata"]["name"] == "gated" && is_so
    })
}
