//! The kernel tier: what programs on this machine see of the dataplane, through the system calls that they make.
//!
//! Needs root and a kernel with cgroup2 and bpffs. `cargo xtask vm 6.1 6.12` runs the same binary on other kernels under
//! emulation, where `MCS_VM` is set and counts are smaller ([`world::scaled`]).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy allows them in functions marked as tests only, not in those they call"
)]

mod affinity;
mod chi;
mod churn;
mod connect;
mod datagrams;
mod doctor;
mod failclosed;
mod held;
mod lifecycle;
mod limits;
mod locality;
mod maps;
mod pins;
mod refuse;
mod reverse;
mod sockets;
mod stale;
mod status;
mod weights;
mod world;
