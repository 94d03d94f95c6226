//! Connect, one byte there, one byte back, close: the server and its clients.
//!
//! Clients close by reset (SO_LINGER 0), because connections in TIME_WAIT would use up the ports of one client and one
//! address within two seconds, and then the search for a port would be what is measured.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use mcs_tests::Place;
use rustix::net::{Shutdown, shutdown, sockopt};

use crate::figures::Runs;

/// Threads that answer, one connection at a time each: no fewer than client threads.
const ANSWERING: usize = 2;

/// A server of both families on all addresses of a place.
pub(crate) struct Server {
    listener: Arc<TcpListener>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(place: &Place, port: u16) -> Result<Self> {
        let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        let listener = place.try_run(|| TcpListener::bind(any))?.with_context(|| format!("listen on {any}"))?;
        let listener = Arc::new(listener);
        let answering = |_| {
            let listener = Arc::clone(&listener);
            thread::spawn(move || answer(&listener))
        };
        let threads = (0..ANSWERING).map(answering).collect();
        Ok(Self { listener, threads })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes accept with an error.
        if shutdown(&self.listener, Shutdown::Both).is_ok() {
            for thread in self.threads.drain(..) {
                drop(thread.join());
            }
        }
    }
}

fn answer(listener: &TcpListener) {
    // Kept until the next one is served: by then the client has reset it, and it ends without a FIN of ours.
    let mut _before = None;
    while let Ok((mut stream, _)) = listener.accept() {
        let mut byte = [0];
        // A client that is gone is no concern of the server's.
        if stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {
            _before = Some(stream);
        }
    }
}

/// What a round of requests came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Connections a second, all threads together.
    pub(crate) per_second: f64,
    /// From connect to answer, in µs.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Makes requests for some time. The threads take the addresses in turn.
pub(crate) fn measure(from: &Place, to: &[SocketAddr], threads: usize, lasting: Duration) -> Result<Sample> {
    // Threads are born where their parent is.
    from.try_run(|| {
        let started = Instant::now();
        let taken = thread::scope(|scope| -> Result<Vec<f64>> {
            let clients: Vec<_> = (0..threads).map(|_| scope.spawn(|| requests(to, started + lasting))).collect();
            let mut all = Vec::new();
            for client in clients {
                all.extend(client.join().map_err(|_panic| anyhow!("a client panicked"))??);
            }
            Ok(all)
        })?;
        let elapsed = started.elapsed().as_secs_f64();
        let per_second = taken.len() as f64 / elapsed;
        let taken = Runs(taken);
        Ok(Sample { per_second, p50: taken.quantile(0.5), p99: taken.quantile(0.99) })
    })?
}

/// Microseconds of each request.
fn requests(to: &[SocketAddr], end: Instant) -> Result<Vec<f64>> {
    let mut taken = Vec::with_capacity(1 << 16);
    for to in to.iter().cycle() {
        let started = Instant::now();
        if started >= end {
            break;
        }
        request(*to).with_context(|| format!("request to {to}"))?;
        taken.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(taken)
}

fn request(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])?;
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(())
}
