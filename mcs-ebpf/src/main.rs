//! The kernel programs. For any other target than BPF this is an empty program, so that the workspace builds as one.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// Atomic addition: the BPF target has no compare-and-swap at its baseline, so `AtomicU64` offers none.
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(target_arch = "bpf", expect(internal_features, reason = "see above"))]

#[cfg(target_arch = "bpf")]
mod programs;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
