//! A Debian kernel: found in whichever suite has its series, fetched once, unpacked, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{debian::suite::Suite, setup::seconds};

/// Which suite to ask first for a series; the others after it.
const HOMES: [(&str, &str); 2] = [("6.1", "bookworm"), ("6.12", "trixie")];
const SUITES: [&str; 6] = ["bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky", "sid"];

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What `uname -r` says in it.
    pub(crate) release: String,
    /// The image that an emulator boots.
    pub(crate) image: PathBuf,
    /// The directory with its modules.
    pub(crate) modules: PathBuf,
}

/// Accepts `6.1` and the like, as the version becomes a part of paths and package names.
pub(crate) fn check_version(version: &str) -> Result<()> {
    let numbers = version.split('.').collect::<Vec<_>>();
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if numbers.len() != 2 || !numbers.iter().all(digits) {
        bail!("kernel {version}: not a version: such as 6.12");
    }
    Ok(())
}

/// The kernel of series `version`, from `directory` or from Debian.
pub(crate) fn obtain(version: &str, directory: &Path, apt: &Path) -> Result<Kernel> {
    let root = directory.join("kernel");
    if !root.exists() {
        let start = Instant::now();
        println!("vm {version}: fetching Debian's kernel …");
        let scratch = directory.join("kernel.partial");
        if scratch.exists() {
            fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
        }
        let package = fetch(version, &scratch, apt)?;
        fs::rename(&scratch, &root).with_context(|| format!("make {}", root.display()))?;
        println!("vm {version}: {package}: fetched in {}", seconds(start.elapsed()));
    }
    unpacked(&root).with_context(|| format!("kernel in {}: incomplete: remove that directory", root.display()))
}

fn fetch(version: &str, into: &Path, apt: &Path) -> Result<String> {
    let home = HOMES.iter().find(|(series, _)| *series == version);
    let suites = home
        .map(|(_, suite)| *suite)
        .into_iter()
        .chain(SUITES.into_iter().filter(|suite| home.is_none_or(|(_, home)| home != suite)));
    let mut tried = Vec::new();
    for name in suites {
        let suite = match Suite::open(name, apt) {
            Ok(suite) => suite,
            Err(error) => {
                tried.push(format!("{error:#}"));
                continue;
            }
        };
        let packages = suite.packages(&format!("linux-image-{version}."))?;
        let Some(package) = newest(packages) else {
            tried.push(format!("{name}: none"));
            continue;
        };
        let versions = suite.versions(&package)?;
        let Some(package_version) = versions.first() else {
            tried.push(format!("{name}: {package}: no version"));
            continue;
        };
        suite.unpack(&package, package_version, None, into)?;
        return Ok(package);
    }
    bail!("kernel {version}: not in Debian: {}", tried.join(", "))
}

/// The newest cloud kernel (small, no firmware) among `packages`, by the numbers in the names.
fn newest(packages: Vec<String>) -> Option<String> {
    packages.into_iter().filter(|name| name.ends_with("-cloud-amd64")).max_by_key(|name| {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u64>().ok()).collect::<Vec<_>>()
    })
}

fn unpacked(root: &Path) -> Result<Kernel> {
    // Debian 13 moved /lib into /usr.
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|place| root.join(place))
        .into_iter()
        .find(|place| place.is_dir())
        .context("modules: no directory")?;
    let release = fs::read_dir(&modules)
        .with_context(|| format!("list {}", modules.display()))?
        .find_map(|entry| entry.ok()?.file_name().into_string().ok())
        .context("modules: none")?;
    let image = root.join("boot").join(format!("vmlinuz-{release}"));
    if !image.is_file() {
        bail!("{}: not there", image.display());
    }
    Ok(Kernel { modules: modules.join(&release), image, release })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_cloud_kernel_by_number_not_by_letter() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-41-cloud-amd64",
            "linux-image-6.1.0-41-cloud-amd64-unsigned",
            "linux-image-6.1.0-42-amd64",
        ];
        let names = names.map(str::to_owned).to_vec();
        assert_eq!(newest(names).as_deref(), Some("linux-image-6.1.0-41-cloud-amd64"));
        assert_eq!(newest(Vec::new()), None);
    }

    #[test]
    fn a_version_is_two_numbers() {
        assert!(check_version("6.12").is_ok());
        for wrong in ["6", "6.12.1", "6.x", "../6.1", ""] {
            assert!(check_version(wrong).is_err(), "{wrong}");
        }
    }
}
