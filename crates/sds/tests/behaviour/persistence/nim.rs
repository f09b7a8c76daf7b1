//! What the nim peers kept.

use mainstay_sds::{
    Channel, Config, Keep, NimSnapshot,
    persist::Memory,
    wire::{Message, Profile},
};
use serde_json::Value;

use super::{again, keep};
use crate::group::{L, START, Said, delivered, log, message};

fn nim_snapshots() -> Vec<(String, Vec<u8>, Value)> {
    let all: Value = serde_json::from_str(include_str!("../../vectors/sds-vectors.json")).unwrap();
    let unhex = |hex: &str| {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    let snapshot = |case: &Value| {
        (
            case["name"].as_str().unwrap().to_owned(),
            unhex(case["hex"].as_str().unwrap()),
            case.clone(),
        )
    };
    all["nim"]["snapshots"].as_array().unwrap().iter().map(snapshot).collect()
}

#[test]
fn every_snapshot_of_the_nim_peers_is_read_or_refused_as_by_them() {
    let mut seen = 0;
    for (name, bytes, case) in nim_snapshots() {
        seen += 1;
        if name.starts_with("ChannelMeta") {
            let read = NimSnapshot::parse_meta(&bytes);
            let refused = case.get("decode_ok") == Some(&Value::Bool(false));
            assert_eq!(read.is_err(), refused, "{name}: {read:?}");
            let Ok(read) = read else { continue };
            let fields = &case["fields"];
            assert_eq!(read.lamport, fields["lamport"].as_u64().unwrap());
            let count =
                |key: &str| fields.get(key).map_or(0, |list| list.as_array().unwrap().len());
            let counts =
                [count("outgoing"), count("incoming"), count("out_repair"), count("in_repair")];
            let read =
                [read.outgoing.len(), read.incoming.len(), read.requests.len(), read.answers.len()];
            assert_eq!(read, counts, "{name}");
        } else if name.starts_with("ChannelData") {
            assert!(NimSnapshot::parse(&bytes).is_ok(), "{name}");
        } else if name == "HistoryUpdate" {
            let mut snapshot = NimSnapshot::default();
            for id in ["old1", "kept", "old2"] {
                snapshot.history.push(message("alice", id, 1, &[]));
            }
            snapshot.apply_history_update(&bytes).unwrap();
            let ids: Vec<&[u8]> =
                snapshot.history.iter().map(|message| message.id.as_slice()).collect();
            assert_eq!(ids, [&b"kept"[..], b"new"]);
        }
    }
    assert!(seen >= 6);
}

#[test]
fn a_channel_of_the_nim_peers_goes_on_here() {
    let mut snapshot = NimSnapshot::default();
    let lamport = L / 1000;
    snapshot.lamport = lamport + 5;
    let own = Message { sender: b"bob".to_vec(), ..message("bob", "b1", lamport + 2, &["m1"]) };
    snapshot.history = vec![message("alice", "m1", lamport + 1, &[]), own.clone()];
    snapshot.outgoing = vec![(own, 1_760_000_000_000, 2)];
    let waits = message("alice", "m4", lamport + 4, &["m3"]);
    snapshot.incoming = vec![(waits, vec![b"m3".to_vec()])];
    let mut config = Config::nim();
    (config.keep, config.confirm) = (Keep::Durable, true);
    let mut bob = Channel::import_nim("room", b"bob", config.clone(), START, &snapshot).unwrap();
    assert_eq!(log(&bob), ["m1", "b1"]);
    let counts = bob.counts();
    assert_eq!((counts.outgoing, counts.buffered, counts.missing), (1, 1, 1));
    let mut place = Memory::new();
    assert!(delivered(&keep(&mut bob, &mut place)).is_empty(), "all was delivered there");
    let m3 = message("alice", "m3", lamport + 3, &["b1"]).encode(Profile::Nim);
    bob.receive(START, &m3).unwrap();
    let said = keep(&mut bob, &mut place);
    assert!(said.contains(&Said::Acknowledged("b1".into())));
    assert_eq!(delivered(&said), ["m3", "m4"]);
    assert_eq!(log(&again(config, &mut place)), ["m1", "b1", "m3", "m4"]);
    assert!(Channel::import_nim("room", b"bob", Config::lip(), START, &snapshot).is_err());
}
