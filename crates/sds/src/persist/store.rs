//! Changes, and the records of an archive, in a store: they outlive a loss of power. The table is in `docs/format/sds.md`.
//!
//! * Q1. A record is there if its first part is, which is written last: behind the others, in the
//!   one log of the store's one shard.

use std::{collections::BTreeMap, path::Path};

use mainstay_store::{Change as Write, Durability, Error as StoreError, FixedStore, Options};
use sha2::{Digest, Sha256};

use super::{Change, Persistence};
use crate::{
    error::{Error, Result, within},
    limits::ID_LEN_MAX,
    planted,
};

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
    pub(crate) const KIND: usize = NAME_LEN + 2;
    pub(crate) const LEN: usize = KIND + 1;
}

pub(crate) type Key = [u8; key::LEN];
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
#[derive(Debug)]
pub struct StorePersistence {
    contents: Contents,
    channels: BTreeMap<String, Vec<Kept>>,
}

/// What a record is. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A change that goes on from others.
    Change = 0,
    /// One that replaces all before it.
    Base = 1,
    /// One of an archive.
    Record = 2,
}

impl Kind {
    fn of(change: &Change<'_>) -> Self {
        if change.base { Self::Base } else { Self::Change }
    }

    fn read(byte: u8) -> Option<Self> {
        [Self::Change, Self::Base, Self::Record].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A record that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) number: u64,
    pub(crate) parts: u32,
    pub(crate) kind: Kind,
}

/// Records of any length in a store.
pub(crate) struct Contents {
    store: FixedStore<Key, Value>,
    durability: Durability,
}

/// What is in a store: whole records, by the names of their owners and in order, and the parts that
/// are not first ones.
pub(crate) struct Found {
    pub(crate) firsts: Vec<(String, Kept)>,
    pub(crate) others: Vec<(Key, Kind)>,
}

impl Found {
    /// What all of it is.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        let firsts = self.firsts.iter().map(|(_, kept)| kept.kind);
        firsts.chain(self.others.iter().map(|(_, kind)| *kind))
    }
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents").field("durability", &self.durability).finish_non_exhaustive()
    }
}

pub(crate) fn failed(error: impl std::fmt::Display) -> Error {
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
        let (contents, found) = Contents::open(folder.as_ref(), durability)?;
        let mut place = Self { contents, channels: BTreeMap::new() };
        place.take(found)?;
        // Deliveries will rest on what is here, also on what its writer did not see to the disk.
        place.contents.sync()?;
        Ok(place)
    }

    /// Takes over what is there, and removes what a process left unfinished that died: parts without
    /// their first one, and what a base has replaced.
    fn take(&mut self, found: Found) -> Result<()> {
        if found.kinds().any(|kind| kind == Kind::Record) {
            return Err(failed("the store is an archive; give channels one of their own"));
        }
        for (name, kept) in found.firsts {
            self.channels.entry(name).or_default().push(kept);
        }
        let mut replaced = Vec::new();
        self.channels.retain(|name, changes| {
            let base = changes.iter().rposition(|kept| kept.kind == Kind::Base);
            let replaced_by = if planted("replaced-stays") { Some(0) } else { base };
            let dropped = changes.drain(..replaced_by.unwrap_or(changes.len()));
            replaced.extend(dropped.flat_map(|kept| keys_of(name, kept)));
            !changes.is_empty()
        });
        let needed: std::collections::HashSet<Key> = self
            .channels
            .iter()
            .flat_map(|(name, changes)| changes.iter().flat_map(|kept| keys_of(name, *kept)))
            .collect();
        let others = found.others.into_iter().map(|(key, _)| key);
        let unneeded = others.filter(|key| !needed.contains(key));
        self.contents.remove(replaced.into_iter().chain(unneeded))
    }
}

impl Contents {
    /// Opens the store in `folder`, or creates one.
    pub(crate) fn open(folder: &Path, durability: Durability) -> Result<(Self, Found)> {
        // One shard, so that there is one order in which everything was written.
        let options = Options { shards: 1, ..Options::default() };
        let store = match FixedStore::open(folder, &options) {
            Err(StoreError::NotAStore) => FixedStore::create(folder, &options),
            opened => opened,
        };
        let contents = Self { store: store.map_err(failed)?, durability };
        let found = contents.find()?;
        Ok((contents, found))
    }

    fn find(&self) -> Result<Found> {
        let (mut others, mut firsts, mut is_sound) = (Vec::new(), BTreeMap::new(), true);
        let seen = self.store.for_each(|key: Key, value: Value| match Part::read(&value) {
            Some(part) if part_of(&key) == 0 => {
                let kept = Kept { number: number_of(&key), parts: part.parts, kind: part.kind };
                is_sound &= key == key_of(part.name, kept.number, 0);
                match std::str::from_utf8(part.name) {
                    Ok(name) => drop(firsts.insert((name.to_owned(), kept.number), kept)),
                    Err(_) => is_sound = false,
                }
            }
            Some(part) => others.push((key, part.kind)),
            None => is_sound = false,
        });
        seen.map_err(failed)?;
        if !is_sound {
            return Err(damaged());
        }
        let firsts = firsts.into_iter().map(|((name, _), kept)| (name, kept)).collect();
        Ok(Found { firsts, others })
    }

