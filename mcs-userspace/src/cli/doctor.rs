//! `mcs doctor`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Output, Pins};
use crate::doctor::{Diagnosis, Facts, Verdict, examine};

/// Look whether this machine can run an agent: kernel, cgroup2, bpffs, capabilities, a trial load of the programs. Attaches
/// and changes nothing. In a cluster: `kubectl -n mcs-system exec ds/mcs-agent -- /mcs doctor`.
///
/// Exit codes: 0 all is well, or there are warnings only; 1 a check failed; 2 the command line was wrong.
#[derive(Args, Debug)]
pub(super) struct Doctor {
    #[command(flatten)]
    pins: Pins,
    /// The cgroup2 directory that an agent is to attach to; by default as `mcs agent` chooses.
    #[arg(long, env = "MCS_CGROUP", value_name = "PATH")]
    cgroup: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { pins, cgroup, output } = self;
        let diagnosis = Diagnosis::of(examine(&Facts::read(pins.open().root(), cgroup.as_deref())));
        output.print(&diagnosis)?;
        Ok(if diagnosis.verdict == Verdict::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}
