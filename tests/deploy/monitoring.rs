//! Alerts and dashboard: Prometheus' own tools take them, they fire when they should, and they ask for metrics that there
//! are.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use mcs_tests::apiserver::find;
use mcs_tests::child::find_program;
use mcs_tests::privilege;
use serde_json::{Value, json};

use crate::rendered::directory;

/// Prometheus' own checker.
const PROMTOOL: &str = "promtool";

/// What Prometheus itself says of a target.
const PROMETHEUS_OWN: [&str; 1] = ["up"];

fn file(name: &str) -> String {
    fs::read_to_string(directory().join("components/monitoring").join(name)).unwrap()
}

fn promtool(arguments: &[&str]) -> Result<String> {
    let program = find_program(PROMTOOL).map_or_else(|| find(PROMTOOL), Ok)?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory().join("components/monitoring")).stdin(Stdio::null());
    let output = command.output().context("start promtool")?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "promtool {arguments:?}: {}: {said}", output.status);
    Ok(said)
}

#[test]
fn alerts_fire_when_they_should() {
    if let Err(why) = find_program(PROMTOOL).map_or_else(|| find(PROMTOOL), Ok) {
        return privilege::skip("monitoring::alerts_fire_when_they_should", &why.to_string());
    }
    promtool(&["check", "rules", "alerts.yaml"]).unwrap();
    promtool(&["test", "rules", "alerts-test.yaml"]).unwrap();
}

/// The operator's object is the rules file in an envelope.
#[test]
fn the_operators_rules_are_the_rules() {
    let rules: Value = serde_saphyr::from_str(&file("alerts.yaml")).unwrap();
    let rule = json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
        "metadata": {"labels": {"app.kubernetes.io/part-of": "mcs"}, "name": "mcs", "namespace": "mcs-system"},
        "spec": rules,
    });
    let text = format!("# Generated from alerts.yaml.\n{}", serde_saphyr::to_string(&rule).unwrap());
    let path = directory().join("components/monitoring/prometheus-rule.yaml");
    if std::env::var_os("MCS_REGENERATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let stale = "prometheus-rule.yaml is stale: MCS_REGENERATE=1 cargo test -p mcs-tests --test deploy operators_rules";
    assert!(fs::read_to_string(&path).unwrap_or_default() == text, "{stale}");
}

/// Names that begin as ours do, and [`PROMETHEUS_OWN`].
fn metrics(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("mcs_") || PROMETHEUS_OWN.contains(word));
    ours.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

/// Expressions of alerts and of the dashboard's panels.
fn expressions() -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| walk(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = Vec::new();
    walk(&serde_saphyr::from_str::<Value>(&file("alerts.yaml")).unwrap(), &mut found);
    walk(&serde_json::from_str::<Value>(&file("dashboard.json")).unwrap(), &mut found);
    found
}

/// What the sources name as metrics: `gauge("name", …`, `family(…, "name", …`, `histograms("name", …`.
fn named_in_sources() -> BTreeSet<String> {
    let source = directory().join("../mcs-userspace/src");
    let mut found = BTreeSet::new();
    for path in ["controller/metrics.rs", "agent/metrics.rs"] {
        let text = fs::read_to_string(source.join(path)).unwrap();
        let literals = text.split('"').skip(1).step_by(2);
        let is_name = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        found.extend(literals.filter(is_name).map(|name| format!("mcs_{name}")));
    }
    found
}

#[test]
fn every_metric_that_is_asked_for_is_there() {
    let (known, expressions) = (named_in_sources(), expressions());
    assert!(expressions.len() > 30, "{}", expressions.len());
    assert!(known.contains("mcs_withdrawals_held") && !known.contains("mcs_nonsense"));
    for expression in expressions {
        let asked = metrics(&expression);
        assert!(!asked.is_empty(), "{expression}");
        for metric in asked {
            // A map's name in a label's value is none.
            assert!(known.contains(&metric) || PROMETHEUS_OWN.contains(&metric.as_str()), "{metric} in {expression}");
        }
    }
}
