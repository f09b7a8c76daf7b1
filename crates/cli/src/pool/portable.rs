//! The export format, as in `docs/format/export.md`: lines of JSON that any language can read.
//!
//! E1. A reader has seen the whole export, every byte of it as it was written, or it fails: each
//!     block has a checksum, and the last line the number of blocks and a checksum of all lines.
//! E2. A reader trusts nothing: lines have a limit, numbers are checked.

use crate::hex;
use mainstay::pool::{Uuid, limits::BLOCK_SIZE_MAX};
use mainstay_base::Crc32c;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    io::{self, BufRead, Read, Write},
    mem,
};

/// The one version of the format there is.
const VERSION: u32 = 1;
/// What the first line says it is.
const FORMAT: &str = "mainstay pool export";
/// A line without its data is shorter than this.
const LINE_REST_MAX: u64 = 4_096;

/// Why something is not an export, or not all of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FormatError {
    #[error("is not an export of a pool (line 1: {0}); check the file; nothing was imported")]
    NotAnExport(String),
    #[error(
        "has export version {found}, this build knows {VERSION}; use a newer build; nothing was \
         imported"
    )]
    Version { found: u32 },
    #[error("line {line}: {what}; export again, or restore a copy; nothing was imported")]
    Line { line: u64, what: String },
    #[error(
        "line {line}: the checksum is {stored}, the data gives {computed}: damaged; export again, \
         or restore a copy; nothing was imported"
    )]
    Checksum { line: u64, stored: String, computed: String },
    #[error(
        "ends after {blocks} blocks without its last line: it was cut short; export again, or \
         restore a copy; nothing was imported"
    )]
    Truncated { blocks: u64 },
    #[error(
        "its last line says {said} blocks, and there are {blocks}: lines are missing; export \
         again, or restore a copy; nothing was imported"
    )]
    Count { said: u64, blocks: u64 },
    #[error("cannot be read: {0}; check the disk; nothing was imported")]
    Read(#[from] io::Error),
}

impl FormatError {
    /// Whether it was an export, and is not whole any more.
    pub(crate) fn is_damage(&self) -> bool {
        !matches!(self, Self::NotAnExport(_) | Self::Version { .. } | Self::Read(_))
    }
}

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    #[serde(borrow)]
    Pool(Header<'a>),
    #[serde(borrow)]
    Block(BlockLine<'a>),
    #[serde(borrow)]
    End(End<'a>),
}

/// The first line: what the pool was like.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(crate) struct Header<'a> {
    #[serde(borrow)]
    format: Cow<'a, str>,
    version: u32,
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    pub(crate) uuid: Uuid128,
    pub(crate) block_size_bytes: u64,
    pub(crate) growth_step_blocks: u64,
    pub(crate) blocks_max: u64,
    pub(crate) reserved_bytes: u64,
}

/// What is needed of the header before the rest of it can be understood.
#[derive(Deserialize)]
struct Announcement<'a> {
    #[serde(borrow)]
    format: Cow<'a, str>,
    version: u32,
}

#[derive(Deserialize)]
struct FirstLine<'a> {
    #[serde(borrow)]
    pool: Announcement<'a>,
}

impl<'a> Header<'a> {
    pub(crate) fn new(info: &'a mainstay::pool::Info) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            name: Cow::Borrowed(&info.name),
            uuid: Uuid128(info.uuid),
            block_size_bytes: info.block_size,
            growth_step_blocks: info.blocks_per_extent,
            blocks_max: info.blocks_max(),
            reserved_bytes: info.reserved,
        }
    }

    fn into_owned(self) -> Header<'static> {
        Header {
            format: Cow::Owned(self.format.into_owned()),
            name: Cow::Owned(self.name.into_owned()),
            ..self
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockLine<'a> {
    uuid: Uuid128,
    used_bytes: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    fingerprint: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_false")]
    exclusive: bool,
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(borrow)]
    crc32c: Cow<'a, str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End<'a> {
    blocks: u64,
    #[serde(borrow)]
    crc32c: Cow<'a, str>,
}

/// A UUID, written as text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Uuid128(pub(crate) Uuid);

impl Serialize for Uuid128 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Uuid128 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A block as it is in an export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Exported {
    pub(crate) uuid: Uuid,
    pub(crate) used_len: u64,
    pub(crate) fingerprint: u64,
    pub(crate) exclusive: bool,
    /// Without the zeros at its end.
    pub(crate) data: Vec<u8>,
}

impl Exported {
    /// Over all that is told of the block, so that a change of any of it shows.
    fn checksum(&self) -> u32 {
        let mut crc = Crc32c::new();
        crc.update(self.uuid.as_bytes());
        crc.update(&self.used_len.to_le_bytes());
        crc.update(&self.fingerprint.to_le_bytes());
        crc.update(&[u8::from(self.exclusive)]);
        crc.update(&self.data);
        crc.finish()
    }

    /// Bytes that a block needs to have for it.
    pub(crate) fn size(&self) -> u64 {
        self.used_len.max(self.data.len() as u64)
    }
}

/// Writes an export.
pub(crate) struct Writer<W: Write> {
    writer: W,
    crc: Crc32c,
    blocks: u64,
    bytes: u64,
    line: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(writer: W, header: Header<'_>) -> io::Result<Self> {
        let mut this = Self { writer, crc: Crc32c::new(), blocks: 0, bytes: 0, line: Vec::new() };
        this.put(&Line::Pool(header))?;
        Ok(this)
    }

