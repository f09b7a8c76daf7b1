//! The parts of a batch that belong to other shards, as they are in the last frame of a log; see
//! [`crate::parts`].

use super::format::{AnyHeader, Kind, Part, changes_of};
use crate::{
    error::{Error, Result},
    parts::{BEHIND_GAP, NOBODYS, can_have, is_missing, still_missing},
    shard::Change,
};

/// What the last frame of a log has of other shards.
pub(super) struct Parts {
    /// The frame: its segment, where it begins there, and in which epoch it was written.
    segment: u64,
    at: u64,
    pub(super) epoch: u64,
    /// Shards, the sequences of their frames, and the records of these.
    parts: Vec<(u32, u64, Vec<u8>)>,
}

/// What one shard has yet to get of a batch.
pub(super) struct Missing<'a> {
    pub(super) shard: u32,
    pub(super) changes: Vec<Change<'a>>,
    /// When what they put ends; 0: never.
    pub(super) end: u64,
}

impl Parts {
    /// Those of a frame that begins here, if it has any.
    pub(super) fn of(epoch: u64, (segment, at): (u64, u64), parts: &[Part<'_>]) -> Option<Self> {
        let owned = |part: &Part<'_>| (part.shard, part.sequence, part.records.to_vec());
        let parts: Vec<_> = parts.iter().map(owned).collect();
        (!parts.is_empty()).then_some(Self { segment, at, epoch, parts })
    }

    /// Those parts of a batch of shard `home` that are still to be made, where shards have written
    /// up to `written`. One of which that is not known is left out.
    pub(super) fn missing(
        &self,
        store: &AnyHeader,
        home: u32,
        written: impl Fn(u32) -> Option<u64>,
    ) -> Result<Vec<Missing<'_>>> {
        let name = Kind::Log.name(home, self.segment);
        let damaged = |what| Error::damaged(&name, self.at, what);
        let mut parts = Vec::new();
        for (shard, sequence, records) in &self.parts {
            let (changes, end) = changes_of(records).ok_or_else(|| damaged(NOBODYS))?;
            if !can_have(home, *shard, store.route(), &changes) {
                return Err(damaged(NOBODYS));
            }
            parts.push((*sequence, Missing { shard: *shard, changes, end }));
        }
        let is_missing = |(sequence, part): &(u64, Missing<'_>)| match written(part.shard) {
            Some(written) => is_missing(written, *sequence),
            None => Some(false),
        };
        let missing = still_missing(parts, is_missing).ok_or_else(|| damaged(BEHIND_GAP))?;
        Ok(missing.into_iter().map(|(_, part)| part).collect())
    }
}
