//! Entry points, one expression each.
//!
//! A cgroup program's verdict: 1 lets the call go on (with the address it now has), 0 refuses it. Whatever goes wrong inside
//! a program, it lets the call go on untouched; the only refusal is a known frontend without a backend.

#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "aya-ebpf 0.3 takes keys and values by reference only, and a copy on a program's stack is not free"
)]

mod choose;
mod context;
mod maps;
mod remember;
mod sock;

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

#[cgroup_sock_addr(connect4)]
fn mcs_connect4(ctx: SockAddrContext) -> i32 {
    sock::connect4(&ctx)
}

#[cgroup_sock_addr(connect6)]
fn mcs_connect6(ctx: SockAddrContext) -> i32 {
    sock::connect6(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
fn mcs_sendmsg4(ctx: SockAddrContext) -> i32 {
    sock::sendmsg4(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
fn mcs_sendmsg6(ctx: SockAddrContext) -> i32 {
    sock::sendmsg6(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
fn mcs_recvmsg4(ctx: SockAddrContext) -> i32 {
    sock::recvmsg4(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
fn mcs_recvmsg6(ctx: SockAddrContext) -> i32 {
    sock::recvmsg6(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
fn mcs_getpeername4(ctx: SockAddrContext) -> i32 {
    sock::getpeername4(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
fn mcs_getpeername6(ctx: SockAddrContext) -> i32 {
    sock::getpeername6(&ctx)
}

// Some helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: no panic is reachable: programs index by pointer and check bounds themselves; the verifier would refuse
    // a program that could get here.
    unsafe { core::hint::unreachable_unchecked() }
}
