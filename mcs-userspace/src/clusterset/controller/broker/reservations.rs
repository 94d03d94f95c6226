//! Taking in reservations of addresses.

use super::{Broker, Reserved, address_of};
use crate::clusterset::local::Meta;
use crate::clusterset::record::ReservationSpec;
use crate::clusterset::validate;
use crate::model::ObjectKey;

impl Broker {
    /// Takes in a reservation; an unreadable one, or none.
    pub(in crate::clusterset::controller) fn put_reservation(
        &mut self,
        key: &ObjectKey,
        found: Option<(Meta, &ReservationSpec)>,
    ) -> Vec<ObjectKey> {
        let mut touched = self.drop_reservation(key);
        let Some((meta, spec)) = found else {
            self.unreadable_reservations.insert(key.clone());
            return touched;
        };
        match validate::reservation(&key.name, spec) {
            Ok(of) => {
                self.reserved_for.entry(of.service.clone()).or_default().insert(of.address);
                touched.push(of.service.clone());
                touched.extend(self.claims(of.address).map(|(service, _)| service.clone()));
                let reserved = Reserved { meta, service: of.service, holder: of.holder };
                self.reservations.insert(of.address, reserved);
            }
            Err(problem) => {
                self.unreadable_reservations.insert(key.clone());
                self.note("reservation", key, vec![problem]);
            }
        }
        touched
    }

    /// A reservation is gone. The services that it matters to.
    pub(in crate::clusterset::controller) fn drop_reservation(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        self.unreadable_reservations.remove(key);
        self.problems.remove(&("reservation", key.clone()));
        let Some(address) = address_of(&key.name) else { return Vec::new() };
        let Some(old) = self.reservations.remove(&address) else { return Vec::new() };
        if let Some(addresses) = self.reserved_for.get_mut(&old.service) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.reserved_for.remove(&old.service);
            }
        }
        let mut touched: Vec<ObjectKey> = self.claims(address).map(|(service, _)| service.clone()).collect();
        touched.push(old.service);
        touched
    }
}
