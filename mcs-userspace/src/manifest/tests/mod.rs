//! Manifests in, objects and problems out.

mod mutations;
mod speed;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::model::{Distribution, Import, Protocol, SctpPort, Slice};

fn read(file: &str, text: &str) -> Parsed {
    parse(file, text.as_bytes(), &mut Interner::default()).unwrap()
}

fn read_json(value: &Value) -> Parsed {
    read("a.json", &value.to_string())
}

fn import(spec: Value) -> Value {
    json!({
        "apiVersion": "multicluster.x-k8s.io/v1beta1",
        "kind": "ServiceImport",
        "metadata": {"name": "cart", "namespace": "shop", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": spec,
    })
}

fn slice(rest: Value) -> Value {
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "cart-a", "namespace": "shop", "labels": {
            "multicluster.kubernetes.io/service-name": "cart",
            "multicluster.kubernetes.io/source-cluster": "a",
        }},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": ["10.0.0.1"]}],
    });
    for (key, value) in rest.as_object().unwrap() {
        slice[key] = value.clone();
    }
    slice
}

fn good_spec() -> Value {
    json!({"type": "ClusterSetIP", "ips": ["10.96.0.1"], "ports": [{"name": "http", "port": 80}]})
}

fn with(mut value: Value, pointer: &str, new: Value) -> Value {
    *value.pointer_mut(pointer).unwrap() = new;
    value
}

fn the_import(parsed: &Parsed) -> &Import {
    match &parsed.objects[..] {
        [Object::Import(import)] => import,
        other => panic!("{other:?} {:?}", parsed.problems),
    }
}

fn the_slice(parsed: &Parsed) -> &Slice {
    match &parsed.objects[..] {
        [Object::Slice(slice)] => slice,
        other => panic!("{other:?} {:?}", parsed.problems),
    }
}

