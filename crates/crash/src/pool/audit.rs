//! Checks of a whole pool, the same in every suite.

use crate::{
    finding::{Check, ensure},
    pool::contents::{BLOCK_SIZE, Contents},
    verdict::Harm::{Leaked, Lost, Torn},
};
use mainstay_pool::{BlockId, Error, Kind, Pool, State, VerifyReport};
use std::collections::{HashMap, HashSet};

/// No impossible word, no word that names a slot nobody has, no impossible length.
pub(crate) fn sound(report: &VerifyReport) -> Check {
    ensure(report.is_sound(), Torn, || {
        let VerifyReport { corrupt_count, strangers, overlong, .. } = report;
        format!("{corrupt_count} impossible words, {strangers} strangers, {overlong} overlong")
    })
}

/// After a reap, with every magazine flushed: nothing names the dead, nothing is hidden or kept at
/// hand.
pub(crate) fn clean_after_reap(pool: &Pool) -> Check {
    let report = pool.verify()?;
    sound(&report)?;
    ensure(report.of_the_dead == 0, Leaked, || {
        format!("{} blocks still name a dead process after a reap", report.of_the_dead)
    })?;
    ensure(report.hidden == 0, Leaked, || {
        format!("{} free blocks are hidden after a reap", report.hidden)
    })?;
    let counts = pool.info()?.counts;
    ensure(counts.cached == 0, Leaked, || format!("{} blocks are kept at hand", counts.cached))
}

pub(crate) fn live_blocks(pool: &Pool) -> Check<HashMap<BlockId, State>> {
    let live = |state| matches!(state, State::Held | State::Parked | State::Orphan);
    Ok(pool.blocks()?.filter(|b| live(b.state)).map(|b| (b.id, b.state)).collect())
}

pub(crate) fn contents(pool: &Pool, number: u32) -> Check<Contents> {
    match pool.copy_block(number)? {
        Some((_, bytes)) => Ok(Contents::from_bytes(&bytes)),
        None => Err(crate::finding::Finding {
            harm: Lost,
            what: format!("block {number} vanished while nobody worked"),
        }),
    }
}

/// Allocates until the pool is full: each free block must come exactly once, zeroed, and there must
/// be as many as there can be blocks less the live ones. Leaves the free blocks dirty.
pub(crate) fn drain(pool: &Pool) -> Check {
    let info = pool.info()?;
    let live = info.counts.held + info.counts.parked + info.counts.orphaned;
    let expected = info.blocks_max() - live;
    let mut numbers = HashSet::new();
    let mut blocks = Vec::new();
    loop {
        match pool.allocate(Kind::Transient) {
            Ok(block) => blocks.push(block),
            Err(Error::Full { .. }) => break,
            Err(e) => return Err(e.into()),
        }
    }
    for block in &blocks {
        let mut bytes = [0; BLOCK_SIZE];
        block.read(0, &mut bytes)?;
        ensure(numbers.insert(block.number()), Torn, || {
            format!("block {} was handed out twice", block.number())
        })?;
        ensure(bytes.iter().all(|b| *b == 0), Torn, || {
            format!("new block {} is not zeroed", block.number())
        })?;
        block.write(0, &[0xD2; BLOCK_SIZE])?;
    }
    let found = blocks.len() as u64;
    ensure(found == expected, Leaked, || {
        format!("{found} blocks can be allocated, and {expected} should be free ({live} live)")
    })?;
    drop(blocks);
    pool.flush();
    Ok(())
}
