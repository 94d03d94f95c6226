//! iperf3: one server that takes one test at a time, and clients whose JSON answer is read.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mcs_tests::Pod;
use mcs_tests::child::{Child, find_program};
use mcs_tests::identity::Protocol;
use serde_json::Value;

/// How long a server that has just started, or has just ended a test, may refuse.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running server.
pub(crate) struct Server {
    _child: Child,
}

impl Server {
    pub(crate) fn start(pod: &Pod, port: u16) -> Result<Self> {
        ensure!(find_program("iperf3").is_some(), "iperf3: not found in PATH: cargo xtask setup --for bench");
        let mut command = Command::new("iperf3");
        command.args(["-s", "-p", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { _child: pod.spawn(command)? })
    }
}

/// Gbit/s that arrived at the server.
pub(crate) fn measure(from: &Pod, to: SocketAddr, protocol: Protocol, seconds: u32) -> Result<f64> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut command = Command::new("iperf3");
        command.args(["-c", &to.ip().to_string(), "-p", &to.port().to_string(), "-t", &seconds.to_string(), "-J"]);
        if thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
            // Sender and receiver on one each: where the scheduler happens to put them matters more than all else.
            command.args(["-A", "0,1"]);
        }
        if protocol == Protocol::Udp {
            // As fast as it goes.
            command.args(["-u", "-b", "0"]);
        }
        let output = from.output(command)?;
        let answer: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("iperf3 to {to}: {}", String::from_utf8_lossy(&output.stderr)))?;
        match answer["error"].as_str() {
            None => return received(&answer).with_context(|| format!("iperf3 to {to}: no figure of the receiver")),
            Some(_busy) if Instant::now() < end => thread::sleep(Duration::from_millis(100)),
            Some(error) => bail!("iperf3 from {} to {to}: {error}", from.name()),
        }
    }
}

/// Gbit/s that arrived, from the JSON of a client.
pub(crate) fn received(answer: &Value) -> Option<f64> {
    let end = &answer["end"];
    let received = &end["sum_received"];
    // For UDP, iperf3 up to 3.12 or so gives what was sent as `sum`, and how much of it was lost.
    let bits = match received["bytes"].as_f64() {
        Some(bytes) if bytes > 0.0 => received["bits_per_second"].as_f64()?,
        _ => end["sum"]["bits_per_second"].as_f64()? * (1.0 - end["sum"]["lost_percent"].as_f64()? / 100.0),
    };
    Some(bits / 1e9)
}
