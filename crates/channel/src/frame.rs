//! Frames: how messages stand in a stream of bytes.
//!
//! F1. Whatever is decoded was encoded: a frame is handed out only when its magic, its length and
//!     its checksum are right, and after the first wrong byte nothing is handed out any more.
//! F2. A decoder gives the same frames however the stream is cut into pieces.
//! F3. A length is compared with the limit before anything is allocated for it; memory for a long
//!     frame grows with what has really arrived.
//! F4. A header has a check of its own: a damaged length is an error at once, and nobody waits for the
//!     bytes that it promises.
//!
//! Sans-IO: bytes go in, frames come out. The byte table is in `docs/format/wire.md`.

use crate::Bytes;
use bytes::{Buf, BufMut, BytesMut};
use mainstay_base::{Crc32c, crc32c};
use std::{collections::VecDeque, ops::Range};

/// The first four bytes of every frame; the digit is the version of the frames.
///
/// Example: see [`header`].
pub const MAGIC: [u8; 4] = *b"MSF2";

/// How long a header is, in bytes.
///
/// Example: see [`header`].
pub const HEADER_LEN: usize = 16;

const _: () = assert!(HEADER_LEN == 4 + 1 + 3 + 4 + 4);

/// A payload up to this length is copied out of the buffer it arrived in, so that whoever keeps a
/// small message does not keep the buffer.
const COPIED_LEN_MAX: usize = 1_024;

/// What is read at once, at first and when much comes.
const CHUNK_MIN: usize = 4 << 10;
const CHUNK_MAX: usize = 256 << 10;

/// How many buffers are kept to be used again, while somebody still has messages that are in them.
const USED_MAX: usize = 2;

/// A frame that is still arriving gets at most this much memory beyond what has arrived, or as much
/// again: what has arrived is copied whenever there is more room, which must not be each time.
const AHEAD: usize = 1 << 20;

/// What a frame is.
///
/// Example: see [`Decoder`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// A message of the user.
    Message,
    /// The sender has closed the channel in order: nothing follows.
    Close,
    /// A sign of life.
    KeepAlive,
    /// Handshake, 1st: who dials, and what for.
    Hello,
    /// Handshake, 2nd: prove it.
    Challenge,
    /// Handshake, 3rd: the dialler's proof.
    Proof,
    /// Handshake, 4th: the listener's proof.
    Welcome,
    /// Handshake, instead of any other: no, and why.
    Refusal,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Message => 1,
            Self::Close => 2,
            Self::KeepAlive => 3,
            Self::Hello => 16,
            Self::Challenge => 17,
            Self::Proof => 18,
            Self::Welcome => 19,
            Self::Refusal => 20,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Message,
            2 => Self::Close,
            3 => Self::KeepAlive,
            16 => Self::Hello,
            17 => Self::Challenge,
            18 => Self::Proof,
            19 => Self::Welcome,
            20 => Self::Refusal,
            _ => return None,
        })
    }
}

/// A whole frame.
///
/// Example: see [`Decoder`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// What it carries.
    pub payload: Bytes,
}

/// What is wrong with a stream of bytes.
///
/// ```
/// use mainstay_channel::frame::{Decoder, FrameError};
/// let mut decoder = Decoder::new(1 << 20);
/// decoder.feed(b"GET / HTTP/1.1\r\n");
/// assert!(matches!(decoder.next_frame(), Err(FrameError::Magic { .. })));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It does not begin as a frame does.
    #[error("a frame begins with {:02x?} and not with {MAGIC:02x?}", up_to_wrong(found))]
    Magic {
        /// What stands there, up to the first wrong byte; zeros behind it. So it is the same however
        /// much of the stream has arrived (F2).
        found: [u8; 4],
    },
    /// A frame of a kind that this version does not know.
    #[error("a frame is of kind {found}, which this version does not know")]
    Kind {
        /// Its number.
        found: u8,
    },
    /// The header does not agree with its own check: kind or length are not those that were sent.
    #[error("the header of a frame has the check {found:02x?} and should have {expected:02x?}")]
    Header {
        /// What stands there.
        found: [u8; 3],
        /// What the other bytes of the header say.
        expected: [u8; 3],
    },
    /// The frame is longer than this end takes.
    #[error("a frame has {len} bytes, and this end takes {limit}")]
    TooLong {
        /// Its length.
        len: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// The checksum is wrong.
    #[error("a frame of {len} bytes has the checksum {found:08x} and should have {expected:08x}")]
    Checksum {
        /// Its length.
        len: usize,
        /// What the frame says.
        found: u32,
        /// What its bytes say.
        expected: u32,
    },
    /// A frame that has no place here.
    #[error("a frame of kind {kind:?} came where none is expected")]
    Unexpected {
        /// Its kind.
        kind: Kind,
    },
}

