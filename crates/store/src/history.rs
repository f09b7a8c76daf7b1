//! The history of a shard, which it shares with its replicas, whatever their own logs look like.

use mainstay_base::{Crc64, crc64};

use crate::{
    error::{Error, Result},
    format::{DELETE, HistoryBytes, PUT},
    shard::Change,
};

/// Bytes that are summed before the changes of a write, and in one go with them.
const HEAD: usize = 24;
const SHORT: usize = 384;

/// A place in the history of a shard. Two shards at one place have the same records: the sum is
/// over all writes up to there.
///
/// ```
/// use mainstay_store::Position;
/// let first = Position::START.after(1, b"what was written");
/// assert_eq!((first.epoch, first.sequence), (1, 1));
/// assert_ne!(first.sum, Position::START.after(1, b"something else").sum);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The epoch in which the last write was made.
    pub epoch: u64,
    /// How many writes there are.
    pub sequence: u64,
    /// A checksum of all of them.
    pub sum: u64,
}

impl Position {
    /// Before the first write.
    ///
    /// Example: see [`Position`].
    pub const START: Self = Self { epoch: 0, sequence: 0, sum: 0 };

    /// Where the next write leads: `changes` are its bytes as they are in the log.
    ///
    /// Example: see [`Position`].
    #[must_use]
    pub fn after(self, epoch: u64, changes: &[u8]) -> Self {
        let sequence = self.sequence.wrapping_add(1);
        let mut bytes = [0; SHORT];
        bytes[..8].copy_from_slice(&self.sum.to_le_bytes());
        bytes[8..16].copy_from_slice(&epoch.to_le_bytes());
        bytes[16..HEAD].copy_from_slice(&sequence.to_le_bytes());
        // One call for a write of one record: each costs more than the bytes do.
        let sum = match bytes[HEAD..].get_mut(..changes.len()) {
            Some(place) => {
                place.copy_from_slice(changes);
                crc64(&bytes[..HEAD + changes.len()])
            }
            None => {
                let mut sum = Crc64::new();
                sum.update(&bytes[..HEAD]);
                sum.update(changes);
                sum.finish()
            }
        };
        Self { epoch, sequence, sum }
    }
}

/// Where a shard is.
///
/// Example: see [`crate::RawStore::history`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// As the write at this place left it.
    At(Position),
    /// On its way from this place to another one: some records are newer than others.
    Mending(Position),
}

impl History {
    /// The place, if it is at one.
    ///
    /// ```
    /// use mainstay_store::{History, Position};
    /// assert_eq!(History::At(Position::START).position(), Some(Position::START));
    /// assert_eq!(History::Mending(Position::START).position(), None);
    /// ```
    #[must_use]
    pub fn position(self) -> Option<Position> {
        match self {
            Self::At(position) => Some(position),
            Self::Mending(_) => None,
        }
    }

    pub(crate) fn to_bytes(self) -> HistoryBytes {
        let (Self::At(at) | Self::Mending(at)) = self;
        HistoryBytes {
            epoch: at.epoch.into(),
            sequence: at.sequence.into(),
            sum: at.sum.into(),
            is_mending: u32::from(matches!(self, Self::Mending(_))).into(),
        }
    }

    pub(crate) fn from_bytes(bytes: &HistoryBytes) -> Self {
        let (epoch, sequence, sum) = (bytes.epoch.get(), bytes.sequence.get(), bytes.sum.get());
        let at = Position { epoch, sequence, sum };
        if bytes.is_mending.get() == 0 { Self::At(at) } else { Self::Mending(at) }
    }
}