    /// Everything that was written is on the disk from now on.
    pub(crate) fn sync(&self) -> Result<()> {
        self.store.sync().map(drop).map_err(failed)
    }

    /// Writes a record (Q1). How many parts it has.
    pub(crate) fn write(&self, name: &str, number: u64, kind: Kind, bytes: &[u8]) -> Result<u32> {
        let written: Vec<(Key, Value)> = parts(name, number, kind, bytes);
        let puts: Vec<Write<'_>> =
            written.iter().map(|(key, value)| Write::Put(key, value)).collect();
        // Q1. The first part comes last, and what is durable then makes all of it so.
        let (first, others) = puts.split_at(1);
        if planted("first-part-first") {
            self.store.raw().batch(first, self.durability).map_err(failed)?;
        }
        for batch in others.chunks(BATCH) {
            self.store.raw().batch(batch, Durability::Memory).map_err(failed)?;
        }
        self.store.raw().batch(first, self.durability).map_err(failed)?;
        Ok(written.len() as u32)
    }

    /// The bytes of a record that has so many parts.
    pub(crate) fn read(&self, name: &str, number: u64, parts: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for key in keys_of(name, Kept { number, parts, kind: Kind::Record }) {
            let value = self.store.get(&key).map_err(failed)?.ok_or_else(damaged)?;
            bytes.extend_from_slice(Part::read(&value).ok_or_else(damaged)?.bytes);
        }
        Ok(bytes)
    }

    /// Removes those parts that do not belong to a `whole` record, by number and part.
    pub(crate) fn remove_others(
        &self,
        others: Vec<(Key, Kind)>,
        whole: impl Fn(u64, u32) -> bool,
    ) -> Result<()> {
        let others = others.into_iter().map(|(key, _)| key);
        self.remove(others.filter(|key| !whole(number_of(key), part_of(key))))
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
        if change.base && planted("replaced-first") {
            self.forget(channel)?;
        }
        let kind = Kind::of(change);
        let parts = self.contents.write(channel, change.number, kind, change.bytes)?;
        let kept = Kept { number: change.number, parts, kind };
        let changes = self.channels.entry(channel.to_owned()).or_default();
        let replaced = if change.base { std::mem::take(changes) } else { Vec::new() };
        changes.push(kept);
        // A number that was used before, by what could not be kept then, is the new one's.
        let replaced = replaced.into_iter().filter(|old| old.number != kept.number);
        let keys: Vec<Key> = replaced.flat_map(|kept| keys_of(channel, kept)).collect();
        self.contents.remove(keys)
    }

    fn load(&mut self, channel: &str) -> Result<Vec<Vec<u8>>> {
        let changes = self.channels.get(channel).map(Vec::as_slice).unwrap_or_default();
        let read = |kept: &Kept| self.contents.read(channel, kept.number, kept.parts);
        changes.iter().map(read).collect()
    }

    fn forget(&mut self, channel: &str) -> Result<()> {
        let Some(changes) = self.channels.get(channel) else { return Ok(()) };
        // The base first: the others mean nothing without it.
        self.contents.remove(changes.iter().flat_map(|kept| keys_of(channel, *kept)))?;
        if self.contents.durability != Durability::Memory {
            self.contents.sync()?;
        }
        self.channels.remove(channel);
        Ok(())
    }

    fn channels(&mut self) -> Result<Vec<String>> {
        Ok(self.channels.keys().cloned().collect())
    }
}

/// The parts of a record, the first one first.
fn parts(name: &str, number: u64, kind: Kind, bytes: &[u8]) -> Vec<(Key, Value)> {
    let owner = name.as_bytes();
    let first = bytes.len().min(VALUE_LEN - value::LEN - owner.len());
    let (first, rest) = bytes.split_at(first);
    let chunks: Vec<&[u8]> =
        std::iter::once(first).chain(rest.chunks(VALUE_LEN - value::LEN)).collect();
    let parts = chunks.len() as u32;
    let record = |(part, bytes): (u32, &[u8])| {
        let name = if part == 0 { owner } else { &[] };
        (key_of(owner, number, part), Part { parts, kind, name, bytes }.write())
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

/// The keys of a record, the first part's first.
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
    kind: Kind,
    name: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Part<'a> {
    fn write(&self) -> Value {
        let mut out = [0; VALUE_LEN];
        out[value::PARTS..value::LENGTH].copy_from_slice(&self.parts.to_le_bytes());
        let lengths = [self.bytes.len() as u16, self.name.len() as u16];
        out[value::LENGTH..value::NAME_LEN].copy_from_slice(&lengths[0].to_le_bytes());
        out[value::NAME_LEN..value::KIND].copy_from_slice(&lengths[1].to_le_bytes());
        out[value::KIND] = self.kind as u8;
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
        let kind = Kind::read(fixed[value::KIND])?;
        (parts > 0).then_some(Self { parts, kind, name, bytes })
    }
}
