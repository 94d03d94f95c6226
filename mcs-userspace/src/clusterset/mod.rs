//! The ClusterSet's decisions: what is imported, from whom, under which address, and when something may go. Pure: values
//! and times in, values out; neither a client, nor tokio, nor a clock. The edges are in `crate::controller` and
//! `crate::broker`.
//!
//! ```text
//!            member's API server                    broker
//!   Services, Exports, EndpointSlices     everybody's records, leases, reservations
//!                  │ Event                              │ Event
//!                  ▼                                    ▼
//!   ┌──────────────────────────────── controller ────────────────────────────────┐
//!   │ membership ─► brake ─► own records      validate ─► liveness ─► merge ─►   │
//!   │ (may we?)   (may it go?)                (theirs)    (alive?)   slices, vip │
//!   └──────────────┬──────────────────────────────────────┬──────────────────────┘
//!                  ▼ Op                                   ▼ Op
//!        records, lease, reservations       ServiceImports, EndpointSlices, conditions
//! ```

pub mod brake;
pub mod controller;
pub mod event;
pub mod fault;
pub mod liveness;
pub mod local;
pub mod membership;
pub mod merge;
pub mod record;
pub mod service;
pub mod slices;
pub mod validate;
pub mod vip;
