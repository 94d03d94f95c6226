//! From what an import's objects say to the services that the kernel should offer on this node. Pure.
//!
//! ```text
//!  import's VIPs × ports ──► candidates: slices' endpoints of equal port name, protocol and family
//!                               │ internalTrafficPolicy: Local          others drain
//!                               │ ready; if none, serving-terminating   others drain, or are no backends
//!                               │ locality, or the clusters' shares     others drain
//!                               ▼
//!                            backends with weights
//! ```
//!
//! A backend that drains has weight 0: it gets no new flows and keeps the unconnected UDP sockets that it has.

mod weights;

use std::fmt::Write;
use std::sync::Arc;

use ipnet::IpNet;
use mcs_ebpf::{Addr, Frontend, PortBe};

use crate::model::{Distribution, Endpoint, Import, ImportPort, ImportState, ObjectId, Slice};
use crate::problem::{Problem, Severity};
use crate::tables::{Backend, Service, Source};

/// What this agent knows about itself, by its flags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeContext {
    /// The id of the cluster that this node belongs to.
    pub cluster: Arc<str>,
    /// The node's name, unique in its cluster only.
    pub node: Arc<str>,
    /// The node's zone; without one no endpoint is in the same zone.
    pub zone: Option<Arc<str>>,
    /// Whether endpoints of this node's cluster come first.
    pub prefer_local_cluster: bool,
    /// Where ClusterSetIPs come from. A VIP outside is not programmed, as the kernel programs leave such addresses alone.
    pub cidrs: Vec<IpNet>,
}

impl NodeContext {
    fn is_frontends(&self, addr: Addr) -> bool {
        let ip = addr.ip();
        self.cidrs.iter().any(|cidr| cidr.contains(&ip))
    }
}

/// What an import wants.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Wanted {
    /// One for each (ClusterSetIP, port), sorted by frontend. Without backends it refuses.
    pub services: Vec<Service>,
    /// What is wrong with the import or its slices on this node.
    pub problems: Vec<Problem>,
}

/// An endpoint that may become a backend of a service.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    /// Position of its cluster among the clusters of the import, which are sorted.
    cluster: usize,
    addr: Addr,
    port: PortBe,
    endpoint: &'a Endpoint,
    /// Whether it was chosen for new flows; decided in steps.
    usable: bool,
}

impl Candidate<'_> {
    /// Endpoints that k8s is moving are in two slices for a moment: the better of the two says what it is.
    fn rank(&self) -> (bool, bool, usize) {
        (!self.endpoint.ready, !self.endpoint.serving, self.cluster)
    }
}

/// The services that one import wants on this node. None without a ServiceImport.
#[must_use]
pub fn desired(ctx: &NodeContext, state: &ImportState) -> Wanted {
    let Some(import) = &state.import else { return Wanted::default() };
    let mut wanted = Wanted::default();
    let clusters = clusters(state);
    report_strays(ctx, state, &mut wanted.problems);
    for vip in &import.vips {
        let addr = Addr::from(*vip);
        if !ctx.is_frontends(addr) {
            wanted.problems.push(outside(ctx, import, addr));
            continue;
        }
        for port in &import.ports {
            let (service, problem) = service(ctx, import, state, &clusters, addr, port);
            wanted.services.push(service);
            wanted.problems.extend(problem);
        }
    }
    wanted.services.sort_unstable_by_key(|s| s.frontend);
    wanted
}

/// The source clusters of an import, sorted, each once.
fn clusters(state: &ImportState) -> Vec<Arc<str>> {
    let mut clusters: Vec<Arc<str>> = state.slices.values().map(|slice| Arc::clone(&slice.cluster)).collect();
    clusters.sort_unstable();
    clusters.dedup();
    clusters
}

