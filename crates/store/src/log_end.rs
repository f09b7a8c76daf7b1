//! What lies behind the last sound frame of a log: what a death or a power cut leaves there of the
//! frame that comes next, or something that says of itself that it is damage (A4, V1).
//!
//! Behind the end of a log there are zeros, durably, before anything is written there: a segment begins
//! so, whoever opens a store sees to it, and so does whoever goes on where a write was refused. So
//! wherever a sector was lost, torn inside, or written before another, each word of the next frame (8
//! bytes, as frames begin at multiples of it) is as it was written, or zeros. Of an encrypted file a
//! sector that is torn inside reads as one filler, all of it, and says nothing.

use zerocopy::{FromBytes, IntoBytes};

use crate::{
    format::{FRAME_LEN, FRAME_MAGIC, FrameHeader},
    planted::{self, Fault},
};

const WORD: usize = 8;
/// Content that a sector of an encrypted file has, and what each byte of it reads as if it cannot be
/// read: see `docs/format/encryption.md`. The store does not know whether its files are encrypted.
const ENCRYPTED_BYTES: u64 = 484;
const UNREADABLE: u8 = 0xfd;

/// Where the sound frames of a log end.
pub(crate) struct LogEnd {
    /// With which a frame begins.
    magic: [u8; 4],
    shard: u32,
    /// The last of them, and its checksum.
    sequence: u64,
    chain: u32,
    /// Where in the file they end.
    at: u64,
}

impl LogEnd {
    /// Of a shard whose keys and values have fixed sizes; what its frames begin with is in
    /// [`crate::format`].
    pub(crate) fn of_fixed(shard: u32, last: (u64, u32), at: u64) -> Self {
        Self::new(FRAME_MAGIC, shard, last, at)
    }

    pub(crate) fn new(magic: [u8; 4], shard: u32, (sequence, chain): (u64, u32), at: u64) -> Self {
        Self { magic, shard, sequence, chain, at }
    }

    /// Do the bytes from here on say that a sound frame was here, or is not there any more? No frame that
    /// continues those before it is at their front.
    pub(crate) fn is_damaged(&self, bytes: &[u8]) -> bool {
        if planted::is(Fault::EndUnlooked) {
            return false;
        }
        !self.can_begin(bytes) || self.is_followed(bytes) || self.is_all_there(bytes)
    }

    /// Can the header of the next frame be at the front, or what there is of it?
    fn can_begin(&self, bytes: &[u8]) -> bool {
        let next = FrameHeader {
            magic: self.magic,
            checksum: 0.into(),
            len: 0.into(),
            count: 0.into(),
            chain: self.chain.into(),
            shard: self.shard.into(),
            epoch: 0.into(),
            sequence: (self.sequence + 1).into(),
            durable: 0.into(),
        };
        let is_known = |at: &usize| matches!(at, 0..4 | 16..24 | 32..40);
        let pairs = bytes.iter().zip(next.as_bytes()).enumerate();
        let mut known = pairs.filter(|(at, _)| is_known(at));
        let can_be = known
            .all(|(at, (byte, next))| *byte == 0 || byte == next || self.is_unreadable(bytes, at));
        // It cannot have known of a write that was durable before it, and is not there.
        let durable = header(bytes).map_or(0, |header| header.durable.get());
        can_be && (durable <= self.sequence || self.is_unreadable(bytes, FRAME_LEN - 1))
    }

    /// The header of the next frame, if it is at the front and not torn.
    fn next(&self, bytes: &[u8]) -> Option<FrameHeader> {
        header(bytes).filter(|header| {
            header.magic == self.magic
                && header.shard.get() == self.shard
                && header.sequence.get() == self.sequence + 1
                && header.chain.get() == self.chain
        })
    }

