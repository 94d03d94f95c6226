//! `mcs broker`: what the broker's admin says.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde_json::Value;

use super::status::parse_duration;
use crate::broker::apply::{Progress, Site};
use crate::broker::documents::documents;
use crate::broker::init::{self, Init};
use crate::broker::invitation::{self, Guest};
use crate::broker::kubeconfig::Context;
use crate::broker::{objects, revoke};
use crate::clusterset::validate;
use crate::clusterset::vip::parse_cidr;
use crate::manifest::field::dns_name;

/// Prepare a broker, invite members, and end memberships.
#[derive(Args, Debug)]
pub(super) struct Broker {
    #[command(subcommand)]
    verb: BrokerVerb,
}

#[derive(Subcommand, Debug)]
enum BrokerVerb {
    /// Make a Kubernetes API server (1.30 or newer) the broker of a ClusterSet.
    Init(InitArgs),
    /// Tokens with which clusters join without the broker's kubeconfig.
    Token(TokenArgs),
    /// End a membership: what the cluster published counts no more, and it cannot publish again. Its id stays taken.
    Revoke(Named),
    /// End a membership if need be, and free its id.
    Forget(Named),
}

/// The broker's kubeconfig.
#[derive(Args, Debug)]
struct Admin {
    /// Kubeconfig of the broker, of somebody who may write CRDs and RBAC there.
    #[arg(long, env = "MCS_BROKER_KUBECONFIG", value_name = "PATH")]
    kubeconfig: PathBuf,
}

#[derive(Args, Debug)]
struct InitArgs {
    #[command(flatten)]
    admin: Admin,
    /// The id of the ClusterSet; if not given, the first join names it.
    #[arg(long, env = "MCS_CLUSTERSET", value_name = "ID", value_parser = clusterset_id)]
    clusterset: Option<String>,
    /// Where ClusterSetIPs come from, at most four of each family, never changed afterwards; if not given, the first join
    /// that names some fixes them.
    #[arg(long, env = "MCS_CLUSTERSET_CIDR", value_delimiter = ',', value_name = "CIDR", value_parser = cidr)]
    clusterset_cidr: Vec<IpNet>,
    #[command(flatten)]
    show: Show,
}

/// Showing instead of doing.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Show {
    /// Write nothing, and print the objects instead.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Form of what `--dry-run` prints.
    #[arg(short, long, value_enum, default_value_t = Form::Yaml, requires = "dry_run")]
    output: Form,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Form {
    /// For `kubectl apply -f -`.
    Yaml,
}

#[derive(Args, Debug)]
struct TokenArgs {
    #[command(subcommand)]
    verb: TokenVerb,
}

#[derive(Subcommand, Debug)]
enum TokenVerb {
    /// Print a token for one `mcs join --token` of one cluster. It replaces one that was made for it before.
    Create(Create),
}

#[derive(Args, Debug)]
struct Create {
    #[command(flatten)]
    admin: Admin,
    /// The id that the cluster will have.
    #[arg(long, env = "MCS_CLUSTER", value_name = "ID", value_parser = cluster_id)]
    cluster: String,
    /// The id of the ClusterSet, if the broker does not serve one yet.
    #[arg(long, env = "MCS_CLUSTERSET", value_name = "ID", value_parser = clusterset_id)]
    clusterset: Option<String>,
    /// Where ClusterSetIPs come from, if that is not fixed yet.
    #[arg(long, env = "MCS_CLUSTERSET_CIDR", value_delimiter = ',', value_name = "CIDR", value_parser = cidr)]
    clusterset_cidr: Vec<IpNet>,
    /// What the cluster's endpoints may lie in, if they may not lie anywhere.
    #[arg(long, env = "MCS_POD_CIDR", value_delimiter = ',', value_name = "CIDR", value_parser = cidr)]
    pod_cidr: Vec<IpNet>,
    /// How long the token can be used, at least 10m.
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = parse_duration)]
    valid: Duration,
}

#[derive(Args, Debug)]
struct Named {
    /// The member's cluster id.
    #[arg(value_name = "CLUSTER", value_parser = cluster_id)]
    cluster: String,
    #[command(flatten)]
    admin: Admin,
}

impl Broker {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        runtime()?.block_on(async {
            match self.verb {
                BrokerVerb::Init(init) => init.run().await,
                BrokerVerb::Token(TokenArgs { verb: TokenVerb::Create(create) }) => create.run().await,
                BrokerVerb::Revoke(Named { cluster, admin }) => {
                    let (site, _) = admin.connect().await?;
                    revoke::revoke(&site, &cluster, &mut Progress::new(&mut std::io::stdout())).await
                }
                BrokerVerb::Forget(Named { cluster, admin }) => {
                    let (site, _) = admin.connect().await?;
                    revoke::forget(&site, &cluster, &mut Progress::new(&mut std::io::stdout())).await
                }
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Admin {
    async fn connect(&self) -> anyhow::Result<(Site, Context)> {
        let context = Context::read(&self.kubeconfig).await?;
        Ok((Site { name: "broker", client: context.client.clone() }, context))
    }
}

impl InitArgs {
    async fn run(self) -> anyhow::Result<()> {
        let Self { admin, clusterset, clusterset_cidr: cidrs, show } = self;
        if show.dry_run {
            let mut all = objects::crds().iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>()?;
            all.extend(objects::shared());
            let texts: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
            match &clusterset {
                Some(id) => all.push(serde_json::to_value(init::clusterset(id, &texts))?),
                None if texts.is_empty() => {}
                None => {
                    let noted = init::namespace_with(&texts);
                    all.retain(|object| {
                        object["kind"] != "Namespace" || object["metadata"]["name"] != noted["metadata"]["name"]
                    });
                    all.insert(0, noted);
                }
            }
            return print(&documents(&all)?);
        }
        let (site, _) = admin.connect().await?;
        let mut stdout = std::io::stdout();
        let mut progress = Progress::new(&mut stdout);
        init::run(&site, &Init { clusterset, cidrs }, &mut progress).await?;
        let word = if progress.changes() == 0 { "the broker is ready: no change" } else { "the broker is ready" };
        progress.say(word);
        Ok(())
    }
}

impl Create {
    /// The token alone on stdout, so that it can be piped; what was done on stderr.
    async fn run(self) -> anyhow::Result<()> {
        let Self { admin, cluster, clusterset, clusterset_cidr: clusterset_cidrs, pod_cidr: pod_cidrs, valid } = self;
        let seconds = i64::try_from(valid.as_secs()).context("--valid")?;
        ensure!(seconds >= 600, "--valid: {seconds} s: API servers make no tokens for less than 600 s");
        let guest = Guest { cluster, clusterset, clusterset_cidrs, pod_cidrs, seconds };
        let (site, context) = admin.connect().await?;
        let mut stderr = std::io::stderr();
        let mut progress = Progress::new(&mut stderr);
        let invitation = invitation::create(&site, &context.server, &guest, &mut progress).await?;
        print(&format!("{}\n", invitation.to_token()?))
    }
}

/// Writes to stdout.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Of a verb that runs once.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")
}

/// A cluster id, or why it is none.
pub(super) fn cluster_id(text: &str) -> Result<String, String> {
    validate::cluster_id(text).map(|()| text.to_owned())
}

/// A ClusterSet's id, or why it is none.
pub(super) fn clusterset_id(text: &str) -> Result<String, String> {
    dns_name(text).map(|()| text.to_owned())
}

/// A CIDR of unicast addresses, or why it is none.
pub(super) fn cidr(text: &str) -> Result<IpNet, String> {
    parse_cidr(text).map_err(|error| error.to_string())
}
