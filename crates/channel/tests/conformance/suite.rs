//! What a channel has to do, whatever it runs over.

use crate::rig::{End, PATIENCE, Rig, pair};
use mainstay_channel::{Bounds, Bytes, ChannelExt, Error, NodeId, limits::MESSAGE_LEN_MAX};
use std::{
    thread,
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);

fn small() -> Bounds {
    Bounds { messages: 64, bytes: 64 << 10, message_len: 1 << 20 }
}

/// A message that says which one it is, all over.
fn numbered(number: usize, len: usize) -> Bytes {
    let mut bytes = vec![(number % 251) as u8; len.max(8)];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    bytes.into()
}

fn check(message: &Bytes, number: usize, len: usize) {
    assert_eq!(message.len(), len.max(8), "message {number} has its length");
    assert_eq!(message[..8], (number as u64).to_le_bytes(), "message {number} is in its place");
    assert!(message[8..].iter().all(|byte| *byte == (number % 251) as u8), "{number} is whole");
}

fn next(end: &End) -> Bytes {
    end.receive(PATIENCE).unwrap().expect("a message comes in time")
}

fn is_closed<T: std::fmt::Debug>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::ChannelClosed { .. }))
}

/// Waits until `condition` holds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "in time: {what}");
        thread::sleep(MS);
    }
}

pub(crate) fn messages_arrive_whole_and_in_order_in_both_directions<R: Rig>() {
    const MESSAGES: usize = 3_000;
    let (a, b) = pair::<R>(small());
    let len = |number: usize| number * 37 % 5_000;
    thread::scope(|scope| {
        for (from, to) in [(&a, &b), (&b, &a)] {
            scope.spawn(move || {
                (0..MESSAGES).for_each(|n| from.send(numbered(n, len(n))).unwrap());
            });
            scope.spawn(move || (0..MESSAGES).for_each(|n| check(&next(to), n, len(n))));
        }
    });
    assert_eq!(a.receive(Duration::ZERO).unwrap(), None, "and nothing twice");
}

pub(crate) fn every_size_up_to_the_limit_arrives_and_one_byte_more_is_refused_at_the_sender<
    R: Rig,
>() {
    const LIMIT: usize = 300_000;
    let (a, b) = pair::<R>(Bounds { message_len: LIMIT, ..small() });
    let around = |len: usize| [len - 1, len, len + 1];
    let sizes: Vec<usize> = [0, 1]
        .into_iter()
        .chain(around(16))
        .chain(around(1_024))
        .chain(around(4_096))
        .chain(around(65_536))
        .chain([100_000, LIMIT - 1, LIMIT])
        .collect();
    for len in sizes {
        let message: Bytes = (0..len).map(|at| (at % 253) as u8).collect();
        a.send(message.clone()).unwrap();
        assert!(next(&b) == message, "{len} bytes");
    }
    let one_more = Bytes::from(vec![0; LIMIT + 1]);
    let expected =
        |error: &Error| matches!(error, Error::TooLong { len, limit: LIMIT } if *len == LIMIT + 1);
    assert!(expected(&a.send(one_more.clone()).unwrap_err()));
    assert!(expected(&a.try_send(one_more).unwrap_err()));
    a.send("fine".into()).unwrap();
    assert_eq!(next(&b), "fine", "a refused message harms nothing");
}

pub(crate) fn the_longest_message_of_all_arrives_and_one_byte_more_is_refused<R: Rig>() {
    let (a, b) = pair::<R>(Bounds::default());
    let message: Bytes = (0..=MESSAGE_LEN_MAX).map(|at| (at % 253) as u8).collect();
    let refused = a.send(message.clone());
    assert!(matches!(refused, Err(Error::TooLong { limit: MESSAGE_LEN_MAX, .. })), "{refused:?}");
    let longest = message.slice(..MESSAGE_LEN_MAX);
    thread::scope(|scope| {
        // It does not fit into what lies between, so somebody has to read.
        scope.spawn(|| a.send(longest.clone()).unwrap());
        let arrived = b.receive(10 * PATIENCE).unwrap().expect("it comes, if not at once");
        assert!(arrived == longest);
    });
}

