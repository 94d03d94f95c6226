//! One allocation for each distinct name.

use std::collections::HashSet;
use std::sync::Arc;

/// Shares equal strings. A million endpoints name a few hundred nodes, zones and clusters.
#[derive(Default, Debug)]
pub struct Interner {
    names: HashSet<Arc<str>>,
    sweep_at: usize,
}

impl Interner {
    /// The shared copy of a name.
    pub fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(name) = self.names.get(name) {
            return Arc::clone(name);
        }
        let name: Arc<str> = Arc::from(name);
        self.names.insert(Arc::clone(&name));
        name
    }

    /// Forgets names that nobody holds any more. Looks at them only when there are twice as many as after the last
    /// time, so it may be called often.
    pub fn sweep(&mut self) {
        const FEW: usize = 1024;
        if self.names.len() >= self.sweep_at.max(FEW) {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.names.shrink_to_fit();
            self.sweep_at = self.names.len() * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_and_unused_ones_go() {
        let mut names = Interner::default();
        let kept = names.get("kept");
        assert!(Arc::ptr_eq(&kept, &names.get("kept")));
        for i in 0..3000 {
            names.get(&i.to_string());
        }
        names.sweep();
        assert_eq!(names.names.len(), 1);
        assert!(Arc::ptr_eq(&kept, &names.get("kept")));
    }
}
