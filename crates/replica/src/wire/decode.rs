//! Bytes taken for messages.

use mainstay_shm::hook;
use mainstay_store::{Identity, read_records};
use zerocopy::{FromBytes, little_endian::U64};

use super::{layout::*, lists::check_writes, message::*};
use crate::limits::{
    HASHES_MAX, MESSAGE_BYTES_MAX, PART_BITS_MAX, TEXT_BYTES_MAX, WRITE_BYTES_MAX,
};

pub(super) fn wrong<T>(what: &'static str) -> Result<T, WireError> {
    Err(WireError::Wrong { what })
}

pub(super) fn take<T: FromBytes>(bytes: &[u8]) -> Result<(T, &[u8]), WireError> {
    T::read_from_prefix(bytes).map_err(|_| WireError::TooShort)
}

/// The epoch and the message that these bytes are (V1).
///
/// Example: see [`Message`].
///
/// # Errors
/// What is wrong with them.
pub fn decode(bytes: &[u8]) -> Result<(u64, Message<'_>), WireError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong { bytes: bytes.len() });
    }
    decode_within(bytes, WRITE_BYTES_MAX)
}

/// The same of a message that has come in parts, and is as long as it may be; its writes are as long
/// as they are.
pub(crate) fn decode_joined(bytes: &[u8]) -> Result<(u64, Message<'_>), WireError> {
    match decode_within(bytes, bytes.len())? {
        joined @ (_, Message::Writes { .. } | Message::Records { .. }) => Ok(joined),
        _ => wrong("parts of what comes in one"),
    }
}

fn decode_within(bytes: &[u8], write_max: usize) -> Result<(u64, Message<'_>), WireError> {
    let (head, body) = take::<Head>(bytes)?;
    let message = Parser {
        flags: head.flags,
        shard: head.shard.get().into(),
        count: head.count.get() as usize,
        write_max,
        body,
    }
    .message(head.kind)?;
    Ok((head.epoch.get(), message))
}

struct Parser<'a> {
    flags: u8,
    shard: u32,
    count: usize,
    /// The longest write.
    write_max: usize,
    body: &'a [u8],
}

