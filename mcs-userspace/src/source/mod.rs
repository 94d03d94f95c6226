//! Where events come from.
//!
//! ```text
//!  dir:PATH ── inotify ──┐
//!  kube ─── 5 watches ───┴──► Source::next ──► Batch: events, barriers, what the source knows of this node
//! ```
//!
//! A source turns what it watches into [`crate::model::Event`]s and names what is wrong with it. It is fail static:
//! only an explicit word deletes an object. A source that goes away, text that cannot be read and objects that became
//! invalid leave everything as it was.

pub mod dir;
pub mod kube;
mod queue;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use self::dir::DirSource;
use self::kube::KubeSource;
use crate::model::{Event, Object, Unread};
use crate::problem::Problem;

/// What happened at one moment.
#[derive(Default, Debug)]
pub struct Batch {
    /// What changed. An object occurs at most once.
    pub events: Vec<Event>,
    /// Barriers that were made after all that led to these events and to those of earlier batches, and before anything
    /// that later batches will tell. To be removed once the events have been carried out.
    pub barriers: Vec<PathBuf>,
    /// What is wrong now and was not before: to be logged, once.
    pub new_problems: Vec<Problem>,
    /// What the source knows of this node, if that is other than it was.
    pub surroundings: Option<Surroundings>,
    /// When the slices among the events became what they are, where that is known.
    pub stamps: Vec<Stamp>,
}

/// What a source knows of the node that it is asked on.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Surroundings {
    /// What the cluster is a member as, if it is a member of a ClusterSet.
    pub membership: Option<Membership>,
    /// The node's zone, if it has one.
    pub zone: Option<Arc<str>>,
}

/// Membership of a cluster in a ClusterSet, as far as a node needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The cluster's id.
    pub cluster: Arc<str>,
    /// Where ClusterSetIPs come from: at least one CIDR.
    pub cidrs: Vec<IpNet>,
}

/// When a slice became what it is, at its source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The source cluster.
    pub cluster: Arc<str>,
    /// Unix milliseconds, by the clock of the source.
    pub changed_ms: i64,
}

/// Any of the sources.
#[derive(Debug)]
pub enum Source {
    /// A directory of manifests.
    Dir(Box<DirSource>),
    /// A Kubernetes API server.
    Kube(Box<KubeSource>),
}

impl Source {
    /// Hands out directories `sync-*` that are made in `dir`, in their order with what the source tells. Those that are
    /// there already come with the next batch.
    ///
    /// # Errors
    /// The directory cannot be watched.
    pub fn watch_barriers(&mut self, dir: &Path) -> io::Result<()> {
        match self {
            Self::Dir(source) => source.watch_barriers(dir),
            Self::Kube(source) => source.watch_barriers(dir),
        }
    }

    /// Waits for the next changes. It may be dropped while it waits, nothing is lost.
    pub async fn next(&mut self) -> Batch {
        match self {
            Self::Dir(source) => source.next().await,
            Self::Kube(source) => source.next().await,
        }
    }

    /// Says that an agent before this one left services in the maps.
    pub fn set_left_over(&mut self, any: bool) {
        match self {
            // An empty directory is somebody's word: files are put there and taken away by hand.
            Self::Dir(_) => {}
            Self::Kube(source) => source.set_left_over(any),
        }
    }

    /// Everything that is wrong now.
    #[must_use]
    pub fn problems(&self) -> Vec<&Problem> {
        match self {
            Self::Dir(source) => source.problems().collect(),
            Self::Kube(source) => source.problems().collect(),
        }
    }

    /// Changes whenever [`Source::problems`] may have changed: problems also go away, which no batch tells.
    #[must_use]
    pub fn problem_version(&self) -> u64 {
        match self {
            Self::Dir(source) => source.problem_version(),
            Self::Kube(source) => source.problem_version(),
        }
    }

    /// What is there and could not be read since the start: nothing that a former agent stored for it should be removed
    /// for not being in the world.
    #[must_use]
    pub fn unread(&self) -> Unread {
        match self {
            Self::Dir(source) => source.unread(),
            Self::Kube(source) => source.unread(),
        }
    }

    /// What keeps the source from being followed now, each in a sentence. Objects' problems are not among them.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        match self {
            Self::Dir(_) => Vec::new(),
            Self::Kube(source) => source.troubles(),
        }
    }
}

/// Tells one form of an object from another. The hash has no random key: 2⁻⁶⁴ is the chance to miss one change.
fn digest(object: &Object) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.hash(&mut hasher);
    hasher.finish()
}