fn texts(parsed: &Parsed) -> Vec<String> {
    parsed.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn an_import_with_everything() {
    let mut value = import(json!({
        "type": "ClusterSetIP",
        "ips": ["10.96.0.1", "FD00:0::1"],
        "ports": [{"name": "http", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 80}],
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "internalTrafficPolicy": "Local",
        "trafficDistribution": "PreferSameNode",
    }));
    value["metadata"]["annotations"] = json!({api::CLUSTER_WEIGHTS: r#"{"a": 90, "b": 0}"#});
    let parsed = read_json(&value);
    assert_eq!(texts(&parsed), [""; 0]);
    let import = the_import(&parsed);
    assert_eq!(import.key.to_string(), "shop/cart");
    assert_eq!(import.created, Some(1_767_323_045));
    assert_eq!(import.vips, ["10.96.0.1".parse::<std::net::IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    assert_eq!(import.ports.len(), 2);
    assert_eq!((import.ports[1].protocol, import.ports[1].port), (Protocol::Udp, 80));
    assert_eq!(import.affinity_secs, Some(60));
    assert!(import.local_only);
    assert_eq!(import.distribution, Distribution::SameNode);
    assert_eq!(
        import.cluster_weights.as_ref().unwrap().iter().map(|(c, w)| (&**c, *w)).collect::<Vec<_>>(),
        [("a", 90), ("b", 0)]
    );
}

#[test]
fn a_slice_with_everything() {
    let parsed = read_json(&slice(json!({
        "ports": [{"name": "http", "port": 8080}, {"name": "dns", "protocol": "UDP", "port": 53}, {"name": "s", "protocol": "SCTP", "port": 1}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "nodeName": "n1", "zone": "z1"},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.4"], "conditions": {"ready": null}, "nodeName": "n1"},
        ],
    })));
    assert_eq!(texts(&parsed), [""; 0]);
    let slice = the_slice(&parsed);
    assert_eq!((&*slice.import, &*slice.cluster), ("cart", "a"));
    assert_eq!(slice.ports.len(), 2);
    let conditions: Vec<_> = slice.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
    assert_eq!(conditions, [(true, true, false), (false, true, true), (false, false, false), (true, true, false)]);
    let (first, last) = (&slice.endpoints[0], &slice.endpoints[3]);
    assert!(Arc::ptr_eq(first.node.as_ref().unwrap(), last.node.as_ref().unwrap()));
    assert_eq!(first.zone.as_deref(), Some("z1"));
}

/// What is wrong, and what is said of it. The object is kept.
#[test]
fn a_wrong_part_of_an_import_costs_itself() {
    let cases = [
        (
            "/spec/ips",
            json!(["10.96.0.1", "10.96.0.2"]),
            "spec.ips[1]: 10.96.0.2 is a second IPv4 address beside 10.96.0.1",
        ),
        ("/spec/ips", json!(["10.96.0.1", "fe80::1"]), "spec.ips[1]: fe80::1 is a link-local address"),
        ("/spec/ips", json!([7, "10.96.0.1"]), "spec.ips[0]: number 7 where a string belongs"),
        (
            "/spec/ports",
            json!([{"port": 80}, {"name": "x", "port": 70000}]),
            "spec.ports[1].port: 70000 is not in 1..=65535",
        ),
        (
            "/spec/ports",
            json!([{"port": 80}, {"name": "x", "port": "81"}]),
            "spec.ports[1].port: string \"81\" where a whole number belongs",
        ),
        (
            "/spec/ports",
            json!([{"port": 80}, {"name": "x"}]),
            "spec.ports[1].port: missing: a whole number belongs here",
        ),
        ("/spec/ports", json!([{"port": 80}, 5]), "spec.ports[1]: number 5 where an object belongs"),
        (
            "/spec/ports",
            json!([{"port": 80}, {"port": 81}]),
            "spec.ports[1].name: a second port without a name: only the first is used",
        ),
        (
            "/spec/ports",
            json!([{"name": "x", "port": 80}, {"name": "x", "port": 81}]),
            "spec.ports[1].name: a second port named x: only the first is used",
        ),
        (
            "/spec/ports",
            json!([{"name": "x", "port": 80}, {"name": "y", "port": 80}]),
            "spec.ports[1].port: 80/TCP is listed twice: only the first is used",
        ),
        (
            "/spec/ports",
            json!([{"name": "x", "port": 80}, {"name": "Y", "port": 81}]),
            "spec.ports[1].name: \"Y\" is no DNS label: only a-z, 0-9 and '-' are allowed",
        ),
        (
            "/spec/ports",
            json!([{"port": 80}, {"name": "x", "port": 81, "protocol": "tcp"}]),
            "spec.ports[1].protocol: \"tcp\" is none of TCP, UDP, SCTP",
        ),
        (
            "/spec/ports",
            json!([{"port": 80}, {"name": "x", "port": 81, "protocol": "SCTP"}]),
            "spec.ports[1]: SCTP is not programmed",
        ),
        (
            "/metadata/creationTimestamp",
            json!("yesterday"),
            "metadata.creationTimestamp: \"yesterday\" is no RFC 3339 time: the object counts as the newest",
        ),
    ];
    for (pointer, new, expected) in cases {
        let parsed = read_json(&with(import(good_spec()), pointer, new));
        assert_eq!(texts(&parsed), [format!("a.json: ServiceImport shop/cart: {expected}")]);
        let import = the_import(&parsed);
        assert_eq!((import.vips.len(), import.ports.len()), (1, 1), "{expected}");
    }
}

#[test]
fn wrong_settings_of_an_import_fall_back() {
    let config = |secs: Value| json!({"clientIP": {"timeoutSeconds": secs}});
    let cases = [
        (
            json!({"sessionAffinity": "Client"}),
            None,
            "spec.sessionAffinity: \"Client\" is neither None nor ClientIP: treated as None",
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config(json!(86401))}),
            Some(10800),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401 is not in 1..=86400: 10800 is used",
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config(json!("9"))}),
            Some(10800),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: string \"9\" where a whole number belongs",
        ),
        (
            json!({"internalTrafficPolicy": "Node"}),
            None,
            "spec.internalTrafficPolicy: \"Node\" is neither Cluster nor Local: treated as Cluster",
        ),
        (
            json!({"trafficDistribution": "PreferMoon"}),
            None,
            "spec.trafficDistribution: \"PreferMoon\" is not known here: all endpoints are alike",
        ),
    ];
    for (settings, affinity, expected) in cases {
        let mut spec = good_spec();
        for (key, value) in settings.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let parsed = read_json(&import(spec));
        assert_eq!(texts(&parsed), [format!("a.json: ServiceImport shop/cart: {expected}")]);
        let import = the_import(&parsed);
        assert_eq!(import.affinity_secs, affinity);
        assert!(!import.local_only && import.distribution == Distribution::Anywhere);
    }
    let mut spec = good_spec();
    spec["sessionAffinity"] = json!("ClientIP");
    assert_eq!(the_import(&read_json(&import(spec))).affinity_secs, Some(10800));
}

