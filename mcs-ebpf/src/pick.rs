//! Which slot of a block a new flow gets.
//!
//! Uniform: one multiplication maps a 32-bit draw onto the block (Lemire), no division. Weighted: the alias method
//! (Walker 1977, tables by Vose 1991): every slot has the same chance to be drawn, keeps `threshold / 2³²` of its draws and
//! gives the rest to one other slot. So the cost does not depend on the number of backends nor on the weights.

/// The slot that a draw falls on, `0..count`. `count` must not be 0.
#[inline(always)]
#[must_use]
pub const fn uniform(draw: u32, count: u32) -> u32 {
    ((draw as u64 * count as u64) >> 32) as u32
}

/// Whether a second draw stays with the slot it fell on; else its alias takes it.
#[inline(always)]
#[must_use]
pub const fn stays(draw: u32, threshold: u32) -> bool {
    draw < threshold
}

/// The alias table for `weights`: `(threshold, alias)` of each slot.
///
/// The shares are exact to 2⁻³² of a slot's part. A slot that keeps all its draws names itself as alias, so that
/// the one draw in 2³² that [`stays`] cannot express goes to it as well. Weights must not all be 0; the sum must fit u64.
#[cfg(not(target_arch = "bpf"))]
#[must_use]
pub fn alias_table(weights: &[u64]) -> Vec<(u32, u32)> {
    let n = weights.len();
    let sum: u128 = weights.iter().map(|w| u128::from(*w)).sum();
    let mut table: Vec<(u32, u32)> = (0..n).map(|i| (u32::MAX, i as u32)).collect();
    if sum == 0 {
        return table;
    }
    // Each slot's weight scaled so that the average is `sum`: below it a slot has room, above it something to give.
    let mut scaled: Vec<u128> = weights.iter().map(|w| u128::from(*w) * n as u128).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| scaled[i] < sum);
    while let (Some(&s), Some(&l)) = (small.last(), large.last()) {
        small.pop();
        table[s] = (((scaled[s] << 32) / sum) as u32, l as u32);
        scaled[l] -= sum - scaled[s];
        if scaled[l] < sum {
            large.pop();
            small.push(l);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The share of each slot that a table gives, in units of 2⁻³² of one slot's part.
    fn shares(table: &[(u32, u32)]) -> Vec<u128> {
        let mut shares = vec![0u128; table.len()];
        for (i, (threshold, alias)) in table.iter().enumerate() {
            shares[i] += u128::from(*threshold);
            shares[*alias as usize] += (1u128 << 32) - u128::from(*threshold);
        }
        shares
    }

    #[test]
    fn draws_cover_the_block_and_nothing_else() {
        for count in [1, 2, 3, 7, 100, crate::MAX_BLOCK] {
            assert_eq!(uniform(0, count), 0);
            assert_eq!(uniform(u32::MAX, count), count - 1);
        }
    }

    proptest! {
        #[test]
        fn shares_are_the_weights(weights in prop::collection::vec(0u64..1_000_000, 1..200)) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let n = weights.len() as u128;
            let sum: u128 = weights.iter().map(|w| u128::from(*w)).sum();
            for (share, weight) in shares(&alias_table(&weights)).into_iter().zip(&weights) {
                let exact = ((u128::from(*weight) * n) << 32) / sum;
                // every slot that aliases to this one may have rounded once
                prop_assert!(share.abs_diff(exact) <= n, "share {share} for exact {exact}");
                if *weight == 0 { prop_assert!(share <= n); }
            }
        }

        #[test]
        fn zero_weight_is_never_picked(weights in prop::collection::vec(prop_oneof![Just(0u64), 1u64..50], 2..50), a: u32, b: u32) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let table = alias_table(&weights);
            let i = uniform(a, table.len() as u32) as usize;
            let (threshold, alias) = table[i];
            let chosen = if stays(b, threshold) { i } else { alias as usize };
            prop_assert!(weights[chosen] > 0);
        }
    }
}
