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
    const MAX: usize = 256;

    pub(super) fn note(&mut self, sequence: u64, now: Duration) {
        if self.0.back().is_some_and(|(last, _)| *last >= sequence) {
            return;
        }
        if self.0.len() == Self::MAX {
            let mut keep = false;
            self.0.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.0.push_back((sequence, now));
    }

    /// How long a write behind this one has been there.
    pub(super) fn age(&self, behind: u64, now: Duration) -> Duration {
        let index = self.0.partition_point(|(sequence, _)| *sequence <= behind);
        self.0.get(index).map_or(Duration::ZERO, |(_, seen)| now.saturating_sub(*seen))
    }
}
