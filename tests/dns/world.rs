//! An API server with our definitions, and both DNS servers on it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mcs_tests::apiserver::ApiServer;
use mcs_tests::client::{Client, Kind, condition};
use mcs_tests::dns::DnsServer;
use mcs_tests::{manifest, mcs};

/// How long anything may take that should happen soon.
const SOON: Duration = Duration::from_secs(60);

/// What `mcs dns` reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// The API server.
    Kube,
    /// A directory of what the API server holds.
    Dir,
}

/// All of it.
pub(crate) struct World {
    pub(crate) coredns: DnsServer,
    pub(crate) mcs: DnsServer,
    client: Client,
    dir: PathBuf,
    pub(crate) server: ApiServer,
}

impl World {
    /// With these objects.
    pub(crate) fn start(objects: &str, source: Source) -> Result<Self> {
        let server = ApiServer::start("names")?;
        let client = server.client()?;
        client.apply_yaml(&mcs::run(["crds"])?)?;
        for name in ["serviceimports.multicluster.x-k8s.io", "serviceexports.multicluster.x-k8s.io"] {
            client.wait((Kind::CRD, "", name), SOON, "established", |crd| {
                crd.and_then(|crd| condition(crd, "Established")).is_some_and(|condition| condition["status"] == "True")
            })?;
        }
        client.apply_yaml(objects)?;
        let dir = server.dir().join("objects");
        fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        hand_on(&client, &dir)?;
        let coredns = DnsServer::coredns(&server, &[])?;
        let (from_dir, kubeconfig) = (format!("dir:{}", dir.display()), server.kubeconfig().display().to_string());
        let source: &[&str] = match source {
            Source::Kube => &["--source", "kube", "--kubeconfig", &kubeconfig],
            Source::Dir => &["--source", &from_dir],
        };
        let mcs = DnsServer::mcs(server.dir(), source, &[], &[])?;
        Ok(Self { coredns, mcs, client, dir, server })
    }

    /// Changes objects, for both servers.
    pub(crate) fn apply(&self, objects: &str) -> Result<()> {
        self.client.apply_yaml(objects)?;
        hand_on(&self.client, &self.dir)
    }

    /// Deletes an object, for both servers.
    pub(crate) fn delete(&self, kind: Kind, name: &str) -> Result<()> {
        self.client.delete(kind, "shop", name)?;
        hand_on(&self.client, &self.dir)
    }

    /// Both servers.
    pub(crate) fn both(&self) -> [&DnsServer; 2] {
        [&self.coredns, &self.mcs]
    }
}

/// Writes what the API server holds to the directory that `mcs dns` reads.
fn hand_on(client: &Client, dir: &std::path::Path) -> Result<()> {
    let mut objects = client.list(Kind::IMPORT, "")?;
    objects.extend(client.list(Kind::SLICE, "")?);
    manifest::write(dir, "objects", &objects)?;
    Ok(())
}
