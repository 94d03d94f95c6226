//! Kubernetes objects as an agent's `--source dir:` reads them: ServiceImports and EndpointSlices, built field by field and
//! written as one `kind: List` in JSON per file, under another name first, so that a rename is the change.
//!
//! Objects are plain JSON, not typed, because tests also want what is not valid: [`ServiceImport::field`] and
//! [`EndpointSlice::field`] set anything.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::Pod;
use crate::addresses::Family;
use crate::identity::Protocol;

/// The namespace of all objects, unless told otherwise.
pub const NAMESPACE: &str = "default";

/// A ServiceImport of type ClusterSetIP.
#[derive(Clone, Debug)]
pub struct ServiceImport(Value);

impl ServiceImport {
    /// Without addresses and ports, of version v1beta1.
    pub fn new(name: &str) -> Self {
        Self(json!({
            "apiVersion": "multicluster.x-k8s.io/v1beta1",
            "kind": "ServiceImport",
            "metadata": { "namespace": NAMESPACE, "name": name },
            "spec": { "type": "ClusterSetIP", "ips": [], "ports": [] },
        }))
    }

    /// In the version before.
    #[must_use]
    pub fn v1alpha1(self) -> Self {
        self.field("/apiVersion", "multicluster.x-k8s.io/v1alpha1")
    }

    /// Adds a ClusterSetIP.
    #[must_use]
    pub fn ip(mut self, address: IpAddr) -> Self {
        push(&mut self.0, "/spec/ips", json!(address.to_string()));
        self
    }

    /// Adds a port. An empty name is left out.
    #[must_use]
    pub fn port(mut self, name: &str, protocol: Protocol, port: u16) -> Self {
        push(&mut self.0, "/spec/ports", port_of(name, protocol, port));
        self
    }

    /// `sessionAffinity: ClientIP`.
    #[must_use]
    pub fn client_ip_affinity(self, timeout_seconds: u32) -> Self {
        self.field("/spec/sessionAffinity", "ClientIP")
            .field("/spec/sessionAffinityConfig", json!({ "clientIP": { "timeoutSeconds": timeout_seconds } }))
    }

    /// `internalTrafficPolicy: Local`.
    #[must_use]
    pub fn local_only(self) -> Self {
        self.field("/spec/internalTrafficPolicy", "Local")
    }

    /// `trafficDistribution`.
    #[must_use]
    pub fn distribution(self, value: &str) -> Self {
        self.field("/spec/trafficDistribution", value)
    }

    /// An annotation; its key may contain slashes.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["annotations"][key] = json!(value);
        self
    }

    /// Sets anything, by JSON pointer, in objects that are there or on the way.
    #[must_use]
    pub fn field(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        set(&mut self.0, pointer, value.into());
        self
    }
}

/// An EndpointSlice that one source cluster publishes for a ServiceImport.
#[derive(Clone, Debug)]
pub struct EndpointSlice(Value);

impl EndpointSlice {
    /// An empty one. Its name is made of the service, the cluster and the family; a second one of the same takes
    /// [`name`](Self::name).
    pub fn new(service: &str, cluster: &str, family: Family) -> Self {
        let name = format!("{service}-{cluster}-{}", family.as_str().to_lowercase());
        Self(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": NAMESPACE,
                "name": name,
                "labels": {
                    "multicluster.kubernetes.io/service-name": service,
                    "multicluster.kubernetes.io/source-cluster": cluster,
                },
            },
            "addressType": family.as_str(),
            "ports": [],
            "endpoints": [],
        }))
    }

    /// Another name.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.field("/metadata/name", name)
    }

    /// Adds a port that the endpoints listen on. An empty name is left out.
    #[must_use]
    pub fn port(mut self, name: &str, protocol: Protocol, port: u16) -> Self {
        push(&mut self.0, "/ports", port_of(name, protocol, port));
        self
    }

    /// Adds an endpoint.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        push(&mut self.0, "/endpoints", endpoint.0);
        self
    }

    /// Adds endpoints.
    #[must_use]
    pub fn endpoints(self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        endpoints.into_iter().fold(self, Self::endpoint)
    }

    /// Sets anything, by JSON pointer, in objects that are there or on the way.
    #[must_use]
    pub fn field(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        set(&mut self.0, pointer, value.into());
        self
    }
}

