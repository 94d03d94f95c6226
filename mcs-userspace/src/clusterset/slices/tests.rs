use std::collections::HashSet;
use std::net::IpAddr;

use super::*;
use crate::clusterset::merge::{Constituent, merge};
use crate::clusterset::service::ChangedAt;
use crate::clusterset::service::Transport::{self, Sctp, Tcp};
use crate::manifest::field;

fn port(name: &str, protocol: Transport, port: u16) -> Port {
    Port { name: name.to_owned(), protocol, port, app_protocol: None }
}

fn slice_port(name: &str, protocol: Transport, port: u16) -> SlicePort {
    SlicePort { name: name.to_owned(), protocol, port, app_protocol: None }
}

fn exported(created: i64, ports: &[Port]) -> Exported {
    Exported { created, ports: ports.to_vec(), ..Exported::default() }
}

fn endpoint(address: &str, ready: bool) -> Endpoint {
    Endpoint {
        address: address.parse::<IpAddr>().unwrap(),
        ready,
        serving: true,
        terminating: !ready,
        hostname: Some("db-0".to_owned()),
        node_name: Some("n1".to_owned()),
        zone: Some("z1".to_owned()),
    }
}

fn slice(ports: &[SlicePort], endpoints: &[Endpoint]) -> Endpoints {
    Endpoints {
        family: Family::IPv4,
        ports: ports.to_vec(),
        endpoints: endpoints.to_vec(),
        changed_at: ChangedAt::default(),
    }
}

fn merged(exports: &[&Exported]) -> Merged {
    let constituents: Vec<_> =
        ["a", "b", "c"].iter().zip(exports).map(|(cluster, exported)| Constituent { cluster, exported }).collect();
    merge(&constituents).unwrap()
}

const ALIVE: &dyn Fn(Option<&Port>) -> bool = &|_| false;

#[test]
fn ports_take_the_imports_names_and_keep_the_pods_numbers() {
    let a = exported(1, &[port("http", Tcp, 80), port("s", Sctp, 9)]);
    let b = exported(2, &[port("web", Tcp, 80), port("s", Sctp, 9)]);
    let content = slice(
        &[
            SlicePort { app_protocol: Some("http".to_owned()), ..slice_port("web", Tcp, 8080) },
            slice_port("s", Sctp, 9),
        ],
        &[endpoint("10.0.0.1", true), endpoint("10.0.0.2", false)],
    );
    let (ports, endpoints) = imported(&merged(&[&a, &b]), &b, &content, ALIVE).unwrap();
    let http = SlicePort { app_protocol: Some("http".to_owned()), ..slice_port("http", Tcp, 8080) };
    assert_eq!(ports, [http, slice_port("s", Sctp, 9)]);
    assert_eq!(endpoints, content.endpoints, "ready, serving, terminating, hostname, node and zone as at the source");
}

#[test]
fn a_port_that_is_not_the_imports_is_left_out_and_a_slice_of_only_those_too() {
    let a = exported(1, &[port("tcp", Tcp, 42)]);
    let b = exported(2, &[port("tcp", Tcp, 4242), port("more", Tcp, 1)]);
    let merged = merged(&[&a, &b]);
    let both = slice(&[slice_port("tcp", Tcp, 42), slice_port("more", Tcp, 1)], &[endpoint("10.0.0.1", true)]);
    assert_eq!(imported(&merged, &b, &both, ALIVE).unwrap().0, [slice_port("more", Tcp, 1)]);
    let only = slice(&[slice_port("tcp", Tcp, 42)], &[endpoint("10.0.0.1", true)]);
    assert_eq!(imported(&merged, &b, &only, ALIVE), None);
    let other_protocol = slice(&[slice_port("more", Sctp, 1)], &[endpoint("10.0.0.1", true)]);
    assert_eq!(imported(&merged, &b, &other_protocol, ALIVE), None);
}

