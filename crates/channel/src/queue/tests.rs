use super::*;
use std::time::Duration;

fn queue(messages: usize, bytes: usize) -> Queue {
    Queue::new(Bounds { messages, bytes, ..Bounds::default() })
}

fn push(queue: &Queue, len: usize) -> bool {
    queue.push(&mut Some(vec![0; len].into())).unwrap()
}

#[test]
fn q1_it_holds_its_bounds_and_not_one_message_or_byte_more() {
    let by_count = queue(2, 1 << 20);
    assert_eq!([push(&by_count, 0), push(&by_count, 0), push(&by_count, 0)], [true, true, false]);
    let by_bytes = queue(100, 10);
    assert_eq!([push(&by_bytes, 4), push(&by_bytes, 6), push(&by_bytes, 1)], [true, true, false]);
    by_bytes.pop().unwrap();
    assert_eq!([push(&by_bytes, 5), push(&by_bytes, 4), push(&by_bytes, 1)], [false, true, false]);
}

#[test]
fn q1_a_message_over_the_bound_in_bytes_passes_alone() {
    let queue = queue(100, 10);
    assert!(push(&queue, 50));
    assert!(!push(&queue, 0), "nothing passes beside it");
    queue.pop().unwrap();
    assert!(push(&queue, 1) && !push(&queue, 50), "nor it beside anything");
}

#[test]
fn q3_senders_and_receivers_that_sleep_at_every_step_lose_no_wake_up() {
    const MESSAGES: u64 = 20_000;
    let queue = queue(1, 1 << 20);
    std::thread::scope(|scope| {
        for sender in 0..2_u64 {
            let queue = &queue;
            scope.spawn(move || {
                crate::park::Parker::with(|parker| {
                    for number in 0..MESSAGES / 2 {
                        let bytes = [sender, number].map(u64::to_le_bytes).concat();
                        let mut message = Some(Payload::from(bytes));
                        while queue.poll_push(&mut parker.context(), &mut message).is_pending() {
                            let deadline = std::time::Instant::now() + Duration::from_secs(20);
                            parker.park(Some(deadline));
                            assert!(std::time::Instant::now() < deadline, "Q3: never woken");
                        }
                    }
                });
            });
        }
        let mut next = [0; 2];
        crate::park::Parker::with(|parker| {
            for _ in 0..MESSAGES {
                let message = loop {
                    match queue.poll_pop(&mut parker.context()) {
                        Poll::Ready(popped) => break popped.unwrap().into_bytes(),
                        Poll::Pending => {
                            let deadline = std::time::Instant::now() + Duration::from_secs(20);
                            parker.park(Some(deadline));
                            assert!(std::time::Instant::now() < deadline, "Q3: never woken");
                        }
                    }
                };
                let word = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().unwrap());
                let sender = word(0) as usize;
                assert_eq!(word(8), next[sender], "each sender's order is kept");
                next[sender] += 1;
            }
        });
        assert_eq!(next, [MESSAGES / 2; 2]);
    });
}

#[test]
fn q4_what_is_in_it_when_the_writer_closes_is_read_and_then_its_end() {
    let queue = queue(10, 100);
    push(&queue, 3);
    queue.close_writer(Why::ClosedHere, Why::ClosedByPeer);
    assert!(queue.push(&mut Some("x".into())).is_err());
    assert_eq!(queue.pop().unwrap().unwrap().len(), 3);
    let error = queue.pop().unwrap_err();
    assert!(matches!(error, Error::ChannelClosed { why: Why::ClosedByPeer }), "{error}");
}

#[test]
fn q4_what_is_in_it_when_it_is_aborted_is_dropped_at_once() {
    let queue = queue(10, 100);
    let witness = std::sync::Arc::new(vec![0_u8; 10]);
    struct Owner(std::sync::Arc<Vec<u8>>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let message = crate::Bytes::from_owner(Owner(witness.clone()));
    queue.push(&mut Some(message.into())).unwrap();
    queue.abort(Why::AbortedHere, Why::AbortedByPeer);
    assert_eq!(std::sync::Arc::strong_count(&witness), 1);
    assert!(queue.pop().is_err());
    // The first reason stays, whatever comes later.
    queue.close_reader(Why::ClosedByPeer, Why::ClosedHere);
    assert!(matches!(queue.pop(), Err(Error::ChannelClosed { why: Why::AbortedByPeer })));
}

#[test]
fn a_sender_that_looks_for_room_goes_on_when_some_places_are_free_or_it_is_over() {
    let queue = Queue::new(Bounds { messages: 64, ..Bounds::default() });
    while queue.push(&mut Some("x".into())).unwrap() {}
    assert!(!queue.has_some_room());
    queue.pop().unwrap().unwrap();
    assert!(!queue.has_some_room(), "one place is too little to look up for");
    queue.pop().unwrap().unwrap();
    assert!(queue.has_some_room(), "a thirty-second of them is not");
    while queue.push(&mut Some("x".into())).unwrap() {}
    queue.close_writer(Why::ClosedHere, Why::ClosedByPeer);
    assert!(queue.has_some_room(), "there is an error to be told");
    let small = Queue::new(Bounds { messages: 1, ..Bounds::default() });
    assert!(small.push(&mut Some("x".into())).unwrap() && small.has_some_room());
}

#[cfg(feature = "quic")]
#[test]
fn q3_what_is_pushed_quietly_is_there_at_once_and_whoever_waits_is_woken_when_it_is_told() {
    #[derive(Default)]
    struct Count(std::sync::atomic::AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let queue = queue(2, 100);
    let count = std::sync::Arc::new(Count::default());
    let waker = Waker::from(std::sync::Arc::clone(&count));
    assert!(queue.poll_pop(&mut Context::from_waker(&waker)).is_pending());
    let quietly = |len: usize| queue.push_quietly(&mut Some(vec![0; len].into())).unwrap();
    assert_eq!([quietly(1), quietly(2), quietly(3)], [true, true, false], "the bound is the same");
    assert_eq!(count.0.load(Ordering::Relaxed), 0);
    queue.wake_readers();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    let lens = [(); 2].map(|()| queue.pop().unwrap().unwrap().len());
    assert_eq!(lens, [1, 2]);
}
