//! The loop of a "who am I" server: one thread, epoll, any number of sockets.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::{Listen, Protocol, Stats};

/// Connections that wait to be accepted: tests open thousands at once, and a full queue costs a second each.
const BACKLOG: i32 = 4096;

/// The epoll token of the pipe that ends the loop; sockets count from 1.
const STOP: u64 = 0;

/// What the loop has seen, readable while it runs.
#[derive(Default)]
pub(super) struct Counters {
    connections: AtomicU64,
    open: AtomicU64,
    datagrams: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    pub(super) fn stats(&self) -> Stats {
        let Self { connections, open, datagrams, bytes } = self;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats { connections: read(connections), open: read(open), datagrams: read(datagrams), bytes: read(bytes) }
    }

    fn add(counter: &AtomicU64, much: usize) {
        counter.fetch_add(much as u64, Ordering::Relaxed);
    }
}

/// An open socket that waits for clients.
pub(super) enum Socket {
    Tcp(TcpListener, Arc<[u8]>),
    Udp(UdpSocket, Arc<[u8]>),
}

/// Opens a server's sockets where the calling thread is.
pub(super) fn open(name: &str, listen: &[Listen]) -> Result<Vec<Socket>> {
    let open = |listen: &Listen| {
        let Listen { protocol, address, name: own } = listen;
        let greeting = Arc::from(format!("{}\n", own.as_deref().unwrap_or(name)).into_bytes());
        open_one(*protocol, *address, greeting).with_context(|| format!("listen on {protocol} {address}"))
    };
    listen.iter().map(open).collect()
}

fn open_one(protocol: Protocol, address: SocketAddr, greeting: Arc<[u8]>) -> io::Result<Socket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        // 0.0.0.0 and :: on one port are two sockets.
        sockopt::set_ipv6_v6only(&socket, true)?;
        // A pod's further addresses are a local route; unlike IPv4, IPv6 wants to be told that this is enough.
        sockopt::set_ipv6_freebind(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(match protocol {
        Protocol::Tcp => {
            rustix::net::listen(&socket, BACKLOG)?;
            Socket::Tcp(socket.into(), greeting)
        }
        Protocol::Udp => Socket::Udp(socket.into(), greeting),
    })
}

/// Serves until the other end of `stopped` is closed.
pub(super) fn serve(sockets: Vec<Socket>, stopped: &OwnedFd, counters: &Counters) -> Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context("create epoll")?;
    let watch = |fd: BorrowedFd<'_>, token| {
        epoll::add(&poll, fd, EventData::new_u64(token), EventFlags::IN).context("watch socket")
    };
    watch(stopped.as_fd(), STOP)?;
    for (socket, token) in sockets.iter().zip(1..) {
        watch(socket.as_fd(), token)?;
    }
    let first_connection = 1 + sockets.len() as u64;
    let mut next = first_connection;
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut buffer = vec![0; 64 << 10];
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for clients"),
        }
        for event in &events {
            let token = event.data.u64();
            if token == STOP {
                return Ok(());
            }
            if token >= first_connection {
                // Events of one round may be for a connection that this round closed.
                let Some(connection) = connections.get_mut(&token) else {
                    continue;
                };
                match connection.go_on(&mut buffer, counters) {
                    Ok(interest) => epoll::modify(&poll, &connection.stream, EventData::new_u64(token), interest)
                        .context("watch connection")?,
                    Err(_closed_or_reset) => {
                        connections.remove(&token);
                        counters.open.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                continue;
            }
            match sockets.get(token as usize - 1) {
                Some(Socket::Udp(socket, greeting)) => answer(socket, greeting, &mut buffer, counters),
                Some(Socket::Tcp(listener, greeting)) => {
                    while let Some(stream) = accept(listener) {
                        Counters::add(&counters.connections, 1);
                        Counters::add(&counters.open, 1);
                        // Ready to be written to: the first round sends the greeting.
                        epoll::add(&poll, &stream, EventData::new_u64(next), EventFlags::OUT)
                            .context("watch connection")?;
                        connections.insert(next, Connection { stream, unsent: greeting.to_vec() });
                        next += 1;
                    }
                }
                None => {}
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener, _) => listener.as_fd(),
            Self::Udp(socket, _) => socket.as_fd(),
        }
    }
}

fn accept(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept() {
        Ok((stream, _)) => stream.set_nonblocking(true).and(stream.set_nodelay(true)).ok().map(|()| stream),
        Err(error) => {
            // Without descriptors the listener stays readable: do not spin until there are some.
            if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                eprintln!("accept: {error}");
                std::thread::sleep(Duration::from_millis(50));
            }
            None
        }
    }
}

/// Answers what lies in a UDP socket's queue. An error on one datagram (an ICMP that came back) concerns nobody else.
fn answer(socket: &UdpSocket, greeting: &[u8], buffer: &mut [u8], counters: &Counters) {
    let mut reply = Vec::new();
    while let Ok((length, from)) = socket.recv_from(buffer) {
        Counters::add(&counters.datagrams, 1);
        Counters::add(&counters.bytes, length);
        reply.clear();
        reply.extend_from_slice(greeting);
        reply.extend_from_slice(&buffer[..length]);
        socket.send_to(&reply, from).ok();
    }
}

struct Connection {
    stream: TcpStream,
    /// What the client does not take yet. While there is some, nothing is read: a slow client costs one buffer.
    unsent: Vec<u8>,
}

impl Connection {
    /// Reads and writes as much as goes. Returns what to wait for; an error or the client's end ends the connection.
    fn go_on(&mut self, buffer: &mut [u8], counters: &Counters) -> io::Result<EventFlags> {
        loop {
            while !self.unsent.is_empty() {
                match self.stream.write(&self.unsent) {
                    Ok(written) => drop(self.unsent.drain(..written)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(EventFlags::OUT);
                    }
                    Err(error) => return Err(error),
                }
            }
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    Counters::add(&counters.bytes, length);
                    self.unsent.extend_from_slice(&buffer[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(EventFlags::IN);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
