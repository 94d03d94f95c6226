//! Endpoints on their way from a source's slices to everybody's import.

use mcs_tests::apiserver::ApiServer;
use mcs_tests::client::{Client, Kind};
use mcs_tests::require_api_server;
use serde_json::{Value, json};

use crate::SOON;
use crate::objects::{self, addresses, export, headless, label, port, service, slice, with_ports};
use crate::world::{Shape, World, imported_slices};

const NAME: &str = "hello";

/// The slices of one source cluster.
fn of_cluster<'a>(slices: &'a [Value], cluster: &str) -> Vec<&'a Value> {
    slices.iter().filter(|slice| label(slice, "multicluster.kubernetes.io/source-cluster") == Some(cluster)).collect()
}

#[test]
fn what_is_said_of_an_endpoint_arrives_as_it_is() {
    require_api_server!();
    let world = World::shared(Shape::ThreeAndABroker);
    let namespace = world.namespace();
    let (a, c) = (&world.members[0], &world.members[2]);
    let service = headless(service(&namespace, NAME));
    a.export(&namespace, &service);
    let mut written = slice(&namespace, NAME, "hello-1", &[], &[port("tcp", "TCP", 8080)]);
    let endpoints = json!([
        {"addresses": ["10.20.0.1"], "hostname": "hello-0", "nodeName": "n1", "zone": "z1",
         "conditions": {"ready": true, "serving": true, "terminating": false}},
        {"addresses": ["10.20.0.2"], "hostname": "hello-1", "nodeName": "n2", "zone": "z2",
         "conditions": {"ready": false, "serving": false, "terminating": false}},
        {"addresses": ["10.20.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
    ]);
    written["endpoints"] = endpoints.clone();
    a.client.apply(&written).unwrap();
    let three = ["10.20.0.1", "10.20.0.2", "10.20.0.3"].map(str::to_owned);
    for member in [a, c] {
        let slices = member.imported(&namespace, NAME, &three);
        // Readers of a small service look at each slice of its own: one it is.
        assert_eq!(slices.len(), 1, "{slices:?}");
        assert_eq!(slices[0]["ports"], json!([{"name": "tcp", "protocol": "TCP", "port": 8080}]));
        let mut found = slices[0]["endpoints"].as_array().unwrap().clone();
        found.sort_by_key(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned());
        assert_eq!(Value::from(found), endpoints, "at {}", member.id);
    }

    written["endpoints"][1]["conditions"] = json!({"ready": true, "serving": true, "terminating": false});
    a.client.apply(&written).unwrap();
    for member in [a, c] {
        let ready = |slices: &[&Value]| {
            let mut endpoints = imported_slices(slices.iter().copied(), NAME)
                .filter_map(|slice| slice["endpoints"].as_array())
                .flatten();
            endpoints.any(|endpoint| endpoint["addresses"][0] == "10.20.0.2" && endpoint["conditions"]["ready"] == true)
        };
        member.client.wait_all((Kind::SLICE, &namespace), SOON, "the second is ready", ready).unwrap();
        // It was changed, and is nobody's but ours: no account is kept of who set which field.
        let slices = member.client.list(Kind::SLICE, &namespace).unwrap();
        let kept: Vec<&Value> =
            imported_slices(&slices, NAME).filter(|slice| !slice["metadata"]["managedFields"].is_null()).collect();
        assert!(kept.is_empty(), "{kept:?}");
    }
}

#[test]
fn a_port_is_served_by_those_who_expose_it() {
    require_api_server!();
    let world = World::shared(Shape::ThreeAndABroker);
    let namespace = world.namespace();
    let [a, b, c] = [&world.members[0], &world.members[1], &world.members[2]];
    // The second calls the first's port by another name, and has one that the first has not.
    let first = with_ports(service(&namespace, NAME), &[port("web", "TCP", 80), port("dns", "UDP", 53)]);
    let second = with_ports(service(&namespace, NAME), &[port("http", "TCP", 80), port("admin", "TCP", 9000)]);
    a.export(&namespace, &first);
    a.exported(&namespace, NAME, "Ready", "True");
    b.export(&namespace, &second);
    let backends = |names: [&str; 2]| [port(names[0], "TCP", 8080), port(names[1], "TCP", 9090)];
    let of_a = slice(
        &namespace,
        NAME,
        "hello-1",
        &["10.20.0.1".to_owned()],
        &[port("web", "TCP", 8080), port("dns", "UDP", 5353)],
    );
    let of_b = slice(&namespace, NAME, "hello-1", &["10.21.0.1".to_owned()], &backends(["http", "admin"]));
    a.client.apply(&of_a).unwrap();
    b.client.apply(&of_b).unwrap();
    let both = ["10.20.0.1", "10.21.0.1"].map(str::to_owned);
    for member in [a, b, c] {
        let slices = member.imported(&namespace, NAME, &both);
        let import = member
            .import(&namespace, NAME, "three ports", |i| i["spec"]["ports"].as_array().is_some_and(|p| p.len() == 3));
        // Whichever is the older gives the common port its name; the slices of both have it by that name.
        let common = import["spec"]["ports"].as_array().unwrap().iter().find(|port| port["port"] == 80).unwrap();
        let named = |cluster: &str| -> Vec<(String, u64)> {
            let slices = of_cluster(&slices, cluster);
            let ports = slices.iter().flat_map(|slice| slice["ports"].as_array().unwrap());
            let mut ports: Vec<_> =
                ports.map(|port| (port["name"].as_str().unwrap().to_owned(), port["port"].as_u64().unwrap())).collect();
            ports.sort();
            ports
        };
        let common = common["name"].as_str().unwrap().to_owned();
        let mut expected = [("dns".to_owned(), 5353), (common.clone(), 8080)];
        expected.sort();
        assert_eq!(named("a"), expected, "at {}", member.id);
        let mut expected = [("admin".to_owned(), 9090), (common, 8080)];
        expected.sort();
        assert_eq!(named("b"), expected, "at {}", member.id);
    }
}

#[test]
fn a_namespace_is_imported_into_when_it_comes() {
    require_api_server!();
    let world = World::shared(Shape::ThreeAndABroker);
    let (a, c) = (&world.members[0], &world.members[2]);
    let namespace = format!("{}-late", world.namespace());
    a.client.create(&objects::namespace(&namespace)).unwrap();
    let service = service(&namespace, NAME);
    a.export(&namespace, &service);
    let expected = a.endpoints(&namespace, &service, &[1]);
    a.imported(&namespace, NAME, &expected);
    c.client.create(&objects::namespace(&namespace)).unwrap();
    c.imported(&namespace, NAME, &expected);
    c.import(&namespace, NAME, "addressed", |import| {
        import["spec"]["ips"].as_array().is_some_and(|ips| ips.len() == 2)
    });
}

#[test]
fn an_export_waits_for_its_service_and_goes_with_it() {
    require_api_server!();
    let world = World::shared(Shape::ThreeAndABroker);
    let namespace = world.namespace();
    let (a, c) = (&world.members[0], &world.members[2]);
    a.client.apply(&export(&namespace, NAME)).unwrap();
    let without = a.exported(&namespace, NAME, "Valid", "False");
    assert!(mcs_tests::client::has_condition(&without, "Valid", "False", "NoService"), "{without}");
    a.client.apply(&service(&namespace, NAME)).unwrap();
    a.exported(&namespace, NAME, "Valid", "True");
    c.import(&namespace, NAME, "there", |_| true);
    a.client.delete(Kind::SERVICE, &namespace, NAME).unwrap();
    a.exported(&namespace, NAME, "Valid", "False");
    c.no_import(&namespace, NAME);
}

/// A pod without a kubelet: running, ready or not, at an address.
fn pod(client: &Client, namespace: &str, name: &str, address: &str, ready: bool) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": NAME}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "none"}]},
    });
    client.create(&pod).unwrap();
    let truth = if ready { "True" } else { "False" };
    let status = json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": truth}],
    }});
    client.patch_status(Kind::POD, namespace, name, &status).unwrap();
}

