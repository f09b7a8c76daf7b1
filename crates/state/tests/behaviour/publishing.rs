use crate::{Scratch, worker};
use mainstay_state::{Error, MultiTransaction, State, StateOptions};
use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

fn claims(state: &State<[u8]>) -> u32 {
    state.info().unwrap().subscribers.iter().map(|subscriber| subscriber.claims).sum()
}

#[test]
fn a_publisher_keeps_at_most_two_slots_and_gives_them_back() {
    let scratch = Scratch::new();
    let state: State<[u8]> = scratch.domain.writer("speed").unwrap();
    let mut publisher = state.publisher().unwrap();
    for version in 1..=100 {
        assert_eq!(publisher.publish(&[version as u8]).unwrap(), version);
        assert_eq!(&*state.read().unwrap(), &[version as u8]);
        assert!(claims(&state) <= 2);
    }
    drop(publisher);
    assert_eq!(claims(&state), 0);
}

#[test]
fn a_publisher_leaves_alone_what_is_being_read() {
    let scratch = Scratch::new();
    let state: State<[u8]> = scratch.domain.writer("speed").unwrap();
    let mut publisher = state.publisher().unwrap();
    let mut read = Vec::new();
    for version in 1..=20 {
        publisher.publish(&[version; 64]).unwrap();
        read.push((version, state.read().unwrap()));
    }
    for (version, snapshot) in &read {
        assert_eq!(&**snapshot, &[*version; 64]);
    }
    drop(read);
    assert!(claims(&state) <= 2);
}

#[test]
fn a_publisher_goes_on_after_the_commits_of_others() {
    let scratch = Scratch::new();
    let state: State<[u8]> = scratch.domain.writer("speed").unwrap();
    let mut publishers = [state.publisher().unwrap(), state.publisher().unwrap()];
    for round in 0..20_u8 {
        let first = u64::from(round) * 3;
        assert_eq!(publishers[0].publish(&[round]).unwrap(), first + 1);
        assert_eq!(publishers[1].publish(&[round, 1]).unwrap(), first + 2);
        assert_eq!(state.replace(&[round, 1, 2]).unwrap(), first + 3);
        assert_eq!(&*state.read().unwrap(), &[round, 1, 2]);
    }
}

#[test]
fn a_publisher_s_values_may_grow_and_shrink() {
    let scratch = Scratch::new();
    let state: State<[u8]> = scratch.domain.writer("speed").unwrap();
    let mut publisher = state.publisher().unwrap();
    // Longer than the slots are at first, and shorter again, three times each.
    for (turn, len) in [1, 4_096, 4_097, 7, 100_000, 1].into_iter().enumerate() {
        for again in 0..3 {
            let value = vec![(turn * 3 + again) as u8; len];
            publisher.publish(&value).unwrap();
            assert_eq!(*state.read().unwrap(), value[..]);
        }
    }
}

#[test]
fn a_publisher_goes_on_after_a_commit_of_several_states() {
    let scratch = Scratch::new();
    let (state, other): (State<[u8]>, State<[u8]>) =
        (scratch.domain.writer("speed").unwrap(), scratch.domain.writer("course").unwrap());
    let mut publisher = state.publisher().unwrap();
    for round in 1..=20_u8 {
        for again in 0..3 {
            publisher.publish(&[round, again]).unwrap();
        }
        let mut both = MultiTransaction::new();
        both.bytes_mut(&state).unwrap()[1] = 7;
        both.bytes_mut(&other).unwrap()[0] = round;
        both.commit().unwrap();
        assert_eq!(&*state.read().unwrap(), &[round, 7]);
    }
    assert_eq!(state.version().unwrap(), 80);
}

#[test]
fn who_waits_is_woken_by_a_publisher() {
    let scratch = Scratch::new();
    let state: State<[u8]> = scratch.domain.writer("speed").unwrap();
    let mut publisher = state.publisher().unwrap();
    for _ in 0..3 {
        publisher.publish(b"80").unwrap();
    }
    let mut watch = state.watch().unwrap();
    let (ready, is_ready) = mpsc::channel();
    let waiter = thread::spawn(move || {
        ready.send(()).unwrap();
        let start = Instant::now();
        let version = watch.wait(Duration::from_secs(20)).unwrap();
        (version, start.elapsed())
    });
    is_ready.recv().unwrap();
    thread::sleep(Duration::from_millis(30));
    publisher.publish(b"90").unwrap();
    let (version, waited) = waiter.join().unwrap();
    assert_eq!(version, Some(4));
    assert!(waited < Duration::from_secs(10), "not woken: {waited:?}");
    assert_eq!(scratch.domain.counters().wakes, 1, "woken, not by looking again");
}

#[test]
fn a_publisher_is_refused_what_a_writer_is_refused() {
    let scratch = Scratch::new();
    let options = StateOptions::new().size(8).size_limit(8);
    let state: State<[u8]> = options.writer(&scratch.domain, "speed").unwrap();
    let mut publisher = state.publisher().unwrap();
    for _ in 0..3 {
        publisher.publish(&[1; 8]).unwrap();
        assert!(matches!(publisher.publish(&[1; 9]), Err(Error::Size { wanted: 9, .. })));
        assert!(matches!(publisher.publish(&[]), Err(Error::Size { wanted: 0, .. })));
    }
    state.delete().unwrap();
    assert!(matches!(publisher.publish(&[1; 8]), Err(Error::Deleted { .. })));
}

#[test]
fn the_slots_of_a_publisher_that_was_killed_are_free_for_others() {
    let scratch = Scratch::new();
    let options = StateOptions::new().slots(3).slots_max(3);
    let state: State<[u8]> = options.writer(&scratch.domain, "speed").unwrap();
    let mut other = worker::start("publish_and_wait", &scratch);
    other.ready();
    let last = state.version().unwrap();
    other.kill();
    let mut publisher = state.publisher().unwrap();
    for version in 1..=10 {
        assert_eq!(publisher.publish(&[1]).unwrap(), last + version);
    }
}
