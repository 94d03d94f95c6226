//! What does not work at the moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{info, warn};

/// What is wrong now, by what it is wrong with. Each change is logged once; `mcs status` shows what is left.
#[derive(Clone, Debug, Default)]
pub(crate) struct Troubles(Arc<Mutex<BTreeMap<String, String>>>);

impl Troubles {
    /// `what` does not work, because of `why`.
    pub(crate) fn report(&self, what: &str, why: &str) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.get(what).is_none_or(|known| known != why) {
            warn!("{what}: {why}");
            troubles.insert(what.to_owned(), why.to_owned());
        }
    }

    /// `what` works.
    pub(crate) fn clear(&self, what: &str) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(what).is_some() {
            info!("{what}: works again");
        }
    }

    /// All that is wrong now.
    pub(crate) fn all(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
