//! What a connect costs, by the CPU time of the thread that does it.
//!
//! UDP *re-connects* are the meter: `connect(2)` on one socket again and again is the shortest system call that
//! runs the hook, so a few nanoseconds show, which drown in a TCP handshake's 20 µs. In each round every variant has its
//! turn, in another order each time, and what a variant costs is the median over the rounds of its difference *in
//! that round*: other load, clock rate and temperature drift out of it. CPU time instead of wall time leaves out what
//! other processes took; what they do to the caches stays, as the spread.
//!
//! ```text
//!  no program      cgroup `none`,  while nothing of ours is attached anywhere on this machine
//!  … elsewhere     cgroup `none`,  while the others are attached to theirs: what the kernel's switched-on hook costs
//!  empty program   cgroup `empty`: r0 = 1; exit                           what any program at the hook costs
//!  miss            cgroup `one`:   address outside of the ClusterSet's CIDRs, and inside, but no frontend
//!  hit             cgroup `one`:   1 service × 100 backends, reverse state written
//!                  cgroup `kinds`: the same with affinity, with weights
//!                  cgroup `many`:  10 000 services × 100 backends; one VIP again and again, VIPs at random
//! ```
//! All destinations, translated or not, lie behind the pod's default route. Beside the meter: fresh sockets
//! (socket, connect, close) and TCP handshakes over loopback (connect, accept, close by reset).
//!
//! The kernel's hook is a static branch for the whole machine: with the first program in any cgroup, every connect of every
//! cgroup takes the way past it (for UDP with a socket lock more). So "no program" must be measured with all of them
//! detached, and no other program on the machine: rounds in which there is one are made again, and where there always is
//! one, what a hit costs over none comes out too low, and the bench says so.
//!
//! A miss differs from the empty program by less than a system call's noise, so [`stats`] reads the kernel's own run-time
//! statistics of the programs.

mod meter;
mod stats;
mod variants;

use anyhow::{Context as _, Result};

use self::meter::{Case, fresh, handshakes, in_turn, reconnects};
use self::variants::Variants;
use crate::Size;
use crate::figures::{Found, Runs, Table, at_most, digits, quartiles};
use crate::site::{Site, leave};

/// The name of the variant without a program; others of the kind begin with it.
const NONE: &str = "no program";

/// Rounds and connects a round. Many short rounds rather than few long ones: what shares this machine comes and goes within
/// milliseconds, and only what ran close together compares.
struct Effort {
    rounds: usize,
    connects: u32,
    fresh: u32,
    handshakes: u32,
    stats_rounds: usize,
}

impl Effort {
    fn of(size: Size) -> Self {
        match size {
            Size::Quick => Self { rounds: 12, connects: 4_000, fresh: 500, handshakes: 100, stats_rounds: 10 },
            Size::Usual | Size::Full => {
                Self { rounds: 320, connects: 5_000, fresh: 800, handshakes: 100, stats_rounds: 160 }
            }
        }
    }
}

pub(crate) fn run(size: Size) -> Result<Found> {
    let effort = Effort::of(size);
    let site = Site::new()?;
    // The sockets belong to the pod's network namespace: everything runs on one thread inside.
    site.pod().try_run(|| {
        leave()?;
        let variants = Variants::set_up(&site, size).context("set up what is to be measured")?;
        measure(&variants, &effort)
    })?
}