    pub(crate) fn block(&mut self, block: &mut Exported) -> io::Result<()> {
        let len = block.data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        block.data.truncate(len);
        let fingerprint =
            (block.fingerprint != 0).then(|| super::rows::fingerprint(block.fingerprint).into());
        self.put(&Line::Block(BlockLine {
            uuid: Uuid128(block.uuid),
            used_bytes: block.used_len,
            fingerprint,
            exclusive: block.exclusive,
            data: hex::encode(&block.data).into(),
            crc32c: sum(block.checksum()).into(),
        }))?;
        self.blocks += 1;
        Ok(())
    }

    /// Writes the last line; returns the number of blocks, and of bytes in all.
    pub(crate) fn finish(mut self) -> io::Result<(u64, u64)> {
        let crc32c = sum(mem::take(&mut self.crc).finish()).into();
        self.put(&Line::End(End { blocks: self.blocks, crc32c }))?;
        self.writer.flush()?;
        Ok((self.blocks, self.bytes))
    }

    fn put(&mut self, line: &Line<'_>) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        self.crc.update(&self.line);
        self.bytes += self.line.len() as u64;
        self.writer.write_all(&self.line)
    }
}

/// Reads an export.
pub(crate) struct Reader<R: BufRead> {
    reader: R,
    header: Header<'static>,
    crc: Crc32c,
    line: Vec<u8>,
    number: u64,
    blocks: u64,
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line.
    pub(crate) fn new(mut reader: R) -> Result<Self, FormatError> {
        let mut line = Vec::new();
        read_line(&mut reader, &mut line, LINE_REST_MAX)?;
        let not = |why: &dyn std::fmt::Display| FormatError::NotAnExport(why.to_string());
        let first: FirstLine<'_> = serde_json::from_slice(&line).map_err(|e| not(&e))?;
        if first.pool.format != FORMAT {
            return Err(not(&format!("the format is {:?}", first.pool.format)));
        }
        if first.pool.version != VERSION {
            return Err(FormatError::Version { found: first.pool.version });
        }
        let header = match serde_json::from_slice(&line).map_err(|e| not(&e))? {
            Line::Pool(header) => header.into_owned(),
            _ => return Err(not(&"it is not about a pool")),
        };
        if header.block_size_bytes == 0 || header.block_size_bytes > BLOCK_SIZE_MAX as u64 {
            return Err(not(&format!("the block size is {}", header.block_size_bytes)));
        }
        let mut crc = Crc32c::new();
        crc.update(&line);
        Ok(Self { reader, header, crc, line, number: 1, blocks: 0 })
    }

    pub(crate) fn header(&self) -> &Header<'static> {
        &self.header
    }

    /// Bytes of the line read last.
    pub(crate) fn line_len(&self) -> u64 {
        self.line.len() as u64
    }

    /// The next block; none after the last line, if everything was there.
    pub(crate) fn next(&mut self) -> Result<Option<Exported>, FormatError> {
        self.number += 1;
        let (line, blocks) = (self.number, self.blocks);
        let wrong =
            |what: &dyn std::fmt::Display| FormatError::Line { line, what: what.to_string() };
        let limit = 2 * self.header.block_size_bytes + LINE_REST_MAX;
        let whole = read_line(&mut self.reader, &mut self.line, limit)?;
        if !whole && self.line.len() as u64 > limit {
            return Err(wrong(&"is longer than a block of this pool"));
        }
        if !whole {
            return Err(FormatError::Truncated { blocks });
        }
        match serde_json::from_slice(&self.line).map_err(|e| wrong(&e))? {
            Line::Pool(_) => Err(wrong(&"a second header")),
            Line::Block(block) => {
                let block = parse_block(&block, line)?;
                if block.size() > self.header.block_size_bytes {
                    return Err(wrong(&"more data than a block of this pool has"));
                }
                self.crc.update(&self.line);
                self.blocks += 1;
                Ok(Some(block))
            }
            Line::End(end) => {
                if end.blocks != blocks {
                    return Err(FormatError::Count { said: end.blocks, blocks });
                }
                compare(line, &end.crc32c, mem::take(&mut self.crc).finish())?;
                let mut behind = [0];
                if self.reader.read(&mut behind)? != 0 {
                    return Err(wrong(&"something stands behind the last line"));
                }
                Ok(None)
            }
        }
    }
}

fn parse_block(found: &BlockLine<'_>, line: u64) -> Result<Exported, FormatError> {
    let wrong = |what: &str| FormatError::Line { line, what: what.to_owned() };
    let fingerprint = match &found.fingerprint {
        None => 0,
        Some(text) => text
            .strip_prefix("0x")
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .ok_or_else(|| wrong("the fingerprint is not a hexadecimal number"))?,
    };
    let block = Exported {
        uuid: found.uuid.0,
        used_len: found.used_bytes,
        fingerprint,
        exclusive: found.exclusive,
        data: hex::decode(&found.data).ok_or_else(|| wrong("the data is not hexadecimal"))?,
    };
    compare(line, &found.crc32c, block.checksum())?;
    Ok(block)
}

fn compare(line: u64, stored: &str, computed: u32) -> Result<(), FormatError> {
    let computed = sum(computed);
    if stored == computed {
        return Ok(());
    }
    Err(FormatError::Checksum { line, stored: stored.to_owned(), computed })
}

fn sum(crc: u32) -> String {
    format!("{crc:#010x}")
}

/// Reads a line, at most one byte more than `limit`; tells whether its end was there.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>, limit: u64) -> io::Result<bool> {
    line.clear();
    reader.take(limit + 1).read_until(b'\n', line)?;
    Ok(line.last() == Some(&b'\n'))
}

#[cfg(test)]
mod tests;
