use crate::{Scratch, worker};
use mainstay_state::{Domain, Error, Grade, MultiTransaction, StateOptions};

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
