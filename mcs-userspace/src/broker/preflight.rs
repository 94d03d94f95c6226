//! What a join looks at before it writes anything, and what it decides: pure once both servers were read.
//!
//! ```text
//!  member: UID, ClusterProperties, networks in use ─┐
//!  broker: ClusterSet, Members, CIDRs to be ────────┼─ decide ──► Decision, or why not
//!  command line ────────────────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{Api, ListParams, Resource};
use kube::{Client, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::CIDRS_TO_BE;
use super::kubeconfig::{is_code, why};
use crate::api::cluster_property;
use crate::clusterset::local::{CLUSTER_ID_PROPERTY, CLUSTERSET_PROPERTY};
use crate::clusterset::membership::admit;
use crate::clusterset::record::{ClusterSet, ClusterSetSpec, Member, MemberSpec, SHARED_NAMESPACE};
use crate::clusterset::vip::{Agreed, agree, check_unused, parse_cidrs};

/// What the user asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// The cluster's id.
    pub cluster: String,
    /// The ClusterSet's id.
    pub clusterset: String,
    /// Its CIDRs, if the user names some.
    pub clusterset_cidrs: Vec<IpNet>,
    /// What the cluster's pods' addresses are in; any if empty.
    pub pod_cidrs: Vec<IpNet>,
}

/// What a cluster that is to join says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberFacts {
    /// UID of the namespace kube-system.
    pub uid: String,
    /// ClusterProperties by name.
    pub properties: BTreeMap<String, String>,
    /// Networks and addresses that it uses, with what for. As far as they can be found out.
    pub used: Vec<(IpNet, String)>,
}

/// What a broker has already.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct BrokerFacts {
    /// It is a broker: `mcs broker init` was there.
    pub prepared: bool,
    /// The ClusterSets by id; there is one, or none yet.
    pub clustersets: BTreeMap<String, ClusterSetSpec>,
    /// CIDRs that `mcs broker init` was given before the ClusterSet had an id.
    pub cidrs_to_be: Vec<String>,
    /// Members by id.
    pub members: BTreeMap<String, MemberSpec>,
}

/// What is to be at the broker.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// The ClusterSet's CIDRs.
    pub cidrs: Vec<String>,
    /// The ClusterSet has to be written.
    pub write_clusterset: bool,
    /// The Member.
    pub member: MemberSpec,
    /// It has to be written.
    pub write_member: bool,
}

impl MemberFacts {
    /// Asks the member's API server.
    ///
    /// # Errors
    /// It cannot be reached, or does not let us see namespaces or ClusterProperties.
    pub async fn read(client: &Client) -> anyhow::Result<Self> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let kube_system = namespaces.get("kube-system").await.map_err(why).context("member: Namespace kube-system")?;
        let uid = kube_system.uid().context("member: Namespace kube-system: metadata.uid: missing")?;
        Ok(Self { uid, properties: properties(client).await?, used: used(client).await })
    }

    /// Whether the cluster's properties allow it to be `cluster` of `clusterset`.
    ///
    /// # Errors
    /// It is another already.
    pub fn agree(&self, cluster: &str, clusterset: &str) -> anyhow::Result<()> {
        for (name, wanted) in [(CLUSTER_ID_PROPERTY, cluster), (CLUSTERSET_PROPERTY, clusterset)] {
            if let Some(is) = self.properties.get(name).filter(|is| *is != wanted) {
                bail!("member: ClusterProperty {name}: is {is:?}, not {wanted:?}: `mcs leave` first, or delete it");
            }
        }
        Ok(())
    }
}

