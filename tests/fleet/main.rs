//! What the harness promises, tested on itself: who reaches whom, which programs cover whom, and that nothing is left.

#![expect(clippy::unwrap_used, reason = "clippy allows it in functions marked as tests only, not in those they call")]

mod agent_handle;
mod cleanup;
mod connectivity;
mod coverage;
mod serving;
