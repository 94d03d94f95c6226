//! Connections, one after the other without a pause, while something else happens.

use std::io::Read as _;
use std::process::{Child, Stdio};

use mcs_tests::kube::Kube;

use crate::shop::{CLIENT, SHOP};

/// New connections of one process before the next is started.
const BATCH: u32 = 100;

/// A client that asks until it is told to stop.
pub(crate) struct Load<'a> {
    kube: &'a Kube,
    cluster: &'a str,
    name: String,
    process: Child,
}

/// What it saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) asked: usize,
    /// What curl says of those that were not answered with 200.
    pub(crate) failed: Vec<String>,
}

impl<'a> Load<'a> {
    /// Starts it in the client of a cluster. Each request is a connection of its own.
    pub(crate) fn start(kube: &'a Kube, cluster: &'a str, host: &str, name: &str) -> Self {
        let script = format!(
            "rm -f /tmp/{name} 2>/dev/null; while [ ! -e /tmp/{name} ]; do \
             curl -s -m 3 -o /dev/null -H 'Connection: close' -w '%{{http_code}} %{{exitcode}} %{{time_total}}\\n' \
             'http://{host}/hostname?n=[1-{BATCH}]'; done"
        );
        let mut exec = kube.clusters().kubectl(cluster);
        exec.args(["-n", SHOP, "exec", CLIENT, "--", "sh", "-c", &script]);
        let process = exec.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        Self { kube, cluster, name: name.to_owned(), process }
    }

    /// Stops it, and says what it saw.
    pub(crate) fn stop(mut self) -> Seen {
        let flag = format!(": > /tmp/{}", self.name);
        self.kube.exec(self.cluster, SHOP, CLIENT, &["sh", "-c", &flag]).unwrap();
        let mut text = String::new();
        self.process.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.process.wait().unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let failed = lines.iter().filter(|line| !line.starts_with("200 0 ")).map(|line| (*line).to_owned()).collect();
        Seen { asked: lines.len(), failed }
    }
}

impl Seen {
    /// That it asked often, and was always answered.
    #[track_caller]
    pub(crate) fn must_be_whole(&self, during: &str) {
        let Self { asked, failed } = self;
        eprintln!("{during}: {asked} connections, {} failed", failed.len());
        assert!(*asked >= 200, "{during}: {asked} connections are too few to tell");
        assert!(failed.is_empty(), "{during}: {} of {asked} failed: {:?}", failed.len(), failed.first());
    }
}
