//! A stand-in for the kernel programs: follows every way that a flow can take through the maps.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use mcs_ebpf::{Addr, Frontend, MemberRow, PortBe, ServiceWord, SlotIds, SourceRow};

use crate::maps::fake::FakeMaps;
use crate::maps::{Maps, Op};
use crate::tables::{Service, name_text};

/// (cluster, address, port).
pub(crate) type Who = (Arc<str>, Addr, PortBe);

/// Whom flows to a frontend may get.
pub(crate) type Allowed = HashMap<Frontend, BTreeSet<Who>>;

/// Remembers what ids meant.
#[derive(Default)]
pub(crate) struct Reader {
    members: HashMap<(u32, u32), (u32, Addr, PortBe)>,
    services: HashMap<(u32, u32), Frontend>,
}

pub(crate) fn active(service: &Service) -> BTreeSet<Who> {
    let active = service.backends.iter().filter(|b| b.weight > 0);
    active.map(|b| (Arc::clone(&b.cluster), b.addr, b.port)).collect()
}

impl Reader {
    /// Looks at the maps after an op. Frontends that `allowed` does not have may not be there.
    pub(crate) fn look(&mut self, maps: &FakeMaps, op: &Op, allowed: &Allowed) {
        if let Op::Member { id, row } = op {
            let who = (row.service, row.addr, row.port_be);
            let before = self.members.insert((*id, row.generation), who);
            assert!(before.is_none_or(|before| before == who), "member {id} means another in the same generation");
        }
        if let Op::Service { index, row } = op
            && row.frontend != Frontend::default()
        {
            assert_ne!(row.generation & mcs_ebpf::sockets::GENERATION_MASK, 0);
            let before = self.services.insert((*index, row.generation), row.frontend);
            assert!(before.is_none(), "service {index} means another in the same generation");
        }
        // A program finds a row by the hash or by a hint, which may lead to whatever row names the frontend.
        let named = (0..).zip(&maps.services).filter(|(_, row)| row.frontend != Frontend::default());
        let hinted = named.map(|(index, row)| (row.frontend, index));
        let found = maps.frontends.iter().map(|(frontend, index)| (*frontend, *index));
        for (frontend, index) in found.chain(hinted) {
            let who = allowed.get(&frontend).unwrap_or_else(|| panic!("{frontend:?} is nobody's, after {op:?}"));
            flows(maps, frontend, index, |found| assert!(who.contains(found), "{found:?} is not wanted, after {op:?}"));
        }
    }
}

/// Every draw of a flow to a frontend.
pub(crate) fn flows(maps: &FakeMaps, frontend: Frontend, index: u32, mut got: impl FnMut(&Who)) {
    let row = maps.service(index);
    assert_eq!(row.frontend, frontend, "a frontend leads to another's row");
    let refusals = maps.source(row.refusals);
    assert_eq!((refusals.service, refusals.cluster, refusals.used), (index, SourceRow::REFUSALS, 1));
    assert_eq!(refusals.generation, row.generation);
    let word = ServiceWord::unpack(row.word);
    assert!(word.base + word.count <= maps.sizes().slots);
    for i in 0..word.count {
        let drawn = maps.slot(word.base + i);
        let alias = SlotIds::unpack(drawn.ids).alias;
        let weighted = word.flags & ServiceWord::WEIGHTED != 0;
        let ways = if weighted {
            vec![(drawn.threshold > 0, i), (drawn.threshold < u32::MAX, alias)]
        } else {
            vec![(true, i)]
        };
        for at in ways.into_iter().filter(|(possible, _)| *possible).map(|(_, at)| at) {
            assert!(at < word.count, "an alias leaves the block");
            let slot = maps.slot(word.base + at);
            let ids = SlotIds::unpack(slot.ids);
            let member = maps.member(ids.member);
            assert_eq!((member.addr, member.port_be, member.service), (slot.addr, slot.port_be, index));
            assert_eq!((member.state, member.source), (MemberRow::ACTIVE, ids.source));
            let source = maps.source(ids.source);
            assert_eq!((source.service, source.generation, source.used), (index, row.generation, 1));
            let cluster = name_text(&maps.cluster(source.cluster));
            assert!(!cluster.is_empty());
            got(&(cluster, slot.addr, slot.port_be));
        }
    }
}