fn service(
    ctx: &NodeContext,
    import: &Import,
    state: &ImportState,
    clusters: &[Arc<str>],
    addr: Addr,
    port: &ImportPort,
) -> (Service, Option<Problem>) {
    let frontend = Frontend::new(addr, PortBe::new(port.port), port.protocol.number());
    let (mut candidates, problem) = candidates(ctx, import, state, clusters, addr, port);
    let sources = sources(clusters, &candidates);

    let shares: Option<Vec<u32>> = import
        .cluster_weights
        .as_ref()
        .map(|shares| clusters.iter().map(|cluster| shares.get(cluster).copied().unwrap_or(0)).collect());
    let counts = |c: &Candidate<'_>| {
        shares.as_ref().is_none_or(|shares| shares[c.cluster] > 0) && (!import.local_only || is_here(ctx, clusters, c))
    };
    narrow(&mut candidates, |c| counts(c) && c.endpoint.ready);
    if !candidates.iter().any(|c| c.usable) {
        narrow(&mut candidates, |c| counts(c) && c.endpoint.serving && c.endpoint.terminating);
    }

    let weights = match &shares {
        None => {
            if ctx.prefer_local_cluster {
                prefer(&mut candidates, |c| clusters[c.cluster] == ctx.cluster);
            }
            prefer_close(ctx, import.distribution, clusters, &mut candidates);
            vec![1; clusters.len()]
        }
        Some(shares) => {
            for group in candidates.chunk_by_mut(|a, b| a.cluster == b.cluster) {
                prefer_close(ctx, import.distribution, clusters, group);
            }
            let mut usable = vec![0; clusters.len()];
            for candidate in candidates.iter().filter(|c| c.usable) {
                usable[candidate.cluster] += 1;
            }
            weights::spread(shares, &usable)
        }
    };
    let backends = candidates
        .iter()
        .filter(|c| c.usable || c.endpoint.ready || c.endpoint.serving)
        .map(|c| Backend {
            addr: c.addr,
            port: c.port,
            cluster: Arc::clone(&clusters[c.cluster]),
            weight: if c.usable { weights[c.cluster] } else { 0 },
            realized: None,
        })
        .collect();
    let service = Service {
        frontend,
        import: import.key.clone(),
        port_name: Arc::clone(&port.name),
        affinity_secs: import.affinity_secs,
        backends,
        sources,
        realized: None,
    };
    (service, problem)
}

/// The endpoints that serve a port in the frontend's family, sorted by cluster, address and port, each address and port
/// once; and what is wrong if two clusters claim the same.
fn candidates<'a>(
    ctx: &NodeContext,
    import: &Import,
    state: &'a ImportState,
    clusters: &[Arc<str>],
    vip: Addr,
    port: &ImportPort,
) -> (Vec<Candidate<'a>>, Option<Problem>) {
    let serves = |slice: &'a Slice| {
        let ports = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        ports.map(move |p| (slice, p.port))
    };
    let served: Vec<_> = state.slices.values().flat_map(serves).collect();
    let mut found = Vec::with_capacity(served.iter().map(|(slice, _)| slice.endpoints.len()).sum());
    for (slice, port) in served {
        let Ok(cluster) = clusters.binary_search(&slice.cluster) else { continue };
        let of_family = slice.endpoints.iter().filter(|e| e.addr.is_v4() == vip.is_v4() && !ctx.is_frontends(e.addr));
        found.extend(of_family.map(|endpoint| Candidate {
            cluster,
            addr: endpoint.addr,
            port,
            endpoint,
            usable: false,
        }));
    }
    found.sort_unstable_by_key(|c| (c.addr, c.port, c.rank()));
    let mut twice = None;
    found.dedup_by(|later, first| {
        let same = (later.addr, later.port) == (first.addr, first.port);
        if same && later.cluster != first.cluster && twice.is_none() {
            twice = Some((first.addr, first.cluster, later.cluster));
        }
        same
    });
    // nothing to do for the usual import, which has one cluster
    found.sort_by_key(|c| c.cluster);
    let problem = twice.map(|(addr, used, left)| Problem {
        object: ObjectId::Import(import.key.clone()).to_string(),
        file: None,
        field: String::new(),
        reason: format!(
            "{addr} is an endpoint of cluster {} and of cluster {}: pod CIDRs overlap, used once",
            clusters[used], clusters[left]
        ),
        severity: Severity::Invalid,
    });
    (found, problem)
}

