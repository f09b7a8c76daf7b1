//! Groups that talk over a broadcast medium that loses, doubles and delays, with partitions, deaths,
//! clocks that jump, and members that lie: in the end all have the same log.
//!
//! Most seeds are groups of two to some tens with every fault there is, every fiftieth one of fifty
//! to two hundred; up to a third of the members lie. Every hundredth seed is a large group with
//! nothing but loss, in which the copies are counted that repair takes: beside the floor, the fewest
//! that independent loss allows even a sender that knows all. In some of these a part is cut off for
//! a while: then only the end counts.

mod audience;
mod hostile;
mod member;
mod place;

use crate::registry::{Options, Outcome, Planted, Scenario};
use audience::{Audience, Writing};
use hostile::Hostile;
use mainstay_sds::{Config, FilterPolicy, Keep};
use mainstay_sim::{
    Boot, Chance, Error, Fault, FaultSet, Faults, Links, NodeId, Setup, Time, Ways, World, stream,
};
use member::{Flaw, Member, Someone};
use std::time::Duration;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "sds",
    about: "groups of 2 to 1,000 over a lossy broadcast: one log, each message delivered once",
    work: "messages processed",
    run: play,
    planted: &FLAWS,
};

const FLAWS: [Planted; Flaw::ALL.len()] = Planted::all(&Flaw::ALL);

/// One in so many seeds is a large group, and one in so many one of up to some hundreds.
const LARGE_EVERY: u64 = 100;
const LARGE: usize = 1000;
const MIDDLE_EVERY: u64 = 50;

/// Members that are cut off from a large group, when, and for how long.
const CUT_OFF: u32 = 300;
const CUT_AFTER: Duration = Duration::from_secs(100);
const CUT_FOR: Duration = Duration::from_secs(150);
const LOSS_PPM: u32 = 200_000;

/// The shortest time between two faults on average, also in a group of some hundreds: who comes
/// back there reads thousands of messages, which is most of the work.
const ONCE_IN: Duration = Duration::from_secs(1);
const MIDDLE_ONCE_IN: Duration = Duration::from_secs(5);

/// How long a hostile member is silent at most.
const HOSTILE_PAUSE: Duration = Duration::from_secs(3);

/// How long everything may go wrong, and how long it may take after that until all agree.
const SAFETY: Duration = Duration::from_secs(400);
const LIVENESS: Duration = Duration::from_secs(4 * 3600);

/// What a large group may take, in floors.
const FLOORS_MAX: f64 = 1.3;

/// What the message of that id says, as it was sent.
fn content_of(id: &str, sender: &[u8]) -> Vec<u8> {
    format!("{id} by {}", String::from_utf8_lossy(sender)).into_bytes()
}

fn play(seed: u64, options: &Options) -> Outcome {
    let flaw = options.flaw(&FLAWS, Flaw::ALL.iter().map(|(flaw, ..)| *flaw));
    if flaw.is_none() && seed.is_multiple_of(LARGE_EVERY) {
        large(seed, options)
    } else {
        small(seed, options, flaw)
    }
}

fn outcome(world: &World<Someone>, audience: &Audience, result: Result<(), Error>) -> Outcome {
    Outcome {
        result: result.map_err(|error| error.to_string()),
        trace_hash: world.trace_hash(),
        events: world.events(),
        simulated: world.now().since(Time::START),
        worked: audience.processed(),
    }
}

/// Everything goes wrong.
fn small(seed: u64, options: &Options, flaw: Option<Flaw>) -> Outcome {
    let mut rng = stream(seed, "set-up");
    let is_middle = flaw.is_none() && seed.is_multiple_of(MIDDLE_EVERY);
    let sizes: &[usize] =
        if is_middle { &[50, 100, 200] } else { &[2, 2, 3, 3, 4, 5, 6, 8, 10, 14, 20, 30] };
    let size = *rng.pick(sizes);
    // Half of the groups are honest.
    let hostile = if rng.chance(500_000) { rng.below(size as u64 / 3 + 1) as usize } else { 0 };
    // However many they are, what they say fits into the others' logs.
    let pause = HOSTILE_PAUSE * hostile.max(1) as u32;
    let mut config = if rng.chance(700_000) { Config::lip() } else { Config::nim_own() };
    (config.only_own_peers, config.filter_capacity) = (true, 500);
    config.filter_policy = *rng.pick(&[FilterPolicy::Always, FilterPolicy::Sparse]);
    config.participants = size as u32;
    config.causal = rng.between(1, 10) as usize;
    (config.t_min_ms, config.t_max_ms) = *rng.pick(&[(5_000, 20_000), (30_000, 120_000)]);
    config.sync_interval_ms = rng.between(5_000, 30_000);
    config.resend_ms = rng.between(10_000, 60_000);
    config.lost_after_ms = None;
    (config.keep, config.confirm) = (Keep::Durable, true);
    let profile = config.profile;
    let make = move |boot: Boot| {
        if boot.id.index() >= size - hostile {
            Someone::Hostile(Hostile::new(boot, profile, size as u64, pause))
        } else {
            Someone::Member(Box::new(Member::new(boot, &config, flaw)))
        }
    };
    let mut world = World::new(seed, Setup::default(), make);
    if let Some(sink) = options.sink() {
        world.trace_to(sink);
    }
    world.add_nodes(size);
    let leave_ppm = if size - hostile > 4 { *rng.pick(&[0, 0, 20_000]) } else { 0 };
    let writing = Writing {
        writers: rng.between(1, (size - hostile) as u64),
        pause: Duration::from_millis(rng.between(200, 10_000)),
        count: rng.between(5, 60),
        leave_ppm,
        typing: rng.chance(500_000),
        rng,
    };
    let mut audience = Audience::new(size, hostile, writing, true);
    let once_in = if is_middle { MIDDLE_ONCE_IN } else { ONCE_IN };
    let result = small_story(&mut world, &mut audience, seed, once_in);
    outcome(&world, &audience, result)
}