#[test]
fn a_service_without_ports_keeps_its_endpoints() {
    let headless = exported(1, &[]);
    let content = slice(&[], &[endpoint("10.0.0.1", true)]);
    let merged_alone = merged(&[&headless]);
    assert_eq!(imported(&merged_alone, &headless, &content, ALIVE), Some((Vec::new(), content.endpoints.clone())));
    // the Service lost its ports, its slice lags behind
    let lagging = slice(&[slice_port("a", Tcp, 1)], &content.endpoints);
    assert_eq!(imported(&merged_alone, &headless, &lagging, ALIVE), Some((Vec::new(), content.endpoints.clone())));
    // the other cluster's Service has ports
    let with_ports = exported(0, &[port("a", Tcp, 1)]);
    let merged = merged(&[&with_ports, &headless]);
    assert_eq!(imported(&merged, &headless, &content, ALIVE), Some((Vec::new(), content.endpoints.clone())));
}

#[test]
fn a_dead_members_slice_loses_what_others_serve() {
    let a = exported(1, &[port("http", Tcp, 80)]);
    let b = exported(2, &[port("http", Tcp, 80), port("admin", Tcp, 81)]);
    let merged = merged(&[&a, &b]);
    let content =
        slice(&[slice_port("http", Tcp, 8080), slice_port("admin", Tcp, 8081)], &[endpoint("10.0.0.1", true)]);
    let others = slice(&[slice_port("http", Tcp, 80)], &[endpoint("10.1.0.1", true)]);
    let served = serves(&merged, &a, [&others]);
    let (ports, _) = imported(&merged, &b, &content, &|port| served.contains(&(content.family, port))).unwrap();
    assert_eq!(ports, [slice_port("admin", Tcp, 8081)]);
    assert_eq!(imported(&merged, &b, &content, &|_| true), None);
    let portless = slice(&[], &content.endpoints);
    assert_eq!(imported(&merged, &b, &portless, &|port| served.contains(&(portless.family, port))), None);
}

#[test]
fn who_has_no_ready_endpoint_serves_nothing() {
    let a = exported(1, &[port("http", Tcp, 80), port("idle", Tcp, 81)]);
    let merged = merged(&[&a]);
    let ready = slice(&[slice_port("http", Tcp, 80)], &[endpoint("10.0.0.1", false), endpoint("10.0.0.2", true)]);
    let unready = slice(&[slice_port("idle", Tcp, 81)], &[endpoint("10.0.0.1", false)]);
    let six = Endpoints { family: Family::IPv6, ..slice(&[slice_port("idle", Tcp, 81)], &[endpoint("fd00::1", true)]) };
    let served = serves(&merged, &a, [&ready, &unready, &six]);
    let (http, idle) = (&merged.ports[0], &merged.ports[1]);
    let expected = [(Family::IPv4, None), (Family::IPv4, Some(http)), (Family::IPv6, None), (Family::IPv6, Some(idle))];
    assert_eq!(served.into_iter().collect::<Vec<_>>(), expected);
    assert!(serves(&merged, &a, []).is_empty());
}

#[test]
fn names_are_valid_stable_and_never_those_of_another() {
    assert_eq!(imported_name("cart", "east", "cart-abc12"), "cart.east.fb61663343e6c5f1");
    let long = "x".repeat(63);
    field::dns_name(&imported_name(&long, &long, &"y".repeat(253))).unwrap();
    let key = ObjectKey::new(long.clone(), long);
    field::dns_name(&slice_record_name(&key, "any")).unwrap();
    assert!(slice_record_name(&ObjectKey::new("shop", "cart"), "any").starts_with("shop.cart."));

    let parts = ["a", "a-b", "b", "b-c", "c"];
    let mut names = HashSet::new();
    for service in parts {
        for cluster in parts {
            for source in ["s1", "s2", "a.b", "a-b", ""] {
                assert!(names.insert(imported_name(service, cluster, source)), "{service} {cluster} {source}");
            }
        }
    }
}
