//! Programs in places.
//!
//! Children are forked by one thread that lives as long as this process, because `PR_SET_PDEATHSIG` follows the
//! *thread*: so a child ends with the process whatever kills it, and not with the test thread that asked for it.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::{Pid, Signal};

use crate::place::Place;
use crate::registry::Stop;

/// How often an end is looked for. Short: waiting children are the rule in tests.
const POLL: Duration = Duration::from_millis(2);

/// A program that is about to be started in a place.
pub struct Launch {
    place: Place,
    command: Command,
    private_mounts: bool,
}

impl Launch {
    pub(crate) fn new(place: Place, command: Command) -> Self {
        Self { place, command, private_mounts: false }
    }

    /// Gives the program a mount namespace of its own: it sees all mounts of the machine, and what it mounts itself ends
    /// with it.
    #[must_use]
    pub fn private_mounts(mut self) -> Self {
        self.private_mounts = true;
        self
    }

    /// Appends what the program writes to standard error to a file.
    pub fn stderr_to(mut self, path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        self.command.stderr(file.with_context(|| format!("open {}", path.display()))?);
        Ok(self)
    }

    /// Starts it.
    pub fn spawn(self) -> Result<Child> {
        let Self { place, mut command, private_mounts } = self;
        let what = format!("start {:?} in {}", command.get_program(), place.name());
        let procs = place.cgroup().join("cgroup.procs");
        let procs = File::options().write(true).open(&procs).with_context(|| format!("open {}", procs.display()))?;
        let (netns_fd, procs_fd) = (place.netns().file().as_raw_fd(), procs.as_raw_fd());
        // SAFETY: between fork and exec only system calls are made on descriptors opened before (open until the spawn
        // returned: `place` and `procs` live longer), nothing is allocated and no lock taken.
        unsafe {
            command.pre_exec(move || {
                call(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
                call(libc::setns(netns_fd, libc::CLONE_NEWNET))?;
                // "0" is the writer. Moved alone, as it is a process of one thread now.
                call(libc::write(procs_fd, c"0".as_ptr().cast(), 1) as libc::c_int)?;
                if private_mounts {
                    call(libc::unshare(libc::CLONE_NEWNS))?;
                    let (none, root) = (std::ptr::null(), c"/".as_ptr());
                    call(libc::mount(none, root, none, libc::MS_REC | libc::MS_PRIVATE, none.cast()))?;
                }
                Ok(())
            });
        }
        let mut process = spawn_on_lasting_thread(command).context(what.clone())?;
        drop(procs);
        let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let running = Arc::new(Running { what, process: Mutex::new(process) });
        place.registry().add(&running);
        Ok(Child { running, stdin, stdout, stderr })
    }
}

fn call(result: libc::c_int) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

type Spawned = std::io::Result<std::process::Child>;

fn spawn_on_lasting_thread(command: Command) -> Result<std::process::Child> {
    static FORKER: OnceLock<mpsc::Sender<(Command, mpsc::Sender<Spawned>)>> = OnceLock::new();
    let forker = FORKER.get_or_init(|| {
        let (asked, requests) = mpsc::channel::<(Command, mpsc::Sender<Spawned>)>();
        thread::spawn(move || {
            for (mut command, answer) in requests {
                // Who asked may have gone; then the child is dropped, which leaves it running for the fleet's removal.
                drop(answer.send(command.spawn()));
            }
        });
        asked
    });
    let (answer, spawned) = mpsc::channel();
    forker.send((command, answer)).map_err(|_gone| anyhow!("the thread that forks has ended"))?;
    Ok(spawned.recv().context("the thread that forks has ended")??)
}

/// A program that runs in a place, or where this process does. Dropping it kills and reaps it.
pub struct Child {
    running: Arc<Running>,
    /// Its standard input, if it was piped.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, if it was piped.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, if it was piped.
    pub stderr: Option<ChildStderr>,
}

impl Child {
    /// Starts a program where this process runs; what it writes to both outputs is appended to a file.
    pub fn start_here(mut command: Command, log: &Path) -> Result<Self> {
        let what = format!("start {}", command.get_program().display());
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let (out, err) = (open(), open());
        let opened = || format!("open {}", log.display());
        command.stdin(Stdio::null()).stdout(out.with_context(opened)?).stderr(err.with_context(opened)?);
        Self::spawn_here(command, what)
    }

    /// Starts a program where this process runs, with the streams that the command has.
    pub(crate) fn spawn_here(mut command: Command, what: String) -> Result<Self> {
        // SAFETY: between fork and exec only one system call is made, nothing is allocated and no lock taken.
        unsafe { command.pre_exec(|| call(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))) };
        let mut process = spawn_on_lasting_thread(command).context(what.clone())?;
        let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let running = Arc::new(Running { what, process: Mutex::new(process) });
        Ok(Self { running, stdin, stdout, stderr })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.running.lock().id()
    }

    /// Sends a signal. It may have ended already: no error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running.signal(signal)
    }

    /// Kills and reaps it.
    pub fn kill(&self) {
        self.running.stop();
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.running.lock().try_wait().with_context(|| self.running.what.clone())
    }

    /// Waits for its end. Standard input is closed first.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for its end, at most so long.
    pub fn wait_for(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + limit;
        loop {
            let status = self.try_wait()?;
            if status.is_some() || Instant::now() >= end {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for its end and returns what it wrote to the outputs that are piped.
    pub fn wait_with_output(mut self) -> Result<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (out, err) = (self.stdout.take(), self.stderr.take());
        self.stdin = None;
        thread::scope(|scope| {
            // Both at once: a program blocks when one pipe is full.
            let reader = scope.spawn(|| err.map(|mut pipe| pipe.read_to_end(&mut stderr)).transpose());
            out.map(|mut pipe| pipe.read_to_end(&mut stdout)).transpose()?;
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .with_context(|| format!("{}: read its output", self.running.what))?;
        let status = self.wait()?;
        Ok(Output { status, stdout, stderr })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.running.stop();
    }
}

struct Running {
    what: String,
    process: Mutex<std::process::Child>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, std::process::Child> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let mut process = self.lock();
        // Under the lock and only if not reaped yet, so that the pid is still the child's.
        if process.try_wait().with_context(|| self.what.clone())?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_child(&process);
        rustix::process::kill_process(pid, signal).with_context(|| format!("{}: signal it", self.what))
    }
}

impl Stop for Running {
    fn stop(&self) {
        let mut process = self.lock();
        if let Err(error) = process.kill().and_then(|()| process.wait()) {
            eprintln!("{}: kill it: {error}", self.what);
        }
    }
}

/// Standard streams for a program whose output nobody needs.
#[must_use]
pub fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Where a program lies, looked for in `PATH`, for tests that need one which may not be installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
