//! The contract of [`Maps`], the same battery for the maps in memory, which all tests of the planner use, and for the
//! kernel's: what a store changes, what it leaves alone, and what is read back.

use mcs::dataplane::pins::PinDir;
use mcs::dataplane::shape::Capacity;
use mcs::dataplane::{Dataplane, Options};
use mcs::maps::bpf::BpfMaps;
use mcs::maps::fake::FakeMaps;
use mcs::maps::{MapError, Maps, Op, Sizes};
use mcs::tables::name_bytes;
use mcs_ebpf::{
    Addr, Frontend, MemberRow, Name, PortBe, ServiceName, ServiceRow, ServiceWord, Slot, SlotIds, SourceRow, TCP, UDP,
};
use mcs_tests::agent::mount_bpffs;
use mcs_tests::{Fleet, require_root};

use crate::world::options;

const SIZES: Sizes = Sizes { services: 4, slots: 32, members: 16, sources: 8, clusters: 4 };

/// Every row of all maps.
#[derive(Clone, PartialEq, Debug)]
struct Rows {
    frontends: Vec<(Frontend, u32)>,
    services: Vec<ServiceRow>,
    slots: Vec<Slot>,
    members: Vec<MemberRow>,
    sources: Vec<SourceRow>,
    counters: Vec<u64>,
    names: Vec<ServiceName>,
    clusters: Vec<Name>,
}

impl Rows {
    fn read(maps: &impl Maps) -> Self {
        let mut frontends = maps.frontends().unwrap();
        frontends.sort_unstable();
        Self {
            frontends,
            services: (0..SIZES.services).map(|row| maps.service(row)).collect(),
            slots: (0..SIZES.slots).map(|row| maps.slot(row)).collect(),
            members: (0..SIZES.members).map(|row| maps.member(row)).collect(),
            sources: (0..SIZES.sources).map(|row| maps.source(row)).collect(),
            counters: (0..SIZES.sources).map(|row| maps.counter(row)).collect(),
            names: (0..SIZES.services).map(|row| maps.name(row)).collect(),
            clusters: (0..SIZES.clusters).map(|row| maps.cluster(row)).collect(),
        }
    }

    fn empty() -> Self {
        let Sizes { services, slots, members, sources, clusters } = SIZES;
        let [services, slots, members, sources, clusters] =
            [services, slots, members, sources, clusters].map(|rows| usize::try_from(rows).unwrap());
        Self {
            frontends: Vec::new(),
            services: vec![ServiceRow::default(); services],
            slots: vec![Slot::default(); slots],
            members: vec![MemberRow::default(); members],
            sources: vec![SourceRow::default(); sources],
            counters: vec![0; sources],
            names: vec![ServiceName::default(); services],
            clusters: vec![[0; 64]; clusters],
        }
    }
}

fn addr(last: u8, is_v4: bool) -> Addr {
    let v4 = std::net::IpAddr::from([10, 97, 0, last]);
    Addr::from(if is_v4 { v4 } else { std::net::IpAddr::from([0xfd00, 0x97, 0, 0, 0, 0, 0, u16::from(last)]) })
}

fn frontend(last: u8, protocol: u8) -> Frontend {
    Frontend::new(addr(last, protocol == TCP), PortBe::new(80), protocol)
}

fn member(last: u8, generation: u32) -> MemberRow {
    let (addr, port_be) = (addr(last, true), PortBe::new(8080));
    MemberRow { addr, port_be, state: MemberRow::ACTIVE, service: 1, generation, source: 2, connections: 7, zero: 0 }
}

fn slot(last: u8, member: u32) -> Slot {
    let ids = SlotIds { alias: 1, source: 2, member }.pack();
    Slot { addr: addr(last, true), port_be: PortBe::new(8080), zero: 0, threshold: 0x8000_0000, ids }
}

fn word(base: u32, count: u32, flags: u8) -> u64 {
    ServiceWord { base, count, flags }.pack()
}

/// Changes rows as a store is expected to, and nothing else.
type Expected = fn(&mut Rows);

