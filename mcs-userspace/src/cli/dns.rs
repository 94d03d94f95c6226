//! `mcs dns`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::agent::{LogFormat, SourceName, log_to_stderr, parse_source, source_of};
use crate::apiserver::{Access, in_pod};
use crate::dataplane::pins::PinDir;
use crate::dns::name::ZoneName;
use crate::dns::run::{Config, run};
use crate::dns::zone::Settings;

/// Runs in the foreground, over UDP and TCP. Answers what KEP-1645 names, as CoreDNS does: addresses and SRV records of
/// services, and of the endpoints of headless ones.
#[derive(Args, Debug)]
pub(super) struct Dns {
    /// Where objects come from: kube, this cluster's API server; or dir:PATH, a directory of Kubernetes manifests (*.json,
    /// *.yaml, *.yml), followed live. By default kube in a Pod and with --kubeconfig, else dir:/etc/mcs/manifests.
    #[arg(long, env = "MCS_SOURCE", value_parser = parse_source, value_name = "SOURCE")]
    source: Option<SourceName>,
    #[command(flatten)]
    access: Access,
    /// Addresses to listen on, each for UDP and TCP.
    #[arg(long, env = "MCS_DNS_LISTEN", value_delimiter = ',', default_value = "[::]:53", value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// The zone that is served.
    #[arg(long, env = "MCS_DNS_ZONE", value_parser = ZoneName::new, default_value = "clusterset.local", value_name = "NAME")]
    zone: ZoneName,
    /// How long clients may remember records, seconds.
    #[arg(long, env = "MCS_DNS_TTL", value_parser = clap::value_parser!(u32).range(0..=3600), default_value_t = 5, value_name = "SECONDS")]
    ttl: u32,
    /// How long clients may remember that there is no such name or record, seconds.
    #[arg(long, env = "MCS_DNS_NEGATIVE_TTL", value_parser = clap::value_parser!(u32).range(0..=3600), default_value_t = 5, value_name = "SECONDS")]
    negative_ttl: u32,
    /// Give a service by ClusterSetIP its name only when the agent of this pin directory has programmed that address: a
    /// name never leads to an address that does not work on this node yet.
    #[arg(long, env = "MCS_DNS_PIN_DIR", value_name = "PATH")]
    pin_dir: Option<PathBuf>,
    /// Threads that answer UDP on each address; by default one for each CPU, at most four.
    #[arg(long, env = "MCS_DNS_THREADS", value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    threads: Option<u16>,
    /// Serve /livez, /readyz and /metrics (Prometheus) at http://ADDRESS; by default nowhere.
    #[arg(long, env = "MCS_DNS_HEALTH_LISTEN", value_name = "ADDRESS")]
    health_listen: Option<SocketAddr>,
    /// Form of the log on stderr. What is logged: MCS_LOG, for instance `info` or `mcs=debug`.
    #[arg(long, env = "MCS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl Dns {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { source, access, listen, zone, ttl, negative_ttl, pin_dir, threads, health_listen, log_format } =
            self;
        log_to_stderr(log_format, "");
        let config = Config {
            source: source_of(source, access, in_pod()),
            listen,
            threads: threads.map_or_else(default_threads, usize::from),
            settings: Settings { zone, ttl, negative_ttl, name_servers: Vec::new() },
            pins: pin_dir.map(PinDir::new),
            health: health_listen,
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
        runtime.block_on(run(config))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// One thread answers a hundred thousand queries a second: more than four would have nothing to do.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(4))
}
