//! What was found wrong, counted over all processes of a run.

use crate::shared::{Sharable, Shared, Text};
use std::{
    fmt,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed},
    },
};

/// How a finding counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Harm {
    /// What was acknowledged is not there, or a living holder no longer holds it.
    Lost,
    /// Contents that nobody wrote, a block handed out twice, an impossible word.
    Torn,
    /// A survivor did not come through its work, in time or without an error.
    Stuck,
    /// A block that is neither free for all nor anybody's.
    Leaked,
}

const HARMS: [Harm; 4] = [Harm::Lost, Harm::Torn, Harm::Stuck, Harm::Leaked];
impl Harm {
    /// The harm of this number, for those who had to pass it on as one.
    pub(crate) fn of(number: u32) -> Self {
        HARMS.get(number as usize).copied().unwrap_or(Self::Torn)
    }
}

const NOTES: usize = 8;

/// One count for each harm, and the first few findings in words.
pub(crate) struct Verdict {
    counts: [AtomicU64; HARMS.len()],
    noted: AtomicU64,
    notes: [Text; NOTES],
    silent: AtomicU64,
}
// SAFETY: atomics, and texts, which are atomics.
unsafe impl Sharable for Verdict {}

impl Verdict {
    pub(crate) fn new() -> &'static Self {
        // Lives as long as the process: children refer to it.
        Box::leak(Box::new(Shared::<Self>::new()))
    }

    /// Findings are counted and noted, and not printed: for faults that are to be found.
    pub(crate) fn silence(&self) {
        self.silent.store(1, Relaxed);
    }

    pub(crate) fn report(&self, harm: Harm, what: &str) {
        self.counts[harm as usize].fetch_add(1, Relaxed);
        let note = self.noted.fetch_add(1, Relaxed);
        if let Some(text) = self.notes.get(note as usize) {
            text.set(what);
            if self.silent.load(Relaxed) == 0 {
                eprintln!("{harm}: {what}");
            }
        }
    }

    pub(crate) fn count(&self, harm: Harm) -> u64 {
        self.counts[harm as usize].load(Acquire)
    }

    pub(crate) fn total(&self) -> u64 {
        HARMS.iter().map(|harm| self.count(*harm)).sum()
    }

    /// The first finding, in words.
    pub(crate) fn first(&self) -> Option<String> {
        (self.noted.load(Acquire) > 0).then(|| self.notes[0].get())
    }

    /// The last line of a run.
    pub(crate) fn summary(&self, suite: &str, kills: u64) -> String {
        let counts: Vec<String> =
            HARMS.iter().map(|harm| format!("{harm}={}", self.count(*harm))).collect();
        format!("CRASH {suite} kills={kills} {}", counts.join(" "))
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Torn => "torn",
            Self::Stuck => "stuck",
            Self::Leaked => "leaked",
        })
    }
}
