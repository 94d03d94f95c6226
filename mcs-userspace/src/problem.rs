//! What is wrong with an object, in the three words that a user needs: which object, which field, why.

use std::fmt;

use serde::Serialize;

/// One thing wrong with one object. The object, or the part that `field` names, is skipped; the rest is used.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Problem {
    /// `ServiceImport shop/cart`, or the file where no object could be read.
    pub object: String,
    /// The file it came from, if it came from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// `spec.ports[1].port`; empty for the object as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// `70000 is not in 1..=65535`.
    pub reason: String,
    /// Whether anything valid was left out. Notices (an SCTP port, say) are not the user's mistake.
    pub severity: Severity,
}

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Valid, and not programmed by design.
    Notice,
    /// Invalid: skipped.
    Invalid,
    /// Valid, and not in the kernel for want of room.
    NoRoom,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, file, field, reason, severity: _ } = self;
        if let Some(file) = file
            && file != object
        {
            write!(f, "{file}: ")?;
        }
        write!(f, "{object}: ")?;
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        f.write_str(reason)
    }
}
