//! 10^6 blocks of 256 bytes, all held by one process that was killed: open the pool, take back what
//! the dead process held, and have it all again. Beside opening an LMDB environment and walking the
//! same records with a cursor.
//!
//! Each repetition starts from a real death: a child takes all blocks, and is killed. What is timed
//! is the successor's side alone.

use std::hint::black_box;
use std::path::Path;

use mainstay_pool::{Block, Index, Offer, Pool};

use super::MILLION;
use super::holder::{self, BYTES, Place, keep_all};
use crate::clock::Span;
use crate::method::{Plan, Round, Timing, rounds};
use crate::part::Group;
use crate::report::{Aim, Ratio, Report, Unit};
use crate::{Outcome, lmdb};

const RECOVER: &str = "pool.recover_1e6";
const TOUCHED: &str = "pool.recover_1e6_touched";
const MEMFD_AIM: &str = "pool.recover_1e6_memfd_offer_aim";
const FILE_AIM: &str = "pool.recover_1e6_file_offer_aim";
const INDEX_AIM: &str = "pool.recover_1e6_index_aim";

pub(super) const GROUP: Group =
    Group { figures: &[RECOVER, TOUCHED, MEMFD_AIM, FILE_AIM, INDEX_AIM], measure };

fn measure(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let file = Place::create_file(&scratch.join("recover.pool"))?;
    let memfd = Place::create_memfd()?;
    for place in [&file, &memfd] {
        place.leave_to_the_dead(&holder::FILL, MILLION)?;
    }
    let records = scratch.join("recover.lmdb");
    std::fs::create_dir(&records)?;
    lmdb::create(&records, MILLION, BYTES, holder::fill)?;
    let sum = holder::sum_of_all(MILLION);

    let timings = rounds(
        plan.repetitions_heavy,
        &mut [
            Round::new("mainstay", || after_a_death(&file, keep)),
            Round::new("mainstay", || after_a_death(&file, |pool| keep_and_touch(pool, sum))),
            Round::new("mainstay", || after_a_death(&memfd, offer)),
            Round::new("mainstay", || after_a_death(&file, offer)),
            Round::new("mainstay", || after_a_death(&file, keep_with_index)),
            Round::new("lmdb_cursor_only", || walk_lmdb(&records)),
            Round::new("lmdb", || read_lmdb(&records, sum)),
        ],
    )?;
    let [kept, touched, offer_memfd, offer_file, indexed, walked, lmdb]: [Timing; 7] =
        timings.try_into().map_err(|_| "seven sides give seven timings")?;
    report.ratios.push(Ratio::of_wall(RECOVER, Unit::Ms, &kept, &lmdb));
    report.ratios.push(Ratio::of_wall(RECOVER, Unit::Ms, &kept, &walked));
    report.ratios.push(Ratio::of_wall(TOUCHED, Unit::Ms, &touched, &lmdb));
    report.aims.push(Aim::of_timing(MEMFD_AIM, &offer_memfd, 15.0, Unit::Ms));
    report.aims.push(Aim::of_timing(FILE_AIM, &offer_file, 25.0, Unit::Ms));
    report.aims.push(Aim::of_timing(INDEX_AIM, &indexed, 60.0, Unit::Ms));
    Ok(())
}

/// Lets a process take all blocks and die, then times `open` from before the pool is joined; what
/// `open` returns is let go outside the figure.
fn after_a_death<T>(place: &Place, open: impl FnOnce(Pool) -> Outcome<T>) -> Outcome<Span> {
    place.leave_to_the_dead(&holder::TAKE, MILLION)?;
    let (span, opened) = Span::of(|| open(place.join()?));
    drop(opened?);
    Ok(span)
}

/// All blocks of a pool, held. Declared in the order in which they are let go.
struct Kept {
    blocks: Vec<Block>,
    pool: Pool,
}

/// Every block back, as a guard.
fn keep(pool: Pool) -> Outcome<Kept> {
    let blocks = keep_all(&pool, Offer::Orphans, MILLION)?;
    if blocks.len() != MILLION as usize {
        return Err(format!("{} blocks came back, not {MILLION}", blocks.len()).into());
    }
    Ok(Kept { blocks, pool })
}

/// The same, and every byte read.
fn keep_and_touch(pool: Pool, expected: u64) -> Outcome<Kept> {
    let kept = keep(pool)?;
    let mut value = [0; BYTES];
    let mut total = 0_u64;
    for block in &kept.blocks {
        block.read(0, &mut value)?;
        total = total.wrapping_add(holder::sum(&value));
    }
    equal(total, expected)?;
    Ok(kept)
}

/// Every block seen, none taken.
fn offer(pool: Pool) -> Outcome<Pool> {
    let offered = pool.recover(Offer::Orphans)?.map(black_box).count();
    if offered != MILLION as usize {
        return Err(format!("{offered} blocks offered, not {MILLION}").into());
    }
    Ok(pool)
}

/// Every block back and to be found by its UUID.
fn keep_with_index(pool: Pool) -> Outcome<(Kept, Index)> {
    let index = Index::default();
    let kept = keep(pool)?;
    index.attach(&kept.pool)?;
    Ok((kept, index))
}

fn equal(total: u64, expected: u64) -> Outcome<()> {
    if total == expected { Ok(()) } else { Err("what was read is not what was written".into()) }
}

fn walk_lmdb(directory: &Path) -> Outcome<Span> {
    let mut count = 0;
    let (span, env) = Span::of(|| {
        lmdb::open_and_read(directory, |value| {
            black_box(value);
            count += 1;
        })
    });
    env?.prepare_for_closing().wait();
    if count != MILLION {
        return Err(format!("{count} records, not {MILLION}").into());
    }
    Ok(span)
}

fn read_lmdb(directory: &Path, expected: u64) -> Outcome<Span> {
    let mut total = 0_u64;
    let (span, env) = Span::of(|| {
        lmdb::open_and_read(directory, |value| total = total.wrapping_add(holder::sum(value)))
    });
    env?.prepare_for_closing().wait();
    equal(total, expected)?;
    Ok(span)
}
