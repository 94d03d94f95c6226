//! DNS servers for the ClusterSet's zone: `mcs dns`, a real CoreDNS beside it, and `dig` to ask both.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::agent::mcs_binary;
use crate::apiserver::port::Port;
use crate::apiserver::{ApiServer, find};
use crate::child::{Child, find_program};
use crate::mcs::tail;

/// The program that is compared with.
pub const COREDNS: &str = "coredns";
/// The zone of all tests.
pub const ZONE: &str = "clusterset.local";
/// How long a server may take to answer; a busy machine takes ten times what an idle one does.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How often a server that starts is asked.
const POLL: Duration = Duration::from_millis(50);
/// How much of a log goes into an error.
const LOG_LINES: usize = 30;

/// What is missing for comparing with CoreDNS, if anything is.
#[must_use]
pub fn missing() -> Option<String> {
    crate::apiserver::missing().or_else(|| {
        let no_coredns = || find(COREDNS).err().map(|error| format!("{error:#}"));
        let no_dig = || find_program("dig").is_none().then(|| "dig is not installed: cargo xtask setup".to_owned());
        no_coredns().or_else(no_dig)
    })
}

/// A DNS server on a port of the loopback interface. Dropping it kills it.
pub struct DnsServer {
    name: String,
    addr: SocketAddr,
    log: PathBuf,
    child: Child,
    _port: Port,
}

impl DnsServer {
    /// CoreDNS with its `multicluster` option, on an API server's objects. `prefix` is put before the command line, for
    /// instance `taskset -c 1`.
    pub fn coredns(server: &ApiServer, prefix: &[&str]) -> Result<Self> {
        let port = Port::reserve()?;
        let corefile = server.dir().join("Corefile");
        let text = format!(
            "{ZONE}:{port} {{\n bind 127.0.0.1\n kubernetes {ZONE} {{\n  kubeconfig {kubeconfig}\n  multicluster {ZONE}\n }}\n}}\n",
            port = port.number(),
            kubeconfig = server.kubeconfig().display(),
        );
        fs::write(&corefile, text).with_context(|| format!("write {}", corefile.display()))?;
        let mut command = prefixed(prefix, &find(COREDNS)?);
        command.arg("-conf").arg(corefile);
        Self::start("CoreDNS", command, server.dir(), port)
    }

    /// CoreDNS without objects of its own, that asks another server for the zone.
    pub fn forwarding(dir: &Path, to: &Self) -> Result<Self> {
        let port = Port::reserve()?;
        let corefile = dir.join("Corefile.forward");
        let text = format!(
            "{ZONE}:{port} {{\n bind 127.0.0.1\n errors\n forward . {to} {{\n  max_fails 1\n  health_check 100ms\n }}\n}}\n",
            port = port.number(),
            to = to.addr,
        );
        fs::write(&corefile, text).with_context(|| format!("write {}", corefile.display()))?;
        let mut command = Command::new(find(COREDNS)?);
        command.arg("-conf").arg(corefile);
        Self::start("CoreDNS that forwards", command, dir, port)
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&self) {
        self.child.kill();
    }

    /// `mcs dns` with a source, for instance `dir:/path`, and more arguments. Its log is in `dir`.
    pub fn mcs(dir: &Path, source: &[&str], arguments: &[&str], prefix: &[&str]) -> Result<Self> {
        let port = Port::reserve()?;
        let mut command = prefixed(prefix, &mcs_binary()?);
        let listen = format!("127.0.0.1:{}", port.number());
        command.args(["dns", "--listen", &listen, "--zone", ZONE]).args(source).args(arguments);
        Self::start("mcs dns", command, dir, port)
    }

    fn start(name: &str, command: Command, dir: &Path, port: Port) -> Result<Self> {
        let log = dir.join(format!("{}-{}.log", name.replace(' ', "-"), port.number()));
        let addr = SocketAddr::from(([127, 0, 0, 1], port.number()));
        let child = Child::start_here(command, &log)?;
        let server = Self { name: name.to_owned(), addr, log, child, _port: port };
        server.wait("the zone", "dns-version", "TXT", |answer| answer.status == "NOERROR" && answer.count() == 1)?;
        Ok(server)
    }

