//! `cargo xtask test`: every tier in turn, and a table at the end.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    child, image, lint,
    setup::{self, Group},
    vm,
    workspace::Workspace,
};

/// The kernels of the tier `vm`: Debian 12's and Debian 13's.
const KERNELS: [&str; 2] = ["6.1", "6.12"];

/// Run the tests, tier by tier, cheap ones first; stop at the first tier that fails.
///
/// Tiers: `lint` (with --lint or under CI=true), `build`, `unit` (unit and property tests of every package), then each
/// [[test]] target of tests/Cargo.toml (golden, kernel, e2e, …), and with --full `vm`, and `clusters` and `kube`, which bring
/// real clusters up.
///
/// Tests that need root or a kernel feature say so and pass when it is missing, and fail under CI=true.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this tier; repeatable.
    #[arg(long = "tier", value_name = "NAME")]
    tiers: Vec<String>,
    /// Full size: MCS_TEST_FULL=1 for the tests, and the kernel tier on other kernels (`cargo xtask vm 6.1 6.12`).
    #[arg(long)]
    full: bool,
    /// Lint first; under CI=true this is the default.
    #[arg(long)]
    lint: bool,
    /// Test the optimized build.
    #[arg(long)]
    release: bool,
    /// Arguments for the test binaries, such as a part of a test's name, --nocapture, --test-threads=1.
    #[arg(last = true, value_name = "ARGS")]
    pass: Vec<String>,
}

/// `cargo xtask test`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::open()?;
    let tiers = choose(args, &workspace.tiers, env::var("CI").is_ok_and(|ci| ci == "true"))?;
    setup::need(&[Group::Test])?;
    let mut rows: Vec<Row> = tiers.iter().map(|tier| Row::new(tier.clone())).collect();
    let mut failure = None;
    for row in &mut rows {
        println!("\n=== {}", row.tier);
        let start = Instant::now();
        let result = run_tier(&row.tier, args, &workspace, &mut row.counts);
        row.time = Some(start.elapsed());
        println!("=== {}: {}", row.tier, setup::seconds(start.elapsed()));
        if let Err(error) = result {
            failure = Some(error.context(format!("tier {}", row.tier)));
            row.failed = true;
            break;
        }
    }
    println!("\n{}", table(&rows));
    match failure {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The tiers to run, in order. A tier of tests/ brings `build`: some run target/debug/mcs itself, and cargo does not build
/// the program of another package for a test, so by itself it would judge the program of the last build.
fn choose(args: &Args, discovered: &[String], ci: bool) -> Result<Vec<String>> {
    let known: Vec<&str> =
        ["lint", "build", "unit"].into_iter().chain(discovered.iter().map(String::as_str)).chain(["vm"]).collect();
    if let Some(unknown) = args.tiers.iter().find(|tier| !known.contains(&tier.as_str())) {
        bail!("tier {unknown}: not known: there are {}", known.join(", "));
    }
    let wanted = |tier: &str| {
        if args.tiers.iter().any(|named| named == tier) {
            return true;
        }
        if tier == "build" && args.tiers.iter().any(|named| discovered.contains(named)) {
            return true;
        }
        args.tiers.is_empty()
            && match tier {
                "lint" => args.lint || ci,
                "vm" | "clusters" | "kube" => args.full,
                _ => true,
            }
    };
    Ok(known.into_iter().filter(|tier| wanted(tier)).map(str::to_owned).collect())
}

fn run_tier(tier: &str, args: &Args, workspace: &Workspace, counts: &mut Counts) -> Result<()> {
    match tier {
        "lint" => lint::check(workspace),
        "vm" => vm::kernels(workspace, &KERNELS.map(str::to_owned), &args.pass),
        "build" => build(args, workspace),
        "unit" => cargo_test(&["--lib", "--bins"], args, workspace, None, counts),
        // Real clusters run the image, one test's at a time.
        "clusters" | "kube" => {
            setup::need(&[Group::Cluster])?;
            if tier == "kube" {
                image::for_tests()?;
            }
            cargo_test(&["--test", tier], args, workspace, Some(1), counts)
        }
        tier => {
            // A test here is a set of processes in network namespaces. It mostly waits, so a small machine runs more of
            // them than it has cores; but each holds maps of many megabytes, so a big machine runs few.
            let threads = thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
            cargo_test(&["--test", tier], args, workspace, Some(threads), counts)
        }
    }
}

/// Builds all that the tiers need, binaries included.
fn build(args: &Args, workspace: &Workspace) -> Result<()> {
    let build = ["build", "--workspace", "--lib", "--bins", "--tests"];
    child::run(child::cargo(build).args(profile(args)).current_dir(&workspace.root))
}

/// The simulator makes millions of decisions, so what decides is optimized for it, and so is the world around it; their
/// assertions and the planted faults stay.
const OPTIMIZED: [&str; 4] = [
    "--config",
    "profile.dev.package.mcs-userspace.opt-level=2",
    "--config",
    "profile.dev.package.mcs-tests.opt-level=2",
];

fn profile(args: &Args) -> Option<&'static str> {
    args.release.then_some("--release")
}

