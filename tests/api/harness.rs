//! What the harness promises, tested on itself.

use mcs_tests::apiserver::ApiServer;
use mcs_tests::client::{Client, Kind, refused};
use mcs_tests::require_api_server;
use serde_json::json;

use crate::SOON;
use crate::objects::namespace;

#[test]
fn a_server_is_killed_emptied_and_put_back() {
    require_api_server!();
    let server = ApiServer::start("a").unwrap();
    let client = server.client().unwrap();
    let names = |client: &Client| -> Vec<String> {
        let list = client.list(Kind::NAMESPACE, "").unwrap();
        list.iter().filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned)).collect()
    };
    client.create(&namespace("first")).unwrap();
    let backup = server.backup().unwrap();
    client.create(&namespace("second")).unwrap();
    server.kill();
    client.get(Kind::NAMESPACE, "", "first").unwrap_err();
    server.restart().unwrap();
    assert!(names(&client).contains(&"second".to_owned()));

    server.restore(&backup).unwrap();
    assert!(names(&client).contains(&"first".to_owned()) && !names(&client).contains(&"second".to_owned()));
    server.empty().unwrap();
    assert!(!names(&client).contains(&"first".to_owned()));
    let directory = server.dir().to_owned();
    drop(server);
    assert!(!directory.exists());
}

#[test]
fn rights_are_checked_and_watches_see_what_happens() {
    require_api_server!();
    let server = ApiServer::start("a").unwrap();
    let admin = server.client().unwrap();
    admin.create(&namespace("work")).unwrap();
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": "work"}});
    admin.create(&account).unwrap();
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": null}});
    let answer = admin.post("/api/v1/namespaces/work/serviceaccounts/nobody/token", &request).unwrap();
    let token = answer["status"]["token"].as_str().unwrap();
    let nobody = Client::connect(&server.kubeconfig_with_token("nobody", token).unwrap()).unwrap();
    let error = nobody.get(Kind::SECRET, "work", "s").unwrap_err();
    assert_eq!(refused(&error), Some(403), "{error:#}");

    let mut follow = admin.follow(Kind::CONFIG_MAP, "work").unwrap();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "work"}});
    admin.apply(&map).unwrap();
    follow.until(SOON, "there", |objects| objects.len() == 1).unwrap();
    admin.delete(Kind::CONFIG_MAP, "work", "m").unwrap();
    follow.until(SOON, "gone", |objects| objects.is_empty()).unwrap();
}

#[test]
fn kubernetes_own_controllers_run_where_asked_for() {
    require_api_server!();
    let server = ApiServer::start("a").unwrap();
    server.controller_manager(&["namespace-controller"]).unwrap();
    let client = server.client().unwrap();
    client.create(&namespace("work")).unwrap();
    client.delete(Kind::NAMESPACE, "", "work").unwrap();
    client.wait((Kind::NAMESPACE, "", "work"), SOON, "gone", |object| object.is_none()).unwrap();
}
