//! Garbage: whatever is in a record, nothing panics, what passes passes again without a problem, and one bad part costs
//! only itself.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{LIMITS, cidrs, endpoint, slice_spec};
use super::*;
use crate::api::{ClientIPConfig, SessionAffinityConfig};
use crate::clusterset::service::{ChangedAt, Endpoint, Family, Port, SlicePort, Transport};

/// Texts that are almost right, and some that are not.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "a",
            "shop",
            "cart",
            "http",
            "A",
            "a.b",
            "a/b",
            "a b",
            "-",
            "ClientIP",
            "None",
            "Local",
            "10.96.0.1",
            "10.0.0.0/8",
            "fd96::1",
            "127.0.0.1",
            "\u{0}",
            "ä",
            "PreferClose",
        ])
        .prop_map(str::to_owned),
        ".{0,80}",
        "[a-z./-]{60,70}",
    ]
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        prop::sample::select(vec!["127.0.0.1", "10.96.0.1", "10.0.0.1", "fd00::1", "fd96::1", "::", "::ffff:1.2.3.4"])
            .prop_map(|text| text.parse().unwrap()),
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

fn any_transport() -> impl Strategy<Value = Transport> {
    prop::sample::select(vec![Transport::Tcp, Transport::Udp, Transport::Sctp])
}

fn any_exported() -> impl Strategy<Value = Exported> {
    let port = (any_text(), any_transport(), 0_u16..4, prop::option::of(any_text()))
        .prop_map(|(name, protocol, port, app_protocol)| Port { name, protocol, port, app_protocol });
    let families = prop::collection::vec(prop::sample::select(Family::ALL.to_vec()), 0..4);
    let optional = || prop::option::of(any_text());
    let map = || prop::collection::btree_map(any_text(), any_text(), 0..4);
    let seconds = prop::option::of(any::<i32>());
    let texts = (optional(), optional(), optional());
    (any::<i64>(), prop::collection::vec(port, 0..7), families, texts, seconds, map(), map()).prop_map(
        |(created, ports, ip_families, texts, timeout_seconds, labels, annotations)| Exported {
            created,
            ports,
            ip_families,
            session_affinity: texts.0,
            internal_traffic_policy: texts.1,
            traffic_distribution: texts.2,
            session_affinity_config: Some(SessionAffinityConfig {
                client_ip: Some(ClientIPConfig { timeout_seconds }),
            }),
            labels,
            annotations,
            ..Exported::default()
        },
    )
}

fn any_slice() -> impl Strategy<Value = Endpoints> {
    let port = (any_text(), any_transport(), 0_u16..4, prop::option::of(any_text()))
        .prop_map(|(name, protocol, port, app_protocol)| SlicePort { name, protocol, port, app_protocol });
    let optional = || prop::option::of(any_text());
    let endpoint = (any_address(), any::<[bool; 3]>(), optional(), optional(), optional()).prop_map(
        |(address, [ready, serving, terminating], hostname, node_name, zone)| Endpoint {
            address,
            ready,
            serving,
            terminating,
            hostname,
            node_name,
            zone,
        },
    );
    let family = prop::sample::select(Family::ALL.to_vec());
    (family, prop::collection::vec(port, 0..7), prop::collection::vec(endpoint, 0..8))
        .prop_map(|(family, ports, endpoints)| Endpoints { family, ports, endpoints, changed_at: ChangedAt::default() })
}

fn any_namespace() -> impl Strategy<Value = String> {
    prop_oneof![8 => Just("mcs-east".to_owned()), 1 => any_text().prop_map(|text| format!("mcs-{text}")), 1 => any_text()]
}

