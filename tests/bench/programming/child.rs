//! One run of programming, in a process of its own: this program started again with [`VERB`].

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use mcs::dataplane::shape::Capacity;
use mcs::model::{Object, Protocol};
use mcs_ebpf::Addr;
use mcs_tests::manifest::load_address;
use mcs_tests::{Family, Place};
use serde::{Deserialize, Serialize};

use crate::bpf::kernel_memory;
use crate::load::{Load, Names, apply};
use crate::memory::{Memory, mib};
use crate::world::World;

/// The first argument that makes this program a child.
pub(crate) const VERB: &str = "program-once";

/// How often one endpoint changes.
const CHANGES: u16 = 200;

/// What to program and where.
pub(crate) struct Request {
    pub(crate) load: Load,
    pub(crate) pins: PathBuf,
    pub(crate) cgroup: PathBuf,
}

/// What came out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) all_ms: f64,
    pub(crate) change_ms: Vec<f64>,
    pub(crate) memory: Memory,
    pub(crate) kernel_mib: f64,
}

impl Request {
    /// Has it done in a place.
    pub(crate) fn ask(&self, place: &Place) -> Result<Report> {
        let Self { load, pins, cgroup } = self;
        let mut command = Command::new("/proc/self/exe");
        command.arg(VERB).arg(load.services.to_string()).arg(load.endpoints.to_string()).arg(pins).arg(cgroup);
        let answer = place.stdout(command)?;
        serde_json::from_str(&answer).with_context(|| format!("programming: parse the child's answer {answer:?}"))
    }

    /// From the arguments after [`VERB`].
    fn parse(arguments: &[String]) -> Result<Self> {
        let [services, endpoints, pins, cgroup] = arguments else {
            anyhow::bail!("{VERB}: four arguments: services, endpoints, pin directory, cgroup")
        };
        Ok(Self {
            load: Load { services: services.parse()?, endpoints: endpoints.parse()?, protocol: Protocol::Tcp },
            pins: pins.into(),
            cgroup: cgroup.into(),
        })
    }
}

/// The child: programs, changes, looks at its memory, and prints the report.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let Request { load, pins, cgroup } = Request::parse(arguments)?;
    let mut world = World::open(pins, &cgroup, Capacity::default())?;
    let events = load.events(Family::V4);
    let all_ms = world.program(events)?.as_secs_f64() * 1e3;
    ensure!(world.services() == usize::from(load.services), "programming: {} services in the maps", world.services());

    let change_ms = (0..CHANGES).map(|number| change(&mut world, load, number)).collect::<Result<_>>()?;
    let report =
        Report { all_ms, change_ms, memory: Memory::of("self")?, kernel_mib: mib(kernel_memory(&world.maps())?) };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// One endpoint of one service gets another address; at every third, one goes, and at the next that comes by, comes back.
/// The source delivers the whole slice, as Kubernetes does.
fn change(world: &mut World, load: Load, number: u16) -> Result<f64> {
    let names = Names::default();
    let service = (u32::from(number) * 7919 % u32::from(load.services)) as u16;
    let mut slice = load.slices(&names, service, Family::V4).next().context("change: a service without slices")?;
    if number.is_multiple_of(3) {
        slice.endpoints.pop();
    } else if let Some(endpoint) = slice.endpoints.first_mut() {
        endpoint.addr = Addr::from(load_address(Family::V4, 15_000_000 + u32::from(number)));
    }
    let event = apply(Object::Slice(slice));
    let started = Instant::now();
    world.program(vec![event])?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}
