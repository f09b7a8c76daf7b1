use crate::Scratch;
use mainstay_state::{
    Domain, Error, MultiTransaction, RetryPolicy, State, StateOptions,
    limits::STATES_PER_TRANSACTION, together,
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

fn states(scratch: &Scratch, count: usize) -> Vec<State<[u8]>> {
    let state = |index: usize| {
        StateOptions::new().size(8).writer(&scratch.domain, &format!("s{index}")).unwrap()
    };
    (0..count).map(state).collect()
}

#[test]
fn all_of_several_states_change_or_none() {
    let scratch = Scratch::new();
    let states = states(&scratch, 3);
    let mut all = MultiTransaction::new();
    for state in &states {
        all.bytes_mut(state).unwrap()[0] = 1;
    }
    states[1].replace(&[9; 8]).unwrap();
    assert!(matches!(all.commit(), Err(Error::Conflict { state }) if state == "s1"));
    assert_eq!(states[0].version().unwrap(), 0);
    assert_eq!(states[2].version().unwrap(), 0);
    let mut all = MultiTransaction::new();
    for state in &states {
        all.bytes_mut(state).unwrap()[0] = 1;
    }
    all.commit().unwrap();
    assert!(states.iter().all(|state| state.read().unwrap()[0] == 1));
}

#[test]
fn a_state_that_was_only_read_must_not_have_changed() {
    let scratch = Scratch::new();
    let states = states(&scratch, 2);
    let mut skewed = MultiTransaction::new();
    assert_eq!(skewed.get(&states[0]).unwrap()[0], 0);
    skewed.bytes_mut(&states[1]).unwrap()[0] = 1;
    states[0].replace(&[1; 8]).unwrap();
    assert!(matches!(skewed.commit(), Err(Error::Conflict { state }) if state == "s0"));
    assert_eq!(states[1].version().unwrap(), 0);
    // Unchanged, it does not get a new version either.
    let mut fine = MultiTransaction::new();
    assert_eq!(fine.get(&states[0]).unwrap()[0], 1);
    fine.bytes_mut(&states[1]).unwrap()[0] = 1;
    fine.commit().unwrap();
    assert_eq!((states[0].version().unwrap(), states[1].version().unwrap()), (1, 1));
}

#[test]
fn a_commit_of_several_without_changes_succeeds_although_they_have_changed() {
    let scratch = Scratch::new();
    let states = states(&scratch, 2);
    let mut both = MultiTransaction::new();
    assert_eq!(both.get(&states[0]).unwrap()[0], 0);
    assert_eq!(both.get(&states[1]).unwrap()[0], 0);
    states[0].replace(&[1; 8]).unwrap();
    states[1].replace(&[1; 8]).unwrap();
    both.commit().unwrap();
    assert_eq!((states[0].version().unwrap(), states[1].version().unwrap()), (1, 1));
    assert_eq!(scratch.domain.counters().conflicts, 0);
}

#[test]
fn a_transaction_of_several_does_not_get_to_see_two_instants() {
    let scratch = Scratch::new();
    let states = states(&scratch, 2);
    let mut both = MultiTransaction::new();
    assert_eq!(both.get(&states[0]).unwrap()[0], 0);
    states[0].replace(&[1; 8]).unwrap();
    assert!(matches!(both.get(&states[1]), Err(Error::Conflict { state }) if state == "s0"));
    // What it has seen is still there, and as it was.
    assert_eq!(both.get(&states[0]).unwrap()[0], 0);
    both.commit().unwrap();
}

#[test]
fn sixteen_states_fit_into_a_transaction_and_no_more() {
    let scratch = Scratch::new();
    let states = states(&scratch, STATES_PER_TRANSACTION + 1);
    let mut all = MultiTransaction::new();
    for state in &states[..STATES_PER_TRANSACTION] {
        all.bytes_mut(state).unwrap()[0] = 1;
    }
    let one_more = all.bytes_mut(&states[STATES_PER_TRANSACTION]);
    assert!(matches!(one_more, Err(Error::TooManyStates { max: 16 })));
    all.commit().unwrap();
    assert_eq!(states.iter().filter(|state| state.read().unwrap()[0] == 1).count(), 16);
}

#[test]
fn states_of_two_folders_are_refused() {
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let mine = states(&scratch, 1);
    let theirs = states(&other, 1);
    let mut both = MultiTransaction::new();
    both.bytes_mut(&mine[0]).unwrap();
    assert!(matches!(both.bytes_mut(&theirs[0]), Err(Error::OtherDomain { .. })));
}

#[test]
fn a_doomed_transaction_of_several_may_be_dropped() {
    let scratch = Scratch::new();
    let states = states(&scratch, 2);
    let mut doomed = MultiTransaction::new();
    doomed.bytes_mut(&states[0]).unwrap()[0] = 1;
    states[0].replace(&[2; 8]).unwrap();
    drop(doomed);
    assert_eq!(states[0].read().unwrap()[0], 2);
    assert_eq!(states[0].info().unwrap().subscribers[0].claims, 0);
}

#[test]
fn readers_of_several_states_never_see_two_instants() {
    let scratch = Scratch::new();
    let folder = scratch.domain.folder().to_owned();
    let _keep = states(&scratch, 2);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2_usize {
            let (folder, stop) = (&folder, &stop);
            scope.spawn(move || {
                let domain = Domain::open(folder).unwrap();
                let (one, two) = (domain.writer("s0").unwrap(), domain.writer("s1").unwrap());
                let (first, second): (&State<[u8]>, &State<[u8]>) =
                    if thread == 0 { (&one, &two) } else { (&two, &one) };
                while !stop.load(Ordering::Relaxed) {
                    MultiTransaction::transact(RetryPolicy::new().tries(u32::MAX), |both| {
                        let next = both.get(first)?[0].wrapping_add(1);
                        both.bytes_mut(first)?.fill(next);
                        both.bytes_mut(second)?.fill(next);
                        Ok(())
                    })
                    .unwrap();
                }
            });
        }
        let domain = Domain::open(&folder).unwrap();
        let (one, two) =
            (domain.reader::<[u8]>("s0").unwrap(), domain.reader::<[u8]>("s1").unwrap());
        let mut seen = std::collections::HashSet::new();
        let start = Instant::now();
        let mut reads = 0;
        // On a busy machine the threads may take turns.
        while (reads < 30_000 || seen.len() < 10) && start.elapsed() < Duration::from_secs(20) {
            let (one, two) = together((&one, &two)).unwrap();
            assert_eq!((&*one, one.version()), (&*two, two.version()));
            seen.insert(one.version());
            reads += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(seen.len() >= 10, "{}", seen.len());
    });
}

#[test]
fn more_threads_than_records_commit_several_states_at_once() {
    let scratch = Scratch::new();
    let _keep = states(&scratch, 2);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let [one, two]: [State<[u8]>; 2] =
                    ["s0", "s1"].map(|name| scratch.domain.writer(name).unwrap());
                for _ in 0..50 {
                    MultiTransaction::transact(RetryPolicy::new().tries(u32::MAX), |both| {
                        for state in [&one, &two] {
                            let bytes: &mut [u8] = both.bytes_mut(state)?;
                            let next = u64::from_le_bytes(bytes[..8].try_into().unwrap()) + 1;
                            bytes[..8].copy_from_slice(&next.to_le_bytes());
                        }
                        Ok(())
                    })
                    .unwrap();
                }
            });
        }
    });
    let state = scratch.domain.reader::<[u8]>("s0").unwrap();
    assert_eq!(u64::from_le_bytes(state.read().unwrap()[..8].try_into().unwrap()), 600);
}
