use crate::{Scratch, worker};
use mainstay_state::{
    Commit, CommitHook, Error, Hooked, MultiTransaction, RetryPolicy, State, StateOptions,
};
use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

type Told = Arc<Mutex<Vec<(String, u64, Vec<u8>)>>>;

/// A hook that writes down what it is told.
fn notes() -> (Told, impl CommitHook) {
    let told = Told::default();
    let notes = Arc::clone(&told);
    let hook = move |commit: &Commit<'_>| {
        let commit = (commit.state.to_owned(), commit.version, commit.value.to_vec());
        notes.lock().unwrap().push(commit);
    };
    (told, hook)
}

fn versions(told: &Told) -> Vec<u64> {
    told.lock().unwrap().iter().map(|(_, version, _)| *version).collect()
}

#[test]
fn a_hook_is_told_of_each_commit_that_succeeded_and_of_no_other() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let (told, hook) = notes();
    let hooked = Hooked::new(hook);
    hooked.replace(&state, b"one").unwrap();
    // Nothing changed: no new version.
    assert_eq!(hooked.commit(state.begin().unwrap()).unwrap(), 1);
    let mut loser = state.begin().unwrap();
    loser.bytes_mut().unwrap()[0] = b'x';
    let mut publisher = state.publisher().unwrap();
    hooked.publish(&mut publisher, b"two").unwrap();
    assert!(matches!(hooked.commit(loser), Err(Error::Conflict { .. })));
    assert!(matches!(hooked.replace(&state, b""), Err(Error::Size { .. })));
    let mut tries = 0;
    hooked
        .transact(&state, RetryPolicy::default(), |transaction| {
            tries += 1;
            if tries == 1 {
                state.replace(b"past the hook").unwrap();
            }
            transaction.resize(4)?;
            transaction.bytes_mut()?.copy_from_slice(b"four");
            Ok(())
        })
        .unwrap();
    let of = |version, value: &[u8]| ("speed".to_owned(), version, value.to_vec());
    assert_eq!(*told.lock().unwrap(), [of(1, b"one"), of(2, b"two"), of(4, b"four")]);
}

#[test]
fn a_hook_is_told_of_all_states_that_changed_together_and_not_of_those_only_read() {
    let scratch = Scratch::new();
    let states = ["a", "b", "c"].map(|name| scratch.domain.writer::<[u8]>(name).unwrap());
    let (told, hook) = notes();
    let hooked = Hooked::new(hook);
    hooked
        .transact_many(RetryPolicy::default(), |all| {
            all.get(&states[1])?;
            all.resize(&states[0], 1)?;
            all.resize(&states[2], 1)?;
            all.bytes_mut(&states[0])?[0] = 10;
            all.bytes_mut(&states[2])?[0] = 30;
            Ok(())
        })
        .unwrap();
    let mut one = MultiTransaction::new();
    one.resize(&states[1], 1).unwrap();
    hooked.commit_many(one).unwrap();
    hooked.commit_many(MultiTransaction::new()).unwrap();
    let mut seen = told.lock().unwrap().clone();
    seen[..2].sort();
    let of = |name: &str, value| (name.to_owned(), 1, vec![value]);
    assert_eq!(seen, [of("a", 10), of("c", 30), of("b", 0)]);
}

