//! Files of a store that were damaged, by accident or on purpose, and what may come of them.
//!
//! The offsets are those of `docs/format/store.md`, written down again here: what is fuzzed must not
//! be its own judge.

use arbitrary::Arbitrary;
use mainstay_base::crc32c;
use mainstay_store::{Change, Durability, Error, Options, RawStore};
use std::collections::{BTreeMap, BTreeSet};

use crate::{
    damage::{COPY_AT, DAMAGE_MAX, DATA_AT, Damage, HEADER},
    folder::{Contents, Files},
};

/// Bytes of a key, and of a value.
pub const LENGTHS: (usize, usize) = (2, 60);
/// Shards.
pub const SHARDS: usize = 2;

const FRAME: usize = 48;

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

impl Input {
    /// The damaged files.
    #[must_use]
    pub fn apply(&self, files: &Contents) -> Contents {
        let mut files = files.clone();
        Damage::apply_all(&self.damage, &mut files);
        if self.fix_checksums {
            files.values_mut().for_each(|file| fix(file));
        }
        files
    }

    /// Nobody made checksums right, and all files are there under their own names.
    #[must_use]
    pub fn is_accident(&self) -> bool {
        !self.fix_checksums && !self.damage.iter().take(DAMAGE_MAX).any(Damage::is_of_names)
    }

    /// One byte, and nothing else: all of the log can be vouched for.
    #[must_use]
    pub fn is_one_byte(&self) -> bool {
        !self.fix_checksums && matches!(&self.damage[..], [damage] if damage.is_byte())
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