    /// Is there a header of a later frame which says that the next one was durable? That it is no part of
    /// a value is seen from its naming the checksum of the one before, which no value can know: it is one
    /// of all writes up to that, and of the store's id.
    fn is_followed(&self, bytes: &[u8]) -> bool {
        let Some(next) = self.next(bytes) else { return false };
        let places = (FRAME_LEN..bytes.len()).step_by(WORD);
        let found = places.filter_map(|at| {
            let rest = bytes.get(at..).filter(|rest| rest.starts_with(&self.magic))?;
            let later = header(rest).filter(|later| later.shard.get() == self.shard)?;
            Some((later.sequence.get().checked_sub(self.sequence + 2)?, later))
        });
        let mut found: Vec<(u64, FrameHeader)> = found.collect();
        found.sort_unstable_by_key(|(back, _)| *back);
        // Of the frames behind the end, in their order.
        let mut sums = vec![next.checksum];
        for (back, later) in found {
            let before = usize::try_from(back).ok().and_then(|back| sums.get(back));
            if before != Some(&later.chain) {
                continue;
            }
            if (self.sequence + 1..later.sequence.get()).contains(&later.durable.get()) {
                return true;
            }
            if back == sums.len() as u64 - 1 {
                sums.push(later.checksum);
            }
        }
        false
    }

    /// Is all of the next frame there, and not as it was written? What is not there yet is zeros.
    fn is_all_there(&self, bytes: &[u8]) -> bool {
        let Some(next) = self.next(bytes) else { return false };
        let len = next.len.get() as usize;
        let Some(frame) = bytes.get(..len).filter(|_| len >= FRAME_LEN) else { return false };
        // Of the very first frame, that nothing was durable is all that it can say.
        let is_meant = |word: usize| word == 5 && self.sequence == 0;
        let mut words = frame.chunks(WORD).enumerate();
        words.all(|(at, word)| word.iter().any(|byte| *byte != 0) || is_meant(at))
            && !(0..len).step_by(WORD).any(|at| self.is_unreadable(bytes, at))
            && self.has_all_sectors(frame)
    }

    /// Is something of the next frame in each sector that it would have if it were encrypted? These do not
    /// begin at words, so one of which only a part of a word is the frame's may be missing.
    fn has_all_sectors(&self, frame: &[u8]) -> bool {
        let (mut at, mut place) = (0, self.at);
        while at < frame.len() {
            let len = (ENCRYPTED_BYTES - place % ENCRYPTED_BYTES).min((frame.len() - at) as u64);
            let end = at + len as usize;
            if frame[at..end].iter().all(|byte| *byte == 0) {
                return planted::is(Fault::FillerTold);
            }
            (at, place) = (end, place + len);
        }
        true
    }

    /// Is this byte in a sector that would read so if it were encrypted, and torn inside? What is sound is
    /// in none.
    fn is_unreadable(&self, bytes: &[u8], at: usize) -> bool {
        if bytes.get(at) != Some(&UNREADABLE) {
            return false;
        }
        let place = self.at + at as u64;
        let start = place / ENCRYPTED_BYTES * ENCRYPTED_BYTES;
        let Some(start) = start.checked_sub(self.at) else { return false };
        let sector = bytes.iter().skip(start as usize).take(ENCRYPTED_BYTES as usize);
        sector.copied().all(|byte| byte == UNREADABLE) && !planted::is(Fault::FillerTold)
    }
}

fn header(bytes: &[u8]) -> Option<FrameHeader> {
    FrameHeader::read_from_prefix(bytes).ok().map(|(header, _)| header)
}

#[cfg(test)]
mod tests {
    use mainstay_base::Rng;

    use super::*;
    use crate::{format::frame_sum, planted::plant};

    const AT: u64 = 4096 + 8 * 37;
    const END: LogEnd =
        LogEnd { magic: FRAME_MAGIC, shard: 1, sequence: 20, chain: 0x1234_5678, at: AT };

    /// A frame that follows the one with this sequence and checksum, and has no zeros but where a header
    /// has some. `durable` is what it says was.
    fn frame((sequence, chain): (u64, u32), durable: u64, len: usize) -> Vec<u8> {
        let header = FrameHeader {
            magic: FRAME_MAGIC,
            checksum: 0.into(),
            len: (len as u32).into(),
            count: 3.into(),
            chain: chain.into(),
            shard: END.shard.into(),
            epoch: 5.into(),
            sequence: (sequence + 1).into(),
            durable: durable.into(),
        };
        let mut frame = header.as_bytes().to_vec();
        frame.extend((frame.len()..len).map(|at| (at % 251) as u8 + 1));
        let sum = frame_sum(&frame);
        frame[4..8].copy_from_slice(&sum.to_le_bytes());
        frame
    }

    fn sum(frame: &[u8]) -> u32 {
        header(frame).unwrap().checksum.get()
    }