/// Appends changes to `out` as they are in a log, and on the wire.
///
/// ```
/// use mainstay_store::{Change, read_changes, write_changes};
/// let (mut bytes, mut found) = (Vec::new(), Vec::new());
/// write_changes(&[Change::Put(b"de", b"049"), Change::Delete(b"dd")], &mut bytes);
/// let used = read_changes(&bytes, 2, (2, 3), |change| found.push(change));
/// assert_eq!(used, Some(bytes.len()));
/// assert_eq!(found[1], Change::Delete(b"dd"));
/// ```
pub fn write_changes(changes: &[Change<'_>], out: &mut Vec<u8>) {
    for change in changes {
        match change {
            Change::Put(key, value) => {
                out.push(PUT);
                out.extend_from_slice(key);
                out.extend_from_slice(value);
            }
            Change::Delete(key) => {
                out.push(DELETE);
                out.extend_from_slice(key);
            }
        }
    }
}

/// Shows each of `count` changes at the front of `bytes`, for keys and values of these lengths.
/// Returns how many bytes they take; none if they are not that.
///
/// Example: see [`write_changes`].
pub fn read_changes<'a>(
    bytes: &'a [u8],
    count: u32,
    (key_len, value_len): (usize, usize),
    mut each: impl FnMut(Change<'a>),
) -> Option<usize> {
    let mut rest = bytes;
    for _ in 0..count {
        let (kind, after) = rest.split_first()?;
        let (key, after) = after.split_at_checked(key_len)?;
        rest = match *kind {
            PUT => {
                let (value, after) = after.split_at_checked(value_len)?;
                each(Change::Put(key, value));
                after
            }
            DELETE => {
                each(Change::Delete(key));
                after
            }
            _ => return None,
        };
    }
    Some(bytes.len() - rest.len())
}

/// Bits of an epoch that count openings, and those drawn at a promotion.
const OPENINGS: u32 = 32;
const DRAWN: u32 = 16;

/// The most promotions that a history can have: the next number is that of no leader.
const PROMOTIONS_MAX: u64 = u16::MAX as u64 - 1;

/// The first epoch of a new leader, higher than all that it knows of. Of two that are promoted at
/// the same time, `drawn` says which one the others follow.
pub(crate) fn promoted(known: u64, drawn: u16) -> Result<u64> {
    let promotions = (known >> (OPENINGS + DRAWN)) + 1;
    check_promotions(promotions)?;
    Ok(promotions << (OPENINGS + DRAWN) | u64::from(drawn) << OPENINGS)
}

/// Can a leader have this epoch? Whoever knew of a higher one could never be promoted.
pub(crate) fn check_epoch(epoch: u64) -> Result<()> {
    check_promotions(epoch >> (OPENINGS + DRAWN))
}

fn check_promotions(value: u64) -> Result<()> {
    let (what, must) = ("the number of promotions", "at most 65534");
    if value > PROMOTIONS_MAX { Err(Error::OutOfLimits { what, value, must }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promotion_is_above_whatever_number_of_openings() {
        let known = promoted(u64::from(u32::MAX), 0).unwrap();
        assert!(known > u64::from(u32::MAX));
        assert!(promoted(known + u64::from(u32::MAX), 0).unwrap() > known + u64::from(u32::MAX));
        assert!(promoted(0, 1).unwrap() > promoted(0, 0).unwrap());
    }

    #[test]
    fn a_sum_is_the_same_whether_it_was_made_in_one_go_or_not() {
        let position = Position { epoch: 3, sequence: 8, sum: 0x0123_4567_89AB_CDEF };
        for len in [0, 1, SHORT - HEAD, SHORT - HEAD + 1, 5_000] {
            let changes: Vec<u8> = (0..len).map(|number| number as u8).collect();
            let head = [position.sum, 4, 9].map(u64::to_le_bytes).concat();
            let whole = crc64(&[head, changes.clone()].concat());
            assert_eq!(position.after(4, &changes).sum, whole, "{len}");
        }
    }

    #[test]
    fn there_are_so_many_promotions_and_not_one_more() {
        let last = promoted(65_533 << 48, 7).unwrap();
        assert_eq!(last >> 48, 65_534);
        assert!(matches!(promoted(last, 7), Err(Error::OutOfLimits { value: 65_535, .. })));
        // What comes of as many openings as there may be is still known to others.
        check_epoch(last + u64::from(u32::MAX)).unwrap();
        assert!(matches!(check_epoch(u64::MAX), Err(Error::OutOfLimits { value: 65_535, .. })));
    }
}
