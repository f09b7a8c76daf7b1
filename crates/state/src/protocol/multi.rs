//! Commit of several states at once, and finishing what others have begun.
//!
//! A record lists the states, the words they are to be changed from, and the new slots. Its owner
//! puts a reference to it into each state's word, in the order of state ids, decides by one
//! compare-and-swap on its status, and turns the references into plain words. Whoever meets a
//! reference can do any of these steps.
//!
//! | after | a death leaves | who repairs it |
//! |---|---|---|
//! | the record is written | nothing that anybody refers to | nobody has to |
//! | some words are installed | references that mean the base | a committer that meets one completes, decides or aborts |
//! | the decision | references that mean the new slot | a committer that meets one turns it into the plain word |
//! | some words are plain | the rest as before | the same |

use super::{
    Outcome, Words, World,
    pin::{Fault, current, means_new},
};
use crate::{
    limits::{PATIENCE, STATES_PER_TRANSACTION},
    word::{Meaning, Phase, Plain, Reference, Status, Word},
};
use mainstay_shm::{Atomic64, hook};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

/// One state in a commit of several.
pub(crate) struct Part<'a, S> {
    pub(crate) state: &'a S,
    /// The version that the transaction began with.
    pub(crate) base: Plain,
    /// The slot of the new version; the slot of `base` when the state is only to be unchanged.
    pub(crate) slot: u32,
}

/// An entry of a record, read and checked.
#[derive(Clone, Copy)]
struct Entry {
    base: Plain,
    id: u64,
    slot: u32,
}

impl Entry {
    fn reference(&self, record: u32, sequence: u64) -> Reference {
        Reference::new(self.base.slot(), self.slot, record, sequence)
    }
}

struct Entries {
    count: usize,
    list: [Entry; STATES_PER_TRANSACTION],
}

/// How installing a reference ended.
#[derive(PartialEq)]
enum Installed {
    /// It is there.
    Yes,
    /// The record is decided, or never will be committed.
    Over,
}

