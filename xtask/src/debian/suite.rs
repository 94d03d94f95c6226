//! One suite of the system's archive, asked with its own lists: the system's sources and lists stay as they are, and
//! nothing here needs root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::sources::Archive;
use crate::child;

const UPDATE_LIMIT: Duration = Duration::from_secs(180);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);

/// A suite whose lists have been fetched.
#[derive(Debug)]
pub(crate) struct Suite {
    name: String,
    directory: PathBuf,
}

impl Suite {
    /// Fetches the lists of `name` into `cache`; cheap when they have not changed since the last time.
    pub(crate) fn open(name: &str, cache: &Path) -> Result<Self> {
        if child::find("apt-get").is_none() {
            bail!("apt-get: not found: this is not a Debian system");
        }
        let directory = cache.join(name);
        for part in ["lists/partial", "cache/archives/partial"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        }
        let suite = Self { name: name.to_owned(), directory };
        // apt takes the format from the name: `.sources` is deb822.
        let sources = suite.directory.join("suite.sources");
        fs::write(&sources, Archive::of_the_system()?.sources_for(name))
            .with_context(|| format!("write {}", sources.display()))?;
        // An unreachable mirror is only a warning to apt-get; the old lists would then answer.
        child::attend(suite.apt("apt-get").args(["--error-on=any", "update"]), UPDATE_LIMIT)
            .with_context(|| format!("suite {name}: lists"))?;
        Ok(suite)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = child::command(program);
        let directory = self.directory.display();
        for option in [
            format!("Dir::Etc::sourcelist={directory}/suite.sources"),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={directory}/lists"),
            format!("Dir::Cache={directory}/cache"),
            "Acquire::Languages=none".to_owned(),
            "Acquire::PDiffs=false".to_owned(),
            // The lists are in a directory that apt's own user may not be able to reach.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            apt.args(["-o", &option]);
        }
        apt.env("LC_ALL", "C");
        apt
    }

    /// Names of packages that begin with `prefix`.
    pub(crate) fn packages(&self, prefix: &str) -> Result<Vec<String>> {
        let names = child::capture(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The versions of `package` that this suite has.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = child::capture(self.apt("apt-cache").args(["madison", package]))?;
        Ok(madison(&table))
    }

    /// Fetches `package` in `version` and unpacks it, or only the files that the tar pattern `only` names, into the
    /// empty directory `into`.
    pub(crate) fn unpack(&self, package: &str, version: &str, only: Option<&str>, into: &Path) -> Result<()> {
        let downloads = into.join("deb");
        fs::create_dir_all(&downloads).with_context(|| format!("make {}", downloads.display()))?;
        child::attend(
            self.apt("apt-get").args(["download", &format!("{package}={version}")]).current_dir(&downloads),
            DOWNLOAD_LIMIT,
        )
        .with_context(|| format!("suite {}: download {package} {version}", self.name))?;
        let deb = fs::read_dir(&downloads)
            .with_context(|| format!("list {}", downloads.display()))?
            .find_map(|entry| Some(entry.ok()?.path()))
            .with_context(|| format!("suite {}: download {package}: no file came", self.name))?;
        // `dpkg-deb -x` can only unpack everything, and rust-src is 25 times what we need of it.
        let mut unpack = child::command("sh");
        unpack
            .args([
                "-c",
                r#"dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" ${3:+--wildcards --no-wildcards-match-slash "$3"}"#,
            ])
            .arg("unpack")
            .args([deb.as_path(), into])
            .args(only);
        child::attend(&mut unpack, DOWNLOAD_LIMIT).with_context(|| format!("unpack {package}"))?;
        fs::remove_dir_all(&downloads).with_context(|| format!("remove {}", downloads.display()))
    }
}

/// The version column of `apt-cache madison`: `package | version | where`.
fn madison(table: &str) -> Vec<String> {
    table.lines().filter_map(|line| Some(line.split('|').nth(1)?.trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_the_second_column() {
        let table = " rust-src | 1.96.0+dfsg1-1~bpo13+1 | http://m.example trixie-backports/main amd64 Packages\n \
                      rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://m.example trixie-backports/main amd64 Packages\n";
        assert_eq!(madison(table), ["1.96.0+dfsg1-1~bpo13+1", "1.95.0+dfsg1-2~bpo13+1"]);
        assert!(madison("").is_empty());
    }
}
