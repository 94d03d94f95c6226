use serde_json::{Value, json};

use super::*;

fn crd(name: &str) -> CustomResourceDefinition {
    all().into_iter().find(|crd| crd.name_any() == name).unwrap()
}

/// A schema as one line a field: path, then what is asked of it. Descriptions are left out.
fn facts(schema: &Value) -> Vec<String> {
    fn walk(path: &str, schema: &Value, facts: &mut Vec<String>) {
        let asked: Vec<String> = schema
            .as_object()
            .unwrap()
            .iter()
            .filter(|(key, _)| !["description", "properties", "items", "additionalProperties"].contains(&key.as_str()))
            .map(|(key, value)| match value {
                Value::String(text) => format!("{key}={text}"),
                Value::Number(number) => format!("{key}={}", number.as_f64().unwrap()),
                other @ (Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => format!("{key}={other}"),
            })
            .collect();
        facts.push(format!("{path} {}", asked.join(" ")));
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, facts);
        }
        for (keyword, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
            if let Some(inner) = schema.get(keyword) {
                walk(&format!("{path}{mark}"), inner, facts);
            }
        }
    }
    let mut lines = Vec::new();
    for (name, property) in schema["properties"].as_object().unwrap() {
        walk(name, property, &mut lines);
    }
    lines
}

/// What upstream's `config/crd` says, in the words of [`facts`].
const EXPORT: &str = "
apiVersion type=string
kind type=string
metadata type=object
spec type=object
spec.exportedAnnotations type=object
spec.exportedAnnotations{} type=string
spec.exportedLabels type=object
spec.exportedLabels{} type=string
status type=object
";

const IMPORT: &str = r#"
apiVersion type=string
kind type=string
metadata type=object
spec required=["ports","type"] type=object
spec.internalTrafficPolicy type=string
spec.ipFamilies maxItems=2 type=array
spec.ipFamilies[] type=string
spec.ips maxItems=2 type=array
spec.ips[] type=string
spec.ports type=array x-kubernetes-list-type=atomic
spec.ports[] required=["port"] type=object
spec.ports[].appProtocol type=string
spec.ports[].name type=string
spec.ports[].port format=int32 type=integer
spec.ports[].protocol type=string
spec.sessionAffinity type=string
spec.sessionAffinityConfig type=object
spec.sessionAffinityConfig.clientIP type=object
spec.sessionAffinityConfig.clientIP.timeoutSeconds format=int32 type=integer
spec.trafficDistribution type=string
spec.type enum=["ClusterSetIP","Headless"] type=string
status type=object
status.clusters type=array x-kubernetes-list-map-keys=["cluster"] x-kubernetes-list-type=map
status.clusters[] required=["cluster"] type=object
status.clusters[].cluster type=string
"#;

const CONDITIONS: &str = r#"
status.conditions type=array x-kubernetes-list-map-keys=["type"] x-kubernetes-list-type=map
status.conditions[] required=["lastTransitionTime","message","reason","status","type"] type=object
status.conditions[].lastTransitionTime format=date-time type=string
status.conditions[].message maxLength=32768 type=string
status.conditions[].observedGeneration format=int64 minimum=0 type=integer
status.conditions[].reason maxLength=1024 minLength=1 pattern=^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$ type=string
status.conditions[].status enum=["True","False","Unknown"] type=string
status.conditions[].type maxLength=316 pattern=^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$ type=string
"#;

const SLICE_OBJECTS: &str = r#"status.endpointSliceObjects enum=["Present","Absent"] type=string"#;

const PROPERTY: &str = r#"
apiVersion type=string
kind type=string
metadata type=object
spec required=["value"] type=object
spec.value minLength=1 type=string
status type=object
"#;

#[test]
fn every_field_of_both_versions_is_asked_what_upstream_asks() {
    for (name, expected) in [
        ("serviceexports.multicluster.x-k8s.io", format!("{EXPORT}{CONDITIONS}")),
        ("serviceimports.multicluster.x-k8s.io", format!("{IMPORT}{CONDITIONS}{SLICE_OBJECTS}")),
        ("clusterproperties.about.k8s.io", PROPERTY.to_owned()),
    ] {
        let expected: Vec<&str> = expected.lines().filter(|line| !line.is_empty()).collect();
        let spec = serde_json::to_value(crd(name).spec).unwrap();
        let versions = spec["versions"].as_array().unwrap();
        let served: Vec<_> = versions.iter().map(|v| (&v["name"], &v["served"], &v["storage"])).collect();
        let [first, second] = VERSIONS.map(Value::from);
        assert_eq!(served, [(&first, &true.into(), &false.into()), (&second, &true.into(), &true.into())], "{name}");
        for version in versions {
            let schema = &version["schema"]["openAPIV3Schema"];
            assert_eq!(facts(schema), expected, "{name}");
            assert_eq!((&schema["type"], schema.get("required")), (&json!("object"), None), "{name}");
            assert_eq!(version["subresources"], json!({"status": {}}), "{name}");
        }
    }
}

