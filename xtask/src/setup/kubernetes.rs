//! etcd, kube-apiserver and kube-controller-manager, for tests with real API servers. No archive of Debian has them, so they
//! are built from Go modules: the versions are in `xtask/kubernetes/*/go.mod`, and what may come for them in `go.sum`.
//!
//! ```text
//!  KUBEBUILDER_ASSETS has them ──► used as they are
//!  else <cache>/mcs/bin, of our versions ──► nothing to do
//!  else go build (Go from Debian if there is none) ──► <cache>/mcs/bin
//! ```

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{Outcome, packages, step};
use crate::child;

/// How long one build may take: a slow machine with empty caches.
const LIMIT: Duration = Duration::from_secs(3600);
/// The oldest Go that can fetch the newer one that a go.mod asks for.
const OLDEST_GO: (u32, u32) = (1, 21);

/// Programs that one Go module builds.
struct Module {
    /// Its directory in `xtask/kubernetes`.
    name: &'static str,
    /// The module in its go.mod that has the version.
    upstream: &'static str,
    /// Program and package.
    programs: &'static [(&'static str, &'static str)],
    /// How long it takes on two cores with empty caches.
    takes: &'static str,
}

const MODULES: [Module; 2] = [
    Module {
        name: "etcd",
        upstream: "go.etcd.io/etcd/server/v3",
        programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
        takes: "3 minutes",
    },
    Module {
        name: "kubernetes",
        upstream: "k8s.io/kubernetes",
        programs: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        ],
        takes: "10 minutes",
    },
];

/// Builds what is missing, and reports each module that was.
pub(super) fn ensure(root: &Path, mut report: impl FnMut(&str, Result<Outcome>)) {
    if let Some(assets) = directory("KUBEBUILDER_ASSETS")
        && MODULES.iter().flat_map(|module| module.programs).all(|(program, _)| assets.join(program).is_file())
    {
        return;
    }
    for module in MODULES {
        let result = module.ensure(root).map_err(|error| anyhow!("{error:#} (tests with API servers are skipped)"));
        report(module.name, result);
    }
}

impl Module {
    fn ensure(&self, root: &Path) -> Result<Outcome> {
        let source = root.join("xtask/kubernetes").join(self.name);
        let version = version(&source.join("go.mod"), self.upstream)?;
        let bin = bin()?;
        let stamp = bin.join(format!(".{}.version", self.name));
        let complete = self.programs.iter().all(|(program, _)| bin.join(program).is_file());
        if complete && fs::read_to_string(&stamp).is_ok_and(|stamped| stamped == version) {
            return Ok(Outcome::Present);
        }
        if !(complete && self.programs.iter().all(|(program, _)| says(&bin.join(program), &version))) {
            let go = go(&version)?;
            step(&format!("go build {} {version} (about {} on two cores)", self.name, self.takes), || {
                self.build(&go, &source, &version, &bin)
            })?;
            fs::write(&stamp, &version).with_context(|| format!("write {}", stamp.display()))?;
            return Ok(Outcome::Installed);
        }
        fs::write(&stamp, &version).with_context(|| format!("write {}", stamp.display()))?;
        Ok(Outcome::Present)
    }

    /// Builds beside the place and renames: who runs a program right now keeps it, and an interrupted build leaves none.
    fn build(&self, go: &Path, source: &Path, version: &str, bin: &Path) -> Result<()> {
        let scratch = bin.join(format!("building-{}", std::process::id()));
        fs::create_dir_all(&scratch).with_context(|| format!("make {}", scratch.display()))?;
        let built = child::attend(&mut self.command(go, source, version, &scratch), LIMIT).and_then(|()| {
            for (program, package) in self.programs {
                // Go names a program after its package's last element, unless that is a major version.
                let named = package.trim_end_matches("/v3").rsplit('/').next().unwrap_or(program);
                fs::rename(scratch.join(named), bin.join(program)).with_context(|| format!("move {program}"))?;
            }
            Ok(())
        });
        fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
        built
    }

    fn command(&self, go: &Path, source: &Path, version: &str, into: &Path) -> Command {
        let mut build = child::command(go);
        build.args(["build", "-buildvcs=false", "-mod=readonly", "-ldflags", &linked_in(version), "-o"]);
        build.arg(into).args(self.programs.iter().map(|(_, package)| package)).current_dir(source);
        // Flags for other work must not decide how this is built; a Go that is too old fetches the one that go.mod asks for.
        build.env("CGO_ENABLED", "0").env("GOFLAGS", "").env("GOWORK", "off").env("GOTOOLCHAIN", "auto");
        build
    }
}

/// Kubernetes' version is linked in, as its own build does: clients look at it.
fn linked_in(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let set = |name: &str, value: &str| format!(" -X k8s.io/component-base/version.{name}={value}");
    let variables = [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)];
    ["-s -w".to_owned()].into_iter().chain(variables.map(|(name, value)| set(name, value))).collect()
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

/// Where programs are kept: `mcs/bin` in the user's cache.
fn bin() -> Result<PathBuf> {
    let cache = directory("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")));
    let bin = cache.context("no home directory: set XDG_CACHE_HOME")?.join("mcs/bin");
    fs::create_dir_all(&bin).with_context(|| format!("make {}", bin.display()))?;
    Ok(bin)
}

fn directory(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
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
    fn the_pinned_versions_are_read_from_our_own_modules() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for module in MODULES {
            let version = version(&root.join("kubernetes").join(module.name).join("go.mod"), module.upstream).unwrap();
            assert_eq!(version.split('.').count(), 3, "{version}");
        }
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
