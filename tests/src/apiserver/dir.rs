//! The directories of API servers: named after the process that made them, so that a later one can remove what a killed
//! one left.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};

use crate::owner::FleetId;
use crate::registry::{Registry, Stop};
use crate::signal;

/// What the directories' names end with, after `mcs-<id>`.
const SUFFIX: &str = "-apiserver";

/// A directory in the machine's directory for temporary files.
pub(super) struct Dir {
    path: PathBuf,
    number: AtomicU32,
}

impl Dir {
    pub(super) fn make() -> Result<Self> {
        let all = std::env::temp_dir();
        remove_abandoned(&all)?;
        let path = all.join(format!("mcs-{}{SUFFIX}", FleetId::next()?));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path, number: AtomicU32::new(1) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A number that was not given before.
    pub(super) fn next_number(&self) -> u32 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }
}

/// Removes the directories whose processes ended without doing so.
fn remove_abandoned(all: &Path) -> Result<()> {
    for entry in fs::read_dir(all).with_context(|| format!("read {}", all.display()))? {
        let entry = entry.with_context(|| format!("read {}", all.display()))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.ends_with(SUFFIX)) else { continue };
        if FleetId::of_name(name).is_some_and(|owner| !owner.owner_lives()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a directory, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Copies a directory of directories and files.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry.with_context(|| format!("read {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target).with_context(|| format!("copy {}", source.display()))?;
        }
    }
    Ok(())
}

/// Has something stopped when this process ends, by itself or by Ctrl-C: values in statics are never dropped.
pub(super) fn remove_at_exit(thing: &Arc<impl Stop + 'static>) -> Result<()> {
    static FIRST: OnceLock<()> = OnceLock::new();
    running().add(thing);
    if FIRST.set(()).is_ok() {
        signal::before_ending(|| running().stop_all())?;
        // SAFETY: the function is there as long as the program, and does not unwind: see there.
        unsafe { libc::atexit(at_exit) };
    }
    Ok(())
}

fn running() -> &'static Registry {
    static RUNNING: OnceLock<Registry> = OnceLock::new();
    RUNNING.get_or_init(Registry::default)
}

extern "C" fn at_exit() {
    // A panic here would end the process with another status than the tests'; what is left is removed by the next.
    drop(std::panic::catch_unwind(|| running().stop_all()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_is_removed_and_what_a_living_one_uses_is_not() {
        let all = tempfile::tempdir().unwrap();
        let living = all.path().join(format!("mcs-{}{SUFFIX}", FleetId::next().unwrap()));
        // The start time is another one: the process that has this id now is not the one that made it.
        let dead = all.path().join(format!("mcs-{}-1-1{SUFFIX}", std::process::id()));
        let foreign = all.path().join("mcs-other");
        for dir in [&living, &dead, &foreign] {
            fs::create_dir(dir).unwrap();
        }
        remove_abandoned(all.path()).unwrap();
        assert!(living.exists() && foreign.exists() && !dead.exists());
    }
}
