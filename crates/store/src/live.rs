//! The file with the memory of a shard: what is in it, and when it is believed.
//!
//! It is believed only by whoever runs on the machine as it was when it was written: then all that
//! a process stored is there, wherever it was killed. After anything else that may have happened to
//! the machine nothing in it counts, and the shard is made anew from its log and its image.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use mainstay_base::crc32c;
use mainstay_shm::{Atomic64, Shared64};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U32, U64},
};

use crate::{
    format::{HEADER_LEN, Header, StoreHeader, VERSION, sealed},
    history::{History, Position},
    memory::Memory,
    planted::{self, Fault},
};

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct LiveHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) flags: U32,
    pub(crate) id: [u8; 16],
    pub(crate) boot: [u8; 16],
    pub(crate) shard: U32,
    pub(crate) key_len: U32,
    pub(crate) value_len: U32,
    pub(crate) reserved_60: U32,
    pub(crate) ring_bytes: U64,
    pub(crate) reserved: [u8; 52],
    pub(crate) checksum: U32,
}

impl Header for LiveHeader {
    const MAGIC: [u8; 8] = *b"MAINSLIV";
}

/// Where the ring begins.
pub(crate) const RING_AT: usize = 4096;
/// The most bytes of a ring.
const RING_BYTES_MAX: u64 = 256 << 10;

// Words of the first page, by their number.
const TABLES: usize = 16;
const RETIRED: usize = 17;
const SLOTS: usize = 18;
const SUSPECT: usize = 19;
const NAMED: usize = 20;
const REPLAYING: usize = 21;
const COMMITTED: usize = 24;
const APPLIED: usize = 25;
const WRITTEN: usize = 26;
const DURABLE: usize = 27;
const SINCE: usize = 28;
const SINCE_AGAIN: usize = 29;
/// Two of them, a sequence's by its lowest bit.
const PLACES: usize = 32;
const PLACE_WORDS: usize = 8;
const CONTROL_WORDS: usize = 48;
/// The bit of a place's chain that says that the history is mending.
const MENDING: u64 = 1 << 32;
/// The bits of a place's chain above that: a check of all words of the place.
const CHECK_SHIFT: u32 = 33;
/// The flag of a memory whose slots have the sums of [`crate::view`], whose words have checks, and whose
/// tables are named as in [`crate::index`]; without it, of one that an earlier release has written, the
/// frames in the ring are believed.
const CHECKED: u32 = 2;
/// The flag of an earlier release, whose sums were others.
const CHECKED_BEFORE: u32 = 1;
/// The lower bits of the word `written`: an offset in a segment.
const OFFSET_BITS: u32 = 31;

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<LiveHeader>() == HEADER_LEN);
    assert!(offset_of!(LiveHeader, id) == 16);
    assert!(offset_of!(LiveHeader, boot) == 32);
    assert!(offset_of!(LiveHeader, shard) == 48);
    assert!(offset_of!(LiveHeader, value_len) == 56);
    assert!(offset_of!(LiveHeader, ring_bytes) == 64);
    assert!(offset_of!(LiveHeader, checksum) == 124);
    assert!(TABLES * 8 == HEADER_LEN);
    assert!(PLACES + 2 * PLACE_WORDS == CONTROL_WORDS);
    assert!(CONTROL_WORDS * 8 <= RING_AT);
    assert!(crate::limits::SEGMENT_BYTES_MAX < 1 << OFFSET_BITS);
};

/// Bytes of the ring of a shard whose segments are so long.
pub(crate) fn ring_bytes(segment_bytes: u64) -> u64 {
    segment_bytes.min(RING_BYTES_MAX)
}

/// The bytes from `from` to `to` of a segment, the newest of which are in the ring.
pub(crate) fn ring_read(memory: &Memory, ring_bytes: u64, from: u64, to: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    ring_read_into(memory, ring_bytes, (from, to), &mut bytes);
    bytes
}

/// The same, in place of what is in `bytes`.
pub(crate) fn ring_read_into(
    memory: &Memory,
    ring_bytes: u64,
    (from, to): (u64, u64),
    bytes: &mut Vec<u8>,
) {
    bytes.resize(to.saturating_sub(from).min(ring_bytes) as usize, 0);
    let place = (from % ring_bytes) as usize;
    let first = bytes.len().min(ring_bytes as usize - place);
    let (first, rest) = bytes.split_at_mut(first);
    memory.read(RING_AT + place, first);
    memory.read(RING_AT, rest);
}

/// The end of a frame in the log, and what is up to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    pub(crate) segment: u64,
    pub(crate) at: u64,
    /// Bytes of the frame; 0 if that is not known.
    pub(crate) len: u64,
    pub(crate) chain: u32,
    /// Where in its history the shard is after the frame.
    pub(crate) history: History,
}