impl BrokerFacts {
    /// Asks the broker. One that was not prepared yet has nothing.
    ///
    /// # Errors
    /// It cannot be reached, or does not let us see its objects.
    pub async fn read(client: &Client) -> anyhow::Result<Self> {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let (shared, prepared) = match namespaces.get_opt(SHARED_NAMESPACE).await {
            // a join token sees records only; by then the ClusterSet has its CIDRs
            Err(error) if is_code(&error, 403) => (None, true),
            other => {
                let found = other.map_err(why).with_context(|| format!("broker: Namespace {SHARED_NAMESPACE}"))?;
                let prepared = found.is_some();
                (found, prepared)
            }
        };
        let cidrs = shared.as_ref().and_then(|shared| shared.annotations().get(CIDRS_TO_BE));
        let split = |text: &String| text.split(',').filter(|cidr| !cidr.is_empty()).map(str::to_owned).collect();
        let clustersets = list::<ClusterSet>(client).await.context("broker: ClusterSets")?;
        let members = list::<Member>(client).await.context("broker: Members")?;
        Ok(Self {
            prepared,
            clustersets: clustersets.into_iter().map(|set| (set.name_any(), set.spec)).collect(),
            cidrs_to_be: cidrs.map(split).unwrap_or_default(),
            members: members.into_iter().map(|member| (member.name_any(), member.spec)).collect(),
        })
    }

    /// Whether this is a broker at all. Only `mcs broker init` makes one, so that an older `mcs join` changes nothing back.
    ///
    /// # Errors
    /// It is none.
    pub fn check_prepared(&self) -> anyhow::Result<()> {
        ensure!(self.prepared, "broker: Namespace {SHARED_NAMESPACE}: does not exist: run `mcs broker init` first");
        Ok(())
    }

    /// The ClusterSet's CIDRs with `given` ones taken into account, and whether they are to be written.
    ///
    /// # Errors
    /// The broker serves another ClusterSet, or has other CIDRs, or they cannot be read.
    pub fn cidrs(&self, clusterset: Option<&str>, given: &[IpNet]) -> anyhow::Result<(Vec<String>, bool)> {
        if let (Some(wanted), Some(other)) =
            (clusterset, self.clustersets.keys().find(|other| Some(other.as_str()) != clusterset))
        {
            bail!("broker: ClusterSet {wanted}: the broker serves ClusterSet {other}, and one broker serves one");
        }
        let set = self.clustersets.values().next();
        let fixed =
            set.map_or(&self.cidrs_to_be, |set| if set.cidrs.is_empty() { &self.cidrs_to_be } else { &set.cidrs });
        let parsed = parse_cidrs(fixed).context("broker: ClusterSet: spec.cidrs")?;
        let cidrs = match agree(&parsed, given).context("broker")? {
            Agreed::Fixed | Agreed::None => fixed.clone(),
            Agreed::Fix => given.iter().map(ToString::to_string).collect(),
        };
        let write = set.is_none_or(|set| set.cidrs != cidrs);
        Ok((cidrs, write))
    }

    /// What a cluster's join makes of the broker.
    ///
    /// # Errors
    /// The id, the cluster, the ClusterSet, a CIDR: which, and why it is refused.
    pub fn decide(&self, wanted: &Wanted, member: &MemberFacts) -> anyhow::Result<Decision> {
        let Wanted { cluster, clusterset, clusterset_cidrs, pod_cidrs } = wanted;
        self.check_prepared()?;
        member.agree(cluster, clusterset)?;
        let (cidrs, write_clusterset) = self.cidrs(Some(clusterset), clusterset_cidrs)?;

        let known = self.members.get(cluster);
        let pod_cidrs: Vec<String> = match known {
            Some(known) if pod_cidrs.is_empty() => known.pod_cidrs.clone(),
            Some(_) | None => pod_cidrs.iter().map(ToString::to_string).collect(),
        };
        let parsed_pods = parse_cidrs(&pod_cidrs).context("--pod-cidr")?;
        // a Member that a join token was made for has no UID yet
        let others = self.members.iter().filter(|(id, spec)| *id != cluster || !spec.cluster_uid.is_empty());
        admit(cluster, &member.uid, &parsed_pods, others.map(|(id, spec)| (id.as_str(), spec))).context("broker")?;

        let parsed = parse_cidrs(&cidrs)?;
        let used = member.used.iter().map(|(net, what)| (*net, what.as_str()));
        check_unused(&parsed, used.chain(parsed_pods.iter().map(|cidr| (*cidr, "its pods' addresses"))))
            .context("member")?;
        self.check_members_pods(&parsed)?;

        let mut spec = known.cloned().unwrap_or_default();
        spec.cluster_uid.clone_from(&member.uid);
        spec.pod_cidrs = pod_cidrs;
        let write_member = known != Some(&spec);
        Ok(Decision { cidrs, write_clusterset, member: spec, write_member })
    }