pub(crate) fn a_vectored_send_is_one_message<R: Rig>() {
    let (a, b) = pair::<R>(small());
    let parts = [
        Bytes::from_static(b"head"),
        Bytes::new(),
        Bytes::from(vec![7; 20_000]),
        Bytes::from_static(b"tail"),
    ];
    a.send_vectored(&parts).unwrap();
    a.send_vectored(&[]).unwrap();
    assert_eq!(next(&b), parts.concat());
    assert_eq!(next(&b), "");
}

/// Sends without anybody reading until it stops for good, with messages left at this end; how many
/// messages it took.
fn fill(end: &End, message: &Bytes) -> usize {
    let (start, mut taken, mut last) = (Instant::now(), 0, Instant::now());
    while last.elapsed() < 200 * MS || end.statistics().messages_unsent == 0 {
        assert!(start.elapsed() < PATIENCE, "{taken} taken, and it does not stop or keeps none");
        match end.try_send(message.clone()).unwrap() {
            None => (taken, last) = (taken + 1, Instant::now()),
            Some(_) => thread::sleep(MS),
        }
    }
    taken
}

pub(crate) fn a_channel_stops_at_its_bound_in_messages_and_goes_on_when_read<R: Rig>() {
    // Empty messages: nothing but their number holds them up, in memory; on a network, the socket's
    // buffers hold many more of them than the queues.
    let bounds = Bounds { messages: 16, bytes: 1 << 20, ..small() };
    let (a, b) = pair::<R>(bounds);
    let message = Bytes::from(vec![1; 100]);
    let taken = fill(&a, &message);
    let most = R::HELD_FACTOR * bounds.messages + R::HELD_EXTRA / message.len();
    assert!((bounds.messages..=most).contains(&taken), "{taken} messages, at most {most}");
    // Whatever the system holds beside: at each end it stops where it should.
    let (unsent, waiting) = (a.statistics().messages_unsent, b.statistics().messages_waiting);
    for (at_an_end, what) in [(unsent, "unsent"), (waiting, "waiting")] {
        let bound = bounds.messages as u64 * R::HELD_FACTOR.min(2) as u64;
        assert!((1..=bound).contains(&at_an_end), "{at_an_end} {what}");
    }
    for _ in 0..taken {
        assert_eq!(next(&b), message);
    }
    eventually("nothing is left here", || a.statistics().messages_unsent == 0);
    assert_eq!(b.statistics().messages_waiting, 0);
    a.send("on it goes".into()).unwrap();
    assert_eq!(next(&b), "on it goes");
}

pub(crate) fn a_channel_stops_at_its_bound_in_bytes_and_goes_on_when_read<R: Rig>() {
    let bounds = Bounds { messages: 1_000, bytes: 256 << 10, ..small() };
    let (a, b) = pair::<R>(bounds);
    let message = Bytes::from(vec![1; 10_000]);
    let taken = fill(&a, &message);
    let most = (R::HELD_FACTOR * bounds.bytes + R::HELD_EXTRA) / message.len();
    let least = bounds.bytes / message.len();
    assert!((least..=most).contains(&taken), "{taken} messages, {least} to {most}");
    // A blocked sender goes on by itself once somebody reads.
    thread::scope(|scope| {
        let sender = scope.spawn(|| a.send(message.clone()));
        eventually("it waits for room", || a.statistics().waits_for_room > 0);
        for _ in 0..=taken {
            assert_eq!(next(&b), message);
        }
        sender.join().unwrap().unwrap();
    });
}

pub(crate) fn a_message_over_the_bound_in_bytes_passes_alone<R: Rig>() {
    let (a, b) = pair::<R>(Bounds { bytes: 10_000, messages: 8, message_len: 1 << 20 });
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..6 {
                a.send(numbered(number, if number % 2 == 0 { 700_000 } else { 10 })).unwrap();
            }
        });
        for number in 0..6 {
            check(&next(&b), number, if number % 2 == 0 { 700_000 } else { 10 });
        }
    });
}

pub(crate) fn both_directions_full_at_once_are_no_deadlock<R: Rig>() {
    let (a, b) = pair::<R>(Bounds { messages: 32, bytes: 32 << 10, ..small() });
    let message = Bytes::from(vec![9; 8_000]);
    let filled = [fill(&a, &message), fill(&b, &message)];
    // Both are full, and both want to send still more.
    thread::scope(|scope| {
        for (from, to, before) in [(&a, &b, filled[0]), (&b, &a, filled[1])] {
            let message = &message;
            scope.spawn(move || (0..100).for_each(|_| from.send(message.clone()).unwrap()));
            scope.spawn(move || {
                for _ in 0..before + 100 {
                    assert_eq!(next(to), message);
                }
            });
        }
    });
}

