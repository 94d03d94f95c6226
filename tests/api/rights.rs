//! What a member cannot do at the broker with its own credentials, tried with them.

use std::path::PathBuf;

use mcs::broker::credentials::Credentials;
use mcs_tests::client::{Client, Kind, refused};
use mcs_tests::require_api_server;
use serde_json::{Value, json};

use crate::objects::service;
use crate::world::{Member, Shape, World};

/// The secret that `mcs join` left in a member.
pub(crate) fn credentials(member: &Member) -> Credentials {
    let secret = member.client.get(Kind::SECRET, "mcs-system", "mcs-broker").unwrap().expect("a secret");
    Credentials::from_secret(&serde_json::from_value(secret).unwrap()).unwrap()
}

/// A client of the broker that is the member.
fn as_member(world: &World, member: &Member) -> Client {
    let file: PathBuf = world.broker.kubeconfig_with_token(&member.id, &credentials(member).token).unwrap();
    Client::connect(&file).unwrap()
}

#[track_caller]
fn must_be_refused<T>(what: &str, result: anyhow::Result<T>) {
    let Err(error) = result else { panic!("{what}: it was done") };
    // 403 by RBAC, 422 by the admission policy.
    assert!(matches!(refused(&error), Some(403 | 422)), "{what}: {error:#}");
}

/// Deletes what `member` made for itself. Its controller, which knows of no such import, may have been faster: that it can is
/// the same right.
#[track_caller]
fn free(member: &Client, name: &str) {
    if let Err(error) = member.delete(Kind::RESERVATION, "clusterset-broker", name) {
        assert_eq!(refused(&error), Some(404), "{error:#}");
    }
}

fn reservation(name: &str, address: &str, holder: &str) -> Value {
    json!({
        "apiVersion": Kind::RESERVATION.api_version, "kind": "Reservation",
        "metadata": {"namespace": "clusterset-broker", "name": name},
        "spec": {"address": address, "service": "shop/cart", "holder": holder},
    })
}

fn export_record(namespace: &str) -> Value {
    json!({
        "apiVersion": Kind::EXPORT_RECORD.api_version, "kind": "ExportRecord",
        "metadata": {"namespace": namespace, "name": "shop.cart"},
        "spec": {"version": 1, "namespace": "shop", "name": "cart", "withdrawn": false,
                 "exported": {"created": 1, "type": "ClusterSetIP"}},
    })
}

#[test]
fn a_member_writes_its_own_records_and_nobody_elses() {
    require_api_server!();
    let world = World::shared(Shape::ThreeAndABroker);
    let [a, b] = [&world.members[0], &world.members[1]];
    let namespace = world.namespace();
    let service = service(&namespace, "hello");
    b.export(&namespace, &service);
    let expected = b.endpoints(&namespace, &service, &[1]);
    a.imported(&namespace, "hello", &expected);
    let attacker = as_member(&world, a);

    // It may read what it needs, and write where it is at home.
    let record = format!("{namespace}.hello");
    let theirs = attacker.get(Kind::EXPORT_RECORD, "mcs-b", &record).unwrap().expect("b's record");
    attacker.create(&export_record("mcs-a")).unwrap();
    attacker.delete(Kind::EXPORT_RECORD, "mcs-a", "shop.cart").unwrap();

    must_be_refused("create in b's", attacker.create(&export_record("mcs-b")));
    let withdraw = json!({"spec": {"withdrawn": true}});
    must_be_refused("withdraw b's", attacker.patch(Kind::EXPORT_RECORD, "mcs-b", &record, &withdraw));
    must_be_refused("replace b's", attacker.replace(&theirs));
    must_be_refused("delete b's", attacker.delete(Kind::EXPORT_RECORD, "mcs-b", &record));
    for slice in attacker.list(Kind::SLICE_RECORD, "mcs-b").unwrap() {
        let name = slice["metadata"]["name"].as_str().unwrap();
        must_be_refused("delete b's endpoints", attacker.delete(Kind::SLICE_RECORD, "mcs-b", name));
    }
    let renew = json!({"metadata": {"annotations": {"mcs.internal/statement": "{}"}}});
    must_be_refused("renew for b", attacker.patch(Kind::LEASE, "mcs-b", "member", &renew));
    must_be_refused("read secrets", attacker.list(Kind::SECRET, "mcs-b"));
    must_be_refused("make a namespace", attacker.create(&crate::objects::namespace("mcs-d")));
    let member = |id: &str| json!({"spec": {"revoked": true, "clusterUid": id}});
    for id in ["a", "b"] {
        must_be_refused("change a member", attacker.patch(Kind::MEMBER, "clusterset-broker", id, &member(id)));
    }
    must_be_refused("delete a member", attacker.delete(Kind::MEMBER, "clusterset-broker", "b"));
    let clusterset = attacker.list(Kind::CLUSTERSET, "clusterset-broker").unwrap();
    let name = clusterset[0]["metadata"]["name"].as_str().unwrap();
    let cidrs = json!({"spec": {"cidrs": ["10.0.0.0/8"]}});
    must_be_refused("change the CIDRs", attacker.patch(Kind::CLUSTERSET, "clusterset-broker", name, &cidrs));

    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": null}});
    attacker.post("/api/v1/namespaces/mcs-a/serviceaccounts/member/token", &request).unwrap();
    let other = attacker.post("/api/v1/namespaces/mcs-b/serviceaccounts/member/token", &request);
    must_be_refused("be b", other);
}