/// The header of a frame whose payload is `parts`, one behind the other. Send it and the parts in
/// one vectored write.
///
/// ```
/// use mainstay_channel::frame::{HEADER_LEN, Kind, header};
/// let header = header(Kind::Message, &["ring".into(), "ing".into()]);
/// assert_eq!(header.len(), HEADER_LEN);
/// assert_eq!(&header[..4], b"MSF2");
/// assert_eq!(header[8..12], 7_u32.to_le_bytes());
/// ```
///
/// # Panics
/// When the parts are 4 GiB or more together: a sender's limit is far below.
#[must_use]
pub fn header(kind: Kind, parts: &[Bytes]) -> [u8; HEADER_LEN] {
    let len: usize = parts.iter().map(Bytes::len).sum();
    let len = u32::try_from(len).expect("no limit of a channel is as high as 4 GiB");
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&MAGIC);
    header[4] = kind.code();
    header[8..12].copy_from_slice(&len.to_le_bytes());
    let check = check_of(&header);
    header[CHECK].copy_from_slice(&check);
    let crc = match parts {
        [] => crc32c(&header[..12]),
        parts => {
            let mut crc = Crc32c::new();
            crc.update(&header[..12]);
            parts.iter().for_each(|part| crc.update(part));
            crc.finish()
        }
    };
    header[12..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Where a header's own check stands.
const CHECK: Range<usize> = 5..8;

/// F4. The check of a header that has everything else but the checksum: the lowest three bytes of
/// its CRC32C, with zeros in their place.
fn check_of(header: &[u8; HEADER_LEN]) -> [u8; 3] {
    let mut covered = [0; HEADER_LEN - 4];
    covered.copy_from_slice(&header[..HEADER_LEN - 4]);
    covered[CHECK].fill(0);
    let [a, b, c, _] = crc32c(&covered).to_le_bytes();
    [a, b, c]
}

/// A whole frame in one piece, for short ones.
///
/// ```
/// use mainstay_channel::frame::{Decoder, Kind, encode};
/// let mut decoder = Decoder::new(100);
/// decoder.feed(&encode(Kind::KeepAlive, b""));
/// assert_eq!(decoder.next_frame().unwrap().unwrap().kind, Kind::KeepAlive);
/// ```
#[must_use]
pub fn encode(kind: Kind, payload: &[u8]) -> Bytes {
    let payload = Bytes::copy_from_slice(payload);
    let mut frame = BytesMut::with_capacity(HEADER_LEN + payload.len());
    frame.put_slice(&header(kind, std::slice::from_ref(&payload)));
    frame.put_slice(&payload);
    frame.freeze()
}

/// Turns a stream of bytes into frames, however the stream is cut.
///
/// ```
/// use mainstay_channel::frame::{Decoder, Kind, encode};
/// let stream = [encode(Kind::Message, b"ringing"), encode(Kind::Close, b"")].concat();
/// let mut decoder = Decoder::new(1 << 20);
/// let mut frames = Vec::new();
/// for byte in stream {
///     decoder.feed(&[byte]);
///     while let Some(frame) = decoder.next_frame()? {
///         frames.push(frame);
///     }
/// }
/// assert_eq!(frames[0].payload, "ringing");
/// assert_eq!(frames[1].kind, Kind::Close);
/// # Ok::<(), mainstay_channel::frame::FrameError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// Earlier buffers, oldest first: empty, and free as soon as nobody has a message of theirs any
    /// more. New memory for each would mean fresh pages for each, where messages go to another
    /// thread.
    used: VecDeque<BytesMut>,
    payload_len_max: usize,
    /// How much is read at once.
    chunk: usize,
    /// The header of the frame that is arriving, once it is there and checked.
    header: Option<Header>,
    /// Why nothing is handed out any more.
    broken: Option<FrameError>,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    kind: Kind,
    len: usize,
    crc: u32,
    /// The bytes that the checksum covers beside the payload.
    covered: [u8; 12],
}

