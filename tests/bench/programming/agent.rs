//! The same by a real `mcs agent --source dir:`, from JSON text to the kernel.

use std::time::Instant;

use anyhow::{Context as _, Result};
use mcs_tests::agent::{Agent, AgentOptions};
use mcs_tests::{Family, Fleet, manifest};

use crate::bpf::kernel_memory;
use crate::figures::{Found, Table, digits, once};
use crate::load::Load;
use crate::memory::{Memory, mib};
use crate::progress::say;

/// Services of one file.
const PER_FILE: u16 = 1_000;

/// An agent's memory once it has all in the kernel.
pub(crate) struct Seen {
    pub(crate) memory: Memory,
    pub(crate) kernel_mib: f64,
}

/// Agents with ten services, and with the load.
pub(crate) fn run(load: Load, found: &mut Found) -> Result<(Seen, Seen)> {
    let fleet = Fleet::builder().build()?;
    let (_, small) = seen(&fleet, "small", Load { services: 10, endpoints: 10, ..load })?;
    let (seconds, big) = seen(&fleet, "big", load)?;
    let Timing { to_ready, handled, bytes } = seconds;
    let mut table = Table::new(["mcs agent, from JSON", ""]);
    let what = format!("{} × {}", load.services, load.endpoints);
    table.row([
        format!("{what}, text"),
        format!("{} MiB in {} files", digits(mib(bytes)), load.services.div_ceil(PER_FILE)),
    ]);
    table.row(["start to ready (maps made, text read and parsed, programmed)".to_owned(), format!("{to_ready:.2} s")]);
    found.figures.push(once(format!("programming/mcs agent, {what} from JSON: start to ready"), to_ready, "s"));
    if let Some(handled) = handled {
        table.row(["of that, from parsed objects to the kernel".to_owned(), handled]);
    }
    println!("{table}");
    Ok((small, big))
}

struct Timing {
    to_ready: f64,
    handled: Option<String>,
    bytes: u64,
}

fn seen(fleet: &Fleet, name: &str, load: Load) -> Result<(Timing, Seen)> {
    say(&format!("mcs agent with {} × {}", load.services, load.endpoints));
    let source = fleet.dir(format!("manifests-{name}"))?;
    let mut bytes = 0;
    let mut first = 0;
    while first < load.services {
        let end = load.services.min(first + PER_FILE);
        let text = load.json(first..end, Family::V4);
        bytes += text.len() as u64;
        manifest::write_text(&source, &format!("services-{first}.json"), &text)?;
        first = end;
    }
    let mut options = AgentOptions::new(fleet, fleet.node("a1"), &source);
    options.pin_dir = options.pin_dir.with_file_name(name);
    options.environment.push(("MCS_LOG".to_owned(), "info,mcs=debug".to_owned()));
    let maps = mcs::dataplane::pins::PinDir::new(&options.pin_dir).maps();
    let started = Instant::now();
    let agent = Agent::start_ready(fleet, fleet.node("a1"), options)?;
    let to_ready = started.elapsed().as_secs_f64();
    let pid = agent.pid().context("the agent ended")?;
    let seen = Seen { memory: Memory::of(&pid.to_string())?, kernel_mib: mib(kernel_memory(&maps)?) };
    // `handled events=… took=…`: the one with the most events.
    let log = agent.log_text();
    let handled =
        log.lines().filter(|line| line.contains("handled")).filter_map(took).max_by_key(|(events, _)| *events);
    Ok((Timing { to_ready, handled: handled.map(|(_, took)| took), bytes }, seen))
}

/// Events and time of a line of the agent's log.
fn took(line: &str) -> Option<(u64, String)> {
    let events = line.split_once("events=")?.1.split(' ').next()?.parse().ok()?;
    Some((events, line.split_once("took=")?.1.split(' ').next()?.to_owned()))
}
