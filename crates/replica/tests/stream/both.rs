//! The two kinds of stores, as far as the tests use them: each test is written once, and run for
//! both.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mainstay_replica::{Sink, Source};
use mainstay_sim::{Disk, Storage};
use mainstay_store::{
    Change, Durability::Memory, Error, Identity, LogOptions, LogScan, Options, RawLogStore,
    RawStore, Result, Role, Token, read_records,
};

/// Values, and when they end; 0: never.
pub(crate) type Records = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

pub(crate) const SHARDS: u32 = 2;
/// Bytes of a value of a fixed size.
pub(crate) const VALUE: usize = 100;
const SEGMENT_BYTES: u64 = 16 << 10;

pub(crate) type Fixed = Arc<RawStore<Disk>>;
pub(crate) type Any = Arc<RawLogStore<Disk>>;

/// A kind of store.
pub(crate) trait Kind:
    Source<Tail: Send, Scan: Send> + Sink<Scan: Send> + Clone + Send + Sync + 'static
{
    /// Bytes of a record in a message, about.
    const RECORD_BYTES: usize;

    fn make(disk: Disk) -> Self;
    fn make_replica(disk: Disk, of: &Identity) -> Self;
    fn reopen(disk: &Disk) -> Self;
    /// What of it no follower of another store has.
    fn misfits(id: Identity) -> Vec<(Identity, &'static str)>;
    fn who(&self) -> Identity;
    /// Writes a record of a number, of the lengths that it has; some have an end.
    fn put_one(&self, number: u32, value: u8) -> Result<Token>;
    fn delete_one(&self, number: u32) -> Result<bool>;
    fn get_one(&self, number: u32) -> Option<Vec<u8>>;
    fn contents(&self) -> Records;
    fn compact(&self);
    fn role(&self) -> Role;
    fn promoted(self, drawn: u16) -> Self;
    fn demoted(self) -> Self;
    /// It hears of a leader of this epoch.
    fn fenced(&self, epoch: u64);
}

fn options() -> Options {
    Options { shards: SHARDS, segment_bytes: SEGMENT_BYTES, threads: 1, ..Options::default() }
}

fn log_options() -> LogOptions {
    LogOptions {
        shards: SHARDS,
        segment_bytes: SEGMENT_BYTES,
        threads: 1,
        dead_percent: 30,
        ..LogOptions::default()
    }
}

/// What is the same to the letter.
macro_rules! alike {
    () => {
        fn who(&self) -> Identity {
            Source::identity(self)
        }

        fn compact(&self) {
            (**self).compact().unwrap();
        }

        fn role(&self) -> Role {
            (**self).role()
        }

        fn promoted(self, drawn: u16) -> Self {
            let Some(store) = Arc::into_inner(self) else { panic!("nobody else has it") };
            Arc::new(store.promote(drawn).unwrap())
        }

        fn demoted(self) -> Self {
            let Some(store) = Arc::into_inner(self) else { panic!("nobody else has it") };
            Arc::new(store.demote().unwrap())
        }

        fn fenced(&self, epoch: u64) {
            (**self).fence(epoch).unwrap();
        }
    };
}

impl Kind for Fixed {
    const RECORD_BYTES: usize = 4 + VALUE;

    alike!();

    fn make(disk: Disk) -> Self {
        Arc::new(RawStore::create(disk, 4, VALUE, &options()).unwrap())
    }

    fn make_replica(disk: Disk, of: &Identity) -> Self {
        Arc::new(RawStore::create_replica(disk, of, &options()).unwrap())
    }

    fn reopen(disk: &Disk) -> Self {
        Arc::new(RawStore::open(disk.clone(), &options()).unwrap())
    }

    fn misfits(id: Identity) -> Vec<(Identity, &'static str)> {
        vec![
            (Identity { key_len: 8, ..id }, "length of keys: 4 and 8"),
            (Identity { value_len: 9, ..id }, "length of values: 100 and 9"),
        ]
    }

    fn put_one(&self, number: u32, value: u8) -> Result<Token> {
        self.put(&number.to_be_bytes(), &[value; VALUE], Memory)
    }

    fn delete_one(&self, number: u32) -> Result<bool> {
        Ok(self.delete(&number.to_be_bytes(), Memory)?.is_some())
    }

    fn get_one(&self, number: u32) -> Option<Vec<u8>> {
        self.get(&number.to_be_bytes()).unwrap()
    }

    fn contents(&self) -> Records {
        let mut records = Records::new();
        let mut show = |key: &[u8], value: &[u8]| {
            assert!(records.insert(key.to_vec(), (value.to_vec(), 0)).is_none(), "a key twice");
        };
        self.for_each(&mut show).unwrap();
        records
    }
}

/// From 4 to 43 bytes.
fn any_key(number: u32) -> Vec<u8> {
    let mut key = number.to_be_bytes().to_vec();
    key.resize(4 + number as usize % 40, b'k');
    key
}

/// From nothing to twice the length of a fixed one.
fn any_value(number: u32, value: u8) -> Vec<u8> {
    vec![value; (number * 37 + u32::from(value)) as usize % (2 * VALUE)]
}

impl Kind for Any {
    const RECORD_BYTES: usize = 20 + 24 + VALUE;

    alike!();

    fn make(disk: Disk) -> Self {
        Arc::new(RawLogStore::create(disk, &log_options()).unwrap())
    }

    fn make_replica(disk: Disk, of: &Identity) -> Self {
        Arc::new(RawLogStore::create_replica(disk, of, &log_options()).unwrap())
    }

    fn reopen(disk: &Disk) -> Self {
        Arc::new(RawLogStore::open(disk.clone(), &log_options()).unwrap())
    }

    fn misfits(_: Identity) -> Vec<(Identity, &'static str)> {
        Vec::new()
    }

    fn put_one(&self, number: u32, value: u8) -> Result<Token> {
        let ttl = number.is_multiple_of(7).then(|| Duration::from_secs(3_600));
        self.put_for(&any_key(number), &any_value(number, value), ttl, Memory)
    }

    fn delete_one(&self, number: u32) -> Result<bool> {
        Ok(self.delete(&any_key(number), Memory)?.is_some())
    }

    fn get_one(&self, number: u32) -> Option<Vec<u8>> {
        self.get(&any_key(number)).unwrap().map(|value| value.to_vec())
    }

    fn contents(&self) -> Records {
        let mut records = Records::new();
        for shard in 0..SHARDS {
            let show = |key: &[u8], record: &[u8]| {
                let (change, end) = read_records(record, 1).unwrap()[0];
                let Change::Put(_, value) = change else { panic!("a delete is shown") };
                assert!(records.insert(key.to_vec(), (value.to_vec(), end)).is_none());
            };
            let (mut scan, all) = (LogScan::default(), (usize::MAX, u64::MAX));
            assert!(!RawLogStore::scan(self, shard, &mut scan, all, |_| true, show).unwrap());
        }
        records
    }
}

pub(crate) fn store<S: Kind>(seed: u64) -> (Disk, S) {
    let disk = Disk::new(seed);
    (disk.clone(), S::make(disk))
}

pub(crate) fn replica<S: Kind>(of: &S, seed: u64) -> (Disk, S) {
    let disk = Disk::new(seed);
    (disk.clone(), S::make_replica(disk, &of.who()))
}

pub(crate) fn put<S: Kind>(store: &S, numbers: impl IntoIterator<Item = u32>, value: u8) {
    for number in numbers {
        store.put_one(number, value).unwrap();
    }
}

pub(crate) fn assert_equal<S: Kind>(one: &S, other: &S) {
    assert_eq!(one.contents(), other.contents());
    for shard in 0..SHARDS {
        assert_eq!(one.history(shard).unwrap(), other.history(shard).unwrap());
    }
}

/// It takes no more writes of its own: there is another leader.
pub(crate) fn is_replaced<S: Kind>(store: &S) -> bool {
    matches!(store.put_one(1, 1), Err(Error::Replaced { .. }))
}

/// All that was set aside on a disk.
pub(crate) fn set_aside(disk: &Disk) -> String {
    let mut lines = String::new();
    for name in disk.names().into_iter().filter(|name| name.starts_with("aside-")) {
        let file = disk.file(&name);
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        lines.push_str(&String::from_utf8(bytes).unwrap());
    }
    lines
}

/// Each of these tests for stores of either kind.
macro_rules! for_both {
    ($($test:ident),* $(,)?) => {
        mod of_fixed_sizes {
            $(#[test] fn $test() { super::$test::<crate::both::Fixed>(); })*
        }
        mod of_any_sizes {
            $(#[test] fn $test() { super::$test::<crate::both::Any>(); })*
        }
    };
}
pub(crate) use for_both;
