use crate::{Scratch, worker};
use mainstay_state::{Error, StateOptions};
use std::os::unix::process::ExitStatusExt;

#[test]
fn a_reader_of_a_missing_state_is_told_not_found_and_makes_nothing() {
    let scratch = Scratch::new();
    let missing = scratch.domain.reader::<[u8]>("speed");
    assert!(matches!(missing, Err(Error::NotFound { state }) if state == "speed"));
    assert!(scratch.state_files().is_empty());
}

#[test]
fn write_permission_grants_reading() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    assert_eq!(state.read().unwrap()[0], 0);
    assert!(state.is_writable());
}

#[test]
fn a_write_transaction_on_a_read_only_handle_is_not_permitted() {
    let scratch = Scratch::new();
    let writer = scratch.domain.writer::<[u8]>("speed").unwrap();
    let reader = scratch.domain.reader::<[u8]>("speed").unwrap();
    // In one process both share a mapping, which may be writable: what counts is another one.
    drop(reader);
    let answer = worker::run("read_only_handle", &scratch);
    assert_eq!(answer.output, "not permitted", "{answer:?}");
    drop(writer);
}

#[test]
fn a_write_transaction_on_a_read_only_handle_is_not_permitted_after_the_writer_left() {
    let scratch = Scratch::new();
    let writer = scratch.domain.writer::<[u8]>("speed").unwrap();
    let mut child = worker::start("read_only_handle_that_waits", &scratch);
    child.ready();
    drop(writer);
    assert_eq!(child.finish().output, "not permitted");
}

#[test]
fn storing_through_a_read_view_faults() {
    let scratch = Scratch::new();
    let writer = scratch.domain.writer::<[u8]>("speed").unwrap();
    writer.replace(b"80").unwrap();
    let answer = worker::run("wild_store", &scratch);
    assert_eq!(answer.status.signal(), Some(libc::SIGSEGV), "{answer:?}");
    assert_eq!(&*writer.read().unwrap(), b"80");
}

#[test]
fn a_reader_that_may_not_write_the_file_can_read_it() {
    let scratch = Scratch::new();
    let writer = StateOptions::new().mode(0o644).writer::<[u8]>(&scratch.domain, "speed").unwrap();
    writer.replace(b"80").unwrap();
    assert_eq!(worker::run("read_once", &scratch).output, "80");
}

#[test]
fn a_read_transaction_cannot_be_committed_and_stays_open_after_the_refusal() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    state.replace(b"80").unwrap();
    let reading = state.read().unwrap();
    assert!(matches!(reading.commit(), Err(Error::NotPermitted { .. })));
    assert_eq!(&*reading, b"80");
}

#[test]
fn permissions_that_leave_its_owner_nothing_are_refused_and_nothing_is_made() {
    for mode in [0, 0o400, 0o200, 0o066, 0o177] {
        let scratch = Scratch::new();
        let refused = StateOptions::new().mode(mode).writer::<[u8]>(&scratch.domain, "speed");
        assert!(matches!(refused, Err(Error::Permissions { mode: found, .. }) if found == mode));
        assert!(scratch.state_files().is_empty());
    }
}

#[test]
fn unknown_bits_of_permissions_are_refused_and_nothing_is_made() {
    for mode in [0o1_600, 0o4_600, 0o100_600, u32::MAX] {
        let scratch = Scratch::new();
        let refused = StateOptions::new().mode(mode).writer::<[u8]>(&scratch.domain, "speed");
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(&format!("{mode:#o}")) && text.contains("0o640"), "{text}");
        assert!(scratch.state_files().is_empty());
    }
    let scratch = Scratch::new();
    StateOptions::new().mode(0o777).writer::<[u8]>(&scratch.domain, "speed").unwrap();
}
