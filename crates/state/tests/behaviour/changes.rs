use crate::{Scratch, waking::refuse_io_uring, worker};
use futures_core::{FusedStream, Stream};
use mainstay_state::{Changes, Error};
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(20);

struct Unpark {
    thread: Thread,
    wakes: AtomicU32,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, SeqCst);
        self.thread.unpark();
    }
}

fn waker() -> (Arc<Unpark>, Waker) {
    let unpark = Arc::new(Unpark { thread: thread::current(), wakes: AtomicU32::new(0) });
    (Arc::clone(&unpark), Waker::from(unpark))
}

/// The smallest runtime there is. A task that is not woken in time is a failure.
fn block_on<F: Future>(future: F) -> F::Output {
    let (unpark, waker) = waker();
    let mut future = pin!(future);
    let start = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while unpark.wakes.swap(0, SeqCst) == 0 {
            assert!(start.elapsed() < PATIENCE, "never woken");
            thread::park_timeout(Duration::from_millis(100));
        }
    }
}

fn poll(changes: &mut Changes<[u8]>, waker: &Waker) -> Poll<Option<Result<u64, Error>>> {
    Pin::new(changes).poll_next(&mut Context::from_waker(waker))
}

#[test]
fn a_stream_is_woken_by_a_commit_of_another_process() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let mut changes = state.changes().unwrap();
    let (unpark, waker) = waker();
    assert!(poll(&mut changes, &waker).is_pending());
    let writer = worker::start("persist_and_die", &scratch);
    let version = block_on(changes.next()).unwrap().unwrap();
    assert_eq!((version, &*changes.read().unwrap()), (1, &b"newest"[..]));
    writer.kill();
    // The waker of the first poll was replaced by those of the later ones.
    assert!(unpark.wakes.load(SeqCst) <= 1);
}

#[test]
fn each_item_is_newer_and_the_last_commit_is_always_told() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let mut changes = scratch.domain.reader::<[u8]>("speed").unwrap().changes().unwrap();
    let commits = 20_000;
    let writer = thread::spawn(move || {
        for turn in 0..commits {
            state.replace(&u64::to_le_bytes(turn)).unwrap();
        }
        state
    });
    let mut last = 0;
    while last < commits {
        let version = block_on(changes.next()).unwrap().unwrap();
        assert!(version > last, "{version} after {last}");
        last = version;
    }
    drop(writer.join().unwrap());
}

#[test]
fn what_a_dropped_future_would_have_returned_the_next_one_returns() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let mut changes = state.changes().unwrap();
    let (unpark, waker) = waker();
    {
        let mut next = pin!(changes.next());
        assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        state.replace(b"80").unwrap();
        let start = Instant::now();
        while unpark.wakes.load(SeqCst) == 0 {
            assert!(start.elapsed() < PATIENCE, "never woken");
            thread::park_timeout(Duration::from_millis(100));
        }
        // Woken, and dropped before it was polled again: as `select!` does.
    }
    assert_eq!(block_on(changes.next()).unwrap().unwrap(), 1);
    assert!(poll(&mut changes, &waker).is_pending());
}

#[test]
fn a_stream_with_a_pace_keeps_it_beside_a_flat_out_writer() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let interval = Duration::from_millis(60);
    let mut changes = state.changes().unwrap().at_most_every(interval);
    let enough = Arc::new(AtomicBool::new(false));
    let is_enough = Arc::clone(&enough);
    let writer = thread::spawn(move || {
        while !is_enough.load(SeqCst) {
            state.replace(&[1; 8]).unwrap();
        }
        state
    });
    let (mut told, mut last) = (Vec::new(), 0);
    while told.len() < 5 {
        let mut before = Instant::now();
        let item = block_on(poll_fn(|context| {
            before = Instant::now();
            Pin::new(&mut changes).poll_next(context)
        }));
        told.push((before, Instant::now()));
        let version = item.unwrap().unwrap();
        assert!(version > last);
        last = version;
    }
    // Each was told between its two instants, however long those are apart on a busy machine.
    let is_kept = |pair: &[(Instant, Instant)]| pair[1].1 - pair[0].0 >= interval;
    assert!(told.windows(2).all(is_kept), "{told:?}");
    enough.store(true, SeqCst);
    let state = writer.join().unwrap();
    // And what came last is told, although nobody commits any more.
    let newest = state.version().unwrap();
    while last < newest {
        last = block_on(changes.next()).unwrap().unwrap();
    }
}

#[test]
fn a_stream_of_a_deleted_state_ends_after_the_error_that_says_so() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let mut changes = state.changes().unwrap();
    let (_, waker) = waker();
    assert!(poll(&mut changes, &waker).is_pending());
    state.delete().unwrap();
    assert!(matches!(block_on(changes.next()), Some(Err(Error::Deleted { .. }))));
    assert!(changes.is_terminated());
    assert!(block_on(changes.next()).is_none());
}

#[test]
fn streams_of_two_threads_are_all_woken_by_one_commit_also_without_io_uring() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let domain = &scratch.domain;
    thread::scope(|scope| {
        scope.spawn(move || {
            // The filter is this thread's own, and that of threads it starts.
            refuse_io_uring();
            let reader = domain.reader::<[u8]>("speed").unwrap();
            // A state has 256 pin lines.
            let mut all: Vec<_> = (0..240).map(|_| reader.changes().unwrap()).collect();
            let (_, waker) = waker();
            assert!(all.iter_mut().all(|changes| poll(changes, &waker).is_pending()));
            state.replace(b"to all").unwrap();
            for changes in &mut all {
                assert_eq!(block_on(changes.next()).unwrap().unwrap(), 1);
            }
        });
    });
}

#[test]
fn a_stream_that_was_told_and_is_not_polled_again_costs_a_writer_nothing() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let mut changes = state.changes().unwrap();
    let (unpark, waker) = waker();
    assert!(poll(&mut changes, &waker).is_pending());
    let wakes = || scratch.domain.counters().wakes;
    let start = Instant::now();
    while unpark.wakes.load(SeqCst) == 0 {
        state.replace(b"80").unwrap();
        assert!(start.elapsed() < PATIENCE, "never woken");
        thread::yield_now();
    }
    let before = wakes();
    for _ in 0..20_000 {
        state.replace(b"90").unwrap();
    }
    // At most one that the thread had armed the state for before it rang.
    assert!(wakes() - before <= 1, "{} wake-ups for nobody", wakes() - before);
    assert_eq!(unpark.wakes.load(SeqCst), 1);
}
