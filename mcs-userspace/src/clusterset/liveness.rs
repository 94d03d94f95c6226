//! Which members are alive, as one observer saw it (KEP-1645 "Endpoint TTL": a lease for each source cluster).
//!
//! ```text
//!            a new token                          silent > suspect            silent > dead, and not more than half
//!   ┌───────────────────────────► Healthy ───────────────────────► Suspect ──────────────────────────────► Dead
//!   │                                ▲                                │                                      │
//!   └── Dead, also after a restart   └────────── a new token ─────────┴──────────────── a new token ─────────┘
//! ```
//!
//! **No clock but the observer's.** A renewal is a resourceVersion that the observer had not seen: what the lease says of
//! times is never read, so no member's clock matters, wrong by however much.
//!
//! **Silence is counted while the broker answers, and only then.** The clock here, `heard`, goes on from one answer to the
//! next if they are close to each other; an outage, a connection that hangs, and an observer that was itself suspended
//! stand still. What counts as an answer is something that came the way renewals come, the watch of the leases: the
//! member's own renewal comes back on it too, and so bears witness every few seconds.
//!
//! **More than half silent at once is the broker's fault until proven otherwise.** Counted are all members, the observer,
//! which is alive, among them. Those that are merely suspect count as silent: renewals that stop all together run out one
//! by one, each at its own second, and the first must not die because the others have some seconds left. What proves
//! otherwise is that enough of them renew, or that the admin revokes the ones that are gone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::event::Now;
use super::fault::{Fault, planted};

#[cfg(test)]
mod tests;

/// What is known of a member's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Health {
    /// It renews, or has not been known for long.
    Healthy,
    /// It has not been heard of for a while, or longer and with too many others. Nothing is taken from it.
    Suspect,
    /// Its endpoints leave what another member can serve.
    Dead,
}

impl Health {
    /// One word, lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
        }
    }
}

/// How long silence lasts before it says something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timings {
    /// How often a member renews its lease.
    pub renew: Duration,
    /// Silence after which a member is suspect.
    pub suspect: Duration,
    /// Silence after which a member is dead.
    pub dead: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self { renew: Duration::from_secs(5), suspect: Duration::from_secs(20), dead: Duration::from_secs(60) }
    }
}

impl Timings {
    /// Answers further apart than this do not bear witness to the time between them. The observer's own renewal comes
    /// back once in `renew`; another `renew` is for a slow broker.
    const fn longest_gap(&self) -> Duration {
        self.renew.saturating_mul(2)
    }
}

/// All members' health, and whether some would be dead if they were fewer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Of every member but the observer, by cluster id.
    pub health: BTreeMap<String, Health>,
    /// Somebody has been silent long enough to be dead, and too many are silent for that to be believed.
    pub held: bool,
}

/// What one observer saw of the other members' renewals. The observer itself is no member here.
#[derive(Clone, Debug)]
pub struct Liveness {
    timings: Timings,
    members: BTreeMap<String, Member>,
    /// Dead for an earlier process, and not known as members to this one yet.
    remembered: BTreeSet<String>,
    /// For how long the broker has answered, all in all.
    heard: Duration,
    /// When it last did; none while it does not.
    answered: Option<Now>,
    /// How often its content became another.
    content: u64,
    /// [`Self::heard`] from which on silence is believed again, after too many were silent: those who come back are heard
    /// one by one, and the last must not be taken for dead because the first was heard.
    believed_from: Duration,
}

/// So many tokens are remembered of each member: more than are written in the time that kills. A watch that begins in the
/// past delivers them again.
const TOKENS: usize = 16;

/// What tells renewals apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// resourceVersion of the lease.
    pub version: u64,
    /// What the member adds: a restored broker gives versions again, and they say of nobody that he was heard before.
    pub serial: u64,
}

#[derive(Clone, Debug, Default)]
struct Member {
    /// The last ones seen, the newest last.
    tokens: VecDeque<Token>,
    /// [`Liveness::heard`] at the last sign of life, or when the member became known.
    alive: Duration,
    /// [`Liveness::content`] at the last sign of life; none if this process saw none.
    renewed: Option<u64>,
    dead: bool,
}

impl Liveness {
    /// Of an observer that has seen nothing yet.
    #[must_use]
    pub const fn new(timings: Timings) -> Self {
        Self {
            timings,
            members: BTreeMap::new(),
            remembered: BTreeSet::new(),
            heard: Duration::ZERO,
            answered: None,
            content: 0,
            believed_from: Duration::ZERO,
        }
    }

