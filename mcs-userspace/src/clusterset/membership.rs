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
use super::record::MAX_CLUSTER_ID;

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
    /// The id is none.
    #[error("ClusterProperty {CLUSTER_ID_PROPERTY}: {0}")]
    ClusterId(NameError),
    /// The ClusterSet's id is none.
    #[error("ClusterProperty {CLUSTERSET_PROPERTY}: {0}")]
    ClusterSet(NameError),
}

/// What is wrong with an id.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum NameError {
    /// It has no letter.
    #[error("empty: an id has at least one letter or digit")]
    Empty,
    /// It is too long for the names that are made with it.
    #[error("{id:?}: is {length} bytes long: at most {max} are possible")]
    TooLong {
        /// The id, or how it begins.
        id: String,
        /// Its length.
        length: usize,
        /// The longest.
        max: usize,
    },
    /// KEP-1645 allows one; DNS servers of ClusterSets cannot serve it.
    #[error("{0:?}: has a dot: an id is one DNS label")]
    Dot(String),
    /// RFC 1123.
    #[error("{0:?}: is no DNS name: lower-case letters, digits and '-' only, with a letter or digit at both ends")]
    Syntax(String),
}

/// Whether a text may be a cluster id: one DNS label (RFC 1123), of a length that leaves room in the name of the
/// namespace at the broker. CoreDNS does not serve the ids with a dot that KEP-1645 allows.
///
/// # Errors
/// What is wrong with it.
pub fn check_cluster_id(id: &str) -> Result<(), NameError> {
    if id.contains('.') {
        return Err(NameError::Dot(shown(id)));
    }
    check_name(id, MAX_CLUSTER_ID)
}

/// Whether a text may be a ClusterSet's id: the name of its object at the broker.
///
/// # Errors
/// What is wrong with it.
pub fn check_clusterset_id(id: &str) -> Result<(), NameError> {
    check_name(id, 253)
}

/// Labels of RFC 1123, joined with dots.
fn check_name(id: &str, max: usize) -> Result<(), NameError> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-');
    if id.is_empty() {
        Err(NameError::Empty)
    } else if id.len() > max {
        Err(NameError::TooLong { id: shown(id), length: id.len(), max })
    } else if !id.split('.').all(is_label) {
        Err(NameError::Syntax(shown(id)))
    } else {
        Ok(())
    }
}

/// A property's value may be as long as an object; a message is not.
fn shown(id: &str) -> String {
    id.chars().take(64).collect()
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
        check_cluster_id(&cluster).map_err(Why::ClusterId)?;
        check_clusterset_id(&clusterset).map_err(Why::ClusterSet)?;
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
