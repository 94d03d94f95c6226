//! Processes that outlive their starter, each in a cgroup of its own below `mcsk`.
//!
//! The cgroup is the bookkeeping: a process cannot leave it, its children are in it too, and `cgroup.kill` ends all of them at
//! once. A file with process ids could name a stranger who got an old id; a cgroup cannot.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// The cgroup of everything that is ours.
const TOP: &str = "mcsk";
/// How long what was killed may take to be gone.
const END_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// Where cgroup2 is mounted: `/sys/fs/cgroup`, or `…/unified` beside v1 controllers.
pub(crate) fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    mount_point(&mounts).context("no cgroup2 is mounted: run `mount -t cgroup2 none /sys/fs/cgroup`")
}

fn mount_point(mounts: &str) -> Option<PathBuf> {
    let mut lines = mounts.lines().map(|line| line.split(' '));
    lines.find_map(|mut words| {
        let point = words.nth(1)?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(point))
    })
}

/// A cgroup with the process of that name and its descendants.
#[derive(Clone, Debug)]
pub(crate) struct Group(PathBuf);

impl Group {
    /// Everything that is ours.
    pub(crate) fn all() -> Result<Self> {
        Ok(Self(root()?.join(TOP)))
    }

    /// One process and its descendants; it need not exist.
    pub(crate) fn named(name: &str) -> Result<Self> {
        Ok(Self(Self::all()?.0.join(name)))
    }

    /// Where it is, or would be.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Whether anything runs in it.
    pub(crate) fn is_alive(&self) -> bool {
        let events = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    }

    /// Starts a command in it, detached from this process and its terminal, its output appended to `log`. It must be
    /// empty: what a dead predecessor left is removed first.
    pub(crate) fn start(&self, command: &Command, log: &Path) -> Result<()> {
        let what = || format!("start {}", command.get_program().display());
        self.remove().with_context(what)?;
        fs::create_dir_all(&self.0).with_context(|| format!("make cgroup {}", self.0.display()))?;
        let output = OpenOptions::new().create(true).append(true).open(log);
        let output = output.with_context(|| format!("open {}", log.display()))?;
        // The shell enters the cgroup, so that whatever it becomes has never been elsewhere.
        let mut starter = Command::new("sh");
        starter.args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec setsid --fork \"$@\""]).arg(&self.0);
        starter.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => starter.env(name, value),
                None => starter.env_remove(name),
            };
        }
        starter.stdin(Stdio::null()).stdout(output.try_clone().with_context(what)?).stderr(output);
        let status = starter.status().with_context(what)?;
        ensure!(status.success(), "start {}: {status}: look at {}", command.get_program().display(), log.display());
        Ok(())
    }

    /// Kills everything in it and removes it. Nothing is there: no error.
    pub(crate) fn remove(&self) -> Result<()> {
        if !self.0.is_dir() {
            return Ok(());
        }
        let what = || format!("remove cgroup {}", self.0.display());
        let end = Instant::now() + END_LIMIT;
        loop {
            fs::write(self.0.join("cgroup.kill"), "1").with_context(what)?;
            match remove_empty(&self.0) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {
                    thread::sleep(POLL)
                }
                Err(error) => return Err(error).with_context(what),
            }
        }
    }

    /// Stops everything in it, as on a machine that hangs, or lets it go on.
    pub(crate) fn freeze(&self, stopped: bool) -> Result<()> {
        let file = self.0.join("cgroup.freeze");
        fs::write(&file, if stopped { "1" } else { "0" }).with_context(|| format!("write {}", file.display()))
    }

    /// The process that is process 1 of the namespace in which the group's processes live, if they live in one.
    pub(crate) fn init(&self) -> Result<u32> {
        let procs = self.0.join("cgroup.procs");
        let list = fs::read_to_string(&procs).with_context(|| format!("read {}", procs.display()))?;
        let inits = list.lines().filter_map(|line| line.parse().ok()).filter(|pid| is_init(*pid));
        match inits.min() {
            Some(pid) => Ok(pid),
            None => bail!("{}: no process 1 of a namespace in it", self.0.display()),
        }
    }
}

/// Whether a process is process 1 of a namespace that is directly below ours.
fn is_init(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    ids.split_whitespace().skip(1).eq(["1"])
}

fn remove_empty(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

/// One of us at a time: two that bring clusters up, or one that does and one that ends them, would undo each other's work.
/// Released when dropped.
pub(crate) fn lock(run: &Path) -> Result<File> {
    let path = run.with_extension("lock");
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_beside_v1_and_alone() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\ncgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n\
                      none /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_point(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"), Some("/sys/fs/cgroup".into()));
        assert_eq!(mount_point("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), None);
    }

    #[test]
    fn no_process_is_the_first_of_its_own_namespace_here() {
        assert!(!is_init(std::process::id()));
        assert!(!is_init(0));
    }
}
