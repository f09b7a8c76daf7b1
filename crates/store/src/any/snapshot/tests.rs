//! Ranges, snapshots and watches of a store of any sizes, beside copies of an ordered map, while it
//! is written, compacted and opened again.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use mainstay_base::Rng;
use mainstay_sim::Disk;
use proptest::prelude::*;

use super::*;
use crate::{
    Change,
    Durability::Memory,
    Error, LogOptions, News,
    any::index::Index,
    limits::{SEGMENT_BYTES_MIN, TTL_MAX, WATCH_BYTES_MAX},
    planted::{Fault, plant},
};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a store is compared with: values, and when they end.
#[derive(Clone, Default)]
struct Model {
    records: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    now: Arc<AtomicU64>,
}

impl Model {
    /// What has not ended.
    fn live(&self) -> Records {
        let now = self.now.load(Relaxed);
        let live = self.records.iter().filter(|(_, (_, end))| *end == 0 || *end > now);
        live.map(|(key, (value, _))| (key.clone(), value.clone())).collect()
    }
}

fn options(shards: u32, ordered: bool) -> LogOptions {
    // So small that a few values fill a segment, and one in four dead has it compacted.
    let segment_bytes = SEGMENT_BYTES_MIN;
    LogOptions { shards, segment_bytes, ordered, dead_percent: 25, ..LogOptions::default() }
}

/// Keys of several lengths, some of which begin with others.
fn key(number: u8) -> Vec<u8> {
    let mut key = vec![number % 5; usize::from(number % 3) + 1];
    key.push(number / 16);
    key
}

fn value(seed: u8) -> Vec<u8> {
    vec![seed; usize::from(seed) * 9]
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    PutFor(u8, u8, u8),
    Touch(u8, Option<u8>),
    Update(u8, u8),
    Wait(u8),
    Sweep(u8),
    Delete(u8),
    Batch(Vec<(u8, Option<u8>)>),
    Compact,
    Snapshot,
    Forget(u8),
    Look { from: u8, to: u8, prefix: u8, ends: u32 },
    Reopen { cut: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let look = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u32>());
    prop_oneof![
        16 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        8 => (any::<u8>(), any::<u8>(), 1..=u8::MAX)
            .prop_map(|(key, value, ttl)| Step::PutFor(key, value, ttl)),
        2 => (any::<u8>(), prop::option::of(1..=u8::MAX)).prop_map(|(key, ttl)| Step::Touch(key, ttl)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Step::Update(key, value)),
        4 => any::<u8>().prop_map(Step::Wait),
        2 => any::<u8>().prop_map(Step::Sweep),
        8 => any::<u8>().prop_map(Step::Delete),
        4 => prop::collection::vec((any::<u8>(), any::<Option<u8>>()), 1..9).prop_map(Step::Batch),
        4 => Just(Step::Compact),
        3 => Just(Step::Snapshot),
        1 => any::<u8>().prop_map(Step::Forget),
        6 => look.prop_map(|(from, to, prefix, ends)| Step::Look { from, to, prefix, ends }),
        1 => any::<bool>().prop_map(|cut| Step::Reopen { cut }),
    ]
}

/// Takes records from both ends, as the bits of `ends` say, until they meet. What is not as in the
/// model, if anything is.
fn differs_in_order(
    mut range: RawLogRange<'_, Disk>,
    records: &Records,
    span: &Span,
    mut ends: u32,
) -> Option<String> {
    let mut expected = records.iter().filter(|(key, _)| span.has(key));
    loop {
        let (found, expected) = match ends & 1 {
            0 => (range.next(), expected.next()),
            _ => (range.next_back(), expected.next_back()),
        };
        ends = ends.rotate_right(1);
        let found = match found.transpose() {
            Ok(found) => found.map(|(key, value)| (key.to_vec(), value.to_vec())),
            Err(error) => return Some(error.to_string()),
        };
        let expected = expected.map(|(key, value)| (key.clone(), value.clone()));
        if found != expected {
            return Some(format!("{:?} in place of {:?}", found, expected));
        }
        found?;
    }
}

