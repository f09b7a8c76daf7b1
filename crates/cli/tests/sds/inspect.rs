//! What messages, snapshots and changes are shown as.

use mainstay::sds::{
    Channel, Config, Keep, Now, Output,
    wire::{HistoryEntry, Message, Profile},
};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

fn inspect(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    let output =
        command.args(["sds", "inspect"]).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json_of(arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = inspect(&[arguments, &["--json"]].concat());
    assert_eq!((code, &*stderr), (0, ""));
    serde_json::from_str(&stdout).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn message() -> Message {
    Message {
        id: b"m2".to_vec(),
        sender: b"alice".to_vec(),
        channel: b"room".to_vec(),
        lamport: Some(1_750_000_000_000),
        causal: vec![HistoryEntry { id: b"m1".to_vec(), hint: b"here".to_vec(), sender: vec![] }],
        filter: None,
        requests: vec![HistoryEntry::of(b"m0")],
        content: Some("héllo".as_bytes().to_vec()),
    }
}

#[test]
fn a_message_of_either_profile_is_recognised_and_shown_in_full() {
    for (profile, name) in [(Profile::Lip, "lip"), (Profile::Nim, "nim")] {
        let bytes = message().encode(profile);
        let shown = json_of(&["--hex", &hex(&bytes)]);
        // One profile always writes the field of the filter.
        let filter =
            if name == "nim" { json!({"bytes": 0, "error_rate": null}) } else { json!(null) };
        let expected = json!({
            "what": "message", "profile": name, "kind": "content", "bytes": bytes.len(),
            "id": "m2", "sender": "alice", "channel": "room", "lamport": 1_750_000_000_000_u64,
            "content": "héllo", "content_bytes": 6, "filter": filter,
            "causal": [{"id": "m1", "sender": "", "hint": "here"}],
            "requests": [{"id": "m0", "sender": "", "hint": ""}],
        });
        assert_eq!(shown, expected);
    }
}

#[test]
fn a_message_is_shown_as_a_table_for_people() {
    let (code, stdout, _) = inspect(&["--hex", &hex(&message().encode(Profile::Lip))]);
    assert_eq!(code, 0);
    for line in ["message  content (lip profile)", "id       m2", "depends on 1:", "asks for 1:"] {
        assert!(stdout.lines().any(|found| found == line), "{line} is not in\n{stdout}");
    }
}

#[test]
fn where_nobody_is_named_a_table_says_so() {
    let nobody = Message { sender: Vec::new(), ..message() };
    let (_, stdout, _) = inspect(&["--hex", &hex(&nobody.encode(Profile::Lip))]);
    assert!(stdout.lines().any(|line| line == "sender   -"), "{stdout}");
    assert!(stdout.lines().any(|line| line.split_whitespace().eq(["m1", "-", "here"])), "{stdout}");
    assert!(stdout.lines().any(|line| line.split_whitespace().eq(["m0", "-", "-"])), "{stdout}");
}

#[test]
fn a_file_may_hold_bytes_or_digits() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = message().encode(Profile::Lip);
    let path = folder.path().join("message");
    let path = path.to_str().unwrap();
    for content in [bytes.clone(), format!("{}\n", hex(&bytes)).into_bytes()] {
        std::fs::write(path, content).unwrap();
        assert_eq!(json_of(&[path])["id"], "m2");
    }
}

#[test]
fn the_filter_of_a_real_message_says_how_often_it_is_wrong() {
    let mut channel = Channel::new("room", b"alice", Config::lip()).unwrap();
    let mut last = Vec::new();
    for number in 0..500 {
        channel.send(Now::zero().after(number), format!("m{number}").as_bytes(), b"x").unwrap();
        while let Some(output) = channel.poll_output() {
            if let Output::Broadcast(broadcast) = output {
                last = broadcast.bytes.to_vec();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("message");
    std::fs::write(&path, last).unwrap();
    let shown = json_of(&[path.to_str().unwrap()]);
    assert_eq!(shown["filter"]["bytes"], 18_752);
    let rate = shown["filter"]["error_rate"].as_f64().unwrap();
    assert!(rate > 0.0 && rate < 1e-9, "{rate} with a twentieth of the capacity");
    assert_eq!(shown["causal"].as_array().unwrap().len(), 10);
}

#[test]
fn what_mainstay_keeps_of_a_channel_is_shown_with_its_messages() {
    let mut config = Config::nim();
    config.keep = Keep::Relaxed;
    let mut channel = Channel::new("room", b"alice", config).unwrap();
    channel.send(Now::zero(), b"m1", b"hello").unwrap();
    let Some(Output::Persist(change)) = channel.poll_output() else { panic!("no change") };
    let (number, bytes) = (change.number, change.bytes.to_vec());
    let shown = json_of(&["--hex", &hex(&bytes)]);
    assert_eq!((&shown["what"], &shown["profile"]), (&json!("change"), &json!("nim")));
    assert_eq!(shown["history"][0]["content"], "hello");

    assert_eq!(shown["unacknowledged"], json!(["m1"]));

    // What is behind a base is shown as well: what came, what waits, what was acknowledged.
    channel.persisted(number);
    while channel.poll_output().is_some() {}
    let from_bob = |id: &str, cited: &[&str]| Message {
        id: id.into(),
        sender: b"bob".to_vec(),
        causal: cited.iter().map(|id| HistoryEntry::of(id.as_bytes())).collect(),
        requests: Vec::new(),
        lamport: Some(2),
        ..message()
    };
    for message in [from_bob("b1", &["m1"]), from_bob("b3", &["b2"])] {
        channel.receive(Now::zero(), &message.encode(Profile::Nim)).unwrap();
        let mut saved = None;
        while let Some(output) = channel.poll_output() {
            if let Output::Persist(change) = output {
                assert!(!change.base);
                saved = Some((change.number, hex(change.bytes)));
            }
        }
        let (number, digits) = saved.unwrap();
        channel.persisted(number);
        let shown = json_of(&["--hex", &digits]);
        let (list, id) = if number == 2 { ("history", "b1") } else { ("waiting", "b3") };
        assert_eq!(shown[list][0]["id"], id, "{shown}");
        if number == 2 {
            assert_eq!(shown["settled"], json!(["m1"]));
        }
        let (_, table, _) = inspect(&["--hex", &digits]);
        assert!(table.contains(id) && table.contains("bob"), "{table}");
    }

    let mut damaged = bytes;
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let (code, _, stderr) = inspect(&["--hex", &hex(&damaged)]);
    assert_eq!(code, 3);
    assert!(stderr.contains("checksum"), "{stderr}");
}

#[test]
fn a_snapshot_of_the_ancestor_is_shown() {
    let shown = json_of(&["--hex", "0a040801102a"]);
    assert_eq!((&shown["what"], &shown["lamport"]), (&json!("nim-snapshot"), &json!(42)));
}

#[test]
fn what_is_none_of_these_is_refused_with_the_reason() {
    for (digits, expected, reason) in [
        ("0a04", 3, "a length past the end at byte 1"),
        // A snapshot whose history is cut off, alone and with its frame.
        ("0a040801102a1205", 3, "a length past the end at byte 7"),
        ("08011080", 3, "an unfinished number at byte 3"),
        ("0a0", 2, "there are 3 digits, an odd number"),
        ("zz", 2, "'z' at place 1 is no hexadecimal digit"),
    ] {
        let (code, stdout, stderr) = inspect(&["--hex", digits]);
        assert_eq!((code, &*stdout), (expected, ""), "{stderr}");
        assert!(stderr.starts_with("error: --hex: ") && stderr.contains(reason), "{stderr}");
        assert!(!stderr.contains("who sends on this channel"), "{stderr}");
    }
    let (code, _, stderr) = inspect(&[]);
    assert_eq!(code, 2);
    assert!(stderr.contains("<FILE|--hex <DIGITS>>"), "{stderr}");
    let nim = hex(&message().encode(Profile::Nim));
    let (code, _, stderr) = inspect(&["--hex", &nim, "--profile", "lip"]);
    assert_eq!(code, 3);
    assert!(stderr.contains("a message of the nim profile"), "{stderr}");
    assert_eq!(inspect(&["/no/such/file"]).0, 1);
}