    /// CIDRs of the ClusterSet against those of pods that members declared.
    ///
    /// # Errors
    /// The first overlap.
    pub fn check_members_pods(&self, cidrs: &[IpNet]) -> anyhow::Result<()> {
        for (id, spec) in &self.members {
            let what = format!("the addresses of pods of member {id}");
            let pods = spec.pod_cidrs.iter().filter_map(|cidr| cidr.parse().ok());
            check_unused(cidrs, pods.map(|cidr: IpNet| (cidr, what.as_str()))).context("broker")?;
        }
        Ok(())
    }
}

/// All of a kind in the shared namespace; none where the kind is not known.
async fn list<K>(client: &Client) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    match Api::<K>::namespaced(client.clone(), SHARED_NAMESPACE).list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(error) if is_code(&error, 404) => Ok(Vec::new()),
        Err(error) => Err(why(error)),
    }
}

/// ClusterProperties in whatever version the member serves.
async fn properties(client: &Client) -> anyhow::Result<BTreeMap<String, String>> {
    use cluster_property::{v1alpha1, v1beta1};
    let beta = Api::<v1beta1::ClusterProperty>::all(client.clone()).list(&ListParams::default()).await;
    match beta {
        Ok(list) => return Ok(list.into_iter().map(|property| (property.name_any(), property.spec.value)).collect()),
        Err(error) if is_code(&error, 404) => {}
        Err(error) => return Err(why(error)).context("member: ClusterProperties"),
    }
    match Api::<v1alpha1::ClusterProperty>::all(client.clone()).list(&ListParams::default()).await {
        Ok(list) => Ok(list.into_iter().map(|property| (property.name_any(), property.spec.value)).collect()),
        Err(error) if is_code(&error, 404) => Ok(BTreeMap::new()),
        Err(error) => Err(why(error)).context("member: ClusterProperties"),
    }
}

/// What can be seen of the networks in use. What cannot be listed is not checked: the user's word counts.
async fn used(client: &Client) -> Vec<(IpNet, String)> {
    let mut used = Vec::new();
    let mut add = |text: &str, what: &dyn Fn() -> String| {
        let net = text.parse::<IpNet>().or_else(|_no_prefix| text.parse::<IpAddr>().map(IpNet::from));
        used.extend(net.ok().map(|net| (net, what())));
    };
    for cidrs in seen::<ServiceCIDR>(client).await {
        for cidr in cidrs.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()) {
            add(cidr, &|| format!("ServiceCIDR {}", cidrs.name_any()));
        }
    }
    for service in seen::<Service>(client).await {
        let ips = service.spec.as_ref().and_then(|spec| spec.cluster_ips.as_ref());
        for ip in ips.into_iter().flatten().filter(|ip| *ip != "None") {
            let namespace = service.namespace().unwrap_or_default();
            add(ip, &|| format!("the cluster IP of Service {namespace}/{}", service.name_any()));
        }
    }
    for node in seen::<Node>(client).await {
        for cidr in node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten()) {
            add(cidr, &|| format!("the pod CIDR of Node {}", node.name_any()));
        }
        for address in node.status.iter().flat_map(|status| status.addresses.iter().flatten()) {
            add(&address.address, &|| format!("the address of Node {}", node.name_any()));
        }
    }
    used
}

async fn seen<K>(client: &Client) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let list = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    list.map(|list| list.items).unwrap_or_default()
}

#[cfg(test)]
#[path = "preflight_tests.rs"]
mod tests;
