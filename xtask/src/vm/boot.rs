//! One boot: the emulator, its serial console, and the verdict.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::guest::{BOOTED, VERDICT};
use crate::{child, setup::seconds};

/// What to boot.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// Where the serial console goes.
    pub(crate) log: PathBuf,
    /// The test binary's arguments.
    pub(crate) arguments: Vec<String>,
    pub(crate) timeout: Duration,
}

/// What a line of the console means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Nothing,
    Booted,
    Verdict(i32),
    /// The kernel is dead.
    Dead,
    /// The kernel may be dead; an emulated processor on a busy machine may also only be slow.
    Stalled,
}

impl Machine {
    /// Boots, shows the console with `name` before each line, and returns when the guest's tests have passed.
    pub(crate) fn boot(&self, name: &str) -> Result<()> {
        let start = Instant::now();
        let mut log = File::create(&self.log).with_context(|| format!("create {}", self.log.display()))?;
        let mut command = self.command()?;
        let mut emulator = Emulator(command.spawn().with_context(|| format!("start {}", child::show(&command)))?);
        let console = emulator.0.stdout.take().context("emulator: no console")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        let mut booted = None;
        let mut stalls = 0;
        loop {
            let left = self.timeout.saturating_sub(start.elapsed());
            let line = match lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no verdict after {}: see {}", seconds(self.timeout), self.log.display())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the emulator ended without a verdict: see {}", self.log.display())
                }
            };
            let line = line.trim_end_matches('\r');
            println!("[{name}] {line}");
            writeln!(log, "{line}").with_context(|| format!("write {}", self.log.display()))?;
            match sign(line) {
                Sign::Nothing => {}
                Sign::Booted => booted = Some(start.elapsed()),
                Sign::Verdict(code) => {
                    let boot = booted.unwrap_or_default();
                    println!("vm {name}: boot {}, tests {}", seconds(boot), seconds(start.elapsed() - boot));
                    if code != 0 {
                        bail!("tests: exit code {code}");
                    }
                    return Ok(());
                }
                Sign::Dead => bail!("kernel panic: see {}", self.log.display()),
                Sign::Stalled => {
                    stalls += 1;
                    if stalls == 2 {
                        bail!("kernel stalled twice: see {}", self.log.display());
                    }
                }
            }
        }
    }

    fn command(&self) -> Result<Command> {
        // Never `-accel kvm` first: on a machine that offers it without being able to, the guest hangs.
        let mut qemu = child::command("qemu-system-x86_64");
        qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "3072"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", &kernel_command_line(&self.arguments)?])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        // SAFETY: between fork and exec only async-signal-safe calls are allowed: this is one prctl.
        unsafe {
            qemu.pre_exec(|| {
                // An emulator that outlives us would eat a processor for ever.
                set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into)
            });
        }
        Ok(qemu)
    }
}

/// The emulator; ended with us, whatever the reason.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The kernel hands what follows `--` to init. `panic=0`: a dead kernel stays, so that its last words reach the log.
fn kernel_command_line(arguments: &[String]) -> Result<String> {
    let mut line = "console=ttyS0 loglevel=4 panic=0 --".to_owned();
    for argument in arguments {
        if argument.contains(['"', '\n']) {
            bail!("argument {argument}: quotes and line breaks do not pass the kernel's command line");
        }
        line += &format!(" \"{argument}\"");
    }
    Ok(line)
}

fn sign(line: &str) -> Sign {
    const STALLS: [&str; 3] = ["detected stall", "self-detected stall", "soft lockup"];
    if let Some((_, code)) = line.split_once(VERDICT) {
        // A verdict that cannot be read is none: the time limit will tell.
        return code.trim().parse().map_or(Sign::Nothing, Sign::Verdict);
    }
    if line.contains(BOOTED) {
        Sign::Booted
    } else if line.contains("end Kernel panic") {
        Sign::Dead
    } else if STALLS.iter().any(|stall| line.contains(stall)) {
        Sign::Stalled
    } else {
        Sign::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_on_the_console() {
        assert_eq!(sign("MCS-VM-BOOTED"), Sign::Booted);
        assert_eq!(sign("MCS-VM-VERDICT: 101"), Sign::Verdict(101));
        assert_eq!(sign("MCS-VM-VERDICT: "), Sign::Nothing);
        assert_eq!(sign("[   12.3] ---[ end Kernel panic - not syncing: x ]---"), Sign::Dead);
        assert_eq!(sign("rcu: INFO: rcu_preempt self-detected stall on CPU"), Sign::Stalled);
        assert_eq!(sign("watchdog: BUG: soft lockup - CPU#0 stuck for 23s!"), Sign::Stalled);
        assert_eq!(sign("test connect ... ok"), Sign::Nothing);
    }

    #[test]
    fn arguments_stay_whole_on_the_kernels_command_line() {
        let arguments = ["two words".to_owned(), "--nocapture".to_owned()];
        assert!(kernel_command_line(&arguments).unwrap().ends_with(" -- \"two words\" \"--nocapture\""));
        assert!(kernel_command_line(&["a\"b".to_owned()]).is_err());
    }
}
