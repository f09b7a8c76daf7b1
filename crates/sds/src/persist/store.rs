//! Changes in a store: they outlive a loss of power. The table is in `docs/format/sds.md`.
//!
//! * Q1. A change is there if its first part is, which is written last: behind the others, in the
//!   one log of the store's one shard.

use std::{collections::BTreeMap, path::Path};

use mainstay_store::{Change as Write, Durability, Error as StoreError, FixedStore, Options};
use sha2::{Digest, Sha256};

use super::{Change, Persistence};
use crate::error::{Error, Result, within};
use crate::limits::ID_LEN_MAX;

/// The length of a value: a change of a message or two fits one.
pub(crate) const VALUE_LEN: usize = 2048;

/// Where the fields of a key are.
pub(crate) mod key {
    pub(crate) const CHANNEL: usize = 0;
    pub(crate) const NUMBER: usize = CHANNEL + 16;
    pub(crate) const PART: usize = NUMBER + 8;
    pub(crate) const LEN: usize = PART + 4;
}

/// Where the fields of a value are; the name, in the first part, and the bytes follow.
pub(crate) mod value {
    pub(crate) const PARTS: usize = 0;
    pub(crate) const LENGTH: usize = PARTS + 4;
    pub(crate) const NAME_LEN: usize = LENGTH + 2;
    pub(crate) const BASE: usize = NAME_LEN + 2;
    pub(crate) const LEN: usize = BASE + 1;
}

type Key = [u8; key::LEN];
type Value = [u8; VALUE_LEN];

/// How many parts are written, or removed, at a time.
const BATCH: usize = 128;

/// Keeps changes in a store in a directory.
///
/// By default a change is on the disk when [`save`](Persistence::save) returns, which takes as long
/// as the disk does, and survives a loss of power. With [`Durability::Memory`] it survives the death
/// of the process, as in a pool.
///
/// ```
/// use mainstay_sds::{Channel, Config, Keep, Now, Output};
/// use mainstay_sds::persist::{Durability, Persistence, StorePersistence};
/// let folder = tempfile::tempdir()?;
/// let mut config = Config::lip();
/// config.keep = Keep::Durable;
///
/// let mut place = StorePersistence::open(folder.path(), Durability::Group)?;
/// let mut channel = Channel::new("room", b"alice", config.clone())?;
/// channel.send(Now::zero(), b"m1", b"hello")?;
/// let Some(Output::Persist(change)) = channel.poll_output() else { panic!() };
/// place.save("room", &change)?;
/// drop((place, channel));
///
/// let mut place = StorePersistence::open(folder.path(), Durability::Group)?;
/// let saved = place.load("room")?;
/// let channel = Channel::load("room", b"alice", config, Now::zero(), &saved)?;
/// assert_eq!(channel.counts().outgoing, 1, "it will be sent again");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StorePersistence {
    store: FixedStore<Key, Value>,
    durability: Durability,
    channels: BTreeMap<String, Vec<Kept>>,
}

/// A change that is there.
#[derive(Clone, Copy, Debug)]
struct Kept {
    number: u64,
    parts: u32,
    base: bool,
}

impl std::fmt::Debug for StorePersistence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorePersistence")
            .field("durability", &self.durability)
            .field("channels", &self.channels)
            .finish_non_exhaustive()
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Persistence { what: error.to_string() }
}

fn damaged() -> Error {
    failed("a record in the store makes no sense; restore the store from a backup")
}

impl StorePersistence {
    /// Opens the store in `folder`, or creates one that is for this alone.
    ///
    /// # Errors
    /// [`Error::Persistence`] if it cannot be opened or read, or is a store of something else.
    ///
    /// Example: see [`StorePersistence`].
    pub fn open(folder: impl AsRef<Path>, durability: Durability) -> Result<Self> {
        let folder = folder.as_ref();
        // One shard, so that there is one order in which everything was written.
        let options = Options { shards: 1, ..Options::default() };
        let store = match FixedStore::open(folder, &options) {
            Err(StoreError::NotAStore) => FixedStore::create(folder, &options),
            opened => opened,
        };
        let mut place =
            Self { store: store.map_err(failed)?, durability, channels: BTreeMap::new() };
        place.find()?;
        // Deliveries will rest on what is here, also on what its writer did not see to the disk.
        place.store.sync().map_err(failed)?;
        Ok(place)
    }

