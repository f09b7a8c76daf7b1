//! What the user of a channel does: sends numbered messages, reads, is slow at times, closes.

use super::link::{BOUNDS, Ended};
use mainstay_base::Rng;
use mainstay_channel::{Bytes, Channel, memory::MemoryChannel};
use mainstay_sim::{Chance, Time};
use std::time::Duration;

/// Tag and number.
const HEAD_LEN: usize = 16;

/// How a user leaves a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaves {
    Closing,
    Dropping,
}

/// The user of one end.
pub(super) struct Chat {
    /// The name of this end, which no other end has.
    pub(super) tag: u64,
    /// That of the other end, once it has said something.
    pub(super) their_tag: Option<u64>,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Nothing more will be received.
    pub(super) is_over: bool,
    /// It was told so by the channel, and did not leave itself.
    was_told: bool,
    rng: Rng,
    calm: bool,
    speaks_at: Time,
    reads_at: Time,
    leaves_at: Option<(Time, Leaves)>,
}

/// What came of a turn.
#[derive(Default)]
pub(super) struct Turn {
    /// Something was sent or received: it may be worth another turn.
    pub(super) progress: bool,
    pub(super) leaves: Option<Leaves>,
    /// Z2 does not hold.
    pub(super) wrong: Option<String>,
}

impl Chat {
    pub(super) fn new(tag: u64, seed: u64, now: Time, calm: bool) -> Self {
        let mut rng = Rng::seeded(seed);
        let leaves = if rng.chance(500_000) { Leaves::Closing } else { Leaves::Dropping };
        let after = rng.once_in(Duration::from_secs(15));
        let leaves_at = (rng.chance(500_000) && !calm).then_some((now + after, leaves));
        Self {
            tag,
            their_tag: None,
            sent: 0,
            received: 0,
            is_over: false,
            was_told: false,
            rng,
            calm,
            speaks_at: now,
            reads_at: now,
            leaves_at,
        }
    }

    /// From now on: say little, read at once, and stay.
    pub(super) fn calm_down(&mut self, now: Time) {
        self.calm = true;
        self.leaves_at = None;
        self.reads_at = now;
        self.speaks_at = now;
    }

    pub(super) fn deadline(&self) -> Time {
        let leaves_at = self.leaves_at.map_or(Time::NEVER, |(at, _)| at);
        let reads_at = if self.is_over { Time::NEVER } else { self.next_read() };
        self.speaks_at.min(leaves_at).min(reads_at)
    }

    /// Only a pause ends at a point in time; otherwise messages come when they come.
    fn next_read(&self) -> Time {
        if self.reads_at == Time::START { Time::NEVER } else { self.reads_at }
    }

    pub(super) fn turn(&mut self, channel: &MemoryChannel, now: Time) -> Turn {
        let mut turn = Turn::default();
        if self.reads_at <= now && !self.is_over {
            self.reads_at = Time::START;
            self.read(channel, &mut turn, now);
        }
        if self.speaks_at <= now && !self.is_over {
            self.speak(channel, &mut turn, now);
        }
        if let Some((at, how)) = self.leaves_at
            && at <= now
        {
            self.leaves_at = None;
            turn.leaves = Some(how);
        }
        if self.is_over {
            self.speaks_at = Time::NEVER;
            self.leaves_at = None;
        }
        turn
    }

    fn read(&mut self, channel: &MemoryChannel, turn: &mut Turn, now: Time) {
        loop {
            match channel.receive(Duration::ZERO) {
                Ok(Some(message)) => {
                    turn.progress = true;
                    if let Err(wrong) = self.check(&message) {
                        turn.wrong = Some(wrong);
                        return;
                    }
                    if !self.calm && self.rng.chance(20_000) {
                        self.reads_at = now + self.rng.within(Duration::from_secs(9));
                        return;
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    (self.is_over, self.was_told) = (true, true);
                    return;
                }
            }
        }
    }

    /// Z2.
    fn check(&mut self, message: &Bytes) -> Result<(), String> {
        let word = |at: usize| message.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let (Some(tag), Some(number)) = (word(0), word(8)) else {
            return Err(format!(
                "{:x} received {} bytes that nobody sent",
                self.tag,
                message.len()
            ));
        };
        let expected = (*self.their_tag.get_or_insert(tag), self.received);
        if (tag, number) != expected {
            return Err(format!(
                "{:x} received message {number} of {tag:x} instead of {} of {:x}",
                self.tag, expected.1, expected.0
            ));
        }
        if message[HEAD_LEN..].iter().any(|byte| *byte != number as u8) {
            return Err(format!("{:x} received message {number} of {tag:x} changed", self.tag));
        }
        self.received += 1;
        Ok(())
    }

    fn speak(&mut self, channel: &MemoryChannel, turn: &mut Turn, now: Time) {
        let burst = if self.calm { 1 } else { self.rng.between(1, 6) };
        for _ in 0..burst {
            // The next number, whatever its length: one that finds no room is said later.
            let mut message = vec![self.sent as u8; self.length()];
            message[..8].copy_from_slice(&self.tag.to_le_bytes());
            message[8..HEAD_LEN].copy_from_slice(&self.sent.to_le_bytes());
            match channel.try_send(message.into()) {
                Ok(None) => {
                    self.sent += 1;
                    turn.progress = true;
                }
                Ok(Some(_)) | Err(_) => break,
            }
        }
        let pause = if self.calm { 16_000 } else { 600 };
        self.speaks_at = now + Duration::from_millis(self.rng.between(pause / 2, pause));
    }

    fn length(&mut self) -> usize {
        match self.rng.below(20) {
            0 if !self.calm => BOUNDS.message_len,
            1..=4 => HEAD_LEN + self.rng.below(6_000) as usize,
            _ => HEAD_LEN + self.rng.below(100) as usize,
        }
    }

    /// It has taken all there was, and would take more.
    pub(super) fn waits(&self) -> bool {
        !self.is_over && self.reads_at == Time::START
    }

    /// Z3: what is known of a clean end.
    pub(super) fn was_closed_by_peer(&self, ended: Option<&Ended>) -> bool {
        self.was_told && ended == Some(&Ended::ClosedByPeer)
    }
}
