//! `mcs crds`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;

use crate::api::crds;
use crate::broker::documents::documents;

/// Print the CustomResourceDefinitions of ServiceExport, ServiceImport and ClusterProperty, for `kubectl apply -f -`.
#[derive(Args, Debug)]
pub(super) struct Crds {}

impl Crds {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self {} = self;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(documents(&crds::all())?.as_bytes())?;
        stdout.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}
