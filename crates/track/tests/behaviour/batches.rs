//! A flush sees a batch all or not at all.

use crate::pool;
use mainstay_pool::{Error as PoolError, Kind};
use mainstay_track::{Error, Tracker, TrackerOptions};
use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::{Duration, Instant},
};

#[test]
fn a_flush_sees_all_of_a_batch_or_nothing() {
    let pool = pool(64);
    let (from, to) =
        (pool.allocate(Kind::Recoverable).unwrap(), pool.allocate(Kind::Recoverable).unwrap());
    let tracker = Tracker::new(&pool).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut value = 0_u64;
            while !stop.load(SeqCst) {
                value += 1;
                let share = tracker.lock_share().unwrap();
                from.write(0, &value.to_le_bytes()).unwrap();
                std::thread::yield_now();
                to.write(0, &value.to_le_bytes()).unwrap();
                tracker.unlock_share(share);
            }
            value
        });
        let (mut ours, mut both) = ([0_u32; 2], 0);
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end && both < 500 {
            let flush = tracker.flush().unwrap();
            for change in &flush.changes {
                ours[usize::from(change.id == to.id())] = change.checksum;
            }
            if !flush.changes.is_empty() {
                assert_eq!(ours[0], ours[1], "half a batch was seen");
                both += 1;
            }
        }
        stop.store(true, SeqCst);
        assert!(writer.join().unwrap() > 0 && both > 10, "{both}");
    });
}

#[test]
fn a_batch_that_does_not_end_is_told_and_loses_nothing() {
    let pool = pool(64);
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let options = TrackerOptions::default().batch_wait(Duration::from_millis(20));
    let tracker = options.track(&pool).unwrap();
    tracker.flush().unwrap();
    std::thread::scope(|scope| {
        let (open, opened) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (pool, block) = (&pool, &block);
        scope.spawn(move || {
            let _batch = pool.batch().unwrap();
            block.write(0, b"half").unwrap();
            open.send(()).unwrap();
            let _ = ended.recv();
        });
        opened.recv().unwrap();
        let refused = tracker.flush().unwrap_err();
        let expected = matches!(refused, Error::Pool(PoolError::BatchOpen { waited_ms: 20, .. }));
        assert!(expected, "{refused}");
        drop(end);
    });
    assert_eq!(tracker.flush().unwrap().changes.len(), 1, "T4");
}
