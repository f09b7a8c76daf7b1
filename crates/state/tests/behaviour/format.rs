//! The bytes of new files are those that `docs/format/state.md` says.

use crate::Scratch;
use mainstay_state::{Grade, StateOptions};
use std::fs;

const FORMAT: &str = include_str!("../../../../docs/format/state.md");

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let mut word = [0; 8];
    word[..len].copy_from_slice(&bytes[at..at + len]);
    u64::from_le_bytes(word)
}

/// Where a table of the document says that a field is: its offset and its length.
fn field(table: &str, name: &str) -> (usize, usize) {
    let heading = format!("## {table}");
    let section =
        FORMAT.split("\n## ").map(|s| format!("## {s}")).find(|s| s.starts_with(&heading));
    let section = section.unwrap_or_else(|| panic!("no section {table}"));
    let row = section.lines().find(|line| line.contains(&format!("| `{name}` |")));
    let row = row.unwrap_or_else(|| panic!("{table} has no row for {name}"));
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    (cells[1].replace(',', "").parse().unwrap(), cells[2].replace(',', "").parse().unwrap())
}

fn value(bytes: &[u8], table: &str, name: &str) -> u64 {
    let (at, len) = field(table, name);
    number(bytes, at, len)
}

#[test]
fn a_new_state_has_the_bytes_of_the_document() {
    let scratch = Scratch::new();
    let options = StateOptions::new().size(100).slots(5).slots_max(7).size_limit(10_000);
    let state = options.writer::<[u8]>(&scratch.domain, "speed").unwrap();
    state.replace(b"80").unwrap();
    let bytes = fs::read(scratch.domain.folder().join("speed.state")).unwrap();
    let (at, len) = field("State file", "magic");
    assert_eq!(&bytes[at..at + len], b"MAINSTAT");
    let header = |name| value(&bytes, "State file", name);
    assert_eq!((header("version"), header("slots_max")), (1, 7));
    assert_eq!((header("size_limit"), header("stride")), (10_000, 12_288));
    assert_eq!((header("fingerprint"), header("type_size")), (0, 0));
    let (at, _) = field("State file", "name");
    assert_eq!(&bytes[at..at + header("name_len") as usize], b"speed");
    let (at, _) = field("State file", "checksum");
    assert_eq!(header("checksum"), u64::from(mainstay_base::crc32c(&bytes[..at])));
    let word = |name| value(&bytes, "Words", name);
    assert_eq!(word("current") >> 8, 1);
    let slot = word("current") & 0xFF;
    assert_eq!((word("slots"), word("capacity"), word("size"), word("grade")), (5, 4_096, 100, 0));
    let line = field("Words", "slot lines").0 + slot as usize * 64;
    let of_slot = |name| {
        let (at, len) = field("Slot line", name);
        number(&bytes, line + at, len)
    };
    assert_eq!((of_slot("owner"), of_slot("version"), of_slot("len")), (0, 1, 2));
    let data = field("Words", "data").0 + slot as usize * 12_288;
    assert_eq!(&bytes[data..data + 2], b"80");
}

#[test]
fn s8_a_slot_says_nothing_while_it_is_written_and_not_what_was_current_before() {
    let scratch = Scratch::new();
    let options = StateOptions::new().slots(3).slots_max(3);
    let state = options.writer::<[u8]>(&scratch.domain, "speed").unwrap();
    let path = scratch.domain.folder().join("speed.state");
    let said = || {
        let bytes = fs::read(&path).unwrap();
        let (lines, (at, len)) = (field("Words", "slot lines").0, field("Slot line", "version"));
        let mut said = [0, 1, 2].map(|slot| number(&bytes, lines + slot * 64 + at, len));
        said.sort_unstable();
        said
    };
    state.replace(b"1").unwrap();
    let mut late = state.begin().unwrap();
    state.replace(b"2").unwrap();
    state.replace(b"3").unwrap();
    assert_eq!(said(), [1, 2, 3]);
    // The slot of the second version is the only one that is free.
    late.bytes_mut().unwrap()[0] = b'x';
    assert_eq!(said(), [0, 1, 3]);
    // It would have become the second version, which that slot had before.
    assert!(late.commit().is_err());
    assert_eq!(said(), [0, 1, 3]);
    state.replace(b"4").unwrap();
    assert_eq!(said()[2], 4);
}

#[test]
fn pins_leases_and_records_have_the_bytes_of_the_document() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    state.replace(b"80").unwrap();
    let _pinned = state.read().unwrap();
    let id = state.info().unwrap().id;
    let folder = scratch.domain.folder();
    let pins = fs::read(folder.join(format!(".pins-{id:016x}"))).unwrap();
    let (leases, records) =
        (fs::read(folder.join(".leases")).unwrap(), fs::read(folder.join(".records")).unwrap());
    for (bytes, magic, count) in
        [(&pins, b"MAINPINS", 256), (&leases, b"MAINLEAS", 256), (&records, b"MAINRECS", 2_048)]
    {
        let (at, len) = field("Table header", "magic");
        assert_eq!(&bytes[at..at + len], magic);
        assert_eq!(value(bytes, "Table header", "count"), count);
        let (at, _) = field("Table header", "checksum");
        let checksum = u64::from(mainstay_base::crc32c(&bytes[..at]));
        assert_eq!(value(bytes, "Table header", "checksum"), checksum);
    }
    assert_eq!(value(&pins, "Table header", "id"), id);
    assert_eq!(value(&pins, "Pin table", "used"), 1);
    let line = field("Pin table", "lines").0;
    let (at, len) = field("Pin line", "announced");
    assert_eq!(number(&pins, line + at, len) >> 8, 1);
    let (at, len) = field("Pin line", "keeper");
    assert_eq!(number(&pins, line + at, len) >> 8, 1, "the first incarnation of a lease");
    let first = field("Leases", "leases").0;
    assert_eq!(number(&leases, first + 4, 4), u64::from(std::process::id()));
}

#[test]
fn the_file_of_a_persistent_state_has_the_bytes_of_the_document() {
    let scratch = Scratch::new();
    let path = scratch.path().join("speed.durable");
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    state.replace(b"80").unwrap();
    state.set_persistent(&path, Grade::Process).unwrap();
    let memory = fs::read(scratch.domain.folder().join("speed.state")).unwrap();
    let word = |name| value(&memory, "Words", name);
    let path_bytes = path.to_str().unwrap().as_bytes();
    assert_eq!((word("grade"), word("path_len")), (1, path_bytes.len() as u64));
    let at = field("Words", "path").0;
    assert_eq!(&memory[at..at + path_bytes.len()], path_bytes);
    let id = value(&memory, "State file", "id").to_le_bytes();
    let checksum = mainstay_base::crc32c(&[&id, path_bytes].concat());
    assert_eq!(word("path_checksum"), u64::from(checksum));
    let bytes = fs::read(&path).unwrap();
    let of = |name| value(&bytes, "Durable file", name);
    let (at, len) = field("Durable file", "magic");
    assert_eq!(&bytes[at..at + len], b"MAINDURA");
    assert_eq!((of("version"), of("state_version"), of("data_len")), (1, 1, 2));
    let head = field("Durable file", "group").0;
    let data = head + of("group_len") as usize;
    assert_eq!(&bytes[head..data], path.to_str().unwrap().as_bytes());
    assert_eq!(&bytes[data..], b"80");
    assert_eq!(of("body_checksum"), u64::from(mainstay_base::crc32c(&bytes[head..])));
}
