//! Who may be a member, and how one ceases to be.

use mcs_tests::apiserver::ApiServer;
use mcs_tests::client::Kind;
use mcs_tests::mcs::{CIDRS, init_broker, join_arguments};
use mcs_tests::{mcs, require_api_server};
use serde_json::{Value, json};

use crate::objects::service;
use crate::world::World;

/// The resource versions of what a verb wrote into a server.
fn versions(server: &ApiServer) -> Vec<(String, String)> {
    let client = server.client().unwrap();
    let secret = Kind::SECRET;
    let kinds = [Kind::CRD, Kind::PROPERTY, Kind::NAMESPACE, Kind::CONFIG_MAP, secret, Kind::MEMBER, Kind::CLUSTERSET];
    let mut all = Vec::new();
    for kind in kinds {
        // Not every server has the broker's kinds.
        for object in client.list(kind, "").unwrap_or_default() {
            let metadata = &object["metadata"];
            let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
            if text("namespace") != "kube-system" {
                all.push((format!("{kind} {}/{}", text("namespace"), text("name")), text("resourceVersion")));
            }
        }
    }
    all
}

#[test]
fn joining_again_changes_nothing_and_others_are_refused() {
    require_api_server!();
    let servers = ApiServer::start_many(3).unwrap();
    let [broker, a, b] = &servers[..] else { panic!("three") };
    let join = |member: &ApiServer, id: &str, more: &[&str]| -> Vec<String> {
        join_arguments(member, broker, id).into_iter().chain(more.iter().map(|&word| word.to_owned())).collect()
    };
    let said = mcs::fail(join(a, "a", &[])).unwrap();
    assert!(said.contains("broker init"), "a broker that is none: {said}");
    init_broker(broker).unwrap();
    init_broker(broker).unwrap();

    for malformed in ["", "A", "a.b", "a-", "a_b", &"a".repeat(64)] {
        let said = mcs::fail(join(a, malformed, &[])).unwrap();
        assert!(said.contains("cluster") || said.contains("id"), "{malformed}: {said}");
    }
    let said = mcs::fail(join(a, "a", &["--clusterset-cidr", "10.98.0.0/16"])).unwrap();
    assert!(said.contains("10.97.0.0/16"), "the ClusterSet's CIDRs are fixed: {said}");
    mcs::run(join(a, "a", &CIDRS.map(|cidr| ["--clusterset-cidr", cidr]).concat())).unwrap();
    let before = (versions(a), versions(broker));
    mcs::run(join(a, "a", &[])).unwrap();
    assert_eq!((versions(a), versions(broker)), before, "again = no change");

    let said = mcs::fail(join(b, "a", &[])).unwrap();
    assert!(said.contains("\"a\"") || said.contains(" a"), "an id that is taken: {said}");
    let said = mcs::fail(join(a, "c", &[])).unwrap();
    assert!(said.contains('a'), "a cluster that is a member under another id: {said}");
    assert!(b.client().unwrap().get(Kind::NAMESPACE, "", "mcs-system").unwrap().is_none(), "nothing was left in b");

    // Pod CIDRs of two members must not overlap.
    mcs::run(join(b, "b", &["--pod-cidr", "10.20.0.0/16"])).unwrap();
    let other = ApiServer::start("c").unwrap();
    let said = mcs::fail(join(&other, "c", &["--pod-cidr", "10.20.128.0/17"])).unwrap();
    assert!(said.contains("10.20."), "{said}");
}

#[test]
fn cidrs_must_not_overlap_what_a_member_uses() {
    require_api_server!();
    let servers = ApiServer::start_many(2).unwrap();
    let [broker, a] = &servers[..] else { panic!("two") };
    let kubeconfig = broker.kubeconfig().display().to_string();
    mcs::run(["broker", "init", "--kubeconfig", &kubeconfig]).unwrap();
    // 10.96.0.0/16 is where the member's own Services have their addresses.
    let arguments = join_arguments(a, broker, "a");
    let said = mcs::fail(arguments.iter().map(String::as_str).chain(["--clusterset-cidr", "10.96.128.0/17"])).unwrap();
    assert!(said.contains("10.96."), "{said}");
    // The first join fixes them.
    mcs::run(arguments.iter().map(String::as_str).chain(["--clusterset-cidr", "10.97.0.0/16"])).unwrap();
    let fixed = broker.client().unwrap().list(Kind::CLUSTERSET, "clusterset-broker").unwrap();
    assert_eq!(fixed[0]["spec"]["cidrs"], json!(["10.97.0.0/16"]));
}

#[test]
fn who_leaves_takes_everything_along() {
    require_api_server!();
    let world = World::start_on_a_member(2).unwrap();
    let namespace = world.namespace();
    let [a, b] = [&world.members[0], &world.members[1]];
    let (both, own) = (service(&namespace, "both"), service(&namespace, "own"));
    a.export(&namespace, &both);
    b.export(&namespace, &both);
    b.export(&namespace, &own);
    let mut of_both = a.endpoints(&namespace, &both, &[1]);
    let of_a = of_both.clone();
    of_both.extend(b.endpoints(&namespace, &both, &[1]));
    of_both.sort();
    let of_own = b.endpoints(&namespace, &own, &[2]);
    for member in [a, b] {
        member.imported(&namespace, "both", &of_both);
        member.imported(&namespace, "own", &of_own);
    }
    let addressed = |import: &Value| import["spec"]["ips"].as_array().is_some_and(|ips| ips.len() == 2);
    let ips = a.import(&namespace, "both", "addressed", addressed)["spec"]["ips"].clone();

    mcs::run(["leave", "--kubeconfig", &b.server.kubeconfig().display().to_string()]).unwrap();
    a.imported(&namespace, "both", &of_a);
    a.no_import(&namespace, "own");
    let import = a.import(&namespace, "both", "of a alone", |i| i["status"]["clusters"] == json!([{"cluster": "a"}]));
    assert_eq!(import["spec"]["ips"], ips, "the address stays as long as somebody exports");
    for name in ["both", "own"] {
        b.no_import(&namespace, name);
        b.imported(&namespace, name, &[]);
    }
    assert!(b.client.get(Kind::PROPERTY, "", "clusterset.k8s.io").unwrap().is_none());
    assert!(world.broker_client.get(Kind::MEMBER, "clusterset-broker", "b").unwrap().is_none());
    // Kubernetes' and the user's own are still there.
    assert!(b.client.get(Kind::EXPORT, &namespace, "own").unwrap().is_some());

    // And back: under the old id, with the old export, as if nothing had been.
    mcs::run(join_arguments(&b.server, &world.broker, "b")).unwrap();
    a.imported(&namespace, "both", &of_both);
    b.imported(&namespace, "own", &of_own);
}

#[test]
fn without_the_property_of_membership_a_cluster_is_no_member() {
    require_api_server!();
    let world = World::start_on_a_member(2).unwrap();
    let namespace = world.namespace();
    let [a, b] = [&world.members[0], &world.members[1]];
    let service = service(&namespace, "hello");
    b.export(&namespace, &service);
    let expected = b.endpoints(&namespace, &service, &[1]);
    a.imported(&namespace, "hello", &expected);
    b.client.delete(Kind::PROPERTY, "", "clusterset.k8s.io").unwrap();
    for member in [a, b] {
        member.no_import(&namespace, "hello");
        member.imported(&namespace, "hello", &[]);
    }
    mcs::run(join_arguments(&b.server, &world.broker, "b")).unwrap();
    for member in [a, b] {
        member.imported(&namespace, "hello", &expected);
    }
}
