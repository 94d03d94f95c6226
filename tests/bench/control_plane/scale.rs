//! Many services with many endpoints: how much memory the controllers take, what lies at the broker, how long an agent
//! takes to have all of it in the kernel, and what one change of one endpoint writes.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mcs_tests::client::{Change, Follow, Kind};
use mcs_tests::mcs::resident_memory;
use serde_json::{Value, json};

use super::{ClusterSet, NAMESPACE, endpoints, export, has_endpoint, service, slice};
use crate::Size;
use crate::figures::{Found, Table, at_most, digits, once};
use crate::progress::say;

/// Endpoints of each service.
const ENDPOINTS: usize = 20;
/// Requests at a time while objects are made.
const WRITERS: usize = 8;
/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(1200);
/// How long is waited for writes that should not come.
const QUIET: Duration = Duration::from_secs(5);

pub(crate) fn run(size: Size) -> Result<Found> {
    let services = if size == Size::Quick { 200 } else { 5000 };
    say("starting a broker and two members");
    let set = ClusterSet::start()?;
    let empty = memory(&set)?;
    let began = Instant::now();
    make(&set, services)?;
    let made = began.elapsed();
    say(&format!("{services} services × {ENDPOINTS} made in {:.0} s, waiting for them", made.as_secs_f64()));
    let mut slices = set.sink.client.follow(Kind::SLICE, NAMESPACE)?;
    slices.until(LIMIT, "all services have slices in the other cluster", |all| all.len() == services)?;
    let mut imports = set.sink.client.follow(Kind::IMPORT, NAMESPACE)?;
    let addressed = |import: &Value| import["spec"]["ips"].as_array().is_some_and(|ips| !ips.is_empty());
    imports.until(LIMIT, "all services have addresses in the other cluster", |all| {
        all.len() == services && all.iter().all(|import| addressed(import))
    })?;
    let arrived = began.elapsed();

    let mut found = Found::default();
    let mut table = Table::new(["", "objects", "MiB"]);
    for kind in [Kind::EXPORT_RECORD, Kind::SLICE_RECORD, Kind::RESERVATION, Kind::LEASE] {
        let all = set.broker_client.list(kind, "")?;
        let bytes: usize = all.iter().map(|object| object.to_string().len()).sum();
        let mib = bytes as f64 / f64::from(1 << 20);
        table.row([format!("at the broker: {}", kind.name), all.len().to_string(), digits(mib)]);
        found.figures.push(once(format!("scale/broker/{}/objects", kind.name), all.len() as f64, ""));
        found.figures.push(once(format!("scale/broker/{}/size", kind.name), mib, "MiB"));
    }
    for ((who, now), before) in ["source", "sink"].into_iter().zip(memory(&set)?).zip(empty) {
        table.row([format!("controller, {who} (with nothing: {})", digits(before)), String::new(), digits(now)]);
        found.figures.push(once(format!("scale/controller/{who}/memory"), now, "MiB"));
    }
    println!("{table}");
    println!(
        "made in {:.0} s, all of it imported {:.0} s after the first request\n",
        made.as_secs_f64(),
        arrived.as_secs_f64()
    );
    found.figures.push(once("scale/all imported", arrived.as_secs_f64(), "s"));

    super::agent::run(&set.sink.server, services, &mut found)?;

    let writes = one_change(&set, &mut slices)?;
    println!(
        "one endpoint of one service replaced: {} slice written at the broker, {} in the other cluster\n",
        writes[0], writes[1]
    );
    for (where_to, count) in ["broker", "sink"].into_iter().zip(writes) {
        found.figures.push(once(format!("scale/one change/{where_to}"), count as f64, ""));
        found.goals.push(at_most(format!("slices written by one change, {where_to}"), count as f64, 1.0, ""));
    }
    Ok(found)
}

/// The controllers' memory in MiB: source, sink.
fn memory(set: &ClusterSet) -> Result<[f64; 2]> {
    let of = |pid| resident_memory(pid).map(|bytes| bytes as f64 / f64::from(1 << 20));
    Ok([of(set.source.controller_pid()?)?, of(set.sink.controller_pid()?)?])
}

fn addresses(service: usize) -> Vec<String> {
    (0..ENDPOINTS).map(|last| format!("10.{}.{}.{}", 100 + service / 250, service % 250, last + 1)).collect()
}

fn make(set: &ClusterSet, services: usize) -> Result<()> {
    let client = &set.source.client;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    for number in (writer..services).step_by(WRITERS) {
                        let name = format!("s{number}");
                        for object in [service(&name), slice(&name, &addresses(number)), export(&name)] {
                            client.create(&object)?;
                        }
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// How many slices one change writes: at the broker, in the other cluster.
fn one_change(set: &ClusterSet, slices: &mut Follow) -> Result<[usize; 2]> {
    let mut records = set.broker_client.follow(Kind::SLICE_RECORD, "")?;
    records.until(LIMIT, "listed", |_| true)?;
    for follow in [&mut records, slices] {
        // What is still on its way from before does not count.
        while follow.next(QUIET).is_some() {}
    }
    let mut changed = addresses(7);
    "10.99.0.1".clone_into(changed.last_mut().context("no endpoints")?);
    let patch = json!({"endpoints": endpoints(&changed)});
    set.source.client.patch(Kind::SLICE, NAMESPACE, "s7-1", &patch)?;
    let mut written = Vec::new();
    let end = Instant::now() + super::LIMIT;
    while !written.iter().any(|slice| has_endpoint(slice, "s7", "10.99.0.1")) {
        let change = slices.next(end.saturating_duration_since(Instant::now()));
        ensure!(change.is_some(), "the change did not arrive");
        written.extend(put(change));
    }
    let rest = |follow: &mut Follow| std::iter::from_fn(|| follow.next(QUIET)).filter_map(|c| put(Some(c))).count();
    Ok([rest(&mut records), written.len() + rest(slices)])
}

fn put(change: Option<Change>) -> Option<Value> {
    match change? {
        Change::Put(object) => Some(object),
        Change::Deleted(_) | Change::Listed => None,
    }
}
