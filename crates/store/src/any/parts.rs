//! The parts of a batch that belong to other shards, as they are in the last frame of a log; see
//! [`crate::parts`].

use super::format::{AnyHeader, Kind, Part, changes_of};
use crate::{
    error::{Error, Result},
    parts::{BEHIND_GAP, NOBODYS, can_have, is_missing, still_missing},
    route::Route,
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

    /// Each part of a batch of shard `home`, and the sequence of its frame. Of a route that is not
    /// known for sure only the shards count.
    pub(super) fn each(
        &self,
        route: Route,
        home: u32,
        is_sure: bool,
    ) -> impl Iterator<Item = Result<(u64, Missing<'_>)>> {
        self.parts.iter().map(move |(shard, sequence, records)| {
            let (changes, end) = changes_of(records).ok_or_else(|| self.damaged(home, NOBODYS))?;
            let leads_to: &[Change<'_>] = if is_sure { &changes } else { &[] };
            if !can_have(home, *shard, route, leads_to) {
                return Err(self.damaged(home, NOBODYS));
            }
            Ok((*sequence, Missing { shard: *shard, changes, end }))
        })
    }

    fn damaged(&self, home: u32, what: &'static str) -> Error {
        Error::damaged(&Kind::Log.name(home, self.segment), self.at, what)
    }

    /// What is said where writes of another shard are missing before its part.
    pub(super) fn behind_gap(&self, home: u32) -> Error {
        self.damaged(home, BEHIND_GAP)
    }

    /// Those parts of a batch of shard `home` that are still to be made, where shards have written
    /// up to `written`. One of which that is not known is left out.
    pub(super) fn missing(
        &self,
        store: &AnyHeader,
        home: u32,
        written: impl Fn(u32) -> Option<u64>,
    ) -> Result<Vec<Missing<'_>>> {
        let parts: Vec<_> = self.each(store.route(), home, true).collect::<Result<_>>()?;
        let is_missing = |(sequence, part): &(u64, Missing<'_>)| match written(part.shard) {
            Some(written) => is_missing(written, *sequence),
            None => Some(false),
        };
        let missing = still_missing(parts, is_missing).ok_or_else(|| self.behind_gap(home))?;
        Ok(missing.into_iter().map(|(_, part)| part).collect())
    }
}
