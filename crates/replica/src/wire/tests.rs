use super::*;
use crate::limits::{HASHES_MAX, PART_BITS_MAX, TEXT_BYTES_MAX, WRITE_BYTES_MAX};
use mainstay_store::{Durability::Memory, LogOptions, Position, RawLogStore};
use proptest::prelude::*;

fn place() -> impl Strategy<Value = Position> {
    any::<(u64, u64, u64)>().prop_map(|(epoch, sequence, sum)| Position { epoch, sequence, sum })
}

#[test]
fn v1_cut_anywhere_or_followed_by_a_byte_no_message_is_another() {
    let hashes = Message::hashes(&[1, 2]);
    let acks = Message::acks(&[Acked::default()]);
    let position = Position { epoch: 1, sequence: 2, sum: 3 };
    let mut writes = Vec::new();
    put_write(&Write { position, count: 1, changes: b"abc" }, &mut writes);
    let refusal = Refusal { reason: Reason::Shards, ours: 1, theirs: 2, text: "so" };
    let store = RawLogStore::create(mainstay_sim::Disk::new(7), &LogOptions::default()).unwrap();
    store.put(b"de", b"Deutschland", Memory).unwrap();
    let record = store.record(b"de").unwrap().unwrap();
    let messages = [
        Message::Hello(Hello::default()),
        Message::Welcome(Hello::default()),
        Message::Sync { shard: 1, at: Some(position), is_empty: false },
        Message::Info { shard: 1, way: Way::Older, from: position, records: 9 },
        Message::Summary { shard: 1, bits: 1, sums: &hashes },
        Message::Differ { shard: 1, parts: &[1, 2] },
        Message::Want { shard: 1, first: 0, last: 1, ends: true, is_last: true, hashes: &hashes },
        Message::Records { shard: 1, count: 2, are_any: false, bytes: b"abcd" },
        Message::Records { shard: 1, count: 1, are_any: true, bytes: &record },
        Message::Stale { shard: 1, hashes: &hashes },
        Message::Round { shard: 1 },
        Message::Writes { shard: 1, tip: 2, count: 1, bytes: &writes },
        Message::CaughtUp { shard: 1, at: position },
        Message::Ack { allowance: 1, acks: &acks },
        Message::Alive { tips: &hashes },
        Message::Part { shard: 1, whole: 9, at: 4, bytes: b"abcde" },
        Message::Refused(refusal),
    ];
    for message in messages {
        let bytes = encode(5, &message);
        assert_eq!(decode(&bytes), Ok((5, message)));
        let is_a_round = matches!(message, Message::Round { .. });
        for end in 0..bytes.len() {
            let cut = decode(&bytes[..end]);
            let halves = matches!(cut, Ok((_, Message::Records { are_any: false, .. })));
            assert!(cut.is_err() || halves, "{message:?} cut at {end}: {cut:?}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(decode(&longer).is_err() || is_a_round, "{message:?}: {:?}", decode(&longer));
    }
}

#[test]
fn v1_lists_are_taken_at_their_limit_and_not_one_past_it() {
    let hashes = |count: usize| Message::hashes(&vec![7; count]);
    for (count, is_fine) in [(HASHES_MAX, true), (HASHES_MAX + 1, false)] {
        let stale = encode(1, &Message::Stale { shard: 0, hashes: &hashes(count) });
        assert_eq!(decode(&stale).is_ok(), is_fine, "{count}");
    }
    for (bits, is_fine) in [(PART_BITS_MAX, true), (PART_BITS_MAX + 1, false)] {
        let sums = hashes(1 << bits);
        let summary = encode(1, &Message::Summary { shard: 0, bits, sums: &sums });
        assert_eq!(decode(&summary).is_ok(), is_fine, "{bits}");
        let parts = vec![0; 1 << (bits - 3)];
        let differ = encode(1, &Message::Differ { shard: 0, parts: &parts });
        assert_eq!(decode(&differ).is_ok(), is_fine, "{bits}");
        let last = (1 << bits) - 1;
        let want =
            Message::Want { shard: 0, first: 0, last, ends: true, is_last: true, hashes: &[] };
        assert_eq!(decode(&encode(1, &want)).is_ok(), is_fine, "{bits}");
    }
    for (len, is_fine) in [(WRITE_BYTES_MAX, true), (WRITE_BYTES_MAX + 1, false)] {
        let (mut bytes, changes) = (Vec::new(), vec![0; len]);
        put_write(&Write { position: Position::START, count: 1, changes: &changes }, &mut bytes);
        let writes = encode(1, &Message::Writes { shard: 0, tip: 0, count: 1, bytes: &bytes });
        assert_eq!(decode(&writes).is_ok(), is_fine, "{len}");
    }
}

#[test]
fn v1_a_part_is_within_its_whole_and_what_comes_in_parts_is_writes_or_records() {
    for (whole, at, is_fine) in [(3, 0, true), (2, 0, false), (9, 6, true), (9, 7, false)] {
        let part = encode(1, &Message::Part { shard: 0, whole, at, bytes: b"abc" });
        assert_eq!(decode(&part).is_ok(), is_fine, "{at} of {whole}");
    }
    let over = encode(1, &Message::Part { shard: 0, whole: 9, at: u64::MAX, bytes: b"abc" });
    let none = encode(1, &Message::Part { shard: 0, whole: 9, at: 0, bytes: b"" });
    assert!(decode(&over).is_err() && decode(&none).is_err());
    let (mut bytes, changes) = (Vec::new(), vec![0; WRITE_BYTES_MAX + 1]);
    put_write(&Write { position: Position::START, count: 1, changes: &changes }, &mut bytes);
    let writes = Message::Writes { shard: 0, tip: 0, count: 1, bytes: &bytes };
    let encoded = encode(1, &writes);
    assert_eq!(decode_joined(&encoded), Ok((1, writes)));
    let part = Message::Part { shard: 0, whole: 1, at: 0, bytes: b"a" };
    for other in [Message::Round { shard: 0 }, Message::Alive { tips: &[] }, part] {
        assert!(decode_joined(&encode(1, &other)).is_err(), "{other:?}");
    }
}

#[test]
fn a_long_reason_is_cut_at_a_letter() {
    let text = "ü".repeat(TEXT_BYTES_MAX);
    let refusal = Refusal { reason: Reason::Failed, ours: 0, theirs: 0, text: &text };
    let bytes = encode(1, &Message::Refused(refusal));
    let Ok((_, Message::Refused(found))) = decode(&bytes) else { panic!("it is one") };
    assert_eq!(found.text, "ü".repeat(TEXT_BYTES_MAX / 2));
}

proptest! {
    #[test]
    fn v1_whatever_bytes_there_are_they_are_a_message_or_an_error(
        kind in prop_oneof![0_u8..16, Just(255)],
        rest in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [&[kind][..], &rest].concat();
        if let Ok((epoch, message)) = decode(&bytes) {
            let again = encode(epoch, &message);
            prop_assert_eq!(decode(&again), Ok((epoch, message)));
        }
    }

    #[test]
    fn what_is_encoded_is_decoded(epoch: u64, shard in 0_u32..1024, at in place(), is_empty: bool) {
        let sync = Message::Sync { shard, at: Some(at), is_empty };
        let bytes = encode(epoch, &sync);
        prop_assert_eq!(decode(&bytes), Ok((epoch, sync)));
    }
}
