//! Any steps, beside copies of an ordered map; and planted faults, which this has to find.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    Change,
    any::index::Index,
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
