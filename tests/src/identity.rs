//! "Who am I" servers: a client learns which backend it reached, and can see later that it still talks to the same one.
//!
//! TCP: on accept the server writes its name and a newline, then echoes. UDP: each datagram comes back behind the
//! server's name and a newline. Nothing is asked first, so that a test needs one round trip and no protocol.
//!
//! A server is a thread of this process ([`Server::start`]) or a process of its own ([`Server::start_process`]): the latter
//! for thousands of connections, where client and server in one process would need two descriptors for each.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::addresses::Family;
use crate::child::Child;
use crate::echo::{self, Counters};
use crate::place::Place;
use crate::registry::Stop;

/// How long a client waits for anything before it calls the test failed.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The environment variable that makes a copy of this program a server: see [`serve_if_asked`].
const ASKED: &str = "MCS_TESTS_IDENTITY_SERVER";

/// A transport that services have and the dataplane knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Both, for loops.
    pub const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];

    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// One socket of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listen {
    /// Its transport.
    pub protocol: Protocol,
    /// Its address. IPv6 sockets do not take IPv4.
    pub address: SocketAddr,
    /// What it says instead of the server's name.
    pub name: Option<String>,
}

impl Listen {
    /// TCP and UDP of both families on a port, at any address of the place.
    pub fn port(port: u16) -> Vec<Self> {
        Family::BOTH
            .iter()
            .flat_map(|family| Self::both(SocketAddr::new(family.unspecified(), port)))
            .collect()
    }

    /// TCP and UDP at an address. UDP at one of a pod's further addresses must be bound to it, or replies leave from
    /// the pod's first.
    pub fn both(address: SocketAddr) -> Vec<Self> {
        Protocol::BOTH
            .iter()
            .map(|&protocol| Self {
                protocol,
                address,
                name: None,
            })
            .collect()
    }

    /// The same socket, which says another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// What a server has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// TCP connections accepted.
    pub connections: u64,
    /// Of those, the ones still open.
    pub open: u64,
    /// Datagrams received.
    pub datagrams: u64,
    /// Bytes received over both.
    pub bytes: u64,
}

/// A running server. Dropping it closes its sockets; so does the fleet's end.
pub struct Server {
    name: String,
    running: Arc<Running>,
}

impl Server {
    /// Starts a server on a thread in a place. Its sockets are open when this returns.
    pub fn start(place: &Place, name: &str, listen: &[Listen]) -> Result<Self> {
        let what = || format!("start server {name} in {}", place.name());
        let counters = Arc::<Counters>::default();
        let sockets = place
            .try_run(|| echo::open(name, listen))?
            .with_context(what)?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .context("make a pipe")
            .with_context(what)?;
        let counting = Arc::clone(&counters);
        // Sockets stay in the place where they were opened, so the thread that serves them may run anywhere; outside,
        // it does not keep the place's cgroup busy.
        let thread = std::thread::Builder::new()
            .name(format!("server {name}"))
            .spawn(move || echo::serve(sockets, &stopped, &counting))
            .with_context(what)?;
        let thread = Mutex::new(Some((stop, thread)));
        Ok(Self::running(
            place,
            name,
            Running {
                name: name.to_owned(),
                kind: Kind::Thread { thread, counters },
            },
        ))
    }

    /// Starts a server as a process in a place. Its sockets are open when this returns.
    pub fn start_process(place: &Place, name: &str, listen: &[Listen]) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command
            .env(ASKED, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = place.spawn(command)?;
        let output = child
            .stdout
            .take()
            .context("server process without an output")?;
        let mut process = Process {
            child,
            output: BufReader::new(output),
        };
        let answer =
            process.ask(&serde_json::to_string(&(name, listen)).context("describe server")?)?;
        if answer != "open" {
            bail!("start server {name} in {}: {answer}", place.name());
        }
        let kind = Kind::Process(Mutex::new(process));
        Ok(Self::running(
            place,
            name,
            Running {
                name: name.to_owned(),
                kind,
            },
        ))
    }

    /// A server in each of the pods, called like its pod, that listens on a port with both transports and families.
    pub fn start_in<'a>(
        pods: impl IntoIterator<Item = &'a crate::Pod>,
        port: u16,
    ) -> Result<Vec<Self>> {
        pods.into_iter()
            .map(|pod| Self::start(pod, pod.name(), &Listen::port(port)))
            .collect()
    }

    fn running(place: &Place, name: &str, running: Running) -> Self {
        let running = Arc::new(running);
        place.registry().add(&running);
        Self {
            name: name.to_owned(),
            running,
        }
    }

    /// What it says.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has seen so far.
    pub fn stats(&self) -> Result<Stats> {
        match &self.running.kind {
            Kind::Thread { counters, .. } => Ok(counters.stats()),
            Kind::Process(process) => {
                let answer = lock(process).ask("stats")?;
                serde_json::from_str(&answer)
                    .with_context(|| format!("server {}: stats: {answer}", self.name))
            }
        }
    }

    /// Closes all its sockets: open connections are reset or closed, its ports refuse.
    pub fn stop(&self) {
        self.running.stop();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Running {
    name: String,
    kind: Kind,
}

enum Kind {
    /// Closing the pipe's end ends the thread.
    Thread {
        thread: Mutex<Option<(OwnedFd, JoinHandle<Result<()>>)>>,
        counters: Arc<Counters>,
    },
    Process(Mutex<Process>),
}

impl Stop for Running {
    fn stop(&self) {
        match &self.kind {
            Kind::Process(process) => lock(process).child.kill(),
            Kind::Thread { thread, .. } => {
                let Some((stop, thread)) = lock(thread).take() else {
                    return;
                };
                drop(stop);
                match thread.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => eprintln!("server {}: {error:#}", self.name),
                    Err(_panic) => eprintln!("server {}: its thread panicked", self.name),
                }
            }
        }
    }
}

struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn ask(&mut self, line: &str) -> Result<String> {
        let input = self
            .child
            .stdin
            .as_mut()
            .ok_or_else(|| anyhow!("server process: its input is closed"))?;
        input
            .write_all(format!("{line}\n").as_bytes())
            .context("server process: write to it")?;
        let mut answer = String::new();
        let read = self
            .output
            .read_line(&mut answer)
            .context("server process: read from it")?;
        if read == 0 {
            bail!("server process: it ended");
        }
        Ok(answer.trim_end().to_owned())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every program with this library in it can be a server, without a second binary that would have to be found, built and
/// carried into virtual machines: the loader runs this before `main`, and it does nothing unless asked by the environment.
#[used]
#[unsafe(link_section = ".init_array")]
static SERVE_IF_ASKED: extern "C" fn() = serve_if_asked;

extern "C" fn serve_if_asked() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let code = match serve_until_end_of_input() {
        Ok(()) => 0,
        Err(error) => {
            // To whom started it; if that one is gone too, nobody wants to know.
            println_raw(&format!("{error:#}")).ok();
            1
        }
    };
    // SAFETY: _exit has no preconditions. `main` must not run in a server, and nothing buffered is left.
    unsafe { libc::_exit(code) };
}

fn serve_until_end_of_input() -> Result<()> {
    let mut lines = io::stdin().lines();
    let request = lines
        .next()
        .context("no description")?
        .context("read description")?;
    let (name, listen): (String, Vec<Listen>) =
        serde_json::from_str(&request).context("parse description")?;
    let sockets = echo::open(&name, &listen)?;
    println_raw("open")?;
    let (stopped, _stop) = rustix::pipe::pipe().context("make a pipe")?;
    let counters = Arc::<Counters>::default();
    let counting = Arc::clone(&counters);
    std::thread::spawn(move || echo::serve(sockets, &stopped, &counting));
    for line in lines {
        line.context("read request")?;
        println_raw(&serde_json::to_string(&counters.stats()).context("write stats")?)?;
    }
    Ok(())
}

fn println_raw(line: &str) -> Result<()> {
    // Not println!: libtest may have replaced what that writes to.
    io::stdout()
        .write_all(format!("{line}\n").as_bytes())
        .context("write answer")?;
    io::stdout().flush().context("write answer")
}

/// A TCP connection to a server that has said its name.
pub struct Connection {
    /// The connection, with [`PATIENCE`] as its timeouts.
    pub stream: TcpStream,
    /// The name of the server.
    pub backend: String,
}

impl Connection {
    /// Connects from the calling thread's place.
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        Self::greet(TcpStream::connect_timeout(&to, PATIENCE)?)
    }

    /// Reads the name from a connection that was made otherwise.
    pub fn greet(mut stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut name = Vec::new();
        let mut byte = [0];
        // Byte by byte, as what follows the newline belongs to the caller.
        while stream.read_exact(&mut byte).map(|()| byte != *b"\n")? {
            name.extend(byte);
        }
        Ok(Self {
            stream,
            backend: String::from_utf8_lossy(&name).into_owned(),
        })
    }

    /// Sends something and reads it back: the connection lives.
    pub fn echo(&mut self, payload: &[u8]) -> io::Result<()> {
        self.stream.write_all(payload)?;
        let mut back = vec![0; payload.len()];
        self.stream.read_exact(&mut back)?;
        if back == payload {
            Ok(())
        } else {
            Err(io::Error::other("echo: something else came back"))
        }
    }
}

/// Splits a server's datagram into its name and the payload.
pub fn parse_datagram(datagram: &[u8]) -> io::Result<(String, &[u8])> {
    let newline = datagram.iter().position(|&byte| byte == b'\n');
    let newline = newline.ok_or_else(|| io::Error::other("datagram without a name"))?;
    Ok((
        String::from_utf8_lossy(&datagram[..newline]).into_owned(),
        &datagram[newline + 1..],
    ))
}

/// Asks the server at an address for its name, over a new socket, from a place. UDP sockets are connected.
pub fn ask(from: &Place, protocol: Protocol, to: SocketAddr) -> io::Result<String> {
    from.run(|| match protocol {
        Protocol::Tcp => Connection::open(to).map(|connection| connection.backend),
        Protocol::Udp => {
            let socket = UdpSocket::bind(SocketAddr::new(Family::of(to.ip()).unspecified(), 0))?;
            socket.connect(to)?;
            ask_connected(&socket)
        }
    })
}

/// Asks over a UDP socket that is connected already.
pub fn ask_connected(socket: &UdpSocket) -> io::Result<String> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"who")?;
    let mut datagram = [0; 2048];
    let length = socket.recv(&mut datagram)?;
    parse_datagram(&datagram[..length]).map(|(name, _)| name)
}

/// Asks over an unconnected UDP socket, and returns who seems to have answered too.
pub fn ask_from(socket: &UdpSocket, to: SocketAddr) -> io::Result<(String, SocketAddr)> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"who", to)?;
    let mut datagram = [0; 2048];
    let (length, from) = socket.recv_from(&mut datagram)?;
    Ok((parse_datagram(&datagram[..length])?.0, from))
}
