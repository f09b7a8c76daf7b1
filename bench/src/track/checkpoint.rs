//! Making 1 % of the blocks durable, beside `msync` of a whole mapping, which keeps no consistent
//! state, and beside a commit of the same records to LMDB.
//!
//! A sample is many checkpoints in a row, so that each contains what is not done every time: the
//! folding of a log into the image.

use std::fs::File;
use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, PutFlags};
use mainstay_pool::PoolOptions;
use mainstay_track::Tracker;

use super::peers::Synced;
use super::{PAGE, a_hundredth, filled};
use crate::clock::Span;
use crate::method::{Plan, Round, rounds};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};
use crate::{Outcome, raw};

const CHECKPOINT: &str = "track.checkpoint_1pct";

pub(super) const GROUP: Group = Group { figures: &[CHECKPOINT], measure };

/// 128 MiB.
const PAGES: usize = 32_768;
/// Checkpoints in a sample. A log is folded when it is a quarter of the image.
const CHECKPOINTS: u64 = 26;
const MAP_BYTES: usize = 1 << 30;

fn measure(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let disk = on_a_disk(scratch)?;
    let scratch = disk.as_ref().map_or(scratch, |disk| disk.path());
    let pool = PoolOptions::new("bench", PAGE).create(scratch.join("bench.pool"))?;
    let blocks = filled(&pool, PAGES)?;
    let tracker = Tracker::new(&pool)?;
    let mut checkpoints = tracker.checkpoints()?;
    checkpoints.checkpoint()?;

    let file =
        File::options().read(true).write(true).create_new(true).open(scratch.join("mapped"))?;
    let synced = Synced::new(&file, PAGES)?;

    let directory = scratch.join("lmdb");
    std::fs::create_dir(&directory)?;
    let env = raw::open_lmdb(&directory, MAP_BYTES)?;
    let txn = env.write_txn()?;
    let opened = env.create_databases_and_commit(txn, |maker, txn| {
        let records: Database<'_, Bytes, Bytes> = maker.create_database(txn, None)?;
        heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(records))
    })?;
    let records = opened.commit().ok_or("LMDB did not commit an empty database")?;
    let mut txn = env.write_txn()?;
    for number in 0..PAGES as u32 {
        records.put_with_flags(&mut txn, PutFlags::APPEND, &number.to_be_bytes(), &[1; PAGE])?;
    }
    txn.commit()?;

    let (mut one, mut two, mut three) = (0, 0, 0);
    let timings = rounds(
        plan.repetitions_heavy,
        &mut [
            Round::new("mainstay", || {
                sample(&mut one, |seed| {
                    let page = [seed as u8; PAGE];
                    for at in a_hundredth(PAGES, seed) {
                        blocks[at].write(0, &page)?;
                    }
                    match checkpoints.checkpoint()?.blocks {
                        written if written == PAGES as u64 / 100 => Ok(()),
                        written => Err(format!("{written} blocks were written").into()),
                    }
                })
            }),
            Round::new("msync", || {
                sample(&mut two, |seed| {
                    a_hundredth(PAGES, seed).into_iter().for_each(|at| synced.write(at, seed));
                    synced.sync()
                })
            }),
            Round::new("lmdb", || {
                sample(&mut three, |seed| {
                    let page = [seed as u8; PAGE];
                    let mut txn = env.write_txn()?;
                    for at in a_hundredth(PAGES, seed) {
                        records.put(&mut txn, &(at as u32).to_be_bytes(), &page)?;
                    }
                    Ok(txn.commit()?)
                })
            }),
        ],
    )?;
    for peer in &timings[1..] {
        report.ratios.push(Ratio::of_wall(CHECKPOINT, Unit::Ms, &timings[0], peer));
    }
    Ok(())
}

/// A folder on a disk, if the run's own is in memory, where a sync costs nothing.
fn on_a_disk(scratch: &Path) -> Outcome<Option<tempfile::TempDir>> {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let in_memory = |path: &Path| {
        rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == TMPFS_MAGIC)
    };
    if !in_memory(scratch) {
        return Ok(None);
    }
    for place in [Path::new("/var/tmp"), Path::new("."), &std::env::temp_dir()] {
        if !in_memory(place)
            && let Ok(folder) = tempfile::tempdir_in(place)
        {
            return Ok(Some(folder));
        }
    }
    Err("there is no folder on a disk: set TMPDIR to one".into())
}

/// Many in a row, each with another hundredth of the pages.
fn sample(seed: &mut u64, mut each: impl FnMut(u64) -> Outcome<()>) -> Outcome<Span> {
    let (span, done) = Span::of(|| {
        for _ in 0..CHECKPOINTS {
            *seed += 1;
            each(*seed)?;
        }
        Ok(())
    });
    done.map(|()| span.per(CHECKPOINTS))
}
