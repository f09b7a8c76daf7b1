use super::*;
use proptest::prelude::*;

fn all_frames(decoder: &mut Decoder) -> Result<Vec<Frame>, FrameError> {
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next_frame()? {
        frames.push(frame);
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn f2_any_cut_of_a_stream_gives_the_same_frames(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3_000), 1..8),
        cuts in proptest::collection::vec(1_usize..700, 1..60),
    ) {
        let stream: Vec<u8> =
            payloads.iter().flat_map(|payload| encode(Kind::Message, payload)).collect();
        let mut decoder = Decoder::new(3_000);
        let (mut rest, mut cut, mut got) = (&stream[..], 0, Vec::new());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(cuts[cut % cuts.len()].min(rest.len()));
            if cut % 2 == 0 {
                decoder.feed(piece);
            } else {
                decoder.space().put_slice(piece);
            }
            got.extend(all_frames(&mut decoder).unwrap());
            (rest, cut) = (behind, cut + 1);
        }
        let got: Vec<_> = got.iter().map(|frame| frame.payload.to_vec()).collect();
        prop_assert_eq!(got, payloads);
        prop_assert_eq!(decoder.pending(), 0);
    }

    #[test]
    fn f1_a_stream_with_any_bit_turned_over_gives_an_error(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut stream = encode(Kind::Message, &payload).to_vec();
        let at = at.index(stream.len());
        stream[at] ^= 1 << bit;
        let mut decoder = Decoder::new(1 << 30);
        decoder.feed(&stream);
        prop_assert!(decoder.next_frame().is_err());
    }
}

/// A header that agrees with itself, whatever it says.
fn sealed(kind: u8, len: u32) -> [u8; HEADER_LEN] {
    let mut header = header(Kind::Message, &[]);
    header[4] = kind;
    header[8..12].copy_from_slice(&len.to_le_bytes());
    let check = check_of(&header);
    header[CHECK].copy_from_slice(&check);
    header
}

#[test]
fn f4_one_or_two_wrong_bits_anywhere_in_a_header_are_an_error_as_soon_as_it_is_there() {
    // The last four bytes are the checksum, which needs the payload.
    const BITS: usize = (HEADER_LEN - 4) * 8;
    for len in [0_u32, 1, 64, 65_536, 64 << 20] {
        let good = sealed(Kind::Message.code(), len);
        let told = |bits: [usize; 2]| {
            let mut wrong = good;
            // The same bit twice would turn it back.
            wrong[bits[0] / 8] ^= 1 << (bits[0] % 8);
            if bits[1] != bits[0] {
                wrong[bits[1] / 8] ^= 1 << (bits[1] % 8);
            }
            let mut decoder = Decoder::new(usize::MAX);
            decoder.feed(&wrong);
            decoder.next_frame()
        };
        for first in 0..BITS {
            for second in first..BITS {
                assert!(told([first, second]).is_err(), "bits {first} and {second} of {len}");
            }
        }
    }
}

#[test]
fn f4_a_length_that_became_another_is_told_before_anything_behind_the_header_has_come() {
    let mut header = header(Kind::Message, &[Bytes::from_static(b"ringing")]);
    let good = check_of(&header);
    header[9] = 1;
    let mut decoder = Decoder::new(1 << 20);
    decoder.feed(&header);
    let error = decoder.next_frame().unwrap_err();
    assert_eq!(error, FrameError::Header { found: good, expected: check_of(&header) });
}

#[test]
fn a_payload_may_have_the_limit_and_not_one_byte_more() {
    let mut decoder = Decoder::new(10);
    decoder.feed(&encode(Kind::Message, &[7; 10]));
    assert_eq!(decoder.next_frame().unwrap().unwrap().payload, [7; 10][..]);
    decoder.feed(&encode(Kind::Message, &[7; 11]));
    let too_long = FrameError::TooLong { len: 11, limit: 10 };
    assert_eq!(decoder.next_frame(), Err(too_long.clone()));
    decoder.feed(&encode(Kind::Message, b"fine"));
    assert_eq!(decoder.next_frame(), Err(too_long), "nothing is handed out after an error");
}

#[test]
fn f3_a_length_that_was_only_announced_allocates_little() {
    let mut decoder = Decoder::new(64 << 20);
    decoder.feed(&sealed(Kind::Message.code(), 64 << 20));
    assert_eq!(decoder.next_frame(), Ok(None));
    assert!(decoder.space().capacity() <= 2 * AHEAD, "{}", decoder.space().capacity());
}

#[test]
fn a_long_frame_is_copied_a_few_times_into_more_room_and_not_with_each_piece_of_it() {
    let payload = vec![5; 64 << 20];
    let mut decoder = Decoder::new(payload.len());
    let (mut moves, mut place) = (0, std::ptr::null());
    for piece in encode(Kind::Message, &payload).chunks(16 << 10) {
        decoder.feed(piece);
        let now = decoder.buffer.as_ptr();
        moves += u32::from(now != place);
        place = now;
        if let Some(frame) = decoder.next_frame().unwrap() {
            assert!(frame.payload == payload);
            assert!(moves < 20, "{moves}");
            return;
        }
    }
    panic!("the frame has not come out");
}

