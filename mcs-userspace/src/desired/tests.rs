//! The rules of membership and choice, each as a small import.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::model::{ObjectKey, Protocol, SliceNames, SlicePort};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ctx() -> NodeContext {
    NodeContext {
        cluster: "a".into(),
        node: "n1".into(),
        zone: Some("z1".into()),
        prefer_local_cluster: false,
        cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/64".parse().unwrap()],
    }
}

fn import() -> Import {
    Import {
        key: ObjectKey::new("shop", "cart"),
        created: Some(1),
        vips: vec![ip("10.96.0.5")],
        ports: vec![ImportPort { name: "http".into(), protocol: Protocol::Tcp, port: 80 }],
        affinity_secs: None,
        local_only: false,
        distribution: Distribution::Anywhere,
        cluster_weights: None,
        sctp: Vec::new(),
    }
}

/// An endpoint as `addr flags`: flags of `r`eady, `s`erving, `t`erminating, `n1`/`z1` for the node's own node and zone.
fn endpoint(text: &str) -> Endpoint {
    let (addr, flags) = text.split_once(' ').unwrap_or((text, "rs"));
    Endpoint {
        addr: ip(addr).into(),
        ready: flags.contains('r'),
        serving: flags.contains('s'),
        terminating: flags.contains('t'),
        node: flags.contains("n1").then(|| "n1".into()),
        zone: flags.contains("z1").then(|| "z1".into()),
    }
}

fn slice(name: &str, cluster: &str, endpoints: &[&str]) -> Slice {
    Slice {
        key: ObjectKey::new("shop", name),
        import: "cart".into(),
        cluster: cluster.into(),
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: PortBe::new(8080) }],
        endpoints: endpoints.iter().map(|text| endpoint(text)).collect(),
        names: SliceNames::default(),
    }
}

fn state(import: Import, slices: Vec<Slice>) -> ImportState {
    let slices = slices.into_iter().map(|slice| (Arc::clone(&slice.key.name), slice)).collect();
    ImportState { import: Some(import), slices }
}

/// `cluster/last octet=weight` of each backend of the only service.
fn backends(ctx: &NodeContext, import: Import, slices: Vec<Slice>) -> String {
    let wanted = desired(ctx, &state(import, slices));
    assert_eq!(wanted.services.len(), 1);
    let show = |b: &Backend| format!("{}/{}={}", b.cluster, b.addr.octets()[15], b.weight);
    wanted.services[0].backends.iter().map(show).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_port_of_equal_name_protocol_and_family_serves() {
    let mut import = import();
    import.vips.push(ip("fd00:96::5"));
    import.ports.push(ImportPort { name: "dns".into(), protocol: Protocol::Udp, port: 53 });
    let mut other = slice("s2", "b", &["10.0.1.1", "fd00::1"]);
    other.ports[0].protocol = Protocol::Udp;
    other.ports.push(SlicePort { name: "dns".into(), protocol: Protocol::Udp, port: PortBe::new(5353) });
    let wanted = desired(&ctx(), &state(import, vec![slice("s1", "a", &["10.0.0.1", "10.0.0.2 "]), other]));
    assert_eq!(wanted.problems, []);
    let text: String = wanted.services.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        "\
service 10.96.0.5:53/UDP shop/cart port=dns
  source b ready=1/1
  backend 10.0.1.1:5353 cluster=b weight=1
service 10.96.0.5:80/TCP shop/cart port=http
  source a ready=1/2
  backend 10.0.0.1:8080 cluster=a weight=1
service [fd00:96::5]:53/UDP shop/cart port=dns
  source b ready=1/1
  backend [fd00::1]:5353 cluster=b weight=1
service [fd00:96::5]:80/TCP shop/cart port=http
"
    );
}

#[test]
fn addresses_in_the_wrong_cidr_are_named_and_left_out() {
    let mut import = import();
    import.vips = vec![ip("10.97.0.5"), ip("fd00:96::5")];
    let wanted = desired(&ctx(), &state(import, vec![slice("s1", "a", &["fd00:96::7", "fd00::7"])]));
    let problems: Vec<_> = wanted.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "EndpointSlice shop/s1: endpoints[0]: fd00:96::7 lies in a ClusterSet CIDR: no backend can",
            "ServiceImport shop/cart: spec.ips: 10.97.0.5 is in no ClusterSet CIDR of this agent (10.96.0.0/16, fd00:96::/64)",
        ]
    );
    assert_eq!(wanted.services.len(), 1);
    assert_eq!(wanted.services[0].backends.len(), 1);
    assert_eq!(wanted.services[0].sources[0].total, 1);
}

