//! What is told to the world, held and reported.

use serde_json::{Value, json};

use super::*;
use crate::source::kube::object::Crd;

fn text(value: &Value) -> Text {
    serde_json::from_str(&value.to_string()).unwrap()
}

fn crd(uid: &str, served: &[&str]) -> Definition {
    let versions: Vec<Value> =
        ["v1alpha1", "v1beta1"].map(|name| json!({"name": name, "served": served.contains(&name)})).into();
    let crd = json!({"metadata": {"name": "x", "uid": uid}, "spec": {"versions": versions}});
    Definition::of(Some(&serde_json::from_value::<Crd>(crd).unwrap()))
}

fn import(name: &str) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name, "resourceVersion": "5", "managedFields": [{"x": 1}]},
        "spec": {"type": "ClusterSetIP", "ips": ["10.97.0.1"], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        "status": {"clusters": [{"cluster": "a"}]},
    })
}

fn slice(name: &str, address: &str) -> Value {
    json!({
        "metadata": {
            "namespace": "shop", "name": name, "resourceVersion": "5",
            "labels": {
                "multicluster.kubernetes.io/service-name": "cart",
                "multicluster.kubernetes.io/source-cluster": "a",
            },
            "annotations": {"mcs.internal/changed-at": "2026-01-02T03:04:05.678Z"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address]}],
    })
}

/// Says that a list was complete and had just this.
fn list(state: &mut KubeState, kind: Served, version: u64, objects: &[Value]) -> Settled {
    state.list_started(kind);
    objects.iter().for_each(|object| state.applied(kind, &text(object)));
    state.listed(kind, version);
    state.settle()
}

/// A state that knows the imports `cart` and `till`, and the slice `cart-a`.
fn synced() -> KubeState {
    let mut state = KubeState::default();
    state.define(crd("u1", &["v1alpha1", "v1beta1"]));
    let settled = list(&mut state, Served::Imports, 10, &[import("cart"), import("till")]);
    assert_eq!(settled.events.len(), 2);
    assert!(!settled.events.contains(&Event::Synced), "slices are not known yet");
    let settled = list(&mut state, Served::Slices, 10, &[slice("cart-a", "10.1.0.1")]);
    assert_eq!((settled.events.len(), settled.events.last()), (2, Some(&Event::Synced)));
    assert_eq!(settled.stamps, [], "what was there before says nothing of how fast it came");
    assert_eq!(state.whole_problems(), []);
    state
}

