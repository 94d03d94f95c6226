//! An agent's inside, without the agent: kernel side and programmer of one pin directory, driven by the bench itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mcs::dataplane::pins::PinDir;
use mcs::dataplane::shape::Capacity;
use mcs::dataplane::{Dataplane, Options};
use mcs::desired::NodeContext;
use mcs::maps::bpf::BpfMaps;
use mcs::model::Event;
use mcs::programmer::Programmer;
use mcs_tests::addresses::clusterset_cidrs;

use crate::bpf::Program;

/// Programs attached to a cgroup, and maps that are written by this process.
pub(crate) struct World {
    dataplane: Dataplane,
    programmer: Programmer<BpfMaps>,
    pins: PinDir,
}

impl World {
    /// A fresh one: nothing must be pinned there.
    pub(crate) fn open(pins: impl Into<PathBuf>, cgroup: &Path, capacity: Capacity) -> Result<Self> {
        let pins = PinDir::new(pins);
        let cidrs = clusterset_cidrs().iter().map(|cidr| cidr.parse()).collect::<Result<Vec<_>, _>>()?;
        let options =
            Options { pins: pins.clone(), cgroup: cgroup.to_owned(), cidrs: cidrs.clone(), capacity, log_level: 0 };
        let (dataplane, maps) = Dataplane::open(&options)?;
        let node = NodeContext {
            cluster: Arc::from("a"),
            node: Arc::from("node-0"),
            zone: Some(Arc::from("zone-0")),
            prefer_local_cluster: false,
            cidrs,
        };
        let programmer = Programmer::new(node, maps).context("take over the maps")?;
        Ok(Self { dataplane, programmer, pins })
    }

    /// Has events programmed and says how long that took; everything must have fitted.
    pub(crate) fn program(&mut self, events: Vec<Event>) -> Result<Duration> {
        let Self { dataplane, programmer, pins: _ } = self;
        let started = Instant::now();
        let outcome = programmer.handle(events, &mut || Ok(dataplane.attach_udp()?));
        let took = started.elapsed();
        ensure!(
            outcome.settled && outcome.unprogrammed == 0 && outcome.failures.is_empty(),
            "program services: not everything is in the maps: {outcome:?}"
        );
        Ok(took)
    }

    /// How many services are in the maps.
    pub(crate) fn services(&self) -> usize {
        self.programmer.service_count()
    }

    /// Where its maps are pinned.
    pub(crate) fn maps(&self) -> PathBuf {
        self.pins.maps()
    }

    /// Takes the program of a hook (`connect4`) off its cgroup and hands it over, so that the bench can attach it at times.
    pub(crate) fn take(&self, hook: &str) -> Result<Program> {
        let pin = self.pins.links().join(hook);
        let program = Program::of_link(&pin)?;
        std::fs::remove_file(&pin).with_context(|| format!("{}: remove", pin.display()))?;
        Ok(program)
    }
}
