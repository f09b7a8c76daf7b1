//! What a death left behind: another process loads the channel, and compares it with what the
//! application has processed and sent.

use super::{
    PATIENCE,
    board::Board,
    life::{Kind, Life, POOLS, own_id},
    talk::{ROOM, Talk},
};
use crate::{
    child,
    finding::{Check, Finding, ensure},
    verdict::Harm::{Leaked, Lost, Stuck, Torn},
};
use mainstay_pool::{Offer, PoolSet};
use mainstay_store::{FixedStore, Options};
use std::path::Path;

/// The sizes of the blocks, the keys and the values, as `docs/format/sds.md` has them.
const BLOCK_SIZES: [usize; 3] = [2 << 10, 16 << 10, 256 << 10];
type Key = [u8; 28];
type Value = [u8; 2048];

/// Makes a store as one for changes is, but for the segments of its log: small ones are made in no
/// time, and that they are made is seen more often.
pub(crate) fn make_small_store(folder: &Path) -> Check {
    let options = Options { shards: 1, segment_bytes: 64 << 10, ..Options::default() };
    FixedStore::<Key, Value>::create(folder, &options).map(drop).map_err(stuck)
}

fn stuck(error: mainstay_store::Error) -> Finding {
    Finding { harm: Stuck, what: format!("the store behind the channel: {error}") }
}

/// How far a check goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Until {
    /// Others go on with what is kept.
    Another,
    /// Everything is heard; then the channel is dropped, and nothing may be left of it.
    TheEnd,
}

/// Looks in a process of its own.
pub(crate) fn all(kind: Kind, folder: &Path, board: &Board, talk: &Talk, until: Until) -> Check {
    let looked = child::within(PATIENCE, || match look(kind, folder, board, talk, until) {
        Ok(()) => 0,
        Err(finding) => {
            board.tell(&finding);
            1
        }
    });
    looked.map_err(|ended| board.told(&format!("a check: {ended}")))
}

fn look(kind: Kind, folder: &Path, board: &Board, talk: &Talk, until: Until) -> Check {
    let mut place = kind.open(folder)?;
    if board.is_forgetting() && place.load(ROOM)?.is_empty() {
        let left = place.channels()?;
        ensure(left.is_empty(), Torn, || format!("half forgotten are {left:?}"))?;
        drop(place);
        return nothing_is_left(kind, folder);
    }
    let mut life = Life::begin(place, board)?;
    for number in board.sent() {
        let known = life.channel.copy_of(own_id(number).as_bytes()).is_some();
        ensure(known, Lost, || format!("own message {number} went out and is not known"))?;
    }
    if until == Until::Another {
        return Ok(());
    }
    for bytes in talk.messages() {
        life.hear(bytes)?;
    }
    let (all, processed) = (talk.messages().len(), board.processed());
    ensure(processed == all as u64, Lost, || format!("{processed} of {all} were delivered"))?;
    let unconfirmed = life.channel.counts().unconfirmed;
    ensure(unconfirmed == 0, Lost, || format!("{unconfirmed} confirmations were lost"))?;
    life.place.forget(ROOM)?;
    drop(life);
    nothing_is_left(kind, folder)
}

/// When all channels are dropped, nothing takes room.
fn nothing_is_left(kind: Kind, folder: &Path) -> Check {
    let mut left = 0;
    match kind {
        Kind::Pool => {
            let set = PoolSet::open(folder, POOLS, &BLOCK_SIZES)?;
            set.recover(Offer::Unheld, |block| {
                left += 1;
                block.park()
            })?;
        }
        Kind::Store => {
            let store = FixedStore::<Key, Value>::open(folder, &Options::default());
            store.map_err(stuck)?.for_each(|_, _| left += 1).map_err(stuck)?;
        }
    }
    ensure(left == 0, Leaked, || format!("{left} parts are left of what was dropped"))
}