#[test]
fn ready_first_then_terminating_and_the_rest_drains() {
    let of = |endpoints: &[&str]| backends(&ctx(), import(), vec![slice("s1", "a", endpoints)]);
    assert_eq!(of(&["10.0.0.1 rs", "10.0.0.2 st", "10.0.0.3 t", "10.0.0.4 ", "10.0.0.5 s"]), "a/1=1 a/2=0 a/5=0");
    assert_eq!(of(&["10.0.0.2 st", "10.0.0.3 t", "10.0.0.5 s"]), "a/2=1 a/5=0");
    assert_eq!(of(&["10.0.0.3 t"]), "");
}

#[test]
fn an_endpoint_in_two_slices_is_one_and_the_ready_one() {
    let slices = vec![
        slice("s1", "a", &["10.0.0.1 st"]),
        slice("s2", "a", &["10.0.0.1 rs"]),
        slice("s3", "a", &["10.0.0.1 st"]),
    ];
    let wanted = desired(&ctx(), &state(import(), slices.clone()));
    assert_eq!((wanted.services[0].sources[0].ready, wanted.services[0].sources[0].total), (1, 1));
    assert_eq!(backends(&ctx(), import(), slices), "a/1=1");
    let overlap = vec![slice("s1", "a", &["10.0.0.1 s"]), slice("s2", "b", &["10.0.0.1 rs", "10.0.0.2"])];
    assert_eq!(desired(&ctx(), &state(import(), overlap.clone())).problems.len(), 1);
    assert_eq!(backends(&ctx(), import(), overlap), "b/1=1 b/2=1");
}

#[test]
fn local_only_is_a_filter() {
    let local = Import { local_only: true, ..import() };
    let slices = |a: &[&str], b: &[&str]| vec![slice("s1", "a", a), slice("s2", "b", b)];
    assert_eq!(
        backends(&ctx(), local.clone(), slices(&["10.0.0.1 rsn1", "10.0.0.2"], &["10.0.1.3 rsn1"])),
        "a/1=1 a/2=0 b/3=0"
    );
    assert_eq!(backends(&ctx(), local.clone(), slices(&["10.0.0.1 stn1", "10.0.0.2"], &[])), "a/1=1 a/2=0");
    assert_eq!(backends(&ctx(), local, slices(&["10.0.0.2"], &["10.0.1.3 rsn1"])), "a/2=0 b/3=0");
}

#[test]
fn the_smallest_circle_with_a_usable_endpoint_is_used() {
    let of = |distribution, prefer_local_cluster, a: &[&str], b: &[&str]| {
        let ctx = NodeContext { prefer_local_cluster, ..ctx() };
        backends(&ctx, Import { distribution, ..import() }, vec![slice("s1", "a", a), slice("s2", "b", b)])
    };
    use Distribution::{Anywhere, SameNode, SameZone};
    let (a, b) = (&["10.0.0.1 rsn1z1", "10.0.0.2 rsz1", "10.0.0.3 rs"][..], &["10.0.1.4 rsn1z1", "10.0.1.5"][..]);
    assert_eq!(of(Anywhere, false, a, b), "a/1=1 a/2=1 a/3=1 b/4=1 b/5=1");
    assert_eq!(of(Anywhere, true, a, b), "a/1=1 a/2=1 a/3=1 b/4=0 b/5=0");
    assert_eq!(of(SameZone, false, a, b), "a/1=1 a/2=1 a/3=0 b/4=1 b/5=0");
    assert_eq!(of(SameZone, true, a, b), "a/1=1 a/2=1 a/3=0 b/4=0 b/5=0");
    assert_eq!(of(SameNode, false, a, b), "a/1=1 a/2=0 a/3=0 b/4=0 b/5=0");
    // b's node of the same name is another; its zone of the same name is the same
    assert_eq!(of(SameNode, false, &a[2..], b), "a/3=0 b/4=1 b/5=0");
    assert_eq!(of(SameNode, false, &a[2..], &b[1..]), "a/3=1 b/5=1");
    assert_eq!(of(Anywhere, true, &["10.0.0.1 st"], b), "a/1=0 b/4=1 b/5=1");
}

