//! Child processes: one environment for all of them, and three ways to attend to them.
//!
//! - [`run`] leaves the terminal to the child;
//! - [`capture`] wants its stdout;
//! - [`attend`] is for what may take long: it prints the elapsed time every few seconds, so that nobody wonders.

use std::{
    collections::VecDeque,
    env,
    ffi::{OsStr, OsString},
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How often [`attend`] says that it is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How many lines of a hidden output are kept.
const TAIL: usize = 200;

/// A command with the environment that every child gets.
///
/// `CARGO_HOME/bin` comes first on the `PATH`: `cargo install` puts bpf-linker there, and whoever set `CARGO_HOME` to a
/// fresh directory does not have it on the `PATH`. What `cargo run` set for *this* package is removed, so that
/// build scripts see what they see when a developer types the same cargo command.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some(path) = search_path() {
        command.env("PATH", path);
    }
    for (name, _) in env::vars_os() {
        let ours =
            name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
        if ours {
            command.env_remove(name);
        }
    }
    command
}

/// `cargo` with its arguments.
pub(crate) fn cargo<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Command {
    let mut command = command("cargo");
    command.args(args);
    command
}

/// Where cargo installs programs: `CARGO_HOME`, or `.cargo` in the home directory.
pub(crate) fn cargo_bin() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")))?;
    Some(home.join("bin"))
}

/// `CARGO_HOME/bin`, then `PATH`, then the directories of the system's administration programs, which a
/// user's `PATH` lacks on Debian.
fn search_path() -> Option<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = cargo_bin().into_iter().collect();
    directories.extend(env::split_paths(&path).filter(|d| Some(d) != directories.first()).collect::<Vec<_>>());
    for system in ["/usr/sbin", "/sbin"].map(PathBuf::from) {
        if !directories.contains(&system) {
            directories.push(system);
        }
    }
    env::join_paths(directories).ok()
}

/// The file that `program` names for a child.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()?).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Whether this process may do what only root may.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs to the end; the terminal is the child's.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", show(command)))?;
    succeeded(command, status)
}

/// Runs to the end and returns stdout; stderr goes into the error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {}", show(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}: {}", show(command), output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{}: output", show(command)))
}

/// Runs to the end or until `limit`, with the elapsed time printed every few seconds. The output is hidden; when the
/// child fails, the error has the one line of it that says why.
pub(crate) fn attend(command: &mut Command, limit: Duration) -> Result<()> {
    let start = Instant::now();
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("make a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("start {}", show(command)))?;
    // The command still holds the writing end; without this the reader would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let tail = thread::spawn(move || {
        let mut tail = VecDeque::new();
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        tail
    });
    let mut next = HEARTBEAT;
    let status = loop {
        if let Some(status) = child.try_wait().context("wait for a child")? {
            break status;
        }
        if start.elapsed() > limit {
            child.kill().context("end a child")?;
            child.wait().context("wait for a child")?;
            bail!("{}: not done after {} s", show(command), limit.as_secs());
        }
        if start.elapsed() > next {
            println!("  … {} s", next.as_secs());
            next += HEARTBEAT;
        }
        thread::sleep(Duration::from_millis(20));
    };
    if status.success() {
        return Ok(());
    }
    let tail = tail.join().unwrap_or_default();
    // apt-get's options are many and cargo's paths long: the program's name is enough for a line that people read.
    let program = command.get_program().to_string_lossy();
    bail!("{program}: {status}: {}", reason(&tail))
}

/// The line of a failed program's output that says why: the first that calls itself an error, else the last.
fn reason(tail: &VecDeque<String>) -> &str {
    let lines = || tail.iter().map(|line| line.trim()).filter(|line| !line.is_empty());
    lines()
        .find(|line| ["E: ", "error:", "error["].iter().any(|start| line.starts_with(start)))
        .or_else(|| lines().next_back())
        .unwrap_or("no output")
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("{}: {status}", show(command));
    }
    Ok(())
}

/// The command line, for messages.
pub(crate) fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failure_is_one_line() {
        let mut failing = command("sh");
        failing.args(["-c", "echo one; echo 'E: why' >&2; echo two; exit 3"]);
        let error = attend(&mut failing, Duration::from_secs(10)).unwrap_err();
        assert_eq!(error.to_string(), "sh: exit status: 3: E: why");
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        assert_eq!(reason(&lines("one\ntwo\n\n")), "two");
        assert_eq!(reason(&lines("")), "no output");
    }

    #[test]
    fn a_child_that_takes_too_long_is_ended() {
        let mut sleeping = command("sleep");
        sleeping.arg("30");
        let error = attend(&mut sleeping, Duration::from_millis(100)).unwrap_err();
        assert!(format!("{error:#}").contains("not done"), "{error:#}");
    }

    #[test]
    fn programs_of_the_administrator_are_found() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
    }
}
