//! Reading and writing the address that a hook is about.
//!
//! Every access is volatile and of 32 bits, or of 64 in an IPv6 address (kernel 5.3, 600c70bad659): LLVM must neither merge
//! nor widen loads of context fields, which the verifier would refuse, nor read one twice. Port fields hold the port in
//! network order in the low 16 bits.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use mcs_ebpf::addr::MAPPED_WORD_BE;
use mcs_ebpf::{Addr, Frontend};

use super::maps::CONFIG;

/// Reads a field of the constants; volatile, because their values are set at load.
macro_rules! config {
    ($($field:tt)+) => {
        // SAFETY: a field of a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::programs::maps::CONFIG.$($field)+) }
    };
}
pub(crate) use config;

// Halves of an IPv6 address are taken apart and put together as a little-endian machine has them.
const _: () = assert!(cfg!(target_endian = "little"));

/// An address and port, as the context has them.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) addr: Addr,
    pub(crate) port_be: u32,
}

impl Peer {
    #[inline(always)]
    pub(crate) fn frontend(&self, protocol: u8) -> Frontend {
        let [a, b, c, d] = self.addr.words_be.map(u64::from);
        // Stored by the words that the kernel hashes and compares: loads that span smaller stores wait for them.
        let words = [a | b << 32, c | d << 32, u64::from(self.port_be & 0xffff) | u64::from(protocol) << 16];
        // SAFETY: three words are a frontend: address, then port, protocol and zeros; every pattern of them is one.
        unsafe { core::mem::transmute::<[u64; 3], Frontend>(words) }
    }
}

#[inline(always)]
fn raw(ctx: &SockAddrContext) -> *mut bpf_sock_addr {
    ctx.sock_addr
}

/// The destination of a v4 hook.
#[inline(always)]
pub(crate) fn v4_be(ctx: &SockAddrContext) -> u32 {
    // SAFETY: the kernel passes a valid context; the verifier checks the offset.
    unsafe { core::ptr::read_volatile(&raw const (*raw(ctx)).user_ip4) }
}

/// The destination of a v6 hook.
#[inline(always)]
pub(crate) fn v6_be(ctx: &SockAddrContext) -> [u32; 4] {
    words(v6_half(ctx, 0), v6_half(ctx, 1))
}

/// One half of it: each costs the program two loads.
#[inline(always)]
fn v6_half(ctx: &SockAddrContext, half: usize) -> u64 {
    // SAFETY: as above; both halves are aligned, user_ip6 lies at a multiple of 8.
    unsafe { core::ptr::read_volatile((&raw const (*raw(ctx)).user_ip6).cast::<u64>().add(half)) }
}

#[inline(always)]
fn words(high: u64, low: u64) -> [u32; 4] {
    [high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32]
}

/// The port of either.
#[inline(always)]
pub(crate) fn port_be(ctx: &SockAddrContext) -> u32 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const (*raw(ctx)).user_port) }
}

/// `IPPROTO_*` of the socket.
#[inline(always)]
pub(crate) fn protocol(ctx: &SockAddrContext) -> u8 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const (*raw(ctx)).protocol) as u8 }
}

/// Where the socket is connected to already; port 0 if it is not.
#[inline(always)]
pub(crate) fn connected_to(ctx: &SockAddrContext, is_v4: bool) -> Peer {
    const NOWHERE: Peer = Peer { addr: Addr { words_be: [0; 4] }, port_be: 0 };
    // SAFETY: as above; the socket's pointer is checked, its fields are read at their own sizes.
    unsafe {
        let sk = core::ptr::read_volatile(&raw const (*raw(ctx)).__bindgen_anon_1.sk);
        if sk.is_null() {
            return NOWHERE;
        }
        let port_be = core::ptr::read_volatile(&raw const (*sk).dst_port) as u32;
        let addr = if is_v4 {
            Addr::from_v4_be(core::ptr::read_volatile(&raw const (*sk).dst_ip4))
        } else {
            let words = &raw const (*sk).dst_ip6;
            Addr {
                words_be: [
                    core::ptr::read_volatile(&raw const (*words)[0]),
                    core::ptr::read_volatile(&raw const (*words)[1]),
                    core::ptr::read_volatile(&raw const (*words)[2]),
                    core::ptr::read_volatile(&raw const (*words)[3]),
                ],
            }
        };
        Peer { addr, port_be }
    }
}

/// Replaces the address of a v4 hook.
#[inline(always)]
pub(crate) fn set_v4(ctx: &SockAddrContext, peer: Peer) {
    // SAFETY: as above; both fields are writable in all our hooks.
    unsafe {
        core::ptr::write_volatile(&raw mut (*raw(ctx)).user_ip4, peer.addr.v4_be());
        core::ptr::write_volatile(&raw mut (*raw(ctx)).user_port, peer.port_be);
    }
}

/// Replaces the address of a v6 hook, IPv4 in its mapped form.
#[inline(always)]
pub(crate) fn set_v6(ctx: &SockAddrContext, peer: Peer) {
    // SAFETY: as above.
    unsafe {
        let halves = (&raw mut (*raw(ctx)).user_ip6).cast::<u64>();
        let [a, b, c, d] = peer.addr.words_be.map(u64::from);
        core::ptr::write_volatile(halves, a | b << 32);
        core::ptr::write_volatile(halves.add(1), c | d << 32);
        core::ptr::write_volatile(&raw mut (*raw(ctx)).user_port, peer.port_be);
    }
}

/// Whether an IPv4 address can be a ClusterSetIP at all. Unused CIDRs cost nothing: the verifier knows their number.
#[inline(always)]
pub(crate) fn in_cidrs4(v4_be: u32) -> bool {
    let count = config!(v4_count);
    macro_rules! matches {
        ($i:literal) => {
            count > $i && v4_be & config!(v4[$i].mask_be) == config!(v4[$i].net_be)
        };
    }
    matches!(0) || matches!(1) || matches!(2) || matches!(3)
}

/// Whether one half of an IPv6 address is that half of one of the CIDRs.
macro_rules! half_in_cidrs6 {
    ($value:expr, $count:expr, $half:literal, $($i:literal)+) => {
        false $(|| $count > $i && {
            // SAFETY: halves of two aligned fields of a static.
            let (mask, net) = unsafe {
                let (mask, net) = (&raw const CONFIG.v6[$i].mask_be, &raw const CONFIG.v6[$i].net_be);
                (
                    core::ptr::read_volatile(mask.cast::<u64>().add($half)),
                    core::ptr::read_volatile(net.cast::<u64>().add($half)),
                )
            };
            $value & mask == net
        })+
    };
}

/// The destination of a v6 hook, if it can be a ClusterSetIP: IPv4-mapped ones are looked up as IPv4. The first half
/// alone sends most others away.
///
/// With several CIDRs each half may be another one's; such an address is looked up for nothing, and is nobody's frontend.
#[inline(always)]
pub(crate) fn clusterset_v6(ctx: &SockAddrContext) -> Option<Addr> {
    let (high, count) = (v6_half(ctx, 0), config!(v6_count));
    let may_be = half_in_cidrs6!(high, count, 0, 0 1 2 3);
    if !may_be && high != 0 {
        return None;
    }
    let low = v6_half(ctx, 1);
    let words_be = words(high, low);
    let is_clustersets = if high == 0 && words_be[2] == MAPPED_WORD_BE {
        in_cidrs4(words_be[3])
    } else {
        may_be && half_in_cidrs6!(low, count, 1, 0 1 2 3)
    };
    if is_clustersets { Some(Addr { words_be }) } else { None }
}
