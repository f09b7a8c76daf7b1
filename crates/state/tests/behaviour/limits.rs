use crate::Scratch;
use mainstay_state::{
    Error, State, StateOptions,
    limits::{PIN_LINES, SIZE_LIMIT_MAX, SLOTS_MAX, SLOTS_MIN},
};

fn is_refused(options: &StateOptions) -> bool {
    let scratch = Scratch::new();
    let made = options.writer::<[u8]>(&scratch.domain, "speed");
    matches!(made, Err(Error::OptionRange { .. }))
}

#[test]
fn slots_are_from_3_to_64() {
    for slots in [SLOTS_MIN, SLOTS_MAX] {
        assert!(!is_refused(&StateOptions::new().slots(slots)));
    }
    assert!(is_refused(&StateOptions::new().slots(SLOTS_MIN - 1)));
    assert!(is_refused(&StateOptions::new().slots(SLOTS_MAX + 1)));
    assert!(is_refused(&StateOptions::new().slots(8).slots_max(7)));
    assert!(is_refused(&StateOptions::new().slots_max(SLOTS_MAX + 1)));
}

#[test]
fn a_size_limit_is_at_most_16_gib_and_a_size_at_most_its_limit() {
    assert!(!is_refused(&StateOptions::new().slots(3).slots_max(3).size_limit(SIZE_LIMIT_MAX)));
    assert!(is_refused(&StateOptions::new().size_limit(SIZE_LIMIT_MAX + 1)));
    assert!(is_refused(&StateOptions::new().size(0)));
    assert!(is_refused(&StateOptions::new().size(4_097).size_limit(4_096)));
}

#[test]
fn slots_are_added_while_all_are_in_use_up_to_the_limit() {
    let scratch = Scratch::new();
    let options = StateOptions::new().slots(3).slots_max(5);
    let state: State<[u8]> = options.writer(&scratch.domain, "speed").unwrap();
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut transaction = state.begin().unwrap();
        transaction.bytes_mut().unwrap()[0] = 1;
        open.push(transaction);
    }
    assert_eq!(state.info().unwrap().slots, 5);
    let mut one_more = state.begin().unwrap();
    assert!(matches!(one_more.bytes_mut(), Err(Error::NoFreeSlot { slots: 5, .. })));
    open.pop();
    one_more.bytes_mut().unwrap()[0] = 2;
    one_more.commit().unwrap();
}

#[test]
fn there_are_256_pin_lines_and_the_257th_handle_is_refused() {
    let scratch = Scratch::new();
    let state: State<[u8]> = scratch.domain.writer("speed").unwrap();
    let mut handles: Vec<_> = (1..PIN_LINES).map(|_| state.try_clone().unwrap()).collect();
    assert!(matches!(state.try_clone(), Err(Error::NoFreeLine { lines: 256, .. })));
    handles.pop();
    state.try_clone().unwrap();
}
