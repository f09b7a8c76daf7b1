//! A small protocol, to learn from and to prove the world by: one register on several nodes.
//!
//! Attiya, Bar-Noy and Dolev, "Sharing Memory Robustly in Message-Passing Systems" (1995), for
//! several writers: every node keeps a value with a tag, and serves its own clients. To write, it
//! asks all for their tags, takes one above the highest that a majority told, and has the value
//! kept by a majority. To read, it asks in the same way, and has the newest value kept by a majority
//! before it answers. What a node keeps is safe from a power cut before it says so.
//!
//! X1. The register is linearizable, whatever the network, the processes and the disks do.
//! X2. Once a majority is up and reached, every operation ends.
//!
//! [`Flaw`] breaks it on purpose, one rule at a time. Each flaw has to be found by [`run`], or the
//! world would be worth nothing.

mod clients;
mod register;
mod store;

pub use clients::{Clients, Run, run};
pub use register::{Answer, Packet, Register, Wish};

/// A rule of the register that is broken on purpose.
///
/// ```
/// use mainstay_sim::example::{Flaw, run};
/// let found = (1..=200).any(|seed| run(seed, Some(Flaw::MinorityIsEnough), None).result.is_err());
/// assert!(found);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// A reader answers before a majority keeps what it has read.
    ReadsWithoutKeeping,
    /// Half of the nodes count as a majority.
    MinorityIsEnough,
    /// Two answers of one node count as two.
    CountsTwice,
    /// All operations have one number, so that late answers to an earlier one count.
    NumbersRepeat,
    /// A tag does not say who made it: two values get one tag.
    TagsRepeat,
    /// What a node keeps is replaced by what is older.
    OlderReplacesNewer,
    /// What a node says to keep is not synced.
    NeverSyncs,
    /// There is one place on the disk, and it is written over.
    OnePlace,
    /// What is found on the disk is believed without its checksum.
    NoChecksum,
    /// What is found on the disk is taken for safe, though it may only be in the page cache.
    TrustsTheCache,
    /// A question without an answer is not asked again.
    NeverAsksAgain,
}

impl Flaw {
    /// All of them, each with what it breaks.
    ///
    /// ```
    /// assert_eq!(mainstay_sim::example::Flaw::ALL.len(), 11);
    /// ```
    pub const ALL: [(Self, &'static str, &'static str); 11] = [
        (Self::ReadsWithoutKeeping, "reads-without-keeping", "a read does not write back"),
        (Self::MinorityIsEnough, "minority-is-enough", "half of the nodes count as a majority"),
        (Self::CountsTwice, "counts-twice", "a duplicated answer counts as two nodes"),
        (Self::NumbersRepeat, "numbers-repeat", "late answers to an earlier operation count"),
        (Self::TagsRepeat, "tags-repeat", "two writers write under one tag"),
        (Self::OlderReplacesNewer, "older-replaces-newer", "a node keeps whatever comes last"),
        (Self::NeverSyncs, "never-syncs", "a node says that it keeps what a power cut takes"),
        (Self::OnePlace, "one-place", "the only record on the disk is written over"),
        (Self::NoChecksum, "no-checksum", "a torn record is believed"),
        (Self::TrustsTheCache, "trusts-the-cache", "what a failed sync left is taken for safe"),
        (Self::NeverAsksAgain, "never-asks-again", "a lost question is waited for, for ever"),
    ];
}