#[test]
fn slices_of_kubernetes_own_controller_are_followed_and_namespaces_go() {
    require_api_server!();
    let world = World::start_on_a_member(2).unwrap();
    let [a, b] = [&world.members[0], &world.members[1]];
    for member in [a, b] {
        member.server.controller_manager(&["endpointslice-controller", "namespace-controller"]).unwrap();
    }
    let namespace = world.namespace();
    let mut service = with_ports(service(&namespace, NAME), &[port("tcp", "TCP", 42)]);
    service["spec"]["ipFamilyPolicy"] = "SingleStack".into();
    a.export(&namespace, &service);
    // Kubernetes leaves out pods of nodes that it does not know.
    a.client.create(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})).unwrap();
    pod(&a.client, &namespace, "ready", "10.20.0.1", true);
    pod(&a.client, &namespace, "waits", "10.20.0.2", false);
    let two = ["10.20.0.1", "10.20.0.2"].map(str::to_owned);
    let ready = |slices: &[Value]| -> Vec<String> {
        let endpoints = slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
        ready.map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ready(&b.imported(&namespace, NAME, &two)), ["10.20.0.1"]);

    // Whether a pod counts as ready is the source's business: nothing is computed anew.
    a.client.patch(Kind::SERVICE, &namespace, NAME, &json!({"spec": {"publishNotReadyAddresses": true}})).unwrap();
    let both = |slices: &[&Value]| {
        let all: Vec<Value> = imported_slices(slices.iter().copied(), NAME).cloned().collect();
        let mut ready = ready(&all);
        ready.sort();
        ready == two
    };
    b.client.wait_all((Kind::SLICE, &namespace), SOON, "both are ready", both).unwrap();

    b.client.delete(Kind::NAMESPACE, "", &namespace).unwrap();
    b.client.wait((Kind::NAMESPACE, "", &namespace), SOON, "gone", |object| object.is_none()).unwrap();
    assert_eq!(addresses(&a.imported(&namespace, NAME, &two)), two);
    b.client.create(&objects::namespace(&namespace)).unwrap();
    b.imported(&namespace, NAME, &two);
    // A namespace's pods go first, and there is no kubelet that ends them.
    for name in ["ready", "waits"] {
        a.client.delete_at_once(Kind::POD, &namespace, name).unwrap();
    }
    a.client.delete(Kind::NAMESPACE, "", &namespace).unwrap();
    b.no_import(&namespace, NAME);
}