/// The header that a shard's memory has in this store and this running of the machine.
pub(crate) fn header(store: &StoreHeader, shard: u32, boot: [u8; 16]) -> LiveHeader {
    LiveHeader {
        magic: LiveHeader::MAGIC,
        version: VERSION.into(),
        flags: CHECKED.into(),
        id: store.id,
        boot,
        shard: shard.into(),
        key_len: store.key_len,
        value_len: store.value_len,
        reserved_60: 0.into(),
        ring_bytes: ring_bytes(store.segment_bytes.get()).into(),
        reserved: [0; 52],
        checksum: 0.into(),
    }
}

/// The sound header of a memory.
pub(crate) fn read_header(memory: &Memory) -> Option<LiveHeader> {
    let mut bytes = [0; HEADER_LEN];
    let is_there = memory.read(0, &mut bytes) && bytes[..8] == LiveHeader::MAGIC;
    let sum = crc32c(&bytes[..HEADER_LEN - 4]).to_le_bytes();
    if !is_there || bytes[HEADER_LEN - 4..] != sum {
        return None;
    }
    let header = LiveHeader::read_from_bytes(&bytes).ok()?;
    let is_known = matches!(header.flags.get(), 0 | CHECKED_BEFORE | CHECKED);
    (header.version.get() == VERSION && is_known).then_some(header)
}

/// Is this the header of a memory of the same store, shard and running of the machine, whose frames
/// count, whatever its records are worth?
pub(crate) fn has_frames_of(found: &LiveHeader, expected: &LiveHeader) -> bool {
    let as_expected = LiveHeader { flags: expected.flags, ..*found };
    sealed(&as_expected) == sealed(expected)
}

/// Writes the header: from then on the memory is believed.
pub(crate) fn write_header(memory: &Memory, header: &LiveHeader) -> bool {
    memory.write(0, &sealed(header))
}

/// No two numbers have the same.
pub(crate) fn mixed(number: u64) -> u64 {
    let product = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ product >> 32
}

/// 31 bits of all words of a place, in their order.
fn check_of(words: [u64; PLACE_WORDS]) -> u64 {
    let add = |sum: u64, (at, word): (u64, &u64)| {
        sum.wrapping_add(mixed(word.rotate_left(at as u32 * 8)))
    };
    let sum = (1..).zip(&words).fold(0, add);
    mixed(sum) >> CHECK_SHIFT
}

/// The words of the first page.
#[derive(Clone, Copy)]
pub(crate) struct Control<'a>(&'a [Shared64]);

impl<'a> Control<'a> {
    #[inline]
    pub(crate) fn of(memory: &'a Memory) -> Option<Self> {
        memory.words(0, CONTROL_WORDS).map(Self)
    }

    /// Generations of the index that is in use, and of the one before as long as it has anything.
    #[inline]
    pub(crate) fn tables(self) -> (u32, u32) {
        let word = self.0[TABLES].load(Acquire);
        ((word >> 32) as u32, word as u32)
    }

    pub(crate) fn set_tables(self, new: u32, old: u32) {
        self.0[TABLES].store(u64::from(new) << 32 | u64::from(old), Release);
    }

    /// Has another memory taken the place of this one?
    #[inline]
    pub(crate) fn is_retired(self) -> bool {
        self.0[RETIRED].load(Acquire) != 0
    }

    pub(crate) fn retire(self) {
        self.0[RETIRED].store(1, Release);
    }

    /// Whoever finds the memory is right about having the same, whatever was said to readers.
    pub(crate) fn take_over(self) {
        if self.is_retired() {
            self.0[RETIRED].store(0, Release);
        }
    }

    /// Something in the memory is not as it was written: whoever opens the store makes it anew.
    pub(crate) fn suspect(self) {
        self.0[SUSPECT].store(1, Release);
    }

    pub(crate) fn is_suspect(self) -> bool {
        self.0[SUSPECT].load(Acquire) != 0
    }

    /// What the words of the index come to that name a slot, when this write was the last.
    pub(crate) fn set_named(self, sum: u64, sequence: u64) {
        self.0[NAMED].store(sum ^ mixed(sequence), Release);
    }

    pub(crate) fn named(self, sequence: u64) -> u64 {
        self.0[NAMED].load(Acquire) ^ mixed(sequence)
    }

    /// Writes are being made again that need not be committed here, or are not any more.
    pub(crate) fn set_replaying(self, is_replaying: bool) {
        self.0[REPLAYING].store(u64::from(is_replaying), Release);
    }

