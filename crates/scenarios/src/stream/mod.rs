//! A store on three hosts, of fixed sizes or of any: one leads, two follow, and everything goes wrong.
//! Stores, logs, cores
//! and bytes are the real ones; links, disks, clocks and processes are the world's.
//!
//! Y1. A shard that is at a place has exactly the records that the writes up to there made.
//! Y2. Once all is mended, all are where the leader is, with the same records.
//! Y3. A write that was acknowledged as durable, by the leader and enough followers, is in the
//!     history of whoever leads in the end, unless a backup was put in place of a store.
//! Y4. A leader that knows of a newer one takes no more writes, and a follower takes nothing of a
//!     leader of a lower epoch than it knows.
//! Y5. Records that a follower gave up, and its leader never had, are set aside.
//! Y6. What waits at the leader for a follower is bounded, whatever the follower does.
//! Y7. What a follower holds to be durable is there when the power of its host was cut, unless it gave
//!     it up since, or a backup was put in its place.

mod kept;
mod line;
mod member;
mod oracle;
mod order;
mod parts;
mod shelf;
mod story;

use crate::registry::{Options, Planted, Scenario};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "stream",
    about: "a store, its followers and their promotions: prefixes, nothing acknowledged is lost",
    work: "writes",
    run: story::run,
    planted: &FLAWS,
};

/// A rule that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    DeletesNotSent,
    CursorAhead,
    NoEpochCheck,
    AcksBeforeDurable,
    NotFenced,
    DivergedIsEqual,
    SilentWhenCut,
    NothingSetAside,
    NoAllowance,
    PartLost,
    PartMadeEarly,
    BegunUnsynced,
}

impl Flaw {
    const ALL: [Self; FLAWS.len()] = [
        Self::DeletesNotSent,
        Self::CursorAhead,
        Self::NoEpochCheck,
        Self::AcksBeforeDurable,
        Self::NotFenced,
        Self::DivergedIsEqual,
        Self::SilentWhenCut,
        Self::NothingSetAside,
        Self::NoAllowance,
        Self::PartLost,
        Self::PartMadeEarly,
        Self::BegunUnsynced,
    ];

    /// The one that is planted, if any.
    fn of(options: &Options) -> Option<Self> {
        options.flaw(&FLAWS, Self::ALL.into_iter())
    }
}

const FLAWS: [Planted; 12] = [
    Planted::new(
        "deletes-not-sent",
        "what was deleted meanwhile stays with a follower that compares",
    ),
    Planted::new("cursor-ahead", "a shard that is being compared says that it is at a place"),
    Planted::new("no-epoch-check", "a follower forgets which epochs it has seen"),
    Planted::new("acks-before-durable", "a follower says that it is durable, and has not synced"),
    Planted::new("not-fenced", "a leader that was replaced goes on"),
    Planted::new("diverged-is-equal", "a follower that was elsewhere is taken for one at the end"),
    Planted::new("silent-when-cut", "a log that was cut looks like one that has ended"),
    Planted::new("nothing-set-aside", "what only the follower has is given up in silence"),
    Planted::new("no-allowance", "a follower lets the leader send without bound"),
    Planted::new("part-lost", "of a long message the second part is not sent"),
    Planted::new(
        "part-made-early",
        "a follower makes what a part says before the last one is there",
    ),
    Planted::new("begun-unsynced", "a follower takes what it begins with for durable"),
];
