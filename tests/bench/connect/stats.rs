//! The programs' own run time, as the kernel counts it (`BPF_ENABLE_STATS`): what a miss costs more than nothing is less
//! than the noise of a system call.
//!
//! The kernel reads the clock before and after each run, so that even the empty program shows some tens of nanoseconds:
//! the clock's. It is in all figures alike, and falls out of their differences.

use anyhow::{Context as _, Result, ensure};
use mcs_tests::Family;

use super::meter::{Case, in_turn, reconnects};
use super::variants::Variants;
use crate::bpf::{Hook, run_time_stats};
use crate::figures::{Found, Runs, Table, at_most, digits, quartiles, ratio};

pub(super) fn run(variants: &Variants<'_>, rounds: usize, connects: u32, found: &mut Found) -> Result<()> {
    println!("Programs' run time by the kernel's statistics (its clock's own time is in all of them)");
    let mut table = Table::new(["", "ns", "p25–p75", "ratio", "over empty", "p25–p75"]);
    for (family, hook) in [(Family::V4, Hook::Connect4), (Family::V6, Hook::Connect6)] {
        let [empty, ours] = variants.programs_at(hook)?;
        let program = |case: &Case| if case.name == "empty program" { empty } else { ours };
        let hook = hook.name();
        let cases = Vec::from(variants.stats(family)?);
        let stats = run_time_stats()?;
        let results = in_turn(
            &format!("run-time statistics, {hook}"),
            cases,
            rounds,
            |wanted| variants.attach(wanted),
            |case| {
                let program = program(case);
                let before = program.runs()?;
                reconnects(case, connects)?;
                mean(before, program.runs()?, connects)
            },
        )?;
        drop(stats);
        let (_, empty) = results.first().context("run-time statistics: no variant")?;
        for (case, runs) in &results {
            let figure = runs.figure_against(format!("connect/{hook} run time/{}", case.name), "ns", empty);
            let over = runs.over(empty);
            let is_empty = case.name == "empty program";
            table.row([
                format!("{hook}, {}", case.name),
                digits(figure.value),
                quartiles(runs.spread()),
                ratio(figure.ratio.unwrap_or(f64::NAN)),
                if is_empty { String::new() } else { digits(over.median()) },
                if is_empty { String::new() } else { quartiles(over.spread()) },
            ]);
            found.figures.push(figure);
            if !is_empty {
                found
                    .figures
                    .push(over.figure(format!("connect/{hook} run time/{}: over empty program", case.name), "ns"));
            }
            if case.name.starts_with("miss") {
                note(hook, case, &over, found);
            }
        }
    }
    println!("{table}");
    Ok(())
}

/// A connect to no frontend at all is promised; one to a free address of the ClusterSet's CIDRs is looked up.
fn note(hook: &str, case: &Case, over: &Runs, found: &mut Found) {
    if case.name.ends_with("outside of the CIDRs") {
        let what = format!("{hook}: {} over an empty program (BPF run-time stats)", case.name);
        found.goals.push(at_most(what, over.median(), 10.0, "ns"));
    }
}

/// Nanoseconds a run between two readings.
fn mean((time, runs): (u64, u64), (time_after, runs_after): (u64, u64), connects: u32) -> Result<f64> {
    let (time, runs) = (time_after.saturating_sub(time), runs_after.saturating_sub(runs));
    ensure!(runs >= u64::from(connects), "run-time statistics: {runs} runs counted for {connects} connects");
    Ok(time as f64 / runs as f64)
}
