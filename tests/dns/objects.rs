//! Objects as YAML: one of each kind that names tell apart.

use std::fmt::Write as _;

/// A service by ClusterSetIP in both families, one with ports of equal number, an unnamed and an SCTP port, without ports,
/// without addresses yet; headless ones: a StatefulSet over two clusters in both families, plain pods, without ready
/// endpoints, without ports, and an IPv6 address that ends with colons.
pub(crate) const SHOP: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: bare}}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {namespace: shop, name: cart}
spec:
  type: ClusterSetIP
  ips: [10.97.0.1, "fd00:97::1"]
  ports: [{name: http, protocol: TCP, port: 80}, {name: metrics, protocol: TCP, port: 9090}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  namespace: shop
  name: cart-east
  labels: {multicluster.kubernetes.io/service-name: cart, multicluster.kubernetes.io/source-cluster: east}
addressType: IPv4
ports: [{name: http, protocol: TCP, port: 8080}]
endpoints: [{addresses: [10.10.0.1]}, {addresses: [10.10.0.2], conditions: {ready: false}}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {namespace: shop, name: resolver}
spec:
  type: ClusterSetIP
  ips: [10.97.0.2]
  ports: [{name: dns, protocol: UDP, port: 53}, {name: dns-tcp, protocol: TCP, port: 53}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {namespace: shop, name: unnamed}
spec: {type: ClusterSetIP, ips: ["fd00:97::3"], ports: [{protocol: TCP, port: 7}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {namespace: shop, name: telecom}
spec: {type: ClusterSetIP, ips: [10.97.0.4], ports: [{name: m3ua, protocol: SCTP, port: 2905}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {namespace: shop, name: portless}
spec: {type: ClusterSetIP, ips: [10.97.0.5], ports: []}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {namespace: shop, name: pending}
spec: {type: ClusterSetIP, ports: [{name: http, protocol: TCP, port: 80}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {namespace: shop, name: db}
spec: {type: Headless, ports: [{name: sql, protocol: TCP, port: 3306}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  namespace: shop
  name: db-east
  labels: {multicluster.kubernetes.io/service-name: db, multicluster.kubernetes.io/source-cluster: east}
addressType: IPv4
ports: [{name: sql, protocol: TCP, port: 5432}, {name: admin, protocol: TCP, port: 8432}]
endpoints:
- {addresses: [10.10.1.1], hostname: db-0}
- {addresses: [10.10.1.2], hostname: db-1}
- {addresses: [10.10.1.3], hostname: db-2, conditions: {ready: false}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  namespace: shop
  name: db-east-v6
  labels: {multicluster.kubernetes.io/service-name: db, multicluster.kubernetes.io/source-cluster: east}
addressType: IPv6
ports: [{name: sql, protocol: TCP, port: 5432}]
endpoints: [{addresses: ["fd00:10:1::1"], hostname: db-0}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  namespace: shop
  name: db-west
  labels: {multicluster.kubernetes.io/service-name: db, multicluster.kubernetes.io/source-cluster: west}
addressType: IPv4
ports: [{name: sql, protocol: TCP, port: 5432}]
endpoints: [{addresses: [10.20.1.1], hostname: db-0}, {addresses: [10.20.1.2]}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {namespace: shop, name: empty}
spec: {type: Headless, ports: []}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {namespace: shop, name: raw}
spec: {type: Headless, ports: []}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  namespace: shop
  name: raw-east
  labels: {multicluster.kubernetes.io/service-name: raw, multicluster.kubernetes.io/source-cluster: east}
addressType: IPv6
endpoints: [{addresses: ["2001:db8::"]}, {addresses: ["2001:db8::a:1"]}]
"#;

/// A headless service with as many endpoints as one wants, in slices of a thousand.
pub(crate) fn many(service: &str, endpoints: u32) -> String {
    let mut text = format!(
        "{{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {{namespace: shop, name: {service}}}, \
         spec: {{type: Headless, ports: []}}}}\n"
    );
    for first in (0..endpoints).step_by(1000) {
        let list: Vec<String> = (first..endpoints.min(first + 1000))
            .map(|n| format!("{{addresses: [10.30.{}.{}]}}", n >> 8, n & 255))
            .collect();
        write!(text, "---\n{}", slice(service, "east", &first.to_string(), &list.join(", "))).unwrap();
    }
    text
}

/// A slice of IPv4 endpoints, written in YAML's flow style.
pub(crate) fn slice(service: &str, cluster: &str, part: &str, endpoints: &str) -> String {
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{namespace: shop, name: {service}-{cluster}-{part}, \
         labels: {{multicluster.kubernetes.io/service-name: {service}, multicluster.kubernetes.io/source-cluster: {cluster}}}}}, \
         addressType: IPv4, ports: [{{name: sql, protocol: TCP, port: 5432}}], endpoints: [{endpoints}]}}\n"
    )
}
