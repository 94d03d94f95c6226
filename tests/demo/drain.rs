//! A cluster leaves while connections run: new ones avoid it at once, established ones go on; and it comes back.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use mcs_tests::Family;

use crate::ending;
use crate::load::{Attempt, Load};
use crate::screen::Screen;
use crate::stage::Stage;

/// Held connections of each family; about half of them reach cluster b.
const HELD: usize = 20;
/// A line of the timeline.
const TICK: Duration = Duration::from_millis(500);
/// Lines with both clusters, without b, and with b again.
const TICKS: [usize; 3] = [2, 4, 2];

pub(crate) fn show(stage: &Stage, screen: &mut Screen) -> Result<()> {
    screen.step(
        "Cluster b leaves while connections run",
        &[
            &format!(
                "Pod {} connects all the time (IPv4 and IPv6) and holds {} connections",
                stage.client.name(),
                2 * HELD
            ),
            "that echo every 20 ms. Then b's EndpointSlices go, by a rename. New",
            "connections should avoid b, none should fail, held ones should go on.",
        ],
    )?;
    let load = Load::default();
    let vips = Family::BOTH.map(|family| stage.web(family));
    let held = load.open(&stage.client, &vips, HELD)?;
    let moments = thread::scope(|scope| {
        for vip in vips {
            let load = &load;
            scope.spawn(move || load.connect(&stage.client, vip));
        }
        scope.spawn(|| load.talk(held));
        let moments = watch(stage, &load, screen);
        load.stop();
        moments
    })?;
    judge(stage, &load, moments, screen)
}

/// When what happened.
struct Moments {
    /// `mcs status` of all nodes had returned after the removal.
    removed: Instant,
    /// The manifest with b in it came back.
    returning: Instant,
    /// `mcs status` had returned after that.
    returned: Instant,
}

fn watch(stage: &Stage, load: &Load, screen: &Screen) -> Result<Moments> {
    screen.line(&format!("  {:>6} {:>9} {:>9} {:>9}   held to b", "time", "new to a", "new to b", "failed"))?;
    let mut timeline = Timeline { stage, load, start: Instant::now(), shown: 0 };
    timeline.run(TICKS[0], screen)?;
    let time = stage.publish_web(&["a"])?;
    let removed = Instant::now();
    screen.line(&format!("         b's endpoints removed: on all 4 nodes after {} ms", time.as_millis()))?;
    // What was counted until now is a mixture.
    timeline.skip();
    timeline.run(TICKS[1], screen)?;
    stage.print_services(screen)?;
    let returning = Instant::now();
    let time = stage.publish_web(&["a", "b"])?;
    screen.line(&format!("         b's endpoints are back: on all 4 nodes after {} ms", time.as_millis()))?;
    let returned = Instant::now();
    timeline.skip();
    timeline.run(TICKS[2], screen)?;
    Ok(Moments { removed, returning, returned })
}

struct Timeline<'a> {
    stage: &'a Stage,
    load: &'a Load,
    start: Instant,
    /// How many attempts the lines so far tell of.
    shown: usize,
}

impl Timeline<'_> {
    fn skip(&mut self) {
        self.shown = self.load.attempts().len();
    }

    /// So many lines.
    fn run(&mut self, ticks: usize, screen: &Screen) -> Result<()> {
        for _ in 0..ticks {
            thread::sleep(TICK);
            if ending::interrupted() {
                anyhow::bail!("interrupted");
            }
            let all = self.load.attempts();
            let new = Tally::of(self.stage, all[self.shown..].iter());
            self.shown = all.len();
            drop(all);
            let held = self.load.held();
            let b = self.stage.pod_names(&["b"]);
            let alive = held.iter().filter(|held| b.contains(&held.backend.as_str()) && held.broken.is_none()).count();
            drop(held);
            let time = self.start.elapsed().as_secs_f64();
            let Tally { to_a, to_b, failed } = new;
            screen.line(&format!("  {time:>4.1} s {to_a:>9} {to_b:>9} {failed:>9}   {alive} alive"))?;
        }
        Ok(())
    }
}

/// What became of some attempts.
struct Tally {
    to_a: usize,
    to_b: usize,
    failed: usize,
}

impl Tally {
    fn of<'a>(stage: &Stage, attempts: impl Iterator<Item = &'a Attempt>) -> Self {
        let b = stage.pod_names(&["b"]);
        let mut tally = Self { to_a: 0, to_b: 0, failed: 0 };
        for attempt in attempts {
            match &attempt.outcome {
                Ok(name) if b.contains(&name.as_str()) => tally.to_b += 1,
                Ok(_) => tally.to_a += 1,
                Err(_) => tally.failed += 1,
            }
        }
        tally
    }
}

fn judge(stage: &Stage, load: &Load, moments: Moments, screen: &mut Screen) -> Result<()> {
    let Moments { removed, returning, returned } = moments;
    let attempts = load.attempts();
    let Tally { to_a, to_b, failed } = Tally::of(stage, attempts.iter());
    screen.line("")?;
    screen.check(failed == 0, &format!("{failed} of {} new connections failed", to_a + to_b + failed))?;
    let why: BTreeSet<&String> = attempts.iter().filter_map(|attempt| attempt.outcome.as_ref().err()).collect();
    why.iter().try_for_each(|why| screen.line(&format!("        {why}")))?;

    let without = Tally::of(stage, attempts.iter().filter(|one| one.began >= removed && one.began < returning));
    let new = without.to_a + without.to_b + without.failed;
    screen.check(
        without.to_b == 0 && new > 0,
        &format!("{} of the {new} made after `mcs status` returned reached b", without.to_b),
    )?;

    let b = stage.pod_names(&["b"]);
    let held = load.held();
    let to_b = held.iter().filter(|held| b.contains(&held.backend.as_str()));
    let (total, echoes) = to_b.fold((0, 0), |(total, echoes), held| (total + 1, echoes + held.echoes));
    let broken: Vec<&String> = held.iter().filter_map(|held| held.broken.as_ref()).collect();
    screen.check(
        broken.is_empty() && total > 0,
        &format!("{} of {} held connections broke; the {total} to b echoed {echoes} times", broken.len(), held.len()),
    )?;
    broken.iter().try_for_each(|why| screen.line(&format!("        {why}")))?;

    let again = Tally::of(stage, attempts.iter().filter(|one| one.began >= returned));
    screen.check(again.to_b > 0, &format!("b is chosen again after its return: {} connections", again.to_b))
}