/// Ready and all endpoints of each cluster that has any.
fn sources(clusters: &[Arc<str>], candidates: &[Candidate<'_>]) -> Vec<Source> {
    let groups = candidates.chunk_by(|a, b| a.cluster == b.cluster);
    groups
        .map(|group| Source {
            cluster: Arc::clone(&clusters[group[0].cluster]),
            // as many as endpoints fit in memory
            ready: group.iter().filter(|c| c.endpoint.ready).count() as u32,
            total: group.len() as u32,
            connections: None,
        })
        .collect()
}

/// Makes usable what meets the condition, and nothing else.
fn narrow(candidates: &mut [Candidate<'_>], condition: impl Fn(&Candidate<'_>) -> bool) {
    for candidate in candidates {
        candidate.usable = condition(candidate);
    }
}

/// Of the usable ones keeps those that meet the condition, or all if there are none. Tells whether there are.
fn prefer(candidates: &mut [Candidate<'_>], condition: impl Fn(&Candidate<'_>) -> bool) -> bool {
    let any = candidates.iter().any(|c| c.usable && condition(c));
    if any {
        narrow(candidates, |c| c.usable && condition(c));
    }
    any
}

/// `trafficDistribution`: the smallest circle around this node that has a usable endpoint.
fn prefer_close(ctx: &NodeContext, circle: Distribution, clusters: &[Arc<str>], candidates: &mut [Candidate<'_>]) {
    let near = match circle {
        Distribution::Anywhere | Distribution::SameZone => false,
        Distribution::SameNode => prefer(candidates, |c| is_here(ctx, clusters, c)),
    };
    if circle != Distribution::Anywhere && !near && ctx.zone.is_some() {
        prefer(candidates, |c| c.endpoint.zone == ctx.zone);
    }
}

/// Whether an endpoint runs on this node. Node names are unique in a cluster only.
fn is_here(ctx: &NodeContext, clusters: &[Arc<str>], candidate: &Candidate<'_>) -> bool {
    candidate.endpoint.node.as_ref() == Some(&ctx.node) && clusters[candidate.cluster] == ctx.cluster
}

/// Names the endpoints that have a frontend's address: a flow to one would be translated again, or run in circles.
fn report_strays(ctx: &NodeContext, state: &ImportState, problems: &mut Vec<Problem>) {
    for slice in state.slices.values() {
        for (i, endpoint) in slice.endpoints.iter().enumerate().filter(|(_, e)| ctx.is_frontends(e.addr)) {
            problems.push(Problem {
                object: ObjectId::Slice(slice.key.clone()).to_string(),
                file: None,
                field: format!("endpoints[{i}]"),
                reason: format!("{} lies in a ClusterSet CIDR: no backend can", endpoint.addr),
                severity: Severity::Invalid,
            });
        }
    }
}

fn outside(ctx: &NodeContext, import: &Import, addr: Addr) -> Problem {
    let mut reason = format!("{addr} is in no ClusterSet CIDR of this agent (");
    for (i, cidr) in ctx.cidrs.iter().enumerate() {
        // writing to a String cannot fail
        write!(reason, "{}{cidr}", if i == 0 { "" } else { ", " }).ok();
    }
    reason.push(')');
    Problem {
        object: ObjectId::Import(import.key.clone()).to_string(),
        file: None,
        field: "spec.ips".to_owned(),
        reason,
        severity: Severity::Invalid,
    }
}

#[cfg(test)]
mod tests;
