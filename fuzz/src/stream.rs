//! What an enemy at one end of a stream of replicas may say.

use arbitrary::Arbitrary;
use mainstay_base::crc32c;
use mainstay_replica::wire::{
    Acked, Hello, Message, Reason, Refusal, Way, Write, encode, put_write,
};
use mainstay_store::{Identity, Position};

use crate::kinds::Record;

/// A number that is mostly one that means something.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Number {
    /// Near nothing.
    Low(u8),
    /// Near the most there is.
    High(u8),
    /// Any.
    Any(u64),
}

impl Number {
    /// It.
    #[must_use]
    pub fn get(self) -> u64 {
        match self {
            Self::Low(value) => value.into(),
            Self::High(less) => u64::MAX - u64::from(less),
            Self::Any(value) => value,
        }
    }
}

/// A place in a history.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum At {
    /// Where the shard of the other end was when it all began.
    There,
    /// The beginning.
    Start,
    /// Anywhere.
    Any(Number, Number, u64),
}

/// A change of a record, of the right lengths or not.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Changed {
    Put(Record),
    Delete(Record),
    Wrong(u8),
    /// One of any size whose head says something else, with the right checksum.
    Head(Record, u8, u16),
}

/// A message as an enemy makes it.
#[derive(Arbitrary, Clone, Debug)]
pub struct Said {
    epoch: Epoch,
    shard: u8,
    what: What,
    /// Bytes changed afterwards.
    damage: Vec<(u8, u8)>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Epoch {
    Right,
    Older,
    Newer,
    Any(Number),
}

#[derive(Arbitrary, Clone, Debug)]
enum What {
    Hello { fits: bool, is_blank: bool, version: u8, shards: u8, most: Number },
    Welcome { fits: bool, shards: u8, most: Number },
    Sync { at: Option<At>, is_empty: bool },
    Info { way: u8, from: At, records: Number },
    Summary { bits: u8, sums: Vec<u64> },
    Differ { parts: Vec<u8> },
    Want { first: u16, last: u16, ends: bool, is_last: bool, hashes: Vec<u64> },
    Records { records: Vec<Changed>, extra: u8 },
    Stale { hashes: Vec<u64> },
    Round,
    Writes { tip: Number, writes: Vec<Written> },
    CaughtUp { at: At },
    Ack { allowance: Number, acks: Vec<(u8, Number, Number, Number)> },
    Alive { tips: Vec<u64> },
    Part { tip: Number, writes: Vec<Written>, from: u8, to: u8, whole: Option<Number> },
    Refused { ours: u64 },
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Clone, Debug)]
struct Written {
    /// The place that follows from the last one, and its sum; or any.
    at: Option<At>,
    count: Option<u8>,
    changes: Vec<Changed>,
}

/// Entries of a list, at most.
const LIST_MAX: usize = 32;

/// What the two ends are.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Of the end that is spoken to.
    pub identity: Identity,
    /// Its epoch, or the one it knows.
    pub epoch: u64,
    /// Where its shards are.
    pub places: Vec<Position>,
}

impl Ends {
    fn at(&self, at: At, shard: usize) -> Position {
        match at {
            At::There => self.places[shard % self.places.len()],
            At::Start => Position::START,
            At::Any(epoch, sequence, sum) => {
                Position { epoch: epoch.get(), sequence: sequence.get(), sum }
            }
        }
    }

    fn hello(&self, fits: bool, shards: u8, most: Number) -> Hello {
        let mut identity = self.identity;
        if !fits {
            identity.shards = shards.into();
        }
        let write_bytes_max = if fits { 1 << 20 } else { most.get() };
        Hello { identity, write_bytes_max, ..Hello::default() }
    }
}

impl Said {
    /// Its bytes, and of what epoch it is.
    #[must_use]
    pub fn bytes(&self, ends: &Ends) -> Vec<u8> {
        let epoch = match self.epoch {
            Epoch::Right => ends.epoch,
            Epoch::Older => ends.epoch.saturating_sub(1),
            Epoch::Newer => ends.epoch.saturating_add(1),
            Epoch::Any(epoch) => epoch.get(),
        };
        let mut bytes = self.message(ends, epoch);
        for (at, bits) in self.damage.iter().take(LIST_MAX) {
            let len = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(usize::from(*at) % len) {
                *byte ^= bits;
            }
        }
        bytes
    }

