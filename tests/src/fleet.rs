//! The fleet: clusters of nodes with pods, on this machine, for as long as the value lives.

use std::fs;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use crate::addresses::MAX_PODS;
use crate::cgroup;
use crate::member::{Node, Pod};
use crate::netns::NetNs;
use crate::owner::FleetId;
use crate::place::Place;
use crate::registry::Registry;
use crate::removal;
use crate::shape::Builder;
use crate::topology::{self, NodeSpot, PodSpot, ROUTER_SYSCTLS, SYSCTLS};
use crate::{iproute, signal};

/// All fleets of this process that stand, for [`Fleet::remove_all`].
static STANDING: Mutex<Vec<Arc<Core>>> = Mutex::new(Vec::new());

/// Nodes and pods on this machine. Dropping it ends what runs there and leaves nothing behind.
pub struct Fleet {
    core: Standing,
    fabric: NetNs,
    nodes: Vec<Node>,
    shape: Builder,
}

/// What removing needs, apart from the handles, so that it can be done while tests still hold those.
struct Core {
    id: FleetId,
    registry: Arc<Registry>,
    removed: Mutex<bool>,
}

impl Fleet {
    /// One cluster of one node with one pod, unless told otherwise.
    pub fn builder() -> Builder {
        Builder { clusters: 1, nodes: 1, pods: 1, further_addresses: false, default_route: false }
    }

    pub(crate) fn stand(shape: Builder) -> Result<Self> {
        let id = FleetId::next()?;
        let core = Standing::new(Core { id, registry: Arc::default(), removed: Mutex::new(false) });
        // From here on an error drops `core`, which removes what was made so far.
        // A signal that comes now waits until all is there that it must remove.
        let removed = lock(&core.removed);
        let built = core.build(&shape);
        drop(removed);
        let (fabric, nodes) = built?;
        Ok(Self { core, fabric, nodes, shape })
    }

    /// Another pod on a node, now. It takes the number after the node's last pod, which a removed one may have had.
    pub fn add_pod(&mut self, node: &str) -> Result<Pod> {
        let Self { core, fabric, nodes, shape } = self;
        let removed = lock(&core.removed);
        ensure!(!*removed, "add pod: the fleet is removed");
        let node = nodes.iter_mut().find(|known| known.name() == node).context("add pod: no such node")?;
        let next = node.pods().iter().map(|pod| pod.number()).max().unwrap_or(0) + 1;
        ensure!(next <= MAX_PODS, "add pod to {}: it has {MAX_PODS}", node.name());
        let script = core.furnish(node, |_| String::new(), next..=next, shape)?;
        iproute::batch(fabric, &script)?;
        node.pods().last().cloned().context("add pod: it is not there")
    }

    /// Takes a pod away with all that runs in it, as when its node's kubelet kills it: its address is unreachable.
    /// Threads of this process in it must have ended.
    pub fn remove_pod(&mut self, name: &str) -> Result<()> {
        let node = self.nodes.iter_mut().find(|node| node.pods().iter().any(|pod| pod.name() == name));
        let pod =
            node.and_then(|node| node.take_pod(name)).with_context(|| format!("remove pod {name}: no such pod"))?;
        pod.registry().stop_all();
        cgroup::remove_tree(pod.cgroup())?;
        // The link ends with the namespace, which ends later, when the last socket in it has gone. The pod ends now.
        let node = self.node(pod.node_name());
        iproute::batch(node.netns(), &format!("link del {}\n", pod.host_link()))?;
        crate::netns::remove(pod.netns().name())
    }

    /// Its id: all that belongs to it is called `mcs-<id>…`.
    pub fn id(&self) -> &FleetId {
        &self.core.id
    }

    /// The cgroup above all nodes.
    pub fn cgroup(&self) -> Result<PathBuf> {
        removal::cgroup_of(&self.core.id)
    }

    /// A folder of its own for manifests and logs, which goes with it.
    pub fn files(&self) -> PathBuf {
        removal::files_of(&self.core.id)
    }

    /// A folder below [`files`](Self::files), made if it is not there.
    pub fn dir(&self, name: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.files().join(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// The network between the nodes.
    pub fn fabric(&self) -> &NetNs {
        &self.fabric
    }

    /// The clusters' ids.
    pub fn clusters(&self) -> Vec<String> {
        (1..=self.shape.clusters).map(topology::cluster_name).collect()
    }

    /// All nodes, cluster by cluster.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All pods, node by node.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.nodes.iter().flat_map(|node| node.pods())
    }

    /// All pods of a cluster.
    pub fn pods_of<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.pods().filter(move |pod| pod.cluster() == cluster)
    }

    /// The node with a name, `a1`.
    ///
    /// # Panics
    /// If there is none.
    pub fn node(&self, name: &str) -> &Node {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.unwrap_or_else(|| panic!("fleet has no node {name}"))
    }

    /// The pod with a name, `a1p1`.
    ///
    /// # Panics
    /// If there is none.
    pub fn pod(&self, name: &str) -> &Pod {
        let found = self.pods().find(|pod| pod.name() == name);
        found.unwrap_or_else(|| panic!("fleet has no pod {name}"))
    }