pub(crate) fn a_receive_that_waits_does_not_hold_up_a_send<R: Rig>() {
    let (a, b) = pair::<R>(small());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| a.receive(PATIENCE).unwrap().unwrap());
        thread::sleep(50 * MS);
        let start = Instant::now();
        a.send("out".into()).unwrap();
        assert_eq!(next(&b), "out");
        assert!(start.elapsed() < PATIENCE / 3, "not held up: {:?}", start.elapsed());
        b.send("in".into()).unwrap();
        assert_eq!(waiting.join().unwrap(), "in");
    });
}

pub(crate) fn a_close_with_messages_in_flight_delivers_them_and_then_ends<R: Rig>() {
    let (a, b) = pair::<R>(small());
    let sent = 50;
    (0..sent).for_each(|n| a.send(numbered(n, 1_000)).unwrap());
    a.close();
    assert!(is_closed(&a.send("more".into())) && is_closed(&a.receive(Duration::ZERO)));
    assert!(is_closed(&a.try_send("more".into())) && !a.is_open());
    // Meanwhile the other end is busy sending: that must not cost it anything.
    while b.try_send(numbered(0, 5_000)).is_ok_and(|left| left.is_none()) {}
    (0..sent).for_each(|n| check(&next(&b), n, 1_000));
    assert!(is_closed(&b.receive(PATIENCE)), "then the end");
    assert!(is_closed(&b.receive(Duration::ZERO)), "and again");
}

pub(crate) fn what_is_sent_to_a_closed_end_fails<R: Rig>() {
    let (a, b) = pair::<R>(small());
    a.close();
    eventually("the peer learns of the end", || is_closed(&b.try_send("lost".into())));
    assert!(is_closed(&b.send("lost".into())) && !b.is_open());
}

pub(crate) fn an_abort_ends_both_ends_at_once<R: Rig>() {
    let (a, b) = pair::<R>(small());
    (0..40).for_each(|n| a.send(numbered(n, 1_000)).unwrap());
    a.abort();
    assert!(is_closed(&a.send("more".into())) && is_closed(&a.receive(PATIENCE)));
    // Some of it may be received before the peer learns of it; none is received after.
    eventually("the peer learns of it", || !b.is_open());
    assert!(is_closed(&b.receive(PATIENCE)) && is_closed(&b.send("lost".into())));
}

pub(crate) fn dropping_the_last_handle_closes<R: Rig>() {
    let (a, b) = pair::<R>(small());
    let other = a.clone();
    a.send("last words".into()).unwrap();
    drop(a);
    other.send("not yet".into()).unwrap();
    assert_eq!(next(&b), "last words");
    drop(other);
    assert_eq!(next(&b), "not yet");
    assert!(is_closed(&b.receive(PATIENCE)));
}

fn wake_by<R: Rig>(end_it: impl Fn(&End, &End) + Sync) {
    let (a, b) = pair::<R>(Bounds { messages: 4, ..small() });
    fill(&a, &Bytes::from(vec![0; 50_000]));
    thread::scope(|scope| {
        // What the system keeps may grow with time: so more than one may still get through.
        let sender = scope.spawn(|| -> mainstay_channel::Result<()> {
            loop {
                a.send(Bytes::from(vec![0; 50_000]))?;
            }
        });
        let receivers = [(); 2].map(|()| scope.spawn(|| a.receive(PATIENCE * 2)));
        thread::sleep(100 * MS);
        let start = Instant::now();
        end_it(&a, &b);
        assert!(is_closed(&sender.join().unwrap()), "the sender is told");
        for receiver in receivers {
            assert!(is_closed(&receiver.join().unwrap()), "the receiver is told");
        }
        assert!(start.elapsed() < PATIENCE, "at once: {:?}", start.elapsed());
    });
}

pub(crate) fn an_end_wakes_whoever_waits_at_it<R: Rig>() {
    wake_by::<R>(|a, _| a.close());
    wake_by::<R>(|a, _| a.abort());
}