fn small_story(
    world: &mut World<Someone>,
    audience: &mut Audience,
    seed: u64,
    once_in: Duration,
) -> Result<(), Error> {
    // A damaged message that can still be read says something else in its sender's name: against
    // that only signatures help. Streams are not used.
    let unused = FaultSet::of(&[Fault::Break, Fault::Chop]);
    let disk = FaultSet::of(&[Fault::SyncError, Fault::NoSpace, Fault::SlowDisk]);
    let allowed = (FaultSet::NETWORK | FaultSet::PROCESS | disk).without(unused);
    let mut faults = Faults::drawn(seed, allowed);
    // Clocks further off than a channel believes are refused, as they should be.
    faults.jump_max = faults.jump_max.min(Duration::from_secs(120));
    faults.once_in = faults.once_in.max(once_in);
    world.unleash(&faults);
    audience.start(world);
    world.run(SAFETY, audience)?;
    world.heal();
    audience.heal(world, true);
    settle(world, audience)
}

fn settle(world: &mut World<Someone>, audience: &mut Audience) -> Result<(), Error> {
    let (agreed, _) = world.run_until(LIVENESS, audience, |audience, _| audience.agreed)?;
    if agreed {
        return Ok(());
    }
    let why = &audience.why_not;
    let what = format!("{LIVENESS:?} after all was mended they do not agree: {why}");
    Err(Error::Failed { at: world.now(), what })
}

/// The fewest copies of a message beside the first that reach all but one in a group, when each
/// copy is lost by each with a chance of `loss`.
fn floor(size: usize, loss: f64) -> f64 {
    let others = (size - 1) as i32;
    (1..200).map(|copies| 1.0 - (1.0 - loss.powi(copies)).powi(others)).sum()
}

/// A thousand, and nothing but loss: nobody cites the last message, and in some seeds a third of the
/// writers leave when they have sent theirs.
fn large(seed: u64, options: &Options) -> Outcome {
    let leavers = (seed / LARGE_EVERY).is_multiple_of(2);
    let mut config = Config::lip();
    (config.only_own_peers, config.filter_capacity) = (true, 500);
    config.filter_policy = FilterPolicy::Sparse;
    config.participants = LARGE as u32;
    config.lost_after_ms = None;
    let make = move |boot: Boot| Someone::Member(Box::new(Member::new(boot, &config, None)));
    let links = Links {
        latency_min: Duration::from_millis(50),
        latency_max: Duration::from_millis(120),
        jitter: Duration::from_millis(30),
        loss_ppm: LOSS_PPM,
        ..Links::default()
    };
    let mut world = World::new(seed, Setup { links, ..Setup::default() }, make);
    if let Some(sink) = options.sink() {
        world.trace_to(sink);
    }
    world.add_nodes(LARGE);
    let writing = Writing {
        rng: stream(seed, "writing"),
        writers: LARGE as u64,
        pause: Duration::from_secs(5),
        count: 60,
        leave_ppm: if leavers { 333_333 } else { 0 },
        typing: false,
    };
    let mut audience = Audience::new(LARGE, 0, writing, false);
    let is_cut = (seed / LARGE_EVERY).is_multiple_of(3);
    let mut result = large_story(&mut world, &mut audience, is_cut);
    let floor = floor(LARGE, f64::from(LOSS_PPM) / 1e6);
    let copies = audience.copies as f64 / audience.written().max(1) as f64;
    let left = audience.left.len();
    println!(
        "sds seed {seed}: {LARGE} participants, {left} of the writers left, {} messages, {} syncs: \
         {copies:.2} copies each, the floor is {floor:.2}: {:.2} times",
        audience.written(),
        audience.syncs,
        copies / floor
    );
    // Whoever was cut off may ask for everything at once.
    if result.is_ok() && !is_cut && copies > FLOORS_MAX * floor {
        let what = format!("{copies:.2} copies a message, more than {FLOORS_MAX} x {floor:.2}");
        result = Err(Error::Failed { at: world.now(), what });
    }
    outcome(&world, &audience, result)
}

fn large_story(
    world: &mut World<Someone>,
    audience: &mut Audience,
    is_cut: bool,
) -> Result<(), Error> {
    audience.start(world);
    if is_cut {
        world.run(CUT_AFTER, audience)?;
        let some: Vec<NodeId> = (0..CUT_OFF).map(NodeId).collect();
        let cut = world.partition(&some, Ways::Both);
        world.run(CUT_FOR, audience)?;
        world.mend(cut);
        world.run(SAFETY - CUT_AFTER - CUT_FOR, audience)?;
    } else {
        world.run(SAFETY, audience)?;
    }
    // Nothing is mended: there is loss to the end, and nobody is told anything.
    audience.heal(world, false);
    settle(world, audience)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_that_of_the_literature_for_three_groups() {
        for (size, loss, expected) in [(100, 0.2, 2.72), (1000, 0.2, 4.15), (100, 0.05, 1.23)] {
            assert!((floor(size, loss) - expected).abs() < 0.01, "{size} {loss}");
        }
    }
}