/// What a snapshot does not show as it was.
fn differs(snapshot: &LogSnapshot<'_, Disk>, records: &Records, ends: u32) -> Option<String> {
    let (mut found, mut twice) = (Records::new(), None);
    let shown = snapshot.for_each(|key, value| {
        if found.insert(key.to_vec(), value.to_vec()).is_some() {
            twice = Some(format!("{key:?} was shown twice"));
        }
    });
    if let Err(error) = shown {
        return Some(error.to_string());
    }
    if found != *records {
        return Some("the records are others".to_owned());
    }
    let wrong = (0..=u8::MAX).map(key).find(|key| {
        snapshot.get(key).ok().map(|value| value.map(|value| value.to_vec()))
            != Some(records.get(key).cloned())
    });
    if let Some(key) = wrong {
        return Some(format!("{key:?} has another value"));
    }
    if !snapshot.store().options.ordered {
        return twice;
    }
    let range = snapshot.range(&Span::ALL).ok()?;
    twice.or_else(|| differs_in_order(range, records, &Span::ALL, ends))
}

fn change(store: &RawLogStore<Disk>, model: &mut Model, step: &Step) {
    let now = model.now.load(Relaxed);
    let ms = |ttl: u8| Duration::from_millis(ttl.into());
    let live = |model: &Model, key: &[u8]| {
        model.records.get(key).filter(|(_, end)| *end == 0 || *end > now).cloned()
    };
    match step {
        Step::Put(number, seed) => {
            store.put(&key(*number), &value(*seed), Memory).unwrap();
            model.records.insert(key(*number), (value(*seed), 0));
        }
        Step::PutFor(number, seed, ttl) => {
            store.put_for(&key(*number), &value(*seed), Some(ms(*ttl)), Memory).unwrap();
            model.records.insert(key(*number), (value(*seed), now + u64::from(*ttl)));
        }
        Step::Touch(number, ttl) => {
            let end = ttl.map_or(0, |ttl| now + u64::from(ttl));
            let touched = store.touch(&key(*number), ttl.map(ms), Memory).unwrap();
            let known = live(model, &key(*number));
            assert_eq!(touched.is_some(), known.is_some());
            if let Some((value, _)) = known {
                model.records.insert(key(*number), (value, end));
                let left = ttl.map(ms);
                assert_eq!(store.left(&key(*number)).unwrap(), Some(left));
            }
        }
        Step::Update(number, seed) => {
            let known = live(model, &key(*number));
            let update = |old: Option<&[u8]>| {
                assert_eq!(old, known.as_ref().map(|(value, _)| &value[..]));
                Some(value(*seed))
            };
            store.update(&key(*number), Memory, update).unwrap();
            let end = known.as_ref().map_or(0, |(_, end)| *end);
            model.records.insert(key(*number), (value(*seed), end));
        }
        Step::Wait(ms) => {
            model.now.fetch_add(u64::from(*ms) / 4, Relaxed);
        }
        Step::Sweep(max) => {
            let ended = model.records.len() - model.live().len();
            let swept = store.sweep(usize::from(*max)).unwrap();
            // Which ones is not said, but that the rest stays hidden.
            assert!(swept <= ended as u64 && (swept > 0 || ended == 0 || *max == 0));
            if swept == ended as u64 {
                let live = model.live();
                model.records.retain(|key, _| live.contains_key(key));
            }
        }
        Step::Delete(number) => {
            let was_there = live(model, &key(*number)).is_some();
            assert_eq!(store.delete(&key(*number), Memory).unwrap().is_some(), was_there);
            if was_there {
                model.records.remove(&key(*number));
            }
        }
        Step::Batch(changes) => {
            let made: Vec<_> =
                changes.iter().map(|(number, seed)| (key(*number), seed.map(value))).collect();
            let shard = store.shard(&made[0].0).unwrap();
            let of_one = made.iter().filter(|(key, _)| store.shard(key).unwrap() == shard);
            let changes: Vec<Change<'_>> =
                of_one.map(|(key, value)| Change::of(key, value.as_deref())).collect();
            store.batch(&changes, Memory).unwrap();
            for change in changes {
                match change {
                    Change::Put(key, value) => {
                        model.records.insert(key.to_vec(), (value.to_vec(), 0))
                    }
                    Change::Delete(key) => model.records.remove(key),
                };
            }
        }
        _ => unreachable!("no change"),
    }
}

