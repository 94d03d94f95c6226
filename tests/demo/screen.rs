//! What the demo says: headings with the time, lines, and checks that add up to the exit status.
//!
//! Everything fits 80 columns. Only a terminal gets emphasis and the line that says what is going on, which the next
//! line replaces; a pipe gets plain lines. Output is flushed at once.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

use anyhow::{Context as _, Result};

/// How many headings there are.
const STEPS: usize = 6;

/// Standard output, and what has been found so far.
pub(crate) struct Screen {
    start: Instant,
    terminal: bool,
    color: bool,
    step: usize,
    checks: usize,
    failed: Vec<String>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = std::io::stdout().is_terminal();
        Self { start: Instant::now(), terminal, color: terminal && !plain, step: 0, checks: 0, failed: Vec::new() }
    }

    /// The next heading: what is done, and why in the lines below.
    pub(crate) fn step(&mut self, what: &str, why: &[&str]) -> Result<()> {
        self.step += 1;
        let (step, time) = (self.step, self.start.elapsed().as_secs_f64());
        let heading = self.paint("1", &format!("[{step}/{STEPS}] {what}"));
        self.line(&format!("\n{heading}  (at {time:.1} s)"))?;
        why.iter().try_for_each(|line| self.line(&format!("      {line}")))?;
        self.line("")
    }

    /// A line.
    pub(crate) fn line(&self, text: &str) -> Result<()> {
        // In a terminal, what progress left of this line goes.
        let rest = if self.terminal { "\x1b[K" } else { "" };
        self.write(&format!("{rest}{text}\n"))
    }

    /// Lines as another program wrote them.
    pub(crate) fn lines(&self, text: &str) -> Result<()> {
        self.write(text)
    }

    /// What is going on, in a terminal, until the next line takes its place.
    pub(crate) fn progress(&self, text: &str) -> Result<()> {
        if self.terminal { self.write(&format!("{text}\r")) } else { Ok(()) }
    }

    /// A command as a person would have typed it.
    pub(crate) fn command(&self, text: &str) -> Result<()> {
        self.line(&format!("$ {text}"))
    }

    /// Something that must hold.
    pub(crate) fn check(&mut self, holds: bool, what: &str) -> Result<()> {
        self.checks += 1;
        let mark = if holds { self.paint("32", "ok  ") } else { self.paint("1;31", "FAIL") };
        if !holds {
            self.failed.push(what.to_owned());
        }
        self.line(&format!("  {mark}  {what}"))
    }

    /// Whether every check so far held.
    pub(crate) fn all_hold(&self) -> bool {
        self.failed.is_empty()
    }

    /// The last words.
    pub(crate) fn verdict(&self) -> Result<()> {
        let Self { start, terminal: _, color: _, step: _, checks, failed } = self;
        let time = start.elapsed().as_secs_f64();
        if failed.is_empty() {
            return self.line(&format!("\nAll {checks} checks hold ({time:.1} s)."));
        }
        self.line(&format!("\n{} of {checks} checks FAILED ({time:.1} s):", failed.len()))?;
        failed.iter().try_for_each(|what| self.line(&format!("  {what}")))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn write(&self, text: &str) -> Result<()> {
        // Not println!, which panics when the reader of a pipe has gone.
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write to standard output")
    }
}
