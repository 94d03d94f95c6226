//! rust-src: the standard library's sources. The kernel programs' target ships no compiled `core`, so cargo builds
//! it (`-Z build-std=core`), and the sources must be of the compiler's own version.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{Outcome, step};
use crate::{child, debian::suite::Suite};

/// Where Debian has kept new compilers: the backports first, as they keep old versions beside the newest.
const SUITES: [&str; 5] = ["trixie-backports", "trixie", "forky", "sid", "bookworm-backports"];
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);

/// Looks into `sysroot` (default: the compiler's) and installs what is missing there.
pub(super) fn ensure(sysroot: Option<&Path>, no_rustup: bool, apt: &Path) -> Result<Outcome> {
    let version = compiler_version(&child::capture(child::command("rustc").arg("--version"))?)?;
    let own = PathBuf::from(child::capture(child::command("rustc").args(["--print", "sysroot"]))?.trim_end());
    let sysroot = sysroot.unwrap_or(&own);
    let place = sysroot.join("lib/rustlib/src/rust");
    if is_of(&place.join("library"), &version) {
        return Ok(Outcome::Present);
    }
    if sysroot == own && !no_rustup && child::find("rustup").is_some() {
        let added = step(&format!("rustup component add rust-src ({version})"), || {
            // rustup refuses to write over files that it did not put there.
            set_aside(&place.join("library"))?;
            let mut add = child::command("rustup");
            add.args(["component", "add", "rust-src"]);
            child::attend(&mut add, RUSTUP_LIMIT)?;
            if !is_of(&place.join("library"), &version) {
                bail!("no library of {version} came");
            }
            Ok(())
        });
        match added {
            Ok(outcome) => return Ok(outcome),
            // Not an error yet: a machine behind a mirror of Debian gets it from there.
            Err(_) => println!("  rustup cannot get it here; trying Debian's package of {version}"),
        }
    }
    step(&format!("Debian package rust-src {version}"), || from_debian(&version, &place, apt))
        .map_err(|error| anyhow!("{error:#}: run `rustup component add rust-src` where there is internet"))
}

/// "1.95.0" of "rustc 1.95.0 (59807616e 2026-04-14)"; a nightly's suffix stays.
fn compiler_version(line: &str) -> Result<String> {
    line.split_whitespace()
        .nth(1)
        .map(str::to_owned)
        .with_context(|| format!("rustc --version: {line}: no version in it"))
}

/// Whether `library` is the complete library of this compiler.
///
/// No file in it states its version. But each release stabilizes something, so the newest `since` of a stable item
/// tells minor releases apart; patch releases do not change what can be compiled.
fn is_of(library: &Path, version: &str) -> bool {
    let core = library.join("core");
    library.join("Cargo.lock").is_file()
        && core.join("Cargo.toml").is_file()
        && newest_stable(&core.join("src")) == minor(version)
}

fn minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-']).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn newest_stable(sources: &Path) -> Option<(u32, u32)> {
    let mut newest = None;
    let mut directories = vec![sources.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                newest = newest.max(newest_since(&fs::read_to_string(path).unwrap_or_default()));
            }
        }
    }
    newest
}

/// The newest release in `#[stable(feature = "…", since = "1.95.0")]`; a deprecation's `since` may lie ahead.
fn newest_since(source: &str) -> Option<(u32, u32)> {
    source
        .lines()
        .filter(|line| line.contains("stable("))
        .filter_map(|line| minor(line.split_once("since = \"")?.1.split('"').next()?))
        .max()
}

