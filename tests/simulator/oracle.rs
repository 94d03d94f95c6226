//! What should be, computed from what users made and from nothing that a controller wrote. Written a second time on
//! purpose: the product's own merge would agree with itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mcs::api::ServiceImportType;
use mcs::clusterset::event::{Kind, Object};
use mcs::clusterset::local::Service;
use mcs::clusterset::record;
use mcs::clusterset::service::{Exported, Family, Transport};
use mcs::model::ObjectKey;

use crate::world::World;

/// Name, protocol and number of a port that clients dial.
pub(crate) type Dialled = (String, Transport, u16);

/// By source cluster and address: the import's port that is served, and the number at the pod.
pub(crate) type Backends = BTreeMap<(String, IpAddr), BTreeSet<(String, Transport, u16)>>;

/// An import as every cluster should have it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Wanted {
    pub(crate) clusters: Vec<String>,
    pub(crate) kind: ServiceImportType,
    pub(crate) ports: BTreeSet<Dialled>,
    /// Of its addresses.
    pub(crate) families: BTreeSet<Family>,
    pub(crate) backends: Backends,
    pub(crate) tier: Option<String>,
    /// Reasons of the condition `Conflict` that the simulator knows of.
    pub(crate) conflicts: BTreeSet<&'static str>,
}

impl World {
    /// What a member exports by its users' will.
    pub(crate) fn exported(&self, member: usize, service: &ObjectKey) -> Option<Exported> {
        let of = &self.members[member];
        let Some(Object::Export(export)) = of.server.get(Kind::Exports, service) else {
            return None;
        };
        match of.server.get(Kind::Services, service) {
            Some(Object::Service(Service::Exportable(exported))) => Some(Exported {
                created: export.meta.created,
                labels: export.labels.clone(),
                annotations: export.annotations.clone(),
                ..exported.clone()
            }),
            _ => None,
        }
    }

    /// What lies of a member's export at the broker, unless it is withdrawn.
    pub(crate) fn published(&self, member: usize, service: &ObjectKey) -> Option<&Exported> {
        let key = ObjectKey::new(self.members[member].namespace(), record::export_name(service));
        match self.broker.get(Kind::ExportRecords, &key) {
            Some(Object::ExportRecord(_, spec)) if !spec.withdrawn => Some(&spec.exported),
            _ => None,
        }
    }

    /// Whether a member's export counts, though perhaps nobody knows it yet: there is one, or it got lost and nobody
    /// approved of that.
    pub(crate) fn exports(&self, member: usize, service: &ObjectKey) -> bool {
        let of = &self.members[member];
        of.active() && (self.exported(member, service).is_some() || of.lost.contains(service))
    }

    /// The import that all clusters should have of a service.
    pub(crate) fn wanted(&self, service: &ObjectKey) -> Option<Wanted> {
        let members = (0..self.members.len()).filter(|member| self.members[*member].active());
        let mut exports: Vec<(i64, &str, usize, Exported)> = members
            .filter_map(|member| {
                let exported = self.exported(member, service)?;
                Some((exported.created, self.members[member].id.as_str(), member, exported))
            })
            .collect();
        exports.sort_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)));
        let (.., oldest) = exports.first()?;

        let mut ports: Vec<Dialled> = Vec::new();
        for port in exports.iter().flat_map(|(.., exported)| &exported.ports) {
            let taken = |(name, protocol, number): &Dialled| {
                *name == port.name || (*protocol, *number) == (port.protocol, port.port)
            };
            if !ports.iter().any(taken) {
                ports.push((port.name.clone(), port.protocol, port.port));
            }
        }
        let mut families = BTreeSet::new();
        if oldest.kind == ServiceImportType::ClusterSetIP {
            families.extend(exports.iter().flat_map(|(.., exported)| exported.ip_families.iter().copied()));
        }
        let mut conflicts = BTreeSet::new();
        for (.., exported) in &exports {
            let of = |exported: &Exported| -> BTreeSet<Dialled> {
                exported.ports.iter().map(|port| (port.name.clone(), port.protocol, port.port)).collect()
            };
            let differences = [
                ("PortConflict", of(exported) != of(oldest)),
                ("TypeConflict", exported.kind != oldest.kind),
                ("LabelsConflict", exported.labels != oldest.labels),
                ("SessionAffinityConflict", exported.session_affinity != oldest.session_affinity),
            ];
            conflicts.extend(differences.into_iter().filter(|(_, differs)| *differs).map(|(reason, _)| reason));
        }
        let mut backends = Backends::new();
        for (_, cluster, member, exported) in &exports {
            self.add_backends(&mut backends, cluster, *member, service, exported, &ports);
        }
        let mut clusters: Vec<String> = exports.iter().map(|(_, cluster, ..)| (*cluster).to_owned()).collect();
        clusters.sort();
        let tier = oldest.labels.get("tier").cloned();
        let ports = ports.into_iter().collect();
        Some(Wanted { clusters, kind: oldest.kind, ports, families, backends, tier, conflicts })
    }

    fn add_backends(
        &self,
        backends: &mut Backends,
        cluster: &str,
        member: usize,
        service: &ObjectKey,
        exported: &Exported,
        ports: &[Dialled],
    ) {
        for (key, object) in self.members[member].server.all(Kind::SourceSlices) {
            let Object::SourceSlice(slice) = object else {
                continue;
            };
            if key.namespace != service.namespace || slice.service != *service.name {
                continue;
            }
            let mut serves = BTreeSet::new();
            for at_pod in &slice.endpoints.ports {
                let own =
                    exported.ports.iter().find(|port| port.name == at_pod.name && port.protocol == at_pod.protocol);
                let dialled = own.and_then(|own| {
                    ports.iter().find(|(_, protocol, number)| (*protocol, *number) == (own.protocol, own.port))
                });
                serves.extend(dialled.map(|(name, protocol, _)| (name.clone(), *protocol, at_pod.port)));
            }
            if serves.is_empty() && !slice.endpoints.ports.is_empty() && !exported.ports.is_empty() {
                continue;
            }
            for endpoint in &slice.endpoints.endpoints {
                let of = backends.entry((cluster.to_owned(), endpoint.address)).or_default();
                of.extend(serves.iter().cloned());
            }
        }
    }

    /// The backends that a member's imported slices of a service show.
    pub(crate) fn shown(&self, member: usize, service: &ObjectKey) -> Backends {
        let mut backends = Backends::new();
        for (key, object) in self.members[member].server.all(Kind::ImportedSlices) {
            let Object::ImportedSlice(slice) = object else {
                continue;
            };
            if key.namespace != service.namespace || slice.import != *service.name {
                continue;
            }
            for endpoint in &slice.endpoints {
                let of = backends.entry((slice.cluster.clone(), endpoint.address)).or_default();
                of.extend(slice.ports.iter().map(|port| (port.name.clone(), port.protocol, port.port)));
            }
        }
        backends
    }
}
