//! From objects to the kernel: 10 000 services × 100 endpoints from nothing, one endpoint changing at that size, and what
//! remains in memory.
//!
//! Each run is a process of its own ([`child`]: this program again), so that its memory is that of an agent and not the
//! bench's. It holds what an agent holds (the objects, the plan, the mapped maps), but was never handed text; the
//! real agent, which reads the same objects from JSON files, comes after.
//!
//! Maps are mapped into the process and count in full in its VmRSS. What an agent costs is RssAnon, and the kernel memory
//! of the maps once.

mod agent;
pub(crate) mod child;

use anyhow::Result;

use self::child::{Report, Request};
use crate::Size;
use crate::figures::{Found, Runs, Table, at_most, digits, once, quartiles};
use crate::load::Load;
use crate::memory::Memory;
use crate::progress::Progress;
use crate::site::Site;

/// The size that the goals are about.
pub(crate) fn load(size: Size) -> Load {
    let services = if size == Size::Quick { 1_000 } else { 10_000 };
    Load { services, endpoints: 100, protocol: mcs::model::Protocol::Tcp }
}

pub(crate) fn run(size: Size) -> Result<Found> {
    let mut found = Found::default();
    let runs = if size == Size::Quick { 2 } else { 5 };
    let load = load(size);
    let reports = repeat(load, runs)?;
    let what = format!("{} × {}", load.services, load.endpoints);

    let all = Runs(reports.iter().map(|report| report.all_ms).collect());
    let changes = Runs(reports.iter().flat_map(|report| report.change_ms.iter().copied()).collect());
    let anon = Runs(reports.iter().map(|report| report.memory.anon).collect());
    let mut table = Table::new(["", "unit", "median", "p25–p75", "max"]);
    for (name, unit, runs) in [
        (format!("{what} from nothing, from parsed objects"), "ms", &all),
        ("one endpoint changing at that size".to_owned(), "ms", &changes),
        ("RssAnon of the process that did it".to_owned(), "MiB", &anon),
    ] {
        table.row([name.clone(), unit.to_owned(), digits(runs.median()), quartiles(runs.spread()), digits(runs.max())]);
        found.figures.push(runs.figure(format!("programming/{name}"), unit));
    }
    found.figures.push(once("programming/one endpoint changing at that size: max", changes.max(), "ms"));
    println!(
        "Programming ({runs} processes, {} changes each)\n{table}",
        reports.first().map_or(0, |r| r.change_ms.len())
    );

    let mut memories = Vec::new();
    if let Some(report) = reports.last() {
        memories.push(("bench process", what.clone(), report.memory, report.kernel_mib));
    }
    let (small, big) = agent::run(load, &mut found)?;
    memories.push(("mcs agent", "10 services".to_owned(), small.memory, small.kernel_mib));
    memories.push(("mcs agent, from JSON", what.clone(), big.memory, big.kernel_mib));
    println!("{}", memory_table(&memories, &mut found));

    found.goals.push(at_most(format!("{what} programmed from parsed objects"), all.median(), 2_000.0, "ms"));
    found.goals.push(at_most("one endpoint changing, p50", changes.median(), 5.0, "ms"));
    found.goals.push(at_most(
        format!("one endpoint changing, slowest of {}", changes.0.len()),
        changes.max(),
        5.0,
        "ms",
    ));
    found.goals.push(at_most(
        format!("RssAnon with {what}, of a process that programmed it"),
        anon.max(),
        600.0,
        "MiB",
    ));
    found.goals.push(at_most(format!("RssAnon with {what}, mcs agent that read it"), big.memory.anon, 600.0, "MiB"));
    found.goals.push(at_most("RssAnon with 10 services, mcs agent", small.memory.anon, 40.0, "MiB"));
    Ok(found)
}

fn repeat(load: Load, runs: usize) -> Result<Vec<Report>> {
    let site = Site::new()?;
    let mut reports = Vec::new();
    let mut progress = Progress::new("programming", runs);
    for run in 0..runs {
        let cgroup = site.cgroup(&format!("run-{run}"))?;
        let pins = site.pins(&format!("run-{run}"));
        reports.push(Request { load, pins: pins.clone(), cgroup }.ask(site.pod())?);
        // The maps of one run are 250 MiB of kernel memory.
        std::fs::remove_dir_all(&pins)?;
        progress.at(run + 1);
    }
    Ok(reports)
}

/// A process's memory by kind, and its maps'.
type Row = (&'static str, String, Memory, f64);

fn memory_table(rows: &[Row], found: &mut Found) -> Table {
    let mut table = Table::new(["MiB", "", "RssAnon", "VmRSS", "RssFile", "RssShmem", "kernel map memory"]);
    for (who, what, memory, kernel) in rows {
        let Memory { rss, anon, file, shmem } = *memory;
        let all =
            [("RssAnon", anon), ("VmRSS", rss), ("RssFile", file), ("RssShmem", shmem), ("kernel map memory", *kernel)];
        for (name, value) in all {
            found.figures.push(once(format!("programming/memory/{who}, {what}/{name}"), value, "MiB"));
        }
        table.row([
            (*who).to_owned(),
            what.clone(),
            digits(anon),
            digits(rss),
            digits(file),
            digits(shmem),
            digits(*kernel),
        ]);
    }
    table
}