/// `cargo test --workspace` and a selection. Always the whole workspace: with `-p mcs-tests` cargo would choose
/// other features for the dependencies and build all of them a second time.
fn cargo_test(
    selection: &[&str],
    args: &Args,
    workspace: &Workspace,
    threads: Option<usize>,
    counts: &mut Counts,
) -> Result<()> {
    let mut test = child::cargo(["test", "--workspace"]);
    if selection.contains(&"simulator") && !args.release {
        test.args(OPTIMIZED).env("CARGO_INCREMENTAL", "0");
    }
    test.args(selection)
        .args(profile(args))
        .arg("--")
        .args(&args.pass)
        .current_dir(&workspace.root)
        .stdout(Stdio::piped());
    // By environment, so that `-- --test-threads=1` still decides.
    if let Some(threads) = threads
        && env::var_os("RUST_TEST_THREADS").is_none()
    {
        test.env("RUST_TEST_THREADS", threads.to_string());
    }
    if args.full {
        test.env("MCS_TEST_FULL", "1");
    }
    let mut running = test.spawn().with_context(|| format!("start {}", child::show(&test)))?;
    if let Some(stdout) = running.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("read the tests' output")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            counts.add(&line);
        }
    }
    let status = running.wait().context("wait for cargo test")?;
    if !status.success() {
        bail!("{}: {status}", child::show(&test));
    }
    Ok(())
}

/// What the test binaries' own summary lines say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Counts {
    /// Adds a line like `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`.
    fn add(&mut self, line: &str) {
        let Some((_, results)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in results.split(';') {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|word| word.parse::<usize>().ok());
            let (Some(number), Some(what)) = (number, words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// A tier in the table; without a time it was not reached.
#[derive(Debug)]
struct Row {
    tier: String,
    time: Option<Duration>,
    failed: bool,
    counts: Counts,
}

impl Row {
    fn new(tier: String) -> Self {
        Self { tier, time: None, failed: false, counts: Counts::default() }
    }
}

fn table(rows: &[Row]) -> String {
    let mut lines = vec![format!("{:<10} {:>9}  {:<8} tests", "tier", "time", "result")];
    for Row { tier, time, failed, counts } in rows {
        let result = match (time, failed) {
            (None, _) => "not run",
            (Some(_), true) => "FAILED",
            (Some(_), false) => "ok",
        };
        let time = time.map(setup::seconds).unwrap_or_default();
        let mut line = format!("{tier:<10} {time:>9}  {result:<8}");
        if *counts != Counts::default() {
            let Counts { passed, failed, ignored } = counts;
            line += &format!(" {passed} passed, {failed} failed, {ignored} ignored");
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(tiers: &[&str], full: bool) -> Args {
        Args {
            tiers: tiers.iter().map(|tier| (*tier).to_owned()).collect(),
            full,
            lint: false,
            release: false,
            pass: Vec::new(),
        }
    }

    #[test]
    fn tiers_come_in_order_whatever_the_order_of_the_flags() {
        let discovered = ["golden".to_owned(), "kernel".to_owned()];
        let chosen = |args: &Args, ci| choose(args, &discovered, ci).unwrap();
        assert_eq!(chosen(&args(&[], false), false), ["build", "unit", "golden", "kernel"]);
        assert_eq!(chosen(&args(&[], true), true), ["lint", "build", "unit", "golden", "kernel", "vm"]);
        assert_eq!(chosen(&args(&["kernel", "unit"], false), true), ["build", "unit", "kernel"]);
        assert_eq!(chosen(&args(&["unit"], false), true), ["unit"]);
        let error = choose(&args(&["kernle"], false), &discovered, false).unwrap_err();
        assert!(error.to_string().contains("golden, kernel"), "{error}");
    }

    #[test]
    fn counts_add_up_over_binaries_and_ignore_other_lines() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.1s");
        counts.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        counts.add("test x ... ok");
        counts.add("test result: nonsense");
        let sum = Counts { passed: 13, failed: 2, ignored: 1 };
        assert_eq!(counts, sum);
    }

    #[test]
    fn the_table_shows_what_was_not_reached() {
        let mut rows = ["unit", "kernel", "e2e"].map(|tier| Row::new(tier.to_owned()));
        rows[0].time = Some(Duration::from_millis(1500));
        rows[0].counts.passed = 3;
        rows[1].time = Some(Duration::from_secs(2));
        rows[1].failed = true;
        let expected = "tier            time  result   tests\n\
                        unit           1.5 s  ok       3 passed, 0 failed, 0 ignored\n\
                        kernel         2.0 s  FAILED\n\
                        e2e                   not run";
        assert_eq!(table(&rows), expected);
    }
}
