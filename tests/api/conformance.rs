//! Upstream's conformance rules that need no pods, in substance: C1–C13 and C15–C17 of mcs-api's suite, each on two
//! members of which one is the broker, and on three with a bare API server as broker. The names are upstream's numbers.

use std::net::IpAddr;
use std::time::Instant;

use mcs_tests::client::{Change, Kind, has_condition};
use mcs_tests::require_api_server;
use serde_json::{Value, json};

use crate::objects::{
    SLICE_CONTROLLER, addresses, export, headless, label, labelled_export, port, service, with_ports,
};
use crate::world::{Shape, World, imported_slices};
use crate::{QUIET, SOON};

/// Makes a test for each shape of world out of a function of a world.
macro_rules! on_two_and_three {
    ($($name:ident: $check:ident;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn on_two_and_one_is_the_broker() {
                require_api_server!();
                $check(&World::shared(Shape::TwoOneIsTheBroker));
            }

            #[test]
            fn on_three() {
                require_api_server!();
                $check(&World::shared(Shape::ThreeAndABroker));
            }
        })*
    };
}

on_two_and_three! {
    c1: lives_as_long_as_an_export;
    c2: a_cluster_ip_service_is_imported_everywhere;
    c3_c4_c5: policies_are_the_services;
    c6: an_address_for_each_family;
    c7: ports_are_the_services;
    c8: ports_are_united_and_differences_shown;
    c9: the_older_port_wins;
    c10_c11: headless_services_have_no_address;
    c12: external_names_are_refused;
    c13: the_older_type_wins;
    c15: only_what_is_exported_of_labels;
    c16: the_older_labels_win;
    c17: slices_carry_labels_and_go;
}

const NAME: &str = "hello";

/// Exports from the second member, so much later that its export is the younger one to the second.
fn export_from_second(world: &World, namespace: &str, service: &Value, export: &Value) {
    let first = world.members[0].client.get(Kind::EXPORT, namespace, NAME).unwrap().unwrap();
    let second = &world.members[1];
    second.client.apply(service).unwrap();
    let began = Instant::now();
    // Creation times have seconds: until the second's clock says another one than the first's export.
    loop {
        let made = second.client.apply(export).unwrap();
        if made["metadata"]["creationTimestamp"].as_str() > first["metadata"]["creationTimestamp"].as_str() {
            return;
        }
        assert!(began.elapsed() < SOON, "the clock stands");
        second.client.delete(Kind::EXPORT, namespace, NAME).unwrap();
    }
}

fn lives_as_long_as_an_export(world: &World) {
    let namespace = world.namespace();
    let [a, b] = [&world.members[0], &world.members[1]];
    let service = service(&namespace, NAME);
    a.export(&namespace, &service);
    for member in &world.members {
        member.import(&namespace, NAME, "there", |_| true);
    }
    // From here on the import must neither go nor be another object until the last export is gone.
    let mut follows: Vec<_> =
        world.members.iter().map(|member| member.client.follow(Kind::IMPORT, &namespace).unwrap()).collect();
    b.export(&namespace, &service);
    a.import(&namespace, NAME, "both export", |import| {
        import["status"]["clusters"].as_array().is_some_and(|c| c.len() == 2)
    });
    a.unexport(&namespace, NAME);
    a.import(&namespace, NAME, "the second exports", |import| {
        import["status"]["clusters"] == json!([{"cluster": b.id}])
    });
    let ips: Vec<Value> = follows
        .iter_mut()
        .map(|follow| {
            follow.always(QUIET, "the import stays", |_, change| !matches!(change, Change::Deleted(_))).unwrap();
            let import = follow.objects().next().expect("an import");
            import["spec"]["ips"].clone()
        })
        .collect();
    assert!(ips.windows(2).all(|pair| pair[0] == pair[1]), "one address everywhere: {ips:?}");
    b.unexport(&namespace, NAME);
    for member in &world.members {
        member.no_import(&namespace, NAME);
    }
}

fn a_cluster_ip_service_is_imported_everywhere(world: &World) {
    let namespace = world.namespace();
    let a = &world.members[0];
    a.export(&namespace, &service(&namespace, NAME));
    let export = a.exported(&namespace, NAME, "Valid", "True");
    assert!(has_condition(&export, "Valid", "True", "Valid"), "{export}");
    for member in &world.members {
        let import = member
            .import(&namespace, NAME, "from a", |import| import["status"]["clusters"] == json!([{"cluster": a.id}]));
        assert_eq!(import["spec"]["type"], "ClusterSetIP", "{import}");
    }
    a.exported(&namespace, NAME, "Ready", "True");
    a.unexport(&namespace, NAME);
    for member in &world.members {
        member.no_import(&namespace, NAME);
    }
}