#[test]
fn a_member_neither_squats_on_addresses_nor_frees_others() {
    require_api_server!();
    let world = World::shared(Shape::ThreeAndABroker);
    let [a, b] = [&world.members[0], &world.members[1]];
    let namespace = world.namespace();
    b.export(&namespace, &service(&namespace, "hello"));
    let addressed = |import: &Value| import["spec"]["ips"].as_array().is_some_and(|ips| ips.len() == 2);
    b.import(&namespace, "hello", "addressed", addressed);
    let attacker = as_member(&world, a);
    let shared = "clusterset-broker";

    // Its own is its own business.
    attacker.create(&reservation("10-97-255-1", "10.97.255.1", "a")).unwrap();
    free(&attacker, "10-97-255-1");

    must_be_refused("in b's name", attacker.create(&reservation("10-97-255-2", "10.97.255.2", "b")));
    must_be_refused("in no name", attacker.create(&reservation("10-97-255-2", "10.97.255.2", "")));
    must_be_refused("under another name", attacker.create(&reservation("10-97-255-3", "10.97.255.2", "a")));
    must_be_refused("a second name", attacker.create(&reservation("010-97-255-2", "010.97.255.2", "a")));
    must_be_refused("no address", attacker.create(&reservation("elsewhere", "elsewhere", "a")));
    let v6 = "fd00-0097-0000-0000-0000-0000-ffff-0001";
    must_be_refused("IPv6 in short", attacker.create(&reservation("fd00-97--ffff-1", "fd00:97::ffff:1", "a")));
    let patch = json!({"spec": {"service": "other/service"}});
    // Its controller may free it between the two.
    let changed = (0..20).map(|_| {
        attacker.create(&reservation(v6, "fd00:97::ffff:1", "a")).unwrap();
        attacker.patch(Kind::RESERVATION, shared, v6, &patch)
    });
    let changed = changed.into_iter().find(|changed| !changed.as_ref().is_err_and(|error| refused(error) == Some(404)));
    must_be_refused("change its own", changed.unwrap());
    free(&attacker, v6);

    let service = format!("{namespace}/hello");
    let all = attacker.list(Kind::RESERVATION, shared).unwrap();
    // Whoever was first made them; what is b's or c's is not a's.
    let theirs: Vec<&Value> =
        all.iter().filter(|held| held["spec"]["service"] == *service && held["spec"]["holder"] != "a").collect();
    for held in &theirs {
        let name = held["metadata"]["name"].as_str().unwrap();
        must_be_refused("free another's", attacker.delete(Kind::RESERVATION, shared, name));
        let patch = json!({"spec": {"holder": "a"}});
        must_be_refused("take another's", attacker.patch(Kind::RESERVATION, shared, name, &patch));
    }
    assert!(!theirs.is_empty(), "{all:?}");
}
