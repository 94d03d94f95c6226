use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::*;
use crate::api::ServiceImportType;
use crate::clusterset::local::{self, Condition, Import, ImportedSlice, Service, Truth};
use crate::clusterset::record::{STATEMENT, Statement};
use crate::clusterset::service::{ChangedAt, Endpoint, Endpoints, Exported, Family, Port, SlicePort, Transport};

fn object(mut value: Value) -> DynamicObject {
    let metadata = value["metadata"].as_object_mut().expect("objects have metadata");
    for (name, default) in [("namespace", "shop"), ("name", "cart"), ("uid", "u1"), ("resourceVersion", "7")] {
        metadata.entry(name).or_insert_with(|| json!(default));
    }
    metadata.entry("creationTimestamp").or_insert_with(|| json!("2023-11-14T22:13:20Z"));
    serde_json::from_value(value).unwrap()
}

fn read_one(kind: Kind, value: Value) -> Object {
    read(kind, object(value)).expect("it is ours to look at")
}

fn unreadable(kind: Kind, value: Value) -> String {
    let object = read_one(kind, value);
    let Object::Unreadable { reason } = object else { panic!("{object:?} was read") };
    reason
}

fn meta() -> Meta {
    Meta { uid: "u1".to_owned(), resource_version: 7, created: 1_700_000_000 }
}

#[test]
fn services_are_read_in_the_words_of_their_export() {
    let read = read_one(
        Kind::Services,
        json!({"metadata": {"labels": {"not": "exported"}}, "spec": {
            "type": "NodePort", "clusterIP": "10.0.0.1",
            "ports": [
                {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080, "appProtocol": "h2c"},
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "sig", "port": 99, "protocol": "SCTP"}
            ],
            "ipFamilies": ["IPv6", "IPv4"],
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
            "internalTrafficPolicy": "Local", "trafficDistribution": "PreferClose"
        }}),
    );
    let Object::Service(Service::Exportable(exported)) = read else { panic!("{read:?}") };
    let port = |name: &str, protocol, port, app_protocol: Option<&str>| Port {
        name: name.to_owned(),
        protocol,
        port,
        app_protocol: app_protocol.map(str::to_owned),
    };
    let config = exported.session_affinity_config.clone().unwrap();
    assert_eq!(config.client_ip.unwrap().timeout_seconds, Some(10));
    assert_eq!(
        Exported { session_affinity_config: None, ..exported },
        Exported {
            kind: ServiceImportType::ClusterSetIP,
            ports: vec![
                port("http", Transport::Tcp, 80, Some("h2c")),
                port("dns", Transport::Udp, 53, None),
                port("sig", Transport::Sctp, 99, None),
            ],
            ip_families: vec![Family::IPv6, Family::IPv4],
            session_affinity: Some("ClientIP".to_owned()),
            internal_traffic_policy: Some("Local".to_owned()),
            traffic_distribution: Some("PreferClose".to_owned()),
            ..Exported::default()
        }
    );
}

#[test]
fn headless_and_external_services_are_told_apart() {
    let read = read_one(Kind::Services, json!({"metadata": {}, "spec": {"clusterIP": "None", "ports": null}}));
    let Object::Service(Service::Exportable(exported)) = read else { panic!("{read:?}") };
    assert_eq!((exported.kind, exported.ports.len()), (ServiceImportType::Headless, 0));
    let external = json!({"metadata": {}, "spec": {"type": "ExternalName", "externalName": "example.org"}});
    let kind = "ExternalName".to_owned();
    assert_eq!(read_one(Kind::Services, external), Object::Service(Service::Unexportable { kind }));
}

#[test]
fn exports_are_read_with_their_conditions_and_without_their_metadata() {
    let condition = json!({
        "type": "Valid", "status": "True", "reason": "Valid", "message": "", "lastTransitionTime": "2023-11-14T22:13:20Z"
    });
    let read = read_one(
        Kind::Exports,
        json!({
            "metadata": {"generation": 3, "labels": {"not": "exported"}},
            "spec": {"exportedLabels": {"team": "a"}, "exportedAnnotations": null},
            "status": {"conditions": [condition, {"type": "broken"}, 5]}
        }),
    );
    let Object::Export(export) = read else { panic!("{read:?}") };
    assert_eq!((export.meta, export.generation), (meta(), 3));
    assert_eq!(export.labels.into_iter().collect::<Vec<_>>(), [("team".to_owned(), "a".to_owned())]);
    assert!(export.annotations.is_empty());
    assert_eq!(export.conditions.len(), 1, "what cannot be read is ours to write again");
    assert_eq!(export.conditions[0].status, Truth::True);

    let bare = read_one(Kind::Exports, json!({"metadata": {}}));
    assert!(matches!(bare, Object::Export(_)), "spec and status are optional: {bare:?}");
}