pub(crate) fn an_end_at_the_peer_wakes_whoever_waits<R: Rig>() {
    wake_by::<R>(|_, b| b.close());
    wake_by::<R>(|_, b| b.abort());
}

pub(crate) fn closing_twice_or_after_an_abort_changes_nothing<R: Rig>() {
    let (a, b) = pair::<R>(small());
    a.send("once".into()).unwrap();
    a.close();
    a.close();
    assert_eq!(next(&b), "once");
    assert!(is_closed(&b.receive(PATIENCE)));
    b.close();
    b.abort();
    a.abort();
    assert!(is_closed(&a.receive(Duration::ZERO)) && is_closed(&b.receive(Duration::ZERO)));
}

pub(crate) fn timeouts_zero_short_and_long_lose_no_byte<R: Rig>() {
    const MESSAGES: usize = 300;
    let (a, b) = pair::<R>(small());
    let len = |number: usize| if number.is_multiple_of(10) { 200_000 } else { number * 13 % 3_000 };
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..MESSAGES {
                if number % 50 == 7 {
                    thread::sleep(5 * MS);
                }
                a.send(numbered(number, len(number))).unwrap();
            }
        });
        let timeouts = [Duration::ZERO, Duration::from_micros(50), MS, 20 * MS];
        let (mut number, mut turn) = (0, 0);
        let start = Instant::now();
        while number < MESSAGES {
            if let Some(message) = b.receive(timeouts[turn % 4]).unwrap() {
                check(&message, number, len(number));
                number += 1;
            }
            turn += 1;
            assert!(start.elapsed() < PATIENCE, "all in time");
        }
    });
}

pub(crate) fn a_timeout_is_kept<R: Rig>() {
    let (a, _b) = pair::<R>(small());
    for timeout in [Duration::ZERO, 10 * MS, 100 * MS] {
        let start = Instant::now();
        assert_eq!(a.receive(timeout).unwrap(), None);
        assert!(start.elapsed() >= timeout, "not before {timeout:?}: {:?}", start.elapsed());
        assert!(start.elapsed() < timeout + PATIENCE / 3, "nor long after it");
    }
}

pub(crate) fn a_slow_reader_gets_everything_and_holds_up_the_sender<R: Rig>() {
    const MESSAGES: usize = 1_500;
    let bounds = Bounds { messages: 16, bytes: 64 << 10, ..small() };
    let (a, b) = pair::<R>(bounds);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            (0..MESSAGES).for_each(|n| a.send(numbered(n, 20_000)).unwrap());
        });
        thread::sleep(100 * MS);
        assert!(!sender.is_finished(), "30 MB do not fit into what lies between");
        for number in 0..MESSAGES {
            if number % 100 == 0 {
                thread::sleep(2 * MS);
            }
            check(&next(&b), number, 20_000);
        }
    });
}

pub(crate) fn threads_that_share_an_end_get_each_message_once<R: Rig>() {
    const EACH: usize = 500;
    let (a, b) = pair::<R>(small());
    let mut seen = thread::scope(|scope| {
        for sender in 0..3 {
            let a = &a;
            scope.spawn(move || {
                (0..EACH).for_each(|n| a.send(numbered(sender * EACH + n, 30)).unwrap());
            });
        }
        let receivers = [(); 3].map(|()| {
            scope.spawn(|| {
                let mut seen = Vec::new();
                while let Some(message) = b.receive(2_000 * MS).unwrap() {
                    seen.push(u64::from_le_bytes(message[..8].try_into().unwrap()));
                }
                // What one thread sent comes to another in the order of sending.
                for sender in 0..3 {
                    let range = sender * EACH as u64..(sender + 1) * EACH as u64;
                    assert!(seen.iter().filter(|n| range.contains(n)).is_sorted());
                }
                seen
            })
        });
        receivers.map(|receiver| receiver.join().unwrap()).concat()
    });
    seen.sort_unstable();
    assert_eq!(seen, (0..3 * EACH as u64).collect::<Vec<_>>());
}

