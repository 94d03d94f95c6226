//! Asks as fast as answers come, or at a pace.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::NAMESPACE;
use crate::figures::Runs;

/// How long the last answers are waited for; a query whose answer comes later is lost.
const LAST: Duration = Duration::from_millis(500);
/// How often it is looked whether time is over.
const LOOK: u32 = 64;

/// Asks for all services in turn.
pub(super) struct Asker {
    queries: Vec<Vec<u8>>,
    /// The code that each answer has to have.
    rcode: u8,
}

/// What queries at a pace took: one without an answer counts as [`LAST`].
pub(super) struct Latency {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) lost: u64,
}

impl Asker {
    /// For all services, or for as many names that are not there.
    pub(super) fn new(services: usize, rtype: u16, exists: bool) -> Result<Self> {
        let queries = (0..services)
            // one after the other in no order that a cache could like
            .map(|n| query(&format!("{}{}", if exists { "s" } else { "x" }, n * 7919 % services), rtype))
            .collect::<Result<_>>()?;
        Ok(Self { queries, rcode: if exists { 0 } else { 3 } })
    }

    /// Queries per second with so many under way.
    pub(super) fn throughput(&self, server: SocketAddr, window: usize, lasting: Duration) -> Result<f64> {
        let socket = socket(server)?;
        socket.set_read_timeout(Some(LAST))?;
        let (mut sent, mut answered) = (0, 0u64);
        let mut next = || -> Result<()> {
            let query = &self.queries[sent % self.queries.len()];
            sent += 1;
            socket.send(query).context("ask").map(drop)
        };
        let began = Instant::now();
        (0..window).try_for_each(|_| next())?;
        let mut buffer = [0; 2048];
        loop {
            let length = socket.recv(&mut buffer).context("no answer: one was lost on the loopback interface")?;
            self.check(&buffer[..length])?;
            answered += 1;
            if answered.is_multiple_of(u64::from(LOOK)) && began.elapsed() >= lasting {
                return Ok(answered as f64 / began.elapsed().as_secs_f64());
            }
            next()?;
        }
    }

    /// What a query takes at so many per second.
    pub(super) fn latency(&self, server: SocketAddr, pace: f64, lasting: Duration) -> Result<Latency> {
        let socket = socket(server)?;
        socket.set_nonblocking(true)?;
        let count = ((pace * lasting.as_secs_f64()) as usize).clamp(1, usize::from(u16::MAX));
        let due = |n: usize| Duration::from_secs_f64(n as f64 / pace);
        let mut times: Vec<Option<Duration>> = vec![None; count];
        let began = Instant::now();
        let (mut sent, mut answered) = (0, 0);
        let mut buffer = [0; 2048];
        while answered < count && began.elapsed() < due(count) + LAST {
            if sent < count && began.elapsed() >= due(sent) {
                let mut query = self.queries[sent % self.queries.len()].clone();
                query[..2].copy_from_slice(&u16::try_from(sent)?.to_be_bytes());
                socket.send(&query).context("ask")?;
                sent += 1;
            }
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    self.check(&buffer[..length])?;
                    let id = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
                    // from when it was due: a server that is late is not spared the queries that had to wait
                    times[id] = Some(began.elapsed().saturating_sub(due(id)));
                    answered += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("read an answer"),
            }
        }
        let lost = times.iter().filter(|time| time.is_none()).count() as u64;
        let times = Runs(times.into_iter().map(|time| time.unwrap_or(LAST).as_secs_f64() * 1e6).collect());
        Ok(Latency { p50_us: times.median(), p99_us: times.quantile(0.99), lost })
    }

    fn check(&self, answer: &[u8]) -> Result<()> {
        ensure!(answer.len() > 12 && answer[3] & 0xf == self.rcode, "a wrong answer: {answer:?}");
        ensure!(self.rcode != 0 || answer[7] == 1, "an answer without a record: {answer:?}");
        Ok(())
    }
}

fn socket(server: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("make a socket")?;
    socket.connect(server).context("connect a socket")?;
    Ok(socket)
}

/// A query with an OPT record, as resolvers of today send it.
fn query(service: &str, rtype: u16) -> Result<Vec<u8>> {
    let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in [service, NAMESPACE, "svc", "clusterset", "local"] {
        query.push(u8::try_from(label.len())?);
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(rtype.to_be_bytes());
    query.extend([0, 1, 0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    Ok(query)
}
