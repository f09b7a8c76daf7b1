//! Messages made into bytes.

use bytes::{BufMut, Bytes, BytesMut};
use zerocopy::IntoBytes;

use super::{layout::*, message::*};
use crate::limits::TEXT_BYTES_MAX;

/// The bytes of a message of this epoch.
///
/// Example: see [`Message`].
#[must_use]
pub fn encode(epoch: u64, message: &Message<'_>) -> Bytes {
    let mut out = BytesMut::new();
    let mut head =
        Head { kind: 0, flags: 0, shard: 0.into(), count: 0.into(), epoch: epoch.into() };
    let mut begin = |kind: u8, flags: u8, shard: u32, count: usize, body: &[u8], rest: &[u8]| {
        (head.kind, head.flags) = (kind, flags);
        // Stores have at most 1,024 shards.
        head.shard = (shard as u16).into();
        head.count = (count as u32).into();
        out.reserve(HEAD + body.len() + rest.len());
        out.put_slice(head.as_bytes());
        out.put_slice(body);
        out.put_slice(rest);
    };
    match message {
        Message::Hello(hello) => {
            begin(HELLO, u8::from(hello.is_blank), 0, 0, hello_body(hello).as_bytes(), &[]);
        }
        Message::Welcome(hello) => begin(WELCOME, 0, 0, 0, hello_body(hello).as_bytes(), &[]),
        Message::Sync { shard, at, is_empty } => {
            let flags = u8::from(at.is_some()) | u8::from(*is_empty) << 1;
            begin(SYNC, flags, *shard, 0, place_of(at.unwrap_or_default()).as_bytes(), &[]);
        }
        Message::Info { shard, way, from, records } => {
            let body = InfoBody { from: place_of(*from), records: (*records).into() };
            begin(INFO, *way as u8, *shard, 0, body.as_bytes(), &[]);
        }
        Message::Summary { shard, bits, sums } => {
            begin(SUMMARY, *bits, *shard, sums.len() / 8, &[], sums);
        }
        Message::Differ { shard, parts } => begin(DIFFER, 0, *shard, parts.len(), &[], parts),
        Message::Want { shard, first, last, ends, is_last, hashes } => {
            let body = WantBody { first: (*first).into(), last: (*last).into() };
            let flags = u8::from(*ends) | u8::from(*is_last) << 1;
            begin(WANT, flags, *shard, hashes.len() / 8, body.as_bytes(), hashes);
        }
        Message::Records { shard, count, are_any, bytes } => {
            begin(RECORDS, u8::from(*are_any), *shard, *count as usize, &[], bytes);
        }
        Message::Stale { shard, hashes } => begin(STALE, 0, *shard, hashes.len() / 8, &[], hashes),
        Message::Round { shard } => begin(ROUND, 0, *shard, 0, &[], &[]),
        Message::Writes { shard, tip, count, bytes } => {
            begin(WRITES, 0, *shard, *count as usize, &tip.to_le_bytes(), bytes);
        }
        Message::CaughtUp { shard, at } => {
            begin(CAUGHT_UP, 0, *shard, 0, place_of(*at).as_bytes(), &[]);
        }
        Message::Ack { allowance, acks } => {
            let count = acks.len() / size_of::<AckBody>();
            begin(ACK, 0, 0, count, &allowance.to_le_bytes(), acks);
        }
        Message::Alive { tips } => begin(ALIVE, 0, 0, tips.len() / 8, &[], tips),
        Message::Part { shard, whole, at, bytes } => {
            let body = PartBody { whole: (*whole).into(), at: (*at).into() };
            begin(PART, 0, *shard, bytes.len(), body.as_bytes(), bytes);
        }
        Message::Refused(refusal) => {
            let text = cut(refusal.text);
            let body = RefusalBody {
                reason: (refusal.reason as u16).into(),
                text: (text.len() as u16).into(),
                reserved: 0.into(),
                ours: refusal.ours.into(),
                theirs: refusal.theirs.into(),
            };
            begin(REFUSED, 0, 0, 0, body.as_bytes(), text.as_bytes());
        }
    }
    out.freeze()
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn kind(hello: &Hello) -> u32 {
    let ends = if hello.identity.has_ends { ENDS } else { 0 };
    let parts = if hello.takes_parts { PARTS } else { 0 };
    hello.identity.shard_bits << SHARD_BITS_SHIFT | parts | ends
}

fn hello_body(hello: &Hello) -> HelloBody {
    HelloBody {
        magic: MAGIC,
        version: hello.version.into(),
        id: hello.identity.id,
        shards: hello.identity.shards.into(),
        key_len: (hello.identity.key_len as u32).into(),
        value_len: (hello.identity.value_len as u32).into(),
        kind: kind(hello).into(),
        write_bytes_max: hello.write_bytes_max.into(),
    }
}
