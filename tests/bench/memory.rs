//! The memory of a process, as the kernel counts it.

use std::fs;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Parts of `VmRSS` in MiB. Maps that are mapped into the process count as `file`, in full: what an agent costs is `anon`,
/// and kernel map memory once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) rss: f64,
    pub(crate) anon: f64,
    pub(crate) file: f64,
    pub(crate) shmem: f64,
}

impl Memory {
    /// Of a process, by its `/proc` name: `self` or a number.
    pub(crate) fn of(process: &str) -> Result<Self> {
        let path = format!("/proc/{process}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let field = |name: &str| -> Result<f64> {
            let rest = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = rest.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
            Ok(kib.with_context(|| format!("{path}: no {name}"))? / 1024.0)
        };
        Ok(Self { rss: field("VmRSS")?, anon: field("RssAnon")?, file: field("RssFile")?, shmem: field("RssShmem")? })
    }
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
