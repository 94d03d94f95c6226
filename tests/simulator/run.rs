//! A seed's run from its first step to quiet, and its shortening.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mcs::clusterset::service::Family;
use mcs::model::ObjectKey;

use crate::actions::{Action, selection};
use crate::random::Random;
use crate::world::{SETTLE, Shape, World};

/// How long a failing seed is cut at, at most.
const SHRINKING: Duration = Duration::from_secs(40);

/// How long it takes to leave.
const LEAVING: Duration = Duration::from_secs(60);

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) steps: usize,
    /// Only these steps do something.
    pub(crate) only: Option<BTreeSet<usize>>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    /// The step of the violation, or all.
    pub(crate) step: usize,
    pub(crate) trace: Vec<String>,
    pub(crate) digest: u64,
    pub(crate) happenings: u64,
}

fn shape(seed: u64) -> Shape {
    let mut random = Random::new(seed, 2);
    let members = match random.below(300) {
        0 => 50,
        1..=8 => 6 + random.below(8),
        _ => 2 + random.below(4),
    };
    let scarce = random.chance(60);
    let namespaces = ["n0", "n1"][..1 + random.below(2)].to_vec();
    let mut services = Vec::new();
    for namespace in &namespaces {
        for service in 0..2 + random.below(4) {
            services.push(ObjectKey::new(*namespace, format!("s{service}")));
        }
    }
    // So small that services often want the same address.
    let mut cidrs = vec![if scarce { "10.97.0.0/30" } else { "10.97.0.0/28" }.to_owned()];
    let mut families = vec![Family::IPv4];
    if random.chance(150) {
        cidrs.push(if scarce { "fd97::/126" } else { "fd97::/124" }.to_owned());
        families.push(Family::IPv6);
    }
    let namespaces = namespaces.into_iter().map(str::to_owned).collect();
    let processes = if random.chance(200) { 2 } else { 1 };
    Shape { members, services, namespaces, cidrs, families, processes, scarce }
}

impl Plan {
    pub(crate) const fn new(seed: u64, steps: usize) -> Self {
        Self { seed, steps, only: None }
    }

    /// From nothing to quiet, or to the first violation.
    pub(crate) fn run(&self, traced: bool) -> Outcome {
        let mut world = World::new(self.seed, shape(self.seed), traced);
        let actions = selection(self.seed);
        let weights: usize = actions.iter().map(|(weight, _)| weight).sum();
        let stride = world.members.len().div_ceil(6);
        world.run_until(world.now + Duration::from_secs(3));
        let mut last = self.steps;
        for step in 0..self.steps {
            let mut random = Random::new(self.seed, 100 + step as u64);
            let mut left = random.below(weights);
            let chosen = actions.iter().find(|(weight, _)| {
                let hit = left < *weight;
                left = left.saturating_sub(*weight);
                hit
            });
            let action = chosen.map_or(Action::Nothing, |(_, action)| *action);
            if self.only.as_ref().is_none_or(|only| only.contains(&step)) {
                world.act(action, &mut random);
                let pause = match random.below(100) {
                    _ if matches!(action, Action::LongPause | Action::PartitionMost) => random.millis(60_000..90_000),
                    0 => random.millis(5_000..20_000),
                    1..20 => random.millis(300..2_000),
                    _ => random.millis(0..300),
                };
                let next = world.now + pause;
                world.run_until(next);
                if step % stride == 0 {
                    world.check_standing();
                }
            }
            if world.violation.is_some() {
                last = step;
                break;
            }
        }
        if world.violation.is_none() {
            quiet(&mut world);
        }
        Outcome {
            violation: world.violation.take(),
            step: last,
            trace: world.trace(),
            digest: world.digest,
            happenings: world.happenings,
        }
    }
}

/// Everything heals, and soon all is as it should be.
fn quiet(world: &mut World) {
    world.heal();
    if world.members.iter().any(|member| member.leaving) {
        // The verb `leave` waits, ends the membership at the broker in any case, and that is believed a while later.
        let end = world.now + LEAVING;
        world.run_until(end);
    }
    settle(world);
    if world.violation.is_none() {
        world.check_quiet(false);
    }
    for member in 0..world.members.len() {
        world.approve(member);
    }
    settle(world);
    if world.violation.is_none() {
        world.check_quiet(true);
    }
}

fn settle(world: &mut World) {
    let end = world.now + SETTLE;
    world.run_until(end);
}

/// Leaves out steps for as long as a violation remains, and not for ever.
pub(crate) fn shrink(plan: Plan) -> Plan {
    let start = Instant::now();
    let outcome = plan.run(false);
    let mut kept: Vec<usize> = (0..plan.steps.min(outcome.step + 1)).collect();
    // Another violation would lead astray: it has the same words.
    let words = |violation: &str| {
        violation.split(' ').filter(|word| word.chars().all(char::is_alphabetic)).map(str::to_owned).collect::<Vec<_>>()
    };
    let found = outcome.violation.as_deref().map(words);
    let fails = |steps: &[usize]| {
        let only = Some(steps.iter().copied().collect());
        Plan { only, ..plan.clone() }.run(false).violation.as_deref().map(words) == found
    };
    let mut size = kept.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from < kept.len() && start.elapsed() < SHRINKING {
            let mut less = kept.clone();
            less.drain(from..(from + size).min(kept.len()));
            if fails(&less) {
                kept = less;
            } else {
                from += size;
            }
        }
        size /= 2;
    }
    Plan { only: Some(kept.into_iter().collect()), ..plan }
}
