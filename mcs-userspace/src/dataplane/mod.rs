//! The kernel side of an agent: programs loaded, maps made or taken over, hooks attached.
//!
//! ```text
//!  lock the pin directory ─► other layout version? refuse ─► pins complete? take them over : make them anew
//!     ─► load the programs against them ─► attach, or replace the program of the link that is there
//! ```
//!
//! Everything that matters to traffic is pinned, so that this process may die at any moment. What was made by halves
//! (a crash while the pins were being made) is told by [`AgentRow::abi`], which is written last, and made anew.

pub mod cgroup2;
pub mod coverage;
pub mod links;
pub mod pins;
pub mod shape;
mod sys;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use aya::maps::{HashMap, MapData};
use aya::{Ebpf, EbpfLoader};
use ipnet::IpNet;
use mcs_ebpf::{ABI_VERSION, Addr, AgentRow, Cidr4, Cidr6, Config, MAX_CIDRS, REPORT_BYTES, RuleKey, map};
use tracing::{info, warn};

use self::links::{ALWAYS, Attached, Cgroup, FOR_UDP};
use self::pins::{Lock, PinDir};
use self::shape::Capacity;
use crate::maps::bpf::{BpfMaps, OpenMap as _, mapped};
use crate::maps::mapped::Mapped;

/// The compiled programs, made by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mcs-ebpf"));

/// What an agent wants of the kernel.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to pin.
    pub pins: PinDir,
    /// Whose sockets to serve: this cgroup's and all below it.
    pub cgroup: std::path::PathBuf,
    /// The ClusterSet's CIDRs, at most [`MAX_CIDRS`] of each family.
    pub cidrs: Vec<IpNet>,
    /// Room, on a fresh pin directory.
    pub capacity: Capacity,
    /// Up to which level the programs log, as `aya-log` counts: 0 off … 5 trace. A constant of the loaded program.
    pub log_level: u8,
}

/// What the programs log.
pub type Logger = tokio::io::unix::AsyncFd<aya_log::EbpfLogger<&'static dyn log::Log>>;

/// Programs, links and the rows that only an agent writes.
#[derive(Debug)]
pub struct Dataplane {
    ebpf: Ebpf,
    pins: PinDir,
    cgroup: Cgroup,
    capacity: Capacity,
    log_level: u8,
    agent: Mapped<AgentRow>,
    report: Mapped<[u8; REPORT_BYTES]>,
    rules: HashMap<MapData, RuleKey, u32>,
    udp_attached: bool,
    _lock: Lock,
}

impl Dataplane {
    /// Takes the pin directory over and attaches what is always attached.
    ///
    /// # Errors
    /// When another process holds the directory, its layout is another version's, a CIDR is one too many, or the kernel
    /// refuses a map or a program. What was attached before goes on as it was.
    pub fn open(options: &Options) -> anyhow::Result<(Self, BpfMaps)> {
        let Options { pins, cgroup, cidrs, capacity, log_level } = options;
        let cgroup = Cgroup::open(cgroup)?;
        pins.create()?;
        let lock = pins.lock()?;
        if let Some(other) = pins.other_versions().context("list the pin directory")?.first() {
            bail!(
                "{}: pinned by another version of mcs (this one has map layout v{ABI_VERSION}): use that version, or \
                 `mcs detach` first",
                other.display()
            );
        }
        let capacity = take_over_or_clear(pins, *capacity)?;
        let cpus = u32::try_from(aya::util::nr_cpus().map_err(|(path, e)| anyhow::Error::new(e).context(path))?)?;
        let shapes = capacity.shapes(cpus)?;

        for directory in [pins.maps(), pins.links()] {
            fs::create_dir_all(&directory).with_context(|| format!("{}: create", directory.display()))?;
        }
        let ebpf = load(pins, cidrs, &capacity, &shapes, *log_level)?;

        let mut open = pins.pinned_maps();
        let mut agent = mapped::<AgentRow>(&mut open, map::AGENT, true)?;
        let previous = agent.read(0).unwrap_or_default();
        let row = AgentRow {
            abi: ABI_VERSION,
            pid: std::process::id(),
            instance: random()?,
            synced: 0,
            counter_stride: capacity.sources,
            ..previous
        };
        agent.write(0, &row);
        let maps = BpfMaps::new(&mut open, true)?;
        let report = mapped(&mut open, map::REPORT, true)?;
        let rules = aya::maps::Map::HashMap(open.open(map::RULES)?).try_into()?;
        let udp_attached = FOR_UDP.iter().any(|hook| pins.links().join(hook).exists());
        let mut dataplane = Self {
            ebpf,
            pins: pins.clone(),
            cgroup,
            capacity,
            log_level: *log_level,
            agent,
            report,
            rules,
            udp_attached,
            _lock: lock,
        };
        dataplane.attach(&ALWAYS)?;
        if udp_attached {
            dataplane.attach(&FOR_UDP)?;
        }
        Ok((dataplane, maps))
    }

