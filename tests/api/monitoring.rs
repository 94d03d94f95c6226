//! What running processes answer over HTTP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::SOON;

/// How often something that no watch tells is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Where a process listens, by its log; the last word counts.
pub(crate) fn listens(log: &str) -> Option<SocketAddr> {
    let line = log.lines().rfind(|line| line.contains("/livez"))?;
    line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
}

/// Asks over HTTP: the status line and the body. Both are empty where nobody answers.
pub(crate) fn get(address: Option<SocketAddr>, path: &str) -> (String, String) {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address.ok_or(std::io::ErrorKind::NotFound)?)?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().unwrap_or_default();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// The value of a sample, by all that stands before it.
pub(crate) fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.parse().ok()
}

/// Waits for what no watch tells.
pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < end, "not in {SOON:?}: {what}");
        thread::sleep(POLL);
    }
}
