//! The oracle: what the recorders promised, kept by the one process that is never killed.
//!
//! * **L1** A record that was acknowledged and not announced as being freed must be found, whole,
//!   in the same block, about the same entity, with at least the acknowledged update. Anything
//!   else is *lost* (or *torn*, when the block is there and no side of it is whole).
//! * **L2** A block that was acknowledged as freed must not be found under the same generation:
//!   it *leaked*.
//! * **L3** One block is never acknowledged for two entities: the second one displaced the first,
//!   which is *lost*.
//! * What was never acknowledged may be found or not: nobody was promised anything.

use std::collections::{BTreeMap, HashMap, HashSet};

use mainstay::pool::BlockId;

use super::kinds::Kind;
use super::twin::Key;
use super::wire::Message;

/// Faults that are described one by one; all are counted.
const DETAILS_MAX: usize = 20;

/// What an audit found wrong.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Faults {
    /// Promises that do not hold any more.
    pub(super) lost: u64,
    /// Blocks without a whole record.
    pub(super) torn: u64,
    /// Blocks that live without being anybody's.
    pub(super) leaked: u64,
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.torn += other.torn;
        self.leaked += other.leaked;
    }
}

#[derive(Clone, Copy, Debug)]
struct Promise {
    key: Key,
    sequence: u64,
    being_freed: bool,
}

/// Everything promised so far.
#[derive(Default, Debug)]
pub(super) struct Ledger {
    promises: HashMap<BlockId, Promise>,
    freed: HashSet<BlockId>,
    displaced: u64,
    details: Vec<String>,
}

/// What a successor says it found, until it says that it has taken over.
#[derive(Default, Debug)]
pub(super) struct Findings {
    whole: HashMap<BlockId, (Key, u64)>,
    torn: HashSet<BlockId>,
    unwritten: HashSet<BlockId>,
}

impl Findings {
    /// Takes a message in; whether it was one about a finding.
    pub(super) fn note(&mut self, message: &Message) -> bool {
        match *message {
            Message::Found { id, key, sequence } => {
                self.whole.insert(id, (key, sequence));
            }
            Message::FoundTorn(id) => {
                self.torn.insert(id);
            }
            Message::FoundUnwritten(id) => {
                self.unwritten.insert(id);
            }
            _ => return false,
        }
        true
    }

    /// The successor was killed too, before it had taken over: another one will look again. What
    /// was torn stays noted, because the dead successor freed it.
    pub(super) fn interrupted(&mut self) {
        self.whole.clear();
        self.unwritten.clear();
    }

    /// Whole records found.
    pub(super) fn len(&self) -> u64 {
        self.whole.len() as u64
    }
}

impl Ledger {
    /// Takes a promise in; other messages are no promises.
    pub(super) fn note(&mut self, message: &Message) {
        match *message {
            Message::Kept { id, key, sequence } => {
                let promise = Promise { key, sequence, being_freed: false };
                let before = self.promises.insert(id, promise);
                // L3
                if before.is_some_and(|before| before.key != key) || self.freed.contains(&id) {
                    self.displaced += 1;
                    note(&mut self.details, || {
                        format!("twice: block {id}, {before:?}, {promise:?}")
                    });
                }
            }
            Message::Freeing(id) => {
                if let Some(promise) = self.promises.get_mut(&id) {
                    promise.being_freed = true;
                }
            }
            Message::Freed(id) => {
                self.promises.remove(&id);
                self.freed.insert(id);
            }
            _ => {}
        }
    }

    /// Records promised.
    pub(super) fn len(&self) -> u64 {
        self.promises.len() as u64
    }

    /// The first faults found, for whoever must find their cause.
    pub(super) fn details(&self) -> &[String] {
        &self.details
    }

    /// Records promised, by kind.
    pub(super) fn census(&self) -> BTreeMap<Kind, u64> {
        let mut census = BTreeMap::new();
        for promise in self.promises.values() {
            *census.entry(promise.key.kind).or_default() += 1;
        }
        census
    }

    /// Compares the promises with what was found, and goes on from what was found: a fault is
    /// counted once.
    pub(super) fn audit(&mut self, found: Findings) -> Faults {
        let mut faults = Faults { lost: std::mem::take(&mut self.displaced), torn: 0, leaked: 0 };
        for (id, promise) in &self.promises {
            if found.torn.contains(id) {
                faults.torn += 1;
                note(&mut self.details, || format!("torn: block {id}, {promise:?}"));
            } else if !promise.is_held_by(found.whole.get(id)) {
                faults.lost += 1;
                note(&mut self.details, || {
                    let (whole, unwritten) = (found.whole.get(id), found.unwritten.contains(id));
                    format!("lost: block {id}, {promise:?}; found {whole:?}, empty: {unwritten}")
                });
            }
        }
        // Torn without a promise is torn as well: a first update is never in doubt (twin.rs, I3).
        faults.torn +=
            found.torn.iter().filter(|id| !self.promises.contains_key(id)).count() as u64;
        faults.leaked += found.whole.keys().filter(|id| self.freed.contains(id)).count() as u64;

        self.promises = found
            .whole
            .into_iter()
            .map(|(id, (key, sequence))| (id, Promise { key, sequence, being_freed: false }))
            .collect();
        faults
    }
}

