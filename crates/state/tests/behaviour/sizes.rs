use crate::Scratch;
use mainstay_state::{Error, State, StateOptions};

fn refused(result: Result<(), Error>) -> bool {
    matches!(result, Err(Error::Size { .. }))
}

#[test]
fn until_the_first_commit_the_size_may_be_anything() {
    let scratch = Scratch::new();
    let state: State<[u8]> = scratch.domain.writer("speed").unwrap();
    assert_eq!(state.size().unwrap(), 4_096);
    for size in [1, 100_000, 7] {
        state.set_size(size).unwrap();
        assert_eq!(state.size().unwrap(), size);
        assert_eq!(state.read().unwrap().len(), size);
    }
}

#[test]
fn after_the_first_commit_the_size_only_grows_and_what_is_added_is_zeros() {
    let scratch = Scratch::new();
    let state: State<[u8]> = scratch.domain.writer("speed").unwrap();
    state.set_size(4).unwrap();
    state.replace(b"1234").unwrap();
    assert!(refused(state.set_size(3)));
    state.set_size(10_000).unwrap();
    let snapshot = state.read().unwrap();
    assert_eq!((&snapshot[..4], snapshot.len()), (&b"1234"[..], 10_000));
    assert!(snapshot[4..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_slot_used_before_shows_nothing_of_what_was_in_it_when_a_version_grows() {
    let scratch = Scratch::new();
    let options = StateOptions::new().size(8).slots(3).slots_max(3);
    let state: State<[u8]> = options.writer(&scratch.domain, "speed").unwrap();
    for _ in 0..6 {
        state.replace(&[0xFF; 5_000]).unwrap();
    }
    for _ in 0..6 {
        state.replace(b"short").unwrap();
        let mut transaction = state.begin().unwrap();
        transaction.resize(5_000).unwrap();
        transaction.commit().unwrap();
        assert!(state.read().unwrap()[5..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn no_size_is_refused_and_none_past_the_limit() {
    let scratch = Scratch::new();
    let options = StateOptions::new().size_limit(10_000);
    let state: State<[u8]> = options.writer(&scratch.domain, "speed").unwrap();
    assert!(refused(state.set_size(0)));
    assert!(refused(state.set_size(10_001)));
    assert!(refused(state.replace(&[0; 10_001]).map(drop)));
    state.replace(&[1; 10_000]).unwrap();
}

#[test]
fn values_of_many_sizes_come_back_as_they_were() {
    let scratch = Scratch::new();
    let (writer, reader) =
        (scratch.domain.writer::<[u8]>("speed").unwrap(), scratch.domain.reader::<[u8]>("speed"));
    let reader = reader.unwrap();
    for exponent in 0..21 {
        for size in [(1_usize << exponent) - 1, 1 << exponent, (1 << exponent) + 1] {
            let value = vec![exponent as u8; size.max(1)];
            writer.replace(&value).unwrap();
            assert_eq!(*reader.read().unwrap(), value[..]);
            let mut copy = vec![0; value.len()];
            assert_eq!(reader.copy_to(&mut copy).unwrap().1, value.len());
            assert_eq!(copy, value);
        }
    }
}
