//! The world of a seed: members with their API servers and processes, one broker, virtual time, and a queue of what
//! happens next.
//!
//! ```text
//!  step ──► action of a user, an admin, or fate ──► changes ──► watches deliver, controllers want, writes arrive, …
//!                                                                     │ until the time of the next step
//!                                                                     ▼
//!                                                                invariants
//! ```

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use mcs::clusterset::event::{CrdState, Event, Failure, Kind, Now, Object, Op};
use mcs::clusterset::local::{CLUSTER_ID_PROPERTY, CLUSTERSET_PROPERTY, Meta};
use mcs::clusterset::record::{ClusterSetSpec, MemberSpec, SHARED_NAMESPACE, member_namespace};
use mcs::clusterset::service::Family;
use mcs::model::ObjectKey;

use crate::edge::Process;
use crate::random::Random;
use crate::server::{Server, Snapshot};
use crate::told::Told;

/// Within this time everything must have settled after the last fault.
pub(crate) const SETTLE: Duration = Duration::from_secs(10);

/// What happens at its time.
#[derive(Debug)]
pub(crate) enum Task {
    Deliver {
        process: usize,
        kind: Kind,
    },
    Pump {
        process: usize,
    },
    Execute {
        process: usize,
        op: Box<Op>,
    },
    Answer {
        process: usize,
        op: Box<Op>,
        result: Result<(u32, usize), Failure>,
    },
    /// A process starts, if none runs.
    Start {
        member: usize,
    },
    /// One of the processes becomes the leader, if none is.
    Elect {
        member: usize,
    },
    /// Member and broker reach each other again.
    Link {
        member: usize,
    },
    /// The member's API server answers again.
    Up {
        member: usize,
    },
    BrokerUp,
    /// The broker's admin sets it up again and joins everybody.
    Reinit,
    /// The namespace controller deletes one more object, or the namespace.
    Sweep {
        member: usize,
        namespace: String,
    },
    /// One more object of a CRD that is being deleted goes.
    CrdSweep {
        member: usize,
        kind: Kind,
    },
    CrdBack {
        member: usize,
        kind: Kind,
    },
    /// What the verb `leave` does after the controller withdrew everything.
    FinishLeave {
        member: usize,
    },
}

/// A cluster.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) server: Server,
    pub(crate) processes: Vec<usize>,
    /// Member and broker reach each other.
    pub(crate) linked: bool,
    /// Since when it hears nothing of the broker.
    pub(crate) cut: Option<Now>,
    /// Its own API server answers.
    pub(crate) up: bool,
    /// Since when, if it does.
    pub(crate) up_from: Now,
    pub(crate) joined: bool,
    pub(crate) leaving: bool,
    pub(crate) revoked: bool,
    pub(crate) credentials: bool,
    pub(crate) remembered: BTreeSet<String>,
    pub(crate) told: Told,
    /// Since when nothing kept it from hearing and writing everything.
    pub(crate) contact_from: Now,
    /// When it last renewed its lease.
    pub(crate) renewed: Now,
    /// Exports that vanished though no user deleted them.
    pub(crate) lost: BTreeSet<ObjectKey>,
    /// The address that each import had, by the import's UID.
    pub(crate) vips: BTreeMap<(String, Family), String>,
    pub(crate) backup: Option<Snapshot>,
    pub(crate) skew: i64,
    pub(crate) crds_made: u32,
    pub(crate) restored: bool,
}

/// Shares in a thousand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// Of writes that fail or whose answer is lost.
    pub(crate) failing: usize,
}

/// What the seed decides once.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) members: usize,
    pub(crate) services: Vec<ObjectKey>,
    pub(crate) namespaces: Vec<String>,
    pub(crate) cidrs: Vec<String>,
    pub(crate) families: Vec<Family>,
    /// Of each member.
    pub(crate) processes: usize,
    /// There are fewer addresses than services.
    pub(crate) scarce: bool,
}

