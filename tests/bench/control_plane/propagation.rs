//! How long a change takes from one cluster to the other: from the request that makes it until a watch in the other
//! cluster shows its consequence. One change at a time, idle and while other services' endpoints change.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use mcs_tests::client::{Change, Client, Follow, Kind};
use serde_json::{Value, json};

use super::{ClusterSet, LIMIT, NAMESPACE, endpoints, export, has_endpoint, service, slice};
use crate::Size;
use crate::figures::{Found, Runs, Table, at_most, digits};
use crate::progress::{Progress, say};

/// The services whose endpoints change beside the measured ones.
pub(crate) const BUSY: usize = 50;
/// How many of their changes there are in a second, all together.
const RATE: usize = 100;
/// Who makes them: one request at a time each.
pub(crate) const WRITERS: usize = 5;

pub(crate) fn run(size: Size) -> Result<Found> {
    let changes = if size == Size::Quick { 20 } else { 200 };
    say("starting a broker and two members");
    let set = ClusterSet::start()?;
    for number in 0..BUSY {
        let name = format!("load-{number}");
        for object in [service(&name), export(&name), slice(&name, &[address(number, 0)])] {
            set.source.client.create(&object)?;
        }
    }
    let all = |imports: &[&Value]| imports.len() == BUSY;
    set.sink.client.wait_all((Kind::IMPORT, NAMESPACE), LIMIT, "the first services are imported", all)?;

    let mut found = Found::default();
    let mut table = Table::new([
        "",
        "p50 ms",
        "p99 ms",
        "most ms",
        "other changes/s",
        "API servers' CPU: source",
        "sink",
        "broker",
        "writes per change",
        "sink",
        "broker",
    ]);
    for busy in [false, true] {
        let round = Round::begin(&set, busy)?;
        let Measured { imports, slices, rate, cpu, writes } = round.measure(changes)?;
        let state = if busy { "busy" } else { "idle" };
        for (what, goal, runs) in [("export → import", 1000.0, imports), ("endpoints → slice", 500.0, slices)] {
            let cpu = cpu.map(|used| format!("{:.0} %", used * 100.0));
            let [source, sink, broker] = cpu;
            let [written, written_sink, written_broker] = writes.map(digits);
            let quantile = |q| digits(runs.quantile(q));
            let name = format!("{what}, {state}");
            table.row([
                name.clone(),
                quantile(0.5),
                quantile(0.99),
                quantile(1.0),
                digits(rate),
                source,
                sink,
                broker,
                written,
                written_sink,
                written_broker,
            ]);
            found.goals.push(at_most(format!("{name}, p99"), runs.quantile(0.99), goal, "ms"));
            found.figures.push(runs.figure(format!("propagation/{what}/{state}"), "ms"));
        }
    }
    println!("{table}");
    Ok(found)
}

pub(crate) fn address(service: usize, change: usize) -> String {
    format!("10.{}.{}.{}", 20 + service % 100, change / 250 % 250, 1 + change % 250)
}

/// What a round came to.
struct Measured {
    /// Milliseconds from export to import.
    imports: Runs,
    /// Milliseconds from endpoint to slice.
    slices: Runs,
    /// Other changes in a second.
    rate: f64,
    /// The API servers' shares of a processor: source, sink, broker.
    cpu: [f64; 3],
    /// Writes for each request of the bench's, its own among the source's.
    writes: [f64; 3],
}

struct Round<'a> {
    set: &'a ClusterSet,
    busy: bool,
    imports: Follow,
    slices: Follow,
}

impl<'a> Round<'a> {
    fn begin(set: &'a ClusterSet, busy: bool) -> Result<Self> {
        let mut imports = set.sink.client.follow(Kind::IMPORT, NAMESPACE)?;
        let mut slices = set.sink.client.follow(Kind::SLICE, NAMESPACE)?;
        for follow in [&mut imports, &mut slices] {
            follow.until(LIMIT, "listed", |_| true)?;
        }
        Ok(Self { set, busy, imports, slices })
    }

