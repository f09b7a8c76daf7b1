//! The protocol: what is done to the words of a state, its slots, its pin lines and the records.
//!
//! S1. A pinned slot is not written: a reader announces the slot in a line of its own and looks at
//!     the state's word again; a writer owns a slot, then looks at the word, then at the lines.
//!     These four are sequentially consistent, so one of the two sees the other.
//! S2. A commit succeeds only on the very version that its transaction began with, by one
//!     compare-and-swap on the word; for several states by one on the status of a record (S5).
//! S3. Every death leaves the words before a step or after it. What the dead owned is told by
//!     their id, and taken back by whoever needs it; what the living own is never taken.
//! S4. A reader writes nothing but its own line, and never has to finish anybody's work.
//! S5. While a record is undecided, nobody takes its references out of a word. So when its status
//!     becomes "committed", every word that was seen installed still is: all states change at once.
//! S6. A reference whose record has moved on means the base: a record leaves "committed" only
//!     after each of its words was seen without a reference to it.
//! S7. Helping goes upward in the order of state ids only, so it ends.
//! S8. Who begins to write a slot says so in the slot's line first. And the version that the line says
//!     after that is later than all that was current when the slot was claimed, also if it is never
//!     committed: so no slot that was current says twice to have the same version.
//!
//! Source for S5 to S7: Harris, Fraser and Pratt, "A Practical Multi-Word Compare-and-Swap
//! Operation" (2002). Their conditional first step is not needed here: words are versioned (W2 in
//! `word.rs`), so an install that comes too late finds another word, or plants a reference that
//! says of itself that it is stale.
//!
//! Generic over the atomics and over where the words are, so that model checkers run this code.

mod claim;
mod commit;
mod multi;
mod pin;

pub use claim::Scavenged;
pub(crate) use claim::{claim, end_records, reopen, scavenge, take_line};
pub(crate) use commit::{Outcome, commit, swap};
#[cfg(test)]
pub(crate) use multi::begin_many;
pub(crate) use multi::{Part, commit_many, finish_committed};
pub(crate) use pin::{Fault, current, is_still, is_whole, logical, pin, pin_at_once};

use mainstay_shm::Atomic64;
use std::{
    ops::Deref,
    sync::atomic::{Ordering, fence},
};

/// The words of one state.
pub(crate) trait Words {
    type Word: Atomic64;

    /// The state's id: the same in every process, and what records name it by.
    fn id(&self) -> u64;
    /// The word.
    fn current(&self) -> &Self::Word;
    /// How many slots there are, at most 64.
    fn slots(&self) -> u32;
    /// Who owns this slot; 0 nobody.
    fn owner(&self, slot: u32) -> &Self::Word;
    /// Which version is in this slot; while it is written none
    /// ([`VERSION_NEVER`](crate::word::VERSION_NEVER)), or the one to come.
    fn version(&self, slot: u32) -> &Self::Word;
    /// How many pin lines were ever used.
    fn lines(&self) -> u32;
    /// Who keeps this line; 0 nobody.
    fn keeper(&self, line: u32) -> &Self::Word;
    /// What this line announces.
    fn announced(&self, line: u32) -> &Self::Word;
    /// A fence; model checkers have their own.
    #[inline(always)]
    fn fence(order: Ordering) {
        fence(order);
    }
}

/// The records, and what else lies outside of a single state.
pub(crate) trait World {
    type Word: Atomic64;
    type State: Words<Word = Self::Word>;
    /// A state that was looked up.
    type Found: Deref<Target = Self::State>;

    /// The status of a record.
    fn status(&self, record: u32) -> &Self::Word;
    /// How many entries a record has.
    fn count(&self, record: u32) -> &Self::Word;
    /// An entry of a record: the base word; the state's id and the new slot.
    fn entry(&self, record: u32, index: usize) -> (&Self::Word, &Self::Word);
    /// The state of this id, if this process has it mapped for writing.
    fn find(&self, id: u64) -> Option<Self::Found>;
    /// Whether no state of this id is left, so that nothing can refer to a record in its word.
    fn is_gone(&self, id: u64) -> bool {
        let _ = id;
        false
    }
    /// Whether this tenant of a lease is dead. When in doubt it is not.
    fn is_dead(&self, id: crate::word::Id) -> bool;
    /// Called after a new version of a state has become visible: wakes who waits for that.
    fn changed(&self, state: &Self::State);
    /// Called when a slot of the dead was taken over.
    fn scavenged(&self) {}
    /// Called when so many commits that the dead had begun were ended.
    fn ended(&self, records: u32) {
        let _ = records;
    }
    /// Lets some time pass: for a look at something that another is about to finish.
    fn pause(&self);
}
