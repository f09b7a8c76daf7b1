//! One thread allocates and releases blocks of 64 bytes, beside the allocator of the C library.
//!
//! Every side hands out zeroed memory, writes its first eight bytes, shows its address to the
//! optimiser as used, and gives it back. The peers' memory is gone when the process is; that is the
//! head start they have.

use std::hint::black_box;
use std::path::Path;

use mainstay_pool::{Block, Kind, Pool};

use super::options;
use crate::Outcome;
use crate::method::{Plan, Side, Timing, interleave};
use crate::part::Group;
use crate::raw::Calloc;
use crate::report::{Aim, Ratio, Report, Unit};

const PAIR: &str = "pool.alloc_release_64";
const PAIR_CPU: &str = "pool.alloc_release_64_cpu";
const TRANSIENT: &str = "pool.alloc_drop_transient_64";
const DEEP: &str = "pool.alloc_release_64_256_deep";
const AIM: &str = "pool.alloc_release_64_aim";

pub(super) const GROUP: Group = Group { figures: &[PAIR, PAIR_CPU, TRANSIENT, DEEP, AIM], measure };

const BYTES: usize = 64;
const WORDS: usize = BYTES / size_of::<u64>();
/// Blocks taken before the first goes back, where the figure's name says "deep": more than the
/// allocators keep at hand for one thread.
const DEPTH: u64 = 256;

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let pool = options(BYTES).create_memfd()?;
    let timings = interleave(
        plan,
        vec![
            Side::new("mainstay", |n| Ok(pairs(&pool, n)?)),
            Side::new("mainstay", |n| Ok(transient_pairs(&pool, n)?)),
            Side::new("calloc_free", calloc_pairs),
            Side::new("box", box_pairs),
        ],
    )?;
    let [pair, transient, calloc, boxed]: [Timing; 4] =
        timings.try_into().map_err(|_| "four sides give four timings")?;
    report.ratios.push(Ratio::of_wall(PAIR, Unit::Ns, &pair, &calloc));
    report.ratios.push(Ratio::of_wall(PAIR, Unit::Ns, &pair, &boxed));
    report.ratios.push(Ratio::of_cpu(PAIR_CPU, Unit::NsCpu, &pair, &calloc));
    report.ratios.push(Ratio::of_wall(TRANSIENT, Unit::Ns, &transient, &calloc));
    report.aims.push(Aim::of_ns(AIM, &pair.cpu, 40.0, Unit::NsCpu));

    let deep = interleave(
        plan,
        vec![
            Side::new("mainstay", |n| deep(n, || Ok(touched(&pool, Kind::Transient)?))),
            Side::new("calloc_free", |n| deep(n, calloc_touched)),
        ],
    )?;
    report.ratios.push(Ratio::of_wall(DEEP, Unit::Ns, &deep[0], &deep[1]));
    Ok(())
}

#[inline(always)]
fn touched(pool: &Pool, kind: Kind) -> Result<Block, mainstay_pool::Error> {
    let block = pool.allocate(kind)?;
    block.write(0, &black_box(1_u64).to_le_bytes())?;
    black_box(block.as_ptr());
    Ok(block)
}

#[inline]
fn calloc_touched() -> Outcome<Calloc> {
    let mut memory = Calloc::new(black_box(WORDS)).ok_or("calloc found no memory")?;
    memory.touch(black_box(1));
    black_box(memory.address());
    Ok(memory)
}

fn pairs(pool: &Pool, count: u64) -> Result<(), mainstay_pool::Error> {
    for _ in 0..count {
        touched(pool, Kind::Recoverable)?.free()?;
    }
    Ok(())
}

/// Freed by being forgotten.
fn transient_pairs(pool: &Pool, count: u64) -> Result<(), mainstay_pool::Error> {
    for _ in 0..count {
        drop(touched(pool, Kind::Transient)?);
    }
    Ok(())
}

fn calloc_pairs(count: u64) -> Outcome<()> {
    for _ in 0..count {
        drop(calloc_touched()?);
    }
    Ok(())
}

fn box_pairs(count: u64) -> Outcome<()> {
    for _ in 0..count {
        let mut memory = Box::new([0_u64; WORDS]);
        black_box(memory.as_mut_ptr());
        memory[0] = black_box(1);
        black_box(memory.as_mut_ptr());
        drop(memory);
    }
    Ok(())
}

fn deep<T>(count: u64, mut take: impl FnMut() -> Outcome<T>) -> Outcome<()> {
    let mut held = Vec::with_capacity(DEPTH as usize);
    for done in 0..count {
        held.push(take()?);
        if held.len() as u64 == DEPTH || done + 1 == count {
            held.clear();
        }
    }
    Ok(())
}
