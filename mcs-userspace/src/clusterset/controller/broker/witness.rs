//! Second looks: at everything when what it is checked against became another, and at what vanished when its source
//! renews and so says what it means.

use std::time::Duration;

use super::{Broker, digest_text};
use crate::clusterset::record::{export_name, member_namespace};
use crate::clusterset::vip;
use crate::model::ObjectKey;
use crate::problem::{Problem, Severity};

/// A renewal that is seen within this time may have been made before what was seen already.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

impl Broker {
    /// The ClusterSet's CIDRs, or a member's settings, are others: everything is checked again.
    pub(in crate::clusterset::controller) fn recheck(&mut self) {
        let services: Vec<ObjectKey> = self.records.keys().cloned().collect();
        for service in services {
            let clusters: Vec<String> = self.records(&service).map(|(cluster, _)| cluster.to_owned()).collect();
            for cluster in clusters {
                let Some(mut record) = self.records.get_mut(&service).and_then(|of| of.remove(&cluster)) else {
                    continue;
                };
                let key = ObjectKey::new(member_namespace(&cluster), export_name(&service));
                self.unclaim(&service, &cluster, &record.ips);
                let gone = record.withdrawn;
                self.check_record(&key, &mut record);
                record.withdrawn |= gone;
                self.claim(&service, &cluster, &record.ips);
                self.records.entry(service.clone()).or_default().insert(cluster, record);
            }
        }
        let slices: Vec<ObjectKey> = self.slices.keys().cloned().collect();
        for key in slices {
            if let Some((group, mut slice)) = self.slices.remove(&key) {
                self.check_slice(&group.0, &key, &mut slice);
                self.slices.insert(key, group, slice);
            }
        }
    }

    /// A member's settings are others: its slices are checked again.
    pub(in crate::clusterset::controller) fn recheck_slices(&mut self, cluster: &str) {
        let of_cluster = self.slices.iter().filter(|((of, _), ..)| of == cluster);
        let slices: Vec<ObjectKey> = of_cluster.map(|(_, key, _)| key.clone()).collect();
        for key in slices {
            if let Some((group, mut slice)) = self.slices.remove(&key) {
                self.check_slice(&group.0, &key, &mut slice);
                self.slices.insert(key, group, slice);
            }
        }
    }

    /// Reads the CIDRs of the ClusterSet. Whether they are others now.
    pub(in crate::clusterset::controller) fn read_cidrs(&mut self, clusterset: &str) -> bool {
        let Some(texts) = self.clustersets.get(clusterset) else { return false };
        let key = ObjectKey::new("", clusterset);
        match vip::parse_cidrs(texts) {
            Ok(cidrs) => {
                self.problems.remove(&("clusterset", key));
                std::mem::replace(&mut self.cidrs, cidrs) != self.cidrs
            }
            Err(error) => {
                let problem = Problem {
                    object: format!("ClusterSet {clusterset}"),
                    file: None,
                    field: "spec.cidrs".to_owned(),
                    reason: error.to_string(),
                    severity: Severity::Invalid,
                };
                self.problems.insert(("clusterset", key), vec![problem]);
                false
            }
        }
    }

    /// Something of a member's is not there any more: only renewals from now on bear witness.
    pub(super) fn vanished(&mut self, cluster: &str) {
        self.unsettled.insert(cluster.to_owned());
        if let Some(lease) = self.leases.get_mut(cluster) {
            (lease.witnesses, lease.since) = (0, self.now);
        }
    }

    /// Others may know more of the broker: members' renewals have to say again that what is there is all.
    pub(in crate::clusterset::controller) fn doubt(&mut self) {
        self.proven.clear();
        self.relisted();
    }

    /// Records were listed: only renewals from now on bear witness.
    pub(in crate::clusterset::controller) fn relisted(&mut self) {
        for lease in self.leases.values_mut() {
            (lease.witnesses, lease.since) = (0, self.now);
        }
    }

    /// A renewal was seen. If it is the second since anything vanished, or long after,
    /// and says that just what is there should be, then
    /// what is not there is withdrawn. Returns the services that this concerns; all of the member's if it is the first time.
    pub(in crate::clusterset::controller) fn witness(&mut self, cluster: &str) -> Option<Vec<ObjectKey>> {
        if self.proven.contains(cluster) && !self.unsettled.contains(cluster) {
            return None;
        }
        let lease = self.leases.get_mut(cluster)?;
        lease.witnesses = lease.witnesses.saturating_add(1);
        // One that was on its way already does not count.
        if lease.witnesses < 2 && self.now.saturating_sub(lease.since) < ON_ITS_WAY {
            return None;
        }
        let meant = lease.statement.published.clone()?;
        let present = self.present.get(cluster).copied().unwrap_or_default();
        if meant != digest_text(present.digest) {
            return None;
        }
        let mut touched = Vec::new();
        for (service, of) in &mut self.records {
            if let Some(record) = of.get_mut(cluster).filter(|record| !record.present && !record.withdrawn) {
                record.withdrawn = true;
                let ips = std::mem::take(&mut record.ips);
                for ip in ips {
                    if let Some(claims) = self.claims.get_mut(&ip) {
                        claims.remove(&(service.clone(), cluster.to_owned()));
                    }
                }
                touched.push(service.clone());
            }
        }
        let gone = self.slices.iter().filter(|((of, _), _, slice)| of == cluster && !slice.present);
        let gone: Vec<(ObjectKey, ObjectKey)> =
            gone.map(|((_, service), key, _)| (service.clone(), key.clone())).collect();
        for (service, key) in gone {
            self.forget_slice(&key);
            touched.push(service);
        }
        self.unsettled.remove(cluster);
        self.proven.insert(cluster.to_owned());
        Some(touched)
    }

    /// Whether nothing of a member's is remembered that is not there, and everything else was told.
    pub(in crate::clusterset::controller) fn complete(&self, cluster: &str) -> bool {
        self.proven.contains(cluster)
    }
}
