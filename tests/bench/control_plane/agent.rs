//! An agent on an API server that holds all of it: how long from its start until the kernel has everything, the first
//! time and again with the maps that are there, and how much memory it takes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mcs_tests::Fleet;
use mcs_tests::agent::{Agent, AgentOptions};
use mcs_tests::apiserver::ApiServer;

use crate::bpf::kernel_memory;
use crate::figures::{Found, Table, digits, once};
use crate::memory::{Memory, mib};
use crate::progress::say;

/// How long a start may take.
const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn run(server: &ApiServer, services: usize, found: &mut Found) -> Result<()> {
    let fleet = Fleet::builder().build()?;
    let options = AgentOptions::kube(&fleet, fleet.node("a1"), server.kubeconfig());
    let maps = mcs::dataplane::pins::PinDir::new(&options.pin_dir).maps();
    let mut table =
        Table::new(["mcs agent --source kube", "start to all programmed s", "RssAnon MiB", "kernel maps MiB"]);
    say("starting an agent");
    let began = Instant::now();
    let agent = Agent::start(&fleet, fleet.node("a1"), options)?;
    for (what, again) in [("maps are new", false), ("maps are there", true)] {
        let mut began = began;
        if again {
            agent.stop()?;
            began = Instant::now();
            agent.restart()?;
        }
        agent.wait_ready_for(LIMIT)?;
        let seconds = began.elapsed().as_secs_f64();
        let programmed = agent.mcs_json(&["services"])?["services"].as_array().map_or(0, Vec::len);
        ensure!(programmed == services, "the agent is ready with {programmed} of {services} services");
        let memory = Memory::of(&agent.pid().context("the agent ended")?.to_string())?;
        let kernel = mib(kernel_memory(&maps)?);
        table.row([what.to_owned(), digits(seconds), digits(memory.anon), digits(kernel)]);
        found.figures.push(once(format!("scale/agent, {what}: start to all programmed"), seconds, "s"));
        found.figures.push(once(format!("scale/agent, {what}: RssAnon"), memory.anon, "MiB"));
    }
    println!("{table}");
    Ok(())
}
