//! `mcs status --kubeconfig`: the ClusterSet as a member sees it.
//!
//! The words are the leader's, from a ConfigMap; whether they are fresh is told by its Lease.

mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Serialize;
use serde_json::Value;

use crate::apiserver::server_trouble;
use crate::broker::credentials::{CLUSTER, CLUSTERSET, CONFIG_MAP};
use crate::cli::Output;
use crate::clusterset::controller::Held;
use crate::clusterset::local::SYSTEM_NAMESPACE;
use crate::controller::leader::{LEASE, LEASE_TIME};
use crate::controller::status::{self, Status};
use view::{View, again, find_troubles};

/// How long a Lease whose time says nothing is watched for a renewal.
const OBSERVE: Duration = Duration::from_secs(5);
/// How often it is looked at then.
const POLL: Duration = Duration::from_millis(250);
/// How long the API server may take.
const REQUEST: Duration = Duration::from_secs(10);
/// Lines of one sort.
const MOST: usize = 20;

/// Shows how a member's ClusterSet stands; waits until all is well for at most `wait`.
pub(super) fn show(kubeconfig: &Path, output: Output, wait: Option<Duration>) -> anyhow::Result<ExitCode> {
    block_on(async {
        let member = Member::open(kubeconfig).await?;
        let deadline = Instant::now() + wait.unwrap_or_default();
        let answer = loop {
            let answer = member.answer().await?;
            if answer.healthy || Instant::now() >= deadline {
                break answer;
            }
            tokio::time::sleep(POLL).await;
        };
        output.print(&answer)?;
        Ok(if answer.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Runs one verb's future.
pub(in crate::cli) fn block_on(verb: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(verb)
}

/// A member's API server.
pub(in crate::cli) struct Member {
    client: Client,
    /// The kubeconfig, for commands that are suggested.
    kubeconfig: String,
}

/// The leader, as its Lease shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Leader {
    /// It renews its Lease.
    Alive(String),
    /// It does not, since that time.
    Silent(String, Option<Timestamp>),
    /// Nobody holds the Lease.
    Nobody,
}

/// The answer, in both forms.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// Whether nothing needs doing.
    healthy: bool,
    /// What a person should know first, and do.
    summary: String,
    /// What is wrong, each with what to do about it.
    findings: Vec<Finding>,
    /// The process whose words these are.
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<String>,
    /// Whether that process lives.
    fresh: bool,
    /// What is wrong on the way to the API servers.
    troubles: BTreeMap<String, String>,
    /// What the leader reported, in full.
    report: Value,
    #[serde(skip)]
    view: View,
}

/// Something that is wrong, and what to do next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    what: String,
    next: String,
}

impl Member {
    pub(in crate::cli) async fn open(kubeconfig: &Path) -> anyhow::Result<Self> {
        let shown = kubeconfig.display().to_string();
        let parsed = Kubeconfig::read_from(kubeconfig).with_context(|| format!("{shown}: read"))?;
        let config = kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("{shown}: use"))?;
        let client = Client::try_from(config).with_context(|| format!("{shown}: use"))?;
        Ok(Self { client, kubeconfig: shown })
    }

    pub(in crate::cli) fn client(&self) -> Client {
        self.client.clone()
    }

    /// What is held here, as the leader last said.
    pub(in crate::cli) async fn held(&self) -> anyhow::Result<Vec<Held>> {
        let status = self.status().await?.unwrap_or_default();
        Ok(View::of(&status.report).held)
    }

    /// The leader's words.
    async fn status(&self) -> anyhow::Result<Option<Status>> {
        let map = self.config_map(status::CONFIG_MAP).await?;
        let Some(text) = map.get(status::KEY) else { return Ok(None) };
        let name = status::CONFIG_MAP;
        Ok(Some(serde_json::from_str(text).with_context(|| format!("ConfigMap {SYSTEM_NAMESPACE}/{name}: read"))?))
    }

    async fn config_map(&self, name: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client(), SYSTEM_NAMESPACE);
        let map = self.within(maps.get_opt(name)).await?;
        Ok(map.and_then(|map| map.data).unwrap_or_default())
    }

    async fn within<T>(&self, request: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
        tokio::time::timeout(REQUEST, request)
            .await
            .with_context(|| format!("{}: the API server does not answer", self.kubeconfig))?
            .with_context(|| format!("{}: ask the API server", self.kubeconfig))
    }

    /// Whether somebody leads. A Lease that by our clock was renewed just now is believed; else it is watched for a
    /// renewal, as clocks differ.
    async fn leader(&self) -> anyhow::Result<Leader> {
        let leases: Api<Lease> = Api::namespaced(self.client(), SYSTEM_NAMESPACE);
        let deadline = Instant::now() + OBSERVE;
        let mut first: Option<Option<Timestamp>> = None;
        loop {
            let spec = self.within(leases.get_opt(LEASE)).await?.and_then(|lease| lease.spec);
            let Some(spec) = spec else { return Ok(Leader::Nobody) };
            let Some(holder) = spec.holder_identity.filter(|holder| !holder.is_empty()) else {
                return Ok(Leader::Nobody);
            };
            let renewed = spec.renew_time.map(|time| time.0);
            let age = renewed.map(|renewed| Timestamp::now().duration_since(renewed).as_secs());
            let age = age.and_then(|age| u64::try_from(age).ok());
            let is_fresh = age.is_some_and(|age| age < LEASE_TIME.as_secs());
            if is_fresh || first.is_some_and(|first| first != renewed) {
                return Ok(Leader::Alive(holder));
            }
            first.get_or_insert(renewed);
            if Instant::now() >= deadline {
                return Ok(Leader::Silent(holder, renewed));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// How things stand.
    async fn answer(&self) -> anyhow::Result<Answer> {
        let config = self.config_map(CONFIG_MAP).await?;
        let joined = config.get(CLUSTER).zip(config.get(CLUSTERSET));
        let status = self.status().await?;
        let leader = self.leader().await?;
        Ok(judge(&self.kubeconfig, joined, status, leader))
    }
}

/// What the facts mean.
fn judge(kubeconfig: &str, joined: Option<(&String, &String)>, status: Option<Status>, leader: Leader) -> Answer {
    let said = status.is_some();
    let status = status.unwrap_or_default();
    let view = View::of(&status.report);
    let mut findings = Vec::new();
    let mut find = |what: String, next: String| findings.push(Finding { what, next });

    if joined.is_none() && view.cluster.is_none() {
        let join =
            format!("mcs join --kubeconfig {kubeconfig} --broker-kubeconfig BROKER --cluster ID --clusterset ID");
        find("this cluster is no member of a ClusterSet".to_owned(), join);
    }
    let start = format!(
        "kubectl --kubeconfig {kubeconfig} -n {SYSTEM_NAMESPACE} get pods,leases, or: mcs controller --kubeconfig \
             {kubeconfig}"
    );
    match &leader {
        Leader::Alive(_) if said => {}
        Leader::Alive(_) => {
            find("the controller has just started and has said nothing yet".to_owned(), again(kubeconfig))
        }
        Leader::Silent(holder, since) => {
            let since = since.map_or_else(String::new, |since| format!(" since {}", since.strftime("%FT%TZ")));
            find(format!("no controller runs: {holder} is silent{since}; traffic goes on as it was"), start);
        }
        Leader::Nobody => find("no controller runs; traffic goes on as it was".to_owned(), start),
    }
    find_troubles(&status.troubles, kubeconfig, &mut find);
    if said {
        let is_broker_gone = status.troubles.contains_key(&server_trouble("broker"));
        view.find(kubeconfig, joined.map(|(cluster, _)| cluster.as_str()), is_broker_gone, &mut find);
    }

    let fresh = matches!(leader, Leader::Alive(_));
    let healthy = findings.is_empty();
    let summary = match findings.as_slice() {
        [] => format!(
            "healthy: {} of ClusterSet {} exports {} and imports {}, {} known",
            view.cluster.as_deref().unwrap_or("this cluster"),
            view.clusterset.as_deref().unwrap_or("-"),
            count(view.exports, "service"),
            count(view.imports, "service"),
            count(view.members.len(), "member"),
        ),
        [only] => format!("{}: {}", only.what, only.next),
        [first, rest @ ..] => format!("{}: {} ({} more below)", first.what, first.next, rest.len()),
    };
    let identity = match leader {
        Leader::Alive(holder) | Leader::Silent(holder, _) => Some(holder),
        Leader::Nobody => None,
    };
    let Status { troubles, report, .. } = status;
    Answer { healthy, summary, findings, leader: identity, fresh, troubles, report, view }
}

/// `1 export`, `2 exports`.
pub(in crate::cli) fn count(number: usize, of: &str) -> String {
    match number {
        1 => format!("1 {of}"),
        number => format!("{number} {of}s"),
    }
}

/// What is held, for people.
pub(in crate::cli) fn held_service(held: &Held) -> &str {
    if held.service.is_empty() { "all exports" } else { &held.service }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { healthy: _, summary, findings, leader, fresh, troubles: _, report: _, view } = self;
        writeln!(f, "{summary}")?;
        if let (Some(cluster), Some(clusterset)) = (&view.cluster, &view.clusterset) {
            writeln!(f, "  cluster {cluster}, ClusterSet {clusterset}, CIDRs {}", view.cidrs.join(" "))?;
            let View { exports, imports, slices, .. } = view;
            writeln!(f, "  exports {exports}, imports {imports}, imported EndpointSlices {slices}")?;
        }
        if let Some(leader) = leader {
            writeln!(
                f,
                "  controller {leader}{}",
                if *fresh { "" } else { " (silent: all this is what it last said)" }
            )?;
        }
        for (id, member) in &view.members {
            writeln!(f, "  member {id}: {}, exports {}", member.health, member.exports)?;
        }
        for held in view.held.iter().take(MOST) {
            writeln!(f, "  held: {}: {}", held_service(held), held.reason)?;
        }
        if view.held.len() > MOST {
            writeln!(f, "  held: {} more", view.held.len() - MOST)?;
        }
        for (service, members) in view.stale.iter().take(MOST) {
            writeln!(f, "  stale: {service}: endpoints of {} stay, for want of others", members.join(", "))?;
        }
        if findings.len() > 1 {
            for Finding { what, next } in findings {
                writeln!(f, "  {what}\n    next: {next}")?;
            }
        }
        for problem in view.problems.iter().filter(|problem| problem.severity == "notice").take(MOST) {
            writeln!(f, "  note: {problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