fn slice() -> ImportedSlice {
    ImportedSlice {
        meta: meta(),
        import: "cart".to_owned(),
        cluster: "west".to_owned(),
        family: Family::IPv6,
        ports: vec![
            SlicePort { name: "http".to_owned(), port: 8080, ..SlicePort::default() },
            SlicePort { port: 53, protocol: Transport::Udp, app_protocol: Some("dns".to_owned()), name: String::new() },
        ],
        endpoints: vec![
            Endpoint {
                address: "fd00::1".parse().unwrap(),
                ready: true,
                serving: true,
                terminating: false,
                hostname: Some("cart-0".to_owned()),
                node_name: Some("n1".to_owned()),
                zone: Some("z".to_owned()),
            },
            Endpoint {
                address: "fd00::2".parse().unwrap(),
                ready: false,
                serving: true,
                terminating: true,
                hostname: None,
                node_name: None,
                zone: None,
            },
        ],
        changed_at: ChangedAt(Some(1_700_000_000_123)),
        stale: true,
    }
}

fn as_written(mut body: Value) -> Value {
    for (name, value) in [("uid", "u1"), ("resourceVersion", "7"), ("creationTimestamp", "2023-11-14T22:13:20Z")] {
        body["metadata"][name] = json!(value);
    }
    body
}

#[test]
fn imported_slices_come_back_as_they_were_written() {
    for stale in [true, false] {
        let slice = ImportedSlice { stale, ..slice() };
        let body = slice_body(&ObjectKey::new("shop", "s1"), &slice);
        assert_eq!(body["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], "mcs-controller");
        assert_eq!(body["metadata"]["ownerReferences"], Value::Null);
        assert_eq!(body["metadata"]["annotations"]["mcs.internal/changed-at"], "2023-11-14T22:13:20.123Z");
        let read = read_one(Kind::ImportedSlices, as_written(body));
        let Object::ImportedSlice(back) = &read else { panic!("{read:?}") };
        // All times are equal: this one must be the same.
        assert_eq!(back.changed_at.0, slice.changed_at.0);
        assert_eq!(read, Object::ImportedSlice(slice));
    }
}

#[test]
fn a_slice_of_ours_without_labels_is_seen_to_differ() {
    let mut body = as_written(slice_body(&ObjectKey::new("shop", "s1"), &slice()));
    body["metadata"]["labels"] = json!({});
    let read = read_one(Kind::ImportedSlices, body);
    let wanted = ImportedSlice { import: String::new(), cluster: String::new(), ..slice() };
    assert_eq!(read, Object::ImportedSlice(wanted));
}

#[test]
fn slices_of_services_keep_what_consumers_read() {
    let read = read_one(
        Kind::SourceSlices,
        json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "cart"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}, {"name": "all"}],
            "endpoints": [
                {"addresses": ["10.0.0.1", "10.0.0.2"]},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.4"], "conditions": {"ready": null, "serving": false, "terminating": true}},
                {"addresses": []}
            ]
        }),
    );
    let Object::SourceSlice(local::SourceSlice { service, endpoints }) = read else { panic!("{read:?}") };
    let Endpoints { family, ports, endpoints, changed_at: _ } = endpoints;
    assert_eq!((&*service, family, ports.len()), ("cart", Family::IPv4, 1));
    let states: Vec<_> = endpoints.iter().map(|e| (e.address.to_string(), e.ready, e.serving, e.terminating)).collect();
    let state = |address: &str, ready, serving, terminating| (address.to_owned(), ready, serving, terminating);
    assert_eq!(
        states,
        [
            state("10.0.0.1", true, true, false),
            state("10.0.0.3", false, false, false),
            state("10.0.0.4", true, false, true)
        ]
    );
}

#[test]
fn slices_that_are_not_a_services_are_none_of_our_business() {
    let labelled = |labels: Value, address_type: &str| {
        let body =
            json!({"metadata": {"labels": labels}, "addressType": address_type, "endpoints": null, "ports": null});
        read(Kind::SourceSlices, object(body))
    };
    assert_eq!(labelled(json!({}), "IPv4"), None);
    assert_eq!(labelled(json!({"kubernetes.io/service-name": "x"}), "FQDN"), None);
    let derived = json!({"kubernetes.io/service-name": "x", "multicluster.kubernetes.io/service-name": "x"});
    assert_eq!(labelled(derived, "IPv4"), None);
    assert!(matches!(labelled(json!({"kubernetes.io/service-name": "x"}), "IPv4"), Some(Object::SourceSlice(_))));
}