#[test]
fn malformed_weights_are_ignored_as_a_whole() {
    for (text, why) in [
        ("90", "\"90\" is no JSON object"),
        ("{\"a\":90", "is no JSON object"),
        ("[]", "is no JSON object"),
        ("{\"a\":1000001}", "the share 1000001 of a is not in 0..=1000000"),
        ("{\"a\":-1}", "the share -1 of a"),
        ("{\"a\":1,\"b\":0.5}", "the share of b is number 0.5, no whole number"),
        ("{\"a\":\"1\"}", "the share of a is string"),
        ("{\"a\":null}", "the share of a is null"),
        ("{\"\":1}", "\"\" is no cluster id"),
    ] {
        let mut value = import(good_spec());
        value["metadata"]["annotations"] = json!({api::CLUSTER_WEIGHTS: text});
        let parsed = read_json(&value);
        assert_eq!(the_import(&parsed).cluster_weights, None);
        let [problem] = &parsed.problems[..] else { panic!("{:?}", parsed.problems) };
        assert_eq!(problem.field, "metadata.annotations[mcs.internal/cluster-weights]");
        assert!(problem.reason.contains(why), "{}", problem.reason);
        assert!(problem.reason.ends_with("the annotation is ignored, all endpoints are alike"));
    }
}

#[test]
fn a_wrong_part_of_a_slice_costs_itself() {
    let cases = [
        (
            "/endpoints",
            json!([{"addresses": ["10.0.0.1"]}, {"addresses": [1]}]),
            "endpoints[1].addresses[0]: number 1 where a string belongs",
        ),
        (
            "/endpoints",
            json!([{"addresses": ["10.0.0.1"]}, {"addresses": []}]),
            "endpoints[1].addresses: empty: an address belongs here",
        ),
        (
            "/endpoints",
            json!([{"addresses": ["fd00::1"]}, {"addresses": ["10.0.0.1"]}]),
            "endpoints[0].addresses[0]: fd00::1 is IPv6, the slice's addressType is IPv4",
        ),
        (
            "/endpoints",
            json!([{"addresses": ["127.0.0.1"]}, {"addresses": ["10.0.0.1"]}]),
            "endpoints[0].addresses[0]: 127.0.0.1 is a loopback address",
        ),
        (
            "/endpoints",
            json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": "no"}}, {"addresses": ["10.0.0.2"]}]),
            "endpoints[0].conditions.ready: string \"no\" where true or false belongs",
        ),
        (
            "/endpoints",
            json!([{"addresses": ["10.0.0.1", "10.0.0.9"]}]),
            "endpoints[0].addresses[1]: only an endpoint's first address gets connections",
        ),
        ("/endpoints", json!([null, {"addresses": ["10.0.0.1"]}]), "endpoints[0]: missing: an object belongs here"),
        (
            "/endpoints",
            json!([{"addresses": ["10.0.0.1"], "zone": 3}]),
            "endpoints[0].zone: number 3 where a string belongs",
        ),
        ("/ports", json!([{"name": "a", "port": 1}, {"name": "b", "port": 0}]), "ports[1].port: 0 is not in 1..=65535"),
        (
            "/ports",
            json!([{"name": "a", "port": 1}, {"name": "a", "port": 2}]),
            "ports[1].name: a second port named \"a\": only the first is used",
        ),
        (
            "/ports",
            json!([{"name": "a", "port": 1}, {"name": "b", "port": null}]),
            "ports[1].port: a port without a number is not programmed",
        ),
    ];
    for (pointer, new, expected) in cases {
        let parsed = read_json(&with(slice(json!({})), pointer, new));
        assert_eq!(texts(&parsed), [format!("a.json: EndpointSlice shop/cart-a: {expected}")]);
        let slice = the_slice(&parsed);
        assert_eq!((slice.endpoints.len(), slice.ports.len()), (1, 1), "{expected}");
    }
}