/// A record's name, and the service that it says.
fn any_identity() -> impl Strategy<Value = (String, String, String)> {
    prop_oneof![
        8 => Just(("shop.cart".to_owned(), "shop".to_owned(), "cart".to_owned())),
        1 => (any_text(), any_text()).prop_map(|(namespace, name)| (format!("{namespace}.{name}"), namespace, name)),
        1 => (any_text(), any_text(), any_text()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_export_becomes_one_that_has_no_problem(
        namespace in any_namespace(),
        (record_name, service_namespace, service) in any_identity(),
        exported in any_exported(),
        ips in prop::collection::vec(any_text(), 0..4),
        version in prop_oneof![8 => Just(VERSION), 2 => any::<u32>()],
    ) {
        let spec = ExportRecordSpec {
            version, namespace: service_namespace, name: service, exported, ips, ..ExportRecordSpec::default()
        };
        let checked = export_record(&LIMITS, &cidrs(), &namespace, &record_name, &spec);
        if let Ok(Checked { value, problems }) = checked {
            prop_assert_eq!(&member_namespace(&value.cluster), &namespace);
            prop_assert_eq!(export_name(&value.service), record_name.clone());
            let unchanged = value.exported == spec.exported && value.ips.len() == spec.ips.len();
            prop_assert_eq!(problems.is_empty(), unchanged);
            let again = ExportRecordSpec {
                exported: value.exported.clone(),
                ips: value.ips.iter().map(ToString::to_string).collect(),
                ..spec
            };
            let again = export_record(&LIMITS, &cidrs(), &namespace, &record_name, &again);
            prop_assert_eq!(again, Ok(Checked { value, problems: Vec::new() }));
        }
    }

    #[test]
    fn any_slice_becomes_one_that_has_no_problem(
        slice in any_slice(),
        pod_cidrs in prop::collection::vec(any_text(), 0..3),
    ) {
        let member = MemberSpec { pod_cidrs, ..MemberSpec::default() };
        let spec = SliceRecordSpec { slice, ..slice_spec(Vec::new()) };
        let check = |spec: &SliceRecordSpec| {
            slice_record(&LIMITS, &member, &cidrs(), "mcs-east", "shop.cart.1", spec).unwrap()
        };
        let Checked { value, problems } = check(&spec);
        prop_assert_eq!(problems.is_empty(), value.slice == spec.slice);
        for endpoint in &value.slice.endpoints {
            prop_assert!(spec.slice.endpoints.iter().any(|source| source.address == endpoint.address));
            prop_assert!(Family::of(endpoint.address) == spec.slice.family && !endpoint.address.is_loopback());
        }
        let again = check(&SliceRecordSpec { slice: value.slice.clone(), ..spec });
        prop_assert_eq!(again, Checked { value, problems: Vec::new() });
    }

    #[test]
    fn any_reservation_is_read_or_refused(name in any_text(), texts in (any_text(), any_text(), any_text())) {
        let (address, service, holder) = texts;
        let spec = ReservationSpec { address, service, holder, other: BTreeMap::new() };
        if let Ok(good) = reservation(&name, &spec) {
            prop_assert_eq!(reservation_name(good.address), name);
        }
    }

    #[test]
    fn a_bad_endpoint_costs_only_itself(slice in any_slice(), bad in any_address(), at in any::<prop::sample::Index>()) {
        let limits = Limits::default();
        let check = |slice: &Endpoints| {
            let spec = SliceRecordSpec { slice: slice.clone(), ..slice_spec(Vec::new()) };
            let member = MemberSpec::default();
            slice_record(&limits, &member, &cidrs(), "mcs-east", "shop.cart.1", &spec).unwrap().value.slice
        };
        let without = check(&slice);
        let mut slice = slice;
        let bad = Endpoint { address: bad, ..endpoint("10.0.0.1") };
        slice.endpoints.insert(at.index(slice.endpoints.len() + 1), bad.clone());
        let mut with = check(&slice);
        if with.endpoints.len() > without.endpoints.len() {
            let index = with.endpoints.iter().position(|endpoint| *endpoint == bad).unwrap();
            with.endpoints.remove(index);
        }
        prop_assert_eq!(with, without);
    }
}
