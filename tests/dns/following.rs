//! Names follow the objects.

use mcs_tests::client::Kind;
use mcs_tests::dns::missing;
use mcs_tests::privilege;

use crate::objects::{SHOP, slice};
use crate::world::{Source, World};

/// KEP-3335: replicas move one by one, each keeps its ordinal, and its name changes only in the cluster's id.
#[test]
fn a_stateful_set_moves_to_another_cluster() {
    if let Some(why) = missing() {
        return privilege::skip("a_stateful_set_moves_to_another_cluster", &why);
    }
    let world = World::start(SHOP, Source::Kube).unwrap();
    world.apply("{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {namespace: shop, name: app}, spec: {type: Headless, ports: []}}").unwrap();
    let pods = |cluster: &str, net: u8, ordinals: &[u8]| {
        let list: Vec<String> =
            ordinals.iter().map(|n| format!("{{addresses: [10.{net}.9.{}], hostname: app-{n}}}", n + 1)).collect();
        world.apply(&slice("app", cluster, "0", &list.join(", "))).unwrap();
    };
    let steps: [(&[u8], &[u8]); 8] = [
        (&[0, 1, 2], &[]),
        (&[0, 1], &[]),
        (&[0, 1], &[2]),
        (&[0], &[2]),
        (&[0], &[1, 2]),
        (&[], &[1, 2]),
        (&[], &[0, 1, 2]),
        (&[], &[0, 1]),
    ];
    for (of_a, of_b) in steps {
        pods("a", 10, of_a);
        pods("b", 20, of_b);
        let count = of_a.len() + of_b.len();
        for server in world.both() {
            server
                .wait("the bare name has all replicas", "app.shop.svc", "A", |answer| answer.count() == count)
                .unwrap();
            for (cluster, ordinals) in [("a", of_a), ("b", of_b)] {
                for n in 0..3u8 {
                    let name = format!("app-{n}.{cluster}.app.shop.svc");
                    let wanted = if ordinals.contains(&n) { "NOERROR" } else { "NXDOMAIN" };
                    server.wait("a replica's name", &name, "A", |answer| answer.status == wanted).unwrap();
                }
            }
            let records = server.dig("_sql._tcp.app.shop.svc", "SRV", &[]).unwrap();
            assert_eq!(records.count(), count, "{}", server.name());
        }
    }
}

#[test]
fn services_come_and_go() {
    if let Some(why) = missing() {
        return privilege::skip("services_come_and_go", &why);
    }
    let world = World::start(SHOP, Source::Dir).unwrap();
    for server in world.both() {
        server.wait("not there", "late.shop.svc", "A", |answer| answer.status == "NXDOMAIN").unwrap();
    }
    let late = |ip: &str| {
        format!(
            "{{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {{namespace: shop, name: late}}, \
             spec: {{type: ClusterSetIP, ips: [{ip}], ports: [{{name: http, protocol: TCP, port: 80}}]}}}}"
        )
    };
    for ip in ["10.97.0.77", "10.97.0.78"] {
        world.apply(&late(ip)).unwrap();
        for server in world.both() {
            server
                .wait("there", "late.shop.svc", "A", |answer| {
                    answer.answer == [format!("late.shop.svc.clusterset.local. 5 in a {ip}")]
                })
                .unwrap();
        }
    }
    world.delete(Kind::IMPORT, "late").unwrap();
    for server in world.both() {
        server.wait("gone", "late.shop.svc", "A", |answer| answer.status == "NXDOMAIN").unwrap();
    }
}
