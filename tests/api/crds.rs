//! Our definitions of upstream's kinds: field by field what upstream's module says, and taken by a real API server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use mcs::api::crds::IMPLEMENTED_RELEASE;
use mcs::api::schema_difference::differences;
use mcs_tests::apiserver::ApiServer;
use mcs_tests::child::find_program;
use mcs_tests::client::{Kind, condition};
use mcs_tests::{mcs as verbs, privilege, require_api_server};
use serde_json::{Value, json};

use crate::SOON;
use crate::objects::{export, namespace};

/// What `mcs crds` prints.
fn ours() -> Vec<Value> {
    let text = verbs::run(["crds"]).unwrap();
    serde_saphyr::from_multiple::<Value>(&text).unwrap()
}

/// The directory of upstream's definitions, out of the Go module that we say that we implement.
fn upstream() -> Result<PathBuf> {
    let module = format!("sigs.k8s.io/mcs-api@{IMPLEMENTED_RELEASE}");
    // Where setup looks for it: in PATH, and where its own installer puts it.
    let installed = Path::new("/usr/local/go/bin/go");
    let go = if find_program("go").is_none() && installed.is_file() { installed } else { Path::new("go") };
    let mut download = Command::new(go);
    download.args(["mod", "download", "-json", &module]).env("GOFLAGS", "-mod=mod").current_dir(std::env::temp_dir());
    let output = download.stdin(Stdio::null()).output().context("start go")?;
    let answer: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("go mod download {module}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
    })?;
    ensure!(answer["Error"].is_null(), "go mod download {module}: {}", answer["Error"]);
    let dir = answer["Dir"].as_str().with_context(|| format!("go mod download {module}: no directory"))?;
    Ok(PathBuf::from(dir).join("config/crd"))
}

#[test]
fn every_field_is_upstreams() {
    let dir = match upstream() {
        Ok(dir) => dir,
        Err(why) => return privilege::skip("crds::every_field_is_upstreams", &format!("{why:#}")),
    };
    let ours = ours();
    let mut compared = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let theirs: Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let name = &theirs["metadata"]["name"];
        let ours = ours.iter().find(|crd| crd["metadata"]["name"] == *name).unwrap_or_else(|| panic!("no {name}"));
        let found: Vec<String> = differences(ours, &theirs).iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{name}:\n{}", found.join("\n"));
        compared += 1;
    }
    assert_eq!(compared, 2, "{}", dir.display());
}

#[test]
fn both_versions_are_served_and_keep_everything() {
    require_api_server!();
    let server = ApiServer::start("a").unwrap();
    let client = server.client().unwrap();
    for crd in ours() {
        client.apply(&crd).unwrap();
        let name = crd["metadata"]["name"].as_str().unwrap();
        let established = |object: Option<&Value>| {
            object.and_then(|crd| condition(crd, "Established")).is_some_and(|found| found["status"] == "True")
        };
        client.wait((Kind::CRD, "", name), SOON, "Established", established).unwrap();
    }
    client.create(&namespace("work")).unwrap();
    let mut first = export("work", "hello");
    first["apiVersion"] = "multicluster.x-k8s.io/v1alpha1".into();
    first["spec"] = json!({"exportedLabels": {"l": "1"}, "exportedAnnotations": {"a": "2"}});
    client.create(&first).unwrap();
    let status = json!({"status": {"conditions": [{
        "type": "Valid", "status": "True", "reason": "Valid", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }]}});
    client.patch_status(Kind::EXPORT, "work", "hello", &status).unwrap();
    for kind in [Kind::EXPORT, Kind::EXPORT_V1ALPHA1] {
        let read = client.get(kind, "work", "hello").unwrap().unwrap();
        assert_eq!(read["apiVersion"], kind.api_version);
        assert_eq!((&read["spec"], &read["status"]), (&first["spec"], &status["status"]), "{read}");
    }

    let spec = json!({
        "type": "ClusterSetIP", "ips": ["10.97.0.1", "fd00:97::1"], "ipFamilies": ["IPv4", "IPv6"],
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "appProtocol": "http"}],
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
        "internalTrafficPolicy": "Local", "trafficDistribution": "PreferClose",
    });
    let import = json!({
        "apiVersion": Kind::IMPORT.api_version, "kind": "ServiceImport",
        "metadata": {"namespace": "work", "name": "hello"}, "spec": spec,
    });
    client.create(&import).unwrap();
    let status = json!({"status": {"clusters": [{"cluster": "a"}], "endpointSliceObjects": "Present"}});
    client.patch_status(Kind::IMPORT, "work", "hello", &status).unwrap();
    for kind in [Kind::IMPORT, Kind::IMPORT_V1ALPHA1] {
        let read = client.get(kind, "work", "hello").unwrap().unwrap();
        assert_eq!((&read["spec"], &read["status"]), (&spec, &status["status"]), "{read}");
    }
    let property = json!({
        "apiVersion": Kind::PROPERTY.api_version, "kind": "ClusterProperty",
        "metadata": {"name": "cluster.clusterset.k8s.io"}, "spec": {"value": "a"},
    });
    client.create(&property).unwrap();
    client
        .get(Kind::new("about.k8s.io/v1alpha1", "ClusterProperty"), "", "cluster.clusterset.k8s.io")
        .unwrap()
        .unwrap();
}