/// A service's life: stores, and what each of them changes. Ids at both ends of their maps, so that a store that is one
/// row off falls out of them or on a neighbour.
fn story() -> Vec<(Op, Expected)> {
    let name = ServiceName { namespace: name_bytes("shop"), name: name_bytes("cart"), port: name_bytes("http") };
    let source = SourceRow { service: 3, cluster: 3, ready: 2, total: 3, generation: 1, used: 1 };
    let row = ServiceRow {
        word: word(30, 2, ServiceWord::WEIGHTED),
        frontend: frontend(1, TCP),
        generation: 1,
        affinity_secs: 60,
        refusals: 7,
        ready: 2,
        total: 3,
        zero: [0; 3],
    };
    vec![
        (Op::Cluster { index: 3, name: name_bytes("b") }, |rows| rows.clusters[3] = name_bytes("b")),
        (Op::Source { id: 7, row: source, fresh: true }, |rows| {
            rows.sources[7] = SourceRow { service: 3, cluster: 3, ready: 2, total: 3, generation: 1, used: 1 };
        }),
        (Op::Source { id: 7, row: SourceRow { ready: 3, ..source }, fresh: false }, |rows| rows.sources[7].ready = 3),
        (Op::Member { id: 15, row: member(1, 1) }, |rows| rows.members[15] = member(1, 1)),
        (Op::Member { id: 0, row: member(2, 1) }, |rows| rows.members[0] = member(2, 1)),
        (Op::Block { base: 30, slots: vec![slot(1, 15), slot(2, 0)] }, |rows| {
            (rows.slots[30], rows.slots[31]) = (slot(1, 15), slot(2, 0));
        }),
        (Op::Name { index: 3, name: Box::new(name) }, |rows| {
            let [namespace, name, port] = ["shop", "cart", "http"].map(name_bytes);
            rows.names[3] = ServiceName { namespace, name, port };
        }),
        (Op::Service { index: 3, row }, |rows| {
            let row = &mut rows.services[3];
            (row.word, row.frontend) = (word(30, 2, ServiceWord::WEIGHTED), frontend(1, TCP));
            (row.generation, row.affinity_secs, row.refusals, row.ready, row.total) = (1, 60, 7, 2, 3);
        }),
        (Op::InsertFrontend { frontend: frontend(1, TCP), index: 3 }, |rows| {
            rows.frontends = vec![(frontend(1, TCP), 3)]
        }),
        // Again: no error, no second one.
        (Op::InsertFrontend { frontend: frontend(1, TCP), index: 3 }, |_rows| {}),
        (Op::ServiceDetails { index: 3, affinity_secs: 61, ready: 1, total: 4 }, |rows| {
            let row = &mut rows.services[3];
            (row.affinity_secs, row.ready, row.total) = (61, 1, 4);
        }),
        (Op::Block { base: 0, slots: vec![slot(3, 15)] }, |rows| rows.slots[0] = slot(3, 15)),
        (Op::Flip { index: 3, word: word(0, 1, ServiceWord::AFFINITY) }, |rows| {
            rows.services[3].word = word(0, 1, ServiceWord::AFFINITY);
        }),
        // The counter of connections goes on.
        (Op::MemberState { id: 15, state: MemberRow::DRAINING }, |rows| rows.members[15].state = MemberRow::DRAINING),
        (Op::MemberState { id: 0, state: MemberRow::FREE }, |rows| rows.members[0].state = MemberRow::FREE),
        (Op::RemoveFrontend { frontend: frontend(1, TCP) }, |rows| rows.frontends.clear()),
        // Gone already: no error.
        (Op::RemoveFrontend { frontend: frontend(1, TCP) }, |_rows| {}),
        (Op::Service { index: 3, row: ServiceRow { generation: 1, ..ServiceRow::default() } }, |rows| {
            rows.services[3] = ServiceRow { generation: 1, ..ServiceRow::default() };
        }),
        (Op::Source { id: 7, row: SourceRow::default(), fresh: false }, |rows| rows.sources[7] = SourceRow::default()),
    ]
}

