//! The hooks of a socket's life: translate at `connect` and `sendmsg`, translate back at `getpeername` and `recvmsg`.

use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;
use mcs_ebpf::addr::MAPPED_WORD_BE;
use mcs_ebpf::{Addr, TCP, UDP};

use super::choose::{self, Service};
use super::context::{Peer, clusterset_v6, connected_to, in_cidrs4, port_be, protocol, set_v4, set_v6, v4_be, v6_be};
use super::remember;

/// Let the call go on.
const PASS: i32 = 1;
/// Refuse it.
const REFUSE: i32 = 0;

const ECONNREFUSED: i32 = 111;

pub(crate) fn connect4(ctx: &SockAddrContext) -> i32 {
    let v4_be = v4_be(ctx);
    if !in_cidrs4(v4_be) {
        return PASS;
    }
    connect(ctx, Addr::from_v4_be(v4_be), set_v4)
}

pub(crate) fn connect6(ctx: &SockAddrContext) -> i32 {
    match clusterset_v6(ctx) {
        Some(addr) => connect(ctx, addr, set_v6),
        None => PASS,
    }
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, addr: Addr, set: impl Fn(&SockAddrContext, Peer)) -> i32 {
    let protocol = protocol(ctx);
    if protocol != TCP && protocol != UDP {
        return PASS;
    }
    let frontend = Peer { addr, port_be: port_be(ctx) }.frontend(protocol);
    let Some(service) = choose::find(&frontend) else { return PASS };
    let Some(chosen) = choose::choose(ctx, service) else { return refuse(ctx, service) };
    remember::connected(remember::cookie(ctx), service, chosen.backend, protocol == UDP);
    debug!(ctx, "connect: service {} member {}", service.index, chosen.member);
    set(ctx, chosen.backend);
    PASS
}

pub(crate) fn sendmsg4(ctx: &SockAddrContext) -> i32 {
    let v4_be = v4_be(ctx);
    if !in_cidrs4(v4_be) {
        return PASS;
    }
    sendmsg(ctx, Addr::from_v4_be(v4_be), true, set_v4)
}

pub(crate) fn sendmsg6(ctx: &SockAddrContext) -> i32 {
    match clusterset_v6(ctx) {
        Some(addr) => sendmsg(ctx, addr, false, set_v6),
        None => PASS,
    }
}

#[inline(always)]
fn sendmsg(ctx: &SockAddrContext, addr: Addr, is_v4: bool, set: impl Fn(&SockAddrContext, Peer)) -> i32 {
    let frontend = Peer { addr, port_be: port_be(ctx) }.frontend(UDP);
    let Some(service) = choose::find(&frontend) else { return PASS };
    let cookie = remember::cookie(ctx);

    // A connected socket hears its peer only: what it sends to the frontend it is connected to must go there too.
    let peer = connected_to(ctx, is_v4);
    if peer.port_be != 0 && is_of(remember::translated_to(cookie, peer, false), service) {
        set(ctx, peer);
        return PASS;
    }

    let chosen = match remember::flow(cookie, service) {
        Some(chosen) => chosen,
        None => {
            let Some(chosen) = choose::choose(ctx, service) else { return refuse(ctx, service) };
            remember::set_flow(cookie, service, chosen.member);
            debug!(ctx, "sendmsg: service {} member {}", service.index, chosen.member);
            chosen
        }
    };
    remember::set_origin(cookie, chosen.backend, &frontend);
    set(ctx, chosen.backend);
    PASS
}

#[inline(always)]
fn is_of(word1: Option<u64>, service: Service) -> bool {
    use mcs_ebpf::sockets;
    word1.is_some_and(|word1| {
        sockets::service(word1) == service.index
            && sockets::generation(word1) == service.generation & sockets::GENERATION_MASK
    })
}

pub(crate) fn recvmsg4(ctx: &SockAddrContext) -> i32 {
    recvmsg(ctx, Addr::from_v4_be(v4_be(ctx)), set_v4)
}

pub(crate) fn recvmsg6(ctx: &SockAddrContext) -> i32 {
    let words_be = v6_be(ctx);
    let is_v4 = words_be[0] == 0 && words_be[1] == 0 && words_be[2] == MAPPED_WORD_BE;
    recvmsg(ctx, Addr { words_be }, |ctx, frontend| {
        // A v6 peer of a socket came from a v6 frontend, a mapped one from an IPv4 frontend.
        if frontend.addr.is_v4() == is_v4 {
            set_v6(ctx, frontend);
        }
    })
}

#[inline(always)]
fn recvmsg(ctx: &SockAddrContext, addr: Addr, set: impl Fn(&SockAddrContext, Peer)) -> i32 {
    let backend = Peer { addr, port_be: port_be(ctx) };
    let cookie = remember::cookie(ctx);
    if let Some(frontend) = remember::frontend_of(cookie, backend, true) {
        set(ctx, frontend);
    } else if let Some(frontend) = remember::origin(cookie, backend) {
        set(ctx, frontend);
    }
    PASS
}

pub(crate) fn getpeername4(ctx: &SockAddrContext) -> i32 {
    let backend = Peer { addr: Addr::from_v4_be(v4_be(ctx)), port_be: port_be(ctx) };
    if let Some(frontend) = remember::frontend_of(remember::cookie(ctx), backend, false) {
        set_v4(ctx, frontend);
    }
    PASS
}

pub(crate) fn getpeername6(ctx: &SockAddrContext) -> i32 {
    let backend = Peer { addr: Addr { words_be: v6_be(ctx) }, port_be: port_be(ctx) };
    if let Some(frontend) = remember::frontend_of(remember::cookie(ctx), backend, false) {
        set_v6(ctx, frontend);
    }
    PASS
}

/// `ECONNREFUSED`, at once, as a host without a listener says it.
#[inline(always)]
fn refuse(ctx: &SockAddrContext, service: Service) -> i32 {
    debug!(ctx, "refused: service {} has no backend", service.index);
    // SAFETY: a helper that takes a number (kernel 5.18, b44123b4a3dc).
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    REFUSE
}
