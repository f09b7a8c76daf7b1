//! The first message of a channel, while a thread that waits for it and the task that has read so far
//! agree who reads from now on.

use crate::{
    rig::{PATIENCE, Tcp, pair},
    turn,
};
use mainstay_channel::{Bounds, Bytes};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Half of the time after which the task looks whether a thread still reads.
const LATE: Duration = Duration::from_millis(10);
const CHANNELS: usize = 30;
/// So many times it is tried to find a machine that has a moment.
const TRIES: usize = 5;

/// How many of some channels had their first message late.
fn late() -> usize {
    let is_late = |_| {
        let (one, other) = pair::<Tcp>(Bounds::default());
        let waits = thread::spawn(move || {
            let message = other.receive(PATIENCE).unwrap();
            (message, Instant::now())
        });
        // It has gone to sleep by then, or is just about to.
        thread::sleep(Duration::from_micros(300));
        let sent = Instant::now();
        one.send(Bytes::from_static(b"first")).unwrap();
        let (message, received) = waits.join().unwrap();
        assert_eq!(message.unwrap(), "first");
        received.saturating_duration_since(sent) >= LATE
    };
    (0..CHANNELS).filter(|number| is_late(*number)).count()
}

#[test]
fn a_thread_that_waits_for_the_first_message_reads_it_when_it_comes() {
    let _alone = turn::take();
    let is_prompt = (0..TRIES).any(|_| late() <= 1);
    assert!(is_prompt, "of {CHANNELS} channels some are late each time");
}
