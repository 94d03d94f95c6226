//! Manifests fit the program: flags that it knows, settings that it reads, images of one name.

use std::collections::BTreeSet;

use mcs_tests::mcs::verb;
use serde_json::Value;

use crate::rendered::{KUBECTL, OVERLAYS, containers, kustomize};
use crate::require_programs;

/// What the environment of every program may set.
const OTHERS: [&str; 2] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];

fn text<'a>(value: &'a Value, what: &str) -> &'a str {
    value.as_str().unwrap_or_else(|| panic!("{what}: {value}"))
}

#[test]
fn the_program_knows_flags_and_settings() {
    require_programs!(KUBECTL);
    let mut verbs = BTreeSet::new();
    for overlay in OVERLAYS {
        let objects = kustomize(overlay);
        let maps = objects
            .iter()
            .filter(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == "mcs-settings");
        let settings: Vec<String> =
            maps.filter_map(|map| map["data"].as_object()).flat_map(|data| data.keys().cloned()).collect();
        for container in containers(&objects) {
            let arguments: Vec<&str> =
                container["args"].as_array().unwrap().iter().map(|word| text(word, "args")).collect();
            // Asking for help comes after the flags were read.
            let output = verb(arguments.iter().copied().chain(["--help"])).unwrap();
            let help = String::from_utf8_lossy(&output.stdout).into_owned();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{overlay}: mcs {arguments:?}: {said}");
            let named = container["env"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|variable| text(&variable["name"], "env").to_owned());
            for variable in named.chain(settings.iter().cloned()) {
                let known = help.contains(&format!("[env: {variable}=")) || OTHERS.contains(&variable.as_str());
                assert!(known, "{overlay}: mcs {}: no setting {variable}", arguments[0]);
            }
            verbs.insert(arguments[0].to_owned());
        }
    }
    assert_eq!(verbs.into_iter().collect::<Vec<_>>(), ["agent", "controller", "detach", "dns"]);
}

#[test]
fn flags_that_the_program_does_not_know_are_seen() {
    assert!(!verb(["agent", "--sorce=kube", "--help"]).unwrap().status.success());
}
