//! `mcs agent`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use super::{Pins, VERSION};
use crate::agent::{self, Config, Given, SourceConfig};
use crate::apiserver::{Access, in_pod};
use crate::dataplane::shape::Capacity;
use crate::dataplane::{Options, cgroup2};
use crate::failclosed::Mode;

/// Runs in the foreground. A normal stop detaches nothing: traffic goes on with what the kernel has; `mcs detach`
/// removes it.
#[derive(Args, Debug)]
pub(super) struct Agent {
    /// Where objects come from: kube, this cluster's API server; or dir:PATH, a directory of Kubernetes manifests (*.json,
    /// *.yaml, *.yml), followed live. By default kube in a Pod and with --kubeconfig, else dir:/etc/mcs/manifests.
    #[arg(long, env = "MCS_SOURCE", value_parser = parse_source, value_name = "SOURCE")]
    source: Option<SourceName>,
    #[command(flatten)]
    access: Access,
    /// This cluster's id: a DNS label. With --source kube, by default as `mcs join` wrote it.
    #[arg(long, env = "MCS_CLUSTER", value_parser = parse_label, value_name = "ID")]
    cluster: Option<String>,
    /// This node's name; by default the host's.
    #[arg(long, env = "MCS_NODE", value_parser = parse_name, value_name = "NAME")]
    node: Option<String>,
    /// This node's zone, for trafficDistribution. With --source kube, by default as the Node is labelled.
    #[arg(long, env = "MCS_ZONE")]
    zone: Option<String>,
    /// Where ClusterSetIPs come from, at most four CIDRs of each family. Other addresses are never translated. With
    /// --source kube, by default as `mcs join` wrote them.
    #[arg(long, env = "MCS_CLUSTERSET_CIDR", value_delimiter = ',', value_name = "CIDR")]
    clusterset_cidr: Vec<IpNet>,
    /// Serve the sockets of this cgroup2 directory and all below it; by default all of cgroup2 that
    /// can be seen: in a container the host's, where that is mounted.
    #[arg(long, env = "MCS_CGROUP", value_name = "PATH")]
    cgroup: Option<PathBuf>,
    #[command(flatten)]
    pins: Pins,
    /// Give new flows to backends of this cluster while it has any; cluster weights of an import override this.
    #[arg(long, env = "MCS_PREFER_LOCAL_CLUSTER")]
    prefer_local_cluster: bool,
    /// Hold ClusterSetIP traffic back while no program is attached, by `unreachable` rules in this network namespace.
    #[arg(long, env = "MCS_FAIL_CLOSED", value_enum, default_value_t)]
    fail_closed: Mode,
    /// Serve /livez, /readyz and /metrics (Prometheus) at http://ADDRESS; by default nowhere. With port 0 any free one,
    /// which is logged.
    #[arg(long, env = "MCS_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Log level of the kernel programs: a constant of the loaded program, off costs nothing.
    #[arg(long, env = "MCS_EBPF_LOG", value_enum, default_value_t = Level::Off)]
    ebpf_log: Level,
    /// Form of the log on stderr. What is logged: MCS_LOG, for instance `info` or `mcs=debug`.
    #[arg(long, env = "MCS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(flatten)]
    capacity: CapacityArgs,
}

