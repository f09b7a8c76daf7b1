//! Warnings about strangers, of whom there may be a flood.
//!
//! W1. In one second at most a few are told of; the next one after that says how many were not.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const IN: Duration = Duration::from_secs(1);
const AT_MOST: u32 = 10;

static TURNS: Mutex<Turns> = Mutex::new(Turns { since: None, told: 0, untold: 0 });

struct Turns {
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

/// Whether there may be another warning now; and then, how many there were not, before.
pub(super) fn turn() -> Option<u64> {
    // No code that could panic runs in the middle of a change.
    TURNS.lock().unwrap_or_else(PoisonError::into_inner).next(Instant::now())
}

impl Turns {
    fn next(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= IN) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told == AT_MOST {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w1_a_flood_is_told_of_in_sum_and_few_are_told_of_each() {
        let mut turns = Turns { since: None, told: 0, untold: 0 };
        let start = Instant::now();
        let told = (0..10_000).filter_map(|_| turns.next(start)).collect::<Vec<_>>();
        assert_eq!(told, [0; AT_MOST as usize]);
        let second = |number: u32| start + IN * number;
        assert_eq!(turns.next(second(1) - Duration::from_millis(1)), None);
        assert_eq!(turns.next(second(1)), Some(9_991));
        assert_eq!(turns.next(second(1)), Some(0));
        assert_eq!((turns.next(second(5)), turns.next(second(9))), (Some(0), Some(0)));
    }
}