#[test]
fn names_labels_and_columns_are_upstreams() {
    let columns = |name: &str| {
        let spec = serde_json::to_value(crd(name).spec).unwrap();
        let columns = spec["versions"][0]["additionalPrinterColumns"].as_array().unwrap().clone();
        assert_eq!(Value::from(columns.clone()), spec["versions"][1]["additionalPrinterColumns"]);
        let text = |column: &Value, key: &str| column[key].as_str().unwrap().to_owned();
        columns.iter().map(|c| ["name", "type", "jsonPath"].map(|key| text(c, key)).join(" ")).collect::<Vec<_>>()
    };
    let age = "date .metadata.creationTimestamp";
    let (export, import, property) = (
        "serviceexports.multicluster.x-k8s.io",
        "serviceimports.multicluster.x-k8s.io",
        "clusterproperties.about.k8s.io",
    );
    assert_eq!(columns(export), [format!("Age {age}")]);
    assert_eq!(columns(import), ["Type string .spec.type", "IP string .spec.ips", &format!("Age {age}")]);
    assert_eq!(columns(property), ["value string .spec.value", &format!("age {age}")]);

    let names = |name: &str| serde_json::to_value(crd(name).spec.names).unwrap();
    assert_eq!(
        names(export),
        json!({"kind": "ServiceExport", "plural": "serviceexports", "singular": "serviceexport", "shortNames": ["svcex", "svcexport"]})
    );
    assert_eq!(
        names(import),
        json!({"kind": "ServiceImport", "plural": "serviceimports", "singular": "serviceimport", "shortNames": ["svcim", "svcimport"]})
    );
    assert_eq!(
        names(property),
        json!({
            "kind": "ClusterProperty", "listKind": "ClusterPropertyList", "plural": "clusterproperties",
            "singular": "clusterproperty", "categories": ["multicluster"]
        })
    );
    for (name, scope) in [(export, "Namespaced"), (import, "Namespaced"), (property, "Cluster")] {
        assert_eq!(crd(name).spec.scope, scope);
    }
    for name in [export, import] {
        let labels = crd(name).metadata.labels.unwrap();
        assert_eq!((labels[RELEASE_VERSION].as_str(), labels[SCHEMA_REVISION].as_str()), ("v0.5.2", "0"));
    }
    assert_eq!(
        crd(property).metadata.annotations.unwrap()["api-approved.kubernetes.io"],
        "https://github.com/kubernetes/enhancements/pull/3084"
    );
}

#[test]
fn a_newer_crd_is_told_by_its_labels_or_by_a_version_of_its_own() {
    let ours = crd("serviceimports.multicluster.x-k8s.io");
    let why = |release: &str, revision: &str| {
        let mut installed = ours.clone();
        let labels = installed.metadata.labels.get_or_insert_default();
        labels.insert(RELEASE_VERSION.to_owned(), release.to_owned());
        labels.insert(SCHEMA_REVISION.to_owned(), revision.to_owned());
        newer(&installed, &ours, RELEASE_VERSION, SCHEMA_REVISION)
    };
    assert_eq!(why("v0.5.2", "0"), None);
    assert_eq!(why("v0.4.9", "7"), None);
    assert_eq!(why("v0.5.2-rc1", "0"), None);
    assert_eq!(why("of our own", "0"), None);
    assert_eq!(why("v0.5.2", "1").unwrap(), "v0.5.2 revision 1 is installed");
    assert_eq!(why("v0.10.0", "0").unwrap(), "v0.10.0 revision 0 is installed");
    assert_eq!(why("v1.0", "0").unwrap(), "v1.0 revision 0 is installed");

    let mut installed = ours.clone();
    installed.metadata.labels = None;
    assert_eq!(newer(&installed, &ours, RELEASE_VERSION, SCHEMA_REVISION), None);
    installed.spec.versions[1].name = "v1".to_owned();
    assert_eq!(newer(&installed, &ours, RELEASE_VERSION, SCHEMA_REVISION).unwrap(), "version v1 is installed");
}

#[test]
fn an_installed_crd_must_be_there_to_stay_and_serve_our_version() {
    let mut installed = crd("serviceimports.multicluster.x-k8s.io");
    let check = |installed: Option<&CustomResourceDefinition>| {
        check_installed("serviceimports.multicluster.x-k8s.io", installed)
    };
    assert_eq!(check(Some(&installed)), Ok(()));
    assert!(check(None).unwrap_err().contains("not installed: run `mcs join`"));
    installed.spec.versions.retain(|version| version.name == "v1alpha1");
    assert!(check(Some(&installed)).unwrap_err().contains("does not serve v1beta1"));
}

#[test]
fn deploy_has_what_the_types_say() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds");
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let mut expected: Vec<_> = all().iter().map(|crd| format!("{}.yaml", crd.name_any())).collect();
    expected.push("kustomization.yaml".to_owned());
    expected.sort();
    assert_eq!(files, expected);
    for crd in all() {
        let path = format!("{directory}/{}.yaml", crd.name_any());
        let text = crate::broker::documents::documents(&[&crd]).unwrap();
        if std::env::var_os("MCS_REGENERATE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == text,
            "{path} is stale: MCS_REGENERATE=1 cargo test -p mcs-userspace --lib deploy_has"
        );
    }
}
