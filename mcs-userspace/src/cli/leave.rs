//! `mcs leave`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::broker::runtime;
use crate::broker::apply::{Progress, Site};
use crate::broker::kubeconfig::Context;
use crate::broker::leave;

/// Let a cluster leave its ClusterSet: what it exported is withdrawn, what it imported is removed. Its ServiceExports stay.
#[derive(Args, Debug)]
pub(super) struct Leave {
    /// Kubeconfig of the cluster that leaves.
    #[arg(long, env = "MCS_KUBECONFIG", value_name = "PATH")]
    kubeconfig: PathBuf,
    /// The broker is gone for good: clean up this cluster only. The others keep what only this cluster serves.
    #[arg(long)]
    without_broker: bool,
}

impl Leave {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { kubeconfig, without_broker } = self;
        runtime()?.block_on(async {
            let member = Site { name: "member", client: Context::read(&kubeconfig).await?.client };
            leave::run(&member, without_broker, &mut Progress::new(&mut std::io::stdout())).await
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
