//! `mcs join`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::broker::{Show, cidr, cluster_id, clusterset_id, print, runtime};
use crate::broker::apply::{Progress, Site};
use crate::broker::documents::documents;
use crate::broker::invitation::Invitation;
use crate::broker::join::{self, Door};
use crate::broker::kubeconfig::Context;
use crate::broker::preflight::{BrokerFacts, MemberFacts, Wanted};

/// Make a cluster a member of a ClusterSet: CRDs, RBAC, ClusterProperties and credentials. Again, it changes nothing.
#[derive(Args, Debug)]
pub(super) struct Join {
    /// Kubeconfig of the cluster that is to join.
    #[arg(long, env = "MCS_KUBECONFIG", value_name = "PATH")]
    kubeconfig: PathBuf,
    /// Kubeconfig of the broker. Its server address and TLS settings are what the member will use.
    #[arg(long, env = "MCS_BROKER_KUBECONFIG", value_name = "PATH", required_unless_present = "token")]
    broker_kubeconfig: Option<PathBuf>,
    /// What `mcs broker token create` printed, instead of the broker's kubeconfig.
    #[arg(
        long,
        env = "MCS_JOIN_TOKEN",
        value_name = "TOKEN",
        conflicts_with = "broker_kubeconfig",
        hide_env_values = true
    )]
    token: Option<String>,
    /// The cluster's id: a DNS label, unique in the ClusterSet. A join token has it.
    #[arg(long, env = "MCS_CLUSTER", value_name = "ID", value_parser = cluster_id, required_unless_present = "token")]
    cluster: Option<String>,
    /// The ClusterSet's id. A join token has it.
    #[arg(long, env = "MCS_CLUSTERSET", value_name = "ID", value_parser = clusterset_id, required_unless_present = "token")]
    clusterset: Option<String>,
    /// Where ClusterSetIPs come from: to be given once, by whoever initializes the broker or joins first.
    #[arg(long, env = "MCS_CLUSTERSET_CIDR", value_delimiter = ',', value_name = "CIDR", value_parser = cidr)]
    clusterset_cidr: Vec<IpNet>,
    /// What the cluster's pods' addresses are in: endpoints elsewhere are not taken from it.
    #[arg(long, env = "MCS_POD_CIDR", value_delimiter = ',', value_name = "CIDR", value_parser = cidr)]
    pod_cidr: Vec<IpNet>,
    #[command(flatten)]
    show: Show,
    /// Which objects `--dry-run` prints.
    #[arg(long, value_enum, value_name = "SERVER", requires = "dry_run")]
    only: Option<Server>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Server {
    /// Those at the broker.
    Broker,
    /// Those in the member.
    Member,
}

impl Join {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        runtime()?.block_on(self.join())?;
        Ok(ExitCode::SUCCESS)
    }

    async fn join(self) -> anyhow::Result<()> {
        let Self { kubeconfig, broker_kubeconfig, token, cluster, clusterset, clusterset_cidr, pod_cidr, show, only } =
            self;
        let member = Site { name: "member", client: Context::read(&kubeconfig).await?.client };
        let door = match (broker_kubeconfig, token) {
            (Some(path), _) => {
                let Context { client, server } = Context::read(&path).await?;
                Door::Admin(Site { name: "broker", client }, server)
            }
            (None, Some(token)) => {
                let invitation = Invitation::from_token(&token)?;
                Door::Invited(Site { name: "broker", client: invitation.client()? }, invitation)
            }
            (None, None) => bail!("neither --broker-kubeconfig nor --token is given"),
        };
        let invited = match &door {
            Door::Admin(..) => None,
            Door::Invited(_, invitation) => Some((invitation.cluster.clone(), invitation.clusterset.clone())),
        };
        if let Some((cluster_is, clusterset_is)) = &invited {
            for (flag, given, is) in [("--cluster", &cluster, cluster_is), ("--clusterset", &clusterset, clusterset_is)]
            {
                if let Some(given) = given.as_ref().filter(|given| *given != is) {
                    bail!("{flag} {given}: the join token is for {is}");
                }
            }
        }
        let (cluster, clusterset) = match invited {
            Some(invited) => invited,
            None => (cluster.context("--cluster: not given")?, clusterset.context("--clusterset: not given")?),
        };
        let wanted = Wanted { cluster, clusterset, clusterset_cidrs: clusterset_cidr, pod_cidrs: pod_cidr };
        if show.dry_run {
            return dry_run(&member, &door, &wanted, only).await;
        }
        join::run(&member, &door, &wanted, &mut Progress::new(&mut std::io::stdout())).await
    }
}

/// The same reads and the same refusals, and then the objects as YAML: the broker's first.
async fn dry_run(member: &Site, door: &Door, wanted: &Wanted, only: Option<Server>) -> anyhow::Result<()> {
    let facts = MemberFacts::read(&member.client).await?;
    door.check().await?;
    let decision = BrokerFacts::read(&door.site().client).await?.decide(wanted, &facts)?;
    let (broker, member) = join::declarative(door.server(), wanted, &decision)?;
    if only != Some(Server::Member) {
        print(&format!("# at the broker\n{}", documents(&broker)?))?;
    }
    if only != Some(Server::Broker) {
        print(&format!("# in the member\n{}", documents(&member)?))?;
    }
    Ok(())
}
