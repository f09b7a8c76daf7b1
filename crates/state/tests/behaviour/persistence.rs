use crate::{Scratch, worker};
use mainstay_state::{Domain, Error, Grade, MultiTransaction, State, StateOptions};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

#[test]
fn a_state_that_survives_processes_is_there_with_its_newest_version_after_a_kill() {
    let scratch = Scratch::new();
    let file = scratch.path().join("speed.durable");
    let options = StateOptions::new().persistent(&file, Grade::Process);
    drop(options.writer::<[u8]>(&scratch.domain, "speed").unwrap());
    let mut other = worker::start("persist_and_die", &scratch);
    other.ready();
    other.kill();
    let state = scratch.domain.reader::<[u8]>("speed").unwrap();
    assert_eq!(&*state.read().unwrap(), b"newest");
}

#[test]
fn a_state_that_survives_the_machine_begins_with_what_was_synced() {
    let scratch = Scratch::new();
    let file = scratch.path().join("speed.durable");
    let options = StateOptions::new().persistent(&file, Grade::Machine);
    let state = options.writer::<[u8]>(&scratch.domain, "speed").unwrap();
    state.replace(b"first").unwrap();
    state.replace(b"synced").unwrap();
    state.sync().unwrap();
    // After a power cut there is another, empty folder in memory.
    let later = Domain::open(scratch.path().join("after")).unwrap();
    let again = options.writer::<[u8]>(&later, "speed").unwrap();
    assert_eq!((&*again.read().unwrap(), again.version().unwrap()), (&b"synced"[..], 2));
}

#[test]
fn what_is_not_waited_for_is_synced_in_the_background() {
    let scratch = Scratch::new();
    let file = scratch.path().join("speed.durable");
    let options = StateOptions::new().persistent(&file, Grade::Machine);
    let state = options.writer::<[u8]>(&scratch.domain, "speed").unwrap();
    state.replace(b"in the background").unwrap();
    let start = std::time::Instant::now();
    let is_there =
        || std::fs::read(&file).unwrap().windows(17).any(|window| window == b"in the background");
    while !is_there() {
        assert!(start.elapsed().as_secs() < 10, "never synced");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Waits until the file has this.
fn wait_for(file: &Path, wanted: &[u8]) {
    let start = Instant::now();
    while !fs::read(file).is_ok_and(|bytes| bytes.ends_with(wanted)) {
        assert!(start.elapsed().as_secs() < 20, "never synced: {}", wanted.escape_ascii());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn d5_a_running_writer_syncs_once_somebody_else_has_asked_for_it() {
    let scratch = Scratch::new();
    let (state, file) = (scratch.domain.writer("speed").unwrap(), scratch.path().join("kept"));
    let mut publisher = State::<[u8]>::publisher(&state).unwrap();
    publisher.publish(b"before").unwrap();
    // Asks for it, and leaves: nobody but us is there to sync.
    assert_eq!(worker::run("ask_for_the_machine", &scratch).output, "asked");
    wait_for(&file, b"before");
    publisher.publish(b"after it was asked for").unwrap();
    wait_for(&file, b"after it was asked for");
    // And from then on, although nothing is armed any more.
    for turn in 0..3_u8 {
        state.replace(&[turn; 9]).unwrap();
        wait_for(&file, &[turn; 9]);
    }
}

#[test]
fn d5_a_writer_that_has_not_noticed_syncs_when_the_one_that_had_is_killed() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let file = scratch.path().join("kept");
    let mut other = worker::start("commit_once_and_stay", &scratch);
    other.ready();
    assert_eq!(worker::run("ask_for_the_machine", &scratch).output, "asked");
    other.go_on();
    wait_for(&file, b"of the other");
    // It arms the state ten times a second.
    thread::sleep(Duration::from_millis(500));
    other.kill();
    state.replace(b"of the survivor").unwrap();
    wait_for(&file, b"of the survivor");
}

#[test]
fn who_leaves_in_good_order_has_its_last_version_in_the_file() {
    let scratch = Scratch::new();
    let file = scratch.path().join("kept");
    for _ in 0..5 {
        assert_eq!(worker::run("commit_for_the_machine_and_leave", &scratch).output, "left");
        assert!(fs::read(&file).unwrap().ends_with(b"last words"));
        let state = scratch.domain.writer::<[u8]>("speed").unwrap();
        state.replace(b"others").unwrap();
        state.sync().unwrap();
    }
}

#[test]
fn two_states_changed_together_are_synced_together() {
    let scratch = Scratch::new();
    let states = ["one", "two"].map(|name| {
        let file = scratch.path().join(name);
        let options = StateOptions::new().size(1).persistent(file, Grade::Machine);
        options.writer::<[u8]>(&scratch.domain, name).unwrap()
    });
    let [one, two] = &states;
    for round in 0..20_u8 {
        for turn in 0..=round {
            let mut both = MultiTransaction::new();
            both.bytes_mut(one).unwrap()[0] = turn;
            both.bytes_mut(two).unwrap()[0] = turn;
            both.commit().unwrap();
        }
        one.sync().unwrap();
        let later = Domain::open(scratch.path().join(format!("after{round}"))).unwrap();
        let again = ["one", "two"].map(|name| {
            let options = StateOptions::new().persistent(scratch.path().join(name), Grade::Process);
            options.writer::<[u8]>(&later, name).unwrap()
        });
        let [one, two] = again.map(|state| state.read().unwrap()[0]);
        assert_eq!((one, two), (round, round));
    }
}

#[test]
fn a_second_path_is_refused_and_so_is_going_back() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    assert_eq!(state.persistence().unwrap(), None);
    let (file, other) = (scratch.path().join("a"), scratch.path().join("b"));
    state.set_persistent(&file, Grade::Process).unwrap();
    state.set_persistent(&file, Grade::Process).unwrap();
    let refused = state.set_persistent(&other, Grade::Process);
    assert!(matches!(refused, Err(Error::OtherPath { found, .. }) if found == file));
    state.set_persistent(&file, Grade::Machine).unwrap();
    assert!(matches!(state.set_persistent(&file, Grade::Process), Err(Error::OtherPath { .. })));
    assert_eq!(state.persistence().unwrap(), Some((file, Grade::Machine)));
    assert!(!other.exists());
}

#[test]
fn a_transient_state_cannot_be_synced() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    assert!(matches!(state.sync(), Err(Error::NotPermitted { .. })));
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_was() {
    let scratch = Scratch::new();
    let file = scratch.path().join("speed.durable");
    let options = StateOptions::new().persistent(&file, Grade::Process);
    drop(options.writer::<[u8]>(&scratch.domain, "speed").unwrap());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[70] ^= 0x10;
    std::fs::write(&file, &bytes).unwrap();
    let later = Domain::open(scratch.path().join("after")).unwrap();
    let refused = options.writer::<[u8]>(&later, "speed");
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[test]
fn a_folder_where_no_file_can_be_made_is_an_error_and_the_state_stays_transient() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let refused = state.set_persistent(scratch.path().join("missing/speed"), Grade::Machine);
    assert!(matches!(refused, Err(Error::Durable { .. })), "{refused:?}");
    assert_eq!(state.persistence().unwrap(), None);
}
