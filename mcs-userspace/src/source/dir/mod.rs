//! A directory of manifests, followed live: `dir:PATH`.
//!
//! Files `*.json`, `*.yaml`, `*.yml` that do not begin with a dot; directories below are not looked into.
//!
//! ```text
//!  inotify ──► drained queue ──► files read once ──► DirState ──► Batch
//!  timer   ──► is it still that directory?             pure
//! ```
//!
//! All that is in the queue when it is read becomes one batch, so a rename into place is one change, and so is a burst
//! of them. The same queue carries *barriers*: directories that somebody makes beside it, to learn when everything that
//! was queued before has been handled.

mod state;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{WatchDescriptor, WatchMask};
use tokio::time::Instant;

pub use self::state::{DirState, Settled};
use super::queue::{Changes, Queue, list_barriers};
use crate::model::{Event, Unread};
use crate::problem::{Problem, Severity};
use crate::source::Batch;

/// How often it is checked that the path still leads to the directory that is watched: a symlink may have been turned
/// or a file system mounted over it, which inotify does not tell.
const CHECK: Duration = Duration::from_secs(2);
/// The same while there is no directory.
const CHECK_AWAY: Duration = Duration::from_millis(100);

/// Follows a directory.
#[derive(Debug)]
pub struct DirSource {
    dir: PathBuf,
    queue: Queue,
    watched: Option<Watched>,
    barriers: Option<(PathBuf, WatchDescriptor)>,
    /// Barriers that were there before they were watched.
    waiting: Vec<PathBuf>,
    state: DirState,
    /// What is wrong with the directory as a whole.
    away: Option<Problem>,
    /// The directory is another one than before and has not shown a file yet: that says nothing about the files that the
    /// former one had.
    is_unsure: bool,
    check_at: Instant,
    started: bool,
    synced: bool,
    problem_version: u64,
}

/// The directory that the path led to when it was last looked at.
#[derive(Debug)]
struct Watched {
    descriptor: WatchDescriptor,
    device: u64,
    inode: u64,
}