/// One endpoint of a slice: ready, unless told otherwise.
#[derive(Clone, Debug)]
pub struct Endpoint(Value);

impl Endpoint {
    /// At an address, ready.
    pub fn new(address: IpAddr) -> Self {
        Self(json!({ "addresses": [address.to_string()], "conditions": { "ready": true } }))
    }

    /// A pod of the fleet, on its node, with its name as its hostname.
    pub fn pod(pod: &Pod, family: Family) -> Self {
        Self::new(pod.ip(family)).node(pod.node_name()).hostname(pod.name())
    }

    /// `nodeName`.
    #[must_use]
    pub fn node(self, name: &str) -> Self {
        self.field("/nodeName", name)
    }

    /// `zone`.
    #[must_use]
    pub fn zone(self, zone: &str) -> Self {
        self.field("/zone", zone)
    }

    /// `hostname`.
    #[must_use]
    pub fn hostname(self, hostname: &str) -> Self {
        self.field("/hostname", hostname)
    }

    /// Neither ready nor serving.
    #[must_use]
    pub fn not_ready(self) -> Self {
        self.field("/conditions", json!({ "ready": false, "serving": false }))
    }

    /// Terminating; it still serves or it does not.
    #[must_use]
    pub fn terminating(self, serving: bool) -> Self {
        self.field("/conditions", json!({ "ready": false, "serving": serving, "terminating": true }))
    }

    /// Sets anything, by JSON pointer.
    #[must_use]
    pub fn field(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        set(&mut self.0, pointer, value.into());
        self
    }
}

impl From<ServiceImport> for Value {
    fn from(ServiceImport(value): ServiceImport) -> Self {
        value
    }
}

impl From<EndpointSlice> for Value {
    fn from(EndpointSlice(value): EndpointSlice) -> Self {
        value
    }
}

/// A service with one TCP and one UDP port, `tcp` and `udp`, of both families: the import and one slice for each of the
/// pods' clusters and families.
pub fn service<'a>(
    name: &str,
    vips: impl IntoIterator<Item = IpAddr>,
    port: u16,
    target: u16,
    pods: impl IntoIterator<Item = &'a Pod>,
) -> Vec<Value> {
    let mut import = ServiceImport::new(name);
    let mut objects = Vec::new();
    let pods: Vec<&Pod> = pods.into_iter().collect();
    let mut clusters: Vec<&str> = pods.iter().map(|pod| pod.cluster()).collect();
    clusters.sort_unstable();
    clusters.dedup();
    for vip in vips {
        import = import.ip(vip);
        let family = Family::of(vip);
        for cluster in &clusters {
            let of_cluster = pods.iter().filter(|pod| pod.cluster() == *cluster);
            let slice = EndpointSlice::new(name, cluster, family)
                .port("tcp", Protocol::Tcp, target)
                .port("udp", Protocol::Udp, target)
                .endpoints(of_cluster.map(|pod| Endpoint::pod(pod, family)));
            objects.push(slice.into());
        }
    }
    objects.push(import.port("tcp", Protocol::Tcp, port).port("udp", Protocol::Udp, port).into());
    objects
}

/// Many services for load: number `n` has the ClusterSetIP `n + 1`, TCP port 80, and as many endpoints as asked, evenly from
/// clusters `a` and `b`, in slices of at most 100 as Kubernetes makes them. Endpoints are addresses that nobody has.
pub fn many(family: Family, services: u16, endpoints: u32) -> Vec<Value> {
    const SLICE: u32 = 100;
    let mut objects = Vec::new();
    for service in 0..services {
        let name = format!("svc-{service}");
        let vip = crate::addresses::clusterset_ip(family, service + 1);
        objects.push(ServiceImport::new(&name).ip(vip).port("http", Protocol::Tcp, 80).into());
        for (cluster, from, to) in [("a", 0, endpoints.div_ceil(2)), ("b", endpoints.div_ceil(2), endpoints)] {
            for start in (from..to).step_by(SLICE as usize) {
                let numbers = (start..to.min(start + SLICE)).map(|number| u32::from(service) * endpoints + number);
                let slice = EndpointSlice::new(&name, cluster, family)
                    .name(&format!("{name}-{cluster}-{start}"))
                    .port("http", Protocol::Tcp, 8080)
                    .endpoints(numbers.map(|number| Endpoint::new(load_address(family, number))));
                objects.push(slice.into());
            }
        }
    }
    objects
}

