//! The whole way of a service, from an empty pair of clusters and back to it.

use mcs_clusters::{Proxy, Shape};
use mcs_tests::kube::Kube;
use mcs_tests::kube::load::Load;
use mcs_tests::kube::shop::{SHOP, addresses, ask, backends, export, host, reaches, web};
use mcs_tests::require_kube;

/// The name under which CoreDNS knows the import.
const NAME: &str = "web.shop.svc.clusterset.local";

fn no_import(kube: &Kube, cluster: &str) {
    let what = format!("no import in {cluster}");
    kube.until(&what, || Ok(kube.get(cluster, "serviceimport", SHOP, "web")?.is_none().then_some(()))).unwrap();
}

/// One cluster's agents are privileged, the other's have three capabilities; the broker is a third API server.
#[test]
fn a_service_of_one_cluster_is_used_in_the_other_and_all_of_it_goes_again() {
    require_kube!();
    let kube = Kube::up(&Shape { broker: true, ..Shape::default() }).unwrap();
    kube.init_broker().unwrap();
    kube.member("c0", "member").unwrap();
    kube.member("c1", "reduced").unwrap();

    // c0 serves, c1 asks: by each address, and by name.
    kube.apply("c0", &web(3)).unwrap();
    kube.rolled_out("c0", SHOP, "deployment/web").unwrap();
    kube.apply("c0", &[export()]).unwrap();
    let ips = addresses(&kube, "c1").unwrap();
    assert_eq!(ips, addresses(&kube, "c0").unwrap(), "one ClusterSetIP in all clusters");
    for ip in &ips {
        reaches(&kube, "c1", &host(ip), &backends(&kube, "c0").unwrap()).unwrap();
    }
    reaches(&kube, "c1", NAME, &backends(&kube, "c0").unwrap()).unwrap();
    reaches(&kube, "c0", NAME, &backends(&kube, "c0").unwrap()).unwrap();
    let status = kube.exec("c1", "mcs-system", "daemonset/mcs-agent", &["/mcs", "status"]).unwrap();
    eprintln!("mcs status in an agent's pod of c1:\n{status}");

    kube.kubectl("c0", &["-n", SHOP, "scale", "deployment/web", "--replicas=5"]).unwrap();
    kube.rolled_out("c0", SHOP, "deployment/web").unwrap();
    reaches(&kube, "c1", &ips[0], &backends(&kube, "c0").unwrap()).unwrap();

    // Nothing that is replaced costs a connection: backends that drain, agents, controllers.
    let load = Load::start(&kube, "c1", &ips[0], "backends").unwrap();
    kube.kubectl("c0", &["-n", SHOP, "rollout", "restart", "deployment/web"]).unwrap();
    kube.rolled_out("c0", SHOP, "deployment/web").unwrap();
    load.stop().unwrap().must_be_whole("rolling restart of the backends").unwrap();
    let load = Load::start(&kube, "c1", &ips[0], "agents").unwrap();
    for workload in ["daemonset/mcs-agent", "deployment/mcs-controller"] {
        kube.kubectl("c1", &["-n", "mcs-system", "rollout", "restart", workload]).unwrap();
    }
    kube.running("c1").unwrap();
    load.stop().unwrap().must_be_whole("rolling restart of agents and controllers").unwrap();
    reaches(&kube, "c1", &ips[0], &backends(&kube, "c0").unwrap()).unwrap();

    // Unexported, it is gone: refused or unreachable at once, never sent elsewhere.
    kube.kubectl("c0", &["-n", SHOP, "delete", "serviceexport", "web"]).unwrap();
    no_import(&kube, "c1");
    let error = kube.until("no answer any more", || Ok(ask(&kube, "c1", &ips[0]).err())).unwrap();
    assert!(format!("{error:#}").contains("curl: (7)"), "{error:#}");

    // A leave takes its exports along, an uninstall leaves nothing on nodes.
    no_import(&kube, "c0");
    kube.apply("c1", &web(1)).unwrap();
    kube.apply("c1", &[export()]).unwrap();
    kube.rolled_out("c1", SHOP, "deployment/web").unwrap();
    let ips = addresses(&kube, "c0").unwrap();
    reaches(&kube, "c0", &ips[0], &backends(&kube, "c1").unwrap()).unwrap();
    let kubeconfig = kube.kubeconfig("c1").unwrap().display().to_string();
    kube.mcs(&["leave", "--kubeconfig", &kubeconfig]).unwrap();
    no_import(&kube, "c0");
    for node in ["c1n0", "c1n1"] {
        assert!(kube.left_on(node).unwrap().contains("/sys/fs/bpf/mcs"), "{node}: that something was there");
    }
    kube.remove("c1", "reduced").unwrap();
    kube.deploy("c1", "uninstall").unwrap();
    kube.rolled_out("c1", "mcs-uninstall", "daemonset/mcs-uninstall").unwrap();
    kube.remove("c1", "uninstall").unwrap();
    for node in ["c1n0", "c1n1"] {
        assert_eq!(kube.left_on(node).unwrap(), "", "{node}");
    }
}

/// Nobody serves the API server's ClusterIP: its own address is given, as `deploy/no-kube-proxy` does.
#[test]
fn without_kube_proxy_the_api_servers_address_is_given() {
    require_kube!();
    let shape = Shape { nodes: 1, proxies: vec![Proxy::None], broker: true, ..Shape::default() };
    let kube = Kube::up(&shape).unwrap();
    kube.init_broker().unwrap();
    for cluster in ["c0", "c1"] {
        let (server, _) = kube.clusters().cluster(cluster).unwrap().control_plane();
        let settings = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "mcs-system", "name": "mcs-settings"},
            "data": {"KUBERNETES_SERVICE_HOST": server, "KUBERNETES_SERVICE_PORT": "6443"},
        });
        kube.apply(
            cluster,
            &[serde_json::json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mcs-system"},
            })],
        )
        .unwrap();
        kube.apply(cluster, &[settings]).unwrap();
        kube.member(cluster, "member").unwrap();
    }
    kube.apply("c0", &web(2)).unwrap();
    kube.apply("c0", &[export()]).unwrap();
    kube.rolled_out("c0", SHOP, "deployment/web").unwrap();
    for ip in addresses(&kube, "c1").unwrap() {
        reaches(&kube, "c1", &host(&ip), &backends(&kube, "c0").unwrap()).unwrap();
    }
    reaches(&kube, "c1", NAME, &backends(&kube, "c0").unwrap()).unwrap();
}
