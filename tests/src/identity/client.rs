//! Clients of "who am I" servers.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use super::{PATIENCE, Protocol};
use crate::addresses::Family;
use crate::place::Place;

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
        Ok(Self { stream, backend: String::from_utf8_lossy(&name).into_owned() })
    }

    /// Sends something and reads it back: the connection lives.
    pub fn echo(&mut self, payload: &[u8]) -> io::Result<()> {
        self.stream.write_all(payload)?;
        let mut back = vec![0; payload.len()];
        self.stream.read_exact(&mut back)?;
        if back == payload { Ok(()) } else { Err(io::Error::other("echo: something else came back")) }
    }
}

/// Splits a server's datagram into its name and the payload.
pub fn parse_datagram(datagram: &[u8]) -> io::Result<(String, &[u8])> {
    let newline = datagram.iter().position(|&byte| byte == b'\n');
    let newline = newline.ok_or_else(|| io::Error::other("datagram without a name"))?;
    Ok((String::from_utf8_lossy(&datagram[..newline]).into_owned(), &datagram[newline + 1..]))
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
