//! Where the parts without a network are measured: one pod that has a default route, and cgroups of our own below the
//! fleet's, one for each variant, so that variants that differ in their programs share all else.
//!
//! A cgroup program runs for the sockets that were *made* in its cgroup. The measuring thread goes from cgroup to cgroup.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use mcs_tests::agent::{AgentOptions, mount_bpffs};
use mcs_tests::{Fleet, Pod};

/// The fleet of one pod.
pub(crate) struct Site {
    fleet: Fleet,
}

impl Site {
    pub(crate) fn new() -> Result<Self> {
        mount_bpffs()?;
        Ok(Self { fleet: Fleet::builder().pods_with_default_route().build()? })
    }

    pub(crate) fn pod(&self) -> &Pod {
        self.fleet.pod("a1p1")
    }

    /// A cgroup of its own, which goes with the fleet.
    pub(crate) fn cgroup(&self, name: &str) -> Result<PathBuf> {
        let path = self.fleet.cgroup()?.join(format!("bench-{name}"));
        fs::create_dir(&path).with_context(|| format!("create cgroup {}", path.display()))?;
        fs::write(path.join("cgroup.type"), "threaded")
            .with_context(|| format!("make cgroup {} threaded", path.display()))?;
        Ok(path)
    }

    /// A pin directory of its own, which goes with the fleet.
    pub(crate) fn pins(&self, name: &str) -> PathBuf {
        let options = AgentOptions::new(&self.fleet, self.fleet.node("a1"), "");
        options.pin_dir.with_file_name(name)
    }
}

/// Moves the calling thread into a cgroup.
pub(crate) fn enter(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.threads"), "0").with_context(|| format!("enter cgroup {}", cgroup.display()))
}

/// Takes the calling thread out of all of the fleet's cgroups: one with a thread in it cannot be removed, and after a
/// signal nobody waits for this thread.
pub(crate) fn leave() -> Result<()> {
    enter(mcs_tests::cgroup::root()?)
}
