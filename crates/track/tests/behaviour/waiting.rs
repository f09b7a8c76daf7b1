//! Z1 to Z3: waiting for something to flush.

use crate::pool;
use mainstay_pool::Kind;
use mainstay_track::{Method, Tracker};
use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

fn is_readable(fd: impl AsFd) -> bool {
    let mut poll = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut poll, Some(&now)).unwrap() > 0
}

#[test]
fn z1_a_write_wakes_within_the_latency_and_a_flush_resets() {
    let pool = pool(64);
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let tracker = Tracker::new(&pool).unwrap();
    tracker.flush().unwrap();
    let latency = Duration::from_millis(5);
    let waiter = tracker.waiter(latency).unwrap();
    if tracker.method() == Method::Pages {
        // Other page faults of this process may cause a look, but no wake-up.
        assert!(!waiter.wait_timeout(20 * latency), "nothing was written");
        assert!(!is_readable(&waiter));
    }
    for value in 1..20_u8 {
        block.write(0, &[value]).unwrap();
        let start = Instant::now();
        assert!(waiter.wait_timeout(Duration::from_secs(20)), "Z1");
        // The machine may be busy; a latency that is not kept at all would still show.
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(is_readable(&waiter));
        assert_eq!(tracker.flush().unwrap().changes.len(), 1);
        assert!(!is_readable(&waiter) || tracker.method() == Method::Compare);
    }
}

#[test]
fn a_future_wakes_too() {
    use std::{
        future::Future,
        pin::pin,
        sync::{Arc, mpsc},
        task::{Context, Wake, Waker},
    };
    struct Send(mpsc::Sender<()>);
    impl Wake for Send {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }
    let pool = pool(64);
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let tracker = Tracker::new(&pool).unwrap();
    tracker.flush().unwrap();
    let waiter = tracker.waiter(Duration::from_millis(1)).unwrap();
    let (sender, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(Send(sender)));
    let mut wait = pin!(waiter.wait());
    if tracker.method() == Method::Pages {
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    block.write(0, b"x").unwrap();
    while wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        woken.recv_timeout(Duration::from_secs(20)).expect("it is woken");
    }
}

#[test]
fn a_life_that_ends_or_a_length_that_changes_wakes_as_well() {
    let pool = pool(64);
    let (one, two) =
        (pool.allocate(Kind::Recoverable).unwrap(), pool.allocate(Kind::Recoverable).unwrap());
    let tracker = Tracker::new(&pool).unwrap();
    tracker.flush().unwrap();
    let waiter = tracker.waiter(Duration::from_millis(1)).unwrap();
    one.set_used_len(3).unwrap();
    assert!(waiter.wait_timeout(Duration::from_secs(20)));
    assert_eq!(tracker.flush().unwrap().changes.len(), 1);
    two.free().unwrap();
    assert!(waiter.wait_timeout(Duration::from_secs(20)));
    assert_eq!(tracker.flush().unwrap().changes.len(), 1);
}
