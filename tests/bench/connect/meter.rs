//! Loops of system calls, timed, with all variants in turn.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use rustix::time::{ClockId, clock_gettime};

use super::NONE;
use crate::bpf::connect_links;
use crate::figures::Runs;
use crate::progress::Progress;
use crate::site::{enter, leave};

/// One variant: where its sockets are made and where they connect to.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The variant that it is compared with.
    pub(crate) against: &'static str,
    cgroup: PathBuf,
    /// Made in the cgroup, for re-connects.
    socket: OwnedFd,
    /// One after the other, again and again.
    to: Vec<SocketAddr>,
}

impl Case {
    /// Enters the cgroup to make the socket.
    pub(crate) fn new(name: &'static str, against: &'static str, cgroup: &Path, to: Vec<SocketAddr>) -> Result<Self> {
        enter(cgroup)?;
        let first = to.first().with_context(|| format!("variant {name}: no destination"))?;
        let socket = socket(family(*first), SocketType::DGRAM, None).context("make a UDP socket")?;
        leave()?;
        Ok(Self { name, against, cgroup: cgroup.to_owned(), socket, to })
    }
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// CPU time of this thread, in nanoseconds.
fn cpu_ns() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

/// Rounds in which all cases have their turn, each round beginning with another one: nanoseconds of each, round by round.
/// The cases without a program come together, before the others in one round and after them in the next, as `attach`
/// takes all programs off for them. The first round warms up and is not counted. A round in which somebody else had a
/// program at a connect hook is made again, up to as many as there are rounds.
pub(crate) fn in_turn(
    what: &str,
    cases: Vec<Case>,
    rounds: usize,
    attach: impl Fn(bool) -> Result<()>,
    mut once: impl FnMut(&Case) -> Result<f64>,
) -> Result<Vec<(Case, Runs)>> {
    let needs_none = cases.iter().any(|case| case.name.starts_with(NONE));
    let mut results: Vec<(Case, Runs)> = cases.into_iter().map(|case| (case, Runs::default())).collect();
    let mut progress = Progress::new(what, rounds);
    let (count, mut counted, mut disturbed) = (results.len(), 0, 0);
    for round in 0.. {
        let mut values = vec![f64::NAN; count];
        let mut others = 0;
        for attached in [round % 2 == 0, round % 2 != 0] {
            attach(attached)?;
            others += if attached { 0 } else { connect_links()? };
            for index in (0..count).map(|turn| (round + turn) % count) {
                if let (Some((case, _)), Some(value)) = (results.get(index), values.get_mut(index))
                    && case.name.starts_with(NONE) != attached
                {
                    *value = once(case).with_context(|| format!("{what}: {}", case.name))?;
                }
            }
            others += if attached { 0 } else { connect_links()? };
        }
        if round == 0 {
            continue;
        }
        if needs_none && others > 0 {
            disturbed += 1;
            if disturbed <= rounds {
                continue;
            }
        }
        results.iter_mut().zip(values).for_each(|((_, runs), value)| runs.0.push(value));
        counted += 1;
        progress.at(counted);
        if counted == rounds {
            break;
        }
    }
    if disturbed > rounds {
        println!(
            "! {what}: others had programs at connect hooks in {} of {rounds} counted rounds: \"no program\" contains the \
             kernel's hook there, and what a hit costs over it comes out too low",
            disturbed - rounds
        );
    } else if disturbed > 0 {
        println!("! {what}: {disturbed} rounds made again, as others had programs at connect hooks");
    }
    Ok(results)
}

/// Nanoseconds for one connect of the case's socket, which stays the same.
pub(crate) fn reconnects(case: &Case, times: u32) -> Result<f64> {
    let mut to = case.to.iter().cycle();
    let started = cpu_ns();
    for _ in 0..times {
        if let Some(to) = to.next() {
            connect(&case.socket, to).with_context(|| format!("connect to {to}"))?;
        }
    }
    Ok((cpu_ns() - started) / f64::from(times))
}

/// Nanoseconds for a new UDP socket, its connect and its close.
pub(crate) fn fresh(case: &Case, times: u32) -> Result<f64> {
    enter(&case.cgroup)?;
    let mut to = case.to.iter().cycle();
    let started = cpu_ns();
    for _ in 0..times {
        if let Some(to) = to.next() {
            let socket = socket(family(*to), SocketType::DGRAM, None).context("make a UDP socket")?;
            connect(&socket, to).with_context(|| format!("connect to {to}"))?;
        }
    }
    let taken = cpu_ns() - started;
    leave()?;
    Ok(taken / f64::from(times))
}

/// Nanoseconds for a TCP connection to a listener of this same network namespace, both ends. It is closed by reset, as
/// 20 000 connections in TIME_WAIT would make finding a port the better part of the time.
pub(crate) fn handshakes(case: &Case, listener: &TcpListener, times: u32) -> Result<f64> {
    enter(&case.cgroup)?;
    let mut to = case.to.iter().cycle();
    let started = cpu_ns();
    for _ in 0..times {
        if let Some(to) = to.next() {
            let socket = socket(family(*to), SocketType::STREAM, None).context("make a TCP socket")?;
            sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO)).context("set SO_LINGER")?;
            connect(&socket, to).with_context(|| format!("connect to {to}"))?;
            let (accepted, _) = listener.accept().context("accept")?;
            drop(socket);
            drop(accepted);
        }
    }
    let taken = cpu_ns() - started;
    leave()?;
    Ok(taken / f64::from(times))
}