    fn message(&self, ends: &Ends, epoch: u64) -> Vec<u8> {
        let (shard, index) = (u32::from(self.shard % 4), usize::from(self.shard % 4));
        let list = |list: &[u64]| Message::hashes(&list[..list.len().min(LIST_MAX)]);
        let send = |message: &Message<'_>| encode(epoch, message).to_vec();
        match &self.what {
            What::Hello { fits, is_blank, version, shards, most } => {
                let mut hello = ends.hello(*fits, *shards, *most);
                (hello.is_blank, hello.version) = (*is_blank, 1 + u32::from(*version / 200));
                send(&Message::Hello(hello))
            }
            What::Welcome { fits, shards, most } => {
                send(&Message::Welcome(ends.hello(*fits, *shards, *most)))
            }
            What::Sync { at, is_empty } => {
                let at = at.map(|at| ends.at(at, index));
                send(&Message::Sync { shard, at, is_empty: *is_empty })
            }
            What::Info { way, from, records } => {
                let ways = [Way::Resume, Way::Unfinished, Way::Older, Way::Diverged, Way::Cut];
                let (way, from) = (ways[usize::from(*way) % 5], ends.at(*from, index));
                send(&Message::Info { shard, way, from, records: records.get() })
            }
            What::Summary { bits, sums } => {
                send(&Message::Summary { shard, bits: *bits, sums: &list(sums) })
            }
            What::Differ { parts } => send(&Message::Differ { shard, parts }),
            What::Want { first, last, ends, is_last, hashes } => send(&Message::Want {
                shard,
                first: (*first).into(),
                last: (*last).into(),
                ends: *ends,
                is_last: *is_last,
                hashes: &list(hashes),
            }),
            What::Records { records, extra } => {
                let mut bytes = Vec::new();
                for record in records.iter().take(LIST_MAX) {
                    match record {
                        Changed::Put(record) => record.write(&ends.identity, &mut bytes),
                        other => other.write(&ends.identity, &mut bytes),
                    }
                }
                bytes.extend(std::iter::repeat_n(0, usize::from(*extra / 128)));
                let count = records.len().min(LIST_MAX) as u32;
                let are_any = ends.identity.is_any() != (*extra % 32 == 31);
                send(&Message::Records { shard, count, are_any, bytes: &bytes })
            }
            What::Stale { hashes } => send(&Message::Stale { shard, hashes: &list(hashes) }),
            What::Round => send(&Message::Round { shard }),
            What::Writes { tip, writes } => writes_of(ends, epoch, shard, tip.get(), writes),
            What::CaughtUp { at } => send(&Message::CaughtUp { shard, at: ends.at(*at, index) }),
            What::Ack { allowance, acks } => {
                let acks: Vec<Acked> = acks
                    .iter()
                    .take(LIST_MAX)
                    .map(|(shard, received, applied, durable)| Acked {
                        shard: (*shard).into(),
                        received: received.get(),
                        applied: applied.get(),
                        durable: durable.get(),
                    })
                    .collect();
                let acks = Message::acks(&acks);
                send(&Message::Ack { allowance: allowance.get(), acks: &acks })
            }
            What::Alive { tips } => send(&Message::Alive { tips: &list(tips) }),
            What::Part { tip, writes, from, to, whole } => {
                let all = writes_of(ends, epoch, shard, tip.get(), writes);
                let at = usize::from(*from).min(all.len());
                let end = at.max(usize::from(*to) * 4).min(all.len());
                let whole = whole.map_or(all.len() as u64, Number::get);
                send(&Message::Part { shard, whole, at: at as u64, bytes: &all[at..end] })
            }
            What::Refused { ours } => {
                let refusal =
                    Refusal { reason: Reason::Failed, ours: *ours, theirs: 0, text: "fuzz" };
                send(&Message::Refused(refusal))
            }
            What::Bytes(bytes) => bytes.clone(),
        }
    }
}

fn writes_of(ends: &Ends, epoch: u64, shard: u32, tip: u64, writes: &[Written]) -> Vec<u8> {
    let index = shard as usize;
    let (mut bytes, mut place) = (Vec::new(), ends.at(At::There, index));
    for written in writes.iter().take(LIST_MAX) {
        let changes = written.changes(&ends.identity);
        place = match written.at {
            None => place.after(epoch, &changes),
            Some(at) => ends.at(at, index),
        };
        let count = written.count.map_or(written.changes.len() as u32, u32::from);
        put_write(&Write { position: place, count, changes: &changes }, &mut bytes);
    }
    let count = writes.len().min(LIST_MAX) as u32;
    encode(epoch, &Message::Writes { shard, tip, count, bytes: &bytes }).to_vec()
}

impl Written {
    fn changes(&self, identity: &Identity) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.changes.iter().take(LIST_MAX).for_each(|change| change.write(identity, &mut bytes));
        bytes
    }
}

/// Bytes of the head of a message, and of that of a record of any size, whose checksum is first.
const MESSAGE_HEAD: usize = 16;
const HEAD: usize = 12;
/// The kind of a message of records, and the flag of those of any size.
const RECORDS: [u8; 2] = [8, 1];

/// The message with right checksums of its records, if it has some of any size.
#[must_use]
pub fn with_sums(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let Some((head, mut rest)) = message.split_at_mut_checked(MESSAGE_HEAD) else { return message };
    if head[..2] != RECORDS {
        return message;
    }
    while rest.len() >= HEAD {
        let value = rest[4..8].try_into().map_or(0, u32::from_le_bytes) as usize;
        let key = usize::from(u16::from_le_bytes([rest[8], rest[9]]));
        let Some((record, behind)) = rest.split_at_mut_checked(HEAD + key + value) else { break };
        let sum = crc32c(&record[4..]);
        record[..4].copy_from_slice(&sum.to_le_bytes());
        rest = behind;
    }
    message
}

impl Changed {
    fn write(self, identity: &Identity, out: &mut Vec<u8>) {
        match self {
            Self::Put(record) => record.change(true, identity, out),
            Self::Delete(record) => record.change(false, identity, out),
            Self::Wrong(byte) => out.push(byte),
            Self::Head(record, at, bits) => {
                let begin = out.len();
                record.change(true, identity, out);
                let record = &mut out[begin..];
                let at = 4 + usize::from(at) % (HEAD - 5);
                for (byte, bits) in record[at..].iter_mut().zip(bits.to_le_bytes()) {
                    *byte ^= bits;
                }
                let sum = crc32c(&record[4..]);
                record[..4].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
}