    pub(crate) fn is_replaying(self) -> bool {
        self.0[REPLAYING].load(Acquire) != 0
    }

    /// Slots that were ever used.
    #[inline]
    pub(crate) fn slots(self) -> u64 {
        self.0[SLOTS].load(Acquire)
    }

    pub(crate) fn set_slots(self, count: u64) {
        self.0[SLOTS].store(count, Release);
    }

    /// The last write that counts: from here on it is made, whoever dies.
    pub(crate) fn commit(self, place: Place) {
        let words = self.place_words(place.sequence);
        words[0].store(place.sequence, Relaxed);
        words[1].store(place.segment, Relaxed);
        words[2].store(place.at, Relaxed);
        let (History::At(at) | History::Mending(at)) = place.history;
        let mending = if place.history.position().is_none() { MENDING } else { 0 };
        let chain = u64::from(place.chain) | mending;
        let Place { sequence, segment, at: end, len, .. } = place;
        let check = check_of([sequence, segment, end, chain, at.epoch, at.sequence, at.sum, len]);
        words[3].store(chain | check << CHECK_SHIFT, Relaxed);
        words[4].store(at.epoch, Relaxed);
        words[5].store(at.sequence, Relaxed);
        words[6].store(at.sum, Relaxed);
        words[7].store(place.len, Relaxed);
        self.0[COMMITTED].store(place.sequence, Release);
    }

    fn place_words(self, sequence: u64) -> &'a [Shared64] {
        &self.0[PLACES + (sequence & 1) as usize * PLACE_WORDS..][..PLACE_WORDS]
    }

    /// Where the last write that counts ends; `None` if the words contradict each other.
    pub(crate) fn committed(self) -> Option<Place> {
        let sequence = self.0[COMMITTED].load(Acquire);
        let mut words = [0; PLACE_WORDS];
        for (word, found) in words.iter_mut().zip(self.place_words(sequence)) {
            *word = found.load(Relaxed);
        }
        let [of, segment, at, chain, epoch, number, sum, len] = words;
        let position = Position { epoch, sequence: number, sum };
        let is_mending = chain & MENDING != 0;
        let history = if is_mending { History::Mending(position) } else { History::At(position) };
        let (check, chain) = (chain >> CHECK_SHIFT, chain & (MENDING | (MENDING - 1)));
        let is_sound = check == check_of([of, segment, at, chain, epoch, number, sum, len]);
        // Those of earlier releases have none.
        let is_sound = is_sound || check == 0 || planted::is(Fault::PlaceUnchecked);
        let chain = chain as u32;
        (of == sequence && is_sound).then_some(Place { sequence, segment, at, len, chain, history })
    }

    /// The last write that the records have all of.
    pub(crate) fn applied(self) -> u64 {
        self.0[APPLIED].load(Acquire)
    }

    pub(crate) fn set_applied(self, sequence: u64) {
        self.0[APPLIED].store(sequence, Release);
    }

    /// The last write that was known to be durable.
    pub(crate) fn durable(self) -> u64 {
        self.0[DURABLE].load(Acquire)
    }

    pub(crate) fn set_durable(self, sequence: u64) {
        self.0[DURABLE].store(sequence, Release);
    }

    /// The last write that may not follow the one before it in the history; if that is not known, one
    /// that is later than all.
    pub(crate) fn since(self) -> u64 {
        let since = self.0[SINCE].load(Acquire);
        if self.0[SINCE_AGAIN].load(Acquire) == !since { since } else { u64::MAX }
    }

    pub(crate) fn set_since(self, sequence: u64) {
        self.0[SINCE].store(sequence, Release);
        self.0[SINCE_AGAIN].store(!sequence, Release);
    }

    /// Up to which byte of a segment the file has what the ring has.
    pub(crate) fn set_written(self, segment: u64, at: u64) {
        self.0[WRITTEN].store(segment << OFFSET_BITS | at, Release);
    }

    pub(crate) fn written(self) -> (u64, u64) {
        let word = self.0[WRITTEN].load(Acquire);
        (word >> OFFSET_BITS, word & ((1 << OFFSET_BITS) - 1))
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn a_header_with_flags_that_nobody_has_written_is_none() {
        let memory = Memory::private(RING_AT as u64).unwrap();
        for flags in 0..8 {
            let (magic, version) = (LiveHeader::MAGIC, VERSION.into());
            let header =
                LiveHeader { magic, version, flags: flags.into(), ..LiveHeader::new_zeroed() };
            assert!(write_header(&memory, &header));
            assert_eq!(read_header(&memory).is_some(), flags < 3, "{flags}");
        }
    }
}
