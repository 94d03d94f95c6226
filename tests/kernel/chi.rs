//! Whether counts agree with the shares that they should have: Pearson's chi-square test.

/// The standard normal quantile of 1 − 10⁻⁶.
const Z: f64 = 4.753_424_3;

/// What chi-square exceeds with a probability of less than 10⁻⁶ when the shares are right, by Wilson and Hilferty's
/// approximation; so far out it lies above the exact quantile, the more the fewer degrees of freedom there are.
fn bound(degrees: usize) -> f64 {
    let k = degrees as f64;
    let part = 2.0 / (9.0 * k);
    k * (1.0 - part + Z * part.sqrt()).powi(3)
}

/// Fails, in less than one of a million runs of a correct program, unless the counts have the shares. What has no
/// share must have no count. Every expected count should be five or more.
pub(crate) fn assert_shares(what: &str, counts: &[u64], weights: &[f64]) {
    assert_eq!(counts.len(), weights.len(), "{what}");
    let (all, sum) = (counts.iter().sum::<u64>() as f64, weights.iter().sum::<f64>());
    let mut chi_square = 0.0;
    let mut classes = 0;
    for (&count, weight) in counts.iter().zip(weights) {
        let expected = all * weight / sum;
        if *weight == 0.0 {
            assert_eq!(count, 0, "{what}: weight 0: {counts:?} for {weights:?}");
            continue;
        }
        assert!(expected >= 5.0, "{what}: too few flows for a verdict: {expected} expected");
        chi_square += (count as f64 - expected).powi(2) / expected;
        classes += 1;
    }
    let bound = if classes > 1 { bound(classes - 1) } else { 0.0 };
    assert!(chi_square <= bound, "{what}: chi-square {chi_square:.1} exceeds {bound:.1}: {counts:?} for {weights:?}");
}

#[test]
fn the_bound_is_at_least_the_exact_quantile() {
    // Exact quantiles of 1 − 10⁻⁶.
    for (degrees, exact) in [(1, 23.93), (2, 27.63), (4, 33.38), (10, 46.86), (30, 82.04)] {
        let bound = bound(degrees);
        assert!((exact..exact * 1.25).contains(&bound), "{degrees}: {bound} for {exact}");
    }
}

#[test]
fn wrong_shares_are_told_from_right_ones() {
    assert_shares("right", &[901, 99, 0], &[90.0, 10.0, 0.0]);
    for wrong in [&[850, 150, 0], &[990, 10, 0]] {
        assert!(std::panic::catch_unwind(|| assert_shares("wrong", wrong, &[90.0, 10.0, 0.0])).is_err());
    }
}
