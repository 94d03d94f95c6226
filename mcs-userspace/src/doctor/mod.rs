//! `mcs doctor`: whether this machine can run an agent, and what to do where it cannot.
//!
//! ```text
//!  machine ──facts──► Facts ──checks──► [Check: ok | warn | fail, what was found, the next step]
//!   /proc, statfs, a trial load        pure
//! ```

mod checks;
mod facts;

use std::fmt;

use serde::Serialize;

pub use checks::examine;
pub use facts::{Cgroup, Facts, Trial};

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// An agent runs, but not as well as it could, or this could not be found out.
    Warn,
    /// An agent does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found, and what is missing.
    pub found: String,
    /// What to do: a command where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// All that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Diagnosis {
    /// The worst verdict.
    pub verdict: Verdict,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Of these checks.
    #[must_use]
    pub fn of(checks: Vec<Check>) -> Self {
        let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
        Self { verdict, checks }
    }
}

/// First a sentence, then a row for each check, and under it what to do.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, checks } = self;
        let count = |verdict: Verdict| checks.iter().filter(|check| check.verdict == verdict).count();
        match verdict {
            Verdict::Ok => writeln!(f, "this machine can run an agent")?,
            Verdict::Warn => writeln!(f, "this machine can run an agent, with {} warnings", count(Verdict::Warn))?,
            Verdict::Fail => writeln!(f, "this machine cannot run an agent: {} checks failed", count(Verdict::Fail))?,
        }
        for Check { name, verdict, found, next } in checks {
            let word = match verdict {
                Verdict::Ok => "ok",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            writeln!(f, "{word:<5} {name:<13} {found}")?;
            if let Some(next) = next {
                writeln!(f, "      {:<13} → {next}", "")?;
            }
        }
        Ok(())
    }
}
