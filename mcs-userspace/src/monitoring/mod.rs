//! What others may ask a running process over HTTP: whether it lives, whether it is ready, and its numbers.
//!
//! ```text
//!  kubelet ── GET /livez, /readyz ┐
//!  Prometheus ──── GET /metrics ──┴─► serve ──Asked──► the process's own loop ──Answer──► 200, 503
//! ```
//!
//! The loop itself answers, so a process whose loop does not turn does not live, whatever its other tasks do.

mod server;
mod text;

pub(crate) use self::server::{Answer, Asked, Question, next_asked, serve};
pub(crate) use self::text::{Histogram, Kind, Text};
