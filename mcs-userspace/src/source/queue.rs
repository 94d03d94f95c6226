//! The inotify queue, read to its end at a time.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::dir::is_manifest;

/// An event as the queue holds it.
pub(super) type RawEvent<'a> = inotify::Event<&'a OsStr>;

/// What a read of the queue found.
#[derive(Default, Debug)]
pub(super) struct Changes {
    /// Names of manifests that changed in some way.
    pub(super) files: BTreeSet<String>,
    /// Barriers that were made.
    pub(super) barriers: Vec<PathBuf>,
    /// All files may have changed.
    pub(super) rescan: bool,
    /// The directory was moved or removed.
    pub(super) lost: bool,
    /// The kernel dropped events.
    pub(super) overflow: bool,
    /// It is time to look where the path leads.
    pub(super) check: bool,
}

impl Changes {
    /// An event in the directory of manifests.
    pub(super) fn file_event(&mut self, dir: &Path, event: &RawEvent<'_>) {
        let ends = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT | EventMask::IGNORED;
        if event.mask.intersects(ends) {
            self.lost = true;
        }
        let Some(name) = event.name else { return };
        // how Kubernetes changes all files of a mounted ConfigMap at once: they are links through this one
        if name == "..data" {
            self.rescan = true;
        }
        if !is_manifest(name) {
            return;
        }
        // a file that was just created is empty until its writer closes it, which is an event of its own; links come
        // with their content
        if event.mask.contains(EventMask::CREATE) {
            let is_link = fs::symlink_metadata(dir.join(name)).is_ok_and(|file| file.is_symlink() || file.nlink() > 1);
            if !is_link {
                return;
            }
        }
        if let Some(name) = name.to_str() {
            self.files.insert(name.to_owned());
        }
    }

    /// An event in the directory of barriers.
    pub(super) fn barrier_event(&mut self, dir: &Path, event: &RawEvent<'_>) {
        if let Some(name) = event.name
            && event.mask.contains(EventMask::ISDIR)
            && event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO)
            && is_barrier(name)
        {
            self.barriers.push(dir.join(name));
        }
    }
}

/// Whether a directory of this name is a barrier.
fn is_barrier(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"sync-")
}

/// The barriers that are there.
pub(super) fn list_barriers(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut barriers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if is_barrier(&entry.file_name()) && entry.file_type()?.is_dir() {
            barriers.push(entry.path());
        }
    }
    Ok(barriers)
}

/// An inotify instance in the runtime.
#[derive(Debug)]
pub(super) struct Queue {
    inotify: AsyncFd<Inotify>,
    buffer: Vec<u8>,
}

impl Queue {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of types whose descriptor changes; Inotify owns its own"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let inotify = AsyncFd::with_interest(Inotify::init()?, Interest::READABLE)?;
        Ok(Self { inotify, buffer: vec![0; 64 * 1024] })
    }

    pub(super) fn watch(&self, dir: &Path, mask: WatchMask) -> io::Result<WatchDescriptor> {
        self.inotify.get_ref().watches().add(dir, mask)
    }

    pub(super) fn unwatch(&self, descriptor: WatchDescriptor) {
        // it is gone by itself when its directory is
        drop(self.inotify.get_ref().watches().remove(descriptor));
    }

    /// Waits until there is something to read.
    pub(super) async fn ready(&self) {
        if self.inotify.readable().await.is_err() {
            // the runtime ends
            std::future::pending().await
        }
    }

    /// Reads all there is, sorting each event into the changes.
    pub(super) fn drain(&mut self, mut sort: impl FnMut(RawEvent<'_>, &mut Changes)) -> Changes {
        let mut changes = Changes::default();
        let Self { inotify, buffer } = self;
        loop {
            let read = inotify.try_io_mut(Interest::READABLE, |inotify| {
                for event in inotify.read_events(buffer)? {
                    if event.mask.contains(EventMask::Q_OVERFLOW) {
                        (changes.overflow, changes.rescan, changes.check) = (true, true, true);
                    } else {
                        sort(event, &mut changes);
                    }
                }
                Ok(())
            });
            match read {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return changes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    warn!(%error, "read the inotify queue");
                    (changes.overflow, changes.rescan) = (true, true);
                    return changes;
                }
            }
        }
    }
}
