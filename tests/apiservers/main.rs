//! `cargo run -p mcs-tests --bin apiservers -- 3`: real API servers to try things with, until Ctrl-C.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use mcs_tests::apiserver::ApiServer;

/// Starts API servers (etcd and kube-apiserver each, no nodes), prints the admins' kubeconfigs, and waits for Ctrl-C, which
/// removes everything.
#[derive(Debug, Parser)]
#[command(name = "apiservers")]
struct Args {
    /// How many.
    #[arg(default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=20))]
    count: u8,
    /// Run kube-controller-manager with these controllers beside each, such as namespace-controller.
    #[arg(long, value_delimiter = ',', value_name = "CONTROLLER")]
    controllers: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("apiservers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let servers = ApiServer::start_many(args.count.into())?;
    let mut stdout = std::io::stdout();
    for server in &servers {
        if !args.controllers.is_empty() {
            server.controller_manager(&args.controllers.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        writeln!(stdout, "{} {} {}", server.name(), server.url(), server.kubeconfig().display())?;
    }
    stdout.flush()?;
    loop {
        // Signals end the process, after everything was removed.
        std::thread::park();
    }
}
