//! Keeping ClusterSetIP traffic on the node while no program is attached: `ip rule` entries that answer `unreachable`.
//!
//! A rule and not a route, as a CNI that routes by policy never looks at the main table. It comes before every other
//! rule but the local table's. Programs translate before the kernel routes, so what they translate never meets it.
//!
//! Only for CIDRs that overlap nothing that this network namespace knows (addresses, routes): there the rule would break
//! the host itself. Each rule is recorded in `mcs_rules` before it is made, so that `mcs detach` finds it after any crash.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use aya::maps::{HashMap, MapData};
use futures::TryStreamExt as _;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mcs_ebpf::{Addr, RuleKey};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, RouteMessageBuilder};
use tracing::info;

/// Before everything but the local table (0).
const PRIORITY: u32 = 8;

/// When rules are set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Mode {
    /// For CIDRs that overlap no address or route of this network namespace.
    #[default]
    Auto,
    /// For all CIDRs.
    On,
    /// Never; those recorded for this network namespace are removed.
    Off,
}

/// A rule that was recorded in a network namespace that cannot be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutOfReach {
    /// Inode of the namespace (`lsns -t net`, `ls -i /run/netns`).
    pub netns_inode: u64,
    /// What the rule covers.
    pub cidr: IpNet,
    /// Why it is still there.
    pub reason: String,
}

/// A netlink socket of this thread's network namespace; its driver ends with the runtime.
fn connect() -> anyhow::Result<Handle> {
    let (connection, handle, _messages) = rtnetlink::new_connection().context("open a netlink socket")?;
    // Not lost track of: it ends when the last handle is dropped.
    drop(tokio::spawn(connection));
    Ok(handle)
}

fn key(netns_inode: u64, cidr: IpNet) -> RuleKey {
    RuleKey {
        netns_inode,
        addr: Addr::from(cidr.network()),
        prefix_len: u32::from(cidr.prefix_len()),
        priority: PRIORITY,
    }
}

fn cidr(key: &RuleKey) -> Option<IpNet> {
    IpNet::new(key.addr.ip(), u8::try_from(key.prefix_len).ok()?).ok()
}

/// The inode of the calling thread's network namespace.
fn netns_inode() -> anyhow::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net: stat")?.ino())
}

/// Sets the rules for `cidrs` in this network namespace and removes recorded ones that are not wanted any more.
/// Returns what could not be done, one sentence each: none of it stops an agent.
///
/// # Errors
/// When netlink cannot be used at all.
pub async fn apply(
    cidrs: &[IpNet],
    mode: Mode,
    recorded: &mut HashMap<MapData, RuleKey, u32>,
) -> anyhow::Result<Vec<String>> {
    let handle = connect()?;
    let netns = netns_inode()?;
    let known = if mode == Mode::Auto { known_networks(&handle).await? } else { Vec::new() };
    let mut warnings = Vec::new();
    let mut wanted = Vec::new();
    for cidr in cidrs {
        match known.iter().find(|known| overlap(known, cidr)) {
            _ if mode == Mode::Off => {}
            Some(known) => warnings.push(format!(
                "clusterset CIDR {cidr}: overlaps {known} of this node: traffic to it is not held back while no program is \
                 attached (--fail-closed on overrides)"
            )),
            None => wanted.push(*cidr),
        }
    }
    for old in recorded.keys().filter_map(Result::ok).filter(|key| key.netns_inode == netns).collect::<Vec<_>>() {
        let Some(cidr) = cidr(&old) else { continue };
        if !wanted.contains(&cidr) {
            remove(&handle, cidr).await.with_context(|| format!("rule for {cidr}: remove"))?;
            drop(recorded.remove(&old));
            info!(%cidr, "rule removed");
        }
    }
    for cidr in wanted {
        if let Err(error) = recorded.insert(key(netns, cidr), 1, 0) {
            warnings.push(format!("rule for {cidr}: record it: {error}: not set"));
            continue;
        }
        match add(&handle, cidr).await {
            Ok(()) => info!(%cidr, "rule set: unreachable while no program is attached"),
            Err(error) if is_errno(&error, libc::EEXIST) => {}
            Err(error) => warnings.push(format!("rule for {cidr}: add: {error}")),
        }
    }
    Ok(warnings)
}

/// Removes every recorded rule, in whichever network namespace it is, and returns those out of reach.
///
/// # Errors
/// When the record cannot be read.
pub fn remove_all(recorded: &mut HashMap<MapData, RuleKey, u32>) -> anyhow::Result<Vec<OutOfReach>> {
    let keys: Vec<RuleKey> = recorded.keys().collect::<Result<_, _>>().context("read the recorded rules")?;
    let mut left = Vec::new();
    for key in keys {
        let Some(cidr) = cidr(&key) else { continue };
        match remove_in(key.netns_inode, cidr) {
            Ok(()) => drop(recorded.remove(&key)),
            Err(error) => {
                left.push(OutOfReach { netns_inode: key.netns_inode, cidr, reason: format!("{error:#}") });
            }
        }
    }
    Ok(left)
}

