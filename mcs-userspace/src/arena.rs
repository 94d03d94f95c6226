//! Where blocks of slots lie: a buddy allocator over `mcs_slots`.
//!
//! A block has a power of two of slots and begins at a multiple of its length, so the pair (first slot, slots in use) in
//! a service's word tells the whole block: nothing beside the words has to be kept or restored. Two free halves of a
//! larger block become that block again; of the blocks that would do, the smallest is split, the lowest address first.
//!
//! A block that is given up waits in limbo for a grace period, as in [`crate::ids`].

use std::collections::{BTreeSet, VecDeque};

/// The largest block has 2^20 slots: [`mcs_ebpf::MAX_BLOCK`] fits it.
const MAX_ORDER: u8 = 20;

/// A block: 2^`order` slots from `base`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Block {
    /// First slot, a multiple of the length.
    pub base: u32,
    /// Logarithm of the length.
    pub order: u8,
}

impl Block {
    /// The block that a word with this base and count names. None when no block begins there: the word is damaged, or
    /// `count` is 0 and there is no block.
    #[must_use]
    pub fn of_word(base: u32, count: u32) -> Option<Self> {
        let order = order_for(count)?;
        base.is_multiple_of(1 << order).then_some(Self { base, order })
    }

    /// How many slots it has.
    #[must_use]
    pub fn slots(self) -> u32 {
        1 << self.order
    }

    /// The other half of the block that this is a half of.
    fn buddy(self) -> Self {
        Self { base: self.base ^ self.slots(), order: self.order }
    }

    /// The block that this is a half of.
    fn parent(self) -> Self {
        Self { base: self.base & !self.slots(), order: self.order + 1 }
    }
}

/// The order of the smallest block for so many slots. None for 0 and for more than any block has.
#[must_use]
pub fn order_for(count: u32) -> Option<u8> {
    if count == 0 || count > 1 << MAX_ORDER {
        return None;
    }
    // at most 20
    Some(count.next_power_of_two().trailing_zeros() as u8)
}

/// How many blocks had been retired, ever, at some moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct BlockMark(u64);

/// The slots `0..size`: in blocks that are in use (which the arena does not list), free, or in limbo.
#[derive(Clone, Debug)]
pub struct Arena {
    size: u32,
    /// First slots of the free blocks of each order. No two buddies are in the same set.
    free: [BTreeSet<u32>; MAX_ORDER as usize + 1],
    /// Retired, oldest first.
    limbo: VecDeque<Block>,
    /// How many blocks have left limbo, ever.
    released: u64,
}

impl Arena {
    /// An arena in which nothing is in use.
    #[must_use]
    pub fn new(size: u32) -> Self {
        let mut arena = Self { size, free: Default::default(), limbo: VecDeque::new(), released: 0 };
        arena.fill(0, size);
        arena
    }

    /// An arena in which `used` is in use and the rest free at once, so a grace period must pass between the last store
    /// of whoever ran before and the first [`Arena::take`]. Blocks that reach outside or into another one are not
    /// taken in; they are returned.
    #[must_use]
    pub fn restore(size: u32, mut used: Vec<Block>) -> (Self, Vec<Block>) {
        let mut arena = Self { size, free: Default::default(), limbo: VecDeque::new(), released: 0 };
        used.sort_unstable();
        let (mut end, mut refused) = (0, Vec::new());
        for block in used {
            let after = u64::from(block.base) + u64::from(block.slots());
            if block.base < end || after > u64::from(size) {
                refused.push(block);
                continue;
            }
            arena.fill(end, block.base);
            end = block.base + block.slots();
        }
        arena.fill(end, size);
        (arena, refused)
    }

    /// Frees `from..to` as the largest blocks that fit in it.
    fn fill(&mut self, mut from: u32, to: u32) {
        while from < to {
            let aligned = if from == 0 { MAX_ORDER } else { (from.trailing_zeros() as u8).min(MAX_ORDER) };
            let order = aligned.min((to - from).ilog2() as u8);
            self.free[usize::from(order)].insert(from);
            from += 1 << order;
        }
    }

    /// Whether [`Arena::take`] would succeed.
    #[must_use]
    pub fn fits(&self, order: u8) -> bool {
        self.free.get(usize::from(order)..).is_some_and(|orders| orders.iter().any(|free| !free.is_empty()))
    }

    /// Takes a block. None when no free block is large enough.
    pub fn take(&mut self, order: u8) -> Option<Block> {
        let found = (order..=MAX_ORDER).find(|o| !self.free[usize::from(*o)].is_empty())?;
        let base = self.free[usize::from(found)].pop_first()?;
        for half in order..found {
            self.free[usize::from(half)].insert(base + (1 << half));
        }
        Some(Block { base, order })
    }

    /// Gives a block up. It becomes free after a grace period.
    pub fn retire(&mut self, block: Block) {
        self.limbo.push_back(block);
    }

    /// Gives up all of `block` but the smaller block `kept` inside it.
    pub fn retire_around(&mut self, block: Block, kept: Block) {
        let mut kept = kept;
        while kept.order < block.order {
            self.limbo.push_back(kept.buddy());
            kept = kept.parent();
        }
    }

    /// The length of the largest block that there can be when all is free.
    #[must_use]
    pub fn largest(&self) -> u32 {
        match self.size {
            0 => 0,
            size => 1 << size.ilog2().min(u32::from(MAX_ORDER)),
        }
    }

