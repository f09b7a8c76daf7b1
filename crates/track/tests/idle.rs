//! Z2, in a process of its own: what a waiter costs while nothing is written.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

use mainstay_pool::{Kind, PoolOptions};
use mainstay_track::{Method, Tracker};
use std::{fs, time::Duration};

/// Time that the waiter's thread has run, in ns.
fn run_time() -> u64 {
    let task = fs::read_dir("/proc/self/task").unwrap().find_map(|task| {
        let path = task.unwrap().path();
        let name = fs::read_to_string(path.join("comm")).unwrap();
        (name.trim() == "track-wait").then_some(path)
    });
    let stat = fs::read_to_string(task.unwrap().join("schedstat")).unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn z2_while_nothing_is_written_a_waiter_takes_no_time_worth_counting() {
    let pool = PoolOptions::new("test", 4_096).create_memfd().unwrap();
    let blocks: Vec<_> = (0..1_000).map(|_| pool.allocate(Kind::Recoverable).unwrap()).collect();
    let tracker = Tracker::new(&pool).unwrap();
    if tracker.method() != Method::Pages {
        println!("skipped: {}", tracker.refusal().unwrap());
        return;
    }
    tracker.flush().unwrap();
    let waiter = tracker.waiter(Duration::from_millis(1)).unwrap();
    assert!(!waiter.wait_timeout(Duration::from_millis(100)));
    let before = run_time();
    assert!(!waiter.wait_timeout(Duration::from_secs(1)), "nothing was written");
    let spent = run_time() - before;
    println!("{spent} ns in a second with a latency of 1 ms");
    assert!(spent < 50_000_000, "5 % of a processor: {spent} ns");
    // Fired: until the next flush it sleeps.
    blocks[0].write(0, b"x").unwrap();
    assert!(waiter.wait_timeout(Duration::from_secs(20)));
    std::thread::sleep(Duration::from_millis(20));
    let before = run_time();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(run_time(), before, "it does not run at all");
}