/// See the module.
pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) now: Now,
    pub(crate) random: Random,
    pub(crate) rates: Rates,
    queue: BinaryHeap<Reverse<(Now, u64, Queued)>>,
    sequence: u64,
    pub(crate) members: Vec<Member>,
    pub(crate) broker: Server,
    pub(crate) broker_up: bool,
    pub(crate) broker_backup: Option<Snapshot>,
    pub(crate) processes: Vec<Process>,
    pub(crate) violation: Option<String>,
    pub(crate) idle_pumps: u32,
    /// Services about which nothing can be said, because of what got lost with no trace.
    pub(crate) uncertain: BTreeSet<ObjectKey>,
    /// What is wrong now, and since when.
    pub(crate) wrong: BTreeMap<String, Now>,
    /// When somebody last changed a service, its export or its slices in a member.
    pub(crate) touched: BTreeMap<(usize, ObjectKey), Now>,
    notified: BTreeMap<(usize, Kind), (u32, usize)>,
    trace: Option<RefCell<Vec<String>>>,
    /// Of everything that happened: a seed replays if it is the same again.
    pub(crate) digest: u64,
    pub(crate) seed: u64,
    pub(crate) happenings: u64,
}

/// Ordered by nothing: time and sequence order the queue.
#[derive(Debug)]
struct Queued(Task);

impl PartialEq for Queued {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// The broker's place among servers.
const BROKER: usize = usize::MAX;

impl World {
    pub(crate) fn new(seed: u64, shape: Shape, traced: bool) -> Self {
        let mut random = Random::new(seed, 0);
        let failing = *random.pick(&[0, 0, 5, 30]).unwrap();
        let mut world = Self {
            now: Duration::from_secs(1000),
            rates: Rates { failing },
            random,
            queue: BinaryHeap::new(),
            sequence: 0,
            members: Vec::new(),
            broker: Server::new("broker"),
            broker_up: true,
            broker_backup: None,
            processes: Vec::new(),
            violation: None,
            idle_pumps: 0,
            uncertain: BTreeSet::new(),
            wrong: BTreeMap::new(),
            touched: BTreeMap::new(),
            notified: BTreeMap::new(),
            trace: traced.then(RefCell::default),
            digest: 0,
            shape,
            seed,
            happenings: 0,
        };
        world.init_broker();
        for index in 0..world.shape.members {
            world.members.push(Member::new(index));
            for name in world.shape.namespaces.clone() {
                let namespace = Object::Namespace { terminating: false };
                world.members[index].server.put(Kind::Namespaces, &ObjectKey::new("", name), namespace);
            }
            if index < 2 || world.random.chance(800) {
                world.join(index);
            }
            for _ in 0..world.shape.processes {
                world.start(index);
            }
            world.elect(index);
        }
        world
    }

    /// `broker init`.
    pub(crate) fn init_broker(&mut self) {
        self.set_clocks();
        let spec = ClusterSetSpec { cidrs: self.shape.cidrs.clone(), ..Default::default() };
        let key = ObjectKey::new(SHARED_NAMESPACE, "set");
        self.broker.put(Kind::ClusterSets, &key, Object::ClusterSet(Meta::default(), spec));
    }

    /// The part of `join` at the broker.
    pub(crate) fn register(&mut self, member: usize) {
        self.set_clocks();
        let of = &self.members[member];
        let spec = MemberSpec { cluster_uid: of.uid(), revoked: of.revoked, ..Default::default() };
        let key = ObjectKey::new(SHARED_NAMESPACE, of.id.as_str());
        self.broker.put(Kind::Members, &key, Object::Member(Meta::default(), spec));
    }

    /// `join`.
    pub(crate) fn join(&mut self, member: usize) {
        self.register(member);
        let of = &mut self.members[member];
        (of.joined, of.leaving, of.credentials) = (true, false, true);
        for (name, value) in [(CLUSTER_ID_PROPERTY, of.id.clone()), (CLUSTERSET_PROPERTY, "set".to_owned())] {
            of.server.put(Kind::Properties, &ObjectKey::new("", name), Object::Property(value));
        }
        for process in of.processes.clone() {
            self.watch_broker(process);
        }
        self.disturb(member, Duration::ZERO);
    }

    fn watch_broker(&mut self, process: usize) {
        for kind in Kind::BROKER {
            self.processes[process].watch(kind);
            let delay = self.random.millis(0..300);
            self.rouse(process, kind, delay);
        }
    }

