//! Collects what is wrong with one object.

use std::fmt;

use super::lax::{Lax, Shape};
use crate::problem::{Problem, Severity};

/// Most problems that are named of one object: a slice of a thousand bad endpoints is one mistake, made once.
const MOST: usize = 32;

/// The problems of one object while it is read.
pub(super) struct Report<'a> {
    object: String,
    file: &'a str,
    problems: &'a mut Vec<Problem>,
    start: usize,
    left_out: usize,
}

impl<'a> Report<'a> {
    /// For an object of a file; of none if the name is empty.
    pub(super) fn new(object: String, file: &'a str, problems: &'a mut Vec<Problem>) -> Self {
        let start = problems.len();
        Self { object, file, problems, start, left_out: 0 }
    }

    /// Something that a user should correct: the field is skipped.
    pub(super) fn invalid(&mut self, field: impl fmt::Display, reason: impl fmt::Display) {
        self.add(Severity::Invalid, field, reason);
    }

    /// Something valid that is not programmed.
    pub(super) fn notice(&mut self, field: impl fmt::Display, reason: impl fmt::Display) {
        self.add(Severity::Notice, field, reason);
    }

    fn add(&mut self, severity: Severity, field: impl fmt::Display, reason: impl fmt::Display) {
        if self.problems.len() - self.start >= MOST {
            self.left_out += 1;
            return;
        }
        self.problems.push(Problem {
            object: self.object.clone(),
            file: named(self.file),
            field: field.to_string(),
            reason: reason.to_string(),
            severity,
        });
    }

    /// The value, or nothing with its absence or its wrong type reported. `field` is formatted only then.
    pub(super) fn required<'v, 'de, T: Shape<'de>>(
        &mut self,
        value: &'v Lax<T>,
        field: impl fmt::Display,
    ) -> Option<&'v T> {
        if matches!(value, Lax::Absent) {
            self.invalid(field, format_args!("missing: {} belongs here", T::WANTED));
            return None;
        }
        self.optional(value, field).unwrap_or_default()
    }

    /// The value or its absence; an error where it is of the wrong type, which is reported.
    pub(super) fn optional<'v, 'de, T: Shape<'de>>(
        &mut self,
        value: &'v Lax<T>,
        field: impl fmt::Display,
    ) -> Result<Option<&'v T>, Reported> {
        match value {
            Lax::Absent => Ok(None),
            Lax::Good(value) => Ok(Some(value)),
            Lax::Bad(found) => {
                self.invalid(field, format_args!("{found} where {} belongs", T::WANTED));
                Err(Reported)
            }
        }
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if self.left_out > 0 {
            let (object, file) = (self.object.clone(), named(self.file));
            let reason = format!("{} more problems are not listed", self.left_out);
            self.problems.push(Problem { object, file, field: String::new(), reason, severity: Severity::Invalid });
        }
    }
}

fn named(file: &str) -> Option<String> {
    (!file.is_empty()).then(|| file.to_owned())
}

/// The problem has been reported: the part that it concerns is to be skipped.
#[derive(Debug)]
pub(super) struct Reported;
