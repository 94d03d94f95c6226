//! What can be done for a service that does not fit in its new form: it must at least lose the backends that are gone.

use mcs_ebpf::{MemberRow, ServiceWord, SlotIds};

use super::diff::Diff;
use super::{NoRoom, Planner};
use crate::arena::{Block, order_for};
use crate::maps::{Maps, Op};
use crate::tables::Service;

impl Planner {
    /// The stores after which the service has those of its wanted backends that it has already, and no others. It needs
    /// nothing but a block that is no longer than the present one. Empty for a service that is not in the maps.
    ///
    /// # Errors
    /// [`NoRoom`]; the planner and the maps are as before. [`Planner::plan_shrink`] always works.
    pub fn plan_survivors(&mut self, maps: &impl Maps, service: &Service) -> Result<Vec<Op>, NoRoom> {
        let Some(held) = self.services.get(&service.frontend) else { return Ok(Vec::new()) };
        let diff = Diff::new(maps, &self.clusters, Some(held), &maps.service(held.index), service);
        let is_held = |name: &str| diff.lanes.iter().any(|lane| &*lane.name == name && lane.held.is_some());
        let survivors = Service {
            backends: service
                .backends
                .iter()
                .zip(&diff.matches)
                .filter(|(_, found)| found.member.is_some())
                .map(|(backend, _)| backend.clone())
                .collect(),
            sources: service.sources.iter().filter(|source| is_held(&source.cluster)).cloned().collect(),
            ..service.clone()
        };
        self.plan_service(maps, &survivors)
    }

    /// The stores after which no flow gets a backend that is gone, without a single row that would have to be free: the
    /// word is made to name a part of the present block in which all backends are still wanted. Others that are wanted
    /// drain, and come back when there is room; meanwhile all that are left are alike. Empty when nothing is gone.
    ///
    /// The part is the longest run of slots that begins a block of its own, so that the word tells what is in use as
    /// always; what lies around it is given up.
    pub fn plan_shrink(&mut self, maps: &impl Maps, service: &Service) -> Vec<Op> {
        let Some(held) = self.services.get(&service.frontend) else { return Vec::new() };
        let (index, draining) = (held.index, held.draining.clone());
        let row = maps.service(index);
        let diff = Diff::new(maps, &self.clusters, Some(held), &row, service);
        let word = ServiceWord::unpack(row.word);
        let Some(block) = Block::of_word(word.base, word.count) else { return Vec::new() };

        let wanted = sorted(diff.matches.iter().filter_map(|found| found.member));
        let is_wanted = |id: &u32| wanted.binary_search(id).is_ok();
        let flowing = service.backends.iter().zip(&diff.matches).filter(|(backend, _)| backend.weight > 0);
        let flowing = sorted(flowing.filter_map(|(_, found)| found.member));
        let members: Vec<u32> = (0..word.count).map(|i| SlotIds::unpack(maps.slot(word.base + i).ids).member).collect();
        let stays: Vec<bool> = members.iter().map(|id| flowing.binary_search(id).is_ok()).collect();
        if stays.iter().all(|stays| *stays) {
            return Vec::new();
        }
        let (at, count) = best_part(&stays, block.order);
        // no backend is left: no block, and the service refuses
        let base = if count == 0 { 0 } else { block.base + at };
        let flags = word.flags & ServiceWord::AFFINITY;
        let mut ops = vec![Op::Flip { index, word: ServiceWord { base, count, flags }.pack() }];
        match order_for(count) {
            Some(order) => self.arena.retire_around(block, Block { base, order }),
            None => self.arena.retire(block),
        }

        let left_out = members.iter().enumerate().filter(|(i, _)| !(at..at + count).contains(&(*i as u32)));
        let mut keeps = Vec::new();
        for id in left_out.map(|(_, id)| *id) {
            if is_wanted(&id) {
                ops.push(Op::MemberState { id, state: MemberRow::DRAINING });
                keeps.push(id);
            } else {
                ops.push(Op::MemberState { id, state: MemberRow::FREE });
                self.members.retire(id);
            }
        }
        for id in draining {
            if is_wanted(&id) {
                keeps.push(id);
            } else {
                ops.push(Op::MemberState { id, state: MemberRow::FREE });
                self.members.retire(id);
            }
        }
        if let Some(held) = self.services.get_mut(&service.frontend) {
            held.draining = keeps;
        }
        ops
    }
}

fn sorted(ids: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut ids: Vec<u32> = ids.collect();
    ids.sort_unstable();
    ids
}

/// Where the longest run of slots that stay begins, relative to the block, and how many they are: a run that begins where
/// a block of its own length can.
fn best_part(stays: &[bool], order: u8) -> (u32, u32) {
    let (mut best, mut run) = ((0, 0), 0u32);
    for (i, stays) in stays.iter().enumerate().rev() {
        run = if *stays { run + 1 } else { 0 };
        // a block has at most 2^20 slots
        let i = i as u32;
        let room = 1 << i.trailing_zeros().min(u32::from(order));
        let count = run.min(room);
        if count >= best.1 {
            best = (i, count);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_aligned_run_is_kept() {
        let stays = |text: &str| text.bytes().map(|b| b == b'+').collect::<Vec<_>>();
        assert_eq!(best_part(&stays("++-+"), 2), (0, 2));
        assert_eq!(best_part(&stays("-+++"), 2), (2, 2));
        assert_eq!(best_part(&stays("-++-"), 2), (1, 1));
        assert_eq!(best_part(&stays("-+++++++"), 3), (4, 4));
        assert_eq!(best_part(&stays("+++++-"), 3), (0, 5));
        assert_eq!(best_part(&stays("----"), 2), (0, 0));
    }
}
