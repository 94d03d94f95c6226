//! A Kubernetes API server, followed live: ServiceImports and imported EndpointSlices, whoever wrote them, the cluster's
//! membership and the node's zone.
//!
//! ```text
//!  watches ──Heard──► KubeState (what counts of it) ──► Batch
//!     ▲                  │ version of ServiceImports
//!     └──────────────────┘        Site: membership, zone
//! ```
//!
//! Memory: objects pass through as their text, a page at a time; kept of each is a digest. Nothing is kept twice.

mod definition;
mod object;
mod site;
mod state;
mod watches;

use std::io;
use std::path::{Path, PathBuf};

use inotify::{WatchDescriptor, WatchMask};

use self::definition::Definition;
use self::site::Site;
use self::state::{KubeState, Settled};
use self::watches::{Heard, Watches};
use super::queue::{Queue, list_barriers};
use super::{Batch, Surroundings};
use crate::apiserver::Access;
use crate::model::Unread;
use crate::problem::Problem;

/// Sights that become one batch, if they are there already.
const BATCH: usize = 4096;

/// Follows an API server.
#[derive(Debug)]
pub struct KubeSource {
    watches: Watches,
    state: KubeState,
    /// Version of the definition as last heard.
    crd_version: u64,
    site: Site,
    /// What is wrong with the whole, and how often that changed.
    whole: Vec<Problem>,
    whole_version: u64,
    /// [`KubeSource::problem_version`] as of the last batch.
    told_version: u64,
    barriers: Option<Barriers>,
}

/// Where barriers are made.
#[derive(Debug)]
struct Barriers {
    dir: PathBuf,
    queue: Queue,
    descriptor: WatchDescriptor,
    /// Those that were there before they were watched.
    waiting: Vec<PathBuf>,
}

impl KubeSource {
    /// Starts to follow: all objects, and what there is to know of a node, if one is named. The API server need not answer
    /// yet. To be called in a tokio runtime.
    ///
    /// # Errors
    /// The kubeconfig or the Pod's ServiceAccount cannot be used.
    pub async fn start(access: &Access, node: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self {
            watches: Watches::start(access, node).await?,
            state: KubeState::default(),
            crd_version: 0,
            site: Site::default(),
            whole: Vec::new(),
            whole_version: 0,
            told_version: 0,
            barriers: None,
        })
    }

    /// See [`super::Source::watch_barriers`].
    ///
    /// # Errors
    /// The directory cannot be watched.
    pub fn watch_barriers(&mut self, dir: &Path) -> io::Result<()> {
        let queue = Queue::new()?;
        let descriptor = queue.watch(dir, WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONLYDIR)?;
        let waiting = list_barriers(dir)?;
        self.barriers = Some(Barriers { dir: dir.to_owned(), queue, descriptor, waiting });
        Ok(())
    }

    /// Waits for the next changes. It may be dropped while it waits, nothing is lost.
    pub async fn next(&mut self) -> Batch {
        loop {
            let mut barriers = Vec::new();
            tokio::select! {
                Some(heard) = self.watches.heard.recv() => self.hear(heard),
                found = next_barriers(&mut self.barriers) => barriers = found,
            }
            for _ in 1..BATCH {
                let Ok(heard) = self.watches.heard.try_recv() else { break };
                self.hear(heard);
            }
            let batch = self.settle(barriers);
            let Batch { events, barriers, new_problems, surroundings, stamps: _ } = &batch;
            let is_news = !events.is_empty() || !barriers.is_empty() || !new_problems.is_empty();
            let version = self.problem_version();
            let before = std::mem::replace(&mut self.told_version, version);
            if is_news || surroundings.is_some() || version != before {
                return batch;
            }
        }
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::ListStarted(kind) => self.state.list_started(kind),
            Heard::Applied(kind, object) => self.state.applied(kind, &object),
            Heard::Deleted(kind, object) => self.state.deleted(kind, &object.key),
            Heard::Listed(kind, version) => self.state.listed(kind, version),
            Heard::Interrupted(kind) => self.state.interrupted(kind),
            // Its watch and those who look at it may overtake each other.
            Heard::Crd(version, _) if version < self.crd_version => {}
            Heard::Crd(version, crd) => {
                if version != u64::MAX {
                    self.crd_version = version;
                }
                self.state.define(Definition::of(crd.as_deref()));
                self.watches.version.send_if_modified(|asked_for| {
                    let version = self.state.version();
                    std::mem::replace(asked_for, version) != version
                });
            }
            Heard::CrdInterrupted => self.crd_version = 0,
            Heard::Joined(map) => self.site.joined(map.as_ref()),
            Heard::Node(node) => self.site.node(node.as_ref()),
        }
    }

    fn settle(&mut self, barriers: Vec<PathBuf>) -> Batch {
        let Settled { events, stamps, mut new_problems } = self.state.settle();
        let mut whole = self.state.whole_problems();
        whole.extend(self.site.problem().cloned());
        if whole != self.whole {
            new_problems.extend(whole.iter().filter(|problem| !self.whole.contains(problem)).cloned());
            self.whole = whole;
            self.whole_version += 1;
        }
        Batch { events, barriers, new_problems, surroundings: self.site.news(), stamps }
    }

    /// See [`super::Source::set_left_over`].
    pub fn set_left_over(&mut self, any: bool) {
        self.state.set_left_over(any);
    }

    /// What the API server has told of this node so far.
    #[must_use]
    pub fn surroundings(&self) -> &Surroundings {
        self.site.known()
    }

    /// Everything that is wrong now.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.whole.iter().chain(self.state.problems())
    }

    /// Changes whenever [`KubeSource::problems`] may have changed.
    #[must_use]
    pub fn problem_version(&self) -> u64 {
        self.state.problem_version() + self.whole_version
    }

    /// See [`super::Source::unread`].
    #[must_use]
    pub fn unread(&self) -> Unread {
        self.state.unread()
    }

    /// Whether everything was listed once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.state.is_synced()
    }

    /// What does not work on the way to the API server.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        self.watches.troubles.all().into_iter().map(|(what, why)| format!("{what}: {why}")).collect()
    }
}

/// Waits for barriers; for ever where none are watched.
async fn next_barriers(barriers: &mut Option<Barriers>) -> Vec<PathBuf> {
    let Some(Barriers { dir, queue, descriptor, waiting }) = barriers else { return std::future::pending().await };
    if !waiting.is_empty() {
        return std::mem::take(waiting);
    }
    queue.ready().await;
    let changes = queue.drain(|event, changes| {
        if event.wd == *descriptor {
            changes.barrier_event(dir, &event);
        }
    });
    // The queue overflowed: whoever made one is in the directory.
    if changes.overflow { list_barriers(dir).unwrap_or_default() } else { changes.barriers }
}
