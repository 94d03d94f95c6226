//! Removing fleets: one's own, and those whose process was killed.
//!
//! What a fleet is made of is found by its name, not by what a handle remembers. So the same code cleans up after a test, a
//! panic halfway through building, a Ctrl-C, and a `kill -9` that nothing could clean up after.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cgroup;
use crate::netns;
use crate::owner::{FleetId, PREFIX};

/// Below this folder agents of fleets pin their maps: one folder per fleet.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

pub(crate) fn cgroup_of(id: &FleetId) -> Result<PathBuf> {
    Ok(cgroup::root()?.join(format!("{PREFIX}{id}")))
}

pub(crate) fn pins_of(id: &FleetId) -> PathBuf {
    Path::new(BPFFS).join(format!("{PREFIX}{id}"))
}

pub(crate) fn files_of(id: &FleetId) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{id}"))
}

pub(crate) fn netns_name(id: &FleetId, place: &str) -> String {
    format!("{PREFIX}{id}-{place}")
}

/// Removes everything that carries the fleet's id. Goes on after an error, and returns all of them.
pub(crate) fn remove(id: &FleetId) -> Vec<anyhow::Error> {
    let mut errors = Vec::new();
    // First the processes that are left, as they keep the rest alive; then pins, as they keep programs alive.
    errors.extend(cgroup_of(id).and_then(|path| cgroup::remove_tree(&path)).err());
    errors.extend(remove_dir(&pins_of(id)).err());
    for name in netns::names_with_prefix(PREFIX) {
        if FleetId::of_name(&name).as_ref() == Some(id) {
            errors.extend(netns::remove(&name).err());
        }
    }
    errors.extend(remove_dir(&files_of(id)).err());
    errors
}

/// Removes the fleets of dead processes, and says how many there were.
pub(crate) fn sweep() -> Result<usize> {
    let mut ids = BTreeSet::new();
    for dir in [cgroup::root()?, Path::new(BPFFS), Path::new(netns::DIR), &std::env::temp_dir()] {
        // A folder that does not exist holds no fleet.
        let Ok(entries) = fs::read_dir(dir) else {
            continue;
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        ids.extend(names.filter_map(|name| FleetId::of_name(&name)));
    }
    ids.retain(|id| !id.owner_lives());
    let mut first = Ok(ids.len());
    for id in &ids {
        // One that cannot go must not keep the others.
        if let Some(error) = remove(id).into_iter().next() {
            first = first.and(Err(error.context(format!("remove fleet {id} of a dead process"))));
        }
    }
    first
}

pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
