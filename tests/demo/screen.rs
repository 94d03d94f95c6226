//! What the demo says: headings with the time, lines, and checks that add up to the exit status.
//!
//! Everything fits 80 columns. Only a terminal gets emphasis and the line that says what is going on, which the next
//! line replaces; a pipe gets plain lines. Output is flushed at once.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

/// How often a terminal is told that something goes on, from when on, and the same for pipes, where lines stay.
const TELL: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
const TELL_PIPES: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(5)];

/// Standard output, and what has been found so far.
pub(crate) struct Screen {
    start: Instant,
    terminal: bool,
    color: bool,
    /// How many headings there will be.
    steps: usize,
    step: usize,
    checks: usize,
    failed: Vec<String>,
}

impl Screen {
    /// With so many headings.
    pub(crate) fn new(steps: usize) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = std::io::stdout().is_terminal();
        let color = terminal && !plain;
        Self { start: Instant::now(), terminal, color, steps, step: 0, checks: 0, failed: Vec::new() }
    }

    /// The next heading: what is done, and why in the lines below.
    pub(crate) fn step(&mut self, what: &str, why: &[&str]) -> Result<()> {
        self.step += 1;
        let (step, steps, time) = (self.step, self.steps, self.start.elapsed().as_secs_f64());
        let heading = self.paint("1", &format!("[{step}/{steps}] {what}"));
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

    /// Does something that may take long: what it says meanwhile becomes lines, and when it says nothing, how long it
    /// goes on already is said for it.
    pub(crate) fn during<T>(&self, what: &str, work: impl FnOnce(&(dyn Fn(&str) + Sync)) -> Result<T>) -> Result<T> {
        let (say, said) = mpsc::channel();
        thread::scope(|scope| {
            let told = scope.spawn(move || self.tell(what, &said));
            let done = work(&|line| drop(say.send(line.to_owned())));
            drop(say);
            told.join().map_err(|_panic| anyhow!("the thread that tells has panicked"))??;
            done
        })
    }

    fn tell(&self, what: &str, said: &Receiver<String>) -> Result<()> {
        let start = Instant::now();
        let [every, mut next] = if self.terminal { TELL } else { TELL_PIPES };
        loop {
            match said.recv_timeout(next.saturating_sub(start.elapsed())) {
                Ok(line) => self.line(&line)?,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let line = format!("  … {what}, {} s", start.elapsed().as_secs());
                    if self.terminal { self.write(&format!("\x1b[K{line}\r")) } else { self.line(&line) }?;
                    next += every;
                }
            }
        }
        if self.terminal { self.write("\x1b[K") } else { Ok(()) }
    }

    /// A command as a person would have typed it.
    pub(crate) fn command(&self, text: &str) -> Result<()> {
        let text = self.paint("1", &format!("$ {text}"));
        self.line(&text)
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
        let Self { start, checks, failed, .. } = self;
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
