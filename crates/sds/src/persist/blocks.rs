//! Records of any length in the blocks of a pool: each record is one or several blocks, and counts
//! only when all of them are there and right. The table is in `docs/format/sds.md`.
//!
//! * K1. A record is there whole or not at all, wherever its writer died: each part has a checksum
//!   and says how many parts there are.
//! * K2. What a dead writer left unfinished is freed by the next one.
//! * K3. There is one at a time: a second one would find half of what the first one lets go of, and
//!   take it for unfinished.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    path::Path,
};

use mainstay_base::crc32c;
use mainstay_pool::{Block, Kind, Offer, PoolSet};

use crate::{
    error::{Error, Result},
    planted,
};

/// The sizes of the blocks: a message with the names around it fits the first, a base takes some
/// of the last.
pub(crate) const BLOCK_SIZES: [usize; 3] = [2048, 16 << 10, 256 << 10];

pub(crate) const MAGIC: [u8; 4] = *b"MSDB";
const VERSION: u8 = 1;

/// Where the fields of a block are; the name and the part of the record follow.
pub(crate) mod at {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = MAGIC + 4;
    pub(crate) const KIND: usize = VERSION + 1;
    pub(crate) const NAME_LEN: usize = KIND + 1;
    pub(crate) const NUMBER: usize = NAME_LEN + 2;
    pub(crate) const PART: usize = NUMBER + 8;
    pub(crate) const PARTS: usize = PART + 4;
    pub(crate) const LEN: usize = PARTS + 4;
    pub(crate) const CRC: usize = LEN + 4;
    pub(crate) const END: usize = CRC + 4;
}

/// What a record is for. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Use {
    /// A change of a channel.
    Change = 1,
    /// A message, or a hint, of a store node.
    Archive = 2,
}

impl Use {
    fn name(self) -> &'static str {
        match self {
            Self::Change => "changes",
            Self::Archive => "archive",
        }
    }
}

/// Where a record is.
pub(crate) type Key = (Use, Vec<u8>, u64);

/// The records in a set of pools. Whoever has some of them lets go of these first.
pub(crate) struct Records {
    set: PoolSet,
    /// K3: held as long as this lives. None for pools that nobody else can open.
    _lock: Option<File>,
}

/// The blocks of one record, in the order of its parts. They are held as long as it lives.
pub(crate) struct Record {
    blocks: Vec<Block>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("blocks", &self.blocks.len()).finish()
    }
}

pub(crate) fn failed(error: impl std::fmt::Display) -> Error {
    Error::Persistence { what: error.to_string() }
}

