//! What is refused, and what is left out.

use std::collections::BTreeMap;

use super::*;
use crate::api::{ClientIPConfig, ServiceImportType, SessionAffinityConfig};
use crate::clusterset::service::{ChangedAt, Endpoint, Family, Port, SlicePort, Transport};

pub(super) const LIMITS: Limits =
    Limits { ports: 4, endpoints: 5, labels: 2, annotation_bytes: 20, exports: 9, slices: 9 };

pub(super) fn cidrs() -> Vec<IpNet> {
    vec!["10.96.0.0/16".parse().unwrap(), "fd96::/112".parse().unwrap()]
}

fn port(name: &str, port: u16) -> Port {
    Port { name: name.to_owned(), port, ..Port::default() }
}

fn export_spec() -> ExportRecordSpec {
    ExportRecordSpec {
        version: VERSION,
        namespace: "shop".to_owned(),
        name: "cart".to_owned(),
        exported: Exported { created: 5, ports: vec![port("http", 80)], ..Exported::default() },
        ips: vec!["10.96.0.9".to_owned(), "fd96::9".to_owned()],
        ..ExportRecordSpec::default()
    }
}

pub(super) fn endpoint(address: &str) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        hostname: Some("db-0".to_owned()),
        node_name: Some("n1.example".to_owned()),
        zone: Some("z1".to_owned()),
    }
}

pub(super) fn slice_spec(endpoints: Vec<Endpoint>) -> SliceRecordSpec {
    let ports = vec![SlicePort { name: "http".to_owned(), port: 8080, ..SlicePort::default() }];
    SliceRecordSpec {
        version: VERSION,
        namespace: "shop".to_owned(),
        name: "cart".to_owned(),
        slice: Endpoints { family: Family::IPv4, ports, endpoints, changed_at: ChangedAt::default() },
        other: BTreeMap::new(),
    }
}

fn export(record: &ExportRecordSpec) -> Checked<ExportOf> {
    export_record(&LIMITS, &cidrs(), "mcs-east", "shop.cart", record).unwrap()
}

fn slice(member: &MemberSpec, record: &SliceRecordSpec) -> Checked<SliceOf> {
    slice_record(&LIMITS, member, &cidrs(), "mcs-east", "shop.cart.1", record).unwrap()
}

