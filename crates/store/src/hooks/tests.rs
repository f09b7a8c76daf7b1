//! Hooks that are told what was there before: an index of one's own is right, and nobody else pays.

use std::{
    collections::BTreeSet,
    sync::{Mutex, atomic::AtomicU64},
    thread,
    time::Duration,
};

use mainstay_base::Rng;
use mainstay_sim::Disk;

use super::*;
use crate::{
    Durability::{self, Memory},
    Error, Found, LogOptions, Options, Position, RawLogStore,
    planted::plant,
};

type Pair = (Vec<u8>, Vec<u8>);
/// Key, old value, new value.
type Told = (Token, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

/// Keys by their values.
#[derive(Default)]
struct ByValue {
    pairs: BTreeSet<Pair>,
    waiting: Option<Vec<Told>>,
    /// How often an entry was not there, or there already.
    wrong: u64,
}

impl ByValue {
    fn see(&mut self, commit: &Commit<'_>) {
        for (number, change) in commit.changes.iter().enumerate() {
            let new = match change {
                Change::Put(_, value) => Some(value.to_vec()),
                Change::Delete(_) => None,
            };
            let old = commit.old(number).map(<[u8]>::to_vec);
            let told = (commit.token, change.key().to_vec(), old, new);
            match &mut self.waiting {
                Some(waiting) => waiting.push(told),
                None => self.change(told),
            }
        }
    }

    fn change(&mut self, (_, key, old, new): Told) {
        if let Some(old) = old {
            self.wrong += u64::from(!self.pairs.remove(&(old, key.clone())));
        }
        if let Some(new) = new {
            self.wrong += u64::from(!self.pairs.insert((new, key)));
        }
    }

    fn fill(&mut self, pairs: BTreeSet<Pair>, last: &[Token]) {
        self.pairs = pairs;
        for told in self.waiting.take().unwrap() {
            if told.0.sequence > last[told.0.shard as usize].sequence {
                self.change(told);
            }
        }
    }
}

/// What both kinds of stores can do, under the same names.
macro_rules! index_of {
    ($store:expr, $writers:expr, $write:expr) => {{
        let (store, over) = ($store, AtomicUsize::new(0));
        let index = Arc::new(Mutex::new(ByValue::default()));
        index.lock().unwrap().waiting = Some(Vec::new());
        let _hook = thread::scope(|scope| {
            for writer in 0..$writers {
                let (store, over) = (&store, &over);
                scope.spawn(move || {
                    let mut rng = Rng::seeded(writer);
                    // Some before, some while, and some after the index is filled.
                    let mut after = 0;
                    while after < 500 {
                        after += over.load(Relaxed);
                        $write(store, &mut rng);
                    }
                });
            }
            thread::sleep(Duration::from_millis(20));
            let seen = Arc::clone(&index);
            let hook = store.on_commit_with_old(move |commit| seen.lock().unwrap().see(commit));
            thread::sleep(Duration::from_millis(5));
            let snapshot = store.snapshot();
            let (last, mut pairs) = (snapshot.tokens().collect::<Vec<_>>(), BTreeSet::new());
            let show = |key: &[u8], value: &[u8]| {
                pairs.insert((value.to_vec(), key.to_vec()));
            };
            snapshot.for_each(show).unwrap();
            thread::sleep(Duration::from_millis(5));
            index.lock().unwrap().fill(pairs, &last);
            over.store(1, Relaxed);
            hook
        });
        let mut rebuilt = BTreeSet::new();
        let show = |key: &[u8], value: &[u8]| {
            rebuilt.insert((value.to_vec(), key.to_vec()));
        };
        store.for_each(show).unwrap();
        let index = index.lock().unwrap();
        assert!(rebuilt.len() > 10, "{}", rebuilt.len());
        (index.wrong, index.pairs == rebuilt)
    }};
}

/// One write of those that a store of this kind knows.
macro_rules! write {
    ($store:ty) => {
        |store: &$store, rng: &mut Rng| {
            let key = [rng.below(40) as u8];
            let other = [rng.below(40) as u8];
            let value = [rng.below(5) as u8, rng.below(5) as u8];
            let both = [Change::Put(&key, &value), Change::Put(&other, &value)];
            match rng.below(8) {
                0 => drop(store.delete(&key, Memory).unwrap()),
                1 => drop(store.insert(&key, &value, Memory).unwrap()),
                2 => drop(store.update(&key, Memory, |_| Some(value.to_vec())).unwrap()),
                3 => drop(store.batch_across(&both).unwrap()),
                4 => {
                    // The same key again.
                    let three = [both[0], Change::Delete(&key), Change::Put(&key, &[7, 7])];
                    store.batch(&three, Memory).unwrap();
                }
                _ => drop(store.put(&key, &value, Memory).unwrap()),
            }
        }
    };
}

fn fixed() -> RawStore<Disk> {
    let options = Options { shards: 4, ..Options::default() };
    RawStore::create(Disk::new(7), 1, 2, &options).unwrap()
}

fn any() -> RawLogStore<Disk> {
    let options = LogOptions { shards: 4, ..LogOptions::default() };
    RawLogStore::create(Disk::new(7), &options).unwrap()
}

#[test]
fn a14_an_index_kept_by_a_hook_and_filled_by_a_snapshot_is_a_rebuilt_one_beside_writers() {
    assert_eq!(index_of!(fixed(), 3, write!(RawStore<Disk>)), (0, true));
    assert_eq!(index_of!(any(), 3, write!(RawLogStore<Disk>)), (0, true));
}

/// Writes of one thread: how often the index was wrong, and whether it is right in the end.
fn alone(fault: Option<Fault>) -> [u64; 2] {
    let write_fixed: fn(&RawStore<Disk>, &mut Rng) = write!(RawStore<Disk>);
    let write_any: fn(&RawLogStore<Disk>, &mut Rng) = write!(RawLogStore<Disk>);
    macro_rules! wrong {
        ($store:expr, $write:expr) => {{
            let (store, mut rng) = ($store, Rng::seeded(3));
            let index = Arc::new(Mutex::new(ByValue::default()));
            let seen = Arc::clone(&index);
            let _hook = store.on_commit_with_old(move |commit| seen.lock().unwrap().see(commit));
            plant(fault);
            (0..400).for_each(|_| $write(&store, &mut rng));
            plant(None);
            let wrong = index.lock().unwrap().wrong;
            wrong
        }};
    }
    [wrong!(fixed(), write_fixed), wrong!(any(), write_any)]
}

#[test]
fn values_before_a_batch_in_place_of_those_within_it_are_found() {
    assert_eq!(alone(None), [0, 0]);
    let [fixed, any] = alone(Some(Fault::OldOfBatch));
    assert!(fixed > 0 && any > 0, "{fixed} {any}");
}

#[test]
fn nothing_is_read_or_kept_for_hooks_that_do_not_ask() {
    let hooks = Arc::new(Hooks::default());
    let changes = [Change::Put(b"a", b"1"), Change::Delete(b"b")];
    let none = |_: &[u8]| -> Result<Old> { panic!("read") };
    assert_eq!(hooks.old_of(&changes, none).unwrap().capacity(), 0);
    let plain = hooks.add(Arc::new(|_: &Commit<'_>| {}));
    assert_eq!(hooks.old_of(&changes, none).unwrap().capacity(), 0);
    let asking = hooks.add_with_old(Arc::new(|_: &Commit<'_>| {}));
    let mut reads = 0;
    let read = |_: &[u8]| {
        reads += 1;
        Ok(None)
    };
    assert_eq!((hooks.old_of(&changes, read).unwrap(), reads), (vec![None, None], 2));
    drop((plain, asking));
    assert_eq!(hooks.old_of(&changes, none).unwrap().capacity(), 0);
}

#[test]
fn who_asks_while_a_write_is_made_is_told_of_the_next_one_on() {
    let (hooks, count) = (Arc::new(Hooks::default()), Arc::new(AtomicU64::new(0)));
    let token = Token { epoch: 1, shard: 0, sequence: 1 };
    let changes = [Change::Put(&b"a"[..], &b"1"[..])];
    let (asking, plain) = (Arc::clone(&count), Arc::clone(&count));
    let _asking = hooks.add_with_old(Arc::new(move |_: &Commit<'_>| {
        asking.fetch_add(1, Relaxed);
    }));
    let _plain = hooks.add(Arc::new(move |_: &Commit<'_>| {
        plain.fetch_add(100, Relaxed);
    }));
    let commit = Commit { token, changes: &changes, end: 0, old: &[] };
    hooks.call(&commit);
    assert_eq!((count.load(Relaxed), commit.old(0)), (100, None));
    hooks.call(&Commit { old: &[None], ..commit });
    assert_eq!(count.load(Relaxed), 201);
}

#[test]
fn a_record_that_has_ended_is_still_what_is_replaced_or_swept() {
    let time = Arc::new(AtomicU64::new(1_000));
    let clock = Arc::clone(&time);
    let store = any().with_clock(move || clock.load(Relaxed));
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let _hook = store.on_commit_with_old(move |commit| {
        seen.lock().unwrap().push(commit.old(0).map(<[u8]>::to_vec));
    });
    let second = Some(Duration::from_secs(1));
    store.put_for(b"a", b"1", second, Memory).unwrap();
    time.fetch_add(5_000, Relaxed);
    assert!(store.insert_for(b"a", b"2", second, Memory).unwrap().is_some());
    time.fetch_add(5_000, Relaxed);
    assert_eq!((store.get(b"a").unwrap(), store.sweep(9).unwrap()), (None, 1));
    let old = [None, Some(b"1".to_vec()), Some(b"2".to_vec())];
    assert_eq!(*told.lock().unwrap(), old);
}

#[test]
fn hooks_of_a_replica_are_told_what_its_leader_replaces() {
    let one = LogOptions { shards: 1, ..LogOptions::default() };
    let leader = RawLogStore::create(Disk::new(1), &one).unwrap();
    let replica = RawLogStore::create_replica(Disk::new(2), &leader.identity(), &one).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let _hook = replica.on_commit_with_old(move |commit| {
        seen.lock().unwrap().push(commit.old(0).map(<[u8]>::to_vec));
    });
    leader.put(b"a", b"1", Memory).unwrap();
    leader.put(b"a", b"2", Memory).unwrap();
    let Found::Here(mut tail) = leader.tail(0, Position::START).unwrap() else { panic!("gone") };
    let take = |write: crate::Written<'_>| {
        replica.apply(0, write.position.epoch, write.count, write.changes).unwrap();
    };
    leader.read_tail(&mut tail, 1_000, take).unwrap();
    assert_eq!(*told.lock().unwrap(), [None, Some(b"1".to_vec())]);
}

#[test]
fn a_write_whose_old_value_cannot_be_read_is_refused_and_changes_nothing() {
    let (disk, options) = (Disk::new(1), LogOptions { cache_bytes: 0, ..LogOptions::default() });
    let store = RawLogStore::create(disk.clone(), &options).unwrap();
    let value = [7_u8; 3_000];
    store.put(b"a", &value, Durability::Each).unwrap();
    for name in disk.names().into_iter().filter(|name| name.ends_with(".log")) {
        let file = Folder::file(&disk, &name).unwrap();
        if mainstay_storage::Storage::len(&file).unwrap() > 6_000 {
            mainstay_storage::Storage::write_at(&file, 5_000, &[8]).unwrap();
        }
    }
    let hook = store.on_commit_with_old(|_| {});
    let before = store.stats();
    assert!(matches!(store.put(b"a", b"1", Memory), Err(Error::Damaged { .. })));
    assert!(matches!(store.delete(b"a", Memory), Err(Error::Damaged { .. })));
    assert_eq!(store.stats(), before);
    drop(hook);
    store.put(b"a", b"1", Memory).unwrap();
    assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
}
