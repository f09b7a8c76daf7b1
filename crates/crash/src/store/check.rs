//! What a death left behind: another process opens the store, and compares it with what the dead was
//! told.

use super::{
    board::{Board, KEYS, State},
    kind::{Kind, Store},
    worker::{key, value},
};
use crate::{
    finding::{Check, Finding, ensure},
    verdict::{Harm, Verdict},
};
use mainstay_store::{Directory, Error};
use std::{path::Path, sync::atomic::Ordering::SeqCst};

pub(crate) fn all<K: Kind>(path: &Path, board: &Board, verdict: &Verdict) -> i32 {
    let Err(Finding { harm, what }) = look::<K>(path, board) else { return 0 };
    verdict.report(harm, &what);
    1
}

fn refused(error: Error) -> Finding {
    // What a kill leaves is never damage: nothing was lost on the way to the disk.
    let harm = if matches!(error, Error::Damaged { .. }) { Harm::Torn } else { Harm::Stuck };
    Finding { harm, what: error.to_string() }
}

fn look<K: Kind>(path: &Path, board: &Board) -> Check<()> {
    let opened = Directory::lock(path).and_then(K::Over::<Directory>::open);
    let store = opened.map_err(refused)?;
    let mut found = Vec::with_capacity(KEYS);
    for number in 0..KEYS {
        let bytes = store.get(&key(number)).map_err(refused)?;
        found.push(bytes.map(|bytes| version_of::<K>(number, &bytes)).transpose()?);
    }
    let mut strangers = 0;
    let count =
        |found: &[u8]| strangers += usize::from(!(0..KEYS).any(|number| key(number) == found));
    store.for_each_key(count).map_err(refused)?;
    ensure(strangers == 0, Harm::Torn, || format!("{strangers} keys that nobody wrote"))?;
    for (number, found) in found.iter().enumerate() {
        one(board, number, *found)?;
    }
    for batch in &board.batches {
        let count = batch.count.load(SeqCst) as usize;
        let numbers: Vec<usize> =
            batch.keys[..count].iter().map(|number| number.load(SeqCst) as usize).collect();
        let all = |state: fn(&Board, usize) -> State| {
            numbers.iter().all(|number| state(board, *number).version() == found[*number])
        };
        let is_whole = all(Board::begun) || all(Board::acknowledged);
        ensure(is_whole, Harm::Torn, || format!("half a batch of the keys {numbers:?}"))?;
        batch.count.store(0, SeqCst);
    }
    for (shard, sequence) in store.sequences().into_iter().enumerate() {
        let told = board.durable[shard].load(SeqCst);
        let what = || format!("shard {shard} ends with write {sequence}, {told} was durable");
        ensure(sequence >= told, Harm::Lost, what)?;
    }
    store.verify().map_err(refused)?;
    for (number, found) in found.iter().enumerate() {
        let begun = board.begun(number);
        let is_begun = begun.version() == *found;
        board.settle(number, if is_begun { begun } else { board.acknowledged(number) });
    }
    store.close().map_err(refused)
}

/// The value is whole, and of this key.
fn version_of<K: Kind>(number: usize, bytes: &[u8]) -> Check<u64> {
    let version = bytes.first_chunk().map(|version| u64::from_le_bytes(*version));
    match version.filter(|version| value::<K>(number, *version) == bytes) {
        Some(version) => Ok(version),
        None => Err(Finding {
            harm: Harm::Torn,
            what: format!("key {number}: a value that nobody wrote"),
        }),
    }
}

/// A key is as its last acknowledged write left it, or as the one that was under way.
fn one(board: &Board, number: usize, found: Option<u64>) -> Check<()> {
    let (begun, acknowledged) = (board.begun(number), board.acknowledged(number));
    let is_allowed = found == begun.version() || found == acknowledged.version();
    ensure(is_allowed, Harm::Lost, || {
        format!("key {number}: {found:?}, acknowledged {acknowledged:?}, begun {begun:?}")
    })
}
