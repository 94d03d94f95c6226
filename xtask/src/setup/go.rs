//! Programs that Go builds, of the versions that a go.mod of ours pins.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{Group, Outcome, packages, step};
use crate::child;

/// How long one build may take: a slow machine with empty caches.
const LIMIT: Duration = Duration::from_secs(3600);
/// Without tables that only a debugger reads.
const STRIPPED: &str = "-s -w";
/// The oldest Go that can fetch the newer one that a go.mod asks for.
const OLDEST_GO: (u32, u32) = (1, 21);

/// Programs that are built together.
#[derive(Debug)]
pub(super) struct Module {
    /// What it is called in messages, and by the file that says which version was built.
    pub(super) name: &'static str,
    /// The directory of its go.mod in `xtask/kubernetes`.
    pub(super) source: &'static str,
    /// The module in that go.mod that has the version; `None` if the source is our own.
    pub(super) upstream: Option<&'static str>,
    /// Program and package.
    pub(super) programs: &'static [(&'static str, &'static str)],
    /// Who needs it.
    pub(super) groups: &'static [Group],
    /// Whether there is C in it.
    pub(super) with_c: bool,
    /// More flags for `go build`.
    pub(super) flags: &'static [&'static str],
    /// How long it takes on two cores with empty caches.
    pub(super) takes: &'static str,
}

impl Module {
    /// What most are like.
    pub(super) const PLAIN: Self =
        Self { name: "", source: "", upstream: None, programs: &[], groups: &[], with_c: false, flags: &[], takes: "" };

    /// Builds what is missing into `bin`.
    pub(super) fn ensure(&self, root: &Path, bin: &Path) -> Result<Outcome> {
        let source = root.join("xtask/kubernetes").join(self.source);
        let version = self.version(&source)?;
        let stamp = bin.join(format!(".{}.version", self.name));
        let complete = self.programs.iter().all(|(program, _)| bin.join(program).is_file());
        if complete && fs::read_to_string(&stamp).is_ok_and(|stamped| stamped == version) {
            return Ok(Outcome::Present);
        }
        if !(complete && self.programs.iter().all(|(program, _)| says(&bin.join(program), &version))) {
            let go = go(self.name)?;
            let shown = if self.upstream.is_some() { &version } else { "of our own" };
            step(&format!("go build {} {shown} (about {} on two cores)", self.name, self.takes), || {
                self.build(&go, &source, &version, bin)
            })?;
            fs::write(&stamp, &version).with_context(|| format!("write {}", stamp.display()))?;
            return Ok(Outcome::Installed);
        }
        fs::write(&stamp, &version).with_context(|| format!("write {}", stamp.display()))?;
        Ok(Outcome::Present)
    }

    /// The version that is wanted, `v1.36.3`; of our own program it is its text.
    pub(super) fn version(&self, source: &Path) -> Result<String> {
        match self.upstream {
            Some(upstream) => version(&source.join("go.mod"), upstream),
            None => {
                let main = source.join("main.go");
                fs::read_to_string(&main).with_context(|| format!("read {}", main.display()))
            }
        }
    }

    /// Builds beside the place and renames: who runs a program right now keeps it, and an interrupted build leaves none.
    fn build(&self, go: &Path, source: &Path, version: &str, bin: &Path) -> Result<()> {
        let scratch = bin.join(format!("building-{}", std::process::id()));
        fs::create_dir_all(&scratch).with_context(|| format!("make {}", scratch.display()))?;
        let built = child::attend(&mut self.command(go, source, version, &scratch), LIMIT).and_then(|()| {
            for (program, package) in self.programs {
                // Go names a program after its package's last element, unless that is a major version.
                let named = match *package {
                    "." => self.source,
                    package => package.trim_end_matches("/v3").rsplit('/').next().unwrap_or(program),
                };
                let place = bin.join(program);
                if let Some(directory) = place.parent() {
                    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
                }
                fs::rename(scratch.join(named), place).with_context(|| format!("move {program}"))?;
            }
            Ok(())
        });
        fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
        built
    }

