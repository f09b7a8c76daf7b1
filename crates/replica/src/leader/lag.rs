//! How far followers are behind.

use std::{collections::VecDeque, time::Duration};

/// How far a follower is behind.
///
/// Example: see [`crate::Leader::lag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Lag {
    /// Writes that its readers do not see yet.
    pub events: u64,
    /// Bytes of log that are still to be sent or applied, about; while it catches up by comparing,
    /// those behind the place where it will go on.
    pub bytes: u64,
    /// How long the oldest of these writes has been there, as far as it was seen.
    pub time: Duration,
}

/// When a shard's writes were first seen, coarser the older they are.
#[derive(Default)]
pub(super) struct Seen(VecDeque<(u64, Duration)>);

impl Seen {
    /// More than there are from a microsecond to some years, thinned out.
    const MAX: usize = 1_024;
    /// Between two there is no more than this part of their age, if there was less.
    const CLOSE: u32 = 12;

    pub(super) fn note(&mut self, sequence: u64, now: Duration) {
        if self.0.back().is_some_and(|(last, _)| *last >= sequence) {
            return;
        }
        if self.0.len() == Self::MAX {
            self.thin(now);
        }
        self.0.push_back((sequence, now));
    }

    /// By their age, and not by how many there are: who stands still is behind all that come.
    fn thin(&mut self, now: Duration) {
        let mut kept = VecDeque::with_capacity(Self::MAX);
        let mut newer: Option<Duration> = None;
        let mut rest = self.0.drain(..).rev().peekable();
        while let Some((sequence, seen)) = rest.next() {
            // Without it there would be this gap.
            let gap =
                newer.zip(rest.peek()).map(|(newer, (_, older))| newer.saturating_sub(*older));
            if gap.is_none_or(|gap| gap > now.saturating_sub(seen) / Self::CLOSE) {
                kept.push_front((sequence, seen));
                newer = Some(seen);
            }
        }
        drop(rest);
        if kept.len() > Self::MAX / 8 * 7 {
            // Of ages that no process has.
            kept.drain(..Self::MAX / 4);
        }
        self.0 = kept;
    }

    /// How long a write behind this one has been there.
    pub(super) fn age(&self, behind: u64, now: Duration) -> Duration {
        let index = self.0.partition_point(|(sequence, _)| *sequence <= behind);
        self.0.get(index).map_or(Duration::ZERO, |(_, seen)| now.saturating_sub(*seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_of_who_stands_still_is_true_within_a_tenth_however_many_writes_come() {
        for micros in [1, 100, 1_000] {
            let mut seen = Seen::default();
            const LAST: u64 = 1_000_000;
            let at = |sequence| Duration::from_micros(sequence * micros);
            for sequence in 1..=LAST {
                seen.note(sequence, at(sequence));
                assert!(seen.0.len() <= Seen::MAX);
            }
            for behind in [0, 1, 1_000, LAST / 2, LAST - 100_000, LAST - 1_000] {
                let (age, is) = (seen.age(behind, at(LAST)), at(LAST - behind - 1));
                assert!(age <= is && age >= is - is / 10, "{behind}: {age:?} of {is:?}");
            }
            assert!(seen.age(LAST - 2, at(LAST)) <= at(2));
            assert_eq!(seen.age(LAST, at(LAST)), Duration::ZERO);
        }
    }
}
