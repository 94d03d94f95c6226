//! `mcs controller`.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::VERSION;
use super::agent::{LogFormat, log_to_stderr};
use crate::apiserver::Access;
use crate::clusterset::controller::Settings;
use crate::controller::{self, Config};

/// Runs in the foreground, in a cluster that `mcs join` made a member: exports what ServiceExports ask for, imports what
/// others export. Several of them take turns: one acts, the others stand by.
///
/// A stop withdraws nothing: what was imported stays, and others keep what this cluster exported for as long as they
/// take it for alive.
#[derive(Args, Debug)]
pub(super) struct Controller {
    #[command(flatten)]
    access: Access,
    /// Serve /livez, /readyz and /metrics (Prometheus) at http://ADDRESS; by default nowhere. With port 0 any free one, which is logged.
    #[arg(long, env = "MCS_METRICS_LISTEN", value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Form of the log on stderr. What is logged: MCS_LOG, for instance `info` or `mcs=debug`.
    #[arg(long, env = "MCS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl Controller {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { access, metrics_listen, log_format } = self;
        log_to_stderr(log_format, "");
        let config =
            Config { access, metrics: metrics_listen, settings: Settings::default(), version: VERSION.to_owned() };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start the runtime")?;
        runtime.block_on(controller::run(config))?;
        // A request that does not end must not keep the process.
        runtime.shutdown_background();
        Ok(ExitCode::SUCCESS)
    }
}
