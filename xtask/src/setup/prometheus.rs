//! promtool and prometheus, for tests of alert rules. Out of Debian's package, which is unpacked and not installed: its
//! installation would start a server.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Outcome, kubernetes, step};
use crate::{child, debian::suite::Suite};

/// Debian's suites that may be there, the system's own first by custom.
const SUITES: [&str; 3] = ["bookworm", "trixie", "sid"];

const PROGRAMS: [&str; 2] = ["promtool", "prometheus"];

/// Looks in `PATH` and in the cache, and puts them into the cache otherwise.
pub(super) fn ensure(apt: &Path) -> Result<Outcome> {
    let bin = kubernetes::bin()?;
    if PROGRAMS.iter().all(|program| child::find(program).is_some() || bin.join(program).is_file()) {
        return Ok(Outcome::Present);
    }
    step("Debian package prometheus, unpacked", || {
        let mut failure = None;
        for name in SUITES {
            match fetch(name, apt, &bin) {
                Ok(()) => return Ok(()),
                // The first suite is the likely one, so its reason is the one to tell.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(()), Err)
    })
}

fn fetch(name: &str, apt: &Path, bin: &Path) -> Result<()> {
    let suite = Suite::open(name, apt)?;
    let versions = suite.versions("prometheus")?;
    let version = versions.first().with_context(|| format!("suite {name}: no package prometheus"))?;
    // Beside the place, so that programs are moved into it whole.
    let scratch = bin.join(format!("unpacking-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("make {}", scratch.display()))?;
    let moved = suite.unpack("prometheus", version, Some("./usr/bin/*"), &scratch).and_then(|()| {
        for program in PROGRAMS {
            fs::rename(scratch.join("usr/bin").join(program), bin.join(program))
                .with_context(|| format!("move {program}"))?;
        }
        Ok(())
    });
    fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    moved
}
