//! What survivors and victims tell each other, outside of any state.
//!
//! Every version of every state is made by somebody who says so: survivors count what was
//! acknowledged to them; a victim says before what it is about to write, and after how that ended.
//! So the versions that are seen must add up.

use super::super::actor::Plan;
use crate::{
    cases::{Docket, Fate},
    child,
    finding::{Check, Finding, ensure},
    shared::{Sharable, Text},
    verdict::Harm::{self, Lost, Stuck, Torn},
};
use std::{
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    time::Duration,
};

/// How long a survivor in a process of its own may take.
const APART_TIME_MAX: Duration = Duration::from_secs(4);

/// The states of a scene: four accounts, two that only survivors touch, and one that is published.
pub(crate) struct Roles;

impl Plan for Roles {
    const NAMES: &'static [&'static str] = &["a", "b", "c", "d", "aside.1", "aside.2", "published"];
    const ACCOUNTS: usize = 4;
}

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
pub(crate) const C: usize = 2;
pub(crate) const D: usize = 3;
/// The accounts: what victims work on.
pub(crate) const ACCOUNTS: [usize; 4] = [A, B, C, D];
/// What only survivors touch.
pub(crate) const ASIDE: [usize; 2] = [4, 5];
/// What victims publish, and survivors too.
pub(crate) const P: usize = 6;
pub(crate) const STATES: usize = 7;

/// Most victims of a case.
pub(crate) const VICTIMS: usize = 2;

/// How a victim's commit ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum End {
    /// Nobody knows.
    Open,
    Committed,
    Refused,
}

/// What a victim is about to do.
pub(crate) struct Deed {
    /// A bit for each state that it will write, all at once.
    writes: AtomicU32,
    end: AtomicU32,
    /// It was seen to be there.
    seen: AtomicU32,
}

pub(crate) struct Board {
    pub(crate) docket: Docket,
    pub(crate) deeds: [Deed; VICTIMS],
    /// Steps of an operation that nothing stopped.
    pub(crate) steps: AtomicU64,
    /// Versions that survivors made.
    made: [AtomicU64; STATES],
    /// How it goes with a second victim.
    pub(crate) second: Fate,
    /// The version of the victim's own state that a file has for sure.
    pub(crate) synced: AtomicU64,
    /// What a waiter was told last.
    pub(crate) told: AtomicU64,
    /// Why a survivor in a process of its own failed, and how that counts.
    harm: AtomicU32,
    what: Text,
    last_author: AtomicU64,
}
// SAFETY: atomics and texts, and a docket, which may be shared.
unsafe impl Sharable for Board {}

impl Board {
    /// For a new case.
    pub(crate) fn clear(&self) {
        self.made.iter().for_each(|made| made.store(0, Relaxed));
        self.deeds.iter().for_each(Deed::clear);
        self.second.clear();
        self.synced.store(0, Release);
        self.told.store(0, Release);
    }

    pub(crate) fn new_author(&self) -> u64 {
        self.last_author.fetch_add(1, Relaxed) + 1
    }

    /// Runs a survivor in a process of its own.
    pub(crate) fn apart(&self, body: impl FnOnce() -> Check) -> Check {
        self.what.set("");
        let done = child::within(APART_TIME_MAX, || match body() {
            Ok(()) => 0,
            Err(Finding { harm, what }) => {
                self.harm.store(harm as u32, Relaxed);
                self.what.set(&what);
                1
            }
        });
        done.map_err(|why| match self.what.get() {
            what if what.is_empty() => Finding { harm: Stuck, what: format!("a survivor: {why}") },
            what => Finding { harm: Harm::of(self.harm.load(Relaxed)), what },
        })
    }

    /// A survivor's commit was acknowledged.
    pub(crate) fn has_made(&self, states: &[usize]) {
        for at in states {
            self.made[*at].fetch_add(1, AcqRel);
        }
    }

    pub(crate) fn made(&self, at: usize) -> u64 {
        self.made[at].load(Acquire)
    }

    /// Whether these versions, seen at one instant, are those of the survivors and, of each victim,
    /// all or nothing.
    pub(crate) fn add_up(&self, seen: &[(usize, u64)]) -> Check {
        let fits = |choice: u32| {
            let of = |at: usize| {
                let deeds = self.deeds.iter().enumerate();
                let writes = |(victim, deed): (usize, &Deed)| {
                    u64::from(choice & 1 << victim != 0 && deed.writes(at))
                };
                self.made(at) + deeds.map(writes).sum::<u64>()
            };
            seen.iter().all(|(at, version)| *version == of(*at))
        };
        let allowed = |choice: &u32| {
            self.deeds.iter().enumerate().all(|(victim, deed)| match deed.end() {
                _ if !deed.is_seen_in(seen) => true,
                End::Open => deed.seen.load(Acquire) == 0 || choice & 1 << victim != 0,
                End::Committed => choice & 1 << victim != 0,
                End::Refused => choice & 1 << victim == 0,
            })
        };
        let fitting: Vec<u32> = (0..1 << VICTIMS).filter(|choice| fits(*choice)).collect();
        let mut possible = fitting.iter().copied().filter(allowed);
        let made: Vec<u64> = (0..STATES).map(|at| self.made(at)).collect();
        let describe = || {
            let deeds: Vec<String> = self.deeds.iter().map(Deed::describe).collect();
            format!("versions {seen:?}; survivors made {made:?}; victims: {}", deeds.join(", "))
        };
        ensure(!fitting.is_empty(), Torn, || format!("half a commit is there: {}", describe()))?;
        let Some(choice) = possible.next() else {
            return ensure(false, Lost, || {
                format!("what is there is not what was told: {}", describe())
            });
        };
        if possible.all(|other| other == choice) {
            for (victim, deed) in self.deeds.iter().enumerate() {
                if choice & 1 << victim != 0 && deed.is_seen_in(seen) {
                    deed.seen.store(1, Release);
                }
            }
        }
        Ok(())
    }
}

impl Deed {
    fn clear(&self) {
        self.writes.store(0, Relaxed);
        self.end.store(End::Open as u32, Relaxed);
        self.seen.store(0, Relaxed);
    }

    /// The victim will write these, all at once.
    pub(crate) fn intends(&self, states: &[usize]) {
        let bits = states.iter().fold(0, |bits, at| bits | 1 << at);
        self.writes.store(bits, Release);
    }

    pub(crate) fn ended(&self, end: End) {
        self.end.store(end as u32, Release);
    }

    pub(crate) fn end(&self) -> End {
        match self.end.load(Acquire) {
            0 => End::Open,
            1 => End::Committed,
            _ => End::Refused,
        }
    }

    fn writes(&self, at: usize) -> bool {
        self.writes.load(Acquire) & 1 << at != 0
    }

    fn is_seen_in(&self, seen: &[(usize, u64)]) -> bool {
        seen.iter().any(|(at, _)| self.writes(*at))
    }

    fn describe(&self) -> String {
        let states: Vec<usize> = (0..STATES).filter(|at| self.writes(*at)).collect();
        format!("{:?} of {states:?}, seen {}", self.end(), self.seen.load(Acquire))
    }
}
