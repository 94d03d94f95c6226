//! Whether this cluster is a member, and as whom: the ClusterProperties of KEP-2149 in the member, and the broker's list of
//! members.
//!
//! ```text
//!  cluster.clusterset.k8s.io ─┐                         ┌► NotMember: nothing is done
//!  clusterset.k8s.io ─────────┼─ both well-formed? ─────┼► Member:    export, import
//!  their CRD ─────────────────┘                         └► Held:      was a member, and nobody saw it leave: all stays
//! ```
//!
//! To leave is to delete the property `clusterset.k8s.io` on a live watch; another value, or another id, is to leave and to
//! join. Everything else that ends the properties' sense is a mistake or an accident, and costs no traffic: an absence that
//! nobody saw begin, an id that was taken away or is no id, and the CRD's own end, with which its objects go.

use std::fmt;

use thiserror::Error;

pub use self::admission::{Refusal, admit};
use super::event::CrdState;
use super::local::{CLUSTER_ID_PROPERTY, CLUSTERSET_PROPERTY};
use super::validate;
use crate::manifest::field;

mod admission;
#[cfg(test)]
mod tests;

/// Who a member is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Identity {
    /// Its cluster id.
    pub cluster: String,
    /// The ClusterSet that it is a member of.
    pub clusterset: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.cluster, self.clusterset)
    }
}

/// Whether the cluster is a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Membership {
    /// It is not: nothing is exported, imported or removed.
    NotMember(Why),
    /// It is.
    Member(Identity),
    /// It was when that could last be told: everything stays as it is.
    Held(Identity, Why),
}

/// Why the properties do not make a member.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Why {
    /// They were not listed yet.
    #[error("ClusterProperties: not known yet")]
    Unknown,
    /// They cannot exist.
    #[error("CustomResourceDefinition of ClusterProperties: gone or being deleted: nothing is withdrawn meanwhile")]
    CrdGone,
    /// No id.
    #[error("ClusterProperty {CLUSTER_ID_PROPERTY}: missing: without an id the cluster is no member of a ClusterSet")]
    NoClusterId,
    /// No membership.
    #[error("ClusterProperty {CLUSTERSET_PROPERTY}: missing: the cluster is no member of a ClusterSet")]
    NoClusterSet,
    /// The id is no DNS label of at most [`super::record::MAX_CLUSTER_ID`] characters.
    #[error("ClusterProperty {CLUSTER_ID_PROPERTY}: {0}")]
    ClusterId(String),
    /// The ClusterSet's id is no DNS name.
    #[error("ClusterProperty {CLUSTERSET_PROPERTY}: {0}")]
    ClusterSet(String),
}

/// What an event changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing that asks for withdrawals: who was a member is, or is held.
    None,
    /// The cluster became a member.
    Joined(Identity),
    /// It left: everything of this identity is withdrawn.
    Left(Identity),
    /// It left as the one, everything of which is withdrawn, and joined as the other.
    Moved(Identity, Identity),
}

/// The two properties as they were seen.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    cluster: Property,
    clusterset: Property,
    crd: Option<CrdState>,
    /// UID of the CRD when the properties were last listed: nothing before the first list.
    listed_crd: Option<String>,
    /// A list is under way; what it delivered makes sense only when it is complete.
    listing: bool,
    /// What the properties say, as of the last time that they made sense together.
    said: Option<Result<Identity, Why>>,
    /// Who the cluster is, until it is seen to leave.
    member: Option<Identity>,
}

#[derive(Clone, Debug, Default)]
struct Property {
    value: Option<String>,
    /// The list that is under way delivered it.
    delivered: bool,
}

impl Properties {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Who the cluster was for an earlier process, before anything else is told.
    pub fn remember(&mut self, identity: Identity) {
        self.member.get_or_insert(identity);
    }

    /// State of the CRD of ClusterProperties.
    pub fn crd(&mut self, state: CrdState) -> Change {
        self.crd = Some(state);
        self.settle()
    }

    /// A list begins.
    pub const fn list_started(&mut self) {
        self.listing = true;
        self.cluster.delivered = false;
        self.clusterset.delivered = false;
    }

    /// A property has this value. Those that are not ours do not matter.
    pub fn applied(&mut self, name: &str, value: &str) -> Change {
        if let Some(property) = self.property(name) {
            *property = Property { value: Some(value.to_owned()), delivered: true };
        }
        self.settle()
    }

    /// A property was seen deleted on a live watch. The end of the membership property is the cluster's leave, unless it
    /// went with its CRD.
    pub fn deleted(&mut self, name: &str) -> Change {
        let believed = matches!(&self.crd, Some(CrdState::Present(uid)) if self.listed_crd.as_ref() == Some(uid));
        if let Some(property) = self.property(name) {
            *property = Property::default();
        }
        if believed && name == CLUSTERSET_PROPERTY {
            self.said = Some(Err(Why::NoClusterSet));
            return self.leave();
        }
        self.settle()
    }

    /// The list is complete: what it did not deliver is absent, and nobody saw it deleted.
    pub fn listed(&mut self) -> Change {
        for property in [&mut self.cluster, &mut self.clusterset] {
            if !property.delivered {
                property.value = None;
            }
        }
        self.listing = false;
        if let Some(CrdState::Present(uid)) = &self.crd {
            self.listed_crd = Some(uid.clone());
        }
        self.settle()
    }

    /// The user approved withdrawals: who is held because a property is missing leaves.
    pub fn approved(&mut self) -> Change {
        match self.said {
            Some(Err(Why::CrdGone | Why::NoClusterId | Why::NoClusterSet)) => self.leave(),
            Some(Ok(_) | Err(Why::Unknown | Why::ClusterId(_) | Why::ClusterSet(_))) | None => Change::None,
        }
    }

    /// What the cluster is now.
    #[must_use]
    pub fn membership(&self) -> Membership {
        match (self.said.clone().unwrap_or(Err(Why::Unknown)), &self.member) {
            (Ok(identity), _) => Membership::Member(identity),
            (Err(why), Some(member)) => Membership::Held(member.clone(), why),
            (Err(why), None) => Membership::NotMember(why),
        }
    }

    fn property(&mut self, name: &str) -> Option<&mut Property> {
        match name {
            CLUSTER_ID_PROPERTY => Some(&mut self.cluster),
            CLUSTERSET_PROPERTY => Some(&mut self.clusterset),
            _ => None,
        }
    }

    /// Who the properties say that the cluster is.
    fn identity(&self) -> Result<Identity, Why> {
        if self.crd == Some(CrdState::Gone) {
            return Err(Why::CrdGone);
        }
        let cluster = self.cluster.value.clone().ok_or(Why::NoClusterId)?;
        let clusterset = self.clusterset.value.clone().ok_or(Why::NoClusterSet)?;
        validate::cluster_id(&cluster).map_err(Why::ClusterId)?;
        // It is the name of the ClusterSet's object at the broker.
        field::dns_name(&clusterset).map_err(Why::ClusterSet)?;
        Ok(Identity { cluster, clusterset })
    }

    fn settle(&mut self) -> Change {
        let gone = self.crd == Some(CrdState::Gone);
        if !gone && (self.listing || self.listed_crd.is_none()) {
            return Change::None;
        }
        let said = self.said.insert(self.identity());
        let Ok(identity) = said.clone() else { return Change::None };
        match self.member.replace(identity.clone()) {
            None => Change::Joined(identity),
            Some(member) if member == identity => Change::None,
            Some(member) => Change::Moved(member, identity),
        }
    }

    fn leave(&mut self) -> Change {
        self.member.take().map_or(Change::None, Change::Left)
    }
}
