//! What runs in a fleet, so that it can be ended whoever holds the handle.
//!
//! A fleet may go while a test still holds a child or a server of it (a panic, a signal, the order of two `let`s). Its
//! namespaces and cgroups can only go when nothing is in them any more, so everything that runs there is registered here.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Something that runs in a fleet.
pub(crate) trait Stop: Send + Sync {
    /// Ends it and waits until it has left its namespace and cgroup. Called again, it does nothing.
    fn stop(&self);
}

/// The running things of one fleet, oldest first.
#[derive(Default)]
pub(crate) struct Registry {
    running: Mutex<Vec<Weak<dyn Stop>>>,
}

impl Registry {
    pub(crate) fn add(&self, thing: &Arc<impl Stop + 'static>) {
        let thing = Arc::downgrade(thing);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|known| known.strong_count() > 0);
        running.push(thing);
    }

    /// Stops everything, youngest first: clients before servers, pods' processes before the agents below them.
    pub(crate) fn stop_all(&self) {
        loop {
            // One at a time, as stopping one may take long and must not keep others from registering.
            let last = self.running.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(last) = last else { return };
            if let Some(thing) = last.upgrade() {
                thing.stop();
            }
        }
    }
}

/// A pod's registry is one thing of its fleet's.
impl Stop for Registry {
    fn stop(&self) {
        self.stop_all();
    }
}
