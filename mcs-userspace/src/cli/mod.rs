//! The command line: `mcs <verb>`. Answers go to stdout, logs to stderr.
//!
//! Exit codes: 0 done, or the answer is yes; 1 failed, or the answer is no; 2 the command line was wrong.

mod agent;
mod approve_withdrawal;
mod broker;
mod check;
mod controller;
mod crds;
mod detach;
mod dns;
mod doctor;
mod dump;
mod join;
mod leave;
mod services;
mod status;
mod table;

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::dataplane::pins::PinDir;

/// The version, with the commit that it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("MCS_GIT"), ")");

/// Kubernetes Multi-Cluster Services with an eBPF dataplane.
#[derive(Parser, Debug)]
#[command(name = "mcs", version = VERSION, propagate_version = true)]
struct Mcs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Run on a node: program the kernel from ServiceImports and EndpointSlices.
    Agent(agent::Agent),
    /// Prepare a broker, invite members, and end memberships.
    Broker(broker::Broker),
    /// Make a cluster a member of a ClusterSet.
    Join(join::Join),
    /// Let a cluster leave its ClusterSet.
    Leave(leave::Leave),
    /// Run in a member cluster of a ClusterSet: export and import its services.
    Controller(controller::Controller),
    /// Show whether the agent of a pin directory has everything in the kernel, or how a member's ClusterSet stands.
    Status(status::Status),
    /// Answer DNS queries for the ClusterSet's zone.
    Dns(dns::Dns),
    /// Let exports of this cluster go that are gone though nobody saw them deleted.
    ApproveWithdrawal(approve_withdrawal::ApproveWithdrawal),
    /// Show the services in the kernel's maps, with or without a running agent.
    Services(services::Services),
    /// Show everything in the kernel's maps: services, backends, ids, counters.
    Dump(dump::Dump),
    /// Validate manifests without touching a kernel.
    Check(check::Check),
    /// Print the CustomResourceDefinitions of ServiceExport, ServiceImport and ClusterProperty.
    Crds(crds::Crds),
    /// Look whether this machine can run an agent, and say what is missing.
    Doctor(doctor::Doctor),
    /// Remove programs, links, maps and rules of a pin directory.
    Detach(detach::Detach),
}

/// Where the kernel keeps our maps and links.
#[derive(Args, Clone, Debug)]
struct Pins {
    /// Directory on a bpf filesystem; one for each agent.
    #[arg(long, env = "MCS_PIN_DIR", default_value = "/sys/fs/bpf/mcs", value_name = "PATH")]
    pin_dir: PathBuf,
}

impl Pins {
    fn open(&self) -> PinDir {
        PinDir::new(&self.pin_dir)
    }
}

/// How to print.
#[derive(Args, Clone, Copy, Debug)]
struct Output {
    /// Form of the answer on stdout.
    #[arg(short, long, env = "MCS_OUTPUT", value_enum, default_value_t = Format::Human)]
    output: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    /// For people.
    Human,
    /// For programs.
    Json,
}

impl Output {
    /// Prints a value that has both forms.
    fn print<T: Display + Serialize>(self, value: &T) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        let written = match self.output {
            Format::Human => write!(stdout, "{value}"),
            Format::Json => serde_json::to_writer_pretty(&mut stdout, value)
                .map_err(std::io::Error::from)
                .and_then(|()| writeln!(stdout)),
        };
        match written.and_then(|()| stdout.flush()) {
            // `mcs services | head` is not a failure.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }
}

/// Runs the verb of the command line.
#[must_use]
pub fn main() -> ExitCode {
    let Mcs { verb } = Mcs::parse();
    let result = match verb {
        Verb::Agent(verb) => verb.run(),
        Verb::Broker(verb) => verb.run(),
        Verb::Join(verb) => verb.run(),
        Verb::Leave(verb) => verb.run(),
        Verb::Controller(verb) => verb.run(),
        Verb::ApproveWithdrawal(verb) => verb.run(),
        Verb::Dns(verb) => verb.run(),
        Verb::Status(verb) => verb.run(),
        Verb::Services(verb) => verb.run(),
        Verb::Dump(verb) => verb.run(),
        Verb::Check(verb) => verb.run(),
        Verb::Crds(verb) => verb.run(),
        Verb::Doctor(verb) => verb.run(),
        Verb::Detach(verb) => verb.run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let _unwritable_stderr_is_nobodys_business = writeln!(std::io::stderr(), "mcs: {error:#}");
            ExitCode::FAILURE
        }
    }
}
