//! Who is privileged, and who is not.

use serde_json::Value;

use crate::rendered::{KUBECTL, containers, kustomize};
use crate::require_programs;

fn text<'a>(value: &'a Value, what: &str) -> &'a str {
    value.as_str().unwrap_or_else(|| panic!("{what}: {value}"))
}

/// What only a privileged pod may do is said where it is done, and the reduced one says what it needs.
#[test]
fn nobody_is_privileged_by_mistake() {
    require_programs!(KUBECTL);
    let privileged = |overlay: &str| -> Vec<String> {
        let objects = kustomize(overlay);
        let containers = containers(&objects);
        let mut names: Vec<String> = containers
            .iter()
            .filter(|container| container["securityContext"]["privileged"] == true)
            .map(|container| text(&container["name"], "name").to_owned())
            .collect();
        names.sort();
        for container in &containers {
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true, "{overlay}: {container}");
            if context["privileged"] != true {
                assert_eq!(context["allowPrivilegeEscalation"], false, "{overlay}: {container}");
                assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]), "{overlay}: {container}");
            }
        }
        names
    };
    assert_eq!(privileged("member"), ["agent"]);
    assert_eq!(privileged("reduced"), [""; 0]);
    assert_eq!(privileged("dns"), [""; 0]);
    assert_eq!(privileged("uninstall"), ["detach", "detached"]);
    let reduced = kustomize("reduced");
    let agent = containers(&reduced).into_iter().find(|container| container["name"] == "agent").unwrap();
    assert_eq!(agent["securityContext"]["capabilities"]["add"], serde_json::json!(["BPF", "NET_ADMIN", "PERFMON"]));
}
