//! What the decisions hear, and what they want done: the whole interface between [`super::controller`] and its edges.
//!
//! ```text
//!  watches of two API servers ──Event──► Controller ──Op──► writes to two API servers
//!            ▲                                                    │
//!            └───────────── the written object, as an Event ◄─────┘   or its failure, as Event::Failed
//! ```
//!
//! Levels, not edges: an event says what an object is now, and an op what it should be. An op may be lost, repeated or
//! late; what it was for is decided again from what is seen.

use std::collections::BTreeSet;
use std::time::Duration;

use super::local::{Condition, Export, Import, ImportedSlice, Meta, Regarding, Service, SourceSlice};
use super::record::{ClusterSetSpec, ExportRecordSpec, MemberSpec, ReservationSpec, SliceRecordSpec, Statement};
use crate::model::ObjectKey;

/// A point in time of the observer's monotonic clock. Wall clocks of other machines decide nothing.
pub type Now = Duration;

/// What is watched. Each has its own list and watch, and so its own [`Event::ListStarted`] and [`Event::Listed`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Namespaces of the member.
    Namespaces,
    /// Services of the member.
    Services,
    /// ServiceExports of the member.
    Exports,
    /// The member's own EndpointSlices of Services.
    SourceSlices,
    /// ServiceImports of the member.
    Imports,
    /// EndpointSlices of imports, ours.
    ImportedSlices,
    /// ClusterProperties of the member.
    Properties,
    /// At the broker: the ClusterSet.
    ClusterSets,
    /// At the broker: members.
    Members,
    /// At the broker: reserved addresses.
    Reservations,
    /// At the broker: exports of all members, this one included.
    ExportRecords,
    /// At the broker: slices of all members, this one included.
    SliceRecords,
    /// At the broker: the members' leases.
    Leases,
}

impl Kind {
    /// The member's own.
    pub const LOCAL: [Self; 7] = [
        Self::Namespaces,
        Self::Services,
        Self::Exports,
        Self::SourceSlices,
        Self::Imports,
        Self::ImportedSlices,
        Self::Properties,
    ];
    /// The broker's.
    pub const BROKER: [Self; 6] =
        [Self::ClusterSets, Self::Members, Self::Reservations, Self::ExportRecords, Self::SliceRecords, Self::Leases];

    /// Whether it lies at the broker.
    #[must_use]
    pub const fn at_broker(self) -> bool {
        matches!(
            self,
            Self::ClusterSets
                | Self::Members
                | Self::Reservations
                | Self::ExportRecords
                | Self::SliceRecords
                | Self::Leases
        )
    }
}

/// An object as it is now.
#[derive(Clone, PartialEq, Debug)]
pub enum Object {
    /// By its name. Its resourceVersion is not kept.
    Namespace {
        /// `metadata.deletionTimestamp` is set: nothing can be created in it any more.
        terminating: bool,
    },
    /// By namespace and name.
    Service(Service),
    /// By namespace and name.
    Export(Export),
    /// By the slice's namespace and name.
    SourceSlice(SourceSlice),
    /// By namespace and name.
    Import(Import),
    /// By the slice's namespace and name.
    ImportedSlice(ImportedSlice),
    /// By its name, in an [`ObjectKey`] with an empty namespace: `spec.value`.
    Property(String),
    /// By [`super::record::SHARED_NAMESPACE`] and its name, the ClusterSet's id.
    ClusterSet(Meta, ClusterSetSpec),
    /// By the shared namespace and the cluster id.
    Member(Meta, MemberSpec),
    /// By the shared namespace and [`super::record::reservation_name`].
    Reservation(Meta, ReservationSpec),
    /// By the member's namespace and [`super::record::export_name`]. Unreadable ones are [`Object::Unreadable`].
    ExportRecord(Meta, ExportRecordSpec),
    /// By the member's namespace and the record's name.
    SliceRecord(Meta, SliceRecordSpec),
    /// By the member's namespace and [`super::record::LEASE`]. The resourceVersion tells one renewal from the next.
    Lease(Meta, Statement),
    /// There is such an object, and it cannot be read: what it said before stays.
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
}

