//! What is found wrong with one object.

use std::fmt;

use crate::problem::{Problem, Severity};

/// How many problems of one object are told one by one: a slice may have a thousand bad endpoints.
const TOLD: usize = 8;

/// Gathers the problems of one object.
pub(super) struct Report {
    object: String,
    problems: Vec<Problem>,
    untold: usize,
}

impl Report {
    pub(super) const fn new(object: String) -> Self {
        Self { object, problems: Vec::new(), untold: 0 }
    }

    /// A problem of the object, by itself.
    pub(super) fn problem(&self, field: impl fmt::Display, reason: impl fmt::Display) -> Problem {
        Problem {
            object: self.object.clone(),
            file: None,
            field: field.to_string(),
            reason: reason.to_string(),
            severity: Severity::Invalid,
        }
    }

    /// Something is wrong with a field, which is left out.
    pub(super) fn invalid(&mut self, field: impl fmt::Display, reason: impl fmt::Display) {
        if self.problems.len() < TOLD {
            self.problems.push(self.problem(field, reason));
        } else {
            self.untold += 1;
        }
    }

    /// The value if it is good; if not, none, and a problem.
    pub(super) fn ok<T>(&mut self, field: impl fmt::Display, result: Result<T, String>) -> Option<T> {
        result.map_err(|why| self.invalid(field, why)).ok()
    }

    /// The text if it is there and good.
    pub(super) fn text(
        &mut self,
        field: impl fmt::Display,
        text: Option<&String>,
        rule: impl Fn(&str) -> Result<(), String>,
    ) -> Option<String> {
        let text = text?;
        self.ok(field, rule(text))?;
        Some(text.clone())
    }

    /// As many as are allowed.
    pub(super) fn capped<'a, T>(&mut self, field: impl fmt::Display, list: &'a [T], limit: usize) -> &'a [T] {
        let (allowed, rest) = list.split_at(limit.min(list.len()));
        if !rest.is_empty() {
            self.invalid(field, format_args!("{} are more than {limit}: the rest is left out", list.len()));
        }
        allowed
    }

    /// All problems.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        if self.untold > 0 {
            self.problems.push(self.problem("", format_args!("{} more problems", self.untold)));
        }
        self.problems
    }
}
