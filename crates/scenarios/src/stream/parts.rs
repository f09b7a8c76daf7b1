//! Faults of whoever sends a long message in parts, or takes it.

use super::{
    kept::{KEY, Kept},
    shelf::{Shelf, VALUE},
};
use mainstay_replica::{
    Mended, Sink,
    wire::{Message, decode},
};
use mainstay_store::{Change, read_changes, read_records};

/// The part behind the first one, which is lost.
pub(super) fn is_lost(bytes: &[u8]) -> bool {
    let Ok((_, Message::Part { at, bytes, .. })) = decode(bytes) else { return false };
    at == bytes.len() as u64
}

/// What has come of a message.
#[derive(Default)]
pub(super) struct Early(Vec<u8>);

/// What is before the changes of the first write of a message: the head of the message, the leader's
/// last write, and the head of the write. Its first byte is the kind.
const BEFORE: usize = 16 + 8 + 32;
const WRITES: u8 = 11;

impl Early {
    /// Makes the first change of a write as soon as it is here, and the rest is not.
    pub(super) fn take(&mut self, shelf: &Shelf, bytes: &[u8]) {
        let Ok((_, Message::Part { shard, whole, at, bytes })) = decode(bytes) else { return };
        if at == 0 {
            self.0.clear();
        }
        self.0.extend_from_slice(bytes);
        let Some(changes) = self.0.get(BEFORE..) else { return };
        let Ok(history) = shelf.store.history(shard) else { return };
        let is_at = history.position().is_some();
        if self.0[0] != WRITES || !is_at || self.0.len() as u64 == whole {
            return;
        }
        if let Some(change) = first(&shelf.store, changes) {
            // Whatever comes of it is a fault.
            let _made = shelf.mend(shard, &[change], history);
        }
    }
}

/// The first change, if all of it is there.
fn first<'a>(store: &Kept, bytes: &'a [u8]) -> Option<Mended<'a>> {
    match store {
        Kept::Fixed(_) => {
            let mut first = None;
            read_changes(bytes, 1, (KEY, VALUE), |change: Change<'a>| first = Some((change, 0)))?;
            first
        }
        Kept::Any(_) => {
            let record = |end: usize| read_records(&bytes[..end], 1);
            (1..=bytes.len()).find_map(record)?.first().copied()
        }
    }
}
