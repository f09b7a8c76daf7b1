use crate::{Scratch, worker};
use mainstay_state::{Error, StateOptions};
use std::time::{Duration, Instant};

#[test]
fn name_permissions_and_size_read_back_and_are_gone_after_unsubscribing() {
    let scratch = Scratch::new();
    let state = StateOptions::new().size(100).writer::<[u8]>(&scratch.domain, "speed").unwrap();
    assert_eq!((state.name(), state.is_writable(), state.size().unwrap()), ("speed", true, 100));
    let info = scratch.domain.info("speed").unwrap().unwrap();
    assert_eq!((info.size, info.subscribers.len()), (100, 1));
    drop(state);
    assert!(scratch.domain.info("speed").unwrap().is_none());
    assert!(scratch.state_files().is_empty());
}

#[test]
fn a_new_state_reads_as_zeros_at_version_0() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let snapshot = state.read().unwrap();
    assert_eq!((snapshot.version(), snapshot.len()), (0, 4_096));
    assert!(snapshot.iter().all(|byte| *byte == 0));
}

#[test]
fn of_a_writer_and_a_reader_either_may_leave_first() {
    for writer_first in [true, false] {
        let scratch = Scratch::new();
        let writer = scratch.domain.writer::<[u8]>("speed").unwrap();
        let reader = scratch.domain.reader::<[u8]>("speed").unwrap();
        writer.replace(b"80").unwrap();
        if writer_first {
            drop(writer);
            assert_eq!(&*reader.read().unwrap(), b"80");
        } else {
            drop(reader);
            assert_eq!(&*writer.read().unwrap(), b"80");
        }
    }
}

#[test]
fn two_writers_write_one_state() {
    let scratch = Scratch::new();
    let one = scratch.domain.writer::<[u8]>("speed").unwrap();
    let two = scratch.domain.writer::<[u8]>("speed").unwrap();
    assert_eq!(one.replace(b"1").unwrap(), 1);
    assert_eq!(two.replace(b"2").unwrap(), 2);
    assert_eq!(&*one.read().unwrap(), b"2");
}

#[test]
fn a_reader_that_leaves_destroys_nothing() {
    let scratch = Scratch::new();
    let writer = scratch.domain.writer::<[u8]>("speed").unwrap();
    writer.replace(b"80").unwrap();
    assert_eq!(worker::run("read_once", &scratch).output, "80");
    assert_eq!(&*writer.read().unwrap(), b"80");
    assert_eq!(writer.replace(b"90").unwrap(), 2);
}

#[test]
fn when_the_last_one_leaves_nothing_is_left_and_the_next_begins_with_zeros() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    state.replace(b"80").unwrap();
    let other = state.try_clone().unwrap();
    drop(state);
    assert_eq!(scratch.state_files().len(), 2);
    drop(other);
    assert!(scratch.state_files().is_empty());
    assert_eq!(scratch.domain.writer::<[u8]>("speed").unwrap().version().unwrap(), 0);
}

#[test]
fn when_all_were_killed_nothing_is_left_and_the_next_begins_with_zeros() {
    let scratch = Scratch::new();
    let mut workers = [0, 1].map(|_| worker::start("subscribe_and_wait", &scratch));
    workers.iter_mut().for_each(worker::Worker::ready);
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    state.replace(b"80").unwrap();
    workers.into_iter().for_each(worker::Worker::kill);
    // The same process, seen as a stranger: its files are looked at without a subscription.
    drop(state);
    assert!(scratch.domain.list().unwrap().is_empty());
    assert!(scratch.state_files().is_empty());
    assert_eq!(scratch.domain.writer::<[u8]>("speed").unwrap().version().unwrap(), 0);
}

#[test]
fn a_killed_subscriber_leaves_a_state_that_a_list_removes() {
    let scratch = Scratch::new();
    let mut worker = worker::start("subscribe_and_wait", &scratch);
    worker.ready();
    assert_eq!(scratch.domain.list().unwrap().len(), 1);
    worker.kill();
    assert!(scratch.domain.list().unwrap().is_empty());
    assert!(scratch.state_files().is_empty());
}

#[test]
fn a_name_is_never_seen_half_made() {
    let scratch = Scratch::new();
    let folder = scratch.domain.folder().to_owned();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                drop(scratch.domain.writer::<[u8]>("speed").unwrap());
            }
        });
        let start = Instant::now();
        let mut seen = 0;
        // On a busy machine the two may miss each other for a while.
        let enough = |seen| seen > 0 || start.elapsed() > Duration::from_secs(20);
        while start.elapsed() < Duration::from_millis(500) || !enough(seen) {
            match scratch.domain.reader::<[u8]>("speed") {
                Ok(reader) => {
                    assert_eq!(reader.read().unwrap().len(), 4_096);
                    seen += 1;
                }
                Err(Error::NotFound { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(seen > 0, "the state was never there in {}", folder.display());
    });
}

#[test]
fn claims_and_pins_of_the_dead_are_taken_back_and_those_of_the_living_are_not() {
    let scratch = Scratch::new();
    let options = StateOptions::new().slots(3).slots_max(3);
    let state = options.writer::<[u8]>(&scratch.domain, "speed").unwrap();
    state.replace(b"80").unwrap();
    let mut worker = worker::start("claim_and_pin", &scratch);
    worker.ready();
    let info = state.info().unwrap();
    let theirs = info.subscribers.iter().find(|s| s.pid == worker.pid()).unwrap();
    assert_eq!((theirs.claims, theirs.pins, theirs.alive), (1, 1, true));
    // One slot is current and pinned by it, one is claimed by it: one is left.
    state.replace(b"90").unwrap();
    let refused = state.replace(b"95");
    let pid = worker.pid();
    assert!(
        matches!(&refused, Err(Error::NoFreeSlot { holders, .. }) if holders.contains(&pid.to_string())),
        "{refused:?}"
    );
    worker.signal(libc::SIGSTOP);
    assert!(matches!(state.replace(b"95"), Err(Error::NoFreeSlot { .. })), "it is slow, not dead");
    worker.kill();
    for turn in 0..10_u8 {
        state.replace(&[turn]).unwrap();
    }
    let freed = state.scavenge().unwrap();
    assert!(freed.claims <= 1, "{freed:?}");
    let info = state.info().unwrap();
    assert_eq!(info.subscribers.iter().map(|s| s.claims + s.pins).sum::<u32>(), 0, "{info:?}");
}