/// Runs one life of a store, up to its next opening; how many steps that were, or what was wrong.
fn live_on(store: &RawLogStore<Disk>, model: &mut Model, steps: &[Step]) -> Result<usize, String> {
    let mut snapshots: Vec<(LogSnapshot<'_, Disk>, Model)> = Vec::new();
    let fail = |wrong: Option<String>| wrong.map_or(Ok(()), Err);
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Compact => store.compact().map_err(|error| error.to_string())?,
            Step::Snapshot => snapshots.push((store.snapshot(), model.clone())),
            Step::Forget(which) => {
                if !snapshots.is_empty() {
                    let which = usize::from(*which) % snapshots.len();
                    drop(snapshots.swap_remove(which));
                }
            }
            Step::Look { from, to, prefix, ends } => {
                for (snapshot, then) in &snapshots {
                    fail(differs(snapshot, &then.live(), *ends))?;
                }
                let records = &model.live();
                fail(differs(&store.snapshot(), records, *ends))?;
                if store.options.ordered {
                    let between = Span::ALL.from(&key(*from)).before(&key(*to));
                    for span in [between, Span::ALL.prefix(&key(*prefix)[..1]), Span::ALL] {
                        let range = store.range(&span).unwrap();
                        fail(differs_in_order(range, records, &span, *ends))?;
                    }
                }
            }
            Step::Reopen { .. } => return Ok(at + 1),
            _ => change(store, model, step),
        }
    }
    for (snapshot, then) in &snapshots {
        fail(differs(snapshot, &then.live(), 0x5555_5555))?;
    }
    drop(snapshots);
    let is_kept = |shard: &Shard<Disk>| {
        let index: &Index<_> = &shard.index();
        !index.snapshots.is_empty()
    };
    assert!(!store.shards.iter().any(is_kept), "a snapshot that is gone is still served");
    Ok(steps.len())
}