fn deletions(settled: &Settled) -> Vec<String> {
    let deleted = |event: &Event| match event {
        Event::Delete(id) => Some(id.key().name.to_string()),
        Event::Apply(_) | Event::Synced => None,
    };
    settled.events.iter().filter_map(deleted).collect()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn held(state: &KubeState) -> Vec<String> {
    state.whole_problems().into_iter().map(|problem| problem.to_string()).collect()
}

#[test]
fn the_newest_version_that_is_served_is_asked_for() {
    assert_eq!(crd("u", &["v1alpha1", "v1beta1"]).version(), Some("v1beta1"));
    assert_eq!(crd("u", &["v1alpha1"]).version(), Some("v1alpha1"));
    assert_eq!(crd("u", &[]).version(), None);
    assert_eq!(Definition::of(None).version(), None);
    let mut state = KubeState::default();
    state.define(crd("u", &[]));
    assert!(held(&state)[0].contains("serves none of v1alpha1 and v1beta1"));
}

#[test]
fn a_definition_that_is_being_deleted_is_gone() {
    let crd = json!({
        "metadata": {"name": "x", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"versions": [{"name": "v1beta1", "served": true}]},
    });
    assert_eq!(Definition::of(Some(&serde_json::from_value::<Crd>(crd).unwrap())), Definition::Gone);
}

#[test]
fn what_did_not_change_is_told_once() {
    let mut state = synced();
    let mut again = slice("cart-a", "10.1.0.1");
    again["metadata"]["resourceVersion"] = json!("6");
    again["metadata"]["annotations"]["mcs.internal/changed-at"] = json!("2026-01-02T03:04:06Z");
    state.applied(Served::Slices, &text(&again));
    let settled = state.settle();
    assert_eq!((settled.events, settled.stamps), (vec![], vec![]));
    assert_eq!(list(&mut state, Served::Imports, 11, &[import("cart"), import("till")]).events, []);
}

#[test]
fn a_change_carries_its_stamp() {
    let mut state = synced();
    state.applied(Served::Slices, &text(&slice("cart-a", "10.1.0.2")));
    let settled = state.settle();
    assert_eq!(settled.events.len(), 1);
    assert_eq!(settled.stamps, [Stamp { cluster: "a".into(), changed_ms: 1_767_323_045_678 }]);
}

#[test]
fn a_deletion_before_our_eyes_and_absence_in_a_complete_list_are_believed() {
    let mut state = synced();
    state.deleted(Served::Imports, &key("till"));
    assert_eq!(deletions(&state.settle()), ["till"]);
    list(&mut state, Served::Imports, 12, &[import("cart"), import("till")]);
    state.interrupted(Served::Imports);
    assert_eq!(deletions(&list(&mut state, Served::Imports, 13, &[import("cart")])), ["till"]);
    assert_eq!(state.whole_problems(), []);
}

#[test]
fn half_a_list_deletes_nothing() {
    let mut state = synced();
    state.list_started(Served::Imports);
    state.applied(Served::Imports, &text(&import("cart")));
    state.interrupted(Served::Imports);
    state.listed(Served::Imports, 20);
    assert_eq!(state.settle().events, []);
}

#[test]
fn an_empty_list_after_one_that_was_not_keeps_everything() {
    let mut state = synced();
    assert_eq!(list(&mut state, Served::Imports, 20, &[]).events, []);
    assert_eq!(list(&mut state, Served::Slices, 20, &[]).events, []);
    assert!(held(&state)[0].starts_with("ServiceImports: 2 are gone, and the list is empty"), "{:?}", held(&state));
    assert!(held(&state)[1].starts_with("EndpointSlices: 1 are gone"), "{:?}", held(&state));
    // what comes back is no news, and held no more
    state.applied(Served::Imports, &text(&import("cart")));
    assert_eq!(state.settle().events, []);
    assert!(held(&state)[0].starts_with("ServiceImports: 1 are gone"), "{:?}", held(&state));
    // what is deleted before our eyes is deleted
    state.deleted(Served::Imports, &key("till"));
    assert_eq!(deletions(&state.settle()), ["till"]);
    // a list that has something is believed again
    assert_eq!(deletions(&list(&mut state, Served::Slices, 21, &[slice("cart-b", "10.1.0.9")])), ["cart-a"]);
    assert_eq!(held(&state), [""; 0]);
}

#[test]
fn a_definition_that_goes_takes_nothing_along() {
    let mut state = synced();
    state.define(Definition::Gone);
    assert!(held(&state)[0].contains("2 ServiceImports stay"), "{:?}", held(&state));
    for name in ["cart", "till"] {
        state.deleted(Served::Imports, &key(name));
    }
    state.deleted(Served::Slices, &key("cart-a"));
    assert_eq!(state.settle().events, []);
    // another one: what its first list lacks is not gone
    state.define(crd("u2", &["v1beta1"]));
    assert_eq!(list(&mut state, Served::Imports, 30, &[import("cart")]).events, []);
    assert!(held(&state)[0].contains("is another one than before"), "{:?}", held(&state));
    assert_eq!(deletions(&list(&mut state, Served::Imports, 31, &[import("cart")])), ["till"]);
}

#[test]
fn an_api_server_that_was_put_back_takes_nothing_away() {
    let mut state = synced();
    assert_eq!(list(&mut state, Served::Imports, 9, &[import("cart")]).events, []);
    assert!(held(&state)[0].contains("was put back"), "{:?}", held(&state));
}

#[test]
fn what_is_invalid_costs_itself_and_stays_as_it_was() {
    let mut state = synced();
    let mut broken = import("cart");
    broken["spec"]["type"] = json!(7);
    state.applied(Served::Imports, &text(&broken));
    let mut garbage = import("junk");
    garbage["spec"] = json!("nonsense");
    state.applied(Served::Imports, &text(&garbage));
    let settled = state.settle();
    assert_eq!(settled.events, []);
    let said: Vec<String> = settled.new_problems.iter().map(ToString::to_string).collect();
    assert!(
        said[0].starts_with("ServiceImport shop/cart: spec.type: number 7") && said[0].ends_with("stays as it was")
    );
    assert!(said[1].starts_with("ServiceImport shop/junk: spec:"), "{said:?}");
    assert!(state.unread().may_concern("shop"), "what it once said is not known");
    assert_eq!(state.problems().count(), 2);
    // of an emptied API server only what was told is kept
    assert_eq!(list(&mut state, Served::Imports, 20, &[]).events, []);
    assert_eq!(state.problems().map(|problem| &*problem.object).collect::<Vec<_>>(), ["ServiceImport shop/cart"]);
    assert_eq!(held(&state).len(), 1);
    state.applied(Served::Imports, &text(&garbage));
    // mended, deleted
    state.applied(Served::Imports, &text(&import("cart")));
    state.deleted(Served::Imports, &key("junk"));
    assert_eq!(state.settle().events, []);
    assert_eq!((state.problems().count(), state.unread()), (0, Unread::default()));
}

#[test]
fn an_import_that_becomes_headless_is_said_to_be() {
    let mut state = synced();
    let mut headless = import("cart");
    headless["spec"]["type"] = json!("Headless");
    state.applied(Served::Imports, &text(&headless));
    assert_eq!(state.settle().events, [Event::Apply(Object::Headless(key("cart")))]);
}

#[test]
fn an_emptied_api_server_does_not_empty_a_node_that_starts() {
    let mut state = KubeState::default();
    state.set_left_over(true);
    state.define(crd("u", &["v1beta1"]));
    list(&mut state, Served::Imports, 1, &[]);
    assert!(!state.unread().anything, "it is not synced: nothing is removed anyway");
    list(&mut state, Served::Slices, 1, &[]);
    assert!(state.unread().anything);
    assert!(held(&state)[0].contains("mcs detach"), "{:?}", held(&state));
    list(&mut state, Served::Imports, 2, &[import("cart")]);
    assert!(state.unread().anything, "endpoints are missing still");
    list(&mut state, Served::Slices, 2, &[slice("cart-a", "10.1.0.1")]);
    assert!(!state.unread().anything);
    // nor does it matter where nothing was
    let mut fresh = KubeState::default();
    fresh.define(crd("u", &["v1beta1"]));
    list(&mut fresh, Served::Imports, 1, &[]);
    list(&mut fresh, Served::Slices, 1, &[]);
    assert!(!fresh.unread().anything);
}

/// What every list of this gave: how many events, and what was wrong, notices included.
fn read_all(version: &str, imports: &[Value], slices: &[Value]) -> (usize, Vec<Problem>) {
    let mut state = KubeState::default();
    state.define(crd("u", &[version]));
    let first = list(&mut state, Served::Imports, 7, imports);
    let second = list(&mut state, Served::Slices, 8, slices);
    let synced = 1;
    (first.events.len() + second.events.len() - synced, [first.new_problems, second.new_problems].concat())
}

/// Submariner (Lighthouse 0.17 on): v1alpha1; one endpoint for each cluster, the exporter's cluster IP.
#[test]
fn submariners_objects_are_read() {
    let import = json!({
        "apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ServiceImport",
        "metadata": {"namespace": "shop", "name": "cart", "resourceVersion": "7",
            "annotations": {"lighthouse.submariner.io/clusterset-ip-allocated": "true"}},
        "spec": {"type": "ClusterSetIP", "ips": ["243.0.0.1"], "sessionAffinity": "None",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        "status": {"clusters": [{"cluster": "east"}]},
    });
    let slice = json!({
        "metadata": {"namespace": "shop", "name": "cart-shop-east", "resourceVersion": "8",
            "labels": {"endpointslice.kubernetes.io/managed-by": "lighthouse-agent.submariner.io",
                "lighthouse.submariner.io/sourceNamespace": "shop", "lighthouse.submariner.io/is-headless": "false",
                "multicluster.kubernetes.io/service-name": "cart", "multicluster.kubernetes.io/source-cluster": "east"},
            "annotations": {"lighthouse.submariner.io/globalnet-enabled": "false",
                "lighthouse.submariner.io/publish-not-ready-addresses": ""}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.96.44.5"], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
    });
    assert_eq!(read_all("v1alpha1", &[import], &[slice]), (2, vec![]));
}

/// Upstream's example of a controller: the import gets the cluster IPs of a Service that is derived from it; slices carry
/// the name of the import alone, and the controller adds the name of the derived Service.
#[test]
fn the_reference_controllers_objects_are_read() {
    let import = json!({
        "metadata": {"namespace": "shop", "name": "cart", "resourceVersion": "7",
            "annotations": {"multicluster.kubernetes.io/derived-service": "derived-9a8b7c6d5e"}},
        "spec": {"type": "ClusterSetIP", "ips": ["10.96.7.7"], "ports": [{"name": "tcp", "port": 42, "protocol": "TCP"}]},
        "status": {},
    });
    let slice = json!({
        "metadata": {"namespace": "shop", "name": "slice-1", "resourceVersion": "8",
            "labels": {"multicluster.kubernetes.io/service-name": "cart", "kubernetes.io/service-name": "derived-9a8b7c6d5e"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {}}],
        "ports": [{"name": "tcp", "protocol": "TCP", "port": 42}],
    });
    let (events, problems) = read_all("v1alpha1", &[import], &[slice]);
    assert_eq!(events, 2);
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!(problem.severity, Severity::Notice);
    assert!(problem.reason.contains("a cluster \"unknown\""), "{problem}");
}

/// Karmada: a ServiceImport without addresses, as its user wrote it. Its slices have no label of the API and belong to a
/// Service of their own: they are not even listed. There is nothing to program, and nothing wrong.
#[test]
fn karmadas_objects_are_read_and_mean_nothing_here() {
    let import = json!({
        "metadata": {"namespace": "shop", "name": "serve", "resourceVersion": "7",
            "labels": {"work.karmada.io/permanent-id": "x"},
            "annotations": {"resourcebinding.karmada.io/name": "serve-serviceimport"}},
        "spec": {"type": "ClusterSetIP", "ports": [{"port": 80, "protocol": "TCP"}]},
    });
    assert_eq!(read_all("v1alpha1", &[import], &[]), (1, vec![]));
}
