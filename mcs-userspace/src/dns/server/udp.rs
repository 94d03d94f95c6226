//! DNS over UDP: as many datagrams as wait are read, answered and sent at a time.
//!
//! On a socket of all addresses, an answer has to come from the address that was asked: the kernel is told which that is,
//! for each datagram.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockType, SockaddrStorage, recvmmsg, sendmsg,
    setsockopt, sockopt,
};
use rustix::net::addr::SocketAddrArg as _;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny};
use tracing::{debug, warn};

use super::{Shared, bound};
use crate::dns::message::Transport;

/// Datagrams that are read at a time.
const BATCH: usize = 32;
/// Bytes of a query that are read: one question with EDNS options is far shorter.
const QUERY: usize = 4096;
/// How long to rest after an error that is not about one datagram.
const REST: Duration = Duration::from_millis(10);
/// Bytes that may wait to be read: some ten thousand queries.
const WAITING: usize = 4 << 20;

/// Which of the machine's addresses was asked.
#[derive(Clone, Copy, Debug)]
enum Asked {
    V4(in_pktinfo),
    V6(in6_pktinfo),
    /// The only one that is listened on.
    TheOne,
}

/// Listens on an address.
pub(super) fn bind(addr: SocketAddr, share_port: bool) -> io::Result<UdpSocket> {
    let socket = UdpSocket::from(bound(addr, SockType::Datagram, share_port)?);
    if addr.ip().is_unspecified() {
        // one of them only: on a socket of both families it tells IPv4 addresses too, and all datagrams tell as much
        if addr.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
    }
    // the kernel gives what it is allowed to, and says nothing
    if let Err(error) = setsockopt(&socket, sockopt::RcvBuf, &WAITING) {
        debug!(%error, "room for queries that wait");
    }
    Ok(socket)
}

/// Answers, for ever.
pub(super) fn serve(socket: &UdpSocket, zone: &Shared) {
    let is_any = socket.local_addr().is_ok_and(|addr| addr.ip().is_unspecified());
    let mut worker = Worker::new(is_any);
    loop {
        if let Err(error) = worker.turn(socket, zone)
            && error != Errno::EINTR
        {
            warn!(%error, "read queries");
            std::thread::sleep(REST);
        }
    }
}

struct Worker {
    is_any: bool,
    queries: Vec<[u8; QUERY]>,
    responses: Vec<Vec<u8>>,
    received: MultiHeaders<SockaddrStorage>,
    /// Length of each query, who sent it, and to which address.
    from: Vec<(usize, Option<SockaddrStorage>, Asked)>,
}

impl Worker {
    fn new(is_any: bool) -> Self {
        Self {
            is_any,
            queries: vec![[0; QUERY]; BATCH],
            responses: vec![Vec::new(); BATCH],
            received: MultiHeaders::preallocate(BATCH, Some(cmsg_space!(in_pktinfo, in6_pktinfo))),
            from: Vec::with_capacity(BATCH),
        }
    }

    /// Waits for queries, and answers all that there are.
    fn turn(&mut self, socket: &UdpSocket, zone: &Shared) -> Result<(), Errno> {
        self.receive(socket)?;
        let count = self.from.len();
        {
            let now = zone.read();
            for ((query, response), (len, _, _)) in self.queries.iter().zip(&mut self.responses).zip(&self.from) {
                zone.respond(&now, query.get(..*len).unwrap_or_default(), Transport::Udp, response);
            }
        }
        if self.is_any {
            self.send_each(socket, count)
        } else {
            self.send_all(socket, count)
        }
        Ok(())
    }

    fn receive(&mut self, socket: &UdpSocket) -> Result<(), Errno> {
        self.from.clear();
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            self.queries.iter_mut().map(|query| [IoSliceMut::new(query)]).collect();
        let received =
            recvmmsg(socket.as_raw_fd(), &mut self.received, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None)?;
        for message in received {
            let mut asked = Asked::TheOne;
            if self.is_any {
                for control in message.cmsgs().into_iter().flatten() {
                    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign list; no others were asked for")]
                    match control {
                        ControlMessageOwned::Ipv4PacketInfo(info) => asked = Asked::V4(info),
                        ControlMessageOwned::Ipv6PacketInfo(info) => asked = Asked::V6(info),
                        _ => {}
                    }
                }
            }
            self.from.push((message.bytes, message.address, asked));
        }
        Ok(())
    }

    /// From the only address there is.
    fn send_all(&self, socket: &UdpSocket, count: usize) {
        let answered = self.responses.iter().zip(&self.from).take(count);
        let (to, data): (Vec<SocketAddrAny>, Vec<[IoSlice<'_>; 1]>) = answered
            .filter(|(response, _)| !response.is_empty())
            .filter_map(|(response, (_, to, _))| Some((socket_addr(to.as_ref()?)?.as_any(), [IoSlice::new(response)])))
            .unzip();
        let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> = Vec::new();
        controls.resize_with(to.len(), SendAncillaryBuffer::default);
        let mut messages: Vec<MMsgHdr<'_>> = to
            .iter()
            .zip(&data)
            .zip(&mut controls)
            .map(|((to, data), control)| MMsgHdr::new_with_addr(to, data, control))
            .collect();
        let mut done = 0;
        while let Some(rest) = messages.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match rustix::net::sendmmsg(socket, rest, SendFlags::empty()) {
                Ok(sent) => done += sent.max(1),
                Err(rustix::io::Errno::INTR) => {}
                // the first that cannot be sent ends a call: it is passed over
                Err(error) => {
                    debug!(%error, "answer");
                    done += 1;
                }
            }
        }
    }

    /// Each from the address that was asked.
    fn send_each(&self, socket: &UdpSocket, count: usize) {
        for (response, (_, to, asked)) in self.responses.iter().zip(&self.from).take(count) {
            if response.is_empty() || to.is_none() {
                continue;
            }
            let data = [IoSlice::new(response)];
            let fd = socket.as_raw_fd();
            let sent = match asked {
                // the interface is the route's business: an answer may leave by another one
                Asked::V4(info) => {
                    let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: info.ipi_addr, ipi_addr: info.ipi_addr };
                    sendmsg(fd, &data, &[ControlMessage::Ipv4PacketInfo(&info)], MsgFlags::empty(), to.as_ref())
                }
                Asked::V6(info) => {
                    // that of a link-local address is part of it
                    let is_link_local = info.ipi6_addr.s6_addr.starts_with(&[0xfe, 0x80]);
                    let index = if is_link_local { info.ipi6_ifindex } else { 0 };
                    let info = in6_pktinfo { ipi6_ifindex: index, ..*info };
                    sendmsg(fd, &data, &[ControlMessage::Ipv6PacketInfo(&info)], MsgFlags::empty(), to.as_ref())
                }
                Asked::TheOne => sendmsg(fd, &data, &[], MsgFlags::empty(), to.as_ref()),
            };
            if let Err(error) = sent {
                debug!(%error, "answer");
            }
        }
    }
}

fn socket_addr(addr: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = addr.as_sockaddr_in().map(|addr| SocketAddr::V4((*addr).into()));
    v4.or_else(|| addr.as_sockaddr_in6().map(|addr| SocketAddr::V6((*addr).into())))
}