impl Records {
    /// Opens or creates the pools `NAME.SIZE.pool` in `folder`, if nobody else has their records of
    /// this kind, and takes these over.
    pub(crate) fn open(
        folder: &Path,
        name: &str,
        kind: Use,
    ) -> Result<(Self, BTreeMap<Key, Record>)> {
        let path = folder.join(format!("{name}.{}.lock", kind.name()));
        let lock = File::options().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(|error| failed(format!("{}: {error}", path.display())))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = path.display();
                return Err(failed(format!(
                    "{path} is locked: somebody has them open; end that one"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let set = PoolSet::open(folder, name, &BLOCK_SIZES).map_err(failed)?;
        Self::take(set, kind, Some(lock))
    }

    /// Those of pools in memory.
    pub(crate) fn in_memory(name: &str, kind: Use) -> Result<(Self, BTreeMap<Key, Record>)> {
        Self::take(PoolSet::create_memfd(name, &BLOCK_SIZES).map_err(failed)?, kind, None)
    }

    /// Takes over what nobody holds: the whole records of `kind`, and frees what is unfinished
    /// (K2). Records of other kinds are left alone.
    fn take(set: PoolSet, kind: Use, lock: Option<File>) -> Result<(Self, BTreeMap<Key, Record>)> {
        let mut parts: BTreeMap<Key, Vec<(u32, u32, Block)>> = BTreeMap::new();
        let mut unfinished = Vec::new();
        let taken = set.recover(Offer::Unheld, |block| {
            match Part::read(&block.to_vec()?) {
                Some(part) if part.kind == kind => parts
                    .entry((part.kind, part.name, part.number))
                    .or_default()
                    .push((part.part, part.parts, block)),
                Some(_) => block.park()?,
                None => unfinished.push(block),
            }
            Ok(())
        });
        taken.map_err(failed)?;
        let mut records = BTreeMap::new();
        for (key, mut parts) in parts {
            parts.sort_unstable_by_key(|(part, ..)| *part);
            let whole = parts.iter().enumerate().all(|(index, (part, count, _))| {
                *part as usize == index && *count as usize == parts.len()
            });
            let blocks = parts.into_iter().map(|(.., block)| block);
            if whole || planted("half-a-record") {
                records.insert(key, Record { blocks: blocks.collect() });
            } else {
                unfinished.extend(blocks);
            }
        }
        let dispose = if planted("unfinished-stays") { Block::park } else { Block::free };
        for block in unfinished {
            dispose(block).map_err(failed)?;
        }
        Ok((Self { set, _lock: lock }, records))
    }

    /// Writes a record (K1). On an error nothing of it stays.
    pub(crate) fn write(&self, key: &Key, bytes: &[u8]) -> Result<Record> {
        let (kind, name, number) = key;
        let head = at::END + name.len();
        let room = BLOCK_SIZES[BLOCK_SIZES.len() - 1] - head;
        let parts = bytes.len().div_ceil(room).max(1);
        let mut record = Record { blocks: Vec::with_capacity(parts) };
        let mut chunks = bytes.chunks(room);
        for part in 0..parts {
            let bytes = chunks.next().unwrap_or_default();
            let part = Part {
                kind: *kind,
                name: name.clone(),
                number: *number,
                part: part as u32,
                parts: parts as u32,
            };
            match self.write_part(&part.encode(bytes)) {
                Ok(block) => record.blocks.push(block),
                Err(error) => {
                    record.free()?;
                    return Err(failed(error));
                }
            }
        }
        Ok(record)
    }

    fn write_part(&self, bytes: &[u8]) -> mainstay_pool::Result<Block> {
        let block = self.set.allocate(bytes.len(), Kind::Recoverable)?;
        match block.write(0, bytes) {
            Ok(()) => Ok(block),
            Err(error) => {
                block.free()?;
                Err(error)
            }
        }
    }
}

impl Record {
    /// The bytes of the record.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for block in &self.blocks {
            let part = block.to_vec().map_err(failed)?;
            let head = Part::read(&part)
                .map(|part| at::END + part.name.len())
                .ok_or_else(|| failed("a block has changed under its holder; restore the pool"))?;
            bytes.extend_from_slice(&part[head..]);
        }
        Ok(bytes)
    }

    pub(crate) fn free(self) -> Result<()> {
        // The last part first: a record without it is unfinished.
        for block in self.blocks.into_iter().rev() {
            block.free().map_err(failed)?;
        }
        Ok(())
    }
}

/// The head of a block.
struct Part {
    kind: Use,
    name: Vec<u8>,
    number: u64,
    part: u32,
    parts: u32,
}

impl Part {
    fn encode(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(at::END + self.name.len() + bytes.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, self.kind as u8]);
        out.extend_from_slice(&(self.name.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.part.to_le_bytes());
        out.extend_from_slice(&self.parts.to_le_bytes());
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.name);
        out.extend_from_slice(bytes);
        let crc = crc32c(&out);
        out[at::CRC..at::END].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` if the block is no part, or its writer died before it was through.
    fn read(block: &[u8]) -> Option<Self> {
        let fixed = block.get(..at::END)?;
        let word = |at: usize| {
            u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        if fixed[..4] != MAGIC || fixed[at::VERSION] != VERSION {
            return None;
        }
        let kind =
            [Use::Change, Use::Archive].into_iter().find(|kind| *kind as u8 == fixed[at::KIND])?;
        let name_len = u16::from_le_bytes([fixed[at::NAME_LEN], fixed[at::NAME_LEN + 1]]) as usize;
        let whole = at::END + name_len + word(at::LEN) as usize;
        if block.len() != whole {
            return None;
        }
        let mut copy = block.to_vec();
        copy[at::CRC..at::END].fill(0);
        if crc32c(&copy) != word(at::CRC) {
            return None;
        }
        let number = u64::from(word(at::NUMBER)) | u64::from(word(at::NUMBER + 4)) << 32;
        let name = block[at::END..at::END + name_len].to_vec();
        Some(Self { kind, name, number, part: word(at::PART), parts: word(at::PARTS) })
    }
}
