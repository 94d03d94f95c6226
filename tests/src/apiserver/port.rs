//! A TCP port of the loopback interface for a program that wants to be told one, without a race for it.
//!
//! The kernel chooses the port of a socket that is bound here, exclusively, and never listens; then the socket allows
//! others to share its address (`SO_REUSEADDR`, which Linux looks at when the other one binds). Servers written in Go
//! bind with the same option, so theirs may join; who binds without it may not, nor does the kernel give the port to anybody
//! else, while the server is down neither.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

/// A port that is nobody else's as long as this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _socket: OwnedFd,
}

impl Port {
    /// Takes one.
    pub fn reserve() -> Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.context("make a socket")?;
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).context("bind a port of 127.0.0.1")?;
        sockopt::set_socket_reuseaddr(&socket, true).context("share a port")?;
        let bound: SocketAddr = getsockname(&socket).context("read a port")?.try_into().context("read a port")?;
        Ok(Self { number: bound.port(), _socket: socket })
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_server_that_shares_may_listen_and_nobody_is_there_before() {
        let port = Port::reserve().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // The standard library sets SO_REUSEADDR on listeners, as Go does; twice, as a server is restarted.
        for _ in 0..2 {
            let listener = TcpListener::bind(address).unwrap();
            TcpStream::connect(address).unwrap();
            drop(listener.accept().unwrap());
        }
        let other = Port::reserve().unwrap();
        assert_ne!(other.number(), port.number());
    }

    #[test]
    fn who_does_not_share_cannot_have_it() {
        let port = Port::reserve().unwrap();
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()))).unwrap_err();
    }
}
