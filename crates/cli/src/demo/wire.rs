//! What the processes of the demo tell their parent, as frames of fixed length on a pipe.
//!
//! * **W1** One `write` of at most `PIPE_BUF` bytes is never cut in a pipe, whatever kills the
//!   writer (pipe(7)). An [`Outbox`] writes whole frames in such pieces, so the parent reads no half
//!   frame and what it reads was really said.
//! * **W2** Only what is already published is acknowledged: an outbox is filled after the store.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;

use mainstay::pool::BlockId;

use super::kinds::Kind;
use super::twin::Key;

const WORDS: usize = 9;
const FRAME_LEN: usize = WORDS * size_of::<u64>();
/// The least that POSIX and Linux promise to write in one piece is 512 and 4096; the demo is Linux.
const PIPE_BUF: usize = 4096;
const OUTBOX_LEN: usize = PIPE_BUF / FRAME_LEN * FRAME_LEN;

/// What a successor found when it took over.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Recovered {
    /// Blocks that nobody could use, or reach through its entity.
    pub(super) leaked: u64,
    /// From the open descriptor to the last block in its hands and checked.
    pub(super) recover_ns: u64,
}

/// What the reader did since it was asked last.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct ReaderReport {
    /// Whole records read.
    pub(super) reads: u64,
    /// Records of which no side was whole, however often they were read again.
    pub(super) torn: u64,
    /// Records older than the same record was before.
    pub(super) rolled_back: u64,
    /// Gaps over the limit that the scheduler does not explain.
    pub(super) stalls: u64,
    /// The longest time between two reads.
    pub(super) gap_ns: u64,
    /// The longest such time less what the thread waited for a CPU.
    pub(super) unexplained_ns: u64,
    /// How long the report covers.
    pub(super) window_ns: u64,
    /// Whether waiting for a CPU was told by the scheduler (else by the CPU clock).
    pub(super) scheduler: bool,
}

/// What the watcher saw since it was asked last.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct WatcherReport {
    /// Fewest live blocks.
    pub(super) fewest: u64,
    /// Most live blocks.
    pub(super) most: u64,
}

/// One thing said to the parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Message {
    /// Published: this entity is in this block with at least this many updates.
    Kept { id: BlockId, key: Key, sequence: u64 },
    /// About to be freed: from here on it may be there or not.
    Freeing(BlockId),
    /// Freed: it must not be there.
    Freed(BlockId),
    /// A successor found this whole record.
    Found { id: BlockId, key: Key, sequence: u64 },
    /// A successor found a block without a whole record where there had been one.
    FoundTorn(BlockId),
    /// A successor found a block in which nothing was published yet, and freed it.
    FoundUnwritten(BlockId),
    /// A successor has taken over.
    Recovered(Recovered),
    /// A sweep is complete, but for so many entities over the limit.
    Swept { skipped: u64 },
    /// An orderly end: the monotonic clock at the last sample, and at the closing of the pool.
    Parted { last_sample_ns: u64, closed_ns: u64 },
    /// The monotonic clock at the first sample after taking over.
    FirstSample { at_ns: u64 },
    /// Asked for.
    Reader(ReaderReport),
    /// Asked for.
    Watcher(WatcherReport),
}

impl Message {
    fn to_words(self) -> [u64; WORDS] {
        let block = |tag, id: BlockId| [tag, id.number.into(), id.generation, 0, 0, 0, 0, 0, 0];
        let record = |tag, id: BlockId, key: Key, sequence| {
            let [a, b] = key.words;
            [tag, id.number.into(), id.generation, key.kind as u64, a, b, sequence, 0, 0]
        };
        match self {
            Self::Kept { id, key, sequence } => record(1, id, key, sequence),
            Self::Freeing(id) => block(2, id),
            Self::Freed(id) => block(3, id),
            Self::Found { id, key, sequence } => record(4, id, key, sequence),
            Self::FoundTorn(id) => block(5, id),
            Self::FoundUnwritten(id) => block(6, id),
            Self::Recovered(r) => [7, r.leaked, r.recover_ns, 0, 0, 0, 0, 0, 0],
            Self::Swept { skipped } => [8, skipped, 0, 0, 0, 0, 0, 0, 0],
            Self::Parted { last_sample_ns, closed_ns } => {
                [9, last_sample_ns, closed_ns, 0, 0, 0, 0, 0, 0]
            }
            Self::FirstSample { at_ns } => [10, at_ns, 0, 0, 0, 0, 0, 0, 0],
            Self::Reader(r) => [
                11 | u64::from(r.scheduler) << 8,
                r.reads,
                r.torn,
                r.rolled_back,
                r.stalls,
                r.gap_ns,
                r.unexplained_ns,
                r.window_ns,
                0,
            ],
            Self::Watcher(w) => [12, w.fewest, w.most, 0, 0, 0, 0, 0, 0],
        }
    }

