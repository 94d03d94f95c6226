//! From a frontend to a backend.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::helpers::{
    bpf_get_prandom_u32, bpf_ktime_get_ns,
    generated::{bpf_get_netns_cookie, bpf_get_smp_processor_id},
};
use aya_ebpf::programs::SockAddrContext;
use mcs_ebpf::{
    AffinityEntry, AffinityKey, Frontend, MemberRef, MemberRow, ServiceRow, ServiceWord, Slot, SlotIds, hint, pick,
};

use super::context::{Peer, config};
use super::maps::{AFFINITY, COUNTERS, DRAWS, FRONTENDS, HINTS, MEMBERS, SERVICES, SLOTS};

/// A service that a frontend led to.
#[derive(Clone, Copy)]
pub(crate) struct Service {
    pub(crate) index: u32,
    pub(crate) generation: u32,
    pub(crate) row: *const ServiceRow,
}

/// A backend that a flow gets.
#[derive(Clone, Copy)]
pub(crate) struct Chosen {
    pub(crate) backend: Peer,
    pub(crate) member: u32,
}

const SECOND_NS: u64 = 1_000_000_000;

/// The service of a frontend: where the last look-up of its hash led, if that is it, which saves the look-up; else by
/// `mcs_frontends`. Each row is compared with what was looked up: a hint may be another frontend's, and the hash element
/// may have been another's between finding it and reading it; one more look-up then gives what is true now.
#[inline(always)]
pub(crate) fn find(frontend: &Frontend) -> Option<Service> {
    let hint = HINTS.get_ptr_mut(hint(words(frontend)))?;
    // SAFETY: a row of an array.
    let index = unsafe { core::ptr::read_volatile(hint) };
    if let Some(service) = is_at(index, frontend) {
        return Some(service);
    }
    let service = match find_once(frontend) {
        Found::Service(service) => service,
        Found::Nothing => return None,
        Found::Recycled => match find_once(frontend) {
            Found::Service(service) => service,
            Found::Nothing | Found::Recycled => return None,
        },
    };
    // SAFETY: an aligned word of an array's row; whoever writes last is as right as any.
    unsafe { core::ptr::write_volatile(hint, service.index) };
    Some(service)
}

enum Found {
    Service(Service),
    Nothing,
    Recycled,
}

#[inline(always)]
fn find_once(frontend: &Frontend) -> Found {
    // SAFETY: the value may be recycled under our hands; the comparison catches it.
    let Some(&index) = (unsafe { FRONTENDS.get(frontend) }) else { return Found::Nothing };
    is_at(index, frontend).map_or(Found::Recycled, Found::Service)
}

#[inline(always)]
fn words(frontend: &Frontend) -> [u64; 3] {
    // SAFETY: a frontend is three aligned words.
    unsafe { *(&raw const *frontend).cast::<[u64; 3]>() }
}

/// The service of this index, if it serves this frontend.
#[inline(always)]
fn is_at(index: u32, frontend: &Frontend) -> Option<Service> {
    let row = SERVICES.get_ptr(index)?;
    let ours = words(frontend);
    // SAFETY: a row of an array; its words are read one by one, each of them atomic. The frontend is three aligned words.
    let (is_it, generation) = unsafe {
        let theirs = (&raw const (*row).frontend).cast::<u64>();
        let differ = (*theirs ^ ours[0]) | (*theirs.add(1) ^ ours[1]) | (*theirs.add(2) ^ ours[2]);
        (differ == 0, (*row).generation)
    };
    if is_it { Some(Service { index, generation, row }) } else { None }
}

/// A backend for a new flow, and its counters; none if the service has none, which counts as a refusal.
#[inline(always)]
pub(crate) fn choose(ctx: &SockAddrContext, service: Service) -> Option<Chosen> {
    // SAFETY: 8 aligned bytes of a live row: the word is whole, whoever writes it.
    let word = ServiceWord::unpack(unsafe { core::ptr::read_volatile(&raw const (*service.row).word) });
    if word.count == 0 {
        // SAFETY: a field of a live row.
        count_source(unsafe { (*service.row).refusals });
        return None;
    }
    if word.flags & ServiceWord::AFFINITY != 0 {
        return choose_with_affinity(ctx, service, word);
    }
    draw(word)
}

/// A random slot of the block, by weight.
#[inline(always)]
fn draw(word: ServiceWord) -> Option<Chosen> {
    let slot = SLOTS.get_ptr(word.base.wrapping_add(pick::uniform(random(), word.count)))?;
    let slot = if word.flags & ServiceWord::WEIGHTED != 0 {
        // SAFETY: a row of an array.
        let (threshold, ids) = unsafe { ((*slot).threshold, (*slot).ids) };
        if pick::stays(random(), threshold) {
            slot
        } else {
            SLOTS.get_ptr(word.base.wrapping_add(SlotIds::unpack(ids).alias))?
        }
    } else {
        slot
    };
    Some(take(slot))
}

/// Reads a slot and counts the flow.
#[inline(always)]
fn take(slot: *const Slot) -> Chosen {
    // SAFETY: a row of an array, in a block that stays as it is until this run is over.
    let (addr, port_be, ids) = unsafe { ((*slot).addr, (*slot).port_be, SlotIds::unpack((*slot).ids)) };
    if let Some(member) = MEMBERS.get_ptr_mut(ids.member) {
        // SAFETY: a row of an array.
        add_one(unsafe { &raw mut (*member).connections });
    }
    count_source(ids.source);
    Chosen { backend: Peer { addr, port_be: port_be.0 as u32 }, member: ids.member }
}