fn note(details: &mut Vec<String>, detail: impl FnOnce() -> String) {
    if details.len() < DETAILS_MAX {
        details.push(detail());
    }
}

impl Promise {
    /// L1
    fn is_held_by(&self, found: Option<&(Key, u64)>) -> bool {
        match found {
            Some((key, sequence)) => *key == self.key && *sequence >= self.sequence,
            None => self.being_freed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> BlockId {
        BlockId { number, generation: 1 }
    }

    fn key(word: u64) -> Key {
        Key { kind: Kind::Process, words: [word, 0] }
    }

    fn kept(number: u32, word: u64, sequence: u64) -> Message {
        Message::Kept { id: id(number), key: key(word), sequence }
    }

    fn found(number: u32, word: u64, sequence: u64) -> Message {
        Message::Found { id: id(number), key: key(word), sequence }
    }

    fn audit(promises: &[Message], findings: &[Message]) -> Faults {
        let mut ledger = Ledger::default();
        promises.iter().for_each(|message| ledger.note(message));
        let mut found = Findings::default();
        assert!(findings.iter().all(|message| found.note(message)));
        ledger.audit(found)
    }

    fn faults(lost: u64, torn: u64, leaked: u64) -> Faults {
        Faults { lost, torn, leaked }
    }

    #[test]
    fn what_was_promised_and_found_is_no_fault() {
        let promises = [kept(1, 10, 1), kept(1, 10, 2), kept(2, 20, 1)];
        assert_eq!(audit(&promises, &[found(1, 10, 2), found(2, 20, 3)]), faults(0, 0, 0));
    }

    #[test]
    fn a_missing_record_is_lost() {
        assert_eq!(audit(&[kept(1, 10, 1), kept(2, 20, 1)], &[found(1, 10, 1)]), faults(1, 0, 0));
    }

    #[test]
    fn a_record_set_back_behind_its_acknowledged_update_is_lost() {
        assert_eq!(audit(&[kept(1, 10, 3)], &[found(1, 10, 2)]), faults(1, 0, 0));
    }

    #[test]
    fn a_record_about_somebody_else_is_lost() {
        assert_eq!(audit(&[kept(1, 10, 1)], &[found(1, 11, 1)]), faults(1, 0, 0));
    }

    #[test]
    fn a_block_in_which_nothing_is_whole_any_more_is_torn_or_lost_if_it_became_empty() {
        assert_eq!(audit(&[kept(1, 10, 1)], &[Message::FoundTorn(id(1))]), faults(0, 1, 0));
        assert_eq!(audit(&[kept(1, 10, 1)], &[Message::FoundUnwritten(id(1))]), faults(1, 0, 0));
        assert_eq!(audit(&[], &[Message::FoundTorn(id(1))]), faults(0, 1, 0));
        assert_eq!(audit(&[], &[Message::FoundUnwritten(id(1))]), faults(0, 0, 0));
    }

    #[test]
    fn what_was_being_freed_may_be_there_or_not() {
        let promises = [kept(1, 10, 1), Message::Freeing(id(1))];
        assert_eq!(audit(&promises, &[]), faults(0, 0, 0));
        assert_eq!(audit(&promises, &[found(1, 10, 1)]), faults(0, 0, 0));
    }

    #[test]
    fn a_freed_block_that_lives_has_leaked() {
        let promises = [kept(1, 10, 1), Message::Freeing(id(1)), Message::Freed(id(1))];
        assert_eq!(audit(&promises, &[found(1, 10, 1)]), faults(0, 0, 1));
    }

    #[test]
    fn what_was_never_acknowledged_is_no_fault_and_is_promised_from_then_on() {
        let mut ledger = Ledger::default();
        let mut findings = Findings::default();
        findings.note(&found(1, 10, 1));
        assert_eq!(ledger.audit(findings), faults(0, 0, 0));
        assert_eq!(ledger.len(), 1);
        assert_eq!(ledger.audit(Findings::default()), faults(1, 0, 0));
        assert_eq!(ledger.audit(Findings::default()), faults(0, 0, 0));
    }

    #[test]
    fn what_a_successor_found_torn_before_it_was_killed_too_still_counts() {
        let mut ledger = Ledger::default();
        ledger.note(&kept(1, 10, 1));
        ledger.note(&kept(2, 20, 1));
        let mut findings = Findings::default();
        findings.note(&Message::FoundTorn(id(1)));
        findings.note(&found(2, 20, 1));
        findings.interrupted();
        assert_eq!(findings.len(), 0);
        findings.note(&found(2, 20, 1));
        assert_eq!(ledger.audit(findings), faults(0, 1, 0));
    }

    #[test]
    fn one_block_for_two_entities_is_a_loss() {
        let promises = [kept(1, 10, 1), kept(1, 11, 1)];
        assert_eq!(audit(&promises, &[found(1, 11, 1)]), faults(1, 0, 0));
    }
}