    fn measure(mut self, changes: usize) -> Result<Measured> {
        let (stop, made) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let mut writers = Vec::new();
            if self.busy {
                for writer in 0..WRITERS {
                    let (stop, made, client) = (&stop, &made, &self.set.source.client);
                    writers.push(scope.spawn(move || write(client, writer, stop, made)));
                }
            }
            let result = self.measured(changes, &made);
            stop.store(true, Ordering::Relaxed);
            for writer in writers {
                writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            result
        })
    }

    fn measured(&mut self, changes: usize, made: &AtomicUsize) -> Result<Measured> {
        let state = if self.busy { "busy" } else { "idle" };
        let (writes_before, made_before) = (self.set.writes()?, made.load(Ordering::Relaxed));
        let (began, before) = (Instant::now(), self.set.servers_time()?);
        let source = &self.set.source.client;
        let (mut imports, mut slices) = (Runs::default(), Runs::default());
        let mut progress = Progress::new(format!("changes, {state}"), changes);
        for number in 0..changes {
            let name = format!("{state}-{number}");
            source.create(&service(&name))?;
            let start = Instant::now();
            source.create(&export(&name))?;
            let is_it = |change: &Change| matches!(change, Change::Put(import) if import["metadata"]["name"] == *name);
            await_change(&mut self.imports, &name, is_it)?;
            imports.0.push(start.elapsed().as_secs_f64() * 1e3);

            // Endpoints of a service that is there: first made, then replaced; only the replacement counts.
            let [old, new] = [1, 2].map(|last| format!("10.19.{}.{}", number % 250, last));
            source.create(&slice(&name, std::slice::from_ref(&old)))?;
            let shows = |address: String| {
                let name = name.clone();
                move |change: &Change| matches!(change, Change::Put(slice) if has_endpoint(slice, &name, &address))
            };
            await_change(&mut self.slices, &name, shows(old))?;
            let start = Instant::now();
            let patch = json!({"endpoints": endpoints(std::slice::from_ref(&new))});
            source.patch(Kind::SLICE, NAMESPACE, &format!("{name}-1"), &patch)?;
            await_change(&mut self.slices, &name, shows(new))?;
            slices.0.push(start.elapsed().as_secs_f64() * 1e3);
            progress.at(number + 1);
        }
        let took = began.elapsed().as_secs_f64();
        let after = self.set.servers_time()?;
        let share = std::array::from_fn(|index| (after[index] - before[index]).as_secs_f64() / took);
        let others = (made.load(Ordering::Relaxed) - made_before) as f64;
        // Of a measured service: itself, its export, its slice, and the slice once more.
        let all = others + 4.0 * changes as f64;
        let writes_after = self.set.writes()?;
        let writes = std::array::from_fn(|index| (writes_after[index] - writes_before[index]) / all);
        Ok(Measured { imports, slices, rate: others / took, cpu: share, writes })
    }
}

/// Waits for the change; those that are not it are passed over.
pub(crate) fn await_change(follow: &mut Follow, what: &str, is_it: impl Fn(&Change) -> bool) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while let Some(change) = follow.next(end.saturating_duration_since(Instant::now())) {
        if is_it(&change) {
            return Ok(());
        }
    }
    bail!("{what}: it did not arrive in {LIMIT:?}")
}

/// Changes endpoints of the busy services, at its part of the rate.
pub(crate) fn write(client: &Client, writer: usize, stop: &AtomicBool, made: &AtomicUsize) -> Result<()> {
    let pause = Duration::from_secs(1) * u32::try_from(WRITERS)? / u32::try_from(RATE)?;
    let began = Instant::now();
    for change in 1_usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let number = (writer + change * WRITERS) % BUSY;
        let patch = json!({"endpoints": endpoints(&[address(number, change)])});
        client.patch(Kind::SLICE, NAMESPACE, &format!("load-{number}-1"), &patch)?;
        made.fetch_add(1, Ordering::Relaxed);
        // By the clock, not by the request: a slow request does not lower the rate for good.
        let due = began + pause * u32::try_from(change).context("too many changes")?;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}