fn told(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn good_records_pass_unchanged() {
    let spec = export_spec();
    let Checked { value, problems } = export(&spec);
    assert_eq!(problems, []);
    assert_eq!((value.cluster.as_str(), value.withdrawn), ("east", false));
    assert_eq!(value.service, ObjectKey::new("shop", "cart"));
    assert_eq!(value.exported, spec.exported);
    assert_eq!(value.ips, ["10.96.0.9".parse::<IpAddr>().unwrap(), "fd96::9".parse().unwrap()]);

    let spec = slice_spec(vec![endpoint("10.0.0.1")]);
    let Checked { value, problems } = slice(&MemberSpec::default(), &spec);
    assert_eq!(problems, []);
    assert_eq!((value.cluster.as_str(), &value.service), ("east", &ObjectKey::new("shop", "cart")));
    assert_eq!(value.slice, spec.slice);
}

#[test]
fn a_record_of_nobody_or_of_another_service_is_refused() {
    let refused = |namespace: &str, name: &str| {
        let of_export = export_record(&LIMITS, &cidrs(), namespace, name, &export_spec()).unwrap_err();
        let name = format!("{name}.1");
        let of_slice = slice_record(&LIMITS, &MemberSpec::default(), &cidrs(), namespace, &name, &slice_spec(vec![]));
        assert_eq!(of_export.field, of_slice.unwrap_err().field);
        of_export.to_string()
    };
    assert_eq!(
        refused("clusterset-broker", "shop.cart"),
        "ExportRecord clusterset-broker/shop.cart: metadata.namespace: \"clusterset-broker\" is no member's namespace: \
         those begin with mcs-"
    );
    for namespace in ["", "mcs-", "mcs-a.b", "mcs-A", &member_namespace(&"x".repeat(MAX_CLUSTER_ID + 1))] {
        assert!(refused(namespace, "shop.cart").contains("metadata.namespace"), "{namespace}");
    }
    assert!(
        export_record(&LIMITS, &cidrs(), &member_namespace(&"x".repeat(MAX_CLUSTER_ID)), "shop.cart", &export_spec())
            .is_ok()
    );
    assert_eq!(
        refused("mcs-east", "shop.card"),
        "ExportRecord mcs-east/shop.card: metadata.name: is not named after its service, shop/cart"
    );
    for name in ["", "shop", "cart.shop", "shop.cart2"] {
        assert!(refused("mcs-east", name).contains("metadata.name"), "{name}");
    }
    for name in ["shop.cart", "shop.cart.", "shop.cart-1"] {
        let refused = slice_record(&LIMITS, &MemberSpec::default(), &cidrs(), "mcs-east", name, &slice_spec(vec![]));
        assert_eq!(refused.unwrap_err().field, "metadata.name", "{name}");
    }
}

#[test]
fn a_service_that_cannot_be_is_refused() {
    for (namespace, name) in [("", "cart"), ("shop", ""), ("Shop", "cart"), ("shop", "a.b"), ("shop", "a/b")] {
        let spec = ExportRecordSpec { namespace: namespace.to_owned(), name: name.to_owned(), ..export_spec() };
        let refused = export_record(&LIMITS, &cidrs(), "mcs-east", &format!("{namespace}.{name}"), &spec);
        assert_eq!(refused.unwrap_err().field, "spec", "{namespace}/{name}");
    }
}

#[test]
fn versions_other_than_this_and_the_one_before_are_refused_and_said() {
    let of = |version| {
        let spec = ExportRecordSpec { version, ..export_spec() };
        export_record(&LIMITS, &cidrs(), "mcs-east", "shop.cart", &spec).map_err(|problem| problem.reason)
    };
    for version in OLDEST_VERSION..=VERSION {
        assert!(of(version).is_ok());
    }
    assert!(OLDEST_VERSION == VERSION.saturating_sub(1).max(1));
    let newer = of(VERSION + 1).unwrap_err();
    assert_eq!(newer, format!("version {} is newer than this build reads, {OLDEST_VERSION} to {VERSION}", VERSION + 1));
    assert!(of(u32::MAX).unwrap_err().contains("newer"));
    assert!(of(0).unwrap_err().contains("older"));
}

#[test]
fn a_bad_part_of_an_export_costs_only_itself() {
    let text = |text: &str| Some(text.to_owned());
    let exported = Exported {
        ports: vec![
            Port { app_protocol: text("a b"), ..port("http", 80) },
            port("http", 81),
            port("https", 80),
            port("Bad", 82),
            port("five", 83),
        ],
        ip_families: vec![Family::IPv4, Family::IPv4],
        session_affinity: text("Sometimes"),
        session_affinity_config: Some(SessionAffinityConfig {
            client_ip: Some(ClientIPConfig { timeout_seconds: Some(86401) }),
        }),
        internal_traffic_policy: text("Nowhere"),
        traffic_distribution: text("!"),
        kind: ServiceImportType::Headless,
        ..export_spec().exported
    };
    let spec = ExportRecordSpec { exported, ips: Vec::new(), ..export_spec() };
    let limits = Limits { ports: 4, ..Limits::default() };
    let Checked { value, problems } = export_record(&limits, &cidrs(), "mcs-east", "shop.cart", &spec).unwrap();
    assert_eq!(
        value.exported,
        Exported {
            created: 5,
            kind: ServiceImportType::Headless,
            ports: vec![port("http", 80)],
            ip_families: vec![Family::IPv4],
            session_affinity_config: Some(SessionAffinityConfig {
                client_ip: Some(ClientIPConfig { timeout_seconds: None })
            }),
            ..Exported::default()
        }
    );
    let at = "ExportRecord mcs-east/shop.cart: ";
    let told = told(&problems);
    assert_eq!(told.len(), 9, "{told:#?}");
    assert_eq!(told[0], format!("{at}spec.exported.ports: 5 are more than 4: the rest is left out"));
    assert!(told[1].starts_with(&format!("{at}spec.exported.ports[0].appProtocol: \"a b\" is not")));
    assert_eq!(told[2], format!("{at}spec.exported.ports[1].name: a second port named \"http\""));
    assert_eq!(told[3], format!("{at}spec.exported.ports[2].port: 80/TCP is listed twice"));
    assert!(told[4].starts_with(&format!("{at}spec.exported.ports[3]: \"Bad\" is no DNS label")));
    assert_eq!(told[5], format!("{at}spec.exported.ipFamilies: IPv4 is listed twice"));
    assert_eq!(told[6], format!("{at}spec.exported.sessionAffinity: \"Sometimes\" is none of None, ClientIP"));
    assert!(told[7].ends_with("timeoutSeconds: 86401 is not in 1..=86400"));
    assert_eq!(told[8], format!("{at}2 more problems"));
}

#[test]
fn labels_and_annotations_are_those_that_an_object_may_have() {
    let long = "x".repeat(64);
    let set = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let of = |labels: &[(&str, &str)], annotations: &[(&str, &str)]| {
        let exported = Exported { labels: set(labels), annotations: set(annotations), ..Exported::default() };
        let Checked { value, problems } = super::exported(&LIMITS, "ServiceExport shop/cart", &exported);
        let fields: Vec<String> = problems.into_iter().map(|problem| problem.field).collect();
        (value, fields)
    };
    for good in [("a", ""), ("a.b/c_d", "E-f.g"), (&long[1..], &long[1..])] {
        assert_eq!(of(&[good], &[]), (Exported { labels: set(&[good]), ..Exported::default() }, vec![]));
    }
    for bad in
        [("", "a"), ("a/b/c", "a"), ("/a", "a"), ("a/", "a"), ("A/b", "a"), ("a", "-"), ("a", &long), (&long, "a")]
    {
        let (value, fields) = of(&[bad], &[]);
        assert_eq!((value.labels.len(), fields.len()), (0, 1), "{bad:?}");
        assert!(fields[0].starts_with("spec.exportedLabels["), "{fields:?}");
    }
    let (value, fields) = of(&[("a", "1"), ("b", "2"), ("c", "3")], &[]);
    assert_eq!(value.labels, set(&[("a", "1"), ("b", "2")]));
    assert_eq!(fields, ["spec.exportedLabels[\"c\"]"]);

    let (value, fields) = of(&[], &[("A.b/c", "any \n text"), ("b c", "1"), ("c", "too long for it"), ("d", "fits")]);
    assert_eq!(value.annotations, set(&[("A.b/c", "any \n text"), ("d", "fits")]));
    assert_eq!(fields, ["spec.exportedAnnotations[\"b c\"]", "spec.exportedAnnotations[\"c\"]"]);
}

#[test]
fn addresses_of_imports_are_of_the_clusterset() {
    let of = |ips: &[&str]| {
        let ips = ips.iter().map(|&ip| ip.to_owned()).collect();
        let Checked { value, problems } = export(&ExportRecordSpec { ips, ..export_spec() });
        (value.ips.len(), told(&problems))
    };
    assert_eq!(of(&[]), (0, vec![]));
    let (count, told) = of(&["10.97.0.1", "nonsense"]);
    assert_eq!(count, 0);
    assert!(told[0].ends_with("spec.ips[0]: 10.97.0.1 is in no CIDR of the ClusterSet"), "{told:?}");
    assert!(told[1].ends_with("spec.ips[1]: \"nonsense\" is no IP address"), "{told:?}");
    let (count, told) = of(&["10.96.0.1", "10.96.0.2", "fd96::1"]);
    assert_eq!((count, told.len()), (1, 2), "{told:?}");
}

#[test]
fn tombstones_keep_their_word_whatever_else_they_say() {
    let exported = Exported { ports: vec![port("", 0)], ..Exported::default() };
    let Checked { value, problems } = export(&ExportRecordSpec { withdrawn: true, exported, ..export_spec() });
    assert!(value.withdrawn);
    assert_eq!(problems.len(), 1);
}

#[test]
fn addresses_that_no_pod_has_are_left_out_and_the_others_stay() {
    let bad =
        ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "255.255.255.255", "10.96.1.1", "fd00::1", "::1"];
    for bad in bad {
        let Checked { value, problems } =
            slice(&MemberSpec::default(), &slice_spec(vec![endpoint(bad), endpoint("10.0.0.1")]));
        assert_eq!(value.slice.endpoints, [endpoint("10.0.0.1")], "{bad}");
        assert_eq!(problems.len(), 1, "{bad}");
        assert_eq!(problems[0].field, "spec.slice.endpoints[0].address");
    }
    for bad in ["::1", "fe80::1", "ff02::1", "::", "::ffff:10.0.0.1", "fd96::1", "10.0.0.1"] {
        let mut spec = slice_spec(vec![endpoint(bad), endpoint("fd00::1")]);
        spec.slice.family = Family::IPv6;
        assert_eq!(slice(&MemberSpec::default(), &spec).value.slice.endpoints, [endpoint("fd00::1")], "{bad}");
    }
}

