//! What is known of the CustomResourceDefinition of ServiceImports: whether it is there, and which version to ask for.

use super::object::Crd;
use crate::api::IMPORT_VERSIONS;

/// State of the definition.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) enum Definition {
    /// Not heard of yet.
    #[default]
    Unknown,
    /// Absent, or being deleted: what becomes of its objects means nothing.
    Gone,
    /// There.
    Present {
        /// Another one than before, if it is another.
        uid: String,
        /// The newest version that is served and that we know.
        version: Option<&'static str>,
    },
}

impl Definition {
    /// What a definition says; None for none.
    pub(super) fn of(crd: Option<&Crd>) -> Self {
        match crd {
            None => Self::Gone,
            Some(crd) if crd.metadata.deletion_timestamp.is_some() => Self::Gone,
            Some(crd) => {
                let served = |version: &&&str| crd.spec.versions.iter().any(|v| v.served && v.name == **version);
                let version = IMPORT_VERSIONS.iter().rev().find(served).copied();
                Self::Present { uid: crd.metadata.uid.clone(), version }
            }
        }
    }

    /// The version to ask for, if ServiceImports can be asked for.
    pub(super) fn version(&self) -> Option<&'static str> {
        match self {
            Self::Present { version, .. } => *version,
            Self::Unknown | Self::Gone => None,
        }
    }
}
