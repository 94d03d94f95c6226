//! Connections, one after the other without a pause, while something else happens.
//!
//! They are made by a shell in the client's pod that needs nobody outside: it goes on while the API server is down.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Kube;
use super::shop::{CLIENT, SHOP};

/// New connections of one process before the next is started.
const BATCH: u32 = 100;

/// A client that asks until it is told to stop.
pub struct Load<'a> {
    kube: &'a Kube,
    cluster: &'a str,
    name: String,
}

/// One connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// When it began, as the machine's time since its start.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// What went wrong: HTTP status and curl's exit code.
    pub failed: Option<String>,
}

/// What it saw.
#[derive(Debug)]
pub struct Seen {
    /// All of them, in order.
    pub connections: Vec<Connection>,
}

impl<'a> Load<'a> {
    /// Starts it in the client of a cluster. Each request is a connection of its own. `host` is as in a URL.
    ///
    /// # Errors
    /// If the client cannot be told.
    pub fn start(kube: &'a Kube, cluster: &'a str, host: &str, name: &str) -> Result<Self> {
        let script = format!(
            "cd /tmp; rm -f {name} {name}.end; (while [ ! -e {name}.end ]; do echo \"# $(cat /proc/uptime)\"; \
             curl -s -m 3 --connect-timeout 1 -o /dev/null -H 'Connection: close' \
             -w '%{{http_code}} %{{exitcode}} %{{time_total}}\\n' 'http://{host}/hostname?n=[1-{BATCH}]'; \
             done > {name} 2>&1; mv {name} {name}.all) </dev/null >/dev/null 2>&1 &",
        );
        kube.exec(cluster, SHOP, CLIENT, &["sh", "-c", &script])?;
        Ok(Self { kube, cluster, name: name.to_owned() })
    }

    /// Stops it, and says what it saw.
    ///
    /// # Errors
    /// If the client cannot be told, or what it says cannot be read.
    pub fn stop(self) -> Result<Seen> {
        let Self { kube, cluster, name } = self;
        let script = format!(
            "cd /tmp; : > {name}.end; n=0; while [ ! -e {name}.all ] && [ $n -lt 3000 ]; do sleep 0.1; n=$((n+1)); done; \
             cat {name}.all; rm -f {name}.all"
        );
        parse(&kube.exec(cluster, SHOP, CLIENT, &["sh", "-c", &script])?)
    }
}

/// Lines `# UPTIME IDLE` before each batch, and `STATUS EXIT SECONDS` for each connection.
fn parse(text: &str) -> Result<Seen> {
    let (mut at, mut connections) = (Duration::ZERO, Vec::new());
    for line in text.lines() {
        let unknown = || format!("the client said {line:?}");
        if let Some(uptime) = line.strip_prefix("# ") {
            at = seconds(uptime.split(' ').next()).with_context(unknown)?;
            continue;
        }
        let (status, rest) = line.split_once(' ').with_context(unknown)?;
        let took = seconds(rest.rsplit(' ').next()).with_context(unknown)?;
        let failed = (status != "200").then(|| line.to_owned());
        connections.push(Connection { at, took, failed });
        at += took;
    }
    Ok(Seen { connections })
}

fn seconds(text: Option<&str>) -> Option<Duration> {
    Duration::try_from_secs_f64(text?.parse().ok()?).ok()
}

/// The machine's time since its start, on the clock of [`Connection::at`].
///
/// # Errors
/// If the kernel does not say.
pub fn uptime() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").context("read /proc/uptime")?;
    seconds(text.split(' ').next()).context("/proc/uptime: no number")
}

impl Seen {
    /// Those that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(|connection| connection.failed.is_some())
    }

    /// From the first to the end of the last.
    #[must_use]
    pub fn time(&self) -> Duration {
        let ends = self.connections.first().zip(self.connections.last());
        ends.map_or(Duration::ZERO, |(first, last)| (last.at + last.took).saturating_sub(first.at))
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let slowest = self.connections.iter().map(|connection| connection.took).max().unwrap_or_default();
        let (asked, failed, time) = (self.connections.len(), self.failed().count(), self.time());
        let rate = asked as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE);
        format!("{asked} connections in {time:.0?} ({rate:.0}/s), {failed} failed, the slowest {slowest:.0?}")
    }

    /// That it asked often, and was always answered.
    ///
    /// # Errors
    /// If not.
    pub fn must_be_whole(&self, during: &str) -> Result<()> {
        eprintln!("{during}: {}", self.line());
        ensure!(self.connections.len() >= 200, "{during}: {} connections are too few to tell", self.connections.len());
        let first = self.failed().next();
        ensure!(first.is_none(), "{during}: {}: {first:?}", self.line());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_follow_each_other_from_the_start_of_their_batch() {
        let seen = parse("# 100.50 3.00\n200 0 0.25\n000 28 1.000000\n# 110.00 4.00\n200 0 0.5\n").unwrap();
        let at: Vec<f64> = seen.connections.iter().map(|connection| connection.at.as_secs_f64()).collect();
        assert_eq!(at, [100.5, 100.75, 110.0]);
        assert_eq!(seen.failed().count(), 1);
        assert_eq!(seen.time(), Duration::from_secs(10));
        assert!(parse("sh: not found").is_err());
    }
}