    /// Removes the fleets of processes that are dead (same pid, same start time), and says how many there were.
    pub fn sweep() -> Result<usize> {
        removal::sweep()
    }

    /// Removes all fleets of this process, now, whoever holds them: for the end of a program that does not unwind.
    pub fn remove_all() {
        // Not under the lock: who removes one now wants to take it off the list.
        let standing = lock(&STANDING).clone();
        for core in standing {
            core.remove();
        }
    }

    /// From now on SIGINT, SIGTERM and SIGHUP remove all fleets before they end this process.
    pub fn on_signal() -> Result<()> {
        signal::before_ending(Self::remove_all)
    }

    /// [`on_signal`](Self::on_signal) for a program that has something to say or to stop: what is done instead of
    /// [`remove_all`](Self::remove_all), which it must call.
    pub fn on_signal_do(clean_up: fn()) -> Result<()> {
        signal::before_ending(clean_up)
    }
}

impl Core {
    /// Makes everything, from the fabric outwards.
    fn build(&self, shape: &Builder) -> Result<(NetNs, Vec<Node>)> {
        cgroup::join_root()?;
        cgroup::create(&removal::cgroup_of(&self.id)?)?;
        let files = removal::files_of(&self.id);
        fs::create_dir(&files).with_context(|| format!("create {}", files.display()))?;

        let fabric = self.router("fabric")?;
        let mut nodes = Vec::new();
        let mut script = topology::fabric();
        for cluster in 1..=shape.clusters {
            for node in 1..=shape.nodes {
                let node = self.node(NodeSpot { cluster, node })?;
                script += &topology::fabric_to_node(node.spot(), node.netns().name());
                nodes.push(node);
            }
        }
        iproute::batch(&fabric, &script)?;

        // Nodes are independent of each other: side by side.
        let furnished: Result<Vec<String>> = thread::scope(|scope| {
            let furnish = |node| scope.spawn(move || self.furnish(node, topology::node, 1..=shape.pods, shape));
            let threads: Vec<_> = nodes.iter_mut().map(furnish).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        iproute::batch(&fabric, &furnished?.concat())?;
        Ok((fabric, nodes))
    }

    fn router(&self, name: &str) -> Result<NetNs> {
        NetNs::create(&removal::netns_name(&self.id, name), &[&ROUTER_SYSCTLS[..], &SYSCTLS].concat())
    }

    fn node(&self, spot: NodeSpot) -> Result<Node> {
        let name = spot.name();
        let cgroup = removal::cgroup_of(&self.id)?.join(&name);
        cgroup::create(&cgroup)?;
        Ok(Node::new(Place::new(&name, self.router(&name)?, cgroup, &self.registry), spot))
    }

    /// Runs a script in a node that also makes pods, and returns what the fabric must run for them.
    fn furnish(
        &self,
        node: &mut Node,
        script: impl FnOnce(NodeSpot) -> String,
        pods: std::ops::RangeInclusive<u8>,
        shape: &Builder,
    ) -> Result<String> {
        let (mut in_node, mut in_fabric) = (script(node.spot()), String::new());
        let mut made = Vec::new();
        for pod in pods {
            let spot = PodSpot { node: node.spot(), pod };
            let pod = self.pod(node, spot)?;
            in_node += &topology::node_to_pod(spot, pod.netns().name(), shape.further_addresses);
            if shape.further_addresses {
                in_fabric += &topology::fabric_to_further(spot);
            }
            made.push((pod, topology::pod(spot, shape.further_addresses, shape.default_route)));
        }
        iproute::batch(node.netns(), &in_node)?;
        for (pod, in_pod) in made {
            iproute::batch(pod.netns(), &in_pod)?;
            node.put_pod(pod);
        }
        Ok(in_fabric)
    }

    fn pod(&self, node: &Node, spot: PodSpot) -> Result<Pod> {
        let name = spot.name();
        let cgroup = node.cgroup().join(&name);
        cgroup::create(&cgroup)?;
        let netns = NetNs::create(&removal::netns_name(&self.id, &name), &SYSCTLS)?;
        // A registry of its own, below the fleet's, so that a pod can go alone.
        let registry = Arc::new(Registry::default());
        self.registry.add(&registry);
        Ok(Pod::new(Place::new(&name, netns, cgroup, &registry), spot))
    }

    fn remove(&self) {
        let mut removed = lock(&self.removed);
        if std::mem::replace(&mut *removed, true) {
            return;
        }
        self.registry.stop_all();
        for error in removal::remove(&self.id) {
            eprintln!("fleet {}: {error:#}", self.id);
        }
    }
}

/// A core that is on the list until it is removed: whoever removes all waits for a removal that has begun.
struct Standing(Arc<Core>);

impl Standing {
    fn new(core: Core) -> Self {
        let core = Arc::new(core);
        lock(&STANDING).push(Arc::clone(&core));
        Self(core)
    }
}

impl Deref for Standing {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.0
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.remove();
        lock(&STANDING).retain(|core| !Arc::ptr_eq(core, &self.0));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