    #[test]
    fn a4_whatever_is_missing_of_writes_that_were_not_durable_is_no_damage() {
        let mut rng = Rng::seeded(1);
        for round in 0..20_000 {
            let first = frame((20, END.chain), 20, 800 + 8 * rng.below(100) as usize);
            let second = frame((21, sum(&first)), 20, 1_200);
            let written = [&first[..], &second].concat();
            let mut left = written.clone();
            for word in left.chunks_mut(8).filter(|_| rng.below(4) == 0) {
                word.fill(0);
            }
            // Some sectors are whole, and some are not there.
            for (at, sector) in left.chunks_mut(512).enumerate() {
                match rng.below(3) {
                    0 => sector.copy_from_slice(&written[at * 512..][..sector.len()]),
                    1 => sector.fill(0),
                    _ => {}
                }
            }
            if round % 2 == 0 {
                // Sectors of an encrypted file alone: they do not begin at words.
                left.copy_from_slice(&written);
                let sectors = |at: &usize| (AT + *at as u64) / ENCRYPTED_BYTES;
                let lost = rng.below(128);
                for at in (0..left.len()).filter(|at| lost >> (sectors(at) % 7) & 1 == 1) {
                    left[at] = 0;
                }
            }
            let len = rng.below(left.len() as u64 + 600) as usize;
            left.resize(len, 0);
            // What an opening takes for a write is none of this.
            if left.len() >= first.len() && left[..first.len()] == first {
                continue;
            }
            assert!(!END.is_damaged(&left), "round {round}");
        }
    }

    #[test]
    fn a4_a_torn_sector_of_an_encrypted_file_is_no_damage() {
        // The next frame begins in the sector before.
        let place = AT.next_multiple_of(ENCRYPTED_BYTES);
        for back in [0, 8, 24, 40, 48, 200] {
            let end = LogEnd { at: place - back, ..END };
            let mut left = frame((20, END.chain), 20, 1_600);
            left[back as usize..][..ENCRYPTED_BYTES as usize].fill(UNREADABLE);
            assert!(!end.is_damaged(&left), "{back}");
            plant(Some(Fault::FillerTold));
            let is_found = end.is_damaged(&left);
            plant(None);
            assert!(is_found, "the fault is not found {back} bytes before");
        }
    }

    #[test]
    fn a4_something_else_in_the_place_of_the_next_write_is_damage() {
        let first = frame((20, END.chain), 20, 1_600);
        let told = |change: &dyn Fn(&mut [u8])| {
            let mut left = first.clone();
            change(&mut left);
            END.is_damaged(&left)
        };
        for at in [0, 3, 16, 19, 20, 32, 39] {
            assert!(told(&|left| left[at] ^= 0x11), "byte {at} of the header");
        }
        assert!(told(&|left| left[40] = 21), "it says that it was durable itself");
        assert!(told(&|left| left[512..1024].fill(9)), "another sector in its middle");
        // It cannot be told from one that was torn.
        assert!(!told(&|left| left[512..520].fill(0)));
        assert!(!told(&|left| left[16..].fill(0)));
        plant(Some(Fault::EndUnlooked));
        assert!(!told(&|left| left[0] = b'?'), "the fault is found");
        plant(None);
    }

    #[test]
    fn a4_the_header_of_a_later_write_is_believed_wherever_it_lies_and_whatever_else_is_lost() {
        let first = frame((20, END.chain), 20, 1_600);
        let second = frame((21, sum(&first)), 20, 1_200);
        let told = |third: &[u8]| {
            let mut left = [&first[..], &second].concat();
            // Both are torn; of the third there is the header only.
            left[1_000..1_008].fill(0);
            left[2_000..2_008].fill(0);
            left.extend_from_slice(&third[..FRAME_LEN]);
            let behind = END.is_damaged(&left);
            left.truncate(2_800);
            left[800..][..FRAME_LEN].copy_from_slice(&third[..FRAME_LEN]);
            (behind, END.is_damaged(&left))
        };
        let after = (22, sum(&second));
        assert_eq!(told(&frame(after, 21, 800)), (true, true));
        assert_eq!(told(&frame(after, 22, 800)), (true, true));
        assert_eq!(told(&frame(after, 20, 800)), (false, false), "nothing was");
        assert_eq!(told(&frame(after, 23, 800)), (false, false), "it does not know of itself");
        assert_eq!(told(&frame((22, 77), 22, 800)), (false, false), "a value says so");
    }
}
