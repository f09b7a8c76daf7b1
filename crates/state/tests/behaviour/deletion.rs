use crate::{Scratch, worker};
use mainstay_state::{Error, Grade};

#[test]
fn deleting_is_refused_while_another_process_is_subscribed() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let mut other = worker::start("subscribe_and_wait", &scratch);
    other.ready();
    let refused = state.delete();
    assert!(matches!(refused, Err(Error::InUse { pid, .. }) if pid == other.pid()), "{refused:?}");
    state.replace(b"80").unwrap();
    other.kill();
    state.delete().unwrap();
}

#[test]
fn after_deletion_every_use_fails_with_deleted() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let reader = scratch.domain.reader::<[u8]>("speed").unwrap();
    let mut open = state.begin().unwrap();
    open.bytes_mut().unwrap()[0] = 1;
    let mut watch = reader.watch().unwrap();
    state.delete().unwrap();
    let is_deleted = |error: &Error| matches!(error, Error::Deleted { .. });
    assert!(is_deleted(&open.commit().unwrap_err()));
    assert!(is_deleted(&state.read().unwrap_err()));
    assert!(is_deleted(&reader.read().unwrap_err()));
    assert!(is_deleted(&reader.copy_to(&mut [0; 4]).unwrap_err()));
    assert!(is_deleted(&state.begin().unwrap_err()));
    assert!(is_deleted(&state.replace(b"80").unwrap_err()));
    assert!(is_deleted(&state.delete().unwrap_err()));
    assert!(is_deleted(&watch.news().unwrap_err()));
    assert!(scratch.state_files().is_empty());
}

#[test]
fn a_new_state_of_a_deleted_name_is_another_one() {
    let scratch = Scratch::new();
    let old = scratch.domain.writer::<[u8]>("speed").unwrap();
    old.replace(b"80").unwrap();
    old.delete().unwrap();
    let new = scratch.domain.writer::<[u8]>("speed").unwrap();
    assert_eq!(new.version().unwrap(), 0);
    assert!(old.read().is_err());
    drop(old);
    assert_eq!(new.replace(b"90").unwrap(), 1);
    assert_eq!(scratch.state_files().len(), 2);
}

#[test]
fn deleting_a_persistent_state_removes_its_file() {
    let scratch = Scratch::new();
    let file = scratch.path().join("speed.durable");
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    state.set_persistent(&file, Grade::Machine).unwrap();
    assert!(file.exists());
    state.delete().unwrap();
    assert!(!file.exists());
}