fn policies_are_the_services(world: &World) {
    let namespace = world.namespace();
    let a = &world.members[0];
    let mut service = service(&namespace, NAME);
    service["spec"]["internalTrafficPolicy"] = "Cluster".into();
    service["spec"]["trafficDistribution"] = "PreferClose".into();
    a.export(&namespace, &service);
    for member in &world.members {
        let import = member.import(&namespace, NAME, "there", |_| true);
        for field in ["sessionAffinity", "sessionAffinityConfig", "internalTrafficPolicy", "trafficDistribution"] {
            assert_eq!(import["spec"][field], service["spec"][field], "{field} at {}: {import}", member.id);
        }
    }
}

fn an_address_for_each_family(world: &World) {
    let namespace = world.namespace();
    world.members[0].export(&namespace, &service(&namespace, NAME));
    let mut seen = Vec::new();
    for member in &world.members {
        // One may be there before the other, but never more addresses than families.
        let addressed = |import: &Value| import["spec"]["ips"].as_array().is_some_and(|ips| ips.len() == 2);
        let import = member.import(&namespace, NAME, "addressed", addressed);
        let (ips, families) = (&import["spec"]["ips"], &import["spec"]["ipFamilies"]);
        assert_eq!(ips.as_array().map(Vec::len), Some(2), "{import}");
        assert_eq!(families.as_array().map(Vec::len), Some(2), "{import}");
        for (ip, family) in ips.as_array().unwrap().iter().zip(families.as_array().unwrap()) {
            let ip: IpAddr = ip.as_str().unwrap().parse().unwrap();
            assert_eq!(family, if ip.is_ipv4() { "IPv4" } else { "IPv6" }, "{import}");
        }
        seen.push(ips.clone());
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "one address everywhere: {seen:?}");
}

/// The ports of an import, by name.
fn ports(import: &Value) -> Vec<Value> {
    let mut ports = import["spec"]["ports"].as_array().cloned().unwrap_or_default();
    ports.sort_by_key(|port| port["name"].as_str().unwrap_or_default().to_owned());
    ports
}

fn ports_are_the_services(world: &World) {
    let namespace = world.namespace();
    world.members[0].export(&namespace, &service(&namespace, NAME));
    for member in &world.members {
        let import = member.import(&namespace, NAME, "there", |_| true);
        assert_eq!(ports(&import), [port("tcp", "TCP", 42), port("udp", "UDP", 42)], "{import}");
    }
}

fn ports_are_united_and_differences_shown(world: &World) {
    let namespace = world.namespace();
    let service = service(&namespace, NAME);
    world.members[0].export(&namespace, &service);
    let other = with_ports(service, &[port("tcp", "TCP", 42), port("stcp", "SCTP", 142)]);
    export_from_second(world, &namespace, &other, &export(&namespace, NAME));
    for member in &world.members[..2] {
        let export = member.exported(&namespace, NAME, "Conflict", "True");
        assert!(has_condition(&export, "Conflict", "True", "PortConflict"), "{export}");
    }
    let united = [port("stcp", "SCTP", 142), port("tcp", "TCP", 42), port("udp", "UDP", 42)];
    for member in &world.members {
        member.import(&namespace, NAME, "has all ports", |import| ports(import) == united);
    }
}

fn the_older_port_wins(world: &World) {
    let namespace = world.namespace();
    let service = with_ports(service(&namespace, NAME), &[port("tcp", "TCP", 42)]);
    world.members[0].export(&namespace, &service);
    let other = with_ports(service, &[port("tcp", "TCP", 43)]);
    export_from_second(world, &namespace, &other, &export(&namespace, NAME));
    for member in &world.members[..2] {
        member.exported(&namespace, NAME, "Conflict", "True");
    }
    for member in &world.members {
        let both = |import: &Value| import["status"]["clusters"].as_array().is_some_and(|clusters| clusters.len() == 2);
        let import = member.import(&namespace, NAME, "from both", both);
        assert_eq!(ports(&import), [port("tcp", "TCP", 42)], "{import}");
    }
}

fn headless_services_have_no_address(world: &World) {
    let namespace = world.namespace();
    let a = &world.members[0];
    a.export(&namespace, &headless(service(&namespace, NAME)));
    let mut follows = Vec::new();
    for member in &world.members {
        // Optional in the API, but readers cannot do without.
        let with_families =
            |import: &Value| import["spec"]["ipFamilies"].as_array().is_some_and(|families| !families.is_empty());
        let import = member.import(&namespace, NAME, "with families", with_families);
        assert_eq!(import["spec"]["type"], "Headless", "{import}");
        follows.push(member.client.follow(Kind::IMPORT, &namespace).unwrap());
    }
    for follow in &mut follows {
        let addressless = |imports: &[&Value], _: &Change| {
            imports.iter().all(|import| import["spec"]["ips"].as_array().is_none_or(Vec::is_empty))
        };
        follow.always(QUIET, "no address", addressless).unwrap();
    }
    a.unexport(&namespace, NAME);
    for member in &world.members {
        member.no_import(&namespace, NAME);
    }
}