/// Room in the maps, set when a pin directory is first used.
#[derive(Args, Clone, Debug)]
struct CapacityArgs {
    /// Most frontends (ClusterSetIP, port, protocol).
    #[arg(long, env = "MCS_MAX_SERVICES", default_value_t = Capacity::default().services, value_name = "N")]
    max_services: u32,
    /// Most backends over all services.
    #[arg(long, env = "MCS_MAX_BACKENDS", default_value_t = Capacity::default().backends, value_name = "N")]
    max_backends: u32,
    /// Most pairs of service and source cluster, counting each service once more.
    #[arg(long, env = "MCS_MAX_SOURCES", default_value_t = Capacity::default().sources, value_name = "N")]
    max_sources: u32,
    /// Connected sockets whose frontend is remembered; rounded up to a power of two.
    #[arg(long, env = "MCS_SOCKETS", default_value_t = Capacity::default().sockets, value_name = "N")]
    sockets: u32,
    /// Unconnected UDP sockets, times the frontends that each sends to, that are remembered.
    #[arg(long, env = "MCS_UDP_FLOWS", default_value_t = Capacity::default().udp_flows, value_name = "N")]
    udp_flows: u32,
    /// Clients with session affinity, times services, that are remembered.
    #[arg(long, env = "MCS_AFFINITY_ENTRIES", default_value_t = Capacity::default().affinity, value_name = "N")]
    affinity_entries: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

impl Agent {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self {
            source,
            access,
            cluster,
            node,
            zone,
            clusterset_cidr,
            cgroup,
            pins,
            prefer_local_cluster,
            fail_closed,
            listen,
            ebpf_log,
            log_format,
            capacity,
        } = self;
        let source = source_of(source, access, in_pod());
        if matches!(source, SourceConfig::Dir(_)) && (cluster.is_none() || clusterset_cidr.is_empty()) {
            let mut command = <super::Mcs as clap::CommandFactory>::command();
            let missing = if cluster.is_none() { "--cluster" } else { "--clusterset-cidr" };
            let why = format!("{missing} is required where manifests come from a directory");
            command.error(clap::error::ErrorKind::MissingRequiredArgument, why).exit();
        }
        // Whoever has the programs log wants to read it, so their level counts unless `MCS_LOG` says otherwise.
        let programs = ebpf_log.to_possible_value();
        log_to_stderr(
            log_format,
            &programs.map_or_else(String::new, |level| format!(",mcs_ebpf={}", level.get_name())),
        );
        let cgroup = cgroup.map_or_else(cgroup2::root, Ok)?;
        let cidrs: Vec<IpNet> = clusterset_cidr.iter().map(IpNet::trunc).collect();
        let config = Config {
            source,
            given: Given {
                cluster: cluster.map(Arc::from),
                node: Arc::from(node.unwrap_or_else(host_name)),
                zone: zone.filter(|zone| !zone.is_empty()).map(Arc::from),
                prefer_local_cluster,
                cidrs,
            },
            dataplane: Options {
                pins: pins.open(),
                cgroup,
                cidrs: Vec::new(),
                capacity: capacity.into(),
                log_level: match ebpf_log {
                    Level::Off => 0,
                    Level::Error => 1,
                    Level::Warn => 2,
                    Level::Info => 3,
                    Level::Debug => 4,
                    Level::Trace => 5,
                },
            },
            in_pod: in_pod(),
            fail_closed,
            listen,
            version: VERSION.to_owned(),
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
        runtime.block_on(agent::run(config))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl From<CapacityArgs> for Capacity {
    fn from(args: CapacityArgs) -> Self {
        let CapacityArgs { max_services, max_backends, max_sources, sockets, udp_flows, affinity_entries } = args;
        Self {
            services: max_services,
            backends: max_backends,
            sources: max_sources,
            clusters: Self::default().clusters,
            sockets,
            udp_flows,
            affinity: affinity_entries,
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Logs `info` and `more`, unless `MCS_LOG` says otherwise. The client's own words on requests that fail are left out: who
/// makes them says what they were for.
pub(super) fn log_to_stderr(format: LogFormat, more: &str) {
    let filter =
        EnvFilter::try_from_env("MCS_LOG").unwrap_or_else(|_| EnvFilter::new(format!("info,kube_client=off{more}")));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// What `--source` may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum SourceName {
    Kube,
    Dir(PathBuf),
}

pub(super) fn parse_source(text: &str) -> Result<SourceName, String> {
    match text.split_once(':') {
        None if text == "kube" => Ok(SourceName::Kube),
        Some(("dir", path)) if !path.is_empty() => Ok(SourceName::Dir(PathBuf::from(path))),
        Some(_) | None => Err(format!("{text:?} is neither kube nor of the form dir:PATH")),
    }
}

/// Where objects come from, where that was not said: from the API server if there is a way to it.
pub(super) fn source_of(source: Option<SourceName>, access: Access, in_pod: bool) -> SourceConfig {
    match source {
        Some(SourceName::Dir(path)) => SourceConfig::Dir(path),
        Some(SourceName::Kube) => SourceConfig::Kube(access),
        None if in_pod || access.kubeconfig.is_some() => SourceConfig::Kube(access),
        None => SourceConfig::Dir(PathBuf::from(DEFAULT_DIR)),
    }
}

/// The directory of manifests, by default.
const DEFAULT_DIR: &str = "/etc/mcs/manifests";

/// A cluster id is one DNS label: CoreDNS cannot serve dotted ones (RFC 1123 §2.1).
fn parse_label(text: &str) -> Result<String, String> {
    let is_label = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if is_label { Ok(text.to_owned()) } else { Err("must be a DNS label: a-z, 0-9 and -, at most 63".to_owned()) }
}

fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_are_dns_labels() {
        for good in ["a", "cluster-1", "0"] {
            assert!(parse_label(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a.b", "-a", "a-", &"x".repeat(64)] {
            assert!(parse_label(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sources_name_their_kind() {
        assert_eq!(parse_source("dir:/etc/mcs"), Ok(SourceName::Dir(PathBuf::from("/etc/mcs"))));
        assert_eq!(parse_source("kube"), Ok(SourceName::Kube));
        for bad in ["", "dir:", "/etc/mcs", "http://x", "kube:", "kube:x"] {
            assert!(parse_source(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_api_server_is_the_source_where_there_is_a_way_to_it() {
        let access = |kubeconfig: Option<&str>| Access { kubeconfig: kubeconfig.map(PathBuf::from), api_server: None };
        let is_kube =
            |source, kubeconfig, in_pod| matches!(source_of(source, access(kubeconfig), in_pod), SourceConfig::Kube(_));
        assert!(!is_kube(None, None, false));
        assert!(is_kube(None, None, true));
        assert!(is_kube(None, Some("x"), false));
        assert!(is_kube(Some(SourceName::Kube), None, false));
        assert!(!is_kube(Some(SourceName::Dir("x".into())), Some("x"), true));
    }
}