fn battery(maps: &mut impl Maps) {
    assert_eq!(maps.sizes(), SIZES);
    let mut expected = Rows::empty();
    assert_eq!(Rows::read(maps), expected, "maps begin with zeroes");
    for (op, change) in story() {
        maps.apply(&op).unwrap();
        change(&mut expected);
        assert_eq!(Rows::read(maps), expected, "after {op:?}");
    }

    // After a grace period ids are taken again, by others.
    maps.grace().unwrap();
    maps.apply(&Op::Member { id: 0, row: member(9, 2) }).unwrap();
    assert_eq!(maps.member(0), member(9, 2));
    fill_frontends(maps);

    // There are no rows beyond the last: they read as nothing.
    for row in [SIZES.members, u32::MAX] {
        assert_eq!(maps.service(row), ServiceRow::default());
        assert_eq!(maps.slot(row), Slot::default());
        assert_eq!(maps.member(row), MemberRow::default());
        assert_eq!((maps.source(row), maps.counter(row)), (SourceRow::default(), 0));
        assert_eq!((maps.name(row), maps.cluster(row)), (ServiceName::default(), [0; 64]));
    }
}

/// As many frontends as services, of both protocols and families.
fn fill_frontends(maps: &mut impl Maps) {
    let mut all = Vec::new();
    for index in 0..SIZES.services {
        let last = u8::try_from(index).unwrap() + 1;
        let frontend = frontend(last, if index % 2 == 0 { TCP } else { UDP });
        let row = ServiceRow { frontend, generation: 2, ..ServiceRow::default() };
        maps.apply(&Op::Service { index, row }).unwrap();
        maps.apply(&Op::InsertFrontend { frontend, index }).unwrap();
        all.push((frontend, index));
    }
    let mut found = maps.frontends().unwrap();
    found.sort_unstable();
    all.sort_unstable();
    assert_eq!(found, all);
}

#[test]
fn maps_in_memory_keep_the_contract() {
    battery(&mut FakeMaps::new(SIZES));
}

/// The kernel's maps, as an agent opens them.
fn open(fleet: &Fleet) -> (Dataplane, BpfMaps) {
    mount_bpffs().unwrap();
    let node = fleet.node("a1");
    let agent = options(fleet, node, &fleet.dir("manifests").unwrap());
    std::fs::create_dir_all(agent.pin_dir.parent().unwrap()).unwrap();
    let capacity = Capacity {
        services: SIZES.services,
        backends: SIZES.members,
        sources: SIZES.sources,
        clusters: SIZES.clusters,
        sockets: 64,
        udp_flows: 64,
        affinity: 64,
    };
    let cidrs = agent.clusterset_cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
    let pins = PinDir::new(&agent.pin_dir);
    let options = Options { pins, cgroup: agent.cgroup, cidrs, capacity, log_level: 0 };
    Dataplane::open(&options).unwrap()
}

#[test]
fn maps_of_the_kernel_keep_the_contract() {
    require_root!();
    let fleet = Fleet::builder().build().unwrap();
    let (dataplane, mut maps) = open(&fleet);
    battery(&mut maps);
    drop((dataplane, maps));

    // They are pinned: the next one finds them as they were left, and one more frontend is one too many.
    let (_dataplane, mut maps) = open(&fleet);
    assert_eq!(maps.member(0), member(9, 2));
    assert_eq!(maps.frontends().unwrap().len(), usize::try_from(SIZES.services).unwrap());
    let error = maps.apply(&Op::InsertFrontend { frontend: frontend(99, TCP), index: 0 }).unwrap_err();
    assert!(matches!(error, MapError::Frontend { op: "insert", .. }), "{error}");
    assert_eq!(maps.frontends().unwrap().len(), usize::try_from(SIZES.services).unwrap(), "nothing has changed");
}

/// A bug of the planner must not become a wild store.
#[test]
fn the_kernels_maps_ignore_stores_beyond_their_ends() {
    require_root!();
    let fleet = Fleet::builder().build().unwrap();
    let (_dataplane, mut maps) = open(&fleet);
    for op in [
        Op::Cluster { index: SIZES.clusters, name: name_bytes("x") },
        Op::Source { id: SIZES.sources, row: SourceRow::default(), fresh: true },
        Op::Member { id: u32::MAX, row: member(1, 1) },
        Op::MemberState { id: SIZES.members, state: MemberRow::ACTIVE },
        Op::Block { base: SIZES.slots, slots: vec![slot(1, 0)] },
        Op::Flip { index: SIZES.services, word: u64::MAX },
        Op::ServiceDetails { index: SIZES.services, affinity_secs: 1, ready: 1, total: 1 },
    ] {
        maps.apply(&op).unwrap();
        assert_eq!(Rows::read(&maps), Rows::empty(), "after {op:?}");
    }
}