/// Publishes all parts or none. They are sorted by state id, no id comes twice, and `record` is a
/// free or aborted record of the caller's own.
pub(crate) fn commit_many<W: World>(
    world: &W,
    record: u32,
    parts: &[Part<'_, W::State>],
) -> Outcome {
    loop {
        let sequence = publish(world, record, parts);
        let mut patience = PATIENCE;
        let installed = parts.iter().all(|part| {
            let entry = Entry { base: part.base, id: part.state.id(), slot: part.slot };
            let reference = entry.reference(record, sequence);
            install(world, part.state, entry.base, reference, &mut patience) == Installed::Yes
        });
        if installed {
            if hook::planted("decide-by-store") {
                let committed = Status::new(sequence, Phase::Committed);
                world.status(record).store(committed.0, SeqCst);
            } else {
                decide(world, record, sequence, Phase::Committed);
            }
        }
        // From here on the status of this use is final: committed or aborted.
        let committed =
            Status(world.status(record).load(SeqCst)) == Status::new(sequence, Phase::Committed);
        for part in parts {
            let reference = Reference::new(part.base.slot(), part.slot, record, sequence);
            resolve(world, part.state, reference);
        }
        if committed {
            // S6: every word was just seen without a reference to this use. A death before this
            // store leaves "committed", which is checked word by word before it is used again.
            world.status(record).store(Status::new(sequence, Phase::Free).0, Release);
            return Outcome::Committed;
        }
        // Aborted: by one who found another version, or by one who could not finish it. In the
        // second case the user is none the wiser.
        for part in parts {
            match current(world, part.state) {
                Ok(plain) if plain == part.base => {}
                Err(Fault::Deleted) => return Outcome::Deleted,
                Err(Fault::Garbage(word)) => return Outcome::Garbage(word),
                Ok(_) | Err(Fault::Restless) => return Outcome::Conflict,
            }
        }
        world.pause();
    }
}

/// Writes the record and opens it for helpers; returns the sequence of this use.
fn publish<W: World>(world: &W, record: u32, parts: &[Part<'_, W::State>]) -> u64 {
    let status = world.status(record);
    let sequence = Status(status.load(Relaxed)).next_sequence();
    // Readers of the entries look at the status before and after. Release on each entry: who sees
    // one of them sees "free" or later in the second look.
    status.store(Status::new(sequence, Phase::Free).0, Relaxed);
    world.count(record).store(parts.len() as u64, Release);
    for (index, part) in parts.iter().enumerate() {
        let (base, target) = world.entry(record, index);
        base.store(part.base.bits(), Release);
        target.store(part.state.id() << 6 | u64::from(part.slot), Release);
    }
    // Release: who sees "undecided" sees the entries, and the data in the new slots.
    status.store(Status::new(sequence, Phase::Undecided).0, SeqCst);
    sequence
}

/// The first half of a commit, for models of what a death leaves: publishes the record, and
/// installs it in the first `installed` states.
#[cfg(test)]
pub(crate) fn begin_many<W: World>(
    world: &W,
    record: u32,
    parts: &[Part<'_, W::State>],
    installed: usize,
) {
    let sequence = publish(world, record, parts);
    for part in &parts[..installed] {
        let reference = Reference::new(part.base.slot(), part.slot, record, sequence);
        let done = install(world, part.state, part.base, reference, &mut 0);
        assert!(done == Installed::Yes, "nobody else is at work");
    }
}

/// Puts a reference into a state's word if the word is still `base`.
fn install<W: World>(
    world: &W,
    state: &W::State,
    base: Plain,
    reference: Reference,
    patience: &mut u32,
) -> Installed {
    let (record, sequence) = (reference.record(), reference.sequence());
    loop {
        let word = Word(state.current().load(SeqCst));
        if word.0 == reference.bits() {
            return Installed::Yes;
        }
        // After the word: so what was read there was there while the record was undecided.
        if Status(world.status(record).load(SeqCst)) != Status::new(sequence, Phase::Undecided) {
            return Installed::Over;
        }
        match word.meaning() {
            Meaning::Plain(plain) if plain == base => {
                let swap =
                    state.current().compare_exchange(word.0, reference.bits(), SeqCst, Acquire);
                if swap.is_ok() {
                    return Installed::Yes;
                }
            }
            Meaning::Reference(other) => meet(world, state, other, patience),
            _ => {
                decide(world, record, sequence, Phase::Aborted);
                return Installed::Over;
            }
        }
    }
}

/// Decides this use of a record, unless it is decided.
fn decide<W: World>(world: &W, record: u32, sequence: u64, phase: Phase) {
    let (from, to) = (Status::new(sequence, Phase::Undecided), Status::new(sequence, phase));
    // SeqCst: releases the new slots, and comes before the look whether anybody waits.
    let _ = world.status(record).compare_exchange(from.0, to.0, SeqCst, Relaxed);
}

/// What a committer does about a reference in its way: afterwards the word is another one, or the
/// record was decided meanwhile (and the next call resolves it).
pub(super) fn meet<W: World>(
    world: &W,
    state: &W::State,
    reference: Reference,
    patience: &mut u32,
) {
    let (record, sequence) = (reference.record(), reference.sequence());
    let undecided = Status::new(sequence, Phase::Undecided);
    let status = Status(world.status(record).load(SeqCst));
    let is_undecided = if hook::planted("help-without-sequence") {
        status.phase() == Phase::Undecided
    } else {
        status == undecided
    };
    if is_undecided && !finish(world, state, record, status.sequence()) {
        // Somebody maps what we do not: mostly its owner, who is at it.
        if *patience > 0 {
            *patience -= 1;
            world.pause();
            return;
        }
        *patience = PATIENCE;
        decide(world, record, sequence, Phase::Aborted);
    }
    resolve(world, state, reference);
}

/// Installs and decides the rest of a record that was met at `state`; false when not all of the
/// rest is mapped here.
fn finish<W: World>(world: &W, state: &W::State, record: u32, sequence: u64) -> bool {
    let Some(entries) = read(world, record, sequence) else {
        // Decided meanwhile (then there is nothing to do), or garbage (then nobody can finish it).
        let status = Status(world.status(record).load(SeqCst));
        return status != Status::new(sequence, Phase::Undecided);
    };
    let entries = &entries.list[..entries.count];
    // References go in by order: what comes before the place where we met it is in already.
    let Some(met) = entries.iter().position(|entry| entry.id == state.id()) else { return false };
    let rest = &entries[met + 1..];
    let mut mapped: [Option<W::Found>; STATES_PER_TRANSACTION] = std::array::from_fn(|_| None);
    for (place, entry) in mapped.iter_mut().zip(rest) {
        *place = world.find(entry.id);
        if place.is_none() {
            return false;
        }
    }
    let mut patience = PATIENCE;
    for (found, entry) in mapped.iter().zip(rest) {
        if hook::planted("decide-without-install") {
            break;
        }
        let found = found.as_deref().expect("looked up above, or we have returned");
        let reference = entry.reference(record, sequence);
        if install(world, found, entry.base, reference, &mut patience) == Installed::Over {
            return true;
        }
    }
    decide(world, record, sequence, Phase::Committed);
    true
}

/// The entries of this use of a record; none when it is another use by now, or garbage.
fn read<W: World>(world: &W, record: u32, sequence: u64) -> Option<Entries> {
    let nothing = Entry { base: Plain::new(0, 0), id: 0, slot: 0 };
    let mut entries = Entries { count: 0, list: [nothing; STATES_PER_TRANSACTION] };
    let count = usize::try_from(world.count(record).load(Acquire)).ok()?;
    if !(1..=STATES_PER_TRANSACTION).contains(&count) {
        return None;
    }
    let mut last = 0;
    for (index, entry) in entries.list[..count].iter_mut().enumerate() {
        let (base, target) = world.entry(record, index);
        let (base, target) = (Plain::of(base.load(Acquire))?, target.load(Acquire));
        *entry = Entry { base, id: target >> 6, slot: (target & 63) as u32 };
        // S7: helping goes upward, or it might not end.
        if entry.id <= last {
            return None;
        }
        last = entry.id;
    }
    entries.count = count;
    // After the entries: they belong together. (A mix would be harmless as well: what it installs
    // would be stale from the start. It would be of no use.)
    let status = Status(world.status(record).load(SeqCst));
    (status == Status::new(sequence, Phase::Undecided)
        || hook::planted("help-without-second-status"))
    .then_some(entries)
}

/// Turns a reference into the plain word it stands for, unless the record is undecided or the
/// word is another one by now.
pub(super) fn resolve<W: World>(world: &W, state: &W::State, reference: Reference) {
    let status = Status(world.status(reference.record()).load(SeqCst));
    if status == Status::new(reference.sequence(), Phase::Undecided) {
        return;
    }
    let new = means_new(status, reference) && reference.new_slot() != reference.base();
    let slot = if means_new(status, reference) { reference.new_slot() } else { reference.base() };
    // The version stands in the slot's line. If the slot was reused since, so was the word, and
    // the exchange fails.
    let plain = Plain::new(state.version(slot).load(Acquire), slot);
    let swap = state.current().compare_exchange(reference.bits(), plain.bits(), SeqCst, Relaxed);
    if swap.is_ok() && new {
        // The committer may be dead: whoever makes the new version plain wakes.
        world.changed(state);
    }
}

/// Makes a committed record of a dead tenant usable: resolves what it refers to. False when one
/// of its states is not mapped here, or it is garbage: then it must not be used.
pub(crate) fn finish_committed<W: World>(world: &W, record: u32) -> bool {
    let status = Status(world.status(record).load(SeqCst));
    if status.phase() != Phase::Committed || hook::planted("recycle-committed") {
        return true;
    }
    let count = usize::try_from(world.count(record).load(Acquire)).unwrap_or(usize::MAX);
    if count > STATES_PER_TRANSACTION {
        return false;
    }
    for index in 0..count {
        let (_, target) = world.entry(record, index);
        let target = target.load(Acquire);
        let Some(state) = world.find(target >> 6) else {
            if world.is_gone(target >> 6) {
                continue;
            }
            return false;
        };
        if let Meaning::Reference(reference) = Word(state.current().load(SeqCst)).meaning()
            && (reference.record(), reference.sequence()) == (record, status.sequence())
        {
            resolve(world, &state, reference);
        }
    }
    let free = Status::new(status.sequence(), Phase::Free);
    // Release: the words were resolved before.
    world.status(record).compare_exchange(status.0, free.0, SeqCst, Relaxed).is_ok()
}
