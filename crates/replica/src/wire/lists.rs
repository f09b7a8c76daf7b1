//! Lists within messages: writes, acknowledgements, hashes.

use mainstay_store::Position;
use zerocopy::{FromBytes, IntoBytes, little_endian::U64};

use super::{decode::wrong, layout::*, message::*};

impl Message<'_> {
    /// Hashes or sums as bytes.
    ///
    /// Example: see [`Message`].
    #[must_use]
    pub fn hashes(hashes: &[u64]) -> Vec<u8> {
        hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect()
    }

    /// Acknowledgements as bytes.
    ///
    /// Example: see [`Message`].
    #[must_use]
    pub fn acks(acks: &[Acked]) -> Vec<u8> {
        let bytes = acks.iter().flat_map(|ack| {
            let body = AckBody {
                shard: ack.shard.into(),
                reserved: 0.into(),
                received: ack.received.into(),
                applied: ack.applied.into(),
                durable: ack.durable.into(),
            };
            body.as_bytes().to_vec()
        });
        bytes.collect()
    }
}

/// A write on its way.
///
/// Example: see [`writes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Where it leads.
    pub position: Position,
    /// How many changes it has.
    pub count: u32,
    /// Their bytes, as in a log.
    pub changes: &'a [u8],
}

/// Appends a write to those of a message.
///
/// Example: see [`writes`].
pub fn put_write(write: &Write<'_>, out: &mut Vec<u8>) {
    let head = WriteHead {
        place: place_of(write.position),
        len: (write.changes.len() as u32).into(),
        changes: write.count.into(),
    };
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(write.changes);
}

/// The writes of a message.
///
/// ```
/// use mainstay_replica::wire::{Message, Write, decode, encode, put_write, writes};
/// use mainstay_store::Position;
/// let write = Write { position: Position { epoch: 1, sequence: 5, sum: 9 }, count: 0, changes: b"" };
/// let mut bytes = Vec::new();
/// put_write(&write, &mut bytes);
/// let message = Message::Writes { shard: 0, tip: 5, count: 1, bytes: &bytes };
/// let encoded = encode(1, &message);
/// let Ok((1, Message::Writes { bytes, .. })) = decode(&encoded) else { panic!() };
/// assert_eq!(writes(bytes).collect::<Vec<_>>(), [write]);
/// ```
pub fn writes(mut bytes: &[u8]) -> impl Iterator<Item = Write<'_>> {
    std::iter::from_fn(move || {
        let (write, rest) = next_write(bytes)?;
        bytes = rest;
        Some(write)
    })
}

fn next_write(bytes: &[u8]) -> Option<(Write<'_>, &[u8])> {
    let (head, rest) = WriteHead::read_from_prefix(bytes).ok()?;
    let (changes, rest) = rest.split_at_checked(head.len.get() as usize)?;
    let write = Write { position: position_of(&head.place), count: head.changes.get(), changes };
    Some((write, rest))
}

pub(super) fn check_writes(mut bytes: &[u8], count: usize, max: usize) -> Result<(), WireError> {
    for _ in 0..count {
        let Some((write, rest)) = next_write(bytes) else { return Err(WireError::TooShort) };
        if write.changes.len() > max {
            return wrong("a write that is longer than any");
        }
        bytes = rest;
    }
    if bytes.is_empty() { Ok(()) } else { wrong("bytes behind its end") }
}

/// The entries of an acknowledgement.
///
/// ```
/// use mainstay_replica::wire::{Acked, Message, acks};
/// let ack = Acked { shard: 1, received: 4, applied: 3, durable: 2 };
/// assert_eq!(acks(&Message::acks(&[ack])).collect::<Vec<_>>(), [ack]);
/// ```
pub fn acks(bytes: &[u8]) -> impl Iterator<Item = Acked> + '_ {
    bytes.chunks_exact(size_of::<AckBody>()).filter_map(|entry| {
        let body = AckBody::read_from_bytes(entry).ok()?;
        Some(Acked {
            shard: body.shard.get(),
            received: body.received.get(),
            applied: body.applied.get(),
            durable: body.durable.get(),
        })
    })
}

/// The hashes, sums or tips of a message.
///
/// ```
/// use mainstay_replica::wire::{Message, hashes};
/// assert_eq!(hashes(&Message::hashes(&[7, 8])).collect::<Vec<_>>(), [7, 8]);
/// ```
pub fn hashes(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).filter_map(|eight| U64::read_from_bytes(eight).ok().map(U64::get))
}