    fn from_words(words: [u64; WORDS]) -> Option<Self> {
        let [tag, a, b, c, d, e, f, g, _] = words;
        let id = || Some(BlockId { number: u32::try_from(a).ok()?, generation: b });
        let key = || {
            let kind = Kind::from_u16(u16::try_from(c).ok()?)?;
            Some(Key { kind, words: [d, e] })
        };
        Some(match tag & 0xFF {
            1 => Self::Kept { id: id()?, key: key()?, sequence: f },
            2 => Self::Freeing(id()?),
            3 => Self::Freed(id()?),
            4 => Self::Found { id: id()?, key: key()?, sequence: f },
            5 => Self::FoundTorn(id()?),
            6 => Self::FoundUnwritten(id()?),
            7 => Self::Recovered(Recovered { leaked: a, recover_ns: b }),
            8 => Self::Swept { skipped: a },
            9 => Self::Parted { last_sample_ns: a, closed_ns: b },
            10 => Self::FirstSample { at_ns: a },
            11 => Self::Reader(ReaderReport {
                reads: a,
                torn: b,
                rolled_back: c,
                stalls: d,
                gap_ns: e,
                unexplained_ns: f,
                window_ns: g,
                scheduler: tag >> 8 == 1,
            }),
            12 => Self::Watcher(WatcherReport { fewest: a, most: b }),
            _ => return None,
        })
    }
}

/// The writing end: collects messages and writes them in pieces that nothing can cut.
pub(super) struct Outbox {
    pipe: File,
    waiting: Vec<u8>,
}

impl Outbox {
    /// Writes to `pipe`.
    pub(super) fn new(pipe: OwnedFd) -> Self {
        Self { pipe: pipe.into(), waiting: Vec::with_capacity(OUTBOX_LEN) }
    }

    /// Adds a message; a full outbox is written.
    pub(super) fn say(&mut self, message: Message) -> io::Result<()> {
        if self.waiting.len() + FRAME_LEN > OUTBOX_LEN {
            self.flush()?;
        }
        self.waiting.extend(message.to_words().into_iter().flat_map(u64::to_le_bytes));
        Ok(())
    }

    /// Writes what is waiting, in one piece (W1).
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.pipe.write_all(&self.waiting)?;
            self.waiting.clear();
        }
        Ok(())
    }
}

/// Reads messages from `pipe` and passes them on in batches, until the pipe or the listener ends.
pub(super) fn pump(mut pipe: impl Read, listener: &Sender<Vec<Message>>) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 16];
    let mut filled = 0;
    loop {
        match pipe.read(&mut bytes[filled..])? {
            0 => return Ok(()),
            read => filled += read,
        }
        let whole = filled / FRAME_LEN * FRAME_LEN;
        let batch: Vec<_> = bytes[..whole]
            .chunks_exact(FRAME_LEN)
            .map(|frame| decode(frame).ok_or(io::ErrorKind::InvalidData))
            .collect::<Result<_, _>>()?;
        bytes.copy_within(whole..filled, 0);
        filled -= whole;
        if listener.send(batch).is_err() {
            return Ok(());
        }
    }
}

fn decode(frame: &[u8]) -> Option<Message> {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(frame.chunks_exact(size_of::<u64>())) {
        *word = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Message::from_words(words)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn one_of_each() -> Vec<Message> {
        let id = BlockId { number: 7, generation: 1 << 40 };
        let key = Key { kind: Kind::Socket, words: [3, 4] };
        vec![
            Message::Kept { id, key, sequence: 5 },
            Message::Freeing(id),
            Message::Freed(id),
            Message::Found { id, key, sequence: 6 },
            Message::FoundTorn(id),
            Message::FoundUnwritten(id),
            Message::Recovered(Recovered { leaked: 1, recover_ns: 2 }),
            Message::Swept { skipped: 1 },
            Message::Parted { last_sample_ns: 1, closed_ns: 2 },
            Message::FirstSample { at_ns: 1 },
            Message::Reader(ReaderReport {
                reads: 1,
                torn: 2,
                rolled_back: 3,
                stalls: 4,
                gap_ns: 5,
                unexplained_ns: 6,
                window_ns: 7,
                scheduler: true,
            }),
            Message::Watcher(WatcherReport { fewest: 1, most: 2 }),
        ]
    }

    #[test]
    fn every_message_comes_through_a_pipe_as_it_was() {
        let (reading, writing) = io::pipe().unwrap();
        let mut outbox = Outbox::new(writing.into());
        for message in one_of_each() {
            outbox.say(message).unwrap();
        }
        outbox.flush().unwrap();
        drop(outbox);
        let (sender, receiver) = channel();
        pump(reading, &sender).unwrap();
        drop(sender);
        assert_eq!(receiver.iter().flatten().collect::<Vec<_>>(), one_of_each());
    }

    #[test]
    fn an_outbox_never_writes_more_than_a_pipe_takes_in_one_piece() {
        let (mut reading, writing) = io::pipe().unwrap();
        let mut outbox = Outbox::new(writing.into());
        let frames = OUTBOX_LEN / FRAME_LEN + 1;
        for _ in 0..frames {
            outbox.say(Message::FirstSample { at_ns: 1 }).unwrap();
        }
        let mut bytes = vec![0; 2 * PIPE_BUF];
        assert_eq!(reading.read(&mut bytes).unwrap(), OUTBOX_LEN);
        outbox.flush().unwrap();
        assert_eq!(reading.read(&mut bytes).unwrap(), FRAME_LEN);
    }

    #[test]
    fn noise_is_refused() {
        let (sender, _receiver) = channel();
        assert!(pump(&[0xFF; FRAME_LEN][..], &sender).is_err());
    }
}