#[test]
fn where_a_members_pods_are_said_to_be_its_endpoints_are() {
    let of = |pod_cidrs: &[&str], address: &str| {
        let pod_cidrs = pod_cidrs.iter().map(|&cidr| cidr.to_owned()).collect();
        let checked = slice(&MemberSpec { pod_cidrs, ..MemberSpec::default() }, &slice_spec(vec![endpoint(address)]));
        checked.value.slice.endpoints.len()
    };
    assert_eq!(of(&[], "10.0.0.1"), 1);
    assert_eq!(of(&["10.0.0.0/24", "fd00::/64"], "10.0.0.1"), 1);
    assert_eq!(of(&["10.0.0.0/24"], "10.0.1.1"), 0);
    assert_eq!(of(&["nonsense", "10.0.0.0/24"], "10.0.0.1"), 1);
    assert_eq!(of(&["nonsense"], "10.0.0.1"), 0, "what was meant cannot be read: nothing is allowed");
    assert_eq!(of(&["0.0.0.0/0"], "10.96.0.1"), 0, "never a ClusterSetIP");
}

#[test]
fn a_bad_part_of_an_endpoint_or_port_costs_only_itself() {
    let bad = Endpoint {
        hostname: Some("Db".to_owned()),
        node_name: Some("n/1".to_owned()),
        zone: Some(String::new()),
        ..endpoint("10.0.0.1")
    };
    let mut spec = slice_spec(vec![bad; 6]);
    let of = |name: &str, port| SlicePort { name: name.to_owned(), port, ..SlicePort::default() };
    let sctp = SlicePort { protocol: Transport::Sctp, ..of("s", 80) };
    spec.slice.ports = vec![of("a", 80), of("a", 81), sctp.clone(), of("b", 0)];
    let Checked { value, problems } = slice(&MemberSpec::default(), &spec);
    assert_eq!(value.slice.ports, [of("a", 80), sctp]);
    let good = Endpoint { hostname: None, node_name: None, zone: None, ..endpoint("10.0.0.1") };
    assert_eq!(value.slice.endpoints, vec![good; 5]);
    let told = told(&problems);
    assert_eq!(told.len(), 9, "{told:#?}");
    assert!(told[1].contains("spec.slice.ports[3]: 0 is not in 1..=65535"), "{told:#?}");
    assert!(told[2].contains("spec.slice.endpoints: 6 are more than 5: the rest is left out"), "{told:#?}");
    assert!(told[8].ends_with("10 more problems"), "{told:#?}");
}

