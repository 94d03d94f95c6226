//! Sockets as programs make them, in all the ways in which they reach an address.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use mcs_tests::Family;
use mcs_tests::identity::{self, Connection, Protocol};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sockopt};

use crate::world::{PATIENCE, vip};

/// The kinds of sockets that can dial a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
    /// `AF_INET6` without `IPV6_V6ONLY`, dialling IPv4: Java's and Go's habit. Such a socket fires IPv4 hooks when it sends and
    /// IPv6 hooks when it receives.
    Mapped,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    /// Of the addresses that it reaches.
    pub(crate) fn family(self) -> Family {
        match self {
            Self::V4 | Self::Mapped => Family::V4,
            Self::V6 => Family::V6,
        }
    }

    /// An address as such a socket writes it.
    pub(crate) fn address(self, address: SocketAddr) -> SocketAddr {
        match (self, address.ip()) {
            (Self::Mapped, IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
            _ => address,
        }
    }

    /// The frontend of service number `n`, as such a socket writes it.
    pub(crate) fn vip(self, number: u16) -> SocketAddr {
        self.address(vip(self.family(), number))
    }

    /// An unconnected UDP socket.
    pub(crate) fn udp(self) -> UdpSocket {
        let any = match self {
            Self::V4 => Family::V4.unspecified(),
            Self::V6 | Self::Mapped => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

/// A new flow to an address from the calling thread's place: who answers, and who the peer seems to be.
pub(crate) fn dial(protocol: Protocol, to: SocketAddr) -> (String, SocketAddr) {
    try_dial(protocol, to).unwrap_or_else(|error| panic!("{protocol} {to}: {error}"))
}

/// [`dial`], where it may fail.
pub(crate) fn try_dial(protocol: Protocol, to: SocketAddr) -> io::Result<(String, SocketAddr)> {
    match protocol {
        Protocol::Tcp => {
            let connection = Connection::greet(TcpStream::connect(to)?)?;
            let peer = connection.stream.peer_addr()?;
            Ok((connection.backend, peer))
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(SocketAddr::new(Family::of(to.ip()).unspecified(), 0))?;
            socket.connect(to)?;
            let name = identity::ask_connected(&socket)?;
            Ok((name, socket.peer_addr()?))
        }
    }
}

/// A TCP socket that has not been connected, and does not block if so asked.
pub(crate) fn tcp(to: SocketAddr, nonblocking: bool) -> OwnedFd {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut flags = SocketFlags::CLOEXEC;
    flags.set(SocketFlags::NONBLOCK, nonblocking);
    rustix::net::socket_with(family, SocketType::STREAM, flags, None).unwrap()
}

/// A Multipath TCP socket; none where the kernel has no such.
pub(crate) fn mptcp(to: SocketAddr) -> Option<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let result = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::MPTCP));
    match result {
        Ok(socket) => Some(socket),
        Err(Errno::PROTONOSUPPORT | Errno::INVAL | Errno::NOPROTOOPT) => None,
        Err(error) => panic!("Multipath TCP socket: {error}"),
    }
}

/// Waits until a connect that does not block has come to an end, and gives its result.
pub(crate) fn finish_connect(socket: &OwnedFd) -> io::Result<()> {
    let mut sockets = [PollFd::new(socket, PollFlags::OUT)];
    let limit = Timespec { tv_sec: PATIENCE.as_secs().try_into().unwrap(), tv_nsec: 0 };
    assert_eq!(poll(&mut sockets, Some(&limit))?, 1, "nothing happened to the connect");
    sockopt::socket_error(socket)?.map_err(io::Error::from)
}

/// `sendto(…, MSG_FASTOPEN)`: connects, with the data in the first packet if the server allows that.
pub(crate) fn send_fast_open(socket: &OwnedFd, data: &[u8], to: SocketAddr) -> io::Result<usize> {
    let flags = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.cast_unsigned());
    Ok(rustix::net::sendto(socket, data, flags, &to)?)
}

/// `connect(AF_UNSPEC)`: the socket is connected to nobody from now on.
pub(crate) fn disconnect(socket: &UdpSocket) {
    rustix::net::connect_unspec(socket).unwrap();
}

/// Sends a datagram by `sendto` and says who answers, and from where that seems to come.
pub(crate) fn ask(socket: &UdpSocket, to: SocketAddr) -> (String, SocketAddr) {
    identity::ask_from(socket, to).unwrap_or_else(|error| panic!("UDP {to}: {error}"))
}

/// Connects a UDP socket, again if it was before, and says who answers.
pub(crate) fn reconnect(socket: &UdpSocket, to: SocketAddr) -> String {
    socket.connect(to).unwrap_or_else(|error| panic!("connect UDP to {to}: {error}"));
    identity::ask_connected(socket).unwrap_or_else(|error| panic!("UDP {to}: {error}"))
}

/// The socket's cookie, which decides where its entry lies.
pub(crate) fn cookie(socket: impl AsFd) -> u64 {
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap();
    // SAFETY: the kernel writes at most `length` bytes to a word of that size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    cookie
}

/// Whether an error is one of "there is no way to that address", which of them depends on family and kernel.
pub(crate) fn is_unreachable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable)
}
