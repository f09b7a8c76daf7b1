//! When to dial again: a pause that doubles after each failure, with jitter.
//!
//! Sans-IO: what happened, the time and random bits go in; what to do comes out.

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN};
use std::time::{Duration, Instant};

/// The pauses between attempts: 1 s, 2 s, 4 s and so on up to 30 s, each cut by up to a half at
/// random, so that nodes that lost the same peer do not come back in one instant.
///
/// ```
/// use mainstay_channel::dial::Backoff;
/// use std::time::Duration;
/// let mut backoff = Backoff::default();
/// assert_eq!(backoff.next_pause(u64::MAX), Duration::from_secs(1));
/// assert_eq!(backoff.next_pause(0), Duration::from_secs(1), "two, cut by a half");
/// for _ in 0..10 {
///     backoff.next_pause(0);
/// }
/// assert_eq!(backoff.next_pause(u64::MAX), Duration::from_secs(30));
/// backoff.reset();
/// assert!(backoff.next_pause(7) <= Duration::from_secs(1));
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::between(BACKOFF_MIN, BACKOFF_MAX)
    }
}

impl Backoff {
    /// With other ends than 1 s and 30 s; `max` is at least `min`.
    ///
    /// ```
    /// use mainstay_channel::dial::Backoff;
    /// use std::time::Duration;
    /// let ms = Duration::from_millis;
    /// let mut backoff = Backoff::between(ms(10), ms(15));
    /// assert_eq!(backoff.next_pause(u64::MAX), ms(10));
    /// assert_eq!(backoff.next_pause(u64::MAX), ms(15));
    /// ```
    #[must_use]
    pub fn between(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), failures: 0 }
    }

    /// One more failure: how long to wait before the next attempt. `random` decides the jitter.
    ///
    /// Example: see [`Backoff`].
    pub fn next_pause(&mut self, random: u64) -> Duration {
        let doubled = self.min.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let whole = doubled.min(self.max);
        let half = whole / 2;
        let share = random as f64 / u64::MAX as f64;
        half + (whole - half).mul_f64(share)
    }

    /// It worked: the next failure starts from the shortest pause.
    ///
    /// Example: see [`Backoff`].
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// What happened to a dialler.
///
/// Example: see [`Dial`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Nothing but time.
    Tick,
    /// The attempt led to a channel.
    Connected,
    /// The attempt failed.
    Failed,
    /// The channel is closed.
    Lost,
}

/// What a dialler does next.
///
/// Example: see [`Dial`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Dial now, and report how it went.
    Dial,
    /// Nothing before this time; then a tick.
    WaitUntil(Instant),
    /// Nothing until something happens.
    Nothing,
}

/// Decides when to dial: at once, and again after a loss or a failure.
///
/// ```
/// use mainstay_channel::dial::{Action, Backoff, Dial, Event};
/// use std::time::{Duration, Instant};
/// let start = Instant::now();
/// let mut dial = Dial::new(Backoff::default());
/// assert_eq!(dial.handle(start, Event::Tick, 0), Action::Dial);
/// let Action::WaitUntil(next) = dial.handle(start, Event::Failed, u64::MAX) else { panic!() };
/// assert_eq!(next - start, Duration::from_secs(1));
/// assert_eq!(dial.handle(next, Event::Tick, 0), Action::Dial);
/// assert_eq!(dial.handle(next, Event::Connected, 0), Action::Nothing);
/// ```
#[derive(Debug)]
pub struct Dial {
    backoff: Backoff,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting { until: Option<Instant> },
    Dialling,
    Connected,
}

impl Dial {
    /// A dialler that has not begun.
    ///
    /// Example: see [`Dial`].
    #[must_use]
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, state: State::Waiting { until: None } }
    }

    /// Takes in what happened at `now`, and says what to do.
    ///
    /// A channel that is lost right after it was made counts as a failure of the attempt: so a peer
    /// that accepts and hangs up is not dialled in a tight loop.
    ///
    /// Example: see [`Dial`].
    pub fn handle(&mut self, now: Instant, event: Event, random: u64) -> Action {
        match (&self.state, event) {
            (State::Dialling, Event::Connected) => self.state = State::Connected,
            (State::Dialling | State::Connected, Event::Failed | Event::Lost) => {
                self.state = State::Waiting { until: Some(now + self.backoff.next_pause(random)) };
            }
            (State::Waiting { until }, Event::Tick) if until.is_none_or(|until| until <= now) => {
                self.state = State::Dialling;
                return Action::Dial;
            }
            _ => {}
        }
        match self.state {
            State::Waiting { until: Some(until) } => Action::WaitUntil(until),
            _ => Action::Nothing,
        }
    }

    /// The channel has proved useful (something was received): the next loss starts from the
    /// shortest pause.
    ///
    /// ```
    /// use mainstay_channel::dial::{Backoff, Dial};
    /// Dial::new(Backoff::default()).settle();
    /// ```
    pub fn settle(&mut self) {
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_one_second_to_thirty_and_never_leave_that_range() {
        let mut backoff = Backoff::default();
        let mut whole = Vec::new();
        for _ in 0..70 {
            whole.push(backoff.clone().next_pause(u64::MAX).as_secs());
            let cut = backoff.next_pause(0);
            assert!(cut >= BACKOFF_MIN / 2 && cut <= BACKOFF_MAX, "{cut:?}");
        }
        assert_eq!(whole[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert!(whole[7..].iter().all(|secs| *secs == 30));
    }

    #[test]
    fn a_peer_that_accepts_and_hangs_up_is_dialled_ever_more_slowly_until_it_proves_useful() {
        let mut now = Instant::now();
        let mut dial = Dial::new(Backoff::default());
        let mut pauses = Vec::new();
        for round in 0..4 {
            assert_eq!(dial.handle(now, Event::Tick, 0), Action::Dial);
            assert_eq!(dial.handle(now, Event::Connected, 0), Action::Nothing);
            if round == 3 {
                dial.settle();
            }
            let Action::WaitUntil(next) = dial.handle(now, Event::Lost, u64::MAX) else {
                panic!("a loss leads to a pause")
            };
            assert_eq!(dial.handle(now, Event::Tick, 0), Action::WaitUntil(next), "not yet");
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 1]);
    }

    #[test]
    fn events_that_make_no_sense_change_nothing() {
        let now = Instant::now();
        let mut dial = Dial::new(Backoff::default());
        for event in [Event::Connected, Event::Failed, Event::Lost] {
            assert_eq!(dial.handle(now, event, 0), Action::Nothing);
        }
        assert_eq!(dial.handle(now, Event::Tick, 0), Action::Dial);
        assert_eq!(dial.handle(now, Event::Tick, 0), Action::Nothing, "one attempt at a time");
    }
}