    /// A process of a controller begins with nothing.
    pub(crate) fn start(&mut self, member: usize) {
        let process = self.processes.len();
        self.processes.push(Process::new(member, self.seed ^ process as u64));
        let of = &mut self.members[member];
        of.processes.push(process);
        let (uid, remembered, credentials) = (of.uid(), of.remembered.clone(), of.credentials);
        self.tell(process, Event::ClusterUid(uid));
        self.tell(process, Event::Remembered(remembered));
        for kind in Kind::LOCAL {
            self.processes[process].watch(kind);
            let delay = self.random.millis(0..300);
            self.rouse(process, kind, delay);
        }
        if credentials {
            self.watch_broker(process);
        }
    }

    /// One of the member's processes leads, if any runs and none does.
    pub(crate) fn elect(&mut self, member: usize) {
        let of = &self.members[member];
        if of.processes.iter().any(|process| self.processes[*process].leader) {
            return;
        }
        let Some(&process) = self.random.pick(&of.processes) else {
            return;
        };
        let remembered = of.remembered.clone();
        self.tell(process, Event::Remembered(remembered));
        self.processes[process].leader = true;
        self.tell(process, Event::Leader(true));
        self.disturb(member, Duration::ZERO);
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, process: usize) {
        let of = &mut self.processes[process];
        (of.alive, of.leader) = (false, false);
        let member = of.member;
        self.members[member].processes.retain(|running| *running != process);
        self.disturb(member, Duration::ZERO);
    }

    pub(crate) fn leader(&self, member: usize) -> Option<usize> {
        self.members[member].processes.iter().copied().find(|process| self.processes[*process].leader)
    }

    /// Whether a member's processes reach what has this kind.
    pub(crate) fn reaches(&self, member: usize, kind: Kind) -> bool {
        let of = &self.members[member];
        if kind.at_broker() { of.linked && self.broker_up && of.credentials } else { of.up }
    }

    /// From now, or later, the member hears and writes everything again; what it does until it settled is excused.
    pub(crate) fn disturb(&mut self, member: usize, lasting: Duration) {
        let from = self.now + lasting;
        let of = &mut self.members[member];
        of.contact_from = of.contact_from.max(from);
    }

    pub(crate) fn disturb_all(&mut self, lasting: Duration) {
        for member in 0..self.members.len() {
            self.disturb(member, lasting);
        }
    }

    /// Keeps account of who is cut off the broker.
    pub(crate) fn cut(&mut self) {
        for member in &mut self.members {
            match member.linked && self.broker_up {
                true => member.cut = None,
                false => member.cut = member.cut.or(Some(self.now)),
            }
        }
    }

    /// Whether nothing ails a member, and nothing did lately.
    pub(crate) fn settled(&self, member: usize) -> bool {
        self.healthy(member) && self.now >= self.members[member].contact_from + SETTLE
    }

    /// Whether nothing ails a member now.
    pub(crate) fn healthy(&self, member: usize) -> bool {
        let of = &self.members[member];
        of.linked && of.up && of.active() && self.broker_up && self.leader(member).is_some()
    }

    pub(crate) fn later(&mut self, delay: Duration, task: Task) {
        self.later_at(self.now + delay, task);
    }

    pub(crate) fn later_at(&mut self, at: Now, task: Task) {
        self.sequence += 1;
        self.queue.push(Reverse((at.max(self.now), self.sequence, Queued(task))));
    }

    /// Everything up to a time.
    pub(crate) fn run_until(&mut self, end: Now) {
        self.spread();
        while self.violation.is_none() {
            if self.queue.peek().is_none_or(|Reverse((at, ..))| *at > end) {
                break;
            }
            let Some(Reverse((at, sequence, Queued(task)))) = self.queue.pop() else {
                break;
            };
            self.now = at;
            self.happenings += 1;
            let word = sequence ^ u64::try_from(at.as_nanos()).unwrap();
            self.digest = (self.digest.rotate_left(5) ^ word).wrapping_mul(0x0000_0100_0000_01b3);
            self.happen(task);
            self.spread();
        }
        self.now = self.now.max(end);
    }