/// The `number`th address of 16 million that no pod of a fleet has.
pub fn load_address(family: Family, number: u32) -> IpAddr {
    let [_, high, middle, low] = number.to_be_bytes();
    match family {
        Family::V4 => [11, high, middle, low].into(),
        Family::V6 => [0xfd00, 0x11, 0, 0, 0, 0, u16::from(high), u16::from_be_bytes([middle, low])].into(),
    }
}

/// Writes objects to `<dir>/<name>.json` in one change: nobody sees half a file.
pub fn write(dir: &Path, name: &str, objects: &[Value]) -> Result<PathBuf> {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    write_text(dir, &format!("{name}.json"), &list.to_string())
}

/// Writes any text to a file in one change: for what is not valid.
pub fn write_text(dir: &Path, file: &str, text: &str) -> Result<PathBuf> {
    ensure!(!file.contains('/'), "write manifest {file}: the name of a file, not a path");
    let (path, unfinished) = (dir.join(file), dir.join(format!(".{file}.unfinished")));
    fs::write(&unfinished, text).with_context(|| format!("write {}", unfinished.display()))?;
    fs::rename(&unfinished, &path).with_context(|| format!("rename {} to {file}", unfinished.display()))?;
    Ok(path)
}

fn port_of(name: &str, protocol: Protocol, port: u16) -> Value {
    let mut value = json!({ "protocol": protocol.as_str(), "port": port });
    if !name.is_empty() {
        value["name"] = json!(name);
    }
    value
}

fn push(object: &mut Value, pointer: &str, value: Value) {
    // Not a list any more: a test made it something else with `field`, and gets what it asked for.
    if let Some(list) = object.pointer_mut(pointer).and_then(Value::as_array_mut) {
        list.push(value);
    }
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut place = object;
    for key in pointer.split('/').skip(1) {
        place = match key.parse::<usize>() {
            Ok(index) if place.is_array() => &mut place[index],
            Ok(_) | Err(_) => &mut place[key],
        };
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_has_the_fields_that_it_was_given() {
        let import = ServiceImport::new("web")
            .ip([10, 97, 0, 1].into())
            .port("http", Protocol::Tcp, 80)
            .client_ip_affinity(60)
            .annotation("example.org/x", "y")
            .field("/spec/ports/0/appProtocol", "http");
        let Value::Object(import) = Value::from(import.v1alpha1()) else { panic!("an object") };
        assert_eq!(import["apiVersion"], "multicluster.x-k8s.io/v1alpha1");
        assert_eq!(import["metadata"]["annotations"]["example.org/x"], "y");
        let spec = json!({
            "type": "ClusterSetIP",
            "ips": ["10.97.0.1"],
            "ports": [{ "name": "http", "protocol": "TCP", "port": 80, "appProtocol": "http" }],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 60 } },
        });
        assert_eq!(import["spec"], spec);
    }

    #[test]
    fn many_services_have_all_their_endpoints_in_slices_of_at_most_100() {
        let objects = many(Family::V4, 3, 250);
        let slices = objects.iter().filter_map(|object| object["endpoints"].as_array());
        let sizes: Vec<usize> = slices.map(Vec::len).collect();
        assert_eq!(sizes, [100, 25, 100, 25].repeat(3));
        let mut addresses: Vec<_> = (0..750).map(|number| load_address(Family::V6, number)).collect();
        addresses.dedup();
        assert_eq!(addresses.len(), 750);
    }

    #[test]
    fn a_file_appears_whole_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "web", &[ServiceImport::new("web").into()]).unwrap();
        let list: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(list["kind"], "List");
        assert_eq!(list["items"][0]["kind"], "ServiceImport");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