#[test]
fn a_reservation_is_good_or_none() {
    let of = |name: &str, address: &str, service: &str, holder: &str| {
        let spec = ReservationSpec {
            address: address.to_owned(),
            service: service.to_owned(),
            holder: holder.to_owned(),
            other: BTreeMap::new(),
        };
        reservation(name, &spec).map_err(|problem| problem.field)
    };
    let good = ReservationOf {
        address: "10.96.0.9".parse().unwrap(),
        service: ObjectKey::new("shop", "cart"),
        holder: "east".to_owned(),
    };
    assert_eq!(of("10-96-0-9", "10.96.0.9", "shop/cart", "east"), Ok(good));
    let refused = |field: &str| Err(field.to_owned());
    assert_eq!(of("10-96-0-8", "10.96.0.9", "shop/cart", "east"), refused("metadata.name"));
    assert_eq!(of("10-96-0-9", "10.96.0", "shop/cart", "east"), refused("spec.address"));
    assert_eq!(of("127-0-0-1", "127.0.0.1", "shop/cart", "east"), refused("spec.address"));
    for service in ["", "cart", "/cart", "shop/", "shop/cart/", "Shop/cart"] {
        assert_eq!(of("10-96-0-9", "10.96.0.9", service, "east"), refused("spec.service"));
    }
    assert_eq!(of("10-96-0-9", "10.96.0.9", "shop/cart", ""), refused("spec.holder"));
}

#[test]
fn what_the_admin_got_wrong_is_said() {
    let pod_cidrs = vec!["10.0.0.0/24".to_owned(), "10.0.0/24".to_owned()];
    let spec = MemberSpec { pod_cidrs, ..MemberSpec::default() };
    assert_eq!(told(&member("east", &spec)), ["Member east: spec.podCidrs[1]: \"10.0.0/24\" is no CIDR"]);
    assert_eq!(member("East", &MemberSpec::default()).len(), 1);
}

#[test]
fn one_record_too_many_is_named() {
    assert_eq!(
        too_many("SliceRecord", "mcs-east", "shop.cart.1", 9).to_string(),
        "SliceRecord mcs-east/shop.cart.1: the member has more than 9"
    );
}