    /// Where it answers.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Asks for a name in the zone, or for one that ends with a dot. `options` are dig's, for instance `+tcp`.
    pub fn dig(&self, name: &str, rtype: &str, options: &[&str]) -> Result<Answer> {
        let port = self.addr.port().to_string();
        let name = match name {
            "" => ZONE.to_owned(),
            name if name.ends_with('.') => name.to_owned(),
            name => format!("{name}.{ZONE}"),
        };
        let mut command = Command::new("dig");
        command.args(["+noall", "+comments", "+answer", "+authority", "+additional", "+norec", "+nocookie"]);
        command.args(["+time=5", "+tries=2", "+ignore", "-p", &port, "@127.0.0.1"]).args(options);
        command.args(["-q", &name, "-t", rtype]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = Child::spawn_here(command, format!("dig {name} {rtype}"))?.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "dig {name} {rtype} at {}: {}: {text}", self.name, output.status);
        Answer::read(&text).with_context(|| format!("dig {name} {rtype} at {}: {text}", self.name))
    }

    /// Asks until the answer is as it should be.
    pub fn wait(&self, what: &str, name: &str, rtype: &str, is_good: impl Fn(&Answer) -> bool) -> Result<Answer> {
        let end = Instant::now() + READY_LIMIT;
        loop {
            let answer = self.dig(name, rtype, &[]);
            if let Ok(answer) = answer
                && is_good(&answer)
            {
                return Ok(answer);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended, {status}: {}", self.name, tail(&self.log, LOG_LINES));
            }
            if Instant::now() >= end {
                let last = self.dig(name, rtype, &[]);
                bail!("{}: {what}: not in {READY_LIMIT:?}: {last:?}\n{}", self.name, tail(&self.log, LOG_LINES));
            }
            thread::sleep(POLL);
        }
    }
}

fn prefixed(prefix: &[&str], program: &Path) -> Command {
    match prefix {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    }
}

/// What a server said, in dig's words. Records are sorted, their names in lower case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// `NOERROR`, `NXDOMAIN`, …
    pub status: String,
    /// `qr aa tc …`, in dig's order.
    pub flags: Vec<String>,
    /// The answer's records, each on a line, fields with one space between.
    pub answer: Vec<String>,
    /// The authority section's.
    pub authority: Vec<String>,
    /// The additional section's, without the OPT record.
    pub additional: Vec<String>,
}

impl Answer {
    /// How many records the answer has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.answer.len()
    }

    /// Whether a flag is set, for instance `tc`.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|one| one == flag)
    }

    fn read(text: &str) -> Result<Self> {
        let mut read = Self::default();
        let mut section = None;
        for line in text.lines() {
            if let Some((_, rest)) = line.split_once("status: ") {
                rest.split(',').next().context("no status")?.clone_into(&mut read.status);
            } else if let Some(rest) = line.strip_prefix(";; flags: ") {
                let flags = rest.split(';').next().unwrap_or_default();
                read.flags = flags.split_whitespace().map(str::to_owned).collect();
            } else if line.ends_with("SECTION:") {
                section = Some(line.to_owned());
            } else if !line.starts_with(';') && !line.is_empty() {
                let record = line.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase();
                match section.as_deref() {
                    Some(";; ANSWER SECTION:") => read.answer.push(record),
                    Some(";; AUTHORITY SECTION:") => read.authority.push(record),
                    Some(";; ADDITIONAL SECTION:") => read.additional.push(record),
                    other => bail!("a record in {other:?}: {line}"),
                }
            }
        }
        ensure!(!read.status.is_empty(), "no status");
        for section in [&mut read.answer, &mut read.authority, &mut read.additional] {
            section.sort();
        }
        Ok(read)
    }
}