    /// Finds what is there, and removes what a process left unfinished that died: parts without
    /// their first one, and what a base has replaced.
    fn find(&mut self) -> Result<()> {
        let (mut parts, mut firsts, mut is_sound) = (Vec::new(), BTreeMap::new(), true);
        let seen = self.store.for_each(|key: Key, value: Value| match Part::read(&value) {
            Some(part) if part_of(&key) == 0 => {
                let kept = Kept { number: number_of(&key), parts: part.parts, base: part.base };
                is_sound &= key == key_of(part.name, kept.number, 0);
                match std::str::from_utf8(part.name) {
                    Ok(name) => drop(firsts.insert((name.to_owned(), kept.number), kept)),
                    Err(_) => is_sound = false,
                }
            }
            Some(_) => parts.push(key),
            None => is_sound = false,
        });
        seen.map_err(failed)?;
        if !is_sound {
            return Err(damaged());
        }
        for ((name, _), kept) in firsts {
            self.channels.entry(name).or_default().push(kept);
        }
        let mut replaced = Vec::new();
        self.channels.retain(|name, changes| {
            let base = changes.iter().rposition(|kept| kept.base);
            let dropped = changes.drain(..base.unwrap_or(changes.len()));
            replaced.extend(dropped.flat_map(|kept| keys_of(name, kept)));
            !changes.is_empty()
        });
        let needed: std::collections::HashSet<Key> = self
            .channels
            .iter()
            .flat_map(|(name, changes)| changes.iter().flat_map(|kept| keys_of(name, *kept)))
            .collect();
        parts.retain(|key| !needed.contains(key));
        self.remove(replaced.into_iter().chain(parts))
    }

    fn remove(&self, keys: impl IntoIterator<Item = Key>) -> Result<()> {
        let keys: Vec<Key> = keys.into_iter().collect();
        for keys in keys.chunks(BATCH) {
            let deletes: Vec<Write<'_>> = keys.iter().map(|key| Write::Delete(key)).collect();
            self.store.raw().batch(&deletes, Durability::Memory).map_err(failed)?;
        }
        Ok(())
    }
}

impl Persistence for StorePersistence {
    fn save(&mut self, channel: &str, change: &Change<'_>) -> Result<()> {
        within("length of the channel's name", channel.len() as u64, 0, ID_LEN_MAX as u64)?;
        let written: Vec<(Key, Value)> = parts(channel, change);
        let puts: Vec<Write<'_>> =
            written.iter().map(|(key, value)| Write::Put(key, value)).collect();
        // Q1. The first part comes last, and what is durable then makes all of it so.
        let (first, others) = puts.split_at(1);
        for batch in others.chunks(BATCH) {
            self.store.raw().batch(batch, Durability::Memory).map_err(failed)?;
        }
        self.store.raw().batch(first, self.durability).map_err(failed)?;
        let kept = Kept { number: change.number, parts: written.len() as u32, base: change.base };
        let changes = self.channels.entry(channel.to_owned()).or_default();
        let replaced = if change.base { std::mem::take(changes) } else { Vec::new() };
        changes.push(kept);
        // A number that was used before, by what could not be kept then, is the new one's.
        let replaced = replaced.into_iter().filter(|old| old.number != kept.number);
        let keys: Vec<Key> = replaced.flat_map(|kept| keys_of(channel, kept)).collect();
        self.remove(keys)
    }

    fn load(&mut self, channel: &str) -> Result<Vec<Vec<u8>>> {
        let changes = self.channels.get(channel).map(Vec::as_slice).unwrap_or_default();
        let read = |kept: &Kept| {
            let mut bytes = Vec::new();
            for key in keys_of(channel, *kept) {
                let value = self.store.get(&key).map_err(failed)?.ok_or_else(damaged)?;
                bytes.extend_from_slice(Part::read(&value).ok_or_else(damaged)?.bytes);
            }
            Ok(bytes)
        };
        changes.iter().map(read).collect()
    }