/// What the edge saw.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A list begins: what it does not deliver before [`Event::Listed`] is absent, though nobody saw it deleted.
    ListStarted(Kind),
    /// An object exists: listed, watched, or the answer to a write of ours.
    Applied(Kind, ObjectKey, Box<Object>),
    /// An object's deletion was seen on a live watch.
    Deleted(Kind, ObjectKey),
    /// The list is complete. `resource_version` is that of the list as a whole.
    Listed(Kind, u64),
    /// The watch broke, and is being made again, which begins with a list. What is known stays.
    Interrupted(Kind),
    /// The CRD of ServiceExports (for [`Kind::Exports`]) or ClusterProperties (for [`Kind::Properties`]), looked at before
    /// each of their lists, when it changes, and after a deletion was seen, before that is told: a CRD is marked for its
    /// deletion before its objects are deleted.
    Crd(Kind, CrdState),
    /// UID of the member's namespace kube-system.
    ClusterUid(String),
    /// The process became the leader, or is one no more. A follower hears everything and wants nothing done.
    Leader(bool),
    /// This op's write failed.
    Failed(Box<Op>, Failure),
    /// The user said `mcs approve-withdrawal`, through the annotation that the verb writes.
    WithdrawalApproved,
    /// What an earlier process of ours decided: members that were dead.
    Remembered(BTreeSet<String>),
}

/// State of a CustomResourceDefinition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CrdState {
    /// Established, with this UID.
    Present(String),
    /// Absent, or being deleted: its objects' deletion means nothing.
    Gone,
}

/// Why a write failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Another object of that name exists (409 on create), or it changed meanwhile (409 on update).
    Conflict,
    /// It is gone (404).
    NotFound,
    /// The API server refuses it for good (400, 403, 422): the text goes into a condition.
    Refused(String),
    /// Anything else, worth trying again: timeouts, 429, 5xx, no connection.
    Unreachable(String),
}

/// What should be written. Every op is idempotent; with [`Meta::resource_version`] not 0 it is an update of just that
/// version (or a deletion of just that UID), with 0 a creation.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// Create or update a ServiceImport: metadata and spec, then the status if it differs.
    PutImport(ObjectKey, Box<Import>),
    /// Delete a ServiceImport of ours.
    DeleteImport(ObjectKey, Meta),
    /// Create or update an imported EndpointSlice.
    PutImportedSlice(ObjectKey, Box<ImportedSlice>),
    /// Delete an imported EndpointSlice.
    DeleteImportedSlice(ObjectKey, Meta),
    /// Set the conditions of a ServiceExport, all of ours at once; others' stay.
    SetExportConditions(ObjectKey, Meta, i64, Vec<Condition>),
    /// Tell the user, by an Event object.
    Tell {
        /// About what.
        regarding: Regarding,
        /// `Warning` rather than `Normal`.
        warning: bool,
        /// CamelCase.
        reason: String,
        /// For people.
        message: String,
    },
    /// Create or update an ExportRecord of ours.
    PutExportRecord(ObjectKey, Meta, Box<ExportRecordSpec>),
    /// Delete an old tombstone of ours.
    DeleteExportRecord(ObjectKey, Meta),
    /// Create or update a SliceRecord of ours.
    PutSliceRecord(ObjectKey, Meta, Box<SliceRecordSpec>),
    /// Delete a SliceRecord of ours.
    DeleteSliceRecord(ObjectKey, Meta),
    /// Create a Reservation. [`Failure::Conflict`] means that somebody else was first.
    Reserve(ReservationSpec),
    /// Delete a Reservation of ours.
    Release(ObjectKey, Meta),
    /// Renew this member's Lease, with this statement.
    Renew(Statement),
    /// Keep, in the member, which others are dead: [`Event::Remembered`] of the next process.
    Remember(BTreeSet<String>),
}
