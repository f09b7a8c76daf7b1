use super::*;
use mainstay_base::crc32c;
use proptest::prelude::*;

fn header() -> Header<'static> {
    Header {
        format: FORMAT.into(),
        version: VERSION,
        name: "calls".into(),
        uuid: Uuid128(Uuid::from_u128(1)),
        block_size_bytes: 64,
        growth_step_blocks: 4_096,
        blocks_max: 8_192,
        reserved_bytes: 1 << 30,
    }
}

fn a_block(number: u8) -> Exported {
    Exported {
        uuid: Uuid::from_u128(u128::from(number)),
        used_len: 3,
        fingerprint: u64::from(number % 2) * 77,
        exclusive: number.is_multiple_of(3),
        data: vec![number; usize::from(number) % 65],
    }
}

fn export(blocks: &[Exported]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, header()).unwrap();
    for block in blocks {
        writer.block(&mut block.clone()).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

fn import(bytes: &[u8]) -> Result<Vec<Exported>, FormatError> {
    let mut reader = Reader::new(bytes)?;
    let mut blocks = Vec::new();
    while let Some(block) = reader.next()? {
        blocks.push(block);
    }
    Ok(blocks)
}

fn some() -> Vec<Exported> {
    (1..20).map(a_block).collect()
}

#[test]
fn what_was_exported_is_read_back() {
    assert_eq!(import(&export(&some())).unwrap(), some());
    assert_eq!(import(&export(&[])).unwrap(), []);
    assert_eq!(*Reader::new(&export(&[])[..]).unwrap().header(), header());
}

#[test]
fn zeros_at_the_end_of_a_block_are_not_written() {
    let padded = Exported { data: vec![1, 0, 2, 0, 0], ..a_block(1) };
    assert_eq!(import(&export(&[padded])).unwrap()[0].data, [1, 0, 2]);
}

#[test]
fn e1_an_export_that_is_cut_short_anywhere_is_noticed() {
    let whole = export(&some());
    for len in 0..whole.len() {
        assert!(import(&whole[..len]).is_err(), "{len} of {} bytes", whole.len());
    }
}

#[test]
fn e1_a_changed_byte_anywhere_is_noticed() {
    let whole = export(&some()[..4]);
    for at in 0..whole.len() {
        for flip in [0x01, 0x20] {
            let mut changed = whole.clone();
            changed[at] ^= flip;
            if let Ok(blocks) = import(&changed) {
                panic!("byte {at} ^ {flip:#x} gives {blocks:?}");
            }
        }
    }
}

#[test]
fn e1_a_line_that_is_missing_or_in_another_place_is_noticed() {
    let whole = String::from_utf8(export(&some())).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let joined = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let mut fewer = lines.clone();
    fewer.remove(3);
    assert!(matches!(import(joined(&fewer).as_bytes()), Err(FormatError::Count { .. })));
    let mut swapped = lines.clone();
    swapped.swap(2, 3);
    assert!(matches!(import(joined(&swapped).as_bytes()), Err(FormatError::Checksum { .. })));
    let more = format!("{whole}x");
    assert!(matches!(import(more.as_bytes()), Err(FormatError::Line { .. })));
}

#[test]
fn what_is_something_else_is_told_from_what_is_damaged() {
    for text in ["", "{}", "no json\n", "{\"pool\":{\"format\":\"x\",\"version\":1}}\n"] {
        let error = import(text.as_bytes()).unwrap_err();
        assert!(matches!(error, FormatError::NotAnExport(_)), "{text:?}: {error}");
        assert!(!error.is_damage());
    }
    let newer = format!("{{\"pool\":{{\"format\":\"{FORMAT}\",\"version\":2,\"more\":[]}}}}\n");
    assert!(matches!(import(newer.as_bytes()), Err(FormatError::Version { found: 2 })));
}

#[test]
fn e2_a_line_without_end_is_not_read_into_memory() {
    let mut bytes = export(&[]);
    bytes.truncate(bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1);
    let endless = bytes.chain(io::repeat(b'x'));
    let mut reader = Reader::new(io::BufReader::new(endless)).unwrap();
    assert!(matches!(reader.next(), Err(FormatError::Line { line: 2, .. })));
    assert!(reader.line_len() < 8_192);
}

proptest! {
    #[test]
    fn e2_no_bytes_make_the_reader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0_usize..2_000,
    ) {
        let mut mixed = export(&some());
        let at = at.min(mixed.len());
        mixed.splice(at..at, bytes.iter().copied());
        let _ = import(&bytes);
        let _ = import(&mixed);
    }
}

#[test]
fn the_checksum_of_a_block_is_the_one_of_the_format_document() {
    let block = Exported {
        uuid: Uuid::from_u128(0x0b26_db44_42b8_4d1b_9f3c_3b6f_7a2b_6d0e),
        used_len: 7,
        fingerprint: 0,
        exclusive: false,
        data: b"ringing".to_vec(),
    };
    let mut bytes = block.uuid.as_bytes().to_vec();
    bytes.extend([7, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([0; 8]);
    bytes.push(0);
    bytes.extend(b"ringing");
    assert_eq!(block.checksum(), crc32c(&bytes));
    let line = String::from_utf8(export(&[block])).unwrap();
    let line = line.lines().nth(1).unwrap();
    let document = include_str!("../../../../../docs/format/export.md");
    assert!(document.contains(line), "the document's example should be {line}");
}
