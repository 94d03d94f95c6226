//! `mcs check`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ipnet::IpNet;

use super::Output;
use crate::check;

/// Exit 0 when every object is valid, 1 when something would be skipped; notices do not count.
#[derive(Args, Debug)]
pub(super) struct Check {
    /// A directory of manifests, or one file.
    path: PathBuf,
    /// Also find ClusterSetIPs outside these CIDRs.
    #[arg(long, env = "MCS_CLUSTERSET_CIDR", value_delimiter = ',', value_name = "CIDR")]
    clusterset_cidr: Vec<IpNet>,
    #[command(flatten)]
    output: Output,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let report = check::run(&self.path, &self.clusterset_cidr)?;
        self.output.print(&report)?;
        Ok(if report.is_invalid() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}