fn condition(kind: &str, status: Truth) -> Condition {
    Condition { kind: kind.to_owned(), status, reason: "Reason".to_owned(), message: "why".to_owned() }
}

#[test]
fn imports_come_back_as_they_were_written() {
    let import = Import {
        meta: meta(),
        labels: [("team".to_owned(), "a".to_owned())].into(),
        annotations: [("note".to_owned(), "b".to_owned())].into(),
        spec: serde_json::from_value(json!({
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}], "ips": ["10.97.0.1"], "ipFamilies": ["IPv4"],
            "type": "ClusterSetIP", "sessionAffinity": "None"
        }))
        .unwrap(),
        clusters: vec!["east".to_owned(), "west".to_owned()],
        conditions: vec![condition("Ready", Truth::True)],
        slices_present: true,
    };
    let mut body = as_written(import_body(&ObjectKey::new("shop", "cart"), &import));
    assert_eq!(body["status"], Value::Null);
    body["status"] = json!({
        "clusters": [{"cluster": "west"}, {"cluster": "east"}, {"other": 1}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "Reason", "message": "why",
                        "lastTransitionTime": "2023-11-14T22:13:20Z"}],
        "endpointSliceObjects": "Present",
    });
    assert_eq!(read_one(Kind::Imports, body.clone()), Object::Import(import.clone()));
    body["status"] = json!({"clusters": "garbage", "conditions": {"a": 1}, "endpointSliceObjects": 5});
    let bare = Import { clusters: Vec::new(), conditions: Vec::new(), slices_present: false, ..import };
    assert_eq!(read_one(Kind::Imports, body), Object::Import(bare), "the status is ours to write again");
}

#[test]
fn a_transition_has_the_time_of_the_change_of_status() {
    let old = "2023-11-14T22:13:20Z";
    let body = json!({"status": {"conditions": [
        {"type": "Valid", "status": "True", "reason": "Old", "message": "", "lastTransitionTime": old},
        {"type": "Ready", "status": "False", "reason": "Old", "message": "", "lastTransitionTime": old},
        {"type": "Theirs", "status": "False", "reason": "Own", "message": "m", "lastTransitionTime": old},
        {"type": "Held", "status": "True", "reason": "Over", "message": "", "lastTransitionTime": old},
    ]}});
    let wanted =
        [condition("Valid", Truth::True), condition("Ready", Truth::True), condition("Conflict", Truth::False)];
    let now: Timestamp = "2024-01-01T00:00:00Z".parse().unwrap();
    let transition =
        Transition { object: &body, wanted: &wanted, ours: Some(&["Valid", "Held"]), generation: Some(4), now };
    let written = serde_json::to_value(conditions_with_times(&transition)).unwrap();
    let times: Vec<_> = written
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            (c["type"].as_str().unwrap(), c["lastTransitionTime"].as_str().unwrap(), c["observedGeneration"].as_i64())
        })
        .collect();
    let new = "2024-01-01T00:00:00Z";
    let expected =
        [("Valid", old, Some(4)), ("Ready", new, Some(4)), ("Conflict", new, Some(4)), ("Theirs", old, None)];
    assert_eq!(times, expected);
    assert_eq!(written[0]["reason"], "Reason");
    assert_eq!(conditions_with_times(&Transition { ours: None, ..transition }).len(), 3, "all are ours");
}

#[test]
fn leases_tell_of_life_and_only_those_of_members() {
    let statement = json!({"version": 1, "reserved": true}).to_string();
    let lease = |namespace: &str, annotation: Option<&str>| {
        let annotations = annotation.map(|text| json!({ STATEMENT: text }));
        read(Kind::Leases, object(json!({"metadata": {"namespace": namespace, "annotations": annotations}})))
    };
    let said = Statement { version: 1, reserved: true, ..Statement::default() };
    assert_eq!(lease("mcs-east", Some(&statement)), Some(Object::Lease(meta(), said)));
    assert_eq!(lease("mcs-east", None), Some(Object::Lease(meta(), Statement::default())));
    assert_eq!(lease("kube-node-lease", None), None);
    let garbage = lease("mcs-east", Some("{"));
    assert!(matches!(&garbage, Some(Object::Unreadable { reason }) if reason.contains(STATEMENT)), "{garbage:?}");
}