/// The backend that this client had, while it is there and the client was not idle too long; else a new one.
#[inline(always)]
fn choose_with_affinity(ctx: &SockAddrContext, service: Service, word: ServiceWord) -> Option<Chosen> {
    let key = AffinityKey {
        // SAFETY: a helper that takes the context.
        client: unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) },
        service: service.index,
        generation: service.generation,
    };
    // SAFETY: a helper without arguments; a field of a live row.
    let (now_ns, timeout_ns) = unsafe { (bpf_ktime_get_ns(), (*service.row).affinity_secs as u64 * SECOND_NS) };
    if let Some(entry) = AFFINITY.get_ptr_mut(&key) {
        // SAFETY: an entry of a map; LRU elements are reused only after a grace period for this key's readers, and a
        // mixed-up one fails the generation check.
        let AffinityEntry { member, last_ns } = unsafe { core::ptr::read_volatile(entry) };
        let idle_ns = now_ns.saturating_sub(last_ns);
        // Not every use is noted, so that a busy entry's line does not bounce: one within `grain_ns` of the last noted one
        // is not. Allowing for that, affinity never ends early.
        let grain_ns = (timeout_ns / 16).min(SECOND_NS);
        if idle_ns <= timeout_ns + grain_ns
            && let Some(chosen) = follow(member, MemberRow::ACTIVE)
        {
            if idle_ns >= grain_ns {
                // SAFETY: as above.
                unsafe { core::ptr::write_volatile(&raw mut (*entry).last_ns, now_ns) };
            }
            return Some(chosen.counted());
        }
    }
    let chosen = draw(word)?;
    let generation = generation_of(chosen.member);
    let entry = AffinityEntry { member: MemberRef { member: chosen.member, generation }, last_ns: now_ns };
    // If it cannot be stored (memory), this client is merely not sticky this time.
    let _stored = AFFINITY.insert(&key, &entry, 0);
    Some(chosen)
}

/// A backend that somebody holds on to.
pub(crate) struct Followed {
    pub(crate) chosen: Chosen,
    source: u32,
}

impl Followed {
    /// Counts it as a new flow.
    #[inline(always)]
    fn counted(self) -> Chosen {
        if let Some(member) = MEMBERS.get_ptr_mut(self.chosen.member) {
            // SAFETY: a row of an array.
            add_one(unsafe { &raw mut (*member).connections });
        }
        count_source(self.source);
        self.chosen
    }
}

/// The backend that an id and a generation name, if it is still that one, and in a state of at most `worst`.
#[inline(always)]
pub(crate) fn follow(held: MemberRef, worst: u8) -> Option<Followed> {
    let row = MEMBERS.get_ptr(held.member)?;
    // The state first: an id that is taken again gets its generation first and its state last.
    // SAFETY: a row of an array.
    let (state, generation) = unsafe {
        (core::ptr::read_volatile(&raw const (*row).state), core::ptr::read_volatile(&raw const (*row).generation))
    };
    if generation != held.generation || state == MemberRow::FREE || state > worst {
        return None;
    }
    // SAFETY: as above; what a generation names does not change until a grace period after it was freed.
    let (addr, port_be, source) = unsafe { ((*row).addr, (*row).port_be, (*row).source) };
    Some(Followed { chosen: Chosen { backend: Peer { addr, port_be: port_be.0 as u32 }, member: held.member }, source })
}

/// The generation of a member that a live block names.
#[inline(always)]
pub(crate) fn generation_of(member: u32) -> u32 {
    // SAFETY: a row of an array.
    MEMBERS.get_ptr(member).map_or(0, |row| unsafe { (*row).generation })
}

/// A linear congruential generator (Knuth's MMIX) on this CPU, its upper half: a few instructions instead of a helper.
/// A program that preempts another between reading and writing draws the same number, which is as random as any.
#[inline(always)]
fn random() -> u32 {
    let Some(state) = DRAWS.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own word.
    let mut last = unsafe { *state };
    if last == 0 {
        // SAFETY: a helper without arguments.
        last = (unsafe { bpf_get_prandom_u32() } as u64) << 32 | 1;
    }
    let next = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    // SAFETY: as above.
    unsafe { *state = next };
    (next >> 32) as u32
}

/// Counts for a source on this CPU, and with no atomic instruction, which would cost as much as a map look-up: a count is
/// lost only if a program is preempted between these two accesses by another that counts for the same source.
#[inline(always)]
fn count_source(source: u32) {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(counter) = COUNTERS.get_ptr_mut(cpu.wrapping_mul(config!(counter_stride)).wrapping_add(source)) {
        // SAFETY: an aligned word of an array's row, written on this CPU only.
        unsafe { core::ptr::write_volatile(counter, core::ptr::read_volatile(counter).wrapping_add(1)) };
    }
}

/// Counts for a backend, whose word all CPUs share.
#[inline(always)]
fn add_one(counter: *mut u64) {
    // SAFETY: an aligned word of an array's row. The sum is not used, so this is BPF's oldest atomic instruction.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
}
