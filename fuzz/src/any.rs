//! Stores with values of any size, each with a story, and what may come of their files when they are
//! damaged, by accident or on purpose.

use arbitrary::Arbitrary;
use mainstay_store::{Change, Durability::Memory, Error, LogOptions, RawLogStore};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    damage::Damage,
    folder::{Contents, Files},
    seal::{Seal, rename, seal, without_last},
};

/// How many stories there are.
pub const STORIES: u8 = 8;

/// The records of a shard.
pub type Records = BTreeMap<Vec<u8>, Arc<[u8]>>;

/// What is read of a shard: a value is missing where the store says that it is damaged.
pub type Read = BTreeMap<Vec<u8>, Option<Arc<[u8]>>>;

/// How the stores here are opened: in one thread, so that an input does the same each time.
#[must_use]
pub fn options(ordered: bool) -> LogOptions {
    let small = LogOptions { threads: 1, cache_bytes: 8 << 10, ..LogOptions::default() };
    LogOptions { segment_bytes: 16 << 10, ordered, ..small }
}

/// A store that somebody made and left, and the states that each of its shards went through.
pub struct Base {
    /// Its files.
    pub files: Contents,
    /// A copy of it, made before its end.
    pub copy: Contents,
    /// What each shard was, after which writes.
    pub states: Vec<BTreeSet<Records>>,
    /// What each shard is.
    pub last: Vec<Records>,
    /// What each shard was when it was copied.
    pub copied: Vec<Records>,
    /// Every record that ever was.
    pub written: BTreeSet<(Vec<u8>, Arc<[u8]>)>,
    /// It was closed, so that its last write is vouched for.
    pub is_closed: bool,
}

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn key(&mut self) -> Vec<u8> {
        let number = self.below(24);
        let mut key = format!("key-{number}").into_bytes();
        // Some are long.
        key.resize(key.len() + if number == 7 { 300 } else { 0 }, b'.');
        key
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.below(16) {
            0 => 0,
            1 => 3_000,
            2..4 => 900,
            _ => self.below(60),
        };
        // No two are alike: an older one is told from a newer one.
        let mut value = self.0.to_le_bytes().to_vec();
        value.resize(len as usize, self.below(256) as u8);
        value
    }
}

/// A store while its story is told.
struct Told {
    store: RawLogStore<Files>,
    base: Base,
}

impl Told {
    /// Notes what changes made of the shards.
    fn note(&mut self, changes: &[Change<'_>], is_there: bool) {
        for change in changes {
            let shard = self.store.shard(change.key()).expect("its length is right") as usize;
            let last = &mut self.base.last[shard];
            match change {
                Change::Put(key, value) if is_there => {
                    let value: Arc<[u8]> = (*value).into();
                    self.base.written.insert((key.to_vec(), Arc::clone(&value)));
                    last.insert(key.to_vec(), value);
                }
                _ => drop(last.remove(change.key())),
            }
        }
        for (states, last) in self.base.states.iter_mut().zip(&self.base.last) {
            if !states.contains(last) {
                states.insert(last.clone());
            }
        }
    }

    fn step(&mut self, dice: &mut Dice) {
        let (key, value, other) = (dice.key(), dice.value(), dice.key());
        let put = [Change::Put(&key, &value)];
        let store = &self.store;
        let fits = "memory takes it";
        match dice.below(32) {
            0..4 => {
                store.delete(&key, Memory).expect(fits);
                self.note(&[Change::Delete(&key)], true);
            }
            4..6 => {
                store.put_until(&key, &value, Some(u64::MAX >> 8), Memory).expect(fits);
                self.note(&put, true);
            }
            6..8 => {
                // It was over before it was written.
                store.put_until(&key, &value, Some(1), Memory).expect(fits);
                self.note(&put, false);
            }
            8..12 if key != other => {
                let changes = [Change::Put(&key, &value), Change::Delete(&other)];
                store.batch_across(&changes).expect(fits);
                self.note(&changes, true);
            }
            12 => drop(store.sync().expect(fits)),
            13 => store.upkeep().expect(fits),
            14 => store.compact().expect(fits),
            _ => {
                store.put(&key, &value, Memory).expect(fits);
                self.note(&put, true);
            }
        }
    }
}

impl Base {
    /// The store of a story: some are closed, some are dropped, some were opened again before, and
    /// some were left in a batch across shards.
    #[must_use]
    pub fn new(story: u8) -> Self {
        let story = story % STORIES;
        let (shards, files, copy) = (1 << (story % 3), Files::default(), Files::default());
        let asked = LogOptions { shards, ..options(false) };
        let store = RawLogStore::create(files.clone(), &asked).expect("memory takes it");
        let empty = vec![Records::new(); shards as usize];
        let states = empty.iter().map(|records| BTreeSet::from([records.clone()])).collect();
        let base = Self {
            files: Contents::new(),
            copy: Contents::new(),
            states,
            last: empty,
            copied: Vec::new(),
            written: BTreeSet::new(),
            is_closed: story % 2 == 0,
        };
        let mut told = Told { store, base };
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (u64::from(story) << 32));
        let steps = 60 + 25 * u64::from(story);
        for step in 0..steps {
            told.step(&mut dice);
            if step == steps / 2 && story >= 4 {
                if story >= 6 {
                    told.store.close().expect("memory takes it");
                }
                told.store = RawLogStore::open(files.clone(), &asked).expect("it is sound");
            }
            if step == steps * 2 / 3 || step == steps - 5 {
                told.store.backup(&copy, |_, _| {}).expect("memory takes it");
                told.base.copied = told.base.last.clone();
            }
        }
        let mut left = None;
        if shards > 1 && !told.base.is_closed {
            let keys: Vec<_> = (0..24).map(|number| format!("key-{number}").into_bytes()).collect();
            let changes: Vec<_> = keys.iter().map(|key| Change::Put(key, b"across")).collect();
            told.store.batch_across(&changes).expect("memory takes it");
            told.note(&changes, true);
            left = Some(shards - 1);
        }
        let Told { store, mut base } = told;
        if base.is_closed {
            store.close().expect("memory takes it");
        } else {
            drop(store);
        }
        (base.files, base.copy) = (files.contents(), copy.contents());
        if let Some(shard) = left {
            // The part of the batch for this one was not written yet.
            let of = format!("any-{shard:04}-");
            let is_log = |name: &&String| name.starts_with(&of) && name.ends_with(".log");
            let name = base.files.keys().rfind(is_log).expect("each has one").clone();
            without_last(base.files.get_mut(&name).expect("it is there"));
        }
        // The same each time.
        let id = std::array::from_fn(|at| at as u8 ^ story);
        rename(&mut base.files, id);
        rename(&mut base.copy, id);
        base.check();
        base
    }

