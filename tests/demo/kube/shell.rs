//! Types a line: shows it, runs it, shows what comes out.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::{env, io};

use anyhow::{Context as _, Result, ensure};
use mcs_clusters::Directories;
use mcs_tests::kube::{Kube, deploy_directory};
use serde_json::Value;

use crate::screen::Screen;
use crate::stage::own_mcs;

/// A shell in the clusters' network, in the directory with the files about them, with `mcs` and `kubectl` on its PATH.
pub(crate) struct Shell<'a> {
    pub(crate) kube: &'a Kube,
    path: OsString,
}

/// What is shown of what a line says.
#[derive(Clone, Copy)]
pub(crate) enum Show {
    /// So many lines, and how many more there were.
    First(usize),
    /// The last, which sums up.
    Last,
}

/// What a line said, on both outputs.
pub(crate) struct Said {
    pub(crate) succeeded: bool,
    pub(crate) text: String,
}

impl<'a> Shell<'a> {
    pub(crate) fn new(kube: &'a Kube) -> Result<Self> {
        let bin = kube.files().join("bin");
        fs::create_dir_all(&bin).with_context(|| format!("make {}", bin.display()))?;
        link(&own_mcs()?, &bin.join("mcs"))?;
        link(&Directories::of_user()?.program("kubectl")?, &bin.join("kubectl"))?;
        link(&deploy_directory(""), &kube.files().join("deploy"))?;
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([bin].into_iter().chain(env::split_paths(&path))).context("PATH")?;
        Ok(Self { kube, path })
    }

    /// A line that must succeed.
    pub(crate) fn run(&self, line: &str, show: Show, screen: &Screen) -> Result<String> {
        let Said { succeeded, text } = self.try_run(line, show, screen)?;
        ensure!(succeeded, "{line}: {text}");
        Ok(text)
    }

    /// Waits until a workload has rolled out.
    pub(crate) fn rolled_out(&self, cluster: &str, namespace: &str, workload: &str, screen: &Screen) -> Result<()> {
        let line = format!("kubectl --context {cluster} -n {namespace} rollout status \\\n    {workload} --timeout=3m");
        let said = self.try_run(&line, Show::Last, screen)?;
        ensure!(said.succeeded, "{line}: {}", self.kube.why(cluster, namespace));
        Ok(())
    }

    /// A line that may fail.
    pub(crate) fn try_run(&self, line: &str, show: Show, screen: &Screen) -> Result<Said> {
        screen.command(line)?;
        let said = screen.during("still running", |_| self.quietly(line))?;
        shorten(&said.text, show).iter().try_for_each(|line| screen.line(line))?;
        Ok(said)
    }

    fn quietly(&self, line: &str) -> Result<Said> {
        let (mut reader, writer) = io::pipe().context("make a pipe")?;
        let mut shell = self.kube.clusters().inside("sh");
        shell.args(["-c", line]).current_dir(self.kube.files()).env("PATH", &self.path).stdin(Stdio::null());
        shell.stdout(writer.try_clone().context("make a pipe")?).stderr(writer);
        let mut child = shell.spawn().with_context(|| format!("start {line}"))?;
        // It holds the writing end: without this the reader would never see the end.
        drop(shell);
        let mut said = Vec::new();
        reader.read_to_end(&mut said).with_context(|| format!("read what is said by {line}"))?;
        let status = child.wait().with_context(|| format!("wait for {line}"))?;
        Ok(Said { succeeded: status.success(), text: String::from_utf8_lossy(&said).into_owned() })
    }

    /// A file for lines to name.
    pub(crate) fn write(&self, name: &str, objects: &[Value]) -> Result<()> {
        let documents = objects.iter().map(|object| serde_saphyr::to_string(object).context(name.to_owned()));
        let file = self.kube.files().join(name);
        let text = documents.collect::<Result<Vec<String>>>()?.join("---\n");
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }
}

fn link(to: &Path, link: &Path) -> Result<()> {
    match symlink(to, link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("link {}", link.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn shorten(text: &str, show: Show) -> Vec<String> {
    let all: Vec<&str> = text.lines().collect();
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    match show {
        Show::Last => owned(&all[all.len().saturating_sub(1)..]),
        // One more is shown rather than counted.
        Show::First(lines) if all.len() <= lines + 1 => owned(&all),
        Show::First(lines) => {
            let mut shown: Vec<String> = owned(&all[..lines]);
            shown.push(format!("… {} more lines", all.len() - lines));
            shown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Show::{First, Last};
    use super::shorten;

    #[test]
    fn a_line_is_not_replaced_by_one_that_counts_it() {
        assert_eq!(shorten("a\nb\nc\n", First(3)), ["a", "b", "c"]);
        assert_eq!(shorten("a\nb\nc\n", First(2)), ["a", "b", "c"]);
        assert_eq!(shorten("a\nb\nc\n", First(1)), ["a", "… 2 more lines"]);
        assert_eq!(shorten("a\nb\n", Last), ["b"]);
        assert!(shorten("", First(1)).is_empty() && shorten("", Last).is_empty());
    }
}