impl<'a> Parser<'a> {
    fn message(&self, kind: u8) -> Result<Message<'a>, WireError> {
        let (shard, body) = (self.shard, self.body);
        match kind {
            HELLO => Ok(Message::Hello(self.hello(1)?)),
            WELCOME => Ok(Message::Welcome(self.hello(0)?)),
            SYNC => {
                self.flags_within(3)?;
                let place = self.only::<Place>()?;
                let at = (self.flags & 1 == 1).then(|| position_of(&place));
                Ok(Message::Sync { shard, at, is_empty: self.flags & 2 == 2 })
            }
            INFO => {
                let info = self.only::<InfoBody>()?;
                let Some(way) = Way::of(self.flags) else { return wrong("an unknown way") };
                let from = position_of(&info.from);
                Ok(Message::Info { shard, way, from, records: info.records.get() })
            }
            SUMMARY => {
                if self.flags > PART_BITS_MAX {
                    return wrong("more parts than there may be");
                }
                if self.count != 0 && self.count != 1 << self.flags {
                    return wrong("not a sum for each part");
                }
                Ok(Message::Summary { shard, bits: self.flags, sums: self.list(8, body)? })
            }
            DIFFER => {
                self.flags_within(0)?;
                if self.count > 1 << (PART_BITS_MAX - 3) {
                    return wrong("more parts than there may be");
                }
                Ok(Message::Differ { shard, parts: self.list(1, body)? })
            }
            WANT => {
                self.flags_within(3)?;
                let (want, rest) = take::<WantBody>(body)?;
                let (first, last) = (want.first.get(), want.last.get());
                if first > last || last >= 1 << PART_BITS_MAX {
                    return wrong("parts that cannot be");
                }
                let hashes = self.hashes(rest)?;
                let (ends, is_last) = (self.flags & 1 == 1, self.flags & 2 == 2);
                Ok(Message::Want { shard, first, last, ends, is_last, hashes })
            }
            RECORDS => {
                self.flags_within(1)?;
                let (count, are_any) = (self.count as u32, self.flags == 1);
                let fits = match count {
                    _ if are_any => read_records(body, count).is_some(),
                    0 => body.is_empty(),
                    _ => body.len().is_multiple_of(self.count) && !body.is_empty(),
                };
                if !fits {
                    return wrong("records that do not fill it");
                }
                Ok(Message::Records { shard, count, are_any, bytes: body })
            }
            STALE => {
                self.flags_within(0)?;
                Ok(Message::Stale { shard, hashes: self.hashes(body)? })
            }
            ROUND => self.only::<[u8; 0]>().map(|_| Message::Round { shard }),
            WRITES => {
                self.flags_within(0)?;
                let (tip, rest) = take::<U64>(body)?;
                check_writes(rest, self.count, self.write_max)?;
                let count = self.count as u32;
                Ok(Message::Writes { shard, tip: tip.get(), count, bytes: rest })
            }
            CAUGHT_UP => {
                self.flags_within(0)?;
                let place = self.only::<Place>()?;
                Ok(Message::CaughtUp { shard, at: position_of(&place) })
            }
            ACK => {
                self.flags_within(0)?;
                let (allowance, rest) = take::<U64>(body)?;
                let acks = self.list(size_of::<AckBody>(), rest)?;
                Ok(Message::Ack { allowance: allowance.get(), acks })
            }
            ALIVE => {
                self.flags_within(0)?;
                Ok(Message::Alive { tips: self.list(8, body)? })
            }
            PART => {
                self.flags_within(0)?;
                let (part, rest) = take::<PartBody>(body)?;
                let (whole, at) = (part.whole.get(), part.at.get());
                let bytes = self.list(1, rest)?;
                let end = at.checked_add(bytes.len() as u64);
                if bytes.is_empty() || end.is_none_or(|end| end > whole) {
                    return wrong("a part that is none of the whole");
                }
                Ok(Message::Part { shard, whole, at, bytes })
            }
            REFUSED => self.refusal(),
            kind => Err(WireError::Kind { kind }),
        }
    }

    fn flags_within(&self, known: u8) -> Result<(), WireError> {
        if self.flags & !known == 0 { Ok(()) } else { wrong("unknown flags") }
    }

    /// The body, if it is this and nothing else.
    fn only<T: FromBytes>(&self) -> Result<T, WireError> {
        let (body, rest) = take::<T>(self.body)?;
        if rest.is_empty() && self.count == 0 { Ok(body) } else { wrong("bytes behind its end") }
    }

    /// A list that fills the rest.
    fn list(&self, size: usize, rest: &'a [u8]) -> Result<&'a [u8], WireError> {
        let fits = self.count.checked_mul(size) == Some(rest.len());
        if fits || hook::planted("wire-count-unchecked") {
            return Ok(rest);
        }
        wrong("another number of entries than it says")
    }

    fn hashes(&self, rest: &'a [u8]) -> Result<&'a [u8], WireError> {
        if self.count > HASHES_MAX {
            return wrong("more hashes than there may be");
        }
        self.list(8, rest)
    }

    fn hello(&self, known: u8) -> Result<Hello, WireError> {
        self.flags_within(known)?;
        let body = self.only::<HelloBody>()?;
        if body.magic != MAGIC {
            return wrong("another beginning than replicas have");
        }
        Ok(Hello {
            version: body.version.get(),
            is_blank: self.flags & 1 == 1,
            identity: Identity {
                id: body.id,
                key_len: body.key_len.get() as usize,
                value_len: body.value_len.get() as usize,
                shards: body.shards.get(),
                shard_bits: body.kind.get() >> SHARD_BITS_SHIFT,
                has_ends: body.kind.get() & ENDS != 0,
            },
            write_bytes_max: body.write_bytes_max.get(),
            takes_parts: body.kind.get() & PARTS != 0,
        })
    }

    fn refusal(&self) -> Result<Message<'a>, WireError> {
        let (body, rest) = take::<RefusalBody>(self.body)?;
        let reason = Reason::ALL.into_iter().find(|one| *one as u16 == body.reason.get());
        let Some(reason) = reason else { return wrong("an unknown reason") };
        if rest.len() > TEXT_BYTES_MAX || rest.len() != usize::from(body.text.get()) {
            return wrong("a text of another length than it says");
        }
        let Ok(text) = std::str::from_utf8(rest) else { return wrong("a text that is none") };
        let (ours, theirs) = (body.ours.get(), body.theirs.get());
        Ok(Message::Refused(Refusal { reason, ours, theirs, text }))
    }
}