    /// From now on ClusterSetIPs come from these CIDRs. They are constants of the programs: the programs are loaded anew and
    /// replaced without a gap. A [`Dataplane::logger`] that was made before falls silent.
    ///
    /// # Errors
    /// When a CIDR is one too many or the kernel refuses. What was attached before goes on as it was, or has been replaced
    /// by its new form.
    pub fn set_cidrs(&mut self, cidrs: &[IpNet]) -> anyhow::Result<()> {
        let cpus = u32::try_from(aya::util::nr_cpus().map_err(|(path, e)| anyhow::Error::new(e).context(path))?)?;
        let shapes = self.capacity.shapes(cpus)?;
        self.ebpf = load(&self.pins, cidrs, &self.capacity, &shapes, self.log_level)?;
        self.attach(&ALWAYS)?;
        if self.udp_attached {
            self.attach(&FOR_UDP)?;
        }
        Ok(())
    }

    fn attach(&mut self, hooks: &[&str]) -> anyhow::Result<()> {
        for hook in hooks {
            match links::attach(&mut self.ebpf, hook, &self.cgroup, &self.pins.links())? {
                Attached::New => info!(hook, "attached"),
                Attached::Replaced => info!(hook, "program replaced"),
                Attached::Moved => warn!(hook, "attached to another cgroup than before"),
            }
        }
        Ok(())
    }

    /// Attaches the datagram hooks, before the first UDP frontend is written.
    ///
    /// # Errors
    /// When the kernel refuses; a UDP frontend must not be written then.
    pub fn attach_udp(&mut self) -> anyhow::Result<()> {
        if !self.udp_attached {
            self.attach(&FOR_UDP)?;
            self.udp_attached = true;
        }
        Ok(())
    }

    /// Detaches the datagram hooks, after the last UDP frontend is gone.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach_udp(&mut self) -> anyhow::Result<()> {
        if self.udp_attached {
            for hook in FOR_UDP {
                links::detach(hook, &self.pins.links())?;
            }
            self.udp_attached = false;
            info!("datagram hooks detached: no UDP frontend is left");
        }
        Ok(())
    }

    /// The pin directory.
    #[must_use]
    pub fn pins(&self) -> &PinDir {
        &self.pins
    }

    /// Changes the row that `mcs status` reads.
    pub fn update_agent_row(&mut self, change: impl FnOnce(&mut AgentRow)) {
        if let Some(mut row) = self.agent.read(0) {
            change(&mut row);
            self.agent.write(0, &row);
        }
    }

    /// Publishes text for `mcs status`: its length in the first four bytes, then as much of it as there is room for.
    pub fn publish_report(&mut self, text: &str) {
        let mut bytes = [0; REPORT_BYTES];
        let room = REPORT_BYTES - 4;
        let length = text.len().min(room);
        if let Ok(length_word) = u32::try_from(length) {
            bytes[..4].copy_from_slice(&length_word.to_ne_bytes());
            bytes[4..4 + length].copy_from_slice(&text.as_bytes()[..length]);
            self.report.write(0, &bytes);
        }
    }

    /// The rules that were added in network namespaces, so that `mcs detach` finds them.
    pub fn rules(&mut self) -> &mut HashMap<MapData, RuleKey, u32> {
        &mut self.rules
    }

    /// The programs' logger, to be flushed when it is readable. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the log buffer cannot be mapped or watched.
    pub fn logger(&mut self) -> anyhow::Result<Logger> {
        let logger = aya_log::EbpfLogger::init(&mut self.ebpf).context("open the programs' log")?;
        sys::watch(logger).context("watch the programs' log")
    }
}

/// Loads the programs against the maps that are pinned, and makes those that are not.
fn load(
    pins: &PinDir,
    cidrs: &[IpNet],
    capacity: &Capacity,
    shapes: &[shape::Shape],
    log_level: u8,
) -> anyhow::Result<Ebpf> {
    let config = config(cidrs, capacity)?;
    let mut loader = EbpfLoader::new();
    loader.override_global("CONFIG", &config, true);
    loader.override_global(aya_log::LEVEL, &log_level, true);
    for shape in shapes {
        loader.map_max_entries(shape.name, shape.entries);
        loader.map_pin_path(shape.name, pins.map(shape.name));
    }
    let mut ebpf = loader.load(OBJECT).context("create the maps")?;
    for hook in ALWAYS.into_iter().chain(FOR_UDP) {
        links::load(&mut ebpf, hook)?;
    }
    Ok(ebpf)
}

