//! What a death left behind. Runs in a process of its own, within a time limit, while the survivor
//! goes on writing its pairs.

use super::{
    board::{Board, PAIRS, SURVIVOR, VICTIM},
    worker::value_of,
};
use crate::{
    finding::{Check, Finding},
    verdict::{Harm, Verdict},
};
use mainstay_base::crc32c;
use mainstay_pool::{Pool, checkpoint};
use mainstay_track::Tracker;
use std::{fs, path::Path, sync::atomic::Ordering::SeqCst, time::Duration};

/// Longer than any batch of the survivor.
const CUT_WAIT: Duration = Duration::from_secs(8);

pub(crate) fn all(file: &Path, board: &Board, verdict: &Verdict) -> i32 {
    let checks = [in_memory, in_headers, in_the_checkpoint];
    for check in checks {
        if let Err(Finding { harm, what }) = check(file, board) {
            verdict.report(harm, &what);
            return 1;
        }
    }
    0
}

fn stuck(error: impl std::fmt::Display) -> Finding {
    Finding { harm: Harm::Stuck, what: error.to_string() }
}

fn found<T>(harm: Harm, what: String) -> Check<T> {
    Err(Finding { harm, what })
}

/// Both values of a pair.
fn pair_of(pool: &Pool, board: &Board, who: usize, pair: usize) -> Check<[u64; 2]> {
    let mut values = [0; 2];
    for (value, number) in values.iter_mut().zip(&board.blocks[who][pair]) {
        let number = number.load(SeqCst) as u32 - 1;
        let Some((_, data)) = pool.copy_block(number).map_err(stuck)? else {
            return found(Harm::Lost, format!("block {number} of a pair is gone"));
        };
        *value = value_of(&data);
    }
    Ok(values)
}

/// Nothing that a batch had ended with is lost, and no block is nobody's.
fn in_memory(file: &Path, board: &Board) -> Check<()> {
    let pool = Pool::join_any(file).map_err(stuck)?;
    pool.reap().map_err(stuck)?;
    // Neither a batch nor a cut of the dead is waited for.
    drop(pool.cut(CUT_WAIT).map_err(stuck)?);
    for pair in 0..PAIRS {
        let (begun, ended) =
            (board.begun[VICTIM][pair].load(SeqCst), board.ended[VICTIM][pair].load(SeqCst));
        let values = pair_of(&pool, board, VICTIM, pair)?;
        if values.iter().any(|value| *value < ended) {
            return found(Harm::Lost, format!("pair {pair}: {values:?}, ended with {ended}"));
        }
        let in_the_middle = begun != ended;
        if values.iter().any(|value| *value > begun) || (values[0] != values[1] && !in_the_middle) {
            return found(Harm::Torn, format!("pair {pair}: {values:?} of {ended} to {begun}"));
        }
        let ended = board.ended[SURVIVOR][pair].load(SeqCst);
        let values = pair_of(&pool, board, SURVIVOR, pair)?;
        if values.iter().any(|value| *value < ended) {
            return found(Harm::Lost, format!("survivor's pair {pair}: {values:?} < {ended}"));
        }
    }
    let report = pool.verify().map_err(stuck)?;
    if !report.is_sound() {
        return found(Harm::Torn, format!("{report:?}"));
    }
    let cached = pool.info().map_err(stuck)?.counts.cached;
    if report.hidden > 0 || cached > 0 {
        return found(Harm::Leaked, format!("{} hidden, {cached} cached blocks", report.hidden));
    }
    pool.close().map_err(stuck)
}

/// A new tracker finds all that changed: after its first flush every header fits its data.
fn in_headers(file: &Path, board: &Board) -> Check<()> {
    let pool = Pool::join_any(file).map_err(stuck)?;
    let tracker = Tracker::new(&pool).map_err(stuck)?;
    tracker.flush().map_err(stuck)?;
    let ground = pool.ground().map_err(stuck)?;
    let mut piece = Vec::new();
    for number in board.blocks[VICTIM].iter().flatten() {
        let number = number.load(SeqCst) as u32 - 1;
        let look = ground.look(number, &mut piece).map_err(stuck)?;
        if look.is_none_or(|look| look.checksum != look.sums.crc32c) {
            return found(Harm::Lost, format!("a change of block {number} was not reported"));
        }
    }
    Ok(())
}

/// What a power cut now would leave: the last completed checkpoint, with whole batches.
fn in_the_checkpoint(file: &Path, board: &Board) -> Check<()> {
    let checkpoint = file.with_extension("pool.checkpoint");
    let completed = board.kept_by.load(SeqCst);
    if completed == 0 {
        return Ok(());
    }
    let copy = file.with_extension("copy");
    let _ = fs::remove_file(&copy);
    if let Err(error) = checkpoint::restore(&checkpoint, &copy) {
        return found(Harm::Lost, format!("no checkpoint comes back: {error}"));
    }
    let pool = Pool::join_any(&copy).map_err(stuck)?;
    for who in [VICTIM, SURVIVOR] {
        for pair in 0..PAIRS {
            let values = pair_of(&pool, board, who, pair)?;
            // While the victim was noting what it had kept, the older note holds too.
            let kept = board.kept[who][pair].load(SeqCst);
            if values[0] < kept {
                return found(Harm::Lost, format!("checkpoint: pair {pair} {values:?} < {kept}"));
            }
            let begun = board.begun[who][pair].load(SeqCst);
            if values[0] != values[1] || values[0] > begun {
                return found(Harm::Torn, format!("checkpoint: pair {pair} {values:?} of {begun}"));
            }
        }
    }
    for block in pool.blocks().map_err(stuck)? {
        let Some((info, data)) = pool.copy_block(block.id.number).map_err(stuck)? else { continue };
        let look = pool.ground().map_err(stuck)?.look(info.id.number, &mut Vec::new());
        if look.map_err(stuck)?.is_none_or(|look| look.checksum != crc32c(&data)) {
            return found(Harm::Torn, format!("checkpoint: block {} and its checksum", info.id));
        }
    }
    pool.close().map_err(stuck)
}
