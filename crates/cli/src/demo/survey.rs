//! The last look: what is in the pool when everybody has left, read without a lease.

use std::os::fd::OwnedFd;

use mainstay::pool::{BlockId, PoolView, State};

use super::error::{DemoError, Trying};
use super::ledger::Findings;
use super::twin::{Reading, TWIN_LEN, read};
use super::wire::Message;

/// What is left of a pool that everybody closed.
pub(super) struct LastLook {
    /// Every live block, as a successor would have reported it.
    pub(super) findings: Findings,
    /// Blocks that are neither free for anybody nor parked, though nobody is there to hold them,
    /// and free ones that nobody would find.
    pub(super) leaked: u64,
    /// Impossible words and lengths.
    pub(super) damage: u64,
}

/// Looks at every block of a pool that nobody uses any more.
pub(super) fn survey(pool: OwnedFd) -> Result<LastLook, DemoError> {
    let view = PoolView::open_fd(pool).trying("look at the pool")?;
    let check = view.verify().trying("check the pool")?;
    let mut look = LastLook {
        findings: Findings::default(),
        leaked: check.hidden,
        damage: check.corrupt_count + check.overlong,
    };
    for info in view.blocks().trying("list the blocks")? {
        look.leaked += u64::from(!matches!(info.state, State::Free | State::Parked));
        if let Some((info, bytes)) = view.copy_block(info.id.number).trying("copy a block")? {
            look.findings.note(&found(info.id, &bytes));
        }
    }
    Ok(look)
}

fn found(id: BlockId, bytes: &[u8]) -> Message {
    match <&[u8; TWIN_LEN]>::try_from(bytes).map(read) {
        Ok(Reading::Whole(side)) => match side.key() {
            Some(key) => Message::Found { id, key, sequence: side.sequence() },
            None => Message::FoundTorn(id),
        },
        Ok(Reading::Unwritten) => Message::FoundUnwritten(id),
        Ok(Reading::Torn) | Err(_) => Message::FoundTorn(id),
    }
}