    fn command(&self, go: &Path, source: &Path, version: &str, into: &Path) -> Command {
        let mut build = child::command(go);
        let linked_in = if self.upstream.is_some() { linked_in(version) } else { STRIPPED.to_owned() };
        build.args(["build", "-buildvcs=false", "-mod=readonly", "-ldflags", &linked_in, "-o"]);
        build.arg(into).args(self.flags).args(self.programs.iter().map(|(_, package)| package)).current_dir(source);
        // Flags for other work must not decide how this is built; a Go that is too old fetches the one that go.mod asks for.
        build
            .env("CGO_ENABLED", if self.with_c { "1" } else { "0" })
            .env("GOFLAGS", "")
            .env("GOWORK", "off")
            .env("GOTOOLCHAIN", "auto");
        build
    }
}

/// Kubernetes' version is linked in, as its own build does: clients look at it.
fn linked_in(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let set = |name: &str, value: &str| format!(" -X k8s.io/component-base/version.{name}={value}");
    let variables = [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)];
    [STRIPPED.to_owned()].into_iter().chain(variables.map(|(name, value)| set(name, value))).collect()
}

/// The version of a required module: `v1.36.3`.
fn version(go_mod: &Path, module: &str) -> Result<String> {
    let text = fs::read_to_string(go_mod).with_context(|| format!("read {}", go_mod.display()))?;
    let found = text.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next() == Some(module)).then(|| words.next().map(str::to_owned))?
    });
    found.filter(|word| word.starts_with('v')).with_context(|| format!("{}: no version of {module}", go_mod.display()))
}

/// Whether a program says that it is of this version: somebody may have put it there by other means.
fn says(program: &Path, version: &str) -> bool {
    let said = child::capture(child::command(program).arg("--version")).unwrap_or_default();
    let version = version.trim_start_matches('v');
    said.split_whitespace().any(|word| word.trim_start_matches('v') == version)
}

/// Where Go keeps the sources of a module that a go.mod requires; it fetches them if it must.
pub(super) fn directory_of(source: &Path, module: &str) -> Result<PathBuf> {
    let mut list = child::command(go(module)?);
    list.args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module]).current_dir(source);
    list.env("GOFLAGS", "").env("GOWORK", "off").env("GOTOOLCHAIN", "auto");
    match child::capture(&mut list)?.trim() {
        "" => bail!("go list: {module}: its sources are not there"),
        directory => Ok(directory.into()),
    }
}

/// A Go that can build, from Debian if there is none.
fn go(wanted: &str) -> Result<PathBuf> {
    if find_go().is_none() {
        packages::install(&["golang-go"]).with_context(|| format!("Go, to build {wanted}"))?;
    }
    let go = find_go().context("go: not there although the package golang-go is")?;
    let line = child::capture(child::command(&go).arg("version"))?;
    if go_version(&line).is_none_or(|found| found < OLDEST_GO) {
        let (major, minor) = OLDEST_GO;
        bail!("{}: older than {major}.{minor}: install a newer Go", line.trim());
    }
    Ok(go)
}

/// On the `PATH`, or where Go's own archive is unpacked by custom.
fn find_go() -> Option<PathBuf> {
    child::find("go").or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.is_file()))
}

/// 1.26 of `go version go1.26.8 linux/amd64`.
fn go_version(line: &str) -> Option<(u32, u32)> {
    let version = line.split_whitespace().nth(2)?.strip_prefix("go")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_a_go_mod() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("go.mod");
        fs::write(&file, "module m\n\nrequire a/b v1.2.3\n\nrequire (\n\ta/b/v3 v3.4.5 // indirect\n)\n").unwrap();
        assert_eq!(version(&file, "a/b").unwrap(), "v1.2.3");
        assert_eq!(version(&file, "a/b/v3").unwrap(), "v3.4.5");
        assert!(version(&file, "a").is_err());
    }

    #[test]
    fn go_says_its_version() {
        assert_eq!(go_version("go version go1.26.8 linux/amd64\n"), Some((1, 26)));
        assert_eq!(go_version("go version go1.27rc1 linux/amd64\n"), Some((1, 27)));
        assert_eq!(go_version("go: no such thing"), None);
    }

    #[test]
    fn programs_know_what_they_are() {
        let flags = linked_in("v1.36.3");
        assert!(flags.ends_with("gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"), "{flags}");
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("p");
        fs::write(&program, "#!/bin/sh\necho Kubernetes v1.36.3\n").unwrap();
        child::capture(child::command("chmod").arg("+x").arg(&program)).unwrap();
        assert!(says(&program, "v1.36.3") && !says(&program, "v1.36.30") && !says(&dir.path().join("q"), "v1.36.3"));
    }
}