fn run(steps: &[Step], shards: u32, ordered: bool) -> Result<(), String> {
    let disk = Disk::new(1);
    let options = options(shards, ordered);
    let (mut model, mut rest) = (Model::default(), steps);
    model.now.store(1, Relaxed);
    let clock = Arc::clone(&model.now);
    let timed = |store: RawLogStore<Disk>| {
        let now = Arc::clone(&clock);
        store.with_clock(move || now.load(Relaxed))
    };
    let mut store = timed(RawLogStore::create(disk.clone(), &options).unwrap());
    loop {
        let done = live_on(&store, &mut model, rest)?;
        let (lived, after) = rest.split_at(done);
        let Some(Step::Reopen { cut }) = lived.last() else { return Ok(()) };
        store.sync().unwrap();
        drop(store);
        if *cut {
            disk.power_cut();
        }
        store = timed(RawLogStore::open(disk.clone(), &options).unwrap());
        rest = after;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn v7_ranges_and_snapshots_are_those_of_copies_of_an_ordered_map(
        steps in prop::collection::vec(step(), 1..120),
        shards in 0..3_u32,
        ordered in any::<bool>(),
    ) {
        let wrong = run(&steps, 1 << shards, ordered);
        prop_assert_eq!(wrong, Ok(()));
    }
}

#[test]
fn every_planted_fault_is_found_by_the_model() {
    let look = || Step::Look { from: 0, to: 255, prefix: 0, ends: 1 };
    // Filled, so that the segment with what ends has become dead enough.
    let mut moved = vec![Step::PutFor(1, 1, 100)];
    moved.extend((0..40).flat_map(|_| [Step::Put(2, 255), Step::Put(3, 255)]));
    moved.extend([Step::Compact, Step::Wait(255), Step::Wait(255), look()]);
    let faults = [
        (Fault::SnapshotForgotten, vec![Step::Put(1, 1), Step::Snapshot, Step::Put(1, 2)]),
        (Fault::EndIgnored, vec![Step::PutFor(1, 1, 1), Step::Wait(4), look()]),
        (Fault::EndForgotten, moved),
    ];
    for (fault, steps) in faults {
        assert_eq!(run(&steps, 1, true), Ok(()));
        plant(Some(fault));
        let found = run(&steps, 1, true);
        plant(None);
        assert!(found.is_err(), "{fault:?} was not found");
    }
}

#[test]
fn a_snapshot_reads_what_compaction_has_removed_from_the_directory() {
    let store = RawLogStore::create(Disk::new(3), &options(1, false)).unwrap();
    let old = vec![7; 3_000];
    let put_all = |value: &[u8]| {
        for number in 0..40_u8 {
            store.put(&[number], value, Memory).unwrap();
        }
    };
    put_all(&old);
    let before = store.snapshot();
    for round in 0..3 {
        put_all(&[round]);
        store.compact().unwrap();
    }
    assert_eq!(store.stats()[0].segments, 1, "everything old is gone");
    let mut count = 0;
    before.for_each(|_, value| count += usize::from(value == old)).unwrap();
    assert_eq!(count, 40);
    assert_eq!(before.get(&[9]).unwrap().as_deref(), Some(&old[..]));
}

#[test]
fn a_snapshot_that_would_keep_too_much_says_so_and_the_store_goes_on() {
    let least = LogOptions { snapshot_bytes_max: 2 * 129, ..options(1, false) };
    let store = RawLogStore::create(Disk::new(4), &least).unwrap();
    let snapshot = store.snapshot();
    store.put(b"a", b"1", Memory).unwrap();
    store.put(b"b", b"1", Memory).unwrap();
    assert_eq!((snapshot.get(b"a").unwrap(), snapshot.kept_bytes()), (None, 2 * 129));
    store.put(b"c", b"1", Memory).unwrap();
    let lost = snapshot.get(b"a");
    assert!(matches!(lost, Err(Error::SnapshotLost { shard: 0, max: 258 })), "{lost:?}");
    assert_eq!(store.get(b"c").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn v6_while_writers_go_on_what_stays_is_shown_once_and_in_order() {
    let store = RawLogStore::create(Disk::new(5), &options(2, true)).unwrap();
    let key = |number: u32| number.to_be_bytes();
    for number in (0..800).step_by(2) {
        store.put(&key(number), &key(number), Memory).unwrap();
    }
    let is_done = AtomicBool::new(false);
    let mut odd = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = Rng::seeded(1);
            while !is_done.load(Relaxed) {
                let number = rng.below(800) as u32;
                if number % 2 == 1 && rng.below(2) == 0 {
                    store.delete(&key(number), Memory).unwrap();
                } else {
                    store.put(&key(number), &key(number), Memory).unwrap();
                }
                if rng.below(500) == 0 {
                    store.compact().unwrap();
                }
            }
        });
        for round in 0..30 {
            let range = store.range(&Span::ALL).unwrap().map(Result::unwrap);
            let mut shown: Vec<u32> = if round % 2 == 0 {
                range.map(|(key, _)| u32::from_be_bytes((&*key).try_into().unwrap())).collect()
            } else {
                range
                    .rev()
                    .map(|(key, _)| u32::from_be_bytes((&*key).try_into().unwrap()))
                    .collect()
            };
            if round % 2 == 1 {
                shown.reverse();
            }
            assert!(shown.is_sorted_by(|one, next| one < next));
            odd += shown.iter().filter(|number| **number % 2 == 1).count();
            shown.retain(|number| number % 2 == 0);
            assert_eq!(shown, (0..800).step_by(2).collect::<Vec<_>>());
        }
        is_done.store(true, Relaxed);
    });
    assert!(odd > 0, "the writers did nothing meanwhile");
}

#[test]
fn a_store_that_keeps_no_order_says_how_to_get_one() {
    let disk = Disk::new(6);
    let store = RawLogStore::create(disk.clone(), &options(1, false)).unwrap();
    store.put(b"b", b"1", Memory).unwrap();
    store.put(b"a", b"1", Memory).unwrap();
    assert!(matches!(store.range(&Span::ALL).err(), Some(Error::NotOrdered)));
    assert!(matches!(store.snapshot().range(&Span::ALL).err(), Some(Error::NotOrdered)));
    drop(store);
    // No file knows of it.
    let store = RawLogStore::open(disk, &options(1, true)).unwrap();
    let keys: Vec<_> = store.range(&Span::ALL).unwrap().map(|one| one.unwrap().0).collect();
    assert_eq!(keys, [Box::from(*b"a"), Box::from(*b"b")] as [Box<[u8]>; 2]);
}

