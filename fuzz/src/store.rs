//! Files of a store that were damaged, by accident or on purpose, and what may come of them.
//!
//! The offsets are those of `docs/format/store.md`, written down again here: what is fuzzed must not
//! be its own judge.

use arbitrary::Arbitrary;
use mainstay_base::crc32c;
use mainstay_store::{Change, Durability, Error, Options, RawStore};
use std::collections::{BTreeMap, BTreeSet};

use crate::folder::{Contents, Files};

/// Bytes of a key, and of a value.
pub const LENGTHS: (usize, usize) = (2, 60);
/// Shards.
pub const SHARDS: usize = 2;

const HEADER: usize = 128;
const COPY_AT: usize = 512;
const DATA_AT: usize = 4096;
const FRAME: usize = 48;
const SECTOR: usize = 512;

/// The records of a shard.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// How the stores here are made: in one thread, so that an input does the same each time.
#[must_use]
pub fn options() -> Options {
    Options { shards: SHARDS as u32, segment_bytes: 16 << 10, threads: 1, ..Options::default() }
}

/// All records, shard by shard.
///
/// # Errors
/// What the store says.
pub fn contents(store: &RawStore<Files>) -> Result<Vec<Records>, Error> {
    let mut shards = vec![Records::new(); SHARDS];
    let mut shown = Vec::new();
    store.for_each(|key, value| shown.push((key.to_vec(), value.to_vec())))?;
    for (key, value) in shown {
        let shard = store.shard(&key)? as usize;
        assert!(shards[shard].insert(key, value).is_none(), "a key twice");
    }
    Ok(shards)
}

/// A store that was closed, and the states that each of its shards went through.
pub struct Base {
    /// Its files.
    pub files: Contents,
    /// What each shard was, after which writes.
    pub states: Vec<BTreeSet<Records>>,
    /// What each shard is.
    pub last: Vec<Records>,
}

impl Base {
    /// Puts, deletes, batches; an image in the middle; several segments.
    #[must_use]
    pub fn new() -> Self {
        let files = Files::default();
        let store = RawStore::create(files.clone(), LENGTHS.0, LENGTHS.1, &options());
        let store = store.expect("memory takes it");
        let mut states = vec![BTreeSet::from([Records::new()]); SHARDS];
        let mut last = vec![Records::new(); SHARDS];
        for number in 0..460_u16 {
            let key = (number * 7 % 60).to_be_bytes();
            let value = [number as u8; LENGTHS.1];
            let shard = store.shard(&key).expect("its length is right") as usize;
            let next = (number * 7 + 1) % 60;
            let other = next.to_be_bytes();
            let has_both = store.shard(&other).is_ok_and(|other| other as usize == shard);
            let changes: &[Change<'_>] = match (number % 5, has_both) {
                (0, _) => &[Change::Delete(&key)],
                (1, true) => &[Change::Put(&key, &value), Change::Delete(&other)],
                _ => &[Change::Put(&key, &value)],
            };
            store.batch(changes, Durability::Memory).expect("memory takes it");
            for change in changes {
                match change {
                    Change::Put(key, value) => last[shard].insert(key.to_vec(), value.to_vec()),
                    Change::Delete(key) => last[shard].remove(*key),
                };
            }
            states[shard].insert(last[shard].clone());
            if number == 300 {
                store.compact().expect("memory takes it");
            }
        }
        store.close().expect("memory takes it");
        Self { files: files.contents(), states, last }
    }
}

impl Default for Base {
    fn default() -> Self {
        Self::new()
    }
}

