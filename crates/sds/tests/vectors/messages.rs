use mainstay_sds::{
    Channel, Config, Error, Now, Received,
    wire::{HistoryEntry, Message, MessageView, Profile},
};
use serde_json::Value;

use super::{cases, hex, number, text, unhex, vectors};

fn entries(value: &Value) -> Vec<HistoryEntry> {
    let entries = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let entry = |entry: &Value| HistoryEntry {
        id: text(entry, "message_id").into(),
        hint: unhex(text(entry, "retrieval_hint_hex")),
        sender: text(entry, "sender_id").into(),
    };
    entries.iter().map(entry).collect()
}

fn nim_message(value: &Value) -> Message {
    let id = match value.get("message_id_hex") {
        Some(hex) => unhex(hex.as_str().unwrap()),
        None => text(value, "message_id").into(),
    };
    let content = unhex(text(value, "content_hex"));
    Message {
        id,
        sender: text(value, "sender_id").into(),
        channel: text(value, "channel_id").into(),
        lamport: Some(number(value, "lamport")),
        causal: entries(&value["causal_history"]),
        filter: Some(unhex(text(value, "bloom_hex"))),
        requests: entries(&value["repair_request"]),
        content: (!content.is_empty()).then_some(content),
    }
}

#[test]
fn messages_are_written_byte_for_byte_as_by_the_nim_peers() {
    for case in cases("/nim/message_encode") {
        let message = nim_message(&case["input"]);
        assert_eq!(hex(&message.encode(Profile::Nim)), text(&case, "hex"), "{}", case["name"]);
    }
}

#[test]
fn messages_are_read_or_refused_as_by_the_nim_peers() {
    for case in cases("/nim/message_decode") {
        let read = Message::decode(Profile::Nim, &unhex(text(&case, "hex")));
        assert_eq!(read.is_ok(), case["ok"].as_bool().unwrap(), "{case}: {read:?}");
        if let Ok(read) = read {
            let mut expected = nim_message(&case["decoded"]);
            // An absent filter and an empty one are told apart here.
            expected.filter = read
                .filter
                .clone()
                .filter(|_| expected.filter == Some(vec![]))
                .or(if read.filter.is_none() { None } else { expected.filter });
            assert_eq!(read, expected, "{case}");
        }
    }
}

fn lip_entries(value: &Value) -> Vec<HistoryEntry> {
    let entry = |entry: &Value| HistoryEntry {
        id: text(entry, "messageId").into(),
        hint: entry
            .pointer("/retrievalHint/hex")
            .map(|hint| unhex(hint.as_str().unwrap()))
            .unwrap_or_default(),
        sender: entry
            .get("senderId")
            .map(|sender| sender.as_str().unwrap().into())
            .unwrap_or_default(),
    };
    value.as_array().unwrap().iter().map(entry).collect()
}

#[test]
fn messages_are_written_and_read_byte_for_byte_as_by_the_lip_peers() {
    for case in cases("/js/messages") {
        let input = &case["input"];
        let bytes = |pointer: &str| input.pointer(pointer).map(|hex| unhex(hex.as_str().unwrap()));
        let message = Message {
            id: text(input, "messageId").into(),
            sender: text(input, "senderId").into(),
            channel: text(input, "channelId").into(),
            lamport: input.get("lamportTimestamp").map(|_| number(input, "lamportTimestamp")),
            causal: lip_entries(&input["causalHistory"]),
            filter: bytes("/bloomFilter/hex"),
            requests: lip_entries(&input["repairRequest"]),
            content: bytes("/content/hex"),
        };
        assert_eq!(hex(&message.encode(Profile::Lip)), text(&case, "hex"));
        assert_eq!(Message::decode(Profile::Lip, &unhex(text(&case, "hex"))).unwrap(), message);
    }
}

#[test]
fn an_adversarial_vector_neither_ends_the_process_nor_acknowledges_anything() {
    for case in vectors()["adversarial_nim_layout"].as_array().unwrap() {
        let now = Now { mono_ms: 0, wall_ms: 1_760_000_000_000 };
        let mut channel = Channel::new("ch1", b"victim", Config::nim()).unwrap();
        channel.send(now, b"own", b"hello").unwrap();
        let lamport = channel.counts().lamport;
        let bytes = unhex(text(case, "hex"));
        let taken = channel.receive(now, &bytes);
        assert_eq!(channel.counts().outgoing, 1, "{case}: {taken:?}");
        if text(case, "name").starts_with("lamport") {
            let said = MessageView::parse(Profile::Nim, &bytes).map(|message| message.lamport);
            match taken {
                // What their arithmetic cannot hold is no message; the rest is too far ahead.
                Err(Error::Malformed { what, .. }) => {
                    assert_eq!(what, "a Lamport time past all limits", "{case}");
                    assert!(said.is_err(), "{case}");
                }
                Err(Error::LamportAhead { lamport: theirs, limit }) => {
                    assert_eq!(said.unwrap(), Some(theirs), "{case}");
                    assert_eq!(theirs, i64::MAX as u64, "{case}");
                    assert_eq!(limit, lamport + channel.config().lamport_gap, "{case}");
                }
                other => panic!("{case}: {other:?}"),
            }
            assert_eq!(channel.counts().lamport, lamport);
        } else {
            // The filter is ignored, the message is not.
            assert_eq!(taken, Ok(Received::Delivered { released: 0 }), "{case}");
        }
        channel.send(now, b"own-2", b"still alive").unwrap();
    }
}
