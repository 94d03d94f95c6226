//! `mcs controller`: the edges around the decisions of [`crate::clusterset`]. Watches and writes of two API servers, the
//! lease of the leader, the member's credentials at the broker, the status.
//!
//! ```text
//!   member's API server                                          broker
//!     │ watches       ▲ writes                            watches │      ▲ writes, TokenRequest
//!     ▼               │                                           ▼      │
//!   watch ─► sight (convert) ─► order ─► clusterset::controller ─► write ┘        run: the loop of all this
//!   leader: who writes        status, approval: what people see and say        broker: how it is reached
//! ```
//!
//! How an API server is followed is [`crate::apiserver`]'s.

mod approval;
mod broker;
mod carry;
mod convert;
mod kinds;
pub mod leader;
mod metrics;
mod order;
mod parts;
mod question;
mod recorder;
mod run;
mod sight;
mod state;
pub mod status;
mod tenure;
mod write;

pub use kinds::{MANAGED_BY, MANAGER};
pub use run::{Config, run};
pub use state::CONFIG_MAP as STATE;
