//! Frames that are written together.

use crate::{
    Bytes, Payload,
    frame::{HEADER_LEN, Kind, header},
};
use bytes::{Buf, BufMut, BytesMut};
use std::{
    collections::VecDeque,
    io::{self, IoSlice, Write},
};

/// What is written at once, at least while there is so much.
pub(super) const BATCH_BYTES: usize = 256 << 10;
/// How many pieces one write may have.
pub(super) const SLICES_MAX: usize = 64;
/// A payload up to this length is copied behind its header, which is cheaper than a slice more.
const COPIED_LEN_MAX: usize = 2_048;

/// What a write is filled up with.
#[cfg(feature = "quic")]
static ZEROS: [u8; 1_024] = [0; 1_024];

/// Frames that are written together, in one vectored call where they fit.
#[derive(Default)]
pub(super) struct Batch {
    pieces: VecDeque<Bytes>,
    /// Headers and short payloads since the last long one.
    short: BytesMut,
    len: usize,
}

impl Batch {
    pub(super) fn add(&mut self, message: &Payload) {
        let parts = message.parts();
        self.short.put_slice(&header(Kind::Message, parts));
        self.len += HEADER_LEN + message.len();
        for part in parts {
            if part.len() <= COPIED_LEN_MAX {
                self.short.put_slice(part);
            } else {
                self.pieces.push_back(self.short.split().freeze());
                self.pieces.push_back(part.clone());
            }
        }
    }

    /// A frame without a payload.
    pub(super) fn sign(&mut self, kind: Kind) {
        self.short.put_slice(&header(kind, &[]));
        self.len += HEADER_LEN;
    }

    /// Makes it at least `least` bytes long, by signs of life with a payload of zeros, each no longer
    /// than `payload_len_max`.
    #[cfg(feature = "quic")]
    pub(super) fn fill_up(&mut self, least: usize, payload_len_max: usize) {
        while self.len < least {
            let missing = (least - self.len).saturating_sub(HEADER_LEN);
            let filling =
                Bytes::from_static(&ZEROS).slice(..missing.min(payload_len_max).min(ZEROS.len()));
            self.len += HEADER_LEN + filling.len();
            self.short.put_slice(&header(Kind::KeepAlive, std::slice::from_ref(&filling)));
            self.short.put_slice(&filling);
        }
    }

    /// How many bytes of frames were added since everything was written: none is none left.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Writes as much as can be written without waiting; whether that was everything.
    pub(super) fn write_now(&mut self, mut writer: impl Write) -> io::Result<bool> {
        self.seal();
        while self.is_unwritten() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.fill(&mut slices);
            match writer.write_vectored(&slices[..count]) {
                Ok(written) => self.advance(written)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.forget();
        Ok(true)
    }

    /// Everything was written.
    pub(super) fn forget(&mut self) {
        self.len = 0;
    }

    pub(super) fn seal(&mut self) {
        if !self.short.is_empty() {
            self.pieces.push_back(self.short.split().freeze());
        }
    }

    /// Whether there is anything left to hand over.
    pub(super) fn is_unwritten(&mut self) -> bool {
        while self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
        !self.pieces.is_empty()
    }

    /// Everything that is left, for whoever takes pieces as they are.
    #[cfg(feature = "quic")]
    pub(super) fn pieces(&mut self) -> &mut [Bytes] {
        self.seal();
        self.pieces.make_contiguous()
    }

    /// All pieces were taken.
    #[cfg(feature = "quic")]
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.forget();
    }

    pub(super) fn fill<'b>(&'b self, slices: &mut [IoSlice<'b>; SLICES_MAX]) -> usize {
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
        }
        self.pieces.len().min(SLICES_MAX)
    }

    pub(super) fn advance(&mut self, mut written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(piece) = self.pieces.front_mut() {
            let done = written.min(piece.len());
            written -= done;
            piece.advance(done);
            if !piece.is_empty() {
                break;
            }
            self.pieces.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Decoder;

    /// Takes a few bytes at a time, and now and then none.
    struct Narrow {
        taken: Vec<u8>,
        turn: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.turn += 1;
            match self.turn % 4 {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                1 => Err(io::ErrorKind::Interrupted.into()),
                turn => {
                    let len = bytes.len().min(turn * 7_001);
                    self.taken.extend_from_slice(&bytes[..len]);
                    Ok(len)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn however_little_is_taken_at_once_all_frames_arrive_whole_and_in_order() {
        let lens = [0, 1, COPIED_LEN_MAX, COPIED_LEN_MAX + 1, 50_000, 3];
        let mut batch = Batch::default();
        for len in lens {
            batch.add(&Payload::from(vec![len as u8; len]));
        }
        let parts = ["ring".into(), vec![9; 5_000].into(), "ing".into()];
        batch.add(&Payload::of_parts(&parts).unwrap());
        let mut narrow = Narrow { taken: Vec::new(), turn: 0 };
        let mut turns = 0;
        while !batch.write_now(&mut narrow).unwrap() {
            turns += 1;
            assert!(turns < 1_000);
        }
        assert_eq!(batch.len(), 0);
        let mut decoder = Decoder::new(1 << 20);
        decoder.feed(&narrow.taken);
        for len in lens {
            assert_eq!(decoder.next_frame().unwrap().unwrap().payload, vec![len as u8; len]);
        }
        assert_eq!(decoder.next_frame().unwrap().unwrap().payload, parts.concat());
        assert_eq!(decoder.next_frame().unwrap(), None);
    }

    #[cfg(feature = "quic")]
    #[test]
    fn what_is_short_is_filled_up_whatever_the_peer_takes_and_what_is_long_stays_as_it_is() {
        const LEAST: usize = 640;
        for len in [0, 1, 600, 607, 608, 609, 623, 624, 625, 5_000] {
            for payload_len_max in [0, 1, 15, 16, 17, 250, 5_000, usize::MAX] {
                let mut batch = Batch::default();
                batch.add(&Payload::from(vec![7; len]));
                batch.fill_up(LEAST, payload_len_max);
                let filled = batch.pieces().concat();
                assert_eq!(batch.len(), filled.len());
                let longest = (HEADER_LEN + len).max(LEAST + HEADER_LEN - 1);
                assert!((LEAST..=longest).contains(&filled.len()), "{}", filled.len());
                let mut decoder = Decoder::new(payload_len_max.max(len));
                decoder.feed(&filled);
                assert_eq!(decoder.next_frame().unwrap().unwrap().payload, vec![7; len]);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    assert_eq!(frame.kind, Kind::KeepAlive);
                    assert!(frame.payload.len() <= payload_len_max);
                }
                assert_eq!(decoder.pending(), 0);
            }
        }
    }
}
