//! What the pool's monitors are told.

use crate::pool;
use mainstay_base::hlc::Version;
use mainstay_pool::{BlockId, Event, EventKind, Kind, Monitor, Pool};
use mainstay_track::{Error, Tracker};
use std::sync::{Arc, Mutex};

type Told = (EventKind, Option<BlockId>, Option<Version>);

#[derive(Default)]
struct Log(Mutex<Vec<Told>>);

impl Monitor for Log {
    fn event(&self, event: &Event<'_>) {
        let of_tracker = matches!(
            event.kind,
            EventKind::ShareChange | EventKind::BlockChange | EventKind::FlushCommit
        );
        if of_tracker {
            self.0.lock().unwrap().push((event.kind, event.block, event.version));
        }
    }
}

#[test]
fn monitors_are_told_of_extents_then_blocks_then_the_commit() {
    let pool = pool(64);
    let log = Arc::new(Log::default());
    pool.add_monitor(log.clone()).unwrap();
    let tracker = Tracker::new(&pool).unwrap();
    let (one, two) =
        (pool.allocate(Kind::Recoverable).unwrap(), pool.allocate(Kind::Recoverable).unwrap());
    let flush = tracker.flush().unwrap();
    let told = std::mem::take(&mut *log.0.lock().unwrap());
    let kinds: Vec<_> = told.iter().map(|(kind, ..)| *kind).collect();
    use EventKind::{BlockChange, FlushCommit, ShareChange};
    let blocks = kinds.iter().position(|kind| *kind == BlockChange).unwrap();
    assert!(kinds[..blocks].iter().all(|kind| *kind == ShareChange));
    assert_eq!(kinds[blocks..], [BlockChange, BlockChange, FlushCommit]);
    assert!(told[blocks..].iter().all(|(_, _, version)| *version == flush.version));
    let mut ids = [one.id(), two.id()];
    ids.sort();
    assert_eq!([told[blocks].1, told[blocks + 1].1], ids.map(Some));
    tracker.flush().unwrap();
    assert!(
        log.0.lock().unwrap().iter().all(|(kind, ..)| *kind != FlushCommit),
        "nothing to commit"
    );
}

/// Asks the tracker from inside of a callback.
struct Curious {
    tracker: Mutex<Option<Tracker>>,
    seen: Mutex<Vec<(bool, usize)>>,
}

impl Monitor for Curious {
    fn event(&self, event: &Event<'_>) {
        let tracker = self.tracker.lock().unwrap();
        if let (EventKind::BlockChange, Some(tracker)) = (event.kind, &*tracker) {
            let refused = matches!(
                tracker.flush(),
                Err(Error::Pool(mainstay_pool::Error::InsideMonitor { .. }))
            );
            let since = tracker.changes_since(&mainstay_track::ClockVector::default()).len();
            self.seen.lock().unwrap().push((refused, since));
        }
    }
}

#[test]
fn a_monitor_may_ask_the_tracker_and_is_refused_a_flush() {
    let pool = pool(64);
    let curious = Arc::new(Curious { tracker: Mutex::default(), seen: Mutex::default() });
    pool.add_monitor(curious.clone()).unwrap();
    let tracker = Tracker::new(&pool).unwrap();
    let _block = pool.allocate(Kind::Recoverable).unwrap();
    // The tracker that asks is the one that flushes, so it flushes in another thread.
    *curious.tracker.lock().unwrap() = Some(tracker);
    let worker = {
        let tracker = curious.tracker.lock().unwrap();
        let tracker = tracker.as_ref().unwrap();
        tracker.spawn(std::time::Duration::from_millis(1), |_| {}).unwrap()
    };
    worker.stop();
    assert_eq!(*curious.seen.lock().unwrap(), [(true, 1)]);
    drop(curious.tracker.lock().unwrap().take());
}

#[test]
fn a_pool_has_one_tracker_in_a_process_and_another_after_it() {
    let pool = pool(64);
    let tracker = Tracker::new(&pool).unwrap();
    assert!(matches!(Tracker::new(&pool), Err(Error::AlreadyTracked { .. })));
    assert!(matches!(mainstay_track::Watched::new(&pool), Err(Error::AlreadyTracked { .. })));
    drop(tracker);
    drop(Tracker::new(&pool).unwrap());
    let same = Pool::join_any_fd(pool.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let _one = Tracker::new(&pool).unwrap();
    assert!(Tracker::new(&same).is_ok(), "another mapping");
}

#[test]
fn a_block_of_another_pool_is_refused() {
    let (one, two) = (pool(64), pool(64));
    let tracker = Tracker::new(&one).unwrap();
    let block = two.allocate(Kind::Recoverable).unwrap();
    assert!(matches!(tracker.mark_dirty(&block), Err(Error::OtherPool { .. })));
}
