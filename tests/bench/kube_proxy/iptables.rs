//! kube-proxy's iptables mode, as `iptables-restore` text (pkg/proxy/iptables/proxier.go, `syncProxyRules`).
//!
//! ```text
//!  nat PREROUTING, OUTPUT ─► KUBE-SERVICES     one rule for each service, searched from the top
//!                              └► KUBE-SVC-…   not from a pod? KUBE-MARK-MASQ; then one of n, by `statistic` 1/n, 1/(n-1) …
//!                                   └► KUBE-SEP-…   from itself? KUBE-MARK-MASQ; DNAT
//!  nat POSTROUTING ─► KUBE-POSTROUTING         what is marked is masqueraded
//!  filter FORWARD ─► KUBE-FORWARD              invalid: drop; marked, or of a known flow: accept
//! ```
//! Left out: node ports, load balancers and external IPs, which no service here has; comments are there, as in the
//! original.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use mcs_tests::{Fleet, Node};

use super::{Service, hash};

const HEAD: &str = r#"*filter
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
"#;

const TAIL: &str = r#"-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
"#;

/// Replaces all rules of a node.
pub(super) fn load(fleet: &Fleet, node: &Node, services: &[Service]) -> Result<()> {
    let file = fleet.files().join("kube-proxy.iptables");
    fs::write(&file, text(services)).with_context(|| format!("write {}", file.display()))?;
    let mut restore = Command::new("iptables-restore");
    restore.arg(&file);
    node.stdout(restore).map(drop)
}

fn text(services: &[Service]) -> String {
    let (mut chains, mut rules) = (String::new(), String::new());
    for (number, Service { name, ip, port, endpoints }) in services.iter().enumerate() {
        let service = hash(number, 0);
        // Writing to a string cannot fail.
        let _ok = writeln!(chains, ":KUBE-SVC-{service} - [0:0]");
        let _ok = writeln!(
            rules,
            "-A KUBE-SERVICES -d {ip}/32 -p tcp -m comment --comment \"default/{name}:tcp cluster IP\" -m tcp --dport {port} \
             -j KUBE-SVC-{service}\n\
             -A KUBE-SVC-{service} ! -s 10.16.0.0/12 -d {ip}/32 -p tcp -m comment --comment \"default/{name}:tcp cluster IP\" \
             -m tcp --dport {port} -j KUBE-MARK-MASQ"
        );
        for (position, endpoint) in endpoints.iter().enumerate() {
            let chain = hash(number, position + 1);
            let left = endpoints.len() - position;
            let draw = match left {
                1 => String::new(),
                left => format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64),
            };
            let address = endpoint.ip();
            let _ok = writeln!(chains, ":KUBE-SEP-{chain} - [0:0]");
            let _ok = writeln!(
                rules,
                "-A KUBE-SVC-{service} -m comment --comment \"default/{name}:tcp -> {endpoint}\"{draw} -j KUBE-SEP-{chain}\n\
                 -A KUBE-SEP-{chain} -s {address}/32 -m comment --comment \"default/{name}:tcp\" -j KUBE-MARK-MASQ\n\
                 -A KUBE-SEP-{chain} -p tcp -m comment --comment \"default/{name}:tcp\" -m tcp -j DNAT \
                 --to-destination {endpoint}"
            );
        }
    }
    [HEAD, &chains, &rules, TAIL].concat()
}
