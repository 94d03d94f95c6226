//! What a bench found: figures with their baselines, the table that people read and the records that programs read.

use std::fmt;

use serde::Serialize;

/// One number, with what it is compared with.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// `section/what`, the same from run to run.
    pub(crate) name: String,
    /// The number: a median, where there are several runs.
    pub(crate) value: f64,
    /// `ns`, `ms`, `MiB`, `Gbit/s`, `1/s`, or nothing for what is a ratio itself.
    pub(crate) unit: &'static str,
    /// The same measured on what it is compared with, in the same run.
    pub(crate) baseline: Option<f64>,
    /// The median of the runs' own ratios of the two, so that what drifts over the bench falls out.
    pub(crate) ratio: Option<f64>,
    /// How many runs the figure is the median of.
    pub(crate) runs: usize,
    /// The quartiles of the runs.
    pub(crate) spread: Option<[f64; 2]>,
}

/// The runs of one variant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs(pub(crate) Vec<f64>);

impl Runs {
    /// The value that half of the runs are below. NaN without runs: it shows, and meets no goal.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The value that a part `q` of the runs is below, interpolated between the two runs around it.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let rank = q * sorted.len().saturating_sub(1) as f64;
        let at = |rank: f64| sorted.get(rank as usize).copied().unwrap_or(f64::NAN);
        let (below, above) = (at(rank.floor()), at(rank.ceil()));
        below + (above - below) * rank.fract()
    }

    pub(crate) fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    /// The quartiles.
    pub(crate) fn spread(&self) -> [f64; 2] {
        [self.quantile(0.25), self.quantile(0.75)]
    }

    /// Each run with the other's run of the same round.
    pub(crate) fn with(&self, other: &Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| combine(*a, *b)).collect())
    }

    /// What it costs more than another, round by round.
    pub(crate) fn over(&self, other: &Self) -> Self {
        self.with(other, |a, b| a - b)
    }

    /// A figure of its own.
    pub(crate) fn figure(&self, name: impl Into<String>, unit: &'static str) -> Figure {
        Figure {
            name: name.into(),
            value: self.median(),
            unit,
            baseline: None,
            ratio: None,
            runs: self.0.len(),
            spread: Some(self.spread()),
        }
    }

    /// A figure compared with another that was measured in the same rounds.
    pub(crate) fn figure_against(&self, name: impl Into<String>, unit: &'static str, baseline: &Self) -> Figure {
        Figure {
            baseline: Some(baseline.median()),
            ratio: Some(self.with(baseline, |a, b| a / b).median()),
            ..self.figure(name, unit)
        }
    }
}

/// A figure that was measured once.
pub(crate) fn once(name: impl Into<String>, value: f64, unit: &'static str) -> Figure {
    Figure { name: name.into(), value, unit, baseline: None, ratio: None, runs: 1, spread: None }
}

/// Something that the project promised, and what came out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Goal {
    /// What was promised, in words.
    pub(crate) what: String,
    /// What came out.
    pub(crate) figure: f64,
    /// The bound.
    pub(crate) bound: f64,
    /// Whether the bound is the least or the most.
    pub(crate) at_least: bool,
    /// Unit of both.
    pub(crate) unit: &'static str,
    /// Whether it was kept.
    pub(crate) met: bool,
}

/// A goal of "at most".
pub(crate) fn at_most(what: impl Into<String>, figure: f64, bound: f64, unit: &'static str) -> Goal {
    Goal { what: what.into(), figure, bound, at_least: false, unit, met: figure <= bound }
}

/// A goal of "at least".
pub(crate) fn at_least(what: impl Into<String>, figure: f64, bound: f64, unit: &'static str) -> Goal {
    Goal { what: what.into(), figure, bound, at_least: true, unit, met: figure >= bound }
}

/// What a section found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) figures: Vec<Figure>,
    pub(crate) goals: Vec<Goal>,
}

impl Found {
    /// Takes another section's findings in.
    pub(crate) fn extend(&mut self, other: Self) {
        let Self { figures, goals } = other;
        self.figures.extend(figures);
        self.goals.extend(goals);
    }
}

/// A table for people: the first column to the left, the others to the right.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).into()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                line += &if column == 0 { format!("  {cell:<width$}") } else { format!("  {cell:>width$}") };
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number with as many digits as mean something.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        a if a >= 1000.0 => thousands(value),
        a if a >= 100.0 => format!("{value:.0}"),
        a if a >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// `12 345`.
fn thousands(value: f64) -> String {
    let plain = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in plain.chars().enumerate() {
        if index > 0 && (plain.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// A ratio.
pub(crate) fn ratio(value: f64) -> String {
    format!("{value:.3}")
}

/// Quartiles.
pub(crate) fn quartiles([low, high]: [f64; 2]) -> String {
    format!("{}–{}", digits(low), digits(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_the_runs() {
        let runs = Runs(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((runs.median(), runs.max(), runs.quantile(0.0)), (2.5, 4.0, 1.0));
        assert!(Runs::default().median().is_nan());
        assert!(!at_most("nothing measured", Runs::default().median(), 1.0, "").met);
    }

    #[test]
    fn ratios_and_differences_are_of_the_same_round() {
        let (a, b) = (Runs(vec![2.0, 20.0, 200.0]), Runs(vec![1.0, 10.0, 100.0]));
        let figure = a.figure_against("a", "ns", &b);
        assert_eq!((figure.value, figure.baseline, figure.ratio), (20.0, Some(10.0), Some(2.0)));
        assert_eq!(a.over(&b).median(), 10.0);
    }

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        let texts = [0.123_4, 1.234, 12.34, 123.4, 1234.5, 1_234_567.0, -2345.0].map(digits);
        assert_eq!(texts, ["0.12", "1.23", "12.3", "123", "1 234", "1 234 567", "-2 345"]);
    }
}