#[test]
fn v8_a_watch_sees_writes_in_their_order_and_nothing_that_is_only_moved() {
    let store = RawLogStore::create(Disk::new(7), &options(1, false)).unwrap();
    let mut watch = store.watch(Span::ALL.prefix(b"k")).unwrap();
    for seed in 0..60_u8 {
        store.put(b"k1", &[seed], Memory).unwrap();
        store.put(b"other", &vec![seed; 2_000], Memory).unwrap();
    }
    store.put(b"k2", b"stays", Memory).unwrap();
    store.delete(b"k1", Memory).unwrap();
    let before = store.stats()[0].segments;
    store.compact().unwrap();
    assert!(store.stats()[0].segments < before, "nothing was compacted");
    let mut seen = Vec::new();
    while let Some(news) = watch.take().unwrap() {
        seen.push(match news {
            News::Put { key, value, .. } => (key, Some(value)),
            News::Deleted { key, .. } => (key, None),
            News::Missed => panic!("there was room"),
        });
    }
    let mut expected: Vec<_> = (0..60_u8).map(|seed| (b"k1".to_vec(), Some(vec![seed]))).collect();
    expected.push((b"k2".to_vec(), Some(b"stays".to_vec())));
    expected.push((b"k1".to_vec(), None));
    assert_eq!(seen, expected);
}

#[test]
fn a_value_that_is_too_long_for_a_watch_is_missed_and_the_next_one_is_seen() {
    let long = LogOptions { shards: 1, ..LogOptions::default() };
    let store = RawLogStore::create(Disk::new(8), &long).unwrap();
    let mut watch = store.watch(Span::ALL).unwrap();
    let most = WATCH_BYTES_MAX - 64 - 1;
    store.put(b"k", &vec![1; most], Memory).unwrap();
    assert!(matches!(watch.take().unwrap(), Some(News::Put { value, .. }) if value.len() == most));
    store.put(b"k", &vec![1; most + 1], Memory).unwrap();
    store.put(b"k", b"short", Memory).unwrap();
    assert_eq!(watch.take().unwrap(), Some(News::Missed));
    assert!(matches!(watch.take().unwrap(), Some(News::Put { value, .. }) if value == b"short"));
    assert_eq!(watch.take().unwrap(), None);
}

#[test]
fn v9_what_has_ended_is_removed_for_good_though_older_records_of_its_key_are_in_the_log() {
    let disk = Disk::new(9);
    let store = RawLogStore::create(disk.clone(), &options(1, false)).unwrap();
    let now = Arc::new(AtomicU64::new(1_000));
    let clock = Arc::clone(&now);
    let store = store.with_clock(move || clock.load(Relaxed));
    let mut watch = store.watch(Span::ALL).unwrap();
    for number in 0..200_u8 {
        store.put(&[number], &[1; 300], Memory).unwrap();
        store.put_for(&[number], &[2; 300], Some(Duration::from_millis(5)), Memory).unwrap();
    }
    now.fetch_add(5, Relaxed);
    assert_eq!(store.get(&[7]).unwrap(), None);
    assert_eq!((store.sweep(150).unwrap(), store.sweep(1_000).unwrap()), (150, 50));
    let mut deleted = 0;
    while let Some(news) = watch.take().unwrap() {
        deleted += usize::from(matches!(news, News::Deleted { .. }));
    }
    assert_eq!(deleted, 200);
    store.compact().unwrap();
    store.sync().unwrap();
    drop(store);
    disk.power_cut();
    // By a clock that was set back nothing returns either.
    let store = RawLogStore::open(disk, &options(1, false)).unwrap().with_clock(|| 0);
    store.for_each(|key, _| panic!("{key:?} is back")).unwrap();
    assert_eq!(store.stats()[0].records, 0);
}

#[test]
fn a_time_to_live_has_its_limits_and_the_longest_value_has_room_for_one() {
    let store = RawLogStore::create(Disk::new(10), &options(1, false)).unwrap().with_clock(|| 7);
    let ms = Duration::from_millis;
    for ttl in [ms(1), TTL_MAX] {
        store.put_for(b"k", b"v", Some(ttl), Memory).unwrap();
        assert_eq!(store.left(b"k").unwrap(), Some(Some(ttl)));
    }
    for ttl in [Duration::ZERO, Duration::from_nanos(999_999), TTL_MAX + ms(1), Duration::MAX] {
        let refused = store.put_for(b"k", b"v", Some(ttl), Memory);
        assert!(matches!(refused, Err(Error::OutOfLimits { .. })), "{ttl:?}");
    }
    let most = store.record_bytes_max() as usize - 1;
    store.put(b"k", &vec![1; most], Memory).unwrap();
    let refused = store.put_for(b"k", &vec![1; most], Some(ms(1)), Memory);
    assert!(matches!(refused, Err(Error::BatchTooLong { .. })), "{refused:?}");
    store.put_for(b"k", &vec![1; most - 8], Some(ms(1)), Memory).unwrap();
}