    /// Before it is damaged all of it is there: in the store, in what is saved of it, and in the copy.
    fn check(&self) {
        let open = |files: &Contents| RawLogStore::open(Files::of(files), &options(true));
        let store = open(&self.files).expect("it is sound");
        assert!(whole(&read(&store)).as_ref() == Some(&self.last), "all of it is there");
        let from = Files::of(&self.copy);
        let store = RawLogStore::restore(&from, Files::default(), &options(true), |_, _| {});
        let found = whole(&read(&store.expect("it is sound")));
        assert!(found.as_ref() == Some(&self.copied), "all of it is in the copy");
        let from = Files::of(&self.files);
        let saved = RawLogStore::salvage(&from, Files::default(), &options(true), |_, _| {});
        let (store, told) = saved.expect("memory takes it");
        assert!(told.is_whole() && told.damage.is_empty(), "{told:?}");
        let all: Records =
            self.last.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let found = whole(&read(&store)).expect("all is sound");
        assert!(found.into_iter().flatten().collect::<Records>() == all, "all of it is saved");
    }
}

/// All records, shard by shard, as the store shows them one by one.
#[must_use]
pub fn read(store: &RawLogStore<Files>) -> Vec<Read> {
    let mut keys = Vec::new();
    store.for_each_key(|key, _| keys.push(key.to_vec()));
    let mut shards = vec![Read::new(); store.stats().len()];
    for key in keys {
        let value = match store.get(&key) {
            Ok(Some(value)) => Some(value),
            // An enemy may have let it end just now.
            Ok(None) => continue,
            Err(Error::Damaged { .. }) => None,
            Err(error) => panic!("the disk is sound: {error}"),
        };
        let shard = store.shard(&key).expect("it has one") as usize;
        shards[shard].insert(key, value);
    }
    shards
}

/// The records, if none is damaged.
#[must_use]
pub fn whole(read: &[Read]) -> Option<Vec<Records>> {
    let of_shard =
        |read: &Read| read.iter().map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
    read.iter().map(of_shard).collect()
}

/// Are these the records, but for those that are damaged?
#[must_use]
pub fn is_like(read: &Read, records: &Records) -> bool {
    let is_it = |((key, value), (right, other)): ((_, &Option<Arc<[u8]>>), (_, &Arc<[u8]>))| {
        key == right && value.as_ref().is_none_or(|value| value == other)
    };
    read.len() == records.len() && read.iter().zip(records).all(is_it)
}

/// What is tried.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The store is looked at, and opened.
    Store,
    /// A new one is made of what is sound.
    Salvage,
    /// The copy is looked at, and made a store.
    Copy,
    /// The copy is made again by the store, which is sound.
    Backup,
}

/// What has happened to the files, and what is done with them then.
#[derive(Arbitrary, Clone, Debug)]
pub struct Input {
    /// Whose files they are.
    pub story: u8,
    /// What is done.
    pub what: What,
    /// Keys are kept in order.
    pub ordered: bool,
    seal: Seal,
    damage: Vec<Damage>,
}

impl Input {
    /// The damaged files.
    #[must_use]
    pub fn apply(&self, files: &Contents) -> Contents {
        let mut files = files.clone();
        Damage::apply_all(&self.damage, &mut files);
        seal(&mut files, self.seal);
        files
    }

    /// Nobody made checksums right.
    #[must_use]
    pub fn is_accident(&self) -> bool {
        self.seal == Seal::None
    }

    /// And all files are there under their own names.
    #[must_use]
    pub fn has_all_files(&self) -> bool {
        self.is_accident() && !self.damage.iter().any(Damage::is_of_names)
    }

    /// One thing has happened, and nobody made checksums right.
    #[must_use]
    pub fn is_one(&self) -> bool {
        self.is_accident() && self.damage.len() == 1
    }

    /// One byte, and nothing else: all of a log that was closed can be vouched for.
    #[must_use]
    pub fn is_one_byte(&self) -> bool {
        self.is_accident() && matches!(&self.damage[..], [damage] if damage.is_byte())
    }
}
