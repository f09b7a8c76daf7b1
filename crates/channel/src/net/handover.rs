//! The moment between a thread's asking to read and its going to sleep: the task may let threads read
//! in it, and nobody is to be woken yet. It is too short to be met by chance, so here the thread waits
//! in it.

use super::{Direct, Listener, NetChannel, Settings, Wire, connect};
use crate::{
    Channel, ClusterId, NodeId, Secret, Statistics,
    handshake::{Local, Purpose},
};
use std::{
    cell::RefCell,
    sync::atomic::Ordering::Acquire,
    thread,
    time::{Duration, Instant},
};

type Does = Box<dyn FnOnce(&Direct)>;

thread_local! {
    static MEANWHILE: RefCell<Option<Does>> = const { RefCell::new(None) };
}

/// Does what a test wants to happen once in that moment of this thread.
pub(super) fn meanwhile(direct: &Direct) {
    if let Some(does) = MEANWHILE.take() {
        does(direct);
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

fn pair() -> (NetChannel, NetChannel) {
    let settings = |node| {
        let secret = Secret::new(*b"0123456789abcdef").unwrap();
        let purpose = Purpose::new("handover").unwrap();
        Settings::new(Local::new(NodeId(node), ClusterId::default(), purpose).with_secret(secret))
    };
    let listener = Listener::bind(&Wire::Tcp, "127.0.0.1:0", settings(1)).unwrap();
    let there = connect(&Wire::Tcp, &listener.address().to_string(), &settings(2)).unwrap();
    (listener.accept(PATIENCE).unwrap().expect("it has come"), there)
}

/// Whether a thread that waits for the first message reads it from the socket itself. If it sleeps,
/// the task takes reading back in the end, and it gets the message by the queue.
fn is_read_by_the_thread() -> bool {
    let (here, there) = pair();
    let received = thread::spawn(move || {
        MEANWHILE.set(Some(Box::new(move |direct: &Direct| {
            let until = Instant::now() + PATIENCE;
            while !direct.is_direct.load(Acquire) {
                assert!(Instant::now() < until, "the task does not let threads read");
                thread::yield_now();
            }
            there.send("first".into()).unwrap();
        })));
        assert_eq!(here.receive(PATIENCE).unwrap().expect("it was sent"), "first");
        assert!(MEANWHILE.take().is_none(), "the thread had nothing to wait for");
        let mut received = Statistics::default();
        here.endpoint.direct.as_ref().expect("it is TCP").counters.add_to(&mut received);
        received.messages_received
    });
    received.join().unwrap() == 1
}

#[test]
fn a_thread_that_may_read_before_it_sleeps_does_not_sleep() {
    // A machine that stands still for long enough makes the task take reading back as well.
    assert!((0..10).any(|_| is_read_by_the_thread()), "it slept each time, and nobody read");
}
