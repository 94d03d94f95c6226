//! Objects as kustomize and Helm make them of `deploy/`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use mcs_tests::apiserver::find;
use serde_json::Value;

/// The program that reads kustomizations.
pub(crate) const KUBECTL: &str = "kubectl";
/// The program that reads charts.
pub(crate) const HELM: &str = "helm";

/// The server that Helm is to think of: a chart asks for a version.
pub(crate) const KUBE_VERSION: &str = "1.33.0";

/// What a user may apply. The broker's is another cluster's, the last comes when everything else is gone.
pub(crate) const OVERLAYS: [&str; 7] =
    ["member", "reduced", "no-kube-proxy", "monitoring", "dns", "broker", "uninstall"];

/// `deploy/`.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Runs a program of setup's and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(find(program)?);
    command.args(arguments).current_dir(directory()).stdin(Stdio::null());
    let what = || format!("{program} {arguments:?}");
    let output = command.output().with_context(what)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {}", what(), output.status, said.trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// The objects of a kustomization in `deploy/`.
pub(crate) fn kustomize(name: &str) -> Vec<Value> {
    let text = run(KUBECTL, &["kustomize", name]).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    assert!(!objects.is_empty(), "{name}");
    objects
}

/// The objects of the chart with these values (`--set`), its definitions among them.
pub(crate) fn helm(values: &[&str]) -> Result<Vec<Value>> {
    let base =
        ["template", "mcs", "helm/mcs", "--namespace", "mcs-system", "--include-crds", "--kube-version", KUBE_VERSION];
    let sets = values.iter().flat_map(|value| ["--set", *value]);
    let text = run(HELM, &base.into_iter().chain(sets).collect::<Vec<_>>())?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).context("what helm prints")?;
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

/// `kind namespace/name`.
pub(crate) fn name(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

/// The containers of all workloads, those that come first included.
pub(crate) fn containers(objects: &[Value]) -> Vec<Value> {
    let pods = objects.iter().filter_map(|object| object.pointer("/spec/template/spec"));
    let lists = pods.flat_map(|pod| [pod.get("initContainers"), pod.get("containers")]);
    lists.flatten().filter_map(Value::as_array).flatten().cloned().collect()
}

/// Returns from the calling test if setup did not install what it needs, as `require_api_server!` does.
#[macro_export]
macro_rules! require_programs {
    ($($program:expr),+) => {
        for program in [$($program),+] {
            if let Err(why) = ::mcs_tests::apiserver::find(program) {
                let thread = ::std::thread::current();
                ::mcs_tests::privilege::skip(thread.name().unwrap_or("test"), &why.to_string());
                return;
            }
        }
    };
}