pub(crate) fn tasks_send_and_receive_and_a_dropped_future_loses_nothing<R: Rig>() {
    const MESSAGES: usize = 400;
    let (a, b) = pair::<R>(small());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let len = |number: usize| if number.is_multiple_of(20) { 100_000 } else { 100 };
    runtime.block_on(async {
        let sender = tokio::spawn(async move {
            for number in 0..MESSAGES {
                let message = numbered(number, len(number));
                // Given up again and again before it is done.
                while tokio::time::timeout(Duration::from_micros(20), a.sending(message.clone()))
                    .await
                    .map_or(true, |sent| sent.map(|()| false).unwrap())
                {
                    tokio::task::yield_now().await;
                }
            }
            a
        });
        let receive = async {
            for number in 0..MESSAGES {
                let message = loop {
                    let receiving = b.receiving();
                    match tokio::time::timeout(Duration::from_micros(20), receiving).await {
                        Ok(message) => break message.unwrap(),
                        Err(_) => tokio::task::yield_now().await,
                    }
                };
                check(&message, number, len(number));
            }
        };
        tokio::time::timeout(PATIENCE, receive).await.expect("all in time");
        drop(sender.await.unwrap());
        let end = tokio::time::timeout(PATIENCE, b.receiving()).await.expect("a task is told");
        assert!(is_closed(&end));
    });
}

/// Blocking calls, futures and attempts on the same two ends: one order, nothing lost between them.
pub(crate) fn threads_and_tasks_take_turns_at_one_end<R: Rig>() {
    const MESSAGES: usize = 900;
    let (a, b) = pair::<R>(small());
    let len = |number: usize| number * 53 % 9_000;
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = runtime();
            for number in 0..MESSAGES {
                let mut message = Some(numbered(number, len(number)));
                match number / 10 % 3 {
                    0 => a.send(message.take().unwrap()).unwrap(),
                    1 => runtime.block_on(a.sending(message.take().unwrap())).unwrap(),
                    _ => {
                        while let Some(again) = message {
                            message = a.try_send(again).unwrap();
                            thread::yield_now();
                        }
                    }
                }
            }
        });
        let runtime = runtime();
        for number in 0..MESSAGES {
            let message = match number / 15 % 3 {
                0 => next(&b),
                1 => runtime
                    .block_on(async { tokio::time::timeout(PATIENCE, b.receiving()).await })
                    .expect("a message comes in time")
                    .unwrap(),
                _ => loop {
                    if let Some(message) = b.receive(Duration::ZERO).unwrap() {
                        break message;
                    }
                    thread::yield_now();
                },
            };
            check(&message, number, len(number));
        }
    });
}

pub(crate) fn thousands_of_channels_live_side_by_side<R: Rig>() {
    let bounds = Bounds { messages: 4, bytes: 2_000, message_len: 1_000 };
    let pairs = R::pairs(R::MANY, bounds);
    for (number, (a, b)) in pairs.iter().enumerate() {
        a.send(numbered(number, 100)).unwrap();
        b.send(numbered(number + 1, 100)).unwrap();
    }
    for (number, (a, b)) in pairs.iter().enumerate() {
        check(&next(b), number, 100);
        check(&next(a), number + 1, 100);
    }
    pairs.iter().step_by(2).for_each(|(a, _)| a.close());
    for (number, (a, b)) in pairs.iter().enumerate() {
        if number % 2 == 0 {
            assert!(is_closed(&b.receive(PATIENCE)));
        } else {
            assert!(a.is_open() && b.is_open(), "its neighbours' end is not its own");
        }
    }
}

pub(crate) fn both_ends_know_each_other_and_count_what_passed<R: Rig>() {
    let (a, b) = pair::<R>(small());
    assert_eq!((a.peer().node, b.peer().node), (NodeId(2), NodeId(1)));
    for end in [&a, &b] {
        assert_eq!((end.peer().transport, end.peer().proof), (R::TRANSPORT, R::PROOF));
    }
    (0..3).for_each(|n| a.send(numbered(n, 100)).unwrap());
    next(&b);
    eventually("the rest has come", || b.statistics().messages_waiting == 2);
    let (sent, received) = (a.statistics(), b.statistics());
    assert_eq!((sent.messages_sent, sent.bytes_sent), (3, 300));
    assert_eq!((received.messages_received, received.bytes_received), (1, 100));
    assert_eq!((sent.messages_received, received.messages_sent), (0, 0));
    (0..2).for_each(|_| drop(next(&b)));
    eventually("all has left", || a.statistics().messages_unsent == 0);
}
