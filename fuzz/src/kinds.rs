//! The two kinds of stores, as far as an enemy among replicas has to do with them.

use arbitrary::Arbitrary;
use mainstay_replica::{Chunk, Sink, Source};
use mainstay_store::{
    Change, Durability::Memory, Error, Identity, LogOptions, RawLogStore, RawStore, read_records,
    write_changes, write_records,
};
use std::{collections::BTreeMap, sync::Arc};

use crate::{
    folder::{Contents, Files},
    store::{Base, LENGTHS, SHARDS, options},
};

/// What there is of the records of a shard, as a leader shows them: keys, and the rest.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Which stores an input is for.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Sizes {
    /// Those whose keys and values have one size.
    Fixed,
    /// Those in which each has its own.
    Any,
}

/// A kind of store.
pub trait Kind: Source + Sink + Clone {
    /// Files of one that was closed, with records in several segments.
    fn base() -> Contents;
    /// Opens one that nobody has damaged.
    fn open(files: Files) -> Self;
    /// It follows from now on, also when it is opened again.
    fn demote(self);
    /// What it has in common with its replicas.
    fn who(&self) -> Identity {
        Source::identity(self)
    }
    /// Writes a record of a key, and says which shard it is in. With no end: that of a local write
    /// would be counted from now.
    ///
    /// # Errors
    /// If it takes no writes.
    fn put(&self, record: Record) -> Result<u32, Error> {
        let identity = self.who();
        self.put_bytes(&record.key(&identity), &record.value(&identity))
    }
    /// The same of a key and a value.
    ///
    /// # Errors
    /// If it takes no writes.
    fn put_bytes(&self, key: &[u8], value: &[u8]) -> Result<u32, Error>;
    /// Is everything as its checksums say?
    ///
    /// # Errors
    /// If not.
    fn verify(&self) -> Result<(), Error>;
}

/// A record as inputs name it.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Record {
    /// Which key.
    pub key: u8,
    /// What its value is made of.
    pub of: u8,
    /// When it ends, if it can; 0: never.
    pub end: u8,
}

/// Milliseconds since 1970 that are long in the future.
const END_MS: u64 = 9_000_000_000_000;
/// The longest value of any size here; longer than a page.
const ANY_BYTES: usize = 5_000;

impl Record {
    /// Its key, of a store with such sizes.
    #[must_use]
    pub fn key(self, identity: &Identity) -> Vec<u8> {
        let mut key = vec![0, self.key];
        if identity.is_any() {
            key.resize(2 + usize::from(self.key % 40), b'k');
        }
        key
    }

    fn value(self, identity: &Identity) -> Vec<u8> {
        let len = match (identity.is_any(), self.of) {
            (false, _) => LENGTHS.1,
            (true, u8::MAX) => ANY_BYTES,
            (true, of) => usize::from(of) * 3 / 2,
        };
        vec![self.of; len]
    }

    fn end(self) -> u64 {
        if self.end == 0 { 0 } else { END_MS + u64::from(self.end) }
    }

    /// What there is of it beside its key, as a store shows it.
    #[must_use]
    pub fn rest(self, identity: &Identity) -> Vec<u8> {
        let (key, value) = (self.key(identity), self.value(identity));
        if !identity.is_any() {
            return value;
        }
        let mut record = Vec::new();
        write_records(&[(Change::Put(&key, &value), self.end())], &mut record);
        record
    }

    /// Appends it as it is in a message of records.
    pub fn write(self, identity: &Identity, out: &mut Vec<u8>) {
        // One of any lengths has its key in it.
        if !identity.is_any() {
            out.extend_from_slice(&self.key(identity));
        }
        out.extend_from_slice(&self.rest(identity));
    }

    /// Appends the change that puts it as it is in a write, or the one that deletes it.
    pub fn change(self, is_put: bool, identity: &Identity, out: &mut Vec<u8>) {
        let (key, value) = (self.key(identity), self.value(identity));
        let change = if is_put { Change::Put(&key, &value) } else { Change::Delete(&key) };
        if identity.is_any() {
            write_records(&[(change, if is_put { self.end() } else { 0 })], out);
        } else {
            write_changes(&[change], out);
        }
    }
}

/// All records of a store, shard by shard, as it shows them.
///
/// # Errors
/// What the store says.
pub fn records<S: Kind>(store: &S) -> Result<Vec<Records>, Error> {
    let all = Chunk { records: usize::MAX, bytes: u64::MAX };
    let show_all = |shard| {
        let (mut found, mut scan) = (Records::new(), <S as Source>::Scan::default());
        let mut show = |key: &[u8], rest: &[u8]| {
            assert!(found.insert(key.to_vec(), rest.to_vec()).is_none(), "a key twice");
        };
        while Source::scan(store, shard, &mut scan, all, &|_| true, &mut show)? {}
        Ok(found)
    };
    (0..SHARDS as u32).map(show_all).collect()
}

/// A store with fixed sizes.
pub type Fixed = Arc<RawStore<Files>>;
/// One with any.
pub type Any = Arc<RawLogStore<Files>>;

fn own<S>(store: Arc<S>) -> S {
    Arc::into_inner(store).expect("nobody else has it")
}

impl Kind for Fixed {
    fn base() -> Contents {
        Base::new().files
    }

    fn open(files: Files) -> Self {
        Arc::new(RawStore::open(files, &options()).expect("what was written is read"))
    }

    fn demote(self) {
        drop(own(self).demote().expect("memory takes it"));
    }

    fn put_bytes(&self, key: &[u8], value: &[u8]) -> Result<u32, Error> {
        Ok(RawStore::put(self, key, value, Memory)?.shard)
    }

    fn verify(&self) -> Result<(), Error> {
        RawStore::verify(self)
    }
}

/// As few segments as the other kind has.
fn log_options() -> LogOptions {
    LogOptions {
        shards: SHARDS as u32,
        segment_bytes: 16 << 10,
        threads: 1,
        cache_bytes: 4 << 10,
        dead_percent: 30,
        ..LogOptions::default()
    }
}

impl Kind for Any {
    fn base() -> Contents {
        let files = Files::default();
        let store = RawLogStore::create(files.clone(), &log_options());
        let store = Arc::new(store.expect("memory takes it"));
        let identity = store.who();
        for number in 0..300_u32 {
            let (key, of) = ((number * 7 % 60) as u8, number as u8);
            let record = Record { key, of, end: (number % 11 / 10) as u8 };
            match number % 5 {
                0 => drop(store.delete(&record.key(&identity), Memory).expect("memory takes it")),
                _ => drop(store.put(record).expect("memory takes it")),
            }
            if number == 200 {
                store.compact().expect("memory takes it");
            }
        }
        own(store).close().expect("memory takes it");
        files.contents()
    }

    fn open(files: Files) -> Self {
        Arc::new(RawLogStore::open(files, &log_options()).expect("what was written is read"))
    }

    fn demote(self) {
        drop(own(self).demote().expect("memory takes it"));
    }

    fn put_bytes(&self, key: &[u8], value: &[u8]) -> Result<u32, Error> {
        Ok(RawLogStore::put(self, key, value, Memory)?.shard)
    }

    fn verify(&self) -> Result<(), Error> {
        RawLogStore::verify(self)?;
        for shard in records(self)? {
            for (key, record) in shard {
                let read = read_records(&record, 1).expect("it was shown");
                assert!(matches!(read[..], [(Change::Put(found, _), _)] if found == key));
            }
        }
        Ok(())
    }
}