    pub(crate) fn happen(&mut self, task: Task) {
        match task {
            Task::Deliver { process, kind } => self.deliver(process, kind),
            Task::Pump { process } => self.pump(process),
            Task::Execute { process, op } => self.execute(process, *op),
            Task::Answer { process, op, result } => self.answer(process, *op, result),
            Task::Start { member } => {
                for _ in self.members[member].processes.len()..self.shape.processes {
                    self.start(member);
                }
                self.elect(member);
            }
            Task::Elect { member } => self.elect(member),
            Task::Link { member } => {
                self.members[member].linked = true;
                self.cut();
                self.disturb(member, Duration::ZERO);
            }
            Task::Up { member } => {
                self.members[member].up = true;
                self.members[member].up_from = self.now;
                self.disturb(member, Duration::ZERO);
            }
            Task::BrokerUp => {
                self.broker_up = true;
                self.cut();
                self.disturb_all(Duration::ZERO);
            }
            Task::Reinit => self.reinit(),
            Task::Sweep { member, namespace } => self.sweep(member, &namespace),
            Task::CrdSweep { member, kind } => self.sweep_crd(member, kind),
            Task::CrdBack { member, kind } => self.crd_back(member, kind),
            Task::FinishLeave { member } => self.finish_leave(member),
        }
    }

    /// Watches of what changed get something to deliver.
    fn spread(&mut self) {
        let mut changed = Vec::new();
        for server in (0..self.members.len()).chain([BROKER]) {
            let (of, kinds): (&Server, &[Kind]) = match self.members.get(server) {
                Some(member) => (&member.server, &Kind::LOCAL),
                None => (&self.broker, &Kind::BROKER),
            };
            for &kind in kinds {
                let (was, is) =
                    (self.notified.entry((server, kind)).or_default(), (of.incarnation, of.log(kind).len()));
                if std::mem::replace(was, is) != is {
                    changed.push((server, kind));
                }
            }
        }
        for (server, kind) in changed {
            let members = if server == BROKER { 0..self.members.len() } else { server..server + 1 };
            let processes = members.flat_map(|member| self.members[member].processes.clone());
            for process in processes.collect::<Vec<_>>() {
                let latency = self.latency(kind);
                self.rouse(process, kind, latency);
            }
        }
    }

    pub(crate) fn set_clocks(&mut self) {
        let clock = 1_700_000_000 + i64::try_from(self.now.as_secs()).unwrap();
        self.broker.clock = clock;
        for member in &mut self.members {
            member.server.clock = clock + member.skew;
        }
    }

    pub(crate) fn violate(&mut self, what: String) {
        self.note(|| format!("VIOLATION: {what}"));
        self.violation.get_or_insert(what);
    }

    /// A line of the trace, which only a replay has.
    pub(crate) fn note(&self, line: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.borrow_mut().push(format!("{:>9.3} {}", self.now.as_secs_f64(), line()));
        }
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.trace.as_ref().map(RefCell::take).unwrap_or_default()
    }

    pub(crate) fn who(&self, process: usize) -> String {
        let of = &self.processes[process];
        format!("{}#{process}{}", self.members[of.member].id, if of.leader { "*" } else { "" })
    }
}

impl Member {
    fn new(index: usize) -> Self {
        // Ids in an order that is not that of joining.
        let id = format!("{}{index}", char::from(b'a' + u8::try_from((index * 7) % 26).unwrap()));
        Self {
            server: Server::new(&id),
            id,
            processes: Vec::new(),
            linked: true,
            up: true,
            up_from: Now::ZERO,
            cut: None,
            joined: false,
            leaving: false,
            revoked: false,
            credentials: false,
            remembered: BTreeSet::new(),
            told: Told::default(),
            contact_from: Duration::ZERO,
            renewed: Duration::ZERO,
            lost: BTreeSet::new(),
            vips: BTreeMap::new(),
            backup: None,
            skew: 0,
            crds_made: 1,
            restored: false,
        }
    }

    pub(crate) fn uid(&self) -> String {
        format!("uid-of-{}", self.id)
    }

    /// Whether its exports count.
    pub(crate) const fn active(&self) -> bool {
        self.joined && !self.leaving && !self.revoked
    }

    pub(crate) fn namespace(&self) -> String {
        member_namespace(&self.id)
    }

    pub(crate) fn crd(&self, kind: Kind) -> Option<&CrdState> {
        self.server.crds.get(&kind)
    }
}
