//! One run of iperf3, from a pod, read from its JSON.
//!
//! A test of iperf3 is a TCP connection for control and another connection for data, UDP or TCP, to the same address and
//! port; both must meet the same server.

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use mcs_tests::Place;
use mcs_tests::child::{Child, quiet};
use mcs_tests::identity::Protocol;
use serde_json::Value;

/// Where iperf3 servers listen, and ClusterSetIPs for them too.
pub(crate) const PORT: u16 = 5201;
/// A server takes one test at a time and needs a moment between two.
const RETRIES: usize = 30;
const PAUSE: Duration = Duration::from_millis(100);

/// What one run came to.
#[derive(Debug, PartialEq)]
pub(crate) struct Run {
    /// What the server received.
    pub(crate) bits_per_second: f64,
    /// Datagrams that the server did not receive; 0 for TCP.
    pub(crate) lost_percent: f64,
    /// Whom iperf3's data socket believes to be connected to.
    pub(crate) peer: String,
}

/// Starts a server.
pub(crate) fn serve(place: &Place) -> Result<Child> {
    let mut command = Command::new("iperf3");
    command.args(["--server", "--port", &PORT.to_string()]);
    place.spawn(quiet(command))
}

/// Measures for so many seconds, from a pod to an address. UDP sends as fast as it can.
pub(crate) fn run(from: &Place, to: IpAddr, protocol: Protocol, seconds: u32) -> Result<Run> {
    let what = || format!("iperf3 {protocol} to {to}");
    for attempt in 0.. {
        let mut command = Command::new("iperf3");
        command.args(["--json", "--connect-timeout", "3000", "--client", &to.to_string()]);
        command.args(["--port", &PORT.to_string(), "--time", &seconds.to_string()]);
        if protocol == Protocol::Udp {
            command.args(["--udp", "--bitrate", "0"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let output = from.spawn(command)?.wait_with_output()?;
        let said: Value =
            serde_json::from_slice(&output.stdout).with_context(|| format!("{}: parse its JSON", what()))?;
        match said["error"].as_str() {
            None => return parse(&said, protocol).with_context(what),
            Some(error) if attempt < RETRIES && may_pass(error) => thread::sleep(PAUSE),
            Some(error) => bail!("{}: {error}", what()),
        }
    }
    bail!("{}: no attempt", what())
}

/// A server that has not started yet, or not ended the test before.
fn may_pass(error: &str) -> bool {
    error.contains("busy") || error.contains("Connection refused")
}

/// What a run came to, from the JSON of its client.
pub(crate) fn parse(said: &Value, protocol: Protocol) -> Result<Run> {
    // Of UDP runs, "sum" has the sender's rate beside the receiver's losses, "sum_received" both of the receiver where
    // there is one (iperf3 3.8 and later).
    let end = &said["end"];
    let received = &end["sum_received"];
    let number = |value: &Value, what: &str| value.as_f64().with_context(|| format!("its JSON has no {what}"));
    let bits_per_second = number(&received["bits_per_second"], "end.sum_received.bits_per_second")?;
    let lost_percent = match protocol {
        Protocol::Tcp => 0.0,
        Protocol::Udp => number(&received["lost_percent"], "end.sum_received.lost_percent")?,
    };
    let peer = said["start"]["connected"][0]["remote_host"].as_str().context("its JSON has no remote_host")?;
    Ok(Run { bits_per_second, lost_percent, peer: peer.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_server_received_counts() {
        let mut said = json!({
            "start": { "connected": [{ "socket": 5, "remote_host": "fd00:97::2", "remote_port": 5201 }] },
            "end": {
                "sum_sent": { "bits_per_second": 2e9 },
                "sum_received": { "bits_per_second": 1.5e9, "lost_percent": 25.0 },
            },
        });
        let run = |lost_percent| Run { bits_per_second: 1.5e9, lost_percent, peer: "fd00:97::2".to_owned() };
        assert_eq!(parse(&said, Protocol::Udp).unwrap(), run(25.0));
        assert_eq!(parse(&said, Protocol::Tcp).unwrap(), run(0.0));
        said["end"] = json!({});
        let error = parse(&said, Protocol::Tcp).unwrap_err();
        assert!(error.to_string().contains("sum_received"), "{error}");
    }
}