impl DirSource {
    /// Watches a directory, which need not be there yet. To be called in a tokio runtime.
    ///
    /// # Errors
    /// There is no inotify instance to be had (`fs.inotify.max_user_instances`).
    pub fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            queue: Queue::new()?,
            watched: None,
            barriers: None,
            waiting: Vec::new(),
            state: DirState::default(),
            away: None,
            is_unsure: false,
            check_at: Instant::now(),
            started: false,
            synced: false,
            problem_version: 0,
        })
    }

    /// Hands out directories `sync-*` that are made in `dir`, in their order with the changes of files. Those that are
    /// there already come with the next batch.
    ///
    /// # Errors
    /// The directory cannot be watched.
    pub fn watch_barriers(&mut self, dir: &Path) -> io::Result<()> {
        // MASK_ADD: it may be the directory of manifests
        let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONLYDIR | WatchMask::MASK_ADD;
        let descriptor = self.queue.watch(dir, mask)?;
        self.waiting.extend(list_barriers(dir)?);
        self.barriers = Some((dir.to_owned(), descriptor));
        Ok(())
    }

    /// Waits for the next changes. The first batch comes at once; the first that could read the directory has all its
    /// objects and ends with [`Event::Synced`]. Files are read in the calling thread.
    ///
    /// It may be dropped while it waits, nothing is lost.
    pub async fn next(&mut self) -> Batch {
        loop {
            if !self.started {
                self.started = true;
                return self.handle(Changes::default());
            }
            if !self.waiting.is_empty() {
                return self.handle(Changes::default());
            }
            let version = self.problem_version;
            let batch = tokio::select! {
                () = self.queue.ready() => {
                    let changes = self.drain();
                    self.handle(changes)
                }
                () = tokio::time::sleep_until(self.check_at) => self.handle(Changes { check: true, ..Changes::default() }),
            };
            let Batch { events, barriers, new_problems, .. } = &batch;
            if !(events.is_empty() && barriers.is_empty() && new_problems.is_empty()) || version != self.problem_version
            {
                return batch;
            }
        }
    }

    /// Everything that is wrong now.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.away.iter().chain(self.state.problems())
    }

    /// Changes whenever [`DirSource::problems`] may have changed: problems also go away, which no batch tells.
    #[must_use]
    pub fn problem_version(&self) -> u64 {
        self.problem_version
    }

    /// What is there and could not be read since the start: nothing that a former agent stored for it should be removed
    /// for not being in the world.
    #[must_use]
    pub fn unread(&self) -> Unread {
        self.state.unread()
    }

    fn drain(&mut self) -> Changes {
        let Self { queue, watched, barriers, dir, .. } = self;
        queue.drain(|event, changes| {
            if watched.as_ref().is_some_and(|watched| watched.descriptor == event.wd) {
                changes.file_event(dir, &event);
            }
            if let Some((dir, descriptor)) = barriers
                && *descriptor == event.wd
            {
                changes.barrier_event(dir, &event);
            }
        })
    }

    fn handle(&mut self, changes: Changes) -> Batch {
        let Changes { files, mut barriers, mut rescan, lost, overflow, check } = changes;
        if overflow && let Some((dir, _)) = &self.barriers {
            // whoever made one before this moment also changed files before it
            barriers = list_barriers(dir).unwrap_or_default();
        }
        if lost {
            self.unwatch();
        }
        let mut new_problems = Vec::new();
        let was_away = self.away.clone();
        if check || self.watched.is_none() {
            if self.look() {
                (rescan, self.is_unsure) = (true, true);
            }
            self.check_at = Instant::now() + if self.watched.is_some() { CHECK } else { CHECK_AWAY };
        }
        if self.watched.is_some() {
            if rescan || (self.is_unsure && !files.is_empty()) {
                self.scan();
            } else {
                for name in &files {
                    self.read(name);
                }
            }
        }
        let mut batch = self.settle();
        if self.watched.is_some() && self.away.is_none() && !self.synced {
            self.synced = true;
            batch.events.push(Event::Synced);
        }
        if self.away != was_away {
            new_problems.extend(self.away.clone());
            self.problem_version += 1;
        }
        if !files.is_empty() || rescan {
            self.problem_version += 1;
        }
        new_problems.append(&mut batch.new_problems);
        barriers.append(&mut self.waiting);
        barriers.sort_unstable();
        barriers.dedup();
        Batch { events: batch.events, barriers, new_problems, ..Batch::default() }
    }

    fn settle(&mut self) -> Settled {
        let mut settled = self.state.settle();
        if settled.reread.is_empty() || self.watched.is_none() {
            return settled;
        }
        for name in std::mem::take(&mut settled.reread) {
            self.read(&name);
        }
        let Settled { events, reread: _, new_problems } = self.state.settle();
        settled.events.extend(events);
        settled.new_problems.extend(new_problems);
        settled
    }

    /// Looks where the path leads. Returns whether that is another directory than before.
    fn look(&mut self) -> bool {
        let looked = fs::metadata(&self.dir).and_then(|metadata| {
            if metadata.is_dir() {
                Ok((metadata.dev(), metadata.ino()))
            } else {
                Err(io::ErrorKind::NotADirectory.into())
            }
        });
        let (device, inode) = match looked {
            Ok(found) => found,
            Err(error) => {
                self.unwatch();
                self.away = Some(self.problem(format!("{error}: what it gave stays as it was")));
                return false;
            }
        };
        if self.watched.as_ref().is_some_and(|watched| (watched.device, watched.inode) == (device, inode)) {
            return false;
        }
        self.unwatch();
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR
            | WatchMask::MASK_ADD;
        match self.queue.watch(&self.dir, mask) {
            Ok(descriptor) => {
                self.watched = Some(Watched { descriptor, device, inode });
                self.away = None;
                true
            }
            Err(error) => {
                self.away = Some(self.problem(format!("cannot be watched: {error}")));
                false
            }
        }
    }

    fn unwatch(&mut self) {
        if let Some(Watched { descriptor, .. }) = self.watched.take()
            && self.barriers.as_ref().is_none_or(|(_, other)| *other != descriptor)
        {
            self.queue.unwatch(descriptor);
        }
    }

    /// Reads all files. Those that are not there any more are gone, unless the whole directory is another one and has
    /// no file at all: then it is not mounted yet, or is being filled.
    fn scan(&mut self) {
        let names = match list_manifests(&self.dir) {
            Ok(names) => names,
            Err(error) => {
                self.away = Some(self.problem(format!("cannot be listed: {error}: what it gave stays as it was")));
                self.unwatch();
                return;
            }
        };
        self.is_unsure &= names.is_empty() && self.state.files().next().is_some();
        if self.is_unsure {
            self.away = Some(self.problem("empty since it came back: what it gave stays as it was".to_owned()));
            return;
        }
        self.away = None;
        let gone: Vec<String> = self
            .state
            .files()
            .filter(|name| names.binary_search_by(|other| other.as_str().cmp(name)).is_err())
            .map(str::to_owned)
            .collect();
        for name in gone {
            self.state.file_gone(&name);
        }
        for name in &names {
            self.read(name);
        }
    }

    fn read(&mut self, name: &str) {
        let path = self.dir.join(name);
        match read_regular(&path) {
            Ok(text) => self.state.file_read(name, Ok(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_gone(&path) => self.state.file_gone(name),
            Err(error) => self.state.file_read(name, Err(error)),
        }
    }

    /// Whether a file that was not found is gone: not a symlink into nowhere, and not the whole directory gone with it.
    fn is_gone(&self, path: &Path) -> bool {
        let is_missing = fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let is_same = fs::metadata(&self.dir).is_ok_and(|now| {
            self.watched.as_ref().is_some_and(|watched| (watched.device, watched.inode) == (now.dev(), now.ino()))
        });
        is_missing && is_same
    }

    fn problem(&self, reason: String) -> Problem {
        let object = format!("directory {}", self.dir.display());
        Problem { object, file: None, field: String::new(), reason, severity: Severity::Invalid }
    }
}

/// Whether a file of this name is read.
#[must_use]
pub fn is_manifest(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !name.starts_with(b".") && [".json", ".yaml", ".yml"].iter().any(|ending| name.ends_with(ending.as_bytes()))
}

/// The names of a directory's manifests, sorted.
///
/// # Errors
/// The directory cannot be listed.
pub fn list_manifests(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if is_manifest(&name)
            && let Some(name) = name.to_str()
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A file's text. A pipe would block for ever, and a directory has none.
///
/// # Errors
/// It cannot be read, or is no file.
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    fs::read(path)
}
