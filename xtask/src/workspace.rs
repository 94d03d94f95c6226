//! What cargo knows about this workspace: where it is, where it builds, which test tiers there are.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::child;

/// The package whose `[[test]]` targets are the test tiers.
const TESTS: &str = "mcs-tests";

/// The workspace, as `cargo metadata` shows it.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Where the top `Cargo.toml` is.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
    /// The `[[test]]` targets of the tests package, in the order in which a developer wants them to fail.
    pub(crate) tiers: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    workspace_root: PathBuf,
    target_directory: PathBuf,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Workspace {
    /// Asks cargo. Works from any directory of the workspace and needs no network.
    pub(crate) fn open() -> Result<Self> {
        let json = child::capture(&mut child::cargo(["metadata", "--no-deps", "--format-version=1"]))?;
        Self::from_json(&json)
    }

    fn from_json(json: &str) -> Result<Self> {
        let Metadata { workspace_root, target_directory, packages } =
            serde_json::from_str(json).context("cargo metadata: output")?;
        let mut tiers: Vec<String> = packages
            .into_iter()
            .filter(|package| package.name == TESTS)
            .flat_map(|package| package.targets)
            .filter(|target| target.kind.iter().any(|kind| kind == "test"))
            .map(|target| target.name)
            .collect();
        tiers.sort_by_key(|name| rank(name));
        Ok(Self { root: workspace_root, target: target_directory, tiers })
    }

    /// A directory below the target directory, made if missing: for what is slow to get and may be deleted.
    pub(crate) fn cache(&self, name: &str) -> Result<PathBuf> {
        let directory = self.target.join(name);
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(directory)
    }
}

/// Cheap tiers first: what needs nothing, what needs namespaces (the harness itself), what needs our programs in the
/// kernel, what needs a whole fleet, what needs real clusters. A new tier comes last.
fn rank(tier: &str) -> usize {
    const ORDER: [&str; 7] = ["golden", "simulator", "fleet", "api", "kernel", "clusters", "e2e"];
    ORDER.iter().position(|known| *known == tier).unwrap_or(ORDER.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_the_test_targets_of_the_tests_package_cheap_ones_first() {
        let workspace = Workspace::from_json(
            r#"{"workspace_root": "/w", "target_directory": "/w/target", "other": 1, "packages": [
                {"name": "mcs-tests", "targets": [
                    {"name": "mcs_tests", "kind": ["lib"]},
                    {"name": "soak", "kind": ["test"]},
                    {"name": "e2e", "kind": ["test"]},
                    {"name": "kernel", "kind": ["test"]},
                    {"name": "golden", "kind": ["test"]}]},
                {"name": "other", "targets": [{"name": "private", "kind": ["test"]}]}]}"#,
        )
        .unwrap();
        assert_eq!(workspace.tiers, ["golden", "kernel", "e2e", "soak"]);
    }
}
