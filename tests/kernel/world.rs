//! The world that most tests stand in: two clusters, one client, three backends, an agent on the client's node.
//!
//! ```text
//!  cluster a                     cluster b
//!   node a1 (agent)               node b1
//!    a1p1  the client              b1p1  backend
//!    a1p2  backend                 b1p2  backend
//! ```
//! Everybody but the client serves on [`TARGET`], [`OTHER_TARGET`] and [`PLAIN`], and says its pod's name.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mcs_tests::agent::{Agent, AgentOptions};
use mcs_tests::identity::{Listen, Protocol, Server};
use mcs_tests::{Family, Fleet, Node, Place, Pod, addresses, manifest};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

/// The port of frontends.
pub(crate) const PORT: u16 = 80;
/// Where backends of most services listen.
pub(crate) const TARGET: u16 = 8080;
/// Where backends of a second service listen.
pub(crate) const OTHER_TARGET: u16 = 8081;
/// Where pods listen without any service.
pub(crate) const PLAIN: u16 = 8082;

/// How long a test waits for what must come, before it calls itself failed. Far more than any machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A fleet, its servers, and the agent of node `a1`. Fields are dropped in this order.
pub(crate) struct World {
    pub(crate) agent: Agent,
    pub(crate) servers: Vec<Server>,
    pub(crate) source: PathBuf,
    pub(crate) fleet: Fleet,
}

impl World {
    /// Without services.
    pub(crate) fn empty() -> Self {
        Self::with(|_options| {})
    }

    /// With service `web`, number 1, in front of all backends.
    pub(crate) fn web() -> Self {
        let world = Self::empty();
        world.put_service("web", 1, world.backends());
        world
    }

    /// Without services; the agent is started with changed options.
    pub(crate) fn with(change: impl FnOnce(&mut AgentOptions)) -> Self {
        Self::on(Fleet::builder().clusters(2).pods(2).build().unwrap(), change)
    }

    /// On a fleet of another shape. All pods but `a1p1` are backends.
    pub(crate) fn on(fleet: Fleet, change: impl FnOnce(&mut AgentOptions)) -> Self {
        let listen: Vec<Listen> = [TARGET, OTHER_TARGET, PLAIN].into_iter().flat_map(Listen::port).collect();
        let backends = fleet.pods().filter(|pod| pod.name() != "a1p1");
        let servers = backends.map(|pod| Server::start(pod, pod.name(), &listen).unwrap()).collect();
        Self::around(fleet, servers, change)
    }

    /// On a fleet with servers of one's own.
    pub(crate) fn around(fleet: Fleet, servers: Vec<Server>, change: impl FnOnce(&mut AgentOptions)) -> Self {
        let source = fleet.dir("manifests").unwrap();
        let mut options = options(&fleet, fleet.node("a1"), &source);
        change(&mut options);
        let agent = Agent::start_ready(&fleet, fleet.node("a1"), options).unwrap();
        Self { agent, servers, source, fleet }
    }

    /// The pod that asks.
    pub(crate) fn client(&self) -> &Pod {
        self.fleet.pod("a1p1")
    }

    /// The pods that answer.
    pub(crate) fn backends(&self) -> Vec<&Pod> {
        self.fleet.pods().filter(|pod| pod.name() != "a1p1").collect()
    }

