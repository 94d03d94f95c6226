//! An API server, followed: what controller and agent have in common.
//!
//! ```text
//!  config ──► client ──► Server ──► follow(Place) ──Sight──► Listener: what it means
//!                          ▲ probe                  └─ Troubles: what does not work
//! ```
//!
//! Nothing is decided here but how to ask again. What is wrong on the way (no answer, refused, unreadable) is told to
//! people where they look, and to the decisions as what it is: no information.

mod backoff;
mod config;
mod place;
mod probe;
mod server;
mod troubles;
mod watch;

pub(crate) use self::backoff::{Backoff, jittered, random};
pub use self::config::Access;
pub(crate) use self::config::in_pod;
pub(crate) use self::place::Place;
pub(crate) use self::probe::{Question, probe, server_trouble};
pub(crate) use self::server::{Connector, REQUEST, Reach, Server, chain, client, server};
pub(crate) use self::troubles::Troubles;
pub(crate) use self::watch::{Listener, Sight, Watched, follow, parse_version};