fn external_names_are_refused(world: &World) {
    let namespace = world.namespace();
    let a = &world.members[0];
    let mut service = service(&namespace, NAME);
    service["spec"] = json!({"type": "ExternalName", "externalName": "example.com"});
    let mut follow = world.members[1].client.follow(Kind::IMPORT, &namespace).unwrap();
    a.export(&namespace, &service);
    let export = a.exported(&namespace, NAME, "Valid", "False");
    assert!(has_condition(&export, "Valid", "False", "InvalidServiceType"), "{export}");
    follow.always(QUIET, "no import", |imports, _| imports.is_empty()).unwrap();
}

fn the_older_type_wins(world: &World) {
    let namespace = world.namespace();
    let service = service(&namespace, NAME);
    world.members[0].export(&namespace, &service);
    export_from_second(world, &namespace, &headless(service), &export(&namespace, NAME));
    for member in &world.members[..2] {
        let export = member.exported(&namespace, NAME, "Conflict", "True");
        let reason = mcs_tests::client::condition(&export, "Conflict").unwrap()["reason"].as_str().unwrap();
        assert!(reason.split(',').any(|reason| reason == "TypeConflict"), "{export}");
    }
    for member in &world.members {
        let import = member.import(&namespace, NAME, "from both", |import| {
            import["status"]["clusters"].as_array().is_some_and(|clusters| clusters.len() == 2)
        });
        assert_eq!(import["spec"]["type"], "ClusterSetIP", "{import}");
    }
}

fn only_what_is_exported_of_labels(world: &World) {
    let namespace = world.namespace();
    let a = &world.members[0];
    a.client.apply(&service(&namespace, NAME)).unwrap();
    a.client.apply(&labelled_export(&namespace, NAME, "dummy-label")).unwrap();
    for member in &world.members {
        let import = member.import(&namespace, NAME, "labelled", |import| label(import, "dummy-label") == Some("true"));
        assert_eq!(import["metadata"]["annotations"]["dummy-label"], "true", "{import}");
        for kind in ["labels", "annotations"] {
            for key in ["dummy-svc", "dummy-svcexport"] {
                assert!(import["metadata"][kind][key].is_null(), "{kind} {key}: {import}");
            }
        }
    }
}

fn the_older_labels_win(world: &World) {
    let namespace = world.namespace();
    let (a, service) = (&world.members[0], service(&namespace, NAME));
    a.client.apply(&service).unwrap();
    a.client.apply(&labelled_export(&namespace, NAME, "first")).unwrap();
    export_from_second(world, &namespace, &service, &labelled_export(&namespace, NAME, "second"));
    for member in &world.members[..2] {
        let export = member.exported(&namespace, NAME, "Conflict", "True");
        let reason = mcs_tests::client::condition(&export, "Conflict").unwrap()["reason"].as_str().unwrap();
        assert_eq!(reason, "LabelsConflict,AnnotationsConflict", "{export}");
    }
    for member in &world.members {
        let import = member.import(&namespace, NAME, "labelled", |import| label(import, "first") == Some("true"));
        assert!(label(&import, "second").is_none(), "{import}");
        assert!(import["metadata"]["annotations"]["second"].is_null(), "{import}");
    }
}

fn slices_carry_labels_and_go(world: &World) {
    let namespace = world.namespace();
    let (a, service) = (&world.members[0], service(&namespace, NAME));
    a.export(&namespace, &service);
    let expected = a.endpoints(&namespace, &service, &[1, 2]);
    let mut names = Vec::new();
    for member in &world.members {
        let slices = member.imported(&namespace, NAME, &expected);
        let import = member.import(&namespace, NAME, "has families and slices", |import| {
            import["spec"]["ipFamilies"].is_array() && import["status"]["endpointSliceObjects"] == "Present"
        });
        for family in import["spec"]["ipFamilies"].as_array().unwrap() {
            let of_family: Vec<_> = slices.iter().filter(|slice| &slice["addressType"] == family).collect();
            assert_eq!(addresses(of_family.iter().copied()).len(), 2, "{family}: {slices:?}");
        }
        for slice in &slices {
            assert_eq!(label(slice, "multicluster.kubernetes.io/source-cluster"), Some(a.id.as_str()), "{slice}");
            let manager = label(slice, "endpointslice.kubernetes.io/managed-by");
            assert!(manager.is_some_and(|manager| manager != SLICE_CONTROLLER), "{slice}");
            // Consumers of the local Service must not take them for its own.
            assert!(label(slice, "kubernetes.io/service-name").is_none(), "{slice}");
        }
        names.push(slices.iter().map(|slice| slice["metadata"]["name"].clone()).collect::<Vec<_>>());
    }
    a.unexport(&namespace, NAME);
    for (member, names) in world.members.iter().zip(&names) {
        let gone = |slices: &[&Value]| !slices.iter().any(|slice| names.contains(&slice["metadata"]["name"]));
        member.client.wait_all((Kind::SLICE, &namespace), SOON, "slices gone", gone).unwrap();
        // What Kubernetes wrote is nobody's business but its own.
        let rest = member.client.list(Kind::SLICE, &namespace).unwrap();
        assert_eq!(rest.len(), if member.id == a.id { 2 } else { 0 }, "{rest:?}");
        assert_eq!(imported_slices(&rest, NAME).count(), 0);
    }
}
