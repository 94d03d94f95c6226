//! Runs `ip -batch` inside a network namespace: one process per namespace instead of one per command.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::netns::NetNs;

/// Runs the script's lines in order, up to the first that fails, which the error names.
pub(crate) fn batch(netns: &NetNs, script: &str) -> Result<()> {
    let output = thread::scope(|scope| {
        // A child is born where the thread that forks it is, so no thread but this short-lived one has to move.
        let thread = scope.spawn(|| {
            netns.enter()?;
            run(script)
        });
        thread.join().map_err(|_panic| anyhow!("ip -batch in {}: its thread panicked", netns.name()))?
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip -batch in {}: {}: {}", netns.name(), failed_line(&said, script), said.trim());
    Ok(())
}

fn run(script: &str) -> Result<Output> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut ip = command.spawn().context("start ip -batch")?;
    if let Some(mut stdin) = ip.stdin.take() {
        // A broken pipe only says that it stopped at an error, which it reports itself.
        drop(stdin.write_all(script.as_bytes()));
    }
    ip.wait_with_output().context("run ip -batch")
}

/// `Command failed -:3` → the third line.
fn failed_line<'a>(said: &str, script: &'a str) -> &'a str {
    let number = said.rsplit_once("Command failed -:").map(|(_, rest)| rest.trim());
    let number: Option<usize> = number.and_then(|number| number.parse().ok());
    number.and_then(|number| script.lines().nth(number.checked_sub(1)?)).unwrap_or("unknown line")
}