    /// Their names.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        names(self.backends())
    }

    /// Writes a file of objects, and waits until they are in the kernel.
    pub(crate) fn put(&self, file: &str, objects: &[Value]) {
        manifest::write(&self.source, file, objects).unwrap();
        self.agent.wait_ready().unwrap();
    }

    /// Removes a file of objects, and waits until they are out of the kernel.
    pub(crate) fn remove(&self, file: &str) {
        fs::remove_file(self.source.join(format!("{file}.json"))).unwrap();
        self.agent.wait_ready().unwrap();
    }

    /// A service of both families and transports in front of pods, in a file of its name: `vip(_, number)` leads to it.
    pub(crate) fn put_service<'a>(&self, name: &str, number: u16, pods: impl IntoIterator<Item = &'a Pod>) {
        self.put(name, &manifest::service(name, vips(number), PORT, TARGET, pods));
    }

    /// Who answers the client, of so many new flows.
    pub(crate) fn reached(&self, protocol: Protocol, to: SocketAddr, flows: usize) -> BTreeSet<String> {
        reached_from(self.client(), protocol, to, flows)
    }

    /// The entry of a frontend in `mcs services` or `mcs dump`.
    pub(crate) fn shown(&self, verb: &str, protocol: Protocol, frontend: SocketAddr) -> Value {
        let answer = self.agent.mcs_json(&[verb]).unwrap();
        let mut services = answer["services"].as_array().unwrap().iter();
        let found = services.find(|service| {
            service["clusterSetIP"] == frontend.ip().to_string()
                && service["port"] == frontend.port()
                && service["protocol"] == protocol.as_str()
        });
        found.unwrap_or_else(|| panic!("{frontend}/{protocol} in {answer:#}")).clone()
    }

    /// `mcs status -o json`, whatever its exit code.
    pub(crate) fn status(&self) -> Value {
        let output = self.agent.mcs(&["status", "-o", "json"]).unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
    }

    /// The pin directory.
    pub(crate) fn pins(&self) -> &Path {
        &self.agent.options().pin_dir
    }

    /// The hooks that are attached, by their pins.
    pub(crate) fn links(&self) -> BTreeSet<String> {
        let links = fs::read_dir(self.pins().join("v1/links")).unwrap();
        links.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Options with small maps: most tests need few rows, and under emulation even zeroing memory takes long.
pub(crate) fn options(fleet: &Fleet, node: &Node, source: &Path) -> AgentOptions {
    let mut options = AgentOptions::new(fleet, node, source);
    let room = [("MCS_MAX_SERVICES", "256"), ("MCS_MAX_BACKENDS", "4096"), ("MCS_MAX_SOURCES", "1024")];
    // By environment, so that a test's flags come first.
    options.environment.extend(room.map(|(key, value)| (key.to_owned(), value.to_owned())));
    options
}

/// The names of pods.
pub(crate) fn names<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> BTreeSet<String> {
    pods.into_iter().map(|pod| pod.name().to_owned()).collect()
}

/// Who answers a place, of so many new flows. With 64 flows one of three equal backends is missed once in 10¹⁰ times.
pub(crate) fn reached_from(from: &Place, protocol: Protocol, to: SocketAddr, flows: usize) -> BTreeSet<String> {
    from.run(|| {
        let ask = |_| crate::sockets::dial(protocol, to).0;
        (0..flows).map(ask).collect()
    })
}

/// The ClusterSetIPs of service number `n`.
pub(crate) fn vips(number: u16) -> [IpAddr; 2] {
    Family::BOTH.map(|family| addresses::clusterset_ip(family, number))
}

/// The frontend of service number `n`.
pub(crate) fn vip(family: Family, number: u16) -> SocketAddr {
    SocketAddr::new(addresses::clusterset_ip(family, number), PORT)
}

/// Both transports and families.
pub(crate) fn combinations() -> impl Iterator<Item = (Protocol, Family)> {
    Protocol::BOTH.into_iter().flat_map(|protocol| Family::BOTH.map(|family| (protocol, family)))
}

/// Waits for what another process does: looks every few milliseconds, as long as patience lasts.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All that a program said.
pub(crate) fn said(output: &Output) -> String {
    format!("{}: {}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether this is the virtual machine of `cargo xtask vm`, which is emulated: some thirty times slower.
pub(crate) fn is_emulated() -> bool {
    std::env::var_os("MCS_VM").is_some()
}

/// So many here, fewer under emulation.
pub(crate) fn scaled(here: usize, emulated: usize) -> usize {
    if is_emulated() { emulated } else { here }
}

/// The right to hold thousands of sockets: one test at a time, as a process has only so many descriptors.
pub(crate) struct Descriptors {
    count: usize,
    _turn: MutexGuard<'static, ()>,
}

impl Descriptors {
    /// What all other tests together need.
    const OTHERS: usize = 2_000;

    /// Waits for its turn, and raises this process's limit (and that of its future children) as far as need be.
    pub(crate) fn for_sockets(wanted: usize) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = u64::try_from(wanted + Self::OTHERS).unwrap();
        let limit = getrlimit(Resource::Nofile);
        if limit.current.is_some_and(|current| current < needed) {
            let raised = Rlimit { current: Some(needed), maximum: limit.maximum.map(|most| most.max(needed)) };
            // Beyond the maximum needs CAP_SYS_RESOURCE: without that, as much as there is.
            let most = Rlimit { current: limit.maximum, ..limit };
            setrlimit(Resource::Nofile, raised).or_else(|_| setrlimit(Resource::Nofile, most)).unwrap();
        }
        let allowed = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| usize::try_from(most).unwrap());
        let count = wanted.min(allowed.saturating_sub(Self::OTHERS));
        if count < wanted {
            eprintln!("{count} sockets instead of {wanted}: this process may have {allowed} descriptors (ulimit -n)");
        }
        Self { count, _turn: turn }
    }

    /// How many sockets may be held.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}
