//! Frames of a segment one after another, a piece of the file at a time.

use mainstay_storage::Storage;

use super::format::Frame;
use crate::{
    error::{Error, Result},
    format::FRAME_LEN,
};

/// Bytes that are read at a time, unless a frame is longer.
const PIECE_BYTES: u64 = 1 << 20;

/// What is said where a frame is not as it was.
pub(super) const NOT_AS_WRITTEN: &str = "a write that was durable is not as it was written";

/// Where frames are read.
pub(super) struct Stretch<'a, S> {
    pub(super) file: &'a S,
    pub(super) name: &'a str,
    /// Of the store and the shard.
    pub(super) seed: u32,
    pub(super) shard: u32,
    /// Where they begin and end in the file.
    pub(super) from: u64,
    pub(super) end: u64,
    /// The write before them, and the checksum of its frame.
    pub(super) sequence: u64,
    pub(super) chain: u32,
}

impl<S: Storage> Stretch<'_, S> {
    /// Shows each frame, with its bytes and where it begins. They must continue each other up to the
    /// end. The last write, and the checksum of its frame.
    pub(super) fn each(
        &self,
        mut show: impl FnMut(u64, &Frame<'_>, &[u8]) -> Result<()>,
    ) -> Result<(u64, u32)> {
        let damaged = |at| Error::damaged(self.name, at, NOT_AS_WRITTEN);
        let (mut sequence, mut chain) = (self.sequence, self.chain);
        let (mut at, mut bytes, mut used) = (self.from, Vec::new(), 0);
        while at < self.end {
            let wanted = Frame::len_of(&bytes[used..]).unwrap_or(FRAME_LEN);
            if bytes.len() - used < wanted {
                bytes.drain(..used);
                used = 0;
                let left = self.end - at;
                if wanted as u64 > left {
                    return Err(damaged(at));
                }
                let have = bytes.len();
                bytes.resize(left.min(PIECE_BYTES.max(wanted as u64)) as usize, 0);
                let read = self.file.read_at(at + have as u64, &mut bytes[have..]);
                read.map_err(|error| match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => damaged(at),
                    _ => Error::io(self.name)(error),
                })?;
                continue;
            }
            let frame = Frame::read(self.seed, &bytes[used..]).ok_or_else(|| damaged(at))?;
            let head = frame.header;
            let continues = head.sequence.get() == sequence + 1
                && head.chain.get() == chain
                && head.shard.get() == self.shard;
            if !continues {
                return Err(damaged(at));
            }
            let len = head.len.get() as usize;
            show(at, &frame, &bytes[used..used + len])?;
            (sequence, chain) = (head.sequence.get(), head.checksum.get());
            used += len;
            at += len as u64;
        }
        Ok((sequence, chain))
    }
}