/// The room to work with: the pinned maps' own if they are complete, else what was asked for, on an empty directory.
fn take_over_or_clear(pins: &PinDir, wanted: Capacity) -> anyhow::Result<Capacity> {
    if !pins.maps().exists() {
        return Ok(wanted);
    }
    let complete = mapped::<AgentRow>(&mut pins.pinned_maps(), map::AGENT, false)
        .is_ok_and(|agent| agent.read(0).is_some_and(|row| row.abi == ABI_VERSION));
    if !complete {
        if pins.links().exists() && fs::read_dir(pins.links())?.next().is_some() {
            // Programs run on maps that we cannot identify: leave them to it.
            bail!(
                "{}: programs are attached but the maps are not complete; `mcs detach` removes both",
                pins.maps().display()
            );
        }
        warn!(pins = %pins.maps().display(), "the maps were made by halves: making them anew");
        fs::remove_dir_all(pins.maps()).with_context(|| format!("{}: remove", pins.maps().display()))?;
        return Ok(wanted);
    }
    let capacity = Capacity::of_pinned(pins)?;
    if (capacity.services, capacity.backends, capacity.sources) != (wanted.services, wanted.backends, wanted.sources) {
        warn!(?capacity, "the pinned maps keep their size until `mcs detach`");
    }
    let cpus = u32::try_from(aya::util::nr_cpus().map_err(|(path, e)| anyhow::Error::new(e).context(path))?)?;
    for shape in capacity.shapes(cpus)? {
        shape.check(pins)?;
    }
    Ok(capacity)
}

/// The constants of the programs.
fn config(cidrs: &[IpNet], capacity: &Capacity) -> anyhow::Result<Config> {
    let mut config =
        Config { counter_stride: capacity.sources, socket_bits: capacity.socket_sets().ilog2(), ..Config::default() };
    for cidr in cidrs {
        let (net, mask) = (Addr::from(cidr.network()).words_be, Addr::from(cidr.netmask()).words_be);
        let (count, place) = match cidr {
            IpNet::V4(_) => (&mut config.v4_count, "IPv4"),
            IpNet::V6(_) => (&mut config.v6_count, "IPv6"),
        };
        let index = *count as usize;
        if index >= MAX_CIDRS {
            bail!("clusterset CIDR {cidr}: more than {MAX_CIDRS} {place} CIDRs");
        }
        *count += 1;
        match cidr {
            IpNet::V4(_) => config.v4[index] = Cidr4 { net_be: net[3], mask_be: mask[3] },
            IpNet::V6(_) => config.v6[index] = Cidr6 { net_be: net, mask_be: mask },
        }
    }
    Ok(config)
}

/// Another number for each start.
fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    read.context("read /dev/urandom")?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Loads the programs with maps of the least size, attaches and pins nothing, and lets go of all of it: whether this kernel,
/// and what this process may do, are enough.
///
/// # Errors
/// What the kernel refuses.
pub fn probe() -> anyhow::Result<()> {
    let capacity =
        Capacity { services: 1, backends: 1, sources: 2, clusters: 1, sockets: 4, udp_flows: 1, affinity: 1 };
    let config = config(&[], &capacity)?;
    let mut loader = EbpfLoader::new();
    loader.override_global("CONFIG", &config, true);
    loader.override_global(aya_log::LEVEL, &0u8, true);
    let shapes = capacity.shapes(1)?;
    for shape in &shapes {
        loader.map_max_entries(shape.name, shape.entries);
    }
    let mut ebpf = loader.load(OBJECT).context("create the maps")?;
    ALWAYS.into_iter().chain(FOR_UDP).try_for_each(|hook| links::load(&mut ebpf, hook))
}

/// Reads the text that an agent published for `mcs status`.
///
/// # Errors
/// When nothing is pinned there.
pub fn read_report(pins: &PinDir) -> anyhow::Result<String> {
    let report = mapped::<[u8; REPORT_BYTES]>(&mut pins.pinned_maps(), map::REPORT, false)?;
    let bytes = report.read(0).unwrap_or([0; REPORT_BYTES]);
    let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    Ok(String::from_utf8_lossy(bytes.get(4..4 + length).unwrap_or_default()).into_owned())
}

/// Reads the agent's row.
///
/// # Errors
/// When nothing is pinned there.
pub fn read_agent_row(pins: &PinDir) -> anyhow::Result<AgentRow> {
    Ok(mapped::<AgentRow>(&mut pins.pinned_maps(), map::AGENT, false)?.read(0).unwrap_or_default())
}

/// Whether a path is a pin directory's barrier.
#[must_use]
pub fn is_barrier(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(pins::BARRIER_PREFIX))
}