#[test]
fn what_is_no_frame_is_told_from_its_first_byte() {
    let mut decoder = Decoder::new(100);
    decoder.feed(b"G");
    assert_eq!(decoder.next_frame(), Err(FrameError::Magic { found: [b'G', 0, 0, 0] }));
}

#[test]
fn f2_what_is_told_of_a_stream_that_is_none_is_the_same_however_it_is_cut() {
    for (stream, found, words) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], *b"G\0\0\0", "begins with [47] and"),
        (b"MSF1, and more than a header", *b"MSF1", "begins with [4d, 53, 46, 31] and"),
        (b"MX", *b"MX\0\0", "begins with [4d, 58] and"),
    ] {
        for piece in 1..=stream.len() {
            let mut decoder = Decoder::new(100);
            let told = stream.chunks(piece).find_map(|piece| {
                decoder.feed(piece);
                decoder.next_frame().err()
            });
            let told = told.expect("it is no stream of frames");
            assert_eq!(told, FrameError::Magic { found }, "in pieces of {piece}");
            assert!(told.to_string().contains(words), "{told}");
        }
    }
}

#[test]
fn unknown_kinds_are_refused() {
    let mut decoder = Decoder::new(100);
    decoder.feed(&sealed(99, 1));
    assert_eq!(decoder.next_frame(), Err(FrameError::Kind { found: 99 }));
}

#[test]
fn a_small_payload_does_not_keep_the_buffer_it_came_in_and_a_long_one_is_not_copied() {
    let mut decoder = Decoder::new(1 << 20);
    decoder.space().put_slice(&encode(Kind::Message, &[1; COPIED_LEN_MAX]));
    decoder.space().put_slice(&encode(Kind::Message, &[2; COPIED_LEN_MAX + 1]));
    let start = decoder.buffer.as_ptr().addr();
    let range = start..start + decoder.buffer.len();
    let frames = all_frames(&mut decoder).unwrap();
    assert!(!range.contains(&frames[0].payload.as_ptr().addr()));
    assert!(range.contains(&frames[1].payload.as_ptr().addr()));
}

#[test]
fn a_buffer_is_used_again_as_soon_as_nobody_has_a_message_that_is_in_it() {
    let mut decoder = Decoder::new(1 << 20);
    let frame = encode(Kind::Message, &[3; 64 << 10]);
    let (mut kept, mut places) = (VecDeque::new(), Vec::new());
    for _ in 0..200 {
        let mut rest = &frame[..];
        while !rest.is_empty() {
            let space = decoder.space();
            let (now, later) = rest.split_at(rest.len().min(space.capacity() - space.len()));
            space.put_slice(now);
            rest = later;
        }
        let message = decoder.next_frame().unwrap().unwrap().payload;
        assert!(message.len() == 64 << 10 && message.iter().all(|byte| *byte == 3));
        places.push(message.as_ptr().addr());
        // A reader that is some messages behind.
        kept.push_back(message);
        if kept.len() > 3 {
            kept.pop_front();
        }
    }
    let mut later = places.split_off(40);
    later.sort_unstable();
    later.dedup();
    assert!(later.len() <= 3 * 5, "{} places for 160 messages", later.len());
    assert!(decoder.used.len() <= USED_MAX);
}

#[test]
fn the_header_has_the_bytes_of_the_format_document() {
    let header = header(Kind::Message, &[Bytes::from_static(b"ringing")]);
    let document = include_str!("../../../../docs/format/wire.md");
    let rows: Vec<(usize, usize)> = table(document, "### Frame header");
    assert_eq!(rows, [(0, 4), (4, 1), (5, 3), (8, 4), (12, 4)]);
    let check = crc32c(b"MSF2\x01\0\0\0\x07\0\0\0").to_le_bytes();
    assert_eq!(header[..5], *b"MSF2\x01");
    assert_eq!(header[5..8], check[..3]);
    assert_eq!(header[8..12], 7_u32.to_le_bytes());
    let covered = [&header[..12], b"ringing"].concat();
    assert_eq!(header[12..], crc32c(&covered).to_le_bytes());
}

#[test]
fn the_kinds_have_the_numbers_of_the_format_document() {
    let document = include_str!("../../../../docs/format/wire.md");
    let known: Vec<u8> = (0..=255).filter(|code| Kind::of(*code).is_some()).collect();
    let section = document.split("### Kinds").nth(1).unwrap().split("###").next().unwrap();
    let listed: Vec<u8> =
        section.lines().filter_map(|line| line.split('|').nth(1)?.trim().parse().ok()).collect();
    assert_eq!(listed, known);
    assert!(known.iter().all(|code| Kind::of(*code).unwrap().code() == *code));
}

/// Offset and size of each row of the table under `heading`.
pub(crate) fn table(document: &str, heading: &str) -> Vec<(usize, usize)> {
    let section = document.split(heading).nth(1).unwrap().split("\n#").next().unwrap();
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.split('|').skip(1).map(str::trim);
        Some((cells.next()?.parse().ok()?, cells.next()?.parse().ok()?))
    });
    rows.collect()
}
