//! Reverse state: see [`mcs_ebpf::sockets`] for connected sockets; unconnected UDP has two LRU maps.

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::programs::SockAddrContext;
use mcs_ebpf::sockets::{self, USED, WAYS, backend_hash, mix, word0, word1, worth};
use mcs_ebpf::{Frontend, MemberRef, MemberRow, UdpFlow, UdpOrigin};

use super::choose::{Chosen, Service, follow, generation_of};
use super::context::{Peer, config};
use super::maps::{SERVICES, SOCKETS, UDP_FLOWS, UDP_ORIGINS};

/// The socket's cookie, never 0.
#[inline(always)]
pub(crate) fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: a helper that takes the context.
    unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) }
}

#[inline(always)]
fn set_of(cookie: u64) -> Option<*mut sockets::Set> {
    SOCKETS.get_ptr_mut(sockets::set(cookie, config!(socket_bits)))
}

/// Notes which service a socket was translated for, and to which backend.
#[inline(always)]
pub(crate) fn connected(cookie: u64, service: Service, backend: Peer, is_udp: bool) {
    let Some(set) = set_of(cookie) else { return };
    let word1 = word1(service.index, service.generation, is_udp, backend_hash(backend.addr, backend.port_be));
    let way = way_for(set, cookie);
    // SAFETY: `way` is below WAYS. A racing writer leaves an entry that reads as none.
    unsafe {
        let entry = set.cast::<sockets::Entry>().add(way);
        core::ptr::write_volatile(&raw mut (*entry).word1, word1);
        core::ptr::write_volatile(&raw mut (*entry).word0, word0(cookie, word1));
    }
}

/// The way to overwrite: the socket's own, else the least worth one, its own turn first. Where that costs a UDP socket its entry, the used
/// ones that it passes lose their mark, so that next time they are asked again whether they are in use.
#[inline(always)]
fn way_for(set: *mut sockets::Set, cookie: u64) -> usize {
    let (mut victim, mut least) = (0, 4);
    let first = sockets::way(cookie, config!(socket_bits));
    let mut turn = 0;
    while turn < WAYS {
        let way = (first + turn) & (WAYS - 1);
        let entry = read(set, way);
        if entry.word0 ^ mix(entry.word1) == cookie {
            return way;
        }
        let worth = worth(entry);
        if worth < least {
            (victim, least) = (way, worth);
        }
        turn += 1;
    }
    if least >= 2 {
        let mut way = 0;
        while way < WAYS {
            let entry = read(set, way);
            if entry.word1 & USED != 0 {
                // SAFETY: `way` is below WAYS.
                unsafe {
                    let entry_ptr = set.cast::<sockets::Entry>().add(way);
                    core::ptr::write_volatile(&raw mut (*entry_ptr).word1, entry.word1 & !USED);
                }
            }
            way += 1;
        }
    }
    victim & (WAYS - 1)
}

#[inline(always)]
fn read(set: *mut sockets::Set, way: usize) -> sockets::Entry {
    // SAFETY: callers keep `way` below WAYS; two aligned words.
    unsafe {
        let entry = set.cast::<sockets::Entry>().add(way);
        sockets::Entry {
            word0: core::ptr::read_volatile(&raw const (*entry).word0),
            word1: core::ptr::read_volatile(&raw const (*entry).word1),
        }
    }
}

/// The `word1` of a socket, if it is connected to this backend by way of a service.
#[inline(always)]
pub(crate) fn translated_to(cookie: u64, backend: Peer, mark_used: bool) -> Option<u64> {
    let set = set_of(cookie)?;
    let mut way = 0;
    while way < WAYS {
        let entry = read(set, way);
        if entry.word0 ^ mix(entry.word1) == cookie {
            if sockets::backend(entry.word1) != backend_hash(backend.addr, backend.port_be) {
                return None;
            }
            if mark_used && entry.word1 & USED == 0 {
                // SAFETY: `way` is below WAYS.
                unsafe {
                    let entry_ptr = set.cast::<sockets::Entry>().add(way);
                    core::ptr::write_volatile(&raw mut (*entry_ptr).word1, entry.word1 | USED);
                }
            }
            return Some(entry.word1);
        }
        way += 1;
    }
    None
}

/// The frontend that a connected socket dialled, if its peer is the backend that it was given.
#[inline(always)]
pub(crate) fn frontend_of(cookie: u64, backend: Peer, mark_used: bool) -> Option<Peer> {
    let word1 = translated_to(cookie, backend, mark_used)?;
    let row = SERVICES.get_ptr(sockets::service(word1))?;
    // SAFETY: a row of an array; another service's is told apart by its generation.
    let (frontend, generation) = unsafe { (core::ptr::read(&raw const (*row).frontend), (*row).generation) };
    if generation & sockets::GENERATION_MASK != sockets::generation(word1) || frontend.protocol == 0 {
        return None;
    }
    Some(Peer { addr: frontend.addr, port_be: frontend.port_be.0 as u32 })
}

/// The backend that an unconnected socket's datagrams to this service go to, while it lives.
#[inline(always)]
pub(crate) fn flow(cookie: u64, service: Service) -> Option<Chosen> {
    let key = UdpFlow { cookie, service: service.index, generation: service.generation };
    // SAFETY: copied at once; a recycled element fails the generation check.
    let held = unsafe { *UDP_FLOWS.get(&key)? };
    Some(follow(held, MemberRow::DRAINING)?.chosen)
}

/// Notes the backend of an unconnected socket's datagrams to this service.
#[inline(always)]
pub(crate) fn set_flow(cookie: u64, service: Service, member: u32) {
    let key = UdpFlow { cookie, service: service.index, generation: service.generation };
    let held = MemberRef { member, generation: generation_of(member) };
    // If it cannot be stored (memory), the next datagram is merely a new flow.
    let _stored = UDP_FLOWS.insert(&key, &held, 0);
}

/// The frontend that an unconnected socket sent to and that got this backend.
#[inline(always)]
pub(crate) fn origin(cookie: u64, backend: Peer) -> Option<Peer> {
    let key = UdpOrigin { cookie, addr: backend.addr, port_be: backend.port_be, zero: 0 };
    // SAFETY: copied at once.
    let frontend = unsafe { *UDP_ORIGINS.get(&key)? };
    Some(Peer { addr: frontend.addr, port_be: frontend.port_be.0 as u32 })
}

/// Notes that this backend's replies to an unconnected socket are the frontend's; stored only if that is news.
#[inline(always)]
pub(crate) fn set_origin(cookie: u64, backend: Peer, frontend: &Frontend) {
    let key = UdpOrigin { cookie, addr: backend.addr, port_be: backend.port_be, zero: 0 };
    // SAFETY: compared at once.
    if let Some(known) = unsafe { UDP_ORIGINS.get(&key) }
        && *known == *frontend
    {
        return;
    }
    // If it cannot be stored (memory), the reply shows the backend's address.
    let _stored = UDP_ORIGINS.insert(&key, frontend, 0);
}