#[test]
fn records_are_read_with_what_we_do_not_know() {
    let spec = json!({
        "version": 1, "namespace": "shop", "name": "cart", "tier": "gold",
        "exported": {"created": 5, "type": "Headless"}
    });
    let read = read_one(Kind::ExportRecords, json!({"metadata": {}, "spec": spec}));
    let Object::ExportRecord(read_meta, record) = read else { panic!("{read:?}") };
    assert_eq!((read_meta, record.other["tier"].as_str()), (meta(), Some("gold")));
}

#[test]
fn what_cannot_be_read_says_which_field_and_why() {
    let port = |port: Value| json!({"metadata": {}, "spec": {"ports": [{"port": 1}, {"port": port}]}});
    assert_eq!(unreadable(Kind::Services, port(json!(70_000))), "spec.ports[1].port: 70000 is not in 1..=65535");
    assert_eq!(unreadable(Kind::Services, port(json!(0))), "spec.ports[1].port: 0 is not in 1..=65535");
    assert!(unreadable(Kind::Services, port(json!("http"))).starts_with("spec: "));
    let ospf = json!({"metadata": {}, "spec": {"ports": [{"port": 1, "protocol": "OSPF"}]}});
    assert!(unreadable(Kind::Services, ospf).starts_with("spec.ports[0].protocol: \"OSPF\""));

    let slice = |endpoint: Value| {
        json!({"metadata": {"labels": {"kubernetes.io/service-name": "x"}}, "addressType": "IPv4",
               "endpoints": [endpoint]})
    };
    let reason = unreadable(Kind::SourceSlices, slice(json!({"addresses": ["fd00::1"]})));
    assert_eq!(reason, "endpoints[0].addresses[0]: fd00::1 is no IPv4 address");
    let reason = unreadable(Kind::SourceSlices, slice(json!({"addresses": ["10.0.0.1 "]})));
    assert_eq!(reason, "endpoints[0].addresses[0]: \"10.0.0.1 \" is no IP address");
    assert!(unreadable(Kind::SourceSlices, slice(json!(5))).starts_with("endpoints: "));

    assert_eq!(unreadable(Kind::Properties, json!({"metadata": {}})), "spec.value: is not a string");
    assert_eq!(unreadable(Kind::Members, json!({"metadata": {}})), "spec: is missing");
    let exported = json!({"created": "yesterday", "type": "Headless"});
    let record = json!({"version": 1, "namespace": "a", "name": "b", "exported": exported});
    assert!(unreadable(Kind::ExportRecords, json!({"metadata": {}, "spec": record})).starts_with("spec: "));
    let reason = unreadable(Kind::Members, json!({"metadata": {"resourceVersion": "x1"}, "spec": {"clusterUid": "u"}}));
    assert_eq!(reason, "metadata.resourceVersion: \"x1\" is no number");
}

#[test]
fn no_kind_of_object_is_fatal() {
    let bodies = [
        json!({"metadata": {}}),
        json!({"metadata": {}, "spec": null, "status": null}),
        json!({"metadata": {}, "spec": [], "status": 7}),
        json!({"metadata": {}, "spec": "text", "addressType": 9, "endpoints": {"a": 1}, "ports": "80"}),
        json!({"metadata": {"labels": {"kubernetes.io/service-name": ""}}, "addressType": "IPv7"}),
        json!({"metadata": {}, "spec": {"ports": [null], "exportedLabels": [1], "value": {}, "slice": 1}}),
    ];
    for kind in Kind::LOCAL.into_iter().chain(Kind::BROKER) {
        for body in &bodies {
            // Whatever it is read as: it is one object, and there was no panic.
            let _read = read(kind, object(body.clone()));
        }
    }
    assert!(matches!(read(Kind::Services, object(bodies[2].clone())), Some(Object::Unreadable { .. })));
}

#[test]
fn patches_name_the_version_and_set_whole_fields() {
    let body = json!({"metadata": {"labels": {"a/b": "c"}}, "spec": {"x": 1}, "status": {"y": 2}});
    let fields = patch::fields_of(body, &["/metadata/labels", "/spec", "/missing"]);
    let operations = patch::at_version(9, fields);
    assert_eq!(
        operations,
        [
            json!({"op": "add", "path": "/metadata/resourceVersion", "value": "9"}),
            json!({"op": "add", "path": "/metadata/labels", "value": {"a/b": "c"}}),
            json!({"op": "add", "path": "/spec", "value": {"x": 1}}),
        ]
    );
}