    /// How many slots are free now, in blocks of any length.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free.iter().enumerate().map(|(order, free)| (free.len() as u64) << order).sum()
    }

    /// How many blocks wait for a grace period.
    #[must_use]
    pub fn limbo(&self) -> usize {
        self.limbo.len()
    }

    /// Notes the moment before a grace period begins.
    #[must_use]
    pub fn mark(&self) -> BlockMark {
        BlockMark(self.released + self.limbo.len() as u64)
    }

    /// A grace period that began at `mark` has passed.
    pub fn grace_passed(&mut self, mark: BlockMark) {
        while self.released < mark.0
            && let Some(block) = self.limbo.pop_front()
        {
            self.released += 1;
            self.release(block);
        }
    }

    /// Frees a block and merges it with its buddy as often as that is free too.
    fn release(&mut self, mut block: Block) {
        debug_assert!(block.base + block.slots() <= self.size, "{block:?} lies outside");
        while block.order < MAX_ORDER && self.free[usize::from(block.order)].remove(&block.buddy().base) {
            block = block.parent();
        }
        self.free[usize::from(block.order)].insert(block.base);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn free_blocks(arena: &Arena) -> Vec<Block> {
        let all = arena.free.iter().enumerate();
        all.flat_map(|(order, free)| free.iter().map(move |base| Block { base: *base, order: order as u8 })).collect()
    }

    #[test]
    fn words_name_blocks() {
        assert_eq!(Block::of_word(0, 0), None);
        assert_eq!(Block::of_word(8, 5), Some(Block { base: 8, order: 3 }));
        assert_eq!(Block::of_word(4, 5), None, "no block of eight begins at 4");
        assert_eq!(order_for(1), Some(0));
        assert_eq!(order_for(mcs_ebpf::MAX_BLOCK), Some(20));
        assert_eq!(order_for(u32::MAX), None);
    }

    #[test]
    fn the_smallest_hole_at_the_lowest_address_is_taken() {
        let used = vec![Block { base: 4, order: 0 }, Block { base: 6, order: 1 }, Block { base: 16, order: 4 }];
        let (mut arena, refused) = Arena::restore(40, used);
        assert!(refused.is_empty());
        assert_eq!(arena.take(0), Some(Block { base: 5, order: 0 }));
        assert_eq!(arena.take(0), Some(Block { base: 0, order: 0 }));
        assert_eq!(arena.take(3), Some(Block { base: 8, order: 3 }));
        assert_eq!(arena.take(3), Some(Block { base: 32, order: 3 }));
        assert_eq!(arena.take(2), None);
        assert!(!arena.fits(2) && arena.fits(1));
    }

    #[test]
    fn blocks_that_cannot_be_are_refused() {
        let used = vec![Block { base: 0, order: 2 }, Block { base: 2, order: 1 }, Block { base: 8, order: 2 }];
        let (arena, refused) = Arena::restore(10, used);
        assert_eq!(refused, [Block { base: 2, order: 1 }, Block { base: 8, order: 2 }]);
        assert_eq!(arena.free(), 6);
    }

    #[test]
    fn what_is_left_around_a_kept_part_is_freed() {
        let mut arena = Arena::new(64);
        let block = arena.take(5).unwrap();
        let kept = Block { base: block.base + 12, order: 2 };
        arena.retire_around(block, kept);
        arena.grace_passed(arena.mark());
        assert_eq!(arena.free(), 60);
        arena.retire(kept);
        arena.grace_passed(arena.mark());
        assert_eq!(free_blocks(&arena), [Block { base: 0, order: 6 }]);
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_merge_again(size in 1u32..300, ops in prop::collection::vec((0u8..5, 0u8..6, any::<prop::sample::Index>()), 0..150)) {
            let mut arena = Arena::new(size);
            let whole = free_blocks(&arena);
            let (mut used, mut limbo): (Vec<Block>, Vec<Block>) = (Vec::new(), Vec::new());
            for (op, order, pick) in ops {
                match op {
                    0..=2 => {
                        let fits = arena.fits(order);
                        let block = arena.take(order);
                        prop_assert_eq!(fits, block.is_some());
                        if let Some(block) = block {
                            prop_assert!(block.base + block.slots() <= size && block.base % block.slots() == 0);
                            for other in used.iter().chain(&limbo) {
                                prop_assert!(block.base + block.slots() <= other.base || other.base + other.slots() <= block.base);
                            }
                            used.push(block);
                        }
                    }
                    3 => if !used.is_empty() {
                        let block = used.swap_remove(pick.index(used.len()));
                        limbo.push(block);
                        arena.retire(block);
                    },
                    _ => { arena.grace_passed(arena.mark()); limbo.clear(); }
                }
                let held: u64 = used.iter().chain(&limbo).map(|b| u64::from(b.slots())).sum();
                prop_assert_eq!(arena.free() + held, u64::from(size));
            }
            // a restart sees exactly what is in use, and leads to the same free blocks as a grace period
            arena.grace_passed(arena.mark());
            let (restored, refused) = Arena::restore(size, used.clone());
            prop_assert!(refused.is_empty());
            prop_assert_eq!(free_blocks(&restored), free_blocks(&arena));
            for block in used { arena.retire(block); }
            arena.grace_passed(arena.mark());
            prop_assert_eq!(free_blocks(&arena), whole);
        }
    }
}
