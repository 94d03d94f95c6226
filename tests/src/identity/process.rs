//! A "who am I" server as a process of its own: a copy of the running program, spoken to in lines.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};

use super::echo::{self, Counters};
use super::{Listen, Stats};
use crate::child::Child;
use crate::place::Place;

/// The environment variable that makes a copy of this program a server: see [`serve_if_asked`].
const ASKED: &str = "MCS_TESTS_IDENTITY_SERVER";

/// The process, seen from the test.
pub(super) struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it. Its sockets are open when this returns.
    pub(super) fn start(place: &Place, name: &str, listen: &[Listen]) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.env(ASKED, "1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = place.spawn(command)?;
        let output = child.stdout.take().context("server process without an output")?;
        let mut process = Self { child, output: BufReader::new(output) };
        let request = serde_json::to_string(&(name, listen)).context("describe server")?;
        match process.ask(&request)?.as_str() {
            "open" => Ok(process),
            error => bail!("{error}"),
        }
    }

    /// What it has seen so far.
    pub(super) fn stats(&mut self) -> Result<Stats> {
        let answer = self.ask("stats")?;
        serde_json::from_str(&answer).with_context(|| format!("stats: {answer}"))
    }

    /// Ends it.
    pub(super) fn kill(&self) {
        self.child.kill();
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        let input = self.child.stdin.as_mut().ok_or_else(|| anyhow!("server process: its input is closed"))?;
        input.write_all(format!("{line}\n").as_bytes()).context("server process: write to it")?;
        let mut answer = String::new();
        let read = self.output.read_line(&mut answer).context("server process: read from it")?;
        if read == 0 {
            bail!("server process: it ended");
        }
        Ok(answer.trim_end().to_owned())
    }
}

/// Every program with this library in it can be a server, without a second binary that would have to be found, built and
/// carried into virtual machines: the loader runs this before `main`, and it does nothing unless asked by the environment.
#[used]
#[unsafe(link_section = ".init_array")]
static SERVE_IF_ASKED: extern "C" fn() = serve_if_asked;

extern "C" fn serve_if_asked() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let code = match serve_until_end_of_input() {
        Ok(()) => 0,
        Err(error) => {
            // To whom started it; if that one is gone too, nobody wants to know.
            answer(&format!("{error:#}")).ok();
            1
        }
    };
    // SAFETY: _exit has no preconditions. `main` must not run in a server, and nothing buffered is left.
    unsafe { libc::_exit(code) };
}

fn serve_until_end_of_input() -> Result<()> {
    let mut lines = io::stdin().lines();
    let request = lines.next().context("no description")?.context("read description")?;
    let (name, listen): (String, Vec<Listen>) = serde_json::from_str(&request).context("parse description")?;
    let sockets = echo::open(&name, &listen)?;
    answer("open")?;
    let (stopped, _stop) = rustix::pipe::pipe().context("make a pipe")?;
    let counters = Arc::<Counters>::default();
    let counting = Arc::clone(&counters);
    std::thread::spawn(move || echo::serve(sockets, &stopped, &counting));
    for line in lines {
        line.context("read request")?;
        answer(&serde_json::to_string(&counters.stats()).context("write stats")?)?;
    }
    Ok(())
}

fn answer(line: &str) -> Result<()> {
    // Not println!: libtest may have replaced what that writes to.
    io::stdout().write_all(format!("{line}\n").as_bytes()).context("write answer")?;
    io::stdout().flush().context("write answer")
}
