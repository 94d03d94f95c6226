//! `mcs approve-withdrawal`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::status::cluster::{self, Member};
use crate::broker::credentials::{APPROVE_WITHDRAWAL, CLUSTER, CONFIG_MAP};
use crate::clusterset::local::SYSTEM_NAMESPACE;

/// How long the controller may take to hear of it.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked whether it did.
const POLL: Duration = Duration::from_millis(200);

/// Says that exports of this cluster which are gone were meant to go: their withdrawal is no longer held.
///
/// To be run at the cluster whose exports are gone. `mcs status` shows what is held there, and why.
#[derive(Args, Debug)]
pub(super) struct ApproveWithdrawal {
    /// Id of the cluster whose withdrawals are approved: the one that the kubeconfig is of.
    #[arg(value_name = "CLUSTER")]
    cluster: String,
    /// Kubeconfig of that cluster.
    #[arg(long, env = "MCS_KUBECONFIG", value_name = "PATH")]
    kubeconfig: PathBuf,
}

impl ApproveWithdrawal {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        cluster::block_on(self.approve())
    }

    async fn approve(self) -> anyhow::Result<ExitCode> {
        let Self { cluster, kubeconfig } = self;
        let member = Member::open(&kubeconfig).await?;
        let maps: Api<ConfigMap> = Api::namespaced(member.client(), SYSTEM_NAMESPACE);
        let map = maps.get_opt(CONFIG_MAP).await.context("ask the member's API server")?;
        let id = map.and_then(|map| map.data?.remove(CLUSTER));
        match id {
            None => {
                bail!("{}: this cluster is no member of a ClusterSet: `mcs join` makes it one", kubeconfig.display())
            }
            Some(id) if id != cluster => bail!(
                "{}: this is cluster {id}: withdrawals of {cluster} are approved where its exports are: `mcs \
                 approve-withdrawal {cluster} --kubeconfig KUBECONFIG-OF-{cluster}`",
                kubeconfig.display(),
            ),
            Some(_) => {}
        }

        let held = member.held().await?;
        let said = Timestamp::now().to_string();
        let patch = json!({"metadata": {"annotations": {APPROVE_WITHDRAWAL: said}}});
        maps.patch(CONFIG_MAP, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .with_context(|| format!("ConfigMap {SYSTEM_NAMESPACE}/{CONFIG_MAP}: annotate"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let map = maps.get(CONFIG_MAP).await.context("ask the member's API server")?;
            let now = map.metadata.annotations.and_then(|mut annotations| annotations.remove(APPROVE_WITHDRAWAL));
            if now.as_deref() != Some(&said) {
                break;
            }
            if Instant::now() >= deadline {
                bail!(
                    "noted, and no controller of {cluster} has taken it up yet: it will once it runs and knows the \
                     broker: look at `mcs status --kubeconfig {}`",
                    kubeconfig.display(),
                );
            }
            tokio::time::sleep(POLL).await;
        }
        let mut stdout = std::io::stdout().lock();
        match held.as_slice() {
            [] => writeln!(stdout, "no withdrawal of {cluster} was held: nothing changes")?,
            held => {
                writeln!(stdout, "approved: {} of {cluster} withdrawn:", cluster::count(held.len(), "export"))?;
                for held in held {
                    writeln!(stdout, "  {}", cluster::held_service(held))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
