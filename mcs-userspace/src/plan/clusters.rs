//! The names of source clusters and their rows in `mcs_clusters`, by how many sources use each.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ids::{IdMark, IdPool};

/// Interned names.
#[derive(Debug)]
pub(super) struct Clusters {
    rows: IdPool,
    /// By row; None where a row is not in use.
    names: Vec<Option<Named>>,
    by_name: HashMap<Arc<str>, u32>,
}

#[derive(Clone, Debug)]
struct Named {
    name: Arc<str>,
    sources: u32,
}

impl Clusters {
    /// From the rows that sources use: each use once, with the row's name.
    pub(super) fn restore(
        size: u32,
        uses: impl Iterator<Item = (u32, Arc<str>)>,
        touched: impl Fn(u32) -> bool,
    ) -> Self {
        let mut names: Vec<Option<Named>> = Vec::new();
        let mut by_name = HashMap::new();
        for (row, name) in uses {
            if names.len() <= row as usize {
                names.resize(row as usize + 1, None);
            }
            by_name.entry(Arc::clone(&name)).or_insert(row);
            names[row as usize].get_or_insert(Named { name, sources: 0 }).sources += 1;
        }
        let used = |row: u32| names.get(row as usize).is_some_and(Option::is_some);
        let rows = IdPool::restore(size, used, touched);
        Self { rows, names, by_name }
    }

    /// The name in a row that is in use; empty for any other.
    pub(super) fn name(&self, row: u32) -> Arc<str> {
        self.names.get(row as usize).and_then(Option::as_ref).map_or_else(Arc::default, |named| Arc::clone(&named.name))
    }

    /// Whether a name has a row already.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// One more source uses the name: its row, and whether the row has to be written. None when rows have run out.
    pub(super) fn hold(&mut self, name: &Arc<str>) -> Option<(u32, bool)> {
        if let Some(row) = self.by_name.get(name).copied()
            && let Some(Some(named)) = self.names.get_mut(row as usize)
        {
            named.sources += 1;
            return Some((row, false));
        }
        let row = self.rows.take()?;
        if self.names.len() <= row as usize {
            self.names.resize(row as usize + 1, None);
        }
        self.names[row as usize] = Some(Named { name: Arc::clone(name), sources: 1 });
        self.by_name.insert(Arc::clone(name), row);
        Some((row, true))
    }

    /// One source fewer uses the row.
    pub(super) fn release(&mut self, row: u32) {
        let Some(entry) = self.names.get_mut(row as usize) else { return };
        let Some(named) = entry else { return };
        named.sources -= 1;
        if named.sources == 0 {
            if self.by_name.get(&named.name) == Some(&row) {
                self.by_name.remove(&named.name);
            }
            *entry = None;
            self.rows.retire(row);
        }
    }

    pub(super) fn free(&self) -> u32 {
        self.rows.free()
    }

    pub(super) fn limbo(&self) -> u32 {
        self.rows.limbo()
    }

    pub(super) fn mark(&self) -> IdMark {
        self.rows.mark()
    }

    pub(super) fn grace_passed(&mut self, mark: IdMark) {
        self.rows.grace_passed(mark);
    }
}
