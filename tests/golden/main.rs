//! The golden tier: manifests in, the text of the maps and the problems out. No kernel, no privilege.
//!
//! A case is `cases/NAME.yaml`, or a directory `cases/NAME` with one step after another:
//!
//! | file | what it does in step 2 |
//! | --- | --- |
//! | `2.yaml` | is the new text of the manifest `all.yaml` |
//! | `2.a.json` | is the new text of `a.json` |
//! | `2.a.json.gone` | removes `a.json` |
//!
//! `cases/NAME.tables` is what has to come out, `MCS_BLESS=1` writes it. The agent runs on node `n1` of cluster `a`; a
//! first line `# zone=z1 prefer-local-cluster` adds flags.

#![expect(clippy::unwrap_used, reason = "clippy allows it in functions marked as tests only, not in those they call")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use mcs::desired::NodeContext;
use mcs::dump::without_ids;
use mcs::maps::Sizes;
use mcs::maps::fake::FakeMaps;
use mcs::model::Event;
use mcs::problem::{Problem, Severity};
use mcs::programmer::Programmer;
use mcs::source::dir::DirState;
use mcs::tables::Tables;

const SIZES: Sizes = Sizes { services: 64, slots: 1024, members: 256, sources: 256, clusters: 16 };

/// What changes in a step: names of files, with their new text or none if they go.
type Step = BTreeMap<String, Option<String>>;

#[test]
fn cases() {
    let bless = std::env::var_os("MCS_BLESS").is_some_and(|value| value == "1");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/cases");
    let cases = list(&dir).into_iter().filter(|path| path.extension().is_none_or(|ending| ending != "tables"));
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in cases {
        count += 1;
        let got = outcome(&steps(&case));
        let path = case.with_extension("tables");
        if bless {
            fs::write(&path, got).unwrap();
            continue;
        }
        match fs::read_to_string(&path) {
            Ok(expected) if expected == got => {}
            Ok(expected) => wrong.push(format!("{}:\n{}", path.display(), difference(&expected, &got))),
            Err(error) => wrong.push(format!("{}: {error}; MCS_BLESS=1 writes it:\n{got}", path.display())),
        }
    }
    assert!(count > 0, "no cases in {}", dir.display());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort_unstable();
    paths
}

fn steps(case: &Path) -> BTreeMap<u32, Step> {
    let mut steps: BTreeMap<u32, Step> = BTreeMap::new();
    if !case.is_dir() {
        let text = fs::read_to_string(case).unwrap();
        steps.entry(1).or_default().insert("all.yaml".to_owned(), Some(text));
        return steps;
    }
    for path in list(case) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let (step, file) = name.split_once('.').unwrap();
        let step = steps.entry(step.parse().unwrap_or_else(|_| panic!("{}: no step", path.display()))).or_default();
        match file.strip_suffix(".gone") {
            Some(file) => step.insert(file.to_owned(), None),
            None => {
                let file = if file.contains('.') { file.to_owned() } else { format!("all.{file}") };
                step.insert(file, Some(fs::read_to_string(&path).unwrap()))
            }
        };
    }
    steps
}

fn context(first: &str) -> NodeContext {
    let flags = first.lines().next().and_then(|line| line.strip_prefix('#')).unwrap_or_default();
    let mut ctx = NodeContext {
        cluster: "a".into(),
        node: "n1".into(),
        zone: None,
        prefer_local_cluster: false,
        cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/48".parse().unwrap()],
    };
    for flag in flags.split_whitespace() {
        match flag.split_once('=') {
            Some(("zone", zone)) => ctx.zone = Some(zone.into()),
            None if flag == "prefer-local-cluster" => ctx.prefer_local_cluster = true,
            Some(_) | None => panic!("{flag}: no flag of a golden case"),
        }
    }
    ctx
}

/// Runs a case. Whatever it says after each step is the golden text.
fn outcome(steps: &BTreeMap<u32, Step>) -> String {
    let first = steps.values().next().and_then(|step| step.values().next()).cloned().flatten().unwrap_or_default();
    let mut programmer = Programmer::new(context(&first), FakeMaps::new(SIZES)).unwrap();
    let mut state = DirState::default();
    let mut files: BTreeMap<&str, &str> = BTreeMap::new();
    let mut text = String::new();
    for (number, step) in steps {
        for (name, content) in step {
            match content {
                Some(content) => {
                    files.insert(name, content);
                    state.file_read(name, Ok(content.as_bytes()));
                }
                None => {
                    files.remove(&**name);
                    state.file_gone(name);
                }
            }
        }
        let mut settled = state.settle();
        for name in std::mem::take(&mut settled.reread) {
            state.file_read(&name, Ok(files[&*name].as_bytes()));
        }
        settled.events.extend(state.settle().events);
        if text.is_empty() {
            settled.events.push(Event::Synced);
        }
        if steps.len() > 1 {
            writeln!(text, "=== {number}: {}", changes(&settled.events)).unwrap();
        }
        let outcome = programmer.handle(settled.events, &mut || Ok(()));
        assert!(outcome.settled && outcome.failures.is_empty(), "{outcome:?}");

        let services = programmer.tables().unwrap().services;
        let tables =
            Tables { services: services.into_iter().map(|(key, service)| (key, without_ids(service))).collect() };
        // the long form has shares in per cent, and no ids as there are none
        write!(text, "{tables:#}").unwrap();
        let mut problems: Vec<Problem> = state.problems().cloned().chain(programmer.problems()).collect();
        problems.sort_unstable();
        for problem in problems {
            let severity = match problem.severity {
                Severity::Notice => "notice",
                Severity::Invalid => "invalid",
                Severity::NoRoom => "no room",
            };
            writeln!(text, "{severity}: {problem}").unwrap();
        }
    }
    text
}

/// What a step's events were, in a few words.
fn changes(events: &[Event]) -> String {
    let words: Vec<String> = events
        .iter()
        .map(|event| match event {
            Event::Apply(object) => format!("apply {}", object.id()),
            Event::Delete(id) => format!("delete {id}"),
            Event::Synced => "synced".to_owned(),
        })
        .collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// Both texts with what only one of them has marked.
fn difference(expected: &str, got: &str) -> String {
    let (expected, got): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), got.lines().collect());
    let only = |mark: &str, lines: &[&str], other: &[&str]| -> String {
        lines.iter().filter(|line| !other.contains(line)).map(|line| format!("  {mark} {line}\n")).collect()
    };
    format!("{}{}  got in full:\n    {}\n", only("-", &expected, &got), only("+", &got, &expected), got.join("\n    "))
}
