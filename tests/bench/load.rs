//! Services in great number, as a source would deliver them: parsed objects, or the text of manifests.
//!
//! Service `i` has the ClusterSetIP number `i + 1` and one port; its endpoints are evenly of the clusters `a` and `b`, two
//! slices, on a hundred nodes in three zones. Endpoint addresses are nobody's: 11.0.0.0/8 and fd00:11::/96.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use mcs::model::{
    Distribution, Endpoint, Event, Import, ImportPort, Object, ObjectKey, Protocol, Slice, SliceNames, SlicePort,
};
use mcs_ebpf::{Addr, PortBe};
use mcs_tests::Family;
use mcs_tests::addresses::clusterset_ip;
use mcs_tests::manifest::{NAMESPACE, load_address};

/// What a service may have beside endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Affinity,
    Weighted,
}

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) services: u16,
    pub(crate) endpoints: u32,
    pub(crate) protocol: Protocol,
}

/// What all objects of a load share.
#[derive(Debug)]
pub(crate) struct Names {
    clusters: [Arc<str>; 2],
    nodes: Vec<Arc<str>>,
    zones: Vec<Arc<str>>,
    port: Arc<str>,
}

impl Default for Names {
    fn default() -> Self {
        let numbered = |what: &str, n: u32| (0..n).map(|i| Arc::from(format!("{what}-{i}"))).collect();
        Self {
            clusters: ["a".into(), "b".into()],
            nodes: numbered("node", 100),
            zones: numbered("zone", 3),
            port: "main".into(),
        }
    }
}

impl Load {
    /// All objects, and that these are all.
    pub(crate) fn events(&self, family: Family) -> Vec<Event> {
        let names = Names::default();
        let mut events = Vec::with_capacity(3 * usize::from(self.services) + 1);
        for service in 0..self.services {
            events.push(apply(Object::Import(self.import(&names, service, family, Kind::Plain))));
            events.extend(self.slices(&names, service, family).map(|slice| apply(Object::Slice(slice))));
        }
        events.push(Event::Synced);
        events
    }

    /// A service's import.
    pub(crate) fn import(&self, names: &Names, service: u16, family: Family, kind: Kind) -> Import {
        let weights = || BTreeMap::from([(Arc::clone(&names.clusters[0]), 90), (Arc::clone(&names.clusters[1]), 10)]);
        Import {
            key: ObjectKey::new(NAMESPACE, format!("svc-{service}")),
            created: Some(1_700_000_000),
            vips: vec![clusterset_ip(family, service + 1)],
            ports: vec![ImportPort { name: Arc::clone(&names.port), protocol: self.protocol, port: 80 }],
            affinity_secs: (kind == Kind::Affinity).then_some(10_800),
            local_only: false,
            distribution: Distribution::Anywhere,
            cluster_weights: (kind == Kind::Weighted).then(weights),
            sctp: Vec::new(),
        }
    }

    /// A service's two slices.
    pub(crate) fn slices(&self, names: &Names, service: u16, family: Family) -> impl Iterator<Item = Slice> {
        let half = self.endpoints.div_ceil(2);
        [(0, 0..half), (1, half..self.endpoints)].into_iter().map(move |(cluster, numbers)| {
            let cluster = &names.clusters[cluster];
            Slice {
                key: ObjectKey::new(NAMESPACE, format!("svc-{service}-{cluster}")),
                import: format!("svc-{service}").into(),
                cluster: Arc::clone(cluster),
                ports: vec![SlicePort {
                    name: Arc::clone(&names.port),
                    protocol: self.protocol,
                    port: PortBe::new(8080),
                }],
                endpoints: numbers.map(|number| self.endpoint(names, service, family, number)).collect(),
                names: SliceNames::default(),
            }
        })
    }

    fn endpoint(&self, names: &Names, service: u16, family: Family, number: u32) -> Endpoint {
        let pick = |from: &[Arc<str>]| from.get(number as usize % from.len().max(1)).map(Arc::clone);
        Endpoint {
            addr: Addr::from(self.address(service, family, number)),
            ready: true,
            serving: true,
            terminating: false,
            node: pick(&names.nodes),
            zone: pick(&names.zones),
        }
    }

    fn address(&self, service: u16, family: Family, number: u32) -> IpAddr {
        load_address(family, u32::from(service) * self.endpoints + number)
    }

    /// The objects of some of the services as a `kind: List` in JSON, written by hand because a tree of a million
    /// endpoints would not fit beside what is measured.
    pub(crate) fn json(&self, services: std::ops::Range<u16>, family: Family) -> String {
        let mut text = r#"{"apiVersion":"v1","kind":"List","items":["#.to_owned();
        let protocol = self.protocol;
        let mut comma = "";
        for service in services {
            let vip = clusterset_ip(family, service + 1);
            // Writing to a string cannot fail.
            let _ok = write!(
                text,
                r#"{comma}{{"apiVersion":"multicluster.x-k8s.io/v1beta1","kind":"ServiceImport","metadata":{{"namespace":"{NAMESPACE}","name":"svc-{service}","creationTimestamp":"2026-01-01T00:00:00Z"}},"spec":{{"type":"ClusterSetIP","ips":["{vip}"],"ports":[{{"name":"main","protocol":"{protocol}","port":80}}]}}}}"#
            );
            comma = ",";
            let half = self.endpoints.div_ceil(2);
            for (cluster, numbers) in [("a", 0..half), ("b", half..self.endpoints)] {
                let _ok = write!(
                    text,
                    r#",{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{{"namespace":"{NAMESPACE}","name":"svc-{service}-{cluster}","labels":{{"multicluster.kubernetes.io/service-name":"svc-{service}","multicluster.kubernetes.io/source-cluster":"{cluster}"}}}},"addressType":"{}","ports":[{{"name":"main","protocol":"{protocol}","port":8080}}],"endpoints":["#,
                    family.as_str()
                );
                for (position, number) in numbers.enumerate() {
                    let address = self.address(service, family, number);
                    let (comma, node, zone) = (if position == 0 { "" } else { "," }, number % 100, number % 3);
                    let _ok = write!(
                        text,
                        r#"{comma}{{"addresses":["{address}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"nodeName":"node-{node}","zone":"zone-{zone}"}}"#
                    );
                }
                text += "]}";
            }
        }
        text += "]}";
        text
    }
}

/// An event that brings an object.
pub(crate) fn apply(object: Object) -> Event {
    Event::Apply(object)
}