/// What has happened to the files.
#[derive(Arbitrary, Clone, Debug)]
pub struct Input {
    damage: Vec<Damage>,
    /// Whoever did it made the checksums right.
    fix_checksums: bool,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Damage {
    /// Bits of a byte.
    Byte {
        file: u8,
        at: u16,
        bits: u8,
    },
    /// A number of a header, a frame or a chunk.
    Number {
        file: u8,
        at: u8,
        value: Value,
    },
    Cut {
        file: u8,
        at: u16,
    },
    Longer {
        file: u8,
        by: u16,
    },
    /// A sector that was written to another place.
    Misdirected {
        from: (u8, u8),
        to: (u8, u8),
    },
    /// One that was not written.
    Blank {
        file: u8,
        sector: u8,
    },
    Removed {
        file: u8,
    },
    Swapped {
        one: u8,
        other: u8,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Value {
    Small(u8),
    Most(u8),
    Any(u64),
}

impl Value {
    fn get(self) -> u64 {
        match self {
            Self::Small(value) => value.into(),
            Self::Most(less) => u64::MAX - u64::from(less),
            Self::Any(value) => value,
        }
    }
}

/// How often the files are damaged, at most.
const DAMAGE_MAX: usize = 16;

impl Input {
    /// The damaged files.
    #[must_use]
    pub fn apply(&self, files: &Contents) -> Contents {
        let mut files = files.clone();
        for damage in self.damage.iter().take(DAMAGE_MAX) {
            damage.apply(&mut files);
        }
        if self.fix_checksums {
            files.values_mut().for_each(|file| fix(file));
        }
        files
    }

    /// Nobody made checksums right, and all files are there under their own names.
    #[must_use]
    pub fn is_accident(&self) -> bool {
        let is_enemy =
            |one: &Damage| matches!(one, Damage::Removed { .. } | Damage::Swapped { .. });
        !self.fix_checksums && !self.damage.iter().take(DAMAGE_MAX).any(is_enemy)
    }

    /// One byte, and nothing else: all of the log can be vouched for.
    #[must_use]
    pub fn is_one_byte(&self) -> bool {
        !self.fix_checksums && matches!(self.damage[..], [Damage::Byte { .. }])
    }
}

fn name(files: &Contents, file: u8) -> Option<String> {
    let index = usize::from(file).checked_rem(files.len())?;
    files.keys().nth(index).cloned()
}

fn pick(files: &mut Contents, file: u8) -> Option<&mut Vec<u8>> {
    let index = usize::from(file).checked_rem(files.len())?;
    files.values_mut().nth(index)
}

impl Damage {
    fn apply(self, files: &mut Contents) {
        match self {
            Self::Byte { file, at, bits } => {
                let Some(file) = pick(files, file) else { return };
                let len = file.len().max(1);
                if let Some(byte) = file.get_mut(usize::from(at) % len) {
                    *byte ^= bits;
                }
            }
            Self::Number { file, at, value } => {
                let Some(file) = pick(files, file) else { return };
                // The first copy of the header, or what comes first behind it.
                let at = 4 * usize::from(at % 64);
                let at = if at < HEADER { at } else { DATA_AT + at - HEADER };
                if let Some(place) = file.get_mut(at..at + 8) {
                    place.copy_from_slice(&value.get().to_le_bytes());
                }
                if at < HEADER && file.len() > COPY_AT + HEADER {
                    file.copy_within(..HEADER, COPY_AT);
                }
            }
            Self::Cut { file, at } => {
                let Some(file) = pick(files, file) else { return };
                file.truncate(usize::from(at) % (file.len() + 1));
            }
            Self::Longer { file, by } => {
                let Some(file) = pick(files, file) else { return };
                file.resize(file.len() + usize::from(by), 0);
            }
            Self::Misdirected { from, to } => {
                let read = |file: &mut Vec<u8>| {
                    let at = usize::from(from.1) * SECTOR;
                    file.get(at..at + SECTOR).map(<[u8]>::to_vec)
                };
                let Some(sector) = pick(files, from.0).and_then(read) else { return };
                let at = usize::from(to.1) * SECTOR;
                let Some(file) = pick(files, to.0) else { return };
                if let Some(place) = file.get_mut(at..at + SECTOR) {
                    place.copy_from_slice(&sector);
                }
            }
            Self::Blank { file, sector } => {
                let at = usize::from(sector) * SECTOR;
                let Some(file) = pick(files, file) else { return };
                if let Some(place) = file.get_mut(at..at + SECTOR) {
                    place.fill(0);
                }
            }
            Self::Removed { file } => {
                if let Some(name) = name(files, file) {
                    files.remove(&name);
                }
            }
            Self::Swapped { one, other } => {
                let (Some(one), Some(other)) = (name(files, one), name(files, other)) else {
                    return;
                };
                let (Some(first), Some(second)) = (files.remove(&one), files.remove(&other)) else {
                    return;
                };
                files.insert(one, second);
                files.insert(other, first);
            }
        }
    }
}

fn number(bytes: &[u8], at: usize) -> usize {
    let four = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_le_bytes(four) as usize
}

/// Makes the checksums of headers, frames and chunks right.
fn fix(file: &mut [u8]) {
    for at in [0, COPY_AT] {
        if let Some(header) = file.get_mut(at..at + HEADER) {
            let sum = crc32c(&header[..HEADER - 4]);
            header[HEADER - 4..].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let is_image = file.starts_with(b"MAINSIMG");
    let Some(mut rest) = file.get_mut(DATA_AT..) else { return };
    let mut chain = None;
    while rest.len() >= FRAME {
        let (len, from) = match is_image {
            true => (16 + (number(rest, 4) % 257) * (8 + LENGTHS.0 + LENGTHS.1), 4),
            false => (number(rest, 8), 8),
        };
        if !(16..=rest.len()).contains(&len) {
            return;
        }
        let (one, others) = rest.split_at_mut(len);
        if !is_image && len >= FRAME {
            if let Some(chain) = chain {
                one[16..20].copy_from_slice(&u32::to_le_bytes(chain));
            }
        }
        let sum = crc32c(&one[from..]);
        one[from - 4..from].copy_from_slice(&sum.to_le_bytes());
        chain = Some(sum);
        rest = others;
    }
}
