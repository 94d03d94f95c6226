//! mcs on real clusters with real kubelets, installed with `deploy/`.

pub(crate) mod latency;
pub(crate) mod outage;
pub(crate) mod pods;
pub(crate) mod watch;

use anyhow::Result;
use mcs_clusters::Shape;
use mcs_tests::kube::Kube;

use crate::progress::say;

/// Two clusters and a broker: c0 with kube-proxy in its mode nftables, c1 in its mode iptables.
pub(crate) fn installed() -> Result<Kube> {
    say("bringing two clusters and a broker up, and mcs in them");
    let kube = Kube::up(&Shape { broker: true, ..Shape::default() })?;
    kube.init_broker()?;
    for cluster in ["c0", "c1"] {
        kube.member(cluster, "member")?;
    }
    Ok(kube)
}