#[test]
fn invalid_as_a_whole() {
    let cases = [
        (
            with(import(good_spec()), "/spec/type", json!("ClusterIP")),
            "spec.type: \"ClusterIP\" is neither ClusterSetIP nor Headless",
        ),
        (with(import(good_spec()), "/spec", json!([])), "spec: list where an object belongs"),
        (
            with(import(good_spec()), "/apiVersion", json!("multicluster.x-k8s.io/v2")),
            "apiVersion: version \"v2\" is not known, only v1alpha1 and v1beta1",
        ),
        (with(slice(json!({})), "/addressType", json!("FQDN")), "addressType: \"FQDN\" is neither IPv4 nor IPv6"),
        (
            with(slice(json!({})), "/metadata/labels/multicluster.kubernetes.io~1source-cluster", json!(null)),
            "metadata.labels[multicluster.kubernetes.io/source-cluster]: missing: a string belongs here",
        ),
        (with(slice(json!({})), "/endpoints", json!("many")), "endpoints: string \"many\" where a list belongs"),
    ];
    for (value, expected) in cases {
        let parsed = read_json(&value);
        assert_eq!(parsed.objects, []);
        assert_eq!(parsed.broken.len(), 1);
        assert!(!parsed.unidentified);
        let object = &parsed.broken[0];
        assert_eq!(texts(&parsed), [format!("a.json: {object}: {expected}")]);
    }
    for (pointer, new) in [("/spec/ips", json!(["x"])), ("/spec/ports", json!([{"port": 0}]))] {
        let parsed = read_json(&with(import(good_spec()), pointer, new));
        assert_eq!((parsed.objects.len(), parsed.broken.len(), parsed.problems.len()), (0, 1, 2));
    }
}

#[test]
fn neither_object_nor_problem() {
    let mut labels = slice(json!({}));
    labels["metadata"]["labels"] = json!({"kubernetes.io/service-name": "cart"});
    let other = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": 7}});
    for value in [labels, other] {
        let parsed = read_json(&value);
        assert_eq!((parsed.objects.len(), parsed.broken.len(), parsed.problems.len()), (0, 0, 0), "{value}");
        assert!(!parsed.unidentified);
    }
}

#[test]
fn headless_imports_are_objects_of_their_own() {
    let parsed = read_json(&import(json!({"type": "Headless", "ports": [{"name": "http", "port": 80}]})));
    assert_eq!(parsed.objects, [Object::Headless(ObjectKey::new("shop", "cart"))]);
    assert_eq!(parsed.problems, []);
}

#[test]
fn what_only_names_need() {
    let parsed = read_json(&slice(json!({
        "ports": [{"name": "http", "port": 8080}, {"name": "sig", "protocol": "SCTP", "port": 2905}],
        "endpoints": [
            {"addresses": ["127.0.0.1"], "hostname": "lost"},
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.2", "10.0.0.3", "fd00::3"], "hostname": "app-0"},
            {"addresses": ["10.0.0.4"], "hostname": "App_1"},
        ],
    })));
    let names = &the_slice(&parsed).names;
    assert_eq!(names.hostnames, [(1, Arc::from("app-0"))], "places are those of valid endpoints");
    assert_eq!(names.further, [(1, std::net::IpAddr::from([10, 0, 0, 3]).into())]);
    assert_eq!(names.sctp, [SctpPort { name: "sig".into(), port: 2905 }]);
    let import = read_json(&import(json!({"type": "ClusterSetIP", "ips": ["10.96.0.1"], "ports": [
        {"name": "http", "port": 80}, {"name": "sig", "protocol": "SCTP", "port": 2905},
    ]})));
    assert_eq!(the_import(&import).sctp, [SctpPort { name: "sig".into(), port: 2905 }]);
}

#[test]
fn what_cannot_be_told_is_said_to_be_so() {
    for (value, expected) in [
        (with(import(good_spec()), "/metadata/name", json!(7)), "metadata.name: number 7 where a string belongs"),
        (
            with(import(good_spec()), "/metadata/name", json!("a.b")),
            "metadata.name: \"a.b\" is no DNS label: only a-z, 0-9 and '-' are allowed",
        ),
        (with(import(good_spec()), "/metadata", json!(null)), "metadata: missing: an object belongs here"),
        (with(import(good_spec()), "/kind", json!(null)), "kind: missing: a string belongs here"),
        (with(import(good_spec()), "/apiVersion", json!(1)), "apiVersion: number 1 where a string belongs"),
        (json!([]), "list where an object belongs"),
        (json!({"kind": "List", "apiVersion": "v1", "items": [5]}), "items[0]: number 5 where an object belongs"),
        (
            json!({"kind": "List", "apiVersion": "v1", "items": null}),
            "a list without items: an empty one is written `items: []`",
        ),
        (json!({"kind": "List", "apiVersion": "v1"}), "a list without items: an empty one is written `items: []`"),
    ] {
        for file in ["a.json", "a.yaml"] {
            let parsed = read(file, &value.to_string());
            assert!(parsed.unidentified && parsed.objects.is_empty(), "{value}");
            assert_eq!(texts(&parsed), [format!("{file}: {expected}")]);
        }
    }
}