    /// These were dead for an earlier process, and are until they give a sign of life to this one.
    pub fn remember_dead(&mut self, dead: BTreeSet<String>) {
        for cluster in dead {
            match self.members.get_mut(&cluster) {
                Some(member) => member.dead |= member.renewed.is_none(),
                None => _ = self.remembered.insert(cluster),
            }
        }
    }

    /// A member became known; again is no change. Its silence begins now.
    pub fn member_added(&mut self, cluster: &str) {
        if !self.members.contains_key(cluster) {
            let member = Member { alive: self.heard, dead: self.remembered.remove(cluster), ..Member::default() };
            self.members.insert(cluster.to_owned(), member);
        }
    }

    /// The member left or was revoked. Not for one whose record is merely absent from an emptied broker.
    pub fn member_removed(&mut self, cluster: &str) {
        self.members.remove(cluster);
        self.remembered.remove(cluster);
    }

    /// The member's lease was seen with this token; the observer's own lease is an answer of the broker. A new
    /// one that is higher than the one before is a sign of life. The first one is not, nobody knows how old it is; nor is
    /// a lower one, which is what a restored broker or a watch from the past shows.
    pub fn renewal_seen(&mut self, cluster: &str, token: Token, now: Now) {
        self.broker_answered(now);
        let Some(member) = self.members.get_mut(cluster) else { return };
        let again = member.tokens.contains(&token);
        if !again && member.tokens.back().is_some_and(|before| token.version > before.version) {
            member.alive = self.heard;
            member.renewed = Some(self.content);
            member.dead = false;
        }
        member.tokens.retain(|seen| *seen != token);
        if member.tokens.len() == TOKENS {
            member.tokens.pop_front();
        }
        member.tokens.push_back(token);
    }

    /// The broker said something on the watch of the leases, or answered their list.
    pub fn broker_answered(&mut self, now: Now) {
        if let Some(before) = self.answered.replace(now) {
            let gap = now.saturating_sub(before);
            if gap <= self.timings.longest_gap() {
                self.heard += gap;
            }
        }
    }

    /// The watch of the leases broke, or the broker refuses it. What passes until the next answer counts for nothing.
    pub const fn broker_lost(&mut self) {
        self.answered = None;
    }

    /// The broker's content is another one, emptied or restored: what leases say is of unknown age again. Nobody's
    /// health changes.
    pub const fn broker_replaced(&mut self) {
        self.content += 1;
    }

    /// Whether a sign of life was seen in the broker's present content, so that the member's statement is a fresh one.
    #[must_use]
    pub fn renewed(&self, cluster: &str) -> bool {
        self.members.get(cluster).is_some_and(|member| member.renewed == Some(self.content))
    }

    /// Judges, as of the last answer. O(members).
    pub fn evaluate(&mut self) -> Verdict {
        let Self { timings, members, heard, believed_from, .. } = self;
        let silence = |member: &Member| heard.saturating_sub(member.alive);
        let silent = members.values().filter(|member| member.dead || silence(member) >= timings.suspect).count();
        let too_many = silent * 2 > members.len() + 1 && !planted(Fault::DeadWithoutQuorum);
        if too_many && members.values().any(|member| !member.dead && silence(member) >= timings.dead) {
            *believed_from = *heard + timings.longest_gap();
        }
        let believed = !too_many && *heard >= *believed_from;
        let mut verdict = Verdict::default();
        for (cluster, member) in members.iter_mut() {
            let expired = !member.dead && silence(member) >= timings.dead;
            verdict.held |= expired && !believed;
            member.dead |= expired && believed;
            let health = if member.dead {
                Health::Dead
            } else if silence(member) >= timings.suspect {
                Health::Suspect
            } else {
                Health::Healthy
            };
            verdict.health.insert(cluster.clone(), health);
        }
        verdict
    }

    /// The dead, for the next process to remember. Those count that this process does not know as members yet.
    #[must_use]
    pub fn dead(&self) -> BTreeSet<String> {
        let dead = self.members.iter().filter(|(_, member)| member.dead).map(|(cluster, _)| cluster);
        dead.chain(&self.remembered).cloned().collect()
    }

    /// When silence may next say something more, if the broker goes on answering until then; none if it does not answer.
    #[must_use]
    pub fn next_change(&self) -> Option<Now> {
        let answered = self.answered?;
        let left = self.members.values().filter(|member| !member.dead).filter_map(|member| {
            let silence = self.heard.saturating_sub(member.alive);
            let mark = [self.timings.suspect, self.timings.dead].into_iter().find(|mark| silence < *mark)?;
            Some(mark.saturating_sub(silence))
        });
        let believed = Some(self.believed_from.saturating_sub(self.heard)).filter(|left| !left.is_zero());
        left.chain(believed).min().map(|left| answered.saturating_add(left))
    }
}
