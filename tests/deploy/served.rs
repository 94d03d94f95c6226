//! A real API server takes every kustomization, with its strictest validation: no field is misspelt or out of place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use mcs_tests::apiserver::ApiServer;
use mcs_tests::child::find_program;
use mcs_tests::client::Kind;
use mcs_tests::{mcs as verbs, privilege, require_api_server};
use serde_json::Value;

use crate::rendered::{KUBECTL, OVERLAYS, kustomize, name, run};
use crate::require_programs;

/// Where the kinds of Prometheus Operator are defined.
const OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";

/// The definitions of the kinds that `deploy/monitoring` uses, out of their Go module.
fn definitions() -> Result<Vec<PathBuf>> {
    // Where setup looks for it: in PATH, and where its own installer puts it.
    let installed = Path::new("/usr/local/go/bin/go");
    let go = if find_program("go").is_none() && installed.is_file() { installed } else { Path::new("go") };
    let mut download = Command::new(go);
    download.args(["mod", "download", "-json", OPERATOR]).env("GOFLAGS", "-mod=mod").current_dir(std::env::temp_dir());
    let output = download.stdin(Stdio::null()).output().context("start go")?;
    let answer: Value = serde_json::from_slice(&output.stdout).context("go mod download: no answer")?;
    let dir = answer["Dir"].as_str().with_context(|| format!("go mod download {OPERATOR}: {}", answer["Error"]))?;
    let crds = PathBuf::from(dir).join("example/prometheus-operator-crd");
    let files =
        ["servicemonitors", "prometheusrules"].map(|kind| crds.join(format!("monitoring.coreos.com_{kind}.yaml")));
    for file in &files {
        ensure!(file.is_file(), "{}: not there", file.display());
    }
    Ok(files.into())
}

fn apply(server: &ApiServer, arguments: &[&str]) -> Result<String> {
    let kubeconfig = server.kubeconfig().display().to_string();
    let base = ["--kubeconfig", &kubeconfig, "apply", "--server-side", "--validate=strict"];
    run(KUBECTL, &base.into_iter().chain(arguments.iter().copied()).collect::<Vec<_>>())
}

#[test]
fn a_real_api_server_takes_every_overlay() {
    require_api_server!();
    require_programs!(KUBECTL);
    let server = ApiServer::start("a").unwrap();
    let mut overlays = OVERLAYS.to_vec();
    match definitions() {
        Ok(files) => {
            for file in files {
                apply(&server, &["-f", &file.display().to_string()]).unwrap();
            }
        }
        Err(why) => {
            privilege::skip("served::a_real_api_server_takes_every_overlay (monitoring)", &format!("{why:#}"));
            overlays.retain(|overlay| *overlay != "monitoring");
        }
    }
    for overlay in overlays {
        let said = apply(&server, &["-k", overlay]).unwrap_or_else(|error| panic!("{overlay}: {error:#}"));
        let applied = said.lines().filter(|line| line.ends_with("serverside-applied")).count();
        assert_eq!(applied, kustomize(overlay).len(), "{overlay}: {said}");
    }
    // A misspelt field would have been refused.
    let wrong = server.dir().join("wrong.yaml");
    let agent =
        kustomize("member").into_iter().find(|object| name(object) == "DaemonSet mcs-system/mcs-agent").unwrap();
    let mut agent = agent;
    agent["spec"]["template"]["spec"]["hostnetwork"] = true.into();
    fs::write(&wrong, agent.to_string()).unwrap();
    let error = apply(&server, &["-f", &wrong.display().to_string()]).unwrap_err();
    assert!(error.to_string().contains("hostnetwork"), "{error:#}");
}

/// In either order, and again: neither takes from the other what is its own.
#[test]
fn a_join_changes_nothing_of_what_was_deployed() {
    require_api_server!();
    require_programs!(KUBECTL);
    let server = ApiServer::start("a").unwrap();
    apply(&server, &["-k", "broker"]).unwrap();
    apply(&server, &["-k", "member"]).unwrap();
    let client = server.client().unwrap();
    let accounts = || {
        let kinds = ["ClusterRole", "ClusterRoleBinding"].map(|kind| Kind::new("rbac.authorization.k8s.io/v1", kind));
        let all = kinds.into_iter().flat_map(|kind| client.list(kind, "").unwrap());
        let ours = all.filter(|object| object["metadata"]["labels"]["app.kubernetes.io/part-of"] == "mcs");
        ours.map(|object| (name(&object), object["rules"].clone())).collect::<Vec<_>>()
    };
    let before = accounts();
    assert!(before.iter().any(|(name, _)| name == "ClusterRole /mcs-agent"), "{before:?}");
    verbs::init_broker(&server).unwrap();
    verbs::run(verbs::join_arguments(&server, &server, "a")).unwrap();
    let after = accounts();
    for role in &before {
        assert!(after.contains(role), "{role:?}: not in {after:?}");
    }
    apply(&server, &["-k", "member"]).unwrap();
    assert_eq!(accounts(), after);
    let labels =
        client.get(Kind::new("v1", "Namespace"), "", "mcs-system").unwrap().unwrap()["metadata"]["labels"].clone();
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "privileged");
}