#[test]
fn lists_documents_and_formats() {
    let other = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}});
    let list = json!({"kind": "List", "apiVersion": "v1", "items": [import(good_spec()), other, slice(json!({}))]});
    let check = |parsed: Parsed| {
        assert_eq!(texts(&parsed), [""; 0]);
        assert_eq!(parsed.objects.len(), 2);
        assert_eq!(parsed.counts, Counts { imports: 1, slices: 1, other: 1 });
    };
    check(read("a.json", &list.to_string()));
    check(read("a.yaml", &list.to_string()));
    check(read("a.yml", &serde_saphyr::to_string(&list).unwrap()));
    let stream = [import(good_spec()), other.clone(), slice(json!({}))];
    check(read("a.json", &stream.iter().map(|value| format!("{value}\n")).collect::<String>()));
    let yaml =
        stream.iter().map(|value| format!("---\n{}", serde_saphyr::to_string(value).unwrap())).collect::<String>();
    check(read("a.yaml", &format!("# a comment\n{yaml}---\n")));
    // flow style with what JSON lacks
    check(read(
        "a.yaml",
        &format!("{{kind: List, apiVersion: v1, items: [{}, {}, {}]}}", stream[0], stream[1], stream[2]),
    ));
}

#[test]
fn items_of_typed_lists_need_no_kind() {
    let mut item = import(good_spec());
    item.as_object_mut().unwrap().retain(|key, _| key != "kind" && key != "apiVersion");
    let list = json!({"kind": "ServiceImportList", "apiVersion": "multicluster.x-k8s.io/v1alpha1", "items": [item]});
    for file in ["a.json", "a.yaml"] {
        assert_eq!(read(file, &list.to_string()).objects.len(), 1);
    }
    assert_eq!(read("a.yaml", &serde_saphyr::to_string(&list).unwrap()).objects.len(), 1);
}

#[test]
fn an_object_that_no_deserializer_takes_costs_itself() {
    let bad = import(good_spec()).to_string().replace("\"port\":80", "\"port\":1e999");
    let text = format!(r#"{{"kind":"List","apiVersion":"v1","items":[{bad},{}]}}"#, slice(json!({})));
    let parsed = read("a.json", &text);
    the_slice(&parsed);
    assert_eq!(parsed.broken.len(), 1);
    assert!(
        texts(&parsed)[0].starts_with("a.json: ServiceImport shop/cart: number out of range"),
        "{:?}",
        parsed.problems
    );
}

#[test]
fn the_same_object_twice() {
    let parsed = read("a.json", &format!("{}{}", import(good_spec()), import(json!({"type": "Headless"}))));
    the_import(&parsed);
    assert_eq!(
        texts(&parsed),
        ["a.json: ServiceImport shop/cart: a second time in one file (documents[1]): only the first is used"]
    );
}

#[test]
fn text_that_cannot_be_taken_apart() {
    for (file, text) in [
        ("a.json", "{\"kind\": \"List\", \"items\": [{}"),
        ("a.json", ""),
        ("a.json", " \n"),
        ("a.yaml", ""),
        ("a.yaml", "# only this\n"),
        ("a.yaml", "---\n---\n"),
        ("a.yaml", "a: [b"),
        ("a.yaml", "a: b\n  c: d"),
    ] {
        let problem = parse(file, text.as_bytes(), &mut Interner::default()).unwrap_err();
        assert_eq!(problem.object, file);
        assert!(problem.to_string().starts_with(&format!("{file}: ")), "{problem}");
    }
    assert!(parse("a.json", &[0xff, 0xfe], &mut Interner::default()).is_err());
}

#[test]
fn aliases_that_blow_up_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let before = format!("*a{}, ", i - 1).repeat(10);
        text.push_str(&format!("a{i}: &a{i} [{before}]\n"));
    }
    assert!(parse("a.yaml", text.as_bytes(), &mut Interner::default()).is_err());
}

#[test]
fn problems_of_one_object_are_limited() {
    let endpoints: Vec<Value> = (0..1000).map(|_| json!({"addresses": ["x"]})).collect();
    let parsed = read_json(&slice(json!({"endpoints": endpoints})));
    assert_eq!(parsed.problems.len(), 33);
    assert!(parsed.problems[32].reason.starts_with("969 more"), "{}", parsed.problems[32].reason);
}
