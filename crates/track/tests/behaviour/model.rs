//! The tracker beside a model: random writers, flushes, growth, lives that end, trackers that end.

use mainstay_pool::{Block, BlockId, Kind, PoolOptions};
use mainstay_track::{ChangeKind, Tracker, TrackerOptions};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    Allocate,
    Write {
        which: usize,
        at: usize,
        byte: u8,
    },
    /// Writes what is there already.
    Rewrite {
        which: usize,
    },
    Length {
        which: usize,
        len: usize,
    },
    Free {
        which: usize,
    },
    Flush,
    /// The tracker ends, and another begins.
    Again {
        compare: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0_usize..1_000;
    let step = prop_oneof![
        6 => Just(Step::Allocate),
        12 => (which.clone(), 0_usize..200, any::<u8>())
            .prop_map(|(which, at, byte)| Step::Write { which, at, byte }),
        2 => which.clone().prop_map(|which| Step::Rewrite { which }),
        2 => (which.clone(), 0_usize..=200).prop_map(|(which, len)| Step::Length { which, len }),
        3 => which.prop_map(|which| Step::Free { which }),
        6 => Just(Step::Flush),
        1 => any::<bool>().prop_map(|compare| Step::Again { compare }),
    ];
    proptest::collection::vec(step, 1..150)
}

/// What a block is to whoever watches: its data and the length in use.
type Seen = (Vec<u8>, usize);

fn now(held: &[Block]) -> BTreeMap<BlockId, Seen> {
    let seen = |block: &Block| {
        let mut data = vec![0; block.len()];
        block.read(0, &mut data).unwrap();
        (block.id(), (data, block.used_len()))
    };
    held.iter().map(seen).collect()
}

fn tracker(pool: &mainstay_pool::Pool, compare: bool) -> Tracker {
    let options = TrackerOptions::default();
    let options = if compare { options.compare() } else { options };
    options.track(pool).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn t1_t2_a_tracker_reports_what_a_model_says_and_nothing_else(steps in steps()) {
        let options = PoolOptions::new("test", 200).growth_step(8).reserve(64 << 20);
        let pool = options.create_memfd().unwrap();
        let mut held: Vec<Block> = Vec::new();
        let mut reported: BTreeMap<BlockId, Seen> = BTreeMap::new();
        let mut ours = Some(tracker(&pool, false));
        let mut latest = None;
        for step in steps.into_iter().chain([Step::Flush]) {
            let pick = |which: usize| (!held.is_empty()).then(|| which % held.len());
            match step {
                Step::Allocate => held.push(pool.allocate(Kind::Recoverable).unwrap()),
                Step::Write { which, at, byte } => {
                    if let Some(which) = pick(which) {
                        held[which].write(at, &[byte]).unwrap();
                    }
                }
                Step::Rewrite { which } => {
                    if let Some(which) = pick(which) {
                        let mut data = vec![0; 200];
                        held[which].read(0, &mut data).unwrap();
                        held[which].write(0, &data).unwrap();
                    }
                }
                Step::Length { which, len } => {
                    if let Some(which) = pick(which) {
                        held[which].set_used_len(len).unwrap();
                    }
                }
                Step::Free { which } => {
                    if let Some(which) = pick(which) {
                        held.swap_remove(which).free().unwrap();
                    }
                }
                Step::Flush => {
                    let flush = ours.as_ref().unwrap().flush().unwrap();
                    let model = now(&held);
                    let mut expected: Vec<(BlockId, ChangeKind)> = Vec::new();
                    for (id, seen) in &model {
                        match reported.get(id) {
                            None => expected.push((*id, ChangeKind::New)),
                            Some(before) if before != seen => {
                                expected.push((*id, ChangeKind::Written));
                            }
                            Some(_) => {}
                        }
                    }
                    // A life that ended is told, unless another has begun in its place.
                    let numbers: Vec<u32> = model.keys().map(|id| id.number).collect();
                    let gone = reported.keys().filter(|id| !numbers.contains(&id.number));
                    expected.extend(gone.map(|id| (*id, ChangeKind::Freed)));
                    expected.sort_by_key(|(id, _)| *id);
                    let mut told: Vec<_> =
                        flush.changes.iter().map(|change| (change.id, change.kind)).collect();
                    told.sort_by_key(|(id, _)| *id);
                    prop_assert_eq!(told, expected);
                    prop_assert!(flush.version.is_none() || flush.version > latest, "T3");
                    latest = flush.version.or(latest);
                    reported = model;
                }
                Step::Again { compare } => {
                    drop(ours.take());
                    let next = tracker(&pool, compare);
                    // T5: the next one reports at least what this one has not, and knows no more
                    // than the headers say: so what it reports first is taken as it is.
                    let flush = next.flush().unwrap();
                    let model = now(&held);
                    for (id, (data, _)) in &model {
                        let told = flush.changes.iter().any(|change| change.id == *id);
                        let differs = reported.get(id).is_none_or(|(before, _)| before != data);
                        prop_assert!(told || !differs, "T5: {id} differs and was not told");
                    }
                    latest = flush.version.or(latest);
                    reported = model;
                    ours = Some(next);
                }
            }
        }
    }
}