#[test]
fn several_services_share_nothing_but_the_cidr() {
    require_api_server!();
    let world = World::shared(Shape::TwoOneIsTheBroker);
    let namespace = world.namespace();
    let [a, b] = [&world.members[0], &world.members[1]];
    let names: Vec<String> = (0..12).map(|number| format!("s{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let member = if number % 2 == 0 { a } else { b };
        member.export(&namespace, &service(&namespace, name));
    }
    let mut seen = Vec::new();
    for name in &names {
        let addressed = |import: &Value| import["spec"]["ips"].as_array().is_some_and(|ips| ips.len() == 2);
        let [at_a, at_b] =
            [a, b].map(|member| member.import(&namespace, name, "addressed", addressed)["spec"]["ips"].clone());
        assert_eq!(at_a, at_b, "{name}");
        seen.extend(at_a.as_array().unwrap().iter().map(|ip| ip.as_str().unwrap().to_owned()));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 2 * names.len(), "each has its own: {seen:?}");
}

/// Not a test of slices: the address of a client of the API server must be usable by those who look at objects only.
#[test]
fn a_server_of_one_family_imports_what_it_can() {
    require_api_server!();
    let server = ApiServer::with_service_cidrs("v4", "10.96.0.0/16").unwrap();
    let broker = ApiServer::start("broker").unwrap();
    mcs_tests::mcs::init_broker(&broker).unwrap();
    let member = crate::world::Member::join(server, &broker).unwrap();
    member.client.create(&objects::namespace("work")).unwrap();
    member.export("work", &service("work", NAME));
    let import =
        member.import("work", NAME, "addressed", |i| i["spec"]["ips"].as_array().is_some_and(|ips| !ips.is_empty()));
    assert_eq!(import["spec"]["ipFamilies"], json!(["IPv4"]), "{import}");
}
