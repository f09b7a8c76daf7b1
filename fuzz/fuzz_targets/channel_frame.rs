//! A stream of frames, cut anywhere and changed anywhere. What comes out was put in, in order and
//! whole, whatever was changed; and how the stream is cut makes no difference. A header that was
//! changed is an error at once: nobody waits for the length that it claims.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mainstay_base::crc32c;
use mainstay_channel::frame::{Decoder, Frame, FrameError, HEADER_LEN, Kind, encode};
use mainstay_fuzz::world;

#[derive(Arbitrary, Debug)]
struct Input {
    limit: u16,
    payloads: Vec<Vec<u8>>,
    changes: Vec<(u16, u8)>,
    cuts: Vec<u8>,
}

const FRAMES_MAX: usize = 16;

fuzz_target!(|data: &[u8]| {
    world::prepare();
    let Some((first, rest)) = data.split_first() else { return };
    // One input in sixteen is the stream itself, byte by byte.
    if *first >= 0xF0 {
        let whole = decode(rest, 1_024, &[]);
        assert_eq!(whole, decode(rest, 1_024, &[1]), "the cut makes no difference");
        return;
    }
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(rest)) else { return };
    changed(&input);
});

fn changed(input: &Input) {
    let limit = usize::from(input.limit);
    let kinds = [Kind::Message, Kind::KeepAlive, Kind::Close, Kind::Hello];
    let frames: Vec<Frame> = input
        .payloads
        .iter()
        .take(FRAMES_MAX)
        .enumerate()
        .map(|(at, payload)| Frame {
            kind: kinds[at % kinds.len()],
            payload: payload.clone().into(),
        })
        .collect();
    let mut stream: Vec<u8> =
        frames.iter().flat_map(|frame| encode(frame.kind, &frame.payload)).collect();
    let sound = input.changes.is_empty();
    for (at, change) in &input.changes {
        let len = stream.len().max(1);
        if let Some(byte) = stream.get_mut(usize::from(*at) % len) {
            *byte ^= change;
        }
    }
    let (got, error) = decode(&stream, limit, &input.cuts);
    assert_eq!((&got, &error), (&decode(&stream, limit, &[]).0, &error), "nor does the cut");
    assert!(got.len() <= frames.len());
    assert_eq!(got, frames[..got.len()], "what comes out was put in");
    assert!(got.iter().all(|frame| frame.payload.len() <= limit));
    let at: usize = got.iter().map(|frame| HEADER_LEN + frame.payload.len()).sum();
    if let Some(header) = stream[at..].first_chunk() {
        assert!(agrees(header) || error.is_some(), "a damaged header is not believed");
    }
    if sound && frames.iter().all(|frame| frame.payload.len() <= limit) {
        assert_eq!((got.len(), error), (frames.len(), None), "nothing is missing");
    }
}

/// Whether a header agrees with itself, by the words of the format.
fn agrees(header: &[u8; HEADER_LEN]) -> bool {
    let mut covered = *header;
    covered[5..8].fill(0);
    header[5..8] == crc32c(&covered[..12]).to_le_bytes()[..3]
}

/// All frames up to the first error.
fn decode(stream: &[u8], limit: usize, cuts: &[u8]) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::new(limit);
    let (mut frames, mut rest, mut cuts) = (Vec::new(), stream, cuts.iter().cycle());
    loop {
        let len = cuts.next().map_or(rest.len(), |cut| usize::from(*cut).max(1)).min(rest.len());
        decoder.feed(&rest[..len]);
        rest = &rest[len..];
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next_frame(), Err(error.clone()), "and nothing after it");
                    return (frames, Some(error));
                }
            }
        }
        if rest.is_empty() {
            return (frames, None);
        }
    }
}
