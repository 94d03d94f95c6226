//! Exact integer weights for backends from their clusters' shares.

/// The weight of each backend of a cluster, given each cluster's share as a whole and how many usable backends it has.
///
/// A cluster's backends together get `share / sum of shares` of the flows, the sum being over the clusters that have
/// usable backends: the part of one without falls to the others by proportion. Weights are as small as they can be, so
/// backends that are all alike have 1. They are exact, unless the numbers of backends have so large a least common
/// multiple that the sum would not fit in 64 bits: then a cluster's part is off by less than 2⁻⁴⁰ of all flows.
pub(super) fn spread(shares: &[u32], usable: &[u32]) -> Vec<u64> {
    let counted = || shares.iter().zip(usable).filter(|(share, n)| **share > 0 && **n > 0);
    let sum: u128 = counted().map(|(share, _)| u128::from(*share)).sum();
    let lcm = counted().try_fold(1u128, |lcm, (_, n)| {
        let n = u128::from(*n);
        (lcm / gcd(lcm, n)).checked_mul(n).filter(|lcm| lcm.checked_mul(sum).is_some_and(|all| all <= MOST))
    });
    // a power of two has the best precision that there is room for
    let unit = lcm.unwrap_or_else(|| 1 << (MOST / sum.max(1)).ilog2());
    let weight = |(share, n): (&u32, &u32)| match *n {
        0 => 0,
        n => u128::from(*share) * unit / u128::from(n),
    };
    let weights: Vec<u128> = shares.iter().zip(usable).map(weight).collect();
    let divisor = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
    // every weight is at most MOST
    weights.into_iter().map(|weight| (weight / divisor) as u64).collect()
}

/// The weights of all backends of a service sum up to no more than this.
const MOST: u128 = u64::MAX as u128;

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_are_spread_evenly_and_exactly() {
        assert_eq!(spread(&[90, 10], &[3, 1]), [3, 1]);
        assert_eq!(spread(&[90, 10], &[2, 3]), [27, 2]);
        assert_eq!(spread(&[1, 1], &[4, 4]), [1, 1]);
        assert_eq!(spread(&[3, 1], &[3, 1]), [1, 1]);
        assert_eq!(spread(&[90, 10], &[0, 7]), [0, 1], "the share of a cluster without backends falls to the other");
        assert_eq!(spread(&[0, 10], &[5, 7]), [0, 1]);
        assert_eq!(spread(&[0, 0], &[5, 0]), [0, 0]);
        assert_eq!(spread(&[], &[]), [0u64; 0]);
        assert_eq!(spread(&[u32::MAX], &[1_000_000]), [1]);
    }

    proptest! {
        #[test]
        fn totals_are_in_proportion(clusters in prop::collection::vec((any::<u32>(), 0u32..1_000_000), 0..12)) {
            let (shares, usable): (Vec<u32>, Vec<u32>) = clusters.into_iter().unzip();
            let weights = spread(&shares, &usable);
            let totals: Vec<u128> = weights.iter().zip(&usable).map(|(w, n)| u128::from(*w) * u128::from(*n)).collect();
            let sum: u128 = totals.iter().sum();
            prop_assert!(sum <= MOST);
            let counted: u128 = shares.iter().zip(&usable).filter(|(_, n)| **n > 0).map(|(s, _)| u128::from(*s)).sum();
            for (i, total) in totals.iter().enumerate() {
                let share = if usable[i] > 0 { f64::from(shares[i]) } else { 0.0 };
                let (got, exact) = (*total as f64 / sum.max(1) as f64, share / counted.max(1) as f64);
                prop_assert!((got - exact).abs() < 1e-5, "{got} for {exact}");
                prop_assert_eq!(shares[i] > 0 && usable[i] > 0, weights[i] > 0);
            }
        }
    }
}