/// Removes a rule in the network namespace of that inode.
fn remove_in(inode: u64, cidr: IpNet) -> anyhow::Result<()> {
    let Some(path) = find_netns(inode) else {
        bail!("no process and no file in /run/netns leads to that network namespace");
    };
    let file = File::open(&path).with_context(|| format!("{}: open", path.display()))?;
    // A thread of its own, as entering a namespace is for good.
    let thread = std::thread::spawn(move || -> anyhow::Result<()> {
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&file),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .with_context(|| format!("{}: enter", path.display()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let handle = connect()?;
            remove(&handle, cidr).await.with_context(|| format!("rule for {cidr}: remove"))
        })
    });
    thread.join().unwrap_or_else(|_| bail!("rule for {cidr}: remove: the thread ended early"))
}

/// A file that leads to the network namespace of that inode: our own, a process's, or a named one.
fn find_netns(inode: u64) -> Option<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let is_process = entry.file_name().to_str()?.bytes().all(|byte| byte.is_ascii_digit());
        is_process.then(|| entry.path().join("ns/net"))
    });
    let named = ["/run/netns", "/var/run/netns"]
        .into_iter()
        .flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten())
        .map(|entry| entry.path());
    std::iter::once(PathBuf::from("/proc/self/ns/net"))
        .chain(named)
        .chain(processes)
        .find(|path| inode_of(path).is_some_and(|found| found == inode))
}

fn inode_of(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

async fn add(handle: &Handle, cidr: IpNet) -> Result<(), rtnetlink::Error> {
    let rule = handle.rule().add().action(RuleAction::Unreachable).priority(PRIORITY);
    match cidr {
        IpNet::V4(cidr) => rule.v4().destination_prefix(cidr.network(), cidr.prefix_len()).execute().await,
        IpNet::V6(cidr) => rule.v6().destination_prefix(cidr.network(), cidr.prefix_len()).execute().await,
    }
}

/// Fine if there is none.
async fn remove(handle: &Handle, cidr: IpNet) -> Result<(), rtnetlink::Error> {
    let mut message = RuleMessage::default();
    message.header.family = match cidr {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::Unreachable;
    message.header.dst_len = cidr.prefix_len();
    message.attributes.push(RuleAttribute::Destination(cidr.network()));
    message.attributes.push(RuleAttribute::Priority(PRIORITY));
    match handle.rule().del(message).execute().await {
        Err(error) if is_errno(&error, libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn is_errno(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}

/// Every address and routed network of this network namespace but the default routes.
async fn known_networks(handle: &Handle) -> anyhow::Result<Vec<IpNet>> {
    let mut known = Vec::new();
    let addresses = handle.address().get().execute();
    futures::pin_mut!(addresses);
    while let Some(message) = addresses.try_next().await.context("list addresses")? {
        for attribute in &message.attributes {
            if let AddressAttribute::Address(ip) = attribute {
                known.extend(IpNet::new(*ip, message.header.prefix_len));
            }
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessageBuilder::<IpAddr>::new().build();
        request.header.address_family = family;
        let routes = handle.route().get(request).execute();
        futures::pin_mut!(routes);
        while let Some(message) = routes.try_next().await.context("list routes")? {
            let length = message.header.destination_prefix_length;
            for attribute in &message.attributes {
                #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign, non-exhaustive list")]
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(ip)) if length > 0 => {
                        known.extend(Ipv4Net::new(*ip, length).map(IpNet::V4));
                    }
                    RouteAttribute::Destination(RouteAddress::Inet6(ip)) if length > 0 => {
                        known.extend(Ipv6Net::new(*ip, length).map(IpNet::V6));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(known)
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_seen_from_both_sides_and_within_a_family() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert!(overlap(&net("10.0.0.0/8"), &net("10.96.0.0/16")));
        assert!(overlap(&net("10.96.0.1/32"), &net("10.96.0.0/16")));
        assert!(!overlap(&net("10.97.0.0/16"), &net("10.96.0.0/16")));
        assert!(!overlap(&net("::/1"), &net("10.96.0.0/16")));
    }

    #[test]
    fn a_key_gives_its_cidr_back() {
        for text in ["10.97.0.0/16", "fd00:97::/112"] {
            let net: IpNet = text.parse().unwrap();
            assert_eq!(cidr(&key(1, net)), Some(net));
        }
    }
}