impl Decoder {
    /// A decoder that takes payloads up to `payload_len_max` bytes.
    ///
    /// Example: see [`Decoder`].
    #[must_use]
    pub fn new(payload_len_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            used: VecDeque::new(),
            payload_len_max,
            chunk: CHUNK_MIN,
            header: None,
            broken: None,
        }
    }

    /// Takes another limit from the next frame on: before the handshake a stranger may send little,
    /// after it a member may send what was agreed.
    ///
    /// ```
    /// use mainstay_channel::frame::{Decoder, Kind, encode};
    /// let mut decoder = Decoder::new(4);
    /// decoder.allow(7);
    /// decoder.feed(&encode(Kind::Message, b"ringing"));
    /// assert!(decoder.next_frame().is_ok());
    /// ```
    pub fn allow(&mut self, payload_len_max: usize) {
        self.payload_len_max = payload_len_max;
    }

    /// Adds bytes of the stream.
    ///
    /// Example: see [`Decoder`].
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = if self.broken.is_none() { bytes } else { &[] };
        while !rest.is_empty() {
            let space = self.space();
            let room = space.capacity() - space.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            space.extend_from_slice(now);
            rest = later;
        }
    }

    /// Where to read the stream's next bytes to, without a copy. There is always room.
    ///
    /// ```
    /// use bytes::BufMut;
    /// use mainstay_channel::frame::{Decoder, Kind, encode};
    /// let mut decoder = Decoder::new(100);
    /// decoder.space().put_slice(&encode(Kind::Message, b"ringing"));
    /// assert_eq!(decoder.next_frame().unwrap().unwrap().payload, "ringing");
    /// ```
    pub fn space(&mut self) -> &mut BytesMut {
        // What came last filled all there was: there may be more at once.
        if self.buffer.len() == self.buffer.capacity() && !self.buffer.is_empty() {
            self.chunk = (self.chunk * 2).min(CHUNK_MAX);
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let is_short = match &self.header {
            // The first part of a frame has room at once, so that it is not copied; what is longer,
            // when the room is used up.
            Some(header) => self.buffer.capacity() < header.len.min(AHEAD),
            None => room < HEADER_LEN,
        };
        if is_short || room < self.chunk / 8 {
            self.make_room(self.growth());
        }
        &mut self.buffer
    }

    /// How much more room there should be. A good deal more than the least, as the next frames may be in
    /// it as well.
    fn growth(&self) -> usize {
        let arrived = self.buffer.len();
        let missing = self.header.map_or(0, |header| header.len.saturating_sub(arrived));
        missing.min(arrived.max(AHEAD)).max(self.chunk)
    }

    /// In this buffer, if nobody has anything of it any more, or in an earlier one, or in a new one.
    fn make_room(&mut self, room: usize) {
        if self.buffer.try_reclaim(room) {
            return;
        }
        let needed = self.buffer.len() + room;
        let free = self.used.iter_mut().position(|used| used.try_reclaim(needed));
        let next = free.and_then(|at| self.used.remove(at));
        let mut next = next.unwrap_or_else(|| BytesMut::with_capacity(needed));
        next.extend_from_slice(&self.buffer);
        let mut old = std::mem::replace(&mut self.buffer, next);
        old.clear();
        // One of a very long frame would be kept for nothing.
        let is_usual = (1..=2 * AHEAD).contains(&old.capacity());
        if is_usual && self.chunk == CHUNK_MAX {
            if self.used.len() == USED_MAX {
                self.used.pop_front();
            }
            self.used.push_back(old);
        }
    }

    /// How many bytes it makes sense to read now: the rest of a frame that is arriving, or else up
    /// to `ahead`.
    #[cfg(feature = "shm")]
    pub(crate) fn wanted(&self, ahead: usize) -> usize {
        match &self.header {
            Some(header) => header.len.saturating_sub(self.buffer.len()).min(AHEAD),
            None => ahead,
        }
    }

    /// Adds `len` bytes that `read` puts where they belong.
    #[cfg(feature = "shm")]
    pub(crate) fn fill<E>(
        &mut self,
        len: usize,
        read: impl FnOnce(&mut [u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let old = self.buffer.len();
        // Read beyond what was there; a failed read leaves nothing.
        self.space();
        if self.buffer.capacity() - old < len {
            self.make_room(len.max(self.growth()));
        }
        self.buffer.resize(old + len, 0);
        read(&mut self.buffer[old..]).inspect_err(|_| self.buffer.truncate(old))
    }

    /// How many bytes have arrived of a frame that is not complete.
    ///
    /// ```
    /// use mainstay_channel::frame::Decoder;
    /// let mut decoder = Decoder::new(100);
    /// decoder.feed(b"MSF");
    /// assert_eq!(decoder.pending(), 3);
    /// ```
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len() + self.header.map_or(0, |_| HEADER_LEN)
    }

    /// The next whole frame, or none until more has arrived.
    ///
    /// Example: see [`Decoder`].
    ///
    /// # Errors
    /// What is wrong with the stream; from then on always the same.
    #[inline]
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        self.advance().inspect_err(|error| {
            self.broken = Some(error.clone());
            (self.buffer, self.used) = (BytesMut::new(), VecDeque::new());
        })
    }

    fn advance(&mut self) -> Result<Option<Frame>, FrameError> {
        let header = match self.header {
            Some(header) => header,
            None if self.buffer.len() >= HEADER_LEN => {
                let header = self.checked_header()?;
                self.buffer.advance(HEADER_LEN);
                *self.header.insert(header)
            }
            None => {
                // A stranger who speaks something else is told from its first bytes.
                check_magic(&self.buffer)?;
                return Ok(None);
            }
        };
        if self.buffer.len() < header.len {
            return Ok(None);
        }
        let mut crc = Crc32c::new();
        crc.update(&header.covered);
        crc.update(&self.buffer[..header.len]);
        let expected = crc.finish();
        if expected != header.crc && !crate::planted("frame-unchecked") {
            return Err(FrameError::Checksum { len: header.len, found: header.crc, expected });
        }
        let payload = if header.len <= COPIED_LEN_MAX {
            let copy = Bytes::copy_from_slice(&self.buffer[..header.len]);
            self.buffer.advance(header.len);
            copy
        } else {
            self.buffer.split_to(header.len).freeze()
        };
        self.header = None;
        Ok(Some(Frame { kind: header.kind, payload }))
    }

    fn checked_header(&self) -> Result<Header, FrameError> {
        let mut bytes = [0; HEADER_LEN];
        bytes.copy_from_slice(&self.buffer[..HEADER_LEN]);
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        check_magic(&bytes)?;
        let (found, expected) = ([bytes[5], bytes[6], bytes[7]], check_of(&bytes));
        if found != expected && !crate::planted("frame-header-unchecked") {
            return Err(FrameError::Header { found, expected });
        }
        let kind = Kind::of(bytes[4]).ok_or(FrameError::Kind { found: bytes[4] })?;
        let len = usize::try_from(u32::from_le_bytes(word(8))).unwrap_or(usize::MAX);
        if len > self.payload_len_max {
            return Err(FrameError::TooLong { len, limit: self.payload_len_max });
        }
        let mut covered = [0; 12];
        covered.copy_from_slice(&bytes[..12]);
        Ok(Header { kind, len, crc: u32::from_le_bytes(word(12)), covered })
    }
}

/// Whether what `bytes` begin with is the beginning of a frame, as far as it is there.
fn check_magic(bytes: &[u8]) -> Result<(), FrameError> {
    let begin = up_to_wrong(bytes);
    if MAGIC.starts_with(begin) {
        return Ok(());
    }
    let mut found = [0; MAGIC.len()];
    found[..begin.len()].copy_from_slice(begin);
    Err(FrameError::Magic { found })
}

/// The part of `bytes` that is compared with the magic: it ends at the first wrong byte.
fn up_to_wrong(bytes: &[u8]) -> &[u8] {
    let pairs = || bytes.iter().zip(MAGIC);
    let wrong = pairs().position(|(byte, magic)| *byte != magic);
    &bytes[..wrong.map_or(pairs().len(), |at| at + 1)]
}

#[cfg(test)]
pub(crate) mod tests;
