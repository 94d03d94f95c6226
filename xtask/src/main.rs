//! Everything a developer types, as `cargo xtask VERB`. One module per verb; the doc comments on the arguments are the
//! developers' manual, so read `cargo xtask --help` and `cargo xtask VERB --help`.
//!
//! ```text
//!  verbs      setup   test   lint   demo   vm   bench   cluster   image
//!               │      │      │      │     │     │        │        │
//!  tools      child (processes)  workspace (cargo metadata)  debian::{sources, suite} (packages of any suite)
//! ```

#![allow(clippy::print_stdout, reason = "a tool for a person at a terminal: stdout is its interface")]

mod bench;
mod child;
mod cluster;
mod debian;
mod demo;
mod image;
mod lint;
mod setup;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's own commands.
///
/// On a fresh machine two are enough: `cargo xtask demo` and `cargo xtask test`. Both install what is missing first
/// (`cargo xtask setup` does only that).
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Setup(setup::Args),
    Test(test::Args),
    Lint(lint::Args),
    Demo(demo::Args),
    Vm(vm::Args),
    Bench(bench::Args),
    Cluster(cluster::Args),
    Image(image::Args),
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Lint(args) => lint::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Vm(args) => vm::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Cluster(args) => cluster::run(args),
        Verb::Image(args) => image::run(&args),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
