//! Numbers for Prometheus (text format 0.0.4), where somebody asks for them with `--metrics-listen`.
//!
//! The process serves nothing else: one small answer to any `GET /metrics`, made of the last report.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, info};

use crate::clusterset::controller::Report;

/// A request that is longer is none of ours.
const REQUEST_BYTES: usize = 8192;

/// How long somebody may take to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those who ask at once; others wait.
const AT_ONCE: usize = 8;

/// Listens; the address that was given, with the port that was chosen if it was 0.
///
/// # Errors
/// The address cannot be listened on.
pub(super) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    info!(address = %listener.local_addr()?, "metrics");
    Ok(listener)
}

/// Answers for ever.
pub(super) async fn serve(listener: TcpListener, words: watch::Receiver<String>) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: others get some back in a while.
                debug!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let words = words.clone();
        tokio::spawn(async move {
            let _slot = slot;
            match tokio::time::timeout(PATIENCE, answer(stream, &words)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "metrics"),
                Err(_elapsed) => debug!("metrics: the one who asked is too slow"),
            }
        });
    }
}

async fn answer(stream: TcpStream, words: &watch::Receiver<String>) -> io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        stream.readable().await?;
        let read = match stream.try_read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            other => other?,
        };
        if read == 0 || request.len() + read > REQUEST_BYTES {
            return Ok(());
        }
        request.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    let (status, body) = if request.starts_with(b"GET /metrics ") || request.starts_with(b"GET /metrics?") {
        ("200 OK", words.borrow().clone())
    } else {
        ("404 Not Found", "metrics are at /metrics\n".to_owned())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let whole = head + &body;
    let mut left = whole.as_bytes();
    while !left.is_empty() {
        stream.writable().await?;
        match stream.try_write(left) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => left = left.get(other?..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// A report as metrics.
pub(super) fn text(report: &Report, troubles: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: usize| {
        // Writing into a String does not fail.
        let _infallible = write!(text, "# HELP mcs_{name} {help}\n# TYPE mcs_{name} gauge\nmcs_{name} {value}\n");
    };
    let healths = |health: &str| report.members.values().filter(|member| member.health == health).count();
    gauge("leader", "Whether this process writes.", usize::from(report.leader));
    gauge("member", "Whether this cluster is a member of a ClusterSet.", usize::from(report.cluster.is_some()));
    gauge("broker_connected", "Whether everything of the broker is watched.", usize::from(report.broker_connected));
    gauge("exports", "Services that this cluster exports.", report.exports);
    gauge("imports", "Services that this cluster imports.", report.imports);
    gauge("imported_endpointslices", "Imported EndpointSlices.", report.slices);
    gauge("members_healthy", "Other members that renew their leases.", healths("healthy"));
    gauge("members_suspect", "Other members that have been silent for a while.", healths("suspect"));
    gauge("members_dead", "Other members that are taken for dead.", healths("dead"));
    gauge("deaths_held", "Whether too many fell silent at once to be taken for dead.", usize::from(report.deaths_held));
    gauge("withdrawals_held", "Exports that are gone and whose withdrawal is held.", report.held.len());
    gauge("imports_stale", "Imports with endpoints of dead members, for want of others.", report.stale.len());
    gauge("addresses_exhausted", "Services for which no ClusterSetIP is left.", report.exhausted.len());
    gauge("addresses_waiting", "Services that wait for a ClusterSetIP.", report.waiting);
    gauge("writes_in_flight", "Writes under way.", report.in_flight);
    gauge("writes_retrying", "Writes that failed and are tried again.", report.retrying.len());
    gauge("problems", "Things that are wrong with objects.", report.problems.len());
    gauge("troubles", "Things that are wrong on the way to the two API servers.", troubles.len());
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::clusterset::controller::{Held, MemberReport};

    fn report() -> Report {
        let dead = MemberReport { health: "dead".to_owned(), ..MemberReport::default() };
        let held = vec![Held { service: "shop/cart".to_owned(), reason: "why".to_owned() }];
        Report { members: [("west".to_owned(), dead)].into(), held, imports: 7, ..Report::default() }
    }

    #[test]
    fn what_is_held_and_dead_is_counted() {
        let text = text(&report(), &BTreeMap::new());
        for line in ["mcs_withdrawals_held 1", "mcs_members_dead 1", "mcs_members_healthy 0", "mcs_imports 7"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[tokio::test]
    async fn they_are_served_and_nothing_else_is() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_sender, words) = watch::channel("mcs_x 1\n".to_owned());
        let server = tokio::spawn(serve(listener, words));
        let ask = async |path: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
            tokio::task::spawn_blocking(move || {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            })
            .await
            .unwrap()
        };
        let answer = ask("/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nmcs_x 1\n"), "{answer}");
        assert!(ask("/").await.starts_with("HTTP/1.1 404 "));
        server.abort();
    }
}
