//! kube-proxy's nftables mode (pkg/proxy/nftables/proxier.go, `setupNFTables` and `syncProxyRules`; KEP-3866).
//!
//! ```text
//!  nat-prerouting, nat-output ─► services      ip daddr . meta l4proto . th dport vmap @service-ips: one look-up
//!                                  └► service-…   not from a pod? mark-for-masquerade; numgen random mod n vmap {…}
//!                                       └► endpoint-…   from itself? mark-for-masquerade; dnat
//!  nat-postrouting ─► masquerading             what is marked is masqueraded
//!  filter-forward, -input, -output             ct state new: services without endpoints, free ClusterIPs
//! ```
//! Left out: node ports, load balancers and external IPs. kube-proxy writes one transaction; here it is several of some
//! hundred services each, as `nft` 1.0 takes time quadratic in the anonymous maps of one transaction. The rules are the
//! same.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use mcs_tests::{Fleet, Node};

use super::{Service, hash};

/// Services of one transaction.
const AT_A_TIME: usize = 500;

const BASE: &str = "add table ip kube-proxy { comment \"rules for kube-proxy\"; }
delete table ip kube-proxy
add table ip kube-proxy { comment \"rules for kube-proxy\"; }
add set ip kube-proxy cluster-ips { type ipv4_addr; comment \"Active ClusterIPs\"; }
add map ip kube-proxy no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict; comment \"ClusterIP, ExternalIP and LoadBalancer IP traffic\"; }
add chain ip kube-proxy services
add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips
add chain ip kube-proxy mark-for-masquerade
add rule ip kube-proxy mark-for-masquerade mark set mark or 0x4000
add chain ip kube-proxy masquerading
add rule ip kube-proxy masquerading mark and 0x4000 == 0 return
add rule ip kube-proxy masquerading mark set mark xor 0x4000
add rule ip kube-proxy masquerading masquerade fully-random
add chain ip kube-proxy reject-chain { comment \"helper for @no-endpoint-services\"; }
add rule ip kube-proxy reject-chain reject
add chain ip kube-proxy cluster-ips-check
add rule ip kube-proxy cluster-ips-check ip daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\"
add rule ip kube-proxy cluster-ips-check ip daddr 10.96.0.0/16 drop comment \"Drop traffic to unallocated ClusterIPs\"
add chain ip kube-proxy service-endpoints-check
add rule ip kube-proxy service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services
add chain ip kube-proxy filter-input { type filter hook input priority -110; }
add rule ip kube-proxy filter-input ct state new jump service-endpoints-check
add chain ip kube-proxy filter-forward { type filter hook forward priority -110; }
add rule ip kube-proxy filter-forward ct state new jump service-endpoints-check
add rule ip kube-proxy filter-forward ct state new jump cluster-ips-check
add chain ip kube-proxy filter-output { type filter hook output priority -110; }
add rule ip kube-proxy filter-output ct state new jump service-endpoints-check
add chain ip kube-proxy filter-output-post-dnat { type filter hook output priority -90; }
add rule ip kube-proxy filter-output-post-dnat ct state new jump cluster-ips-check
add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority -100; }
add rule ip kube-proxy nat-prerouting jump services
add chain ip kube-proxy nat-output { type nat hook output priority -100; }
add rule ip kube-proxy nat-output jump services
add chain ip kube-proxy nat-postrouting { type nat hook postrouting priority 100; }
add rule ip kube-proxy nat-postrouting jump masquerading
";

/// Replaces all rules of a node.
pub(super) fn load(fleet: &Fleet, node: &Node, services: &[Service]) -> Result<()> {
    let file = fleet.files().join("kube-proxy.nft");
    let base = BASE.to_owned();
    let parts = services.chunks(AT_A_TIME).enumerate().map(|(chunk, part)| text(chunk * AT_A_TIME, part));
    for part in [base].into_iter().chain(parts) {
        fs::write(&file, part).with_context(|| format!("write {}", file.display()))?;
        let mut nft = Command::new("nft");
        nft.arg("-f").arg(&file);
        node.stdout(nft)?;
    }
    Ok(())
}

fn text(first: usize, services: &[Service]) -> String {
    let mut text = String::new();
    for (number, Service { name, ip, port, endpoints }) in (first..).zip(services) {
        let service = format!("service-{}-default/{name}/tcp/tcp", &hash(number, 0)[..8]);
        let mut choices = Vec::new();
        for (position, endpoint) in endpoints.iter().enumerate() {
            let (address, target) = (endpoint.ip(), endpoint.port());
            let chain =
                format!("endpoint-{}-default/{name}/tcp/tcp__{address}/{target}", &hash(number, position + 1)[..8]);
            // Writing to a string cannot fail.
            let _ok = writeln!(
                text,
                "add chain ip kube-proxy {chain}\n\
                 add rule ip kube-proxy {chain} ip saddr {address} jump mark-for-masquerade\n\
                 add rule ip kube-proxy {chain} meta l4proto tcp dnat to {endpoint}"
            );
            choices.push(format!("{position} : goto {chain}"));
        }
        let _ok = writeln!(
            text,
            "add chain ip kube-proxy {service}\n\
             add rule ip kube-proxy {service} ip daddr {ip} tcp dport {port} ip saddr != 10.16.0.0/12 jump \
             mark-for-masquerade\n\
             add rule ip kube-proxy {service} numgen random mod {} vmap {{ {} }}\n\
             add element ip kube-proxy cluster-ips {{ {ip} }}\n\
             add element ip kube-proxy service-ips {{ {ip} . tcp . {port} : goto {service} }}",
            choices.len(),
            choices.join(", "),
        );
    }
    text
}
