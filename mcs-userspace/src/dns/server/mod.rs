//! The sockets: UDP answered by threads of its own, many datagrams at a time; TCP by tasks.

mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use super::message::{Transport, respond};
use super::zone::Zone;

/// The zone, as all who answer from it and who changes it share it, and how often they did.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    zone: RwLock<Zone>,
    answered: [Codes; 2],
}

/// How many answers had each code.
type Codes = [AtomicU64; 16];

impl Shared {
    /// Shares a zone.
    #[must_use]
    pub fn new(zone: Zone) -> Self {
        Self(Arc::new(Inner { zone: RwLock::new(zone), answered: Default::default() }))
    }

    /// The zone as it is now.
    pub fn read(&self) -> RwLockReadGuard<'_, Zone> {
        self.0.zone.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The zone, to be changed. To be held for short: nothing is answered meanwhile.
    pub fn write(&self) -> RwLockWriteGuard<'_, Zone> {
        self.0.zone.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a query, see [`respond`], and counts it.
    fn respond(&self, zone: &Zone, query: &[u8], transport: Transport, out: &mut Vec<u8>) {
        respond(zone, query, transport, out);
        if let Some(count) = out.get(3).and_then(|flags| self.codes(transport).get(usize::from(flags & 0xf))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many answers had each code, by its number.
    #[must_use]
    pub fn answered(&self, transport: Transport) -> [u64; 16] {
        self.codes(transport).each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn codes(&self, transport: Transport) -> &Codes {
        let [udp, tcp] = &self.0.answered;
        match transport {
            Transport::Udp => udp,
            Transport::Tcp => tcp,
        }
    }
}

/// Sockets of one address, which answer from when [`Listener::serve`] is called.
#[derive(Debug)]
pub struct Listener {
    addr: SocketAddr,
    tcp: tokio::net::TcpListener,
    /// One for each thread; the kernel spreads clients over them.
    udp: Vec<std::net::UdpSocket>,
}

impl Listener {
    /// Takes an address, for UDP and TCP. Port 0 is any that is free, the same for both. To be called in a runtime.
    ///
    /// # Errors
    /// The address is not this machine's, or taken.
    pub fn bind(addr: SocketAddr, threads: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let tcp = tcp::bind(addr)?;
        let addr = tcp.local_addr()?;
        // only several sockets of our own may share the port: else a second server would take a part of the queries
        let udp = (0..threads).map(|_| udp::bind(addr, threads > 1)).collect::<io::Result<_>>()?;
        Ok(Self { addr, tcp, udp })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers, until the runtime ends and, for UDP, the process.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn serve(self, zone: &Shared) -> io::Result<()> {
        for (socket, n) in self.udp.into_iter().zip(1..) {
            let zone = zone.clone();
            std::thread::Builder::new().name(format!("udp-{n}")).spawn(move || udp::serve(&socket, &zone))?;
        }
        tokio::spawn(tcp::serve(self.tcp, zone.clone()));
        Ok(())
    }
}

/// The addresses that clients can be told, of those that are listened on.
#[must_use]
pub fn told(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut told: Vec<IpAddr> = addresses.into_iter().filter(|ip| !ip.is_unspecified()).collect();
    told.sort_unstable();
    told.dedup();
    told
}

/// A socket that is bound to an address, and to its family only unless that is the whole of both.
fn bound(addr: SocketAddr, kind: SockType, share_port: bool) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReusePort, &share_port)?;
    if kind == SockType::Stream {
        // connections of the process before this one linger
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    if addr.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &!addr.ip().is_unspecified())?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    if kind == SockType::Stream {
        listen(&fd.as_fd(), Backlog::MAXCONN)?;
    }
    Ok(fd)
}
