//! T3, and what a remote asks.

use crate::{blocks, pool};
use mainstay_base::hlc::{NodeId, Stamp, Version};
use mainstay_pool::Kind;
use mainstay_track::{ChangeKind, ClockVector, Error, Tracker, TrackerOptions};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

#[test]
fn t3_versions_grow_from_flush_to_flush_also_when_the_clock_goes_back() {
    let pool = pool(64);
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let now = Arc::new(AtomicU64::new(1 << 60));
    let clock = now.clone();
    let options = TrackerOptions::default().node(NodeId::new(9));
    let tracker = options.wall(move || clock.load(SeqCst)).track(&pool).unwrap();
    let mut last = None;
    for (value, time) in [1 << 60, (1 << 60) + (1 << 30), 1 << 50, 1 << 50].into_iter().enumerate()
    {
        now.store(time, SeqCst);
        block.write(0, &[value as u8 + 1]).unwrap();
        let flush = tracker.flush().unwrap();
        assert!(flush.version > last);
        assert_eq!(flush.version.unwrap().node, NodeId::new(9));
        assert!(flush.changes.iter().all(|change| Some(change.version) == flush.version));
        last = flush.version;
    }
    assert_eq!(Some(tracker.last()), last.map(|version| version.stamp));
}

#[test]
fn a_peer_that_asks_what_changed_since_gets_exactly_that() {
    let pool = pool(64);
    let blocks = blocks(&pool, 50);
    let tracker = Tracker::new(&pool).unwrap();
    tracker.flush().unwrap();
    let peer = NodeId::new(7);
    assert_eq!(tracker.changes_for(peer).len(), 50);
    tracker.acknowledge(peer, &tracker.vector().unwrap()).unwrap();
    blocks[3].write(0, b"x").unwrap();
    tracker.flush().unwrap();
    blocks[3].write(0, b"y").unwrap();
    blocks[40].write(0, b"x").unwrap();
    let gone = blocks[41].id();
    blocks.into_iter().nth(41).unwrap().free().unwrap();
    tracker.flush().unwrap();
    let changes = tracker.changes_for(peer);
    assert_eq!(changes.len(), 3, "each block once, with its last change: {changes:?}");
    assert!(changes.iter().any(|c| c.id == gone && c.kind == ChangeKind::Freed));
    assert!(changes.is_sorted_by_key(|change| change.version));
    assert_eq!(tracker.changes_for(NodeId::new(8)).len(), 50, "who never acknowledged gets all");
}

#[test]
fn what_was_received_is_not_reported_as_ours_but_its_next_change_is() {
    let pool = pool(64);
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let tracker = TrackerOptions::default().wall(|| 1 << 60).track(&pool).unwrap();
    tracker.flush().unwrap();
    block.write(0, b"from afar").unwrap();
    let theirs = Version { stamp: Stamp::from_ns((1 << 60) + (1 << 20)), node: NodeId::new(5) };
    tracker.adopt(&block, theirs).unwrap();
    assert!(tracker.flush().unwrap().changes.is_empty());
    assert!(tracker.vector().unwrap().covers(theirs));
    block.write(0, b"ours").unwrap();
    let flush = tracker.flush().unwrap();
    assert!(flush.version.unwrap() > theirs, "above what was received");
    let wrong = Version { stamp: Stamp::from_ns(1 << 61), node: NodeId::new(5) };
    assert!(matches!(tracker.adopt(&block, wrong), Err(Error::Clock(_))));
}

#[test]
fn a_peer_too_many_is_refused() {
    let pool = pool(64);
    let tracker = Tracker::new(&pool).unwrap();
    let has = ClockVector::default();
    for peer in 0..mainstay_track::limits::NODES_MAX as u64 {
        tracker.acknowledge(NodeId::new(peer), &has).unwrap();
    }
    assert!(matches!(
        tracker.acknowledge(NodeId::new(u64::MAX), &has),
        Err(Error::Limit { what: "number of peers", .. })
    ));
}
