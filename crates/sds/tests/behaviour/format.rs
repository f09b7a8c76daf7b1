//! `docs/format/sds.md` against the code, and what the profiles write against its tables.

use std::{fs, path::Path};

use mainstay_sds::wire::{HistoryEntry, Message, Profile};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format/sds.md");
    fs::read_to_string(path).unwrap()
}

/// The rows of the table below a heading: their cells.
fn table(heading: &str) -> Vec<Vec<String>> {
    let text = document();
    let (_, section) =
        text.split_once(&format!("## {heading}\n")).unwrap_or_else(|| panic!("{heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let rows: Vec<Vec<String>> = rows
        .map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    assert!(!rows.is_empty(), "{heading}");
    rows
}

/// Field numbers in the order in which a message has them, with the wire type.
fn fields(mut bytes: &[u8]) -> Vec<(u64, u64)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first < &0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        found.push((tag >> 3, tag & 7));
        let value = varint(&mut bytes);
        if tag & 7 == 2 {
            bytes = &bytes[value as usize..];
        }
    }
    found
}

#[test]
fn messages_have_the_fields_of_the_document_in_its_order() {
    for (profile, heading) in
        [(Profile::Lip, "Messages, lip profile"), (Profile::Nim, "Messages, nim profile")]
    {
        let entry = HistoryEntry { id: b"a".to_vec(), hint: b"b".to_vec(), sender: b"c".to_vec() };
        let full = Message {
            id: b"m".to_vec(),
            sender: b"s".to_vec(),
            channel: b"c".to_vec(),
            lamport: Some(1),
            causal: vec![entry.clone()],
            filter: Some(vec![1]),
            requests: vec![entry],
            content: Some(vec![1]),
        };
        let written = fields(&full.encode(profile));
        let mut empty_fields = fields(&Message::default().encode(profile));
        empty_fields.sort_unstable();
        let rows = table(heading);
        let documented: Vec<(u64, u64)> = rows
            .iter()
            .map(|row| (row[0].parse().unwrap(), if row[2] == "varint" { 0 } else { 2 }))
            .collect();
        assert_eq!(written, documented, "{heading}");
        let always: Vec<u64> = rows
            .iter()
            .filter(|row| row[3].starts_with("always"))
            .map(|row| row[0].parse().unwrap())
            .collect();
        let empty: Vec<u64> = empty_fields.iter().map(|(number, _)| *number).collect();
        assert_eq!(empty, always, "{heading}: what is written even if it is empty");
    }
}

#[test]
fn history_entries_have_the_fields_of_the_document() {
    let entry = HistoryEntry { id: b"a".to_vec(), hint: b"b".to_vec(), sender: b"c".to_vec() };
    let message = Message { causal: vec![entry], ..Message::default() };
    let bytes = message.encode(Profile::Lip);
    let written: Vec<u64> = fields(&bytes[2..]).iter().map(|(number, _)| *number).collect();
    let documented: Vec<u64> =
        table("History entries").iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(written, documented);
}
