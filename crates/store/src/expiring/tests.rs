//! Records that end, beside a model with the same clock.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use mainstay_base::Rng;
use mainstay_sim::{Chance as _, Disk};

use super::*;
use crate::limits::TTL_MAX;
use crate::{
    Change, Durability::Memory, ExpiringStore, Found, News, Position, Reached, Span,
    limits::SEGMENT_BYTES_MIN, limits::VALUE_BYTES_MAX, read_changes,
};

const KEYS: u64 = 300;

#[derive(Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn clock(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let time = self.clone();
        move || time.now()
    }

    fn now(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn pass(&self, ms: u64) {
        self.0.fetch_add(ms, Relaxed);
    }
}

fn options() -> Options {
    Options { shards: 2, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

fn key(number: u64) -> [u8; 2] {
    (number as u16).to_be_bytes()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Values with their ends, by key.
type Model = BTreeMap<[u8; 2], (u8, Option<u64>)>;

fn compare(store: &RawExpiring<Disk>, model: &Model, now: u64) {
    let mut shown = BTreeMap::new();
    let show = |key: &[u8], value: &[u8]| {
        assert_eq!(shown.insert(key.to_vec(), value[0]), None);
    };
    store.for_each(show).unwrap();
    for number in 0..KEYS {
        let live = model.get(&key(number)).filter(|(_, end)| end.is_none_or(|end| end > now));
        assert_eq!(store.get(&key(number)).unwrap(), live.map(|(value, _)| vec![*value]));
        let left = live.map(|(_, end)| end.map(|end| ms(end - now)));
        assert_eq!(store.left(&key(number)).unwrap(), left);
        assert_eq!(shown.remove(&key(number)[..]), live.map(|(value, _)| *value));
    }
    assert!(shown.is_empty());
}

/// The leader's writes that a replica does not have yet.
fn follow(leader: &RawExpiring<Disk>, replica: &RawExpiring<Disk>, at: &mut [Position; 2]) {
    for (shard, position) in (0..).zip(at) {
        let Found::Here(mut tail) = leader.raw().tail(shard, *position).unwrap() else { panic!() };
        loop {
            let reached = leader.raw().read_tail(&mut tail, 1 << 16, |written| {
                let Position { epoch, .. } = written.position;
                let led = replica.raw().apply(shard, epoch, written.count, written.changes);
                assert_eq!(led.unwrap(), written.position);
            });
            match reached.unwrap() {
                Reached::More => {}
                Reached::End => break,
                Reached::Cut => panic!("the log was cut"),
            }
        }
        *position = tail.position();
    }
}

#[test]
fn records_end_at_their_time_whatever_is_swept_restarted_or_followed() {
    for seed in 0..12 {
        let (time, mut rng) = (Time::default(), Rng::seeded(seed));
        time.pass(1_000_000);
        let (disk, copy) = (Disk::new(seed), Disk::new(100 + seed));
        let mut store = RawExpiring::create(disk.clone(), 2, 1, &options(), time.clock()).unwrap();
        let replica = RawStore::create_replica(copy, &store.raw().identity(), &options()).unwrap();
        let replica = RawExpiring::over(replica, time.clock()).unwrap();
        let mut at = [Position::START; 2];
        // Nothing that the replica lacks is cut away.
        (0..2).for_each(|shard| store.raw().retain(shard, Some(0)).unwrap());
        let (mut model, mut swept) = (Model::new(), 0);
        for _ in 0..1_500 {
            let (number, value, now) = (rng.below(KEYS), rng.next_u64() as u8, time.now());
            let ttl = (rng.below(4) > 0).then(|| 1 + rng.below(400));
            let end = ttl.map(|ttl| now + ttl);
            let is_live = |entry: &(u8, Option<u64>)| entry.1.is_none_or(|end| end > now);
            let was_live = model.get(&key(number)).is_some_and(is_live);
            match rng.below(20) {
                0 => {
                    let made = store.insert(&key(number), &[value], ttl.map(ms), Memory).unwrap();
                    assert_eq!(made.is_none(), was_live);
                    if !was_live {
                        model.insert(key(number), (value, end));
                    }
                }
                1 => {
                    let touched = store.touch(&key(number), ttl.map(ms), Memory).unwrap();
                    assert_eq!(touched.is_some(), was_live);
                    if was_live {
                        model.entry(key(number)).and_modify(|entry| entry.1 = end);
                    }
                }
                2 | 3 => {
                    let deleted = store.delete(&key(number), Memory).unwrap();
                    assert_eq!(deleted.is_some(), was_live);
                    if was_live {
                        model.remove(&key(number));
                    }
                }
                4 => {
                    let seen = |old: Option<&[u8]>| {
                        assert_eq!(old.is_some(), was_live);
                        old.map(|_| vec![value])
                    };
                    store.update(&key(number), Memory, seen).unwrap();
                    if was_live {
                        model.entry(key(number)).and_modify(|entry| entry.0 = value);
                    }
                }
                5 => {
                    swept += store.sweep(1 + rng.below(4) as usize).unwrap();
                }
                6 | 7 => time.pass(rng.below(40)),
                8 if rng.below(8) == 0 => {
                    store.raw().sync().unwrap();
                    drop(store);
                    disk.power_cut();
                    // It ends while nobody runs.
                    time.pass(rng.below(200));
                    let raw = RawStore::open(disk.clone(), &options()).unwrap();
                    store = RawExpiring::over(raw, time.clock()).unwrap();
                    (0..2).for_each(|shard| store.raw().retain(shard, Some(0)).unwrap());
                    compare(&store, &model, time.now());
                }
                9 if rng.below(4) == 0 => {
                    compare(&store, &model, now);
                    follow(&store, &replica, &mut at);
                    compare(&replica, &model, now);
                    // It removes nothing by itself.
                    assert_eq!(replica.sweep(10).unwrap(), 0);
                    let records = |of: &RawExpiring<Disk>| -> u64 {
                        of.raw().stats().iter().map(|shard| shard.records).sum()
                    };
                    assert_eq!(records(&replica), records(&store));
                }
                _ => {
                    store.put(&key(number), &[value], ttl.map(ms), Memory).unwrap();
                    model.insert(key(number), (value, end));
                }
            }
        }
        // All that has ended goes, and nothing else.
        time.pass(1_000);
        swept += store.sweep(8).unwrap();
        model.retain(|_, (_, end)| end.is_none());
        compare(&store, &model, time.now());
        let left: u64 = store.raw().stats().iter().map(|shard| shard.records).sum();
        assert_eq!((left, swept > 0), (model.len() as u64, true));
        store.raw().verify().unwrap();
    }
}

#[test]
fn a_record_that_was_written_again_is_not_swept_with_what_it_was() {
    let time = Time::default();
    time.pass(1_000);
    let store = RawExpiring::create(Disk::new(1), 2, 1, &options(), time.clock()).unwrap();
    store.put(&key(1), b"1", Some(ms(10)), Memory).unwrap();
    time.pass(10);
    assert_eq!(store.get(&key(1)).unwrap(), None);
    store.put(&key(1), b"2", Some(ms(10)), Memory).unwrap();
    assert_eq!(store.sweep(4).unwrap(), 0);
    assert_eq!(store.get(&key(1)).unwrap(), Some(b"2".to_vec()));
}

#[test]
fn what_is_swept_is_a_delete_in_the_history() {
    let time = Time::default();
    time.pass(1_000);
    let one = Options { shards: 1, ..options() };
    let store = RawExpiring::create(Disk::new(1), 2, 1, &one, time.clock()).unwrap();
    store.put(&key(1), b"1", Some(ms(10)), Memory).unwrap();
    time.pass(10);
    assert_eq!(store.sweep(1).unwrap(), 1);
    let Found::Here(mut tail) = store.raw().tail(0, Position::START).unwrap() else { panic!() };
    let mut deleted = Vec::new();
    let look = |written: crate::Written<'_>| {
        read_changes(written.changes, written.count, (2, 9), |change| {
            if let crate::Change::Delete(key) = change {
                deleted.push(key.to_vec());
            }
        })
        .unwrap();
    };
    store.raw().read_tail(&mut tail, 1 << 16, look).unwrap();
    assert_eq!(deleted, [key(1).to_vec()]);
}

#[test]
fn times_and_values_are_taken_at_their_limits_and_not_beyond() {
    let disk = Disk::new(1);
    let most = VALUE_BYTES_MAX - STAMP;
    let too_long = RawExpiring::create(disk.clone(), 2, most + 1, &options(), || 5);
    assert!(matches!(too_long, Err(Error::OutOfLimits { .. })));
    let store = RawExpiring::create(disk, 2, most, &options(), || 5).unwrap();
    let value = vec![1; most];
    let put = |ttl| store.put(&key(1), &value, Some(ttl), Memory);
    for ttl in [ms(1), TTL_MAX] {
        put(ttl).unwrap();
        assert_eq!(store.left(&key(1)).unwrap(), Some(Some(ttl)));
    }
    for ttl in [Duration::ZERO, Duration::from_nanos(999_999), TTL_MAX + ms(1), Duration::MAX] {
        assert!(matches!(put(ttl), Err(Error::OutOfLimits { .. })), "{ttl:?}");
    }
    assert_eq!(store.left(&key(1)).unwrap(), Some(Some(TTL_MAX)));
    let short = store.put(&key(1), &value[1..], None, Memory);
    assert!(matches!(short, Err(Error::OutOfLimits { .. })));
    assert!(store.read_into(&key(1), &mut [0; 8]).is_err());
    // A store whose values have no room for a time.
    let plain = RawStore::create(Disk::new(2), 2, 7, &options()).unwrap();
    assert!(matches!(RawExpiring::over(plain, || 0), Err(Error::OutOfLimits { value: 7, .. })));
}

#[test]
fn a_store_in_a_directory_removes_what_has_ended_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { interval: ms(2), ..options() };
    let store = crate::ExpiringStore::<u64, u64>::create(dir.path(), &options).unwrap();
    for number in 0..500 {
        store.put(&number, &number, (number % 2 == 0).then(|| ms(20)), Memory).unwrap();
    }
    let records = || -> u64 { store.raw().raw().stats().iter().map(|shard| shard.records).sum() };
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while records() > 250 {
        assert!(std::time::Instant::now() < end, "nobody removes what has ended");
        std::thread::sleep(ms(2));
    }
    store.close().unwrap();
    let other = crate::ExpiringStore::<u64, u32>::open(dir.path(), &options);
    assert!(matches!(other, Err(Error::OtherSizes { value: 8, asked_value: 4, .. })));
    let store = crate::ExpiringStore::<u64, u64>::open(dir.path(), &options).unwrap();
    assert_eq!((store.get(&1).unwrap(), store.get(&2).unwrap()), (Some(1), None));
}

#[test]
fn that_records_end_is_known_to_copies_and_to_who_opens_it() {
    use crate::{FixedStore, OnDisk};
    let dir = tempfile::tempdir().unwrap();
    let made = ExpiringStore::<u64, u32>::create(dir.path(), &options()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    made.raw().raw().backup(&crate::Directory::lock(copy.path()).unwrap(), |_, _| {}).unwrap();
    let other = made.raw().raw().reshard_into(Disk::new(3), &options()).unwrap();
    let mut other = other;
    while !other.advance(100).unwrap() {}
    assert!(other.finish().unwrap().has_ends());
    drop(made);
    for place in [&dir, &copy] {
        assert!(OnDisk::open(place.path()).unwrap().has_ends());
        // As values of its own sizes they would be taken for something else.
        let plain = FixedStore::<u64, [u8; 12]>::open(place.path(), &options());
        assert!(matches!(plain, Err(Error::OtherKind { .. })));
        drop(ExpiringStore::<u64, u32>::open(place.path(), &options()).unwrap());
    }
}

#[test]
fn a_store_of_before_that_was_written_down_is_opened_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let folder = crate::Directory::lock(dir.path()).unwrap();
    let raw = RawStore::create(folder, 8, 12, &options()).unwrap();
    let stored = [&u64::MAX.to_le_bytes()[..], &5_u32.to_le_bytes()].concat();
    raw.put(&7_u64.to_le_bytes(), &stored, Memory).unwrap();
    raw.close().unwrap();
    let store = ExpiringStore::<u64, u32>::open(dir.path(), &options()).unwrap();
    assert_eq!(store.get(&7).unwrap(), Some(5));
    assert!(!store.raw().raw().has_ends());
}

/// What the store shows by its order, by a watch and by a hook is what was put, and is there.
#[test]
fn a15_ranges_watches_and_hooks_show_no_stamp_and_a_range_nothing_that_has_ended() {
    let (time, options) = (Time::default(), Options { ordered: true, ..options() });
    time.pass(1_000);
    let store = RawExpiring::create(Disk::new(3), 2, 2, &options, time.clock()).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let _hook = store.on_commit_with_old(move |commit| {
        for (number, change) in commit.changes.iter().enumerate() {
            let new = match change {
                Change::Put(_, value) => Some(value.to_vec()),
                Change::Delete(_) => None,
            };
            let old = commit.old(number).map(<[u8]>::to_vec);
            seen.lock().unwrap().push((change.key().to_vec(), old, new));
        }
    });
    let mut watch = store.watch_with_old(Span::ALL).unwrap();
    let mut model: BTreeMap<[u8; 2], ([u8; 2], u64)> = BTreeMap::new();
    let mut rng = Rng::seeded(4);
    for round in 0..2_000_u64 {
        let (key, value) = (key(rng.below(50)), (round as u16).to_be_bytes());
        let now = time.now();
        match rng.below(8) {
            0 => {
                let was_there = model.remove(&key).is_some_and(|(_, end)| end > now);
                assert_eq!(store.delete(&key, Memory).unwrap().is_some(), was_there);
            }
            1 => {
                let both = [Change::Put(&key, &[1, 1]), Change::Put(&key, &value)];
                store.batch(&both, Some(ms(100)), Memory).unwrap();
                model.insert(key, (value, now + 100));
            }
            2 => {
                let other = [key[0], key[1] ^ 1];
                let both = [Change::Put(&key, &value), Change::Delete(&other)];
                store.batch_across(&both, Some(ms(50))).unwrap();
                model.insert(key, (value, now + 50));
                model.remove(&other);
            }
            3 => {
                store.sweep_all().unwrap();
                model.retain(|_, (_, end)| *end > now);
            }
            _ => {
                let ttl = rng.between(1, 300);
                store.put(&key, &value, Some(ms(ttl)), Memory).unwrap();
                model.insert(key, (value, now + ttl));
            }
        }
        time.pass(rng.below(4));
        let now = time.now();
        let live = model.iter().filter(|(_, (_, end))| *end > now);
        let live: Vec<_> = live.map(|(key, (value, _))| (key.to_vec(), value.to_vec())).collect();
        let found = store.range(&Span::ALL).unwrap().collect::<Result<Vec<_>>>().unwrap();
        assert_eq!(found, live);
        let mut last = store.range(&Span::ALL).unwrap().rev();
        assert_eq!(last.next().transpose().unwrap().as_ref(), live.last());
        assert!(live.iter().all(|(key, _)| store.contains(key).unwrap()));
    }
    let told = told.lock().unwrap();
    let news = std::iter::from_fn(|| watch.take().unwrap()).map(|news| match news {
        News::Put { key, value, old, .. } => (key, old, Some(value)),
        News::Deleted { key, old, .. } => (key, old, None),
        News::Missed => panic!("missed"),
    });
    assert_eq!(news.collect::<Vec<_>>(), *told);
    assert!(told.iter().filter(|(_, old, _)| old.is_some()).count() > 1_000);
    // Each is told of with what the one before has put.
    let mut before: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
    for (key, old, new) in &*told {
        assert_eq!(old.as_deref(), before.get(&key[..]).copied());
        match new {
            Some(new) => before.insert(key, new),
            None => before.remove(&key[..]),
        };
    }
}
