//! The server: one small answer to each question, nothing else.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{debug, info};

/// A request that is longer is none of ours.
const REQUEST_BYTES: usize = 8192;

/// How long somebody may take to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the process's loop may take to answer: one that takes longer does not turn.
const TURN: Duration = Duration::from_secs(5);

/// Those who ask at once; others wait.
const AT_ONCE: usize = 8;

/// What may be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Question {
    /// `/livez`: if not, start it anew.
    Live,
    /// `/readyz`: whether it does what it is for.
    Ready,
    /// `/metrics`.
    Metrics,
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// Whether it is a yes.
    pub(crate) ok: bool,
    /// What else there is to say.
    pub(crate) body: String,
}

impl Answer {
    /// Yes, or no and why.
    pub(crate) fn of(answer: Result<(), String>) -> Self {
        match answer {
            Ok(()) => Self { ok: true, body: "ok\n".to_owned() },
            Err(why) => Self { ok: false, body: format!("{why}\n") },
        }
    }

    /// Numbers.
    pub(crate) fn text(body: String) -> Self {
        Self { ok: true, body }
    }
}

/// A question, and the way back.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) question: Question,
    answer: oneshot::Sender<Answer>,
}

impl Asked {
    /// Answers. Whoever asked may have given up.
    pub(crate) fn answer(self, answer: Answer) {
        self.answer.send(answer).ok();
    }
}

/// Listens; the address that was given, with the port that was chosen if it was 0.
///
/// # Errors
/// The address cannot be listened on.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = match TcpListener::bind(address).await {
        // `[::]` stands for all addresses: of IPv4 where the kernel knows no other.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) && address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await?
        }
        bound => bound?,
    };
    info!(address = %listener.local_addr()?, "/livez, /readyz, /metrics");
    Ok(listener)
}

/// Waits for a question; for ever where nobody can ask.
pub(crate) async fn next_asked(asked: &mut Option<mpsc::Receiver<Asked>>) -> Asked {
    if let Some(receiver) = asked
        && let Some(asked) = receiver.recv().await
    {
        return asked;
    }
    std::future::pending().await
}

/// Listens at `address`, if there is one, and serves for ever in a task of its own. What is asked comes out.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) async fn serve(address: Option<SocketAddr>) -> io::Result<Option<mpsc::Receiver<Asked>>> {
    let Some(address) = address else { return Ok(None) };
    let listener = listen(address).await?;
    let (sender, asked) = mpsc::channel(AT_ONCE);
    drop(tokio::spawn(accept(listener, sender)));
    Ok(Some(asked))
}

async fn accept(listener: TcpListener, asked: mpsc::Sender<Asked>) {
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
        let asked = asked.clone();
        tokio::spawn(async move {
            let _slot = slot;
            match tokio::time::timeout(PATIENCE, converse(stream, &asked)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "answer"),
                Err(_elapsed) => debug!("the one who asked is too slow"),
            }
        });
    }
}

async fn converse(stream: TcpStream, asked: &mpsc::Sender<Asked>) -> io::Result<()> {
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
    let (status, body) = match question(&request) {
        None => ("404 Not Found", "there are /livez, /readyz and /metrics\n".to_owned()),
        Some(question) => {
            let Answer { ok, body } = tokio::time::timeout(TURN, ask(question, asked))
                .await
                .unwrap_or_else(|_elapsed| Answer::of(Err(format!("no turn of the loop in {} s", TURN.as_secs()))));
            (if ok { "200 OK" } else { "503 Service Unavailable" }, body)
        }
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

/// What a request asks.
fn question(request: &[u8]) -> Option<Question> {
    let path = request.strip_prefix(b"GET ")?.split(|byte| matches!(byte, b' ' | b'?')).next()?;
    match path {
        b"/livez" => Some(Question::Live),
        b"/readyz" => Some(Question::Ready),
        b"/metrics" => Some(Question::Metrics),
        _ => None,
    }
}

async fn ask(question: Question, asked: &mpsc::Sender<Asked>) -> Answer {
    let (answer, answered) = oneshot::channel();
    let gone = || Answer::of(Err("the process ends".to_owned()));
    if asked.send(Asked { question, answer }).await.is_err() {
        return gone();
    }
    answered.await.unwrap_or_else(|_gone| gone())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[tokio::test]
    async fn the_loop_answers_and_nothing_else_is_served() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, mut asked) = mpsc::channel(1);
        let server = tokio::spawn(accept(listener, sender));
        let the_loop = tokio::spawn(async move {
            while let Some(asked) = asked.recv().await {
                let answer = match asked.question {
                    Question::Live => Answer::of(Ok(())),
                    Question::Ready => Answer::of(Err("not yet".to_owned())),
                    Question::Metrics => Answer::text("mcs_x 1\n".to_owned()),
                };
                asked.answer(answer);
            }
        });
        let get = async |path: &str| {
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
        let answer = get("/metrics?x=y").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nmcs_x 1\n"), "{answer}");
        assert!(get("/livez").await.starts_with("HTTP/1.1 200 "));
        let answer = get("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("not yet\n"), "{answer}");
        assert!(get("/").await.starts_with("HTTP/1.1 404 "));
        the_loop.abort();
        assert!(the_loop.await.unwrap_err().is_cancelled());
        assert!(get("/livez").await.starts_with("HTTP/1.1 503 "), "a loop that ended does not live");
        server.abort();
    }
}
