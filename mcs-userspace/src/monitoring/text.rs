//! Numbers in Prometheus' text format, 0.0.4.

use std::fmt::Write as _;

/// What every name begins with.
const PREFIX: &str = "mcs_";

/// What kind of number a family has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up, until its process starts anew.
    Counter,
}

/// Numbers, as they are written one after the other.
#[derive(Default, Debug)]
pub(crate) struct Text(String);

impl Text {
    /// A number that stands alone.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: usize) {
        self.family(Kind::Gauge, name, help);
        self.sample(name, &[], value as f64);
    }

    /// Begins a family: its samples follow.
    pub(crate) fn family(&mut self, kind: Kind, name: &str, help: &str) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        self.head(kind, name, help);
    }

    /// A sample of the family that was begun last.
    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.line(name, "", labels, value);
    }

    /// A family of histograms with one label.
    pub(crate) fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        histograms: impl IntoIterator<Item = (Option<(&'a str, &'a str)>, &'a Histogram)>,
    ) {
        self.head("histogram", name, help);
        for (label, histogram) in histograms {
            let labels: Vec<(&str, &str)> = label.into_iter().collect();
            let mut below = 0;
            let bounds = BOUNDS.iter().map(f64::to_string).zip(histogram.counts);
            for (bound, count) in
                bounds.chain([("+Inf".to_owned(), histogram.count - histogram.counts.iter().sum::<u64>())])
            {
                below += count;
                let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", &*bound)]).collect();
                self.line(name, "_bucket", &labels, below as f64);
            }
            self.line(name, "_sum", &labels, histogram.sum);
            self.line(name, "_count", &labels, histogram.count as f64);
        }
    }

    /// All of it.
    pub(crate) fn into_string(self) -> String {
        self.0
    }

    fn head(&mut self, kind: &str, name: &str, help: &str) {
        // Writing into a String does not fail.
        let _infallible = write!(self.0, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n");
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let text = &mut self.0;
        let _infallible = write!(text, "{PREFIX}{name}{suffix}");
        for (at, (label, value)) in labels.iter().enumerate() {
            text.push(if at == 0 { '{' } else { ',' });
            let _infallible = write!(text, "{label}=\"");
            for character in value.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    other => text.push(other),
                }
            }
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        let _infallible = writeln!(text, " {value}");
    }
}

/// Upper bounds of the buckets, in seconds: what programming takes, and what propagation does.
const BOUNDS: [f64; 14] = [0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// How often what took how long, in seconds.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Histogram {
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    /// It took so long, in seconds.
    pub(crate) fn observe(&mut self, seconds: f64) {
        if let Some(count) = BOUNDS.iter().position(|bound| seconds <= *bound).and_then(|at| self.counts.get_mut(at)) {
            *count += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_samples_and_labels_are_written_as_prometheus_reads_them() {
        let mut text = Text::default();
        text.gauge("x", "An x.", 3);
        text.family(Kind::Counter, "y_total", "Ys.");
        text.sample("y_total", &[("a", "b\"\\\n"), ("c", "d")], 1.5);
        assert_eq!(
            text.into_string(),
            "# HELP mcs_x An x.\n# TYPE mcs_x gauge\nmcs_x 3\n# HELP mcs_y_total Ys.\n# TYPE mcs_y_total counter\n\
             mcs_y_total{a=\"b\\\"\\\\\\n\",c=\"d\"} 1.5\n"
        );
    }

    #[test]
    fn buckets_count_all_that_is_below_their_bound() {
        let mut histogram = Histogram::default();
        for seconds in [0.0005, 0.05, 0.05, 100.0] {
            histogram.observe(seconds);
        }
        let mut text = Text::default();
        text.histograms("t_seconds", "T.", [(Some(("cluster", "a")), &histogram)]);
        let text = text.into_string();
        for line in [
            "mcs_t_seconds_bucket{cluster=\"a\",le=\"0.0001\"} 0",
            "mcs_t_seconds_bucket{cluster=\"a\",le=\"0.001\"} 1",
            "mcs_t_seconds_bucket{cluster=\"a\",le=\"0.05\"} 3",
            "mcs_t_seconds_bucket{cluster=\"a\",le=\"60\"} 3",
            "mcs_t_seconds_bucket{cluster=\"a\",le=\"+Inf\"} 4",
            "mcs_t_seconds_sum{cluster=\"a\"} 100.1005",
            "mcs_t_seconds_count{cluster=\"a\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
