//! Attach by number and generation, and release: beside a look-up by key in `sharded-slab`, which
//! also takes a reference, also checks a generation, and serves the threads of one process.
//!
//! The blocks are parked: attaching takes the first reference, releasing parks the block again.

use std::hint::black_box;
use std::path::Path;

use mainstay_pool::{BlockId, Kind, Pool};
use sharded_slab::Slab;

use super::{Walk, options, shuffled};
use crate::Outcome;
use crate::method::{Plan, Side, Timing, interleave};
use crate::part::Group;
use crate::report::{Aim, Ratio, Report, Unit};

const HOT: &str = "pool.attach_hot";
const HOT_CPU: &str = "pool.attach_hot_cpu";
const HOT_NUMBER: &str = "pool.attach_number_hot";
const RANDOM: &str = "pool.attach_random_1e5";
const RANDOM_CPU: &str = "pool.attach_random_1e5_cpu";
const RANDOM_NUMBER: &str = "pool.attach_number_random_1e5";
const HOT_AIM: &str = "pool.attach_hot_aim";
const HOT_NUMBER_AIM: &str = "pool.attach_number_hot_aim";
const RANDOM_AIM: &str = "pool.attach_random_1e5_aim";
const RANDOM_NUMBER_AIM: &str = "pool.attach_number_random_1e5_aim";

pub(super) const GROUP: Group = Group {
    figures: &[
        HOT,
        HOT_CPU,
        HOT_NUMBER,
        RANDOM,
        RANDOM_CPU,
        RANDOM_NUMBER,
        HOT_AIM,
        HOT_NUMBER_AIM,
        RANDOM_AIM,
        RANDOM_NUMBER_AIM,
    ],
    measure,
};

const BYTES: usize = 64;
const BLOCKS: usize = 100_000;

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let pool = options(BYTES).create_memfd()?;
    let ids = parked(&pool)?;
    let slab: Slab<[u8; BYTES]> = Slab::new();
    let fill = || slab.insert([7; BYTES]).ok_or_else(|| "the slab is full".into());
    let keys: Vec<usize> = (0..BLOCKS).map(|_| fill()).collect::<Outcome<_>>()?;

    let middle = BLOCKS / 2;
    let [ours, numbered, theirs] =
        contest(plan, &pool, &slab, &ids[middle..=middle], &keys[middle..=middle])?;
    report.ratios.push(Ratio::of_wall(HOT, Unit::Ns, &ours, &theirs));
    report.ratios.push(Ratio::of_cpu(HOT_CPU, Unit::NsCpu, &ours, &theirs));
    report.ratios.push(Ratio::of_wall(HOT_NUMBER, Unit::Ns, &numbered, &theirs));
    report.aims.push(Aim::of_ns(HOT_AIM, &ours.cpu, 25.0, Unit::NsCpu));
    report.aims.push(Aim::of_ns(HOT_NUMBER_AIM, &numbered.cpu, 25.0, Unit::NsCpu));

    let (ids, keys) = (shuffled(ids), shuffled(keys));
    let [ours, numbered, theirs] = contest(plan, &pool, &slab, &ids, &keys)?;
    report.ratios.push(Ratio::of_wall(RANDOM, Unit::Ns, &ours, &theirs));
    report.ratios.push(Ratio::of_cpu(RANDOM_CPU, Unit::NsCpu, &ours, &theirs));
    report.ratios.push(Ratio::of_wall(RANDOM_NUMBER, Unit::Ns, &numbered, &theirs));
    report.aims.push(Aim::of_ns(RANDOM_AIM, &ours.cpu, 120.0, Unit::NsCpu));
    report.aims.push(Aim::of_ns(RANDOM_NUMBER_AIM, &numbered.cpu, 120.0, Unit::NsCpu));
    Ok(())
}

fn parked(pool: &Pool) -> Outcome<Vec<BlockId>> {
    let park_one = |_| {
        let block = pool.allocate(Kind::Recoverable)?;
        let id = block.id();
        block.park()?;
        Ok(id)
    };
    (0..BLOCKS).map(park_one).collect()
}

/// By id, by number alone, and the peer.
fn contest(
    plan: &Plan,
    pool: &Pool,
    slab: &Slab<[u8; BYTES]>,
    ids: &[BlockId],
    keys: &[usize],
) -> Outcome<[Timing; 3]> {
    let mut by_id = Walk::new(ids.to_vec());
    let mut by_number = Walk::new(ids.iter().map(|id| id.number).collect::<Vec<u32>>());
    let mut by_key = Walk::new(keys.to_vec());
    let timings = interleave(
        plan,
        vec![
            Side::new("mainstay", move |n| {
                for _ in 0..n {
                    let block = pool.attach(black_box(by_id.step()))?;
                    black_box(block.as_ptr());
                }
                Ok(())
            }),
            Side::new("mainstay", move |n| {
                for _ in 0..n {
                    let block = pool.attach_number(black_box(by_number.step()))?;
                    black_box(block.as_ptr());
                }
                Ok(())
            }),
            Side::new("sharded-slab", move |n| {
                for _ in 0..n {
                    let entry = slab.get(black_box(by_key.step())).ok_or("a key got lost")?;
                    black_box(entry.as_ptr());
                }
                Ok(())
            }),
        ],
    )?;
    timings.try_into().map_err(|_| "three sides give three timings".into())
}