fn from_debian(version: &str, place: &Path, apt: &Path) -> Result<()> {
    // The first suite is the likely one, so its reason is the one to tell.
    let mut reason = None;
    for name in SUITES {
        let found = Suite::open(name, apt).and_then(|suite| {
            let wanted = suite
                .versions("rust-src")?
                .into_iter()
                .find(|candidate| upstream(candidate) == version)
                .with_context(|| format!("suite {name}: no rust-src {version}"))?;
            Ok((suite, wanted))
        });
        match found {
            Ok((suite, wanted)) => return unpack(&suite, &wanted, version, place),
            Err(error) => {
                reason.get_or_insert(error);
            }
        }
    }
    let reason = reason.map(|error| format!("{error:#}")).unwrap_or_default();
    bail!("{reason} (nor is it in {})", SUITES[1..].join(", "))
}

/// "1.95.0" of "1.95.0+dfsg1-2~bpo13+1", without an epoch.
fn upstream(debian: &str) -> &str {
    let version = debian.split_once(':').map_or(debian, |(_, version)| version);
    version.split(['+', '~', '-']).next().unwrap_or(version)
}

/// Unpacks beside the place and renames, so that an interrupted setup leaves no half library.
fn unpack(suite: &Suite, package: &str, version: &str, place: &Path) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("make {}", place.display()))?;
    let scratch = place.join(format!("unpacking-{}", std::process::id()));
    let result = (|| {
        suite.unpack("rust-src", package, Some("./usr/src/rustc-*/library"), &scratch)?;
        // The source tree holds other directories of this name (cargo's test suite has a mock): take the top one.
        let library = scratch.join(format!("usr/src/rustc-{version}/library"));
        if !is_of(&library, version) {
            bail!("package {package}: library: not of version {version}");
        }
        set_aside(&place.join("library"))?;
        fs::rename(&library, place.join("library")).with_context(|| format!("move the library to {}", place.display()))
    })();
    if scratch.exists() {
        fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    }
    result
}

/// Removes a library of another version.
fn set_aside(library: &Path) -> Result<()> {
    if !library.exists() {
        return Ok(());
    }
    // A rename first: whatever builds right now sees the whole library or none.
    let aside = library.with_file_name(format!("removing-{}", std::process::id()));
    fs::rename(library, &aside)
        .and_then(|()| fs::remove_dir_all(&aside))
        .with_context(|| format!("remove {} of another version", library.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_compiler_and_package() {
        let line = "rustc 1.95.0 (59807616e 2026-04-14)\n";
        assert_eq!(compiler_version(line).unwrap(), "1.95.0");
        assert!(compiler_version("").is_err());
        assert_eq!(upstream("1.95.0+dfsg1-2~bpo13+1"), "1.95.0");
        assert_eq!(upstream("1:1.95.0-1"), "1.95.0");
        assert_eq!(minor("1.97.0-nightly"), Some((1, 97)));
        assert_eq!(minor("CURRENT_RUSTC_VERSION"), None);
    }

    #[test]
    fn only_stable_items_date_a_library() {
        let source = "#[stable(feature = \"a\", since = \"1.9.0\")]\n\
                      #[rustc_const_stable(feature = \"b\", since = \"1.95.0\")]\n\
                      #[deprecated(since = \"1.99.0\", note = \"later\")]\n";
        assert_eq!(newest_since(source), Some((1, 95)));
        assert_eq!(newest_since("fn stable() {}"), None);
    }

    #[test]
    fn a_library_of_another_version_or_a_part_of_one_does_not_count() {
        let sysroot = tempfile::tempdir().unwrap();
        let library = sysroot.path().join("library");
        fs::create_dir_all(library.join("core/src/iter")).unwrap();
        fs::write(library.join("core/Cargo.toml"), "").unwrap();
        fs::write(library.join("core/src/iter/mod.rs"), "#[stable(feature = \"x\", since = \"1.95.0\")]").unwrap();
        assert!(!is_of(&library, "1.95.0"), "no Cargo.lock");
        fs::write(library.join("Cargo.lock"), "").unwrap();
        assert!(is_of(&library, "1.95.0"));
        assert!(!is_of(&library, "1.96.0"));
        set_aside(&library).unwrap();
        assert!(!library.exists());
        set_aside(&library).unwrap();
    }
}
