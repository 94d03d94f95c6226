//! Which write is carried out when.
//!
//! ```text
//!  Op ──► one at a time for each object ──► so many at a time for each server ──► carry ──► Done
//!           a newer one replaces one that waits
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::carry::Tools;
use super::order::Order;
use super::recorder::Recorder;
use super::sight::Heard;
use super::tenure::Tenure;
use crate::apiserver::Server;
use crate::clusterset::event::{Kind, Op};
use crate::model::ObjectKey;

/// Requests under way at one server.
const AT_ONCE: usize = 32;

/// What an op writes. Two ops with one target are carried out one after the other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Target {
    /// None for what is not watched: Events, and what we remember.
    pub(super) kind: Option<Kind>,
    pub(super) key: ObjectKey,
}

impl Target {
    fn at_broker(&self) -> bool {
        self.kind.is_some_and(Kind::at_broker)
    }
}

/// An op that was carried out, or was not.
pub(super) struct Done {
    pub(super) target: Target,
    /// What is to be heard of it; nothing of an op without an object.
    pub(super) heard: Option<Heard>,
}

/// Starts writes, and hears of their end.
pub(super) struct Writer {
    tools: Arc<Tools>,
    /// Under way.
    running: HashSet<Target>,
    /// The newest op of each target that waits for its turn.
    waiting: HashMap<Target, Op>,
    /// Whose turn it is, at the member and at the broker.
    queues: [Queue; 2],
    done: mpsc::UnboundedSender<Done>,
}

/// The order in which one server's writes begin.
#[derive(Default)]
struct Queue {
    turns: VecDeque<Target>,
    running: usize,
}

impl Writer {
    /// One that tells `done` of every op that is over.
    pub(super) fn new(
        member: Server,
        broker: Server,
        identity: &str,
        tenure: Tenure,
        done: mpsc::UnboundedSender<Done>,
    ) -> Self {
        let recorder = Recorder::new(identity);
        let tools = Tools { member, broker, recorder, identity: identity.to_owned(), tenure };
        Self {
            tools: Arc::new(tools),
            running: HashSet::new(),
            waiting: HashMap::new(),
            queues: [Queue::default(), Queue::default()],
            done,
        }
    }

    /// Carries `op` out, now or when it is its turn.
    pub(super) fn submit(&mut self, op: Op, order: &mut Order) {
        let target = self.tools.target(&op);
        if matches!(op, Op::Renew(_)) && !self.running.contains(&target) {
            // A sign of life does not queue.
            self.start(target, op, order);
        } else if self.waiting.insert(target.clone(), op).is_none() {
            if !self.running.contains(&target) {
                self.queue(&target).turns.push_back(target.clone());
            }
            self.start_next(&target, order);
        }
    }

    /// The write of `target` is over: the next one may begin.
    pub(super) fn finished(&mut self, target: &Target, order: &mut Order) {
        self.running.remove(target);
        self.queue(target).running -= 1;
        if self.waiting.contains_key(target) {
            self.queue(target).turns.push_back(target.clone());
        }
        self.start_next(target, order);
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    fn queue(&mut self, target: &Target) -> &mut Queue {
        &mut self.queues[usize::from(target.at_broker())]
    }

    /// Starts what may begin at the server of `target`.
    fn start_next(&mut self, target: &Target, order: &mut Order) {
        while self.queue(target).running < AT_ONCE {
            let Some(next) = self.queue(target).turns.pop_front() else { return };
            if let Some(op) = self.waiting.remove(&next) {
                self.start(next, op, order);
            }
        }
    }

    fn start(&mut self, target: Target, op: Op, order: &mut Order) {
        if let Some(kind) = target.kind {
            order.written(kind, &target.key);
        }
        self.queue(&target).running += 1;
        self.running.insert(target.clone());
        let (tools, done) = (Arc::clone(&self.tools), self.done.clone());
        tokio::spawn(async move {
            let heard = tools.carry_out(op, &target).await;
            // Nobody hears it when the process ends.
            let _unheard = done.send(Done { target, heard });
        });
    }
}
