//! Real clusters for tests: those that run already, or such as are brought up for a test and ended with it. There is one set
//! of them on a machine, so tests that use them take turns.

use std::fs::File;
use std::ops::Deref;

use anyhow::{Context as _, Result};
use mcs_clusters::{Clusters, Directories, Shape};

/// Clusters for the calling test alone. Dropping this ends them if they were brought up for it.
#[derive(Debug)]
pub struct RealClusters {
    clusters: Clusters,
    /// Whether nobody else had brought them up.
    ours: bool,
    _turn: File,
}

impl RealClusters {
    /// Waits for its turn, and brings clusters up unless they run; what had ended of them is started again.
    ///
    /// # Errors
    /// If clusters of another shape run, or they do not come up.
    pub fn take(shape: &Shape) -> Result<Self> {
        let path = std::env::temp_dir().join("mcs-real-clusters.turn");
        let turn = File::create(&path).with_context(|| format!("open {}", path.display()))?;
        turn.lock().with_context(|| format!("lock {}", path.display()))?;
        let ours = Clusters::open()?.is_none();
        let clusters = Clusters::up(shape, &|line| eprintln!("clusters: {line}"));
        if ours && clusters.is_err() {
            // Half of them would stay; the error tells more than what this might say.
            drop(Clusters::end(true));
        }
        Ok(Self { clusters: clusters?, ours, _turn: turn })
    }
}

impl Deref for RealClusters {
    type Target = Clusters;

    fn deref(&self) -> &Clusters {
        &self.clusters
    }
}

impl Drop for RealClusters {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = self.clusters.down()
        {
            eprintln!("clusters: end them: {error:#}");
        }
    }
}

/// Why no real clusters can be brought up here, or `None` if they can.
#[must_use]
pub fn missing() -> Option<String> {
    match Directories::of_user() {
        Ok(directories) => directories.missing(),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// Returns from the calling test if no real clusters can be brought up here: with a visible `SKIP:` line by hand, with a
/// panic under `CI=true`. Takes the value to return, if there is one.
#[macro_export]
macro_rules! require_clusters {
    ($($skipped:expr)?) => {
        if let Some(why) = $crate::clusters::missing() {
            let thread = ::std::thread::current();
            $crate::privilege::skip(thread.name().unwrap_or("test"), &why);
            return $($skipped)?;
        }
    };
}
