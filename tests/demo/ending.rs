//! How the demo ends: it removes what it made, after Ctrl-C too, and looks whether that is so.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mcs_tests::Fleet;
use mcs_tests::agent::AgentOptions;

use crate::screen::Screen;
use crate::stage::Stage;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static TRACES: OnceLock<Traces> = OnceLock::new();

/// How long an error is held back, as it may be an early sign of a Ctrl-C that also reached our children.
const DOUBT: Duration = Duration::from_millis(200);

/// Where a fleet could be seen after its end.
struct Traces {
    /// What the names of its network namespaces start with.
    namespaces: String,
    /// Its cgroup, its pins, its files.
    paths: [PathBuf; 3],
}

impl Traces {
    /// What is still there.
    fn left(&self) -> Result<Vec<String>> {
        let mut left: Vec<String> =
            self.paths.iter().filter(|path| path.exists()).map(|path| path.display().to_string()).collect();
        let listing = std::process::Command::new("ip").args(["netns", "list"]).output().context("run ip netns list")?;
        let listing = String::from_utf8_lossy(&listing.stdout);
        left.extend(listing.lines().filter(|line| line.starts_with(&self.namespaces)).map(str::to_owned));
        Ok(left)
    }
}

/// From now on Ctrl-C removes the fleet first.
pub(crate) fn on_signal() -> Result<()> {
    Fleet::on_signal_do(|| {
        begin();
        Fleet::remove_all();
        match TRACES.get().map_or(Ok(Vec::new()), Traces::left) {
            Ok(left) if left.is_empty() => eprintln!("demo: nothing is left"),
            Ok(left) => eprintln!("demo: still there: {}", left.join(" ")),
            Err(error) => eprintln!("demo: {error:#}"),
        }
    })
}

/// What a signal's thread says and notes before it removes anything.
pub(crate) fn begin() {
    INTERRUPTED.store(true, Ordering::SeqCst);
    eprintln!("\ndemo: interrupted: removing everything …");
}

/// Whether everything shall end: loops in pods look here, as their pods cannot go before them.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// After a Ctrl-C, does not return: another thread cleans up and ends the process.
pub(crate) fn wait_if_interrupted() {
    thread::sleep(DOUBT);
    while interrupted() {
        thread::park();
    }
}

/// Does not return an error that comes from a Ctrl-C: its caller would begin to clean up beside the thread that does.
pub(crate) fn unless_interrupted<T>(result: Result<T>) -> Result<T> {
    if result.is_err() {
        wait_if_interrupted();
    }
    result
}

/// Notes what must not be there at the end.
pub(crate) fn remember(fleet: &Fleet) -> Result<()> {
    let node = fleet.nodes().first().context("the fleet has no nodes")?;
    let pins = AgentOptions::new(fleet, node, "").pin_dir;
    let pins = pins.parent().context("the pin directory has no parent")?.to_owned();
    let traces = Traces { namespaces: format!("mcs-{}-", fleet.id()), paths: [fleet.cgroup()?, pins, fleet.files()] };
    TRACES.get_or_init(|| traces);
    Ok(())
}

/// The last step.
pub(crate) fn remove(stage: Stage, screen: &mut Screen) -> Result<()> {
    screen.step("Clean up", &["Servers and agents end, `mcs detach` on each node, namespaces, cgroups."])?;
    drop(stage);
    let left = TRACES.get().map_or(Ok(Vec::new()), Traces::left)?;
    let what = if left.is_empty() {
        "nothing is left: no namespace, cgroup, pinned program or map, file".to_owned()
    } else {
        format!("still there: {}", left.join(" "))
    };
    screen.check(left.is_empty(), &what)
}