fn measure(variants: &Variants<'_>, effort: &Effort) -> Result<Found> {
    let mut found = Found::default();
    let attach = |wanted| variants.attach(wanted);

    let v4 = in_turn("UDP re-connects, IPv4", variants.v4()?, effort.rounds, attach, |case| {
        reconnects(case, effort.connects)
    })?;
    println!("UDP re-connects, IPv4 ({} rounds of {}, thread CPU time)", effort.rounds, effort.connects);
    print(&v4, "ns", "reconnect", &mut found);
    let v6 = in_turn("UDP re-connects, IPv6", variants.v6()?, effort.rounds, attach, |case| {
        reconnects(case, effort.connects)
    })?;
    println!("UDP re-connects, IPv6");
    print(&v6, "ns", "reconnect6", &mut found);

    let sockets =
        in_turn("fresh UDP sockets", variants.fresh()?, effort.rounds, attach, |case| fresh(case, effort.fresh))?;
    println!("Fresh UDP sockets, IPv4 (socket, connect, close; {} a round)", effort.fresh);
    print(&sockets, "ns", "fresh", &mut found);
    let listener = variants.listener()?;
    let tcp = in_turn("TCP handshakes", variants.tcp()?, effort.rounds, attach, |case| {
        handshakes(case, &listener, effort.handshakes)
    })?;
    println!("TCP over loopback, IPv4 (connect, accept, close by reset; {} a round)", effort.handshakes);
    print(&tcp, "ns", "tcp", &mut found);

    stats::run(variants, effort.stats_rounds, effort.connects, &mut found)?;
    goals(&v4, "", &mut found)?;
    goals(&v6, ", IPv6", &mut found)?;
    let (one, many) = (cost(&v4, "hit")?, cost(&v4, "hit, 10 000 × 100, one VIP")?);
    found.goals.push(at_most(
        "hit of one VIP at 10 000 × 100, as a ratio to 1 × 100 (cost over no program)",
        many / one,
        1.1,
        "",
    ));
    Ok(found)
}

fn goals(results: &[(Case, Runs)], which: &str, found: &mut Found) -> Result<()> {
    let over_empty = named(results, "hit")?.over(named(results, "empty program")?).median();
    found.goals.push(at_most(format!("hit over no program{which}"), cost(results, "hit")?, 400.0, "ns"));
    found.goals.push(at_most(format!("hit over an empty program{which}"), over_empty, 150.0, "ns"));
    // The two bounds as one that does not drift with the machine's clock: 400 over none and 150 over an empty program leave
    // 250 for the empty program itself.
    found.goals.push(at_most(
        format!("hit over no program{which}, in units of what an empty program costs"),
        cost(results, "hit")? / cost(results, "empty program")?,
        400.0 / 250.0,
        "",
    ));
    Ok(())
}

/// What a variant costs over no program.
fn cost(results: &[(Case, Runs)], name: &str) -> Result<f64> {
    Ok(named(results, name)?.over(named(results, "no program")?).median())
}

fn named<'a>(results: &'a [(Case, Runs)], name: &str) -> Result<&'a Runs> {
    let found = results.iter().find(|(case, _)| case.name == name).map(|(_, runs)| runs);
    found.with_context(|| format!("connect: no variant {name}"))
}

/// A table with all variants, each against the first, which is without a program.
fn print(results: &[(Case, Runs)], unit: &'static str, group: &str, found: &mut Found) {
    let mut table = Table::new(["", unit, "p25–p75", "ratio", "over none", "p25–p75", "over empty", "p25–p75"]);
    for (case, runs) in results {
        let baseline = results.iter().find(|(other, _)| other.name == case.against).map_or(runs, |(_, runs)| runs);
        let empty = results.iter().find(|(other, _)| other.name == "empty program").map_or(runs, |(_, runs)| runs);
        let figure = runs.figure_against(format!("connect/{group}/{}", case.name), unit, baseline);
        let over = runs.over(baseline);
        let over_empty = runs.over(empty);
        let difference = |is_shown: bool, over: &Runs| {
            if is_shown { (digits(over.median()), quartiles(over.spread())) } else { <(String, String)>::default() }
        };
        let is_hit = case.name != case.against;
        let (over_text, over_spread) = difference(is_hit, &over);
        let is_over_empty = is_hit && case.against == "no program" && case.name != "empty program";
        let (empty_text, empty_spread) = difference(is_over_empty, &over_empty);
        table.row([
            case.name.to_owned(),
            digits(figure.value),
            quartiles(runs.spread()),
            crate::figures::ratio(figure.ratio.unwrap_or(f64::NAN)),
            over_text,
            over_spread,
            empty_text,
            empty_spread,
        ]);
        found.figures.push(figure);
        if is_hit {
            found.figures.push(over.figure(format!("connect/{group}/{}: over {}", case.name, case.against), unit));
        }
        if is_over_empty {
            found.figures.push(over_empty.figure(format!("connect/{group}/{}: over empty program", case.name), unit));
        }
    }
    println!("{table}");
}