#[test]
fn o1_threads_that_commit_at_once_are_told_of_in_the_order_of_the_versions() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("count").unwrap();
    let (told, hook) = notes();
    let hooked = Hooked::new(hook);
    thread::scope(|scope| {
        for _ in 0..4 {
            let (hooked, state) = (hooked.clone(), state.try_clone().unwrap());
            scope.spawn(move || {
                for _ in 0..250 {
                    hooked
                        .transact(&state, RetryPolicy::new().tries(u32::MAX), |transaction| {
                            let bytes = transaction.bytes_mut()?;
                            bytes[0] = bytes[0].wrapping_add(1);
                            Ok(())
                        })
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(versions(&told), (1..=1_000).collect::<Vec<_>>());
    // O2: each was shown its own version, although others were committing.
    assert!(told.lock().unwrap().iter().all(|(_, version, value)| value[0] == *version as u8));
}

#[test]
fn o2_a_hook_is_shown_its_version_also_while_others_commit_past_it() {
    let scratch = Scratch::new();
    let options = StateOptions::new().size(8).slots(3).slots_max(3);
    let state: State<[u8]> = options.writer(&scratch.domain, "narrow").unwrap();
    let other = state.try_clone().unwrap();
    let shown = Arc::new(Mutex::new(None));
    let sees = Arc::clone(&shown);
    let hooked = Hooked::new(move |commit: &Commit<'_>| {
        let before = commit.value.to_vec();
        // One slot is the hook's, one the current version's: every commit takes the third.
        for turn in 0..20_u8 {
            other.replace(&[turn; 8]).unwrap();
        }
        *sees.lock().unwrap() = Some((before, commit.value.to_vec()));
    });
    let mut transaction = state.begin().unwrap();
    transaction.bytes_mut().unwrap().fill(77);
    hooked.commit(transaction).unwrap();
    assert_eq!(*shown.lock().unwrap(), Some((vec![77; 8], vec![77; 8])));
    assert_eq!(state.version().unwrap(), 21);
}

#[test]
fn a_hook_that_panics_takes_nothing_back_and_is_called_again() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let (told, mut hook) = notes();
    let hooked = Hooked::new(move |commit: &Commit<'_>| {
        hook.committed(commit);
        assert!(commit.version != 1, "as planned");
    });
    let panicked = thread::scope(|scope| {
        let (hooked, state) = (hooked.clone(), state.try_clone().unwrap());
        scope.spawn(move || hooked.replace(&state, b"80")).join()
    });
    assert!(panicked.is_err());
    assert_eq!(&*state.read().unwrap(), b"80");
    hooked.replace(&state, b"90").unwrap();
    assert_eq!(versions(&told), [1, 2]);
}

#[test]
fn a_follower_is_told_of_commits_of_other_processes_and_never_twice_of_one() {
    let scratch = Scratch::new();
    // As the writer makes it.
    let options = StateOptions::new().size(64).slots(6).slots_max(8);
    let state = options.writer::<[u8]>(&scratch.domain, "speed").unwrap();
    let (told, hook) = notes();
    let follower = state.follow(Duration::ZERO, hook).unwrap();
    let writer = worker::start("count", &scratch);
    let count: u64 = writer.finish().output.parse().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while versions(&told).last() != Some(&count) {
        assert!(Instant::now() < until, "told of {:?}, not of {count}", versions(&told).last());
        thread::sleep(Duration::from_millis(1));
    }
    follower.stop().unwrap();
    let told = told.lock().unwrap();
    assert!(told.windows(2).all(|pair| pair[0].1 < pair[1].1), "not in order, or twice");
    for (_, version, value) in told.iter() {
        assert!(value.chunks_exact(8).all(|word| word == version.to_le_bytes()), "torn");
    }
}

#[test]
fn a_follower_keeps_its_interval_beside_a_flat_out_writer() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let (sender, told) = mpsc::channel();
    let interval = Duration::from_millis(50);
    let hook = move |_: &Commit<'_>| sender.send(Instant::now()).unwrap();
    let follower = state.follow(interval, hook).unwrap();
    let (start, mut at) = (Instant::now(), Vec::new());
    while at.len() < 8 {
        state.replace(&[1; 8]).unwrap();
        at.extend(told.try_iter());
        assert!(start.elapsed().as_secs() < 60, "{} calls", at.len());
    }
    follower.stop().unwrap();
    // The interval counts from the moment when a version was there to be told of. That is after the
    // call before, however late on a busy machine the call itself comes.
    assert!(at.windows(3).all(|calls| calls[2] - calls[0] >= interval), "{at:?}");
}

#[test]
fn a_follower_may_be_dropped_by_its_own_hook() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let place = Arc::new(Mutex::new(None));
    let own = Arc::clone(&place);
    let (sender, told) = mpsc::channel();
    let hook = move |commit: &Commit<'_>| {
        drop(own.lock().unwrap().take());
        sender.send(commit.version).unwrap();
    };
    *place.lock().unwrap() = Some(state.follow(Duration::ZERO, hook).unwrap());
    state.replace(b"80").unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(1));
    // Its thread has ended, and with it the hook.
    assert!(told.recv_timeout(Duration::from_secs(20)).is_err());
}