    fn forget(&mut self, channel: &str) -> Result<()> {
        let Some(changes) = self.channels.get(channel) else { return Ok(()) };
        // The base first: the others mean nothing without it.
        self.remove(changes.iter().flat_map(|kept| keys_of(channel, *kept)))?;
        if self.durability != Durability::Memory {
            self.store.sync().map_err(failed)?;
        }
        self.channels.remove(channel);
        Ok(())
    }

    fn channels(&mut self) -> Result<Vec<String>> {
        Ok(self.channels.keys().cloned().collect())
    }
}

/// The records of a change, the first part first.
fn parts(channel: &str, change: &Change<'_>) -> Vec<(Key, Value)> {
    let name = channel.as_bytes();
    let first = change.bytes.len().min(VALUE_LEN - value::LEN - name.len());
    let (first, rest) = change.bytes.split_at(first);
    let chunks: Vec<&[u8]> =
        std::iter::once(first).chain(rest.chunks(VALUE_LEN - value::LEN)).collect();
    let parts = chunks.len() as u32;
    let record = |(part, bytes): (u32, &[u8])| {
        let name = if part == 0 { name } else { &[] };
        let part_of_it = Part { parts, base: change.base, name, bytes };
        (key_of(channel.as_bytes(), change.number, part), part_of_it.write())
    };
    (0..).zip(chunks.iter().copied()).map(record).collect()
}

fn key_of(channel: &[u8], number: u64, part: u32) -> Key {
    let mut key = [0; key::LEN];
    key[key::CHANNEL..key::NUMBER].copy_from_slice(&Sha256::digest(channel)[..16]);
    key[key::NUMBER..key::PART].copy_from_slice(&number.to_le_bytes());
    key[key::PART..].copy_from_slice(&part.to_le_bytes());
    key
}

/// The keys of a change, the first part's first.
fn keys_of(channel: &str, kept: Kept) -> impl Iterator<Item = Key> + use<> {
    let key = key_of(channel.as_bytes(), kept.number, 0);
    (0..kept.parts).map(move |part| {
        let mut key = key;
        key[key::PART..].copy_from_slice(&part.to_le_bytes());
        key
    })
}

fn number_of(key: &Key) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&key[key::NUMBER..key::PART]);
    u64::from_le_bytes(eight)
}

fn part_of(key: &Key) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&key[key::PART..]);
    u32::from_le_bytes(four)
}

/// One value.
struct Part<'a> {
    parts: u32,
    base: bool,
    name: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Part<'a> {
    fn write(&self) -> Value {
        let mut out = [0; VALUE_LEN];
        out[value::PARTS..value::LENGTH].copy_from_slice(&self.parts.to_le_bytes());
        let lengths = [self.bytes.len() as u16, self.name.len() as u16];
        out[value::LENGTH..value::NAME_LEN].copy_from_slice(&lengths[0].to_le_bytes());
        out[value::NAME_LEN..value::BASE].copy_from_slice(&lengths[1].to_le_bytes());
        out[value::BASE] = u8::from(self.base);
        let end = value::LEN + self.name.len();
        out[value::LEN..end].copy_from_slice(self.name);
        out[end..end + self.bytes.len()].copy_from_slice(self.bytes);
        out
    }

    /// The store's checksum holds; whether it is a part of a change is another question.
    fn read(value: &'a Value) -> Option<Self> {
        let short = |at: usize| u16::from_le_bytes([value[at], value[at + 1]]) as usize;
        let (fixed, rest) = value.split_at(value::LEN);
        let (name, rest) = rest.split_at_checked(short(value::NAME_LEN))?;
        let bytes = rest.get(..short(value::LENGTH))?;
        let parts = u32::from_le_bytes([fixed[0], fixed[1], fixed[2], fixed[3]]);
        let base = fixed[value::BASE];
        (parts > 0 && base < 2).then_some(Self { parts, base: base == 1, name, bytes })
    }
}
