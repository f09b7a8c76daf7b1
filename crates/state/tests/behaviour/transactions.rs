use crate::Scratch;
use mainstay_state::{Error, RetryPolicy, State};

fn state(scratch: &Scratch) -> State<[u8]> {
    scratch.domain.writer("speed").unwrap()
}

#[test]
fn a_transaction_that_is_dropped_or_aborted_leaves_nothing() {
    let scratch = Scratch::new();
    let state = state(&scratch);
    for abort in [true, false] {
        let mut transaction = state.begin().unwrap();
        transaction.bytes_mut().unwrap()[0] = 1;
        if abort {
            transaction.abort()
        } else {
            drop(transaction)
        }
        assert_eq!((state.version().unwrap(), state.read().unwrap()[0]), (0, 0));
    }
    let info = state.info().unwrap();
    assert_eq!(info.subscribers[0].claims, 0);
}

#[test]
fn a_transaction_outlives_the_handle_it_came_from() {
    let scratch = Scratch::new();
    let handle = state(&scratch);
    let witness = scratch.domain.reader::<[u8]>("speed").unwrap();
    let mut transaction = handle.begin_kept().unwrap();
    drop(handle);
    transaction.bytes_mut().unwrap()[0] = 7;
    transaction.commit().unwrap();
    assert_eq!(witness.read().unwrap()[0], 7);
}

#[test]
fn two_transactions_without_writes_succeed_in_all_six_orders() {
    let scratch = Scratch::new();
    let state = state(&scratch);
    // First and second begin (B) and commit (C): every order in which each begins before it
    // commits.
    for order in
        ["1B 1C 2B 2C", "1B 2B 1C 2C", "1B 2B 2C 1C", "2B 2C 1B 1C", "2B 1B 2C 1C", "2B 1B 1C 2C"]
    {
        let mut open = [None, None];
        for step in order.split(' ') {
            let which = usize::from(step.starts_with('2'));
            if step.ends_with('B') {
                open[which] = Some(state.begin().unwrap());
            } else {
                assert_eq!(open[which].take().unwrap().commit().unwrap(), 0, "{order}");
            }
        }
    }
    assert_eq!(state.version().unwrap(), 0);
}

#[test]
fn a_committed_store_is_visible_an_uncommitted_one_is_not() {
    let scratch = Scratch::new();
    let (state, other) = (state(&scratch), state(&scratch));
    let mut transaction = state.begin().unwrap();
    transaction.bytes_mut().unwrap()[0] = 1;
    assert_eq!(other.read().unwrap()[0], 0);
    assert_eq!(state.read().unwrap()[0], 0);
    transaction.commit().unwrap();
    assert_eq!(other.read().unwrap()[0], 1);
}

#[test]
fn a_commit_without_changes_makes_no_new_version_and_wakes_nobody() {
    let scratch = Scratch::new();
    let state = state(&scratch);
    state.replace(b"80").unwrap();
    let mut watch = state.watch().unwrap();
    assert_eq!(state.begin().unwrap().commit().unwrap(), 1);
    assert_eq!(watch.wait(std::time::Duration::from_millis(20)).unwrap(), None);
    assert_eq!(scratch.domain.counters().wakes, 0);
}

#[test]
fn of_two_writers_the_first_to_commit_wins_and_the_second_is_told_conflict() {
    let scratch = Scratch::new();
    let state = state(&scratch);
    let (mut one, mut two) = (state.begin().unwrap(), state.begin().unwrap());
    one.bytes_mut().unwrap()[0] = 1;
    two.bytes_mut().unwrap()[0] = 2;
    two.commit().unwrap();
    assert!(matches!(one.commit(), Err(Error::Conflict { state }) if state == "speed"));
    assert_eq!(state.read().unwrap()[0], 2);
}

#[test]
fn the_loser_may_abort_without_an_error() {
    let scratch = Scratch::new();
    let state = state(&scratch);
    let mut loser = state.begin().unwrap();
    loser.bytes_mut().unwrap()[0] = 1;
    state.replace(b"other").unwrap();
    loser.abort();
    assert_eq!(&*state.read().unwrap(), b"other");
}

#[test]
fn a_value_that_came_back_to_what_it_was_conflicts_all_the_same() {
    let scratch = Scratch::new();
    let state = state(&scratch);
    state.replace(b"A").unwrap();
    let mut transaction = state.begin().unwrap();
    transaction.bytes_mut().unwrap()[0] = b'X';
    state.replace(b"B").unwrap();
    state.replace(b"A").unwrap();
    assert!(matches!(transaction.commit(), Err(Error::Conflict { .. })));
}

#[test]
fn a_commit_without_changes_succeeds_although_another_came_first() {
    let scratch = Scratch::new();
    let state = state(&scratch);
    state.replace(b"80").unwrap();
    let transaction = state.begin().unwrap();
    state.replace(b"90").unwrap();
    assert_eq!(&transaction.get().unwrap()[..2], b"80");
    assert_eq!(transaction.commit().unwrap(), 1, "the version it began with");
    assert_eq!((&*state.read().unwrap(), state.version().unwrap()), (&b"90"[..], 2));
    assert_eq!(scratch.domain.counters().conflicts, 0);
}

#[test]
fn a_commit_without_changes_says_that_the_state_was_deleted() {
    let scratch = Scratch::new();
    let state = state(&scratch);
    let transaction = state.begin().unwrap();
    state.delete().unwrap();
    assert!(matches!(transaction.commit(), Err(Error::Deleted { .. })));
}

#[test]
fn transact_tries_again_until_nobody_came_first() {
    let scratch = Scratch::new();
    let (state, other) = (state(&scratch), state(&scratch));
    let mut tries = 0;
    let result = state.transact(RetryPolicy::default(), |transaction| {
        tries += 1;
        if tries < 3 {
            other.replace(&[tries])?;
        }
        transaction.bytes_mut()?[0] += 100;
        Ok(tries)
    });
    assert_eq!((result.unwrap(), tries), (3, 3));
    assert_eq!(state.read().unwrap()[0], 102);
}

#[test]
fn transact_gives_up_when_its_policy_says_so() {
    let scratch = Scratch::new();
    let (state, other) = (state(&scratch), state(&scratch));
    let result = state.transact(RetryPolicy::new().tries(3), |transaction| {
        other.replace(b"first")?;
        transaction.bytes_mut()?[0] = 1;
        Ok(())
    });
    assert!(matches!(result, Err(Error::RetriesExhausted { tries: 3, .. })), "{result:?}");
}

#[test]
fn a_state_s_address_does_not_move_while_a_snapshot_is_held() {
    let scratch = Scratch::new();
    let state = state(&scratch);
    state.replace(b"80").unwrap();
    let snapshot = state.read().unwrap();
    let address = snapshot.as_ptr();
    for turn in 0..100_u8 {
        state.replace(&[turn; 9_000]).unwrap();
    }
    assert_eq!(snapshot.as_ptr(), address);
    assert_eq!(&*snapshot, b"80");
}

#[test]
fn several_snapshots_of_one_handle_are_each_of_their_own_version() {
    let scratch = Scratch::new();
    let state = state(&scratch);
    let snapshots: Vec<_> = (1..=20_u8)
        .map(|turn| {
            state.replace(&[turn]).unwrap();
            state.read().unwrap()
        })
        .collect();
    for (index, snapshot) in snapshots.iter().enumerate() {
        assert_eq!((snapshot.version(), snapshot[0]), (index as u64 + 1, index as u8 + 1));
    }
}
