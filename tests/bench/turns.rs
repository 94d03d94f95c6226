//! Rounds in which every variant has its turn.

use anyhow::Result;

use crate::figures::Runs;
use crate::progress::Progress;

/// Each round begins with another variant, so that none always follows the same one. `warm_up` adds a round in front
/// that is not counted. The answer has each variant's runs, round by round, in the order of the variants.
pub(crate) fn in_turn<T, R>(
    what: &str,
    variants: Vec<T>,
    rounds: usize,
    warm_up: bool,
    mut once: impl FnMut(&T) -> Result<R>,
) -> Result<Vec<(T, Vec<R>)>> {
    let mut results: Vec<(T, Vec<R>)> = variants.into_iter().map(|variant| (variant, Vec::new())).collect();
    let mut progress = Progress::new(what, rounds);
    let count = results.len();
    let uncounted = usize::from(warm_up);
    for round in 0..rounds + uncounted {
        for turn in 0..count {
            let (variant, runs) = &mut results[(round + turn) % count];
            let run = once(variant)?;
            if round >= uncounted {
                runs.push(run);
            }
        }
        progress.at(round);
    }
    Ok(results)
}

/// One number of each run.
pub(crate) fn runs<R>(of: &[R], number: impl Fn(&R) -> f64) -> Runs {
    Runs(of.iter().map(number).collect())
}
