//! When a service's usable backends change in a node's maps: this program, started again on the node, reads them again and
//! again, and says what it sees.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use mcs::dataplane::pins::PinDir;
use mcs::dump::dump;
use mcs::maps::bpf::BpfMaps;
use mcs_clusters::Clusters;

/// The first argument that makes this program the watcher.
pub(crate) const VERB: &str = "watch-map";
/// The maps of an agent in a pod, as its node sees them.
const PINS: &str = "/sys/fs/bpf/mcs";
/// Between two looks: how exact the times are.
const PAUSE: Duration = Duration::from_millis(1);

/// A watcher on a node. Ends with this.
pub(crate) struct Watch {
    child: Child,
    seen: Receiver<(SystemTime, u32)>,
}

impl Watch {
    /// Begins to watch a service, `shop/web`, on a node.
    pub(crate) fn start(clusters: &Clusters, node: &str, service: &str) -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut command = clusters.on_node(node, program)?;
        command.args([VERB, PINS, service]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("watch the maps of {node}"))?;
        let said = BufReader::new(child.stdout.take().context("no standard output")?);
        let (send, seen) = mpsc::channel();
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                // Whoever waits learns of nonsense by the end of the channel.
                let Some(change) = parse(&line) else { break };
                if send.send(change).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, seen })
    }

    /// When so many backends were usable; what was seen before that is passed over.
    pub(crate) fn until(&self, usable: u32, limit: Duration) -> Result<SystemTime> {
        loop {
            match self.seen.recv_timeout(limit) {
                Ok((at, now)) if now == usable => return Ok(at),
                Ok(_) => {}
                Err(error) => bail!("{usable} usable backends in the maps: not in {limit:?}: {error}"),
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn parse(line: &str) -> Option<(SystemTime, u32)> {
    let (nanoseconds, usable) = line.split_once(' ')?;
    Some((UNIX_EPOCH + Duration::from_nanos(nanoseconds.parse().ok()?), usable.parse().ok()?))
}

/// The watcher itself: a line `UNIX-NANOSECONDS USABLE` at first and at each change, until nobody reads.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let [pins, service] = arguments else { bail!("{VERB}: two arguments: pin directory, NAMESPACE/NAME") };
    let maps = BpfMaps::new(&mut PinDir::new(PathBuf::from(pins)).pinned_maps(), false)?;
    let (mut before, mut out) = (None, std::io::stdout().lock());
    loop {
        let tables = dump(&maps)?;
        let frontends = tables.services.values().filter(|row| row.import.to_string() == *service);
        let usable: BTreeSet<u32> = frontends.map(|row| row.sources.iter().map(|source| source.ready).sum()).collect();
        // A change is there once all frontends have it, those of the other family too.
        if let [usable] = usable.into_iter().collect::<Vec<_>>()[..]
            && before != Some(usable)
        {
            before = Some(usable);
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
            writeln!(out, "{now} {usable}").and_then(|()| out.flush()).context("nobody reads")?;
        }
        thread::sleep(PAUSE);
    }
}