#[test]
fn clusters_get_their_shares_as_a_whole() {
    let of = |shares: &[(&str, u32)], distribution, slices| {
        let shares: BTreeMap<Arc<str>, u32> = shares.iter().map(|(c, n)| ((*c).into(), *n)).collect();
        let ctx = NodeContext { prefer_local_cluster: true, ..ctx() };
        backends(&ctx, Import { cluster_weights: Some(shares), distribution, ..import() }, slices)
    };
    let a = || slice("s1", "a", &["10.0.0.1 rsn1z1", "10.0.0.2", "10.0.0.3 rsz1"]);
    let b = || slice("s2", "b", &["10.0.1.4"]);
    let any = Distribution::Anywhere;
    assert_eq!(of(&[("a", 90), ("b", 10)], any, vec![a(), b()]), "a/1=3 a/2=3 a/3=3 b/4=1");
    assert_eq!(of(&[("a", 90), ("b", 10)], Distribution::SameZone, vec![a(), b()]), "a/1=9 a/2=0 a/3=9 b/4=2");
    assert_eq!(of(&[("b", 10)], any, vec![a(), b()]), "a/1=0 a/2=0 a/3=0 b/4=1");
    assert_eq!(of(&[("a", 90), ("b", 10)], any, vec![slice("s1", "a", &["10.0.0.1 t"]), b()]), "b/4=1");
    // none that counts is ready: a terminating one that counts comes before a ready one that does not
    assert_eq!(of(&[("a", 1)], any, vec![slice("s1", "a", &["10.0.0.1 st"]), b()]), "a/1=1 b/4=0");
    assert_eq!(of(&[], any, vec![a(), b()]), "a/1=0 a/2=0 a/3=0 b/4=0");
}

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let endpoint = (0u8..20, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let endpoint = endpoint.prop_map(|(n, ready, serving, terminating, node, zone)| Endpoint {
        addr: ip(&format!("10.0.0.{n}")).into(),
        ready,
        serving,
        terminating,
        node: node.then(|| "n1".into()),
        zone: zone.then(|| "z1".into()),
    });
    prop::collection::vec(endpoint, 0..12)
}

proptest! {
    #[test]
    fn whatever_the_objects_say(
        slices in prop::collection::vec((0usize..3, endpoints()), 0..5),
        shares in prop::option::of(prop::collection::vec(0u32..4, 3)),
        (local_only, prefer_local_cluster, distribution) in (any::<bool>(), any::<bool>(), 0usize..3),
    ) {
        let names = ["a", "b", "c"];
        let slices: Vec<_> = slices.into_iter().enumerate()
            .map(|(i, (c, endpoints))| Slice { endpoints, ..slice(&format!("s{i}"), names[c], &[]) }).collect();
        let distribution = [Distribution::Anywhere, Distribution::SameZone, Distribution::SameNode][distribution];
        let cluster_weights = shares.map(|s| names.iter().zip(s).map(|(c, n)| ((*c).into(), n)).collect());
        let import = Import { local_only, distribution, cluster_weights, ..import() };
        let usable = slices.iter().flat_map(|s| &s.endpoints).any(|e| e.ready || e.serving && e.terminating);
        let wanted = desired(&NodeContext { prefer_local_cluster, ..ctx() }, &state(import.clone(), slices));
        prop_assert_eq!(wanted.services.len(), 1);
        let service = &wanted.services[0];
        prop_assert!(service.backends.is_sorted_by(|a, b| (&a.cluster, a.addr, a.port) < (&b.cluster, b.addr, b.port)));
        let mut addrs: Vec<_> = service.backends.iter().map(|b| (b.addr, b.port)).collect();
        addrs.sort_unstable();
        prop_assert!(addrs.is_sorted_by(|a, b| a < b), "no address twice");
        prop_assert!(service.sources.is_sorted_by(|a, b| a.cluster < b.cluster));
        prop_assert!(service.backends.iter().all(|b| service.sources.iter().any(|s| s.cluster == b.cluster)));
        let sum: u128 = service.backends.iter().map(|b| u128::from(b.weight)).sum();
        prop_assert!(u64::try_from(sum).is_ok());
        // preferences never make a service refuse
        if !import.local_only && import.cluster_weights.is_none() {
            prop_assert_eq!(sum > 0, usable);
        }
    }
}
