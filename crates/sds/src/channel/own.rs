//! One's own messages that are not acknowledged yet, and what counts as evidence that they arrived.
//!
//! Source: LIP-109, Review ACK Status. A causal history acknowledges at once. A filter that has an
//! id makes it *possibly* acknowledged, and the specification leaves open when several filters
//! together are enough. Filters of one group hold the same ids and so make the same mistakes: two
//! senders are far from being two independent witnesses (measured: three peers agree wrongly 5.9 in
//! 10,000 times where one does 7.1 in 10,000 times). What counts here is how many of a message's
//! bits were clear in our own filter before it was added: a filter that has them all by mistake had
//! to have each of those set by ids that we do not know of.
//!
//! Guarantees:
//!
//! * A1. A wrong acknowledgement by filters has a chance of at most [`CHANCE_MAX`], by the bits
//!   that our own filter knew to be clear; and it takes hits from two senders where the channel has
//!   more than two participants. This holds against chance, not against forgers.
//! * A2. The work a message causes is bounded: [`BUDGET`] of one's own ids are looked up, the next
//!   ones at the next message.

use super::table::NONE;
use crate::{
    bloom::{PeerFilter, Spots},
    hash::FilterHashes,
    wire::Profile,
};

/// The chance that chance itself acknowledges.
const CHANCE_MAX: f64 = 1e-6;

/// How many of one's own ids a received filter is searched for.
const BUDGET: usize = 128;

/// How many ids a peer's filter may have that ours has not, beyond those added here since.
const MARGIN: f64 = 100.0;

/// Senders and filter sizes told apart for one message; more are as good.
const WITNESSES_MAX: usize = 4;

/// After so many filters of one other size, the reduced hashes are kept for that size.
const SWITCH_AFTER: u32 = 64;

/// What became of an own message by a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Possibly,
    Acknowledged,
}

/// What is known of one unacknowledged message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) slot: u32,
    pub(super) attempts: u8,
    pub(super) possibly: bool,
    pub(super) resend_at: u64,
    hashes: FilterHashes,
    /// Bits that were clear in our filter, of which size that was, and how many ids it had seen.
    fresh: u8,
    geometry: (u64, u32),
    adds: u64,
    senders: [u64; WITNESSES_MAX],
    sender_count: u8,
    evidence: [Evidence; WITNESSES_MAX],
    evidence_count: u8,
}

/// The best evidence of filters of one size: the chance that it is a mistake.
#[derive(Clone, Copy, Debug, Default)]
struct Evidence {
    geometry: (u64, u32),
    chance: f64,
}

/// The hashes of an id, reduced to filters of one size.
#[derive(Clone, Copy, Debug)]
struct Reduced {
    first: Spots,
    a: u32,
    b: u32,
}

/// All unacknowledged messages of a channel.
#[derive(Debug)]
pub(super) struct Outgoing {
    profile: Profile,
    all: Vec<Own>,
    /// The hashes of each, reduced to filters of the size `reduced_to`, and where its first bits
    /// are there: what the review reads.
    reduced: Vec<Reduced>,
    reduced_to: (u64, u32),
    other: (u64, u32),
    others: u32,
    cursor: usize,
}

impl Outgoing {
    pub(super) fn new(profile: Profile) -> Self {
        Self {
            profile,
            all: Vec::new(),
            reduced: Vec::new(),
            reduced_to: (1, 1),
            other: (1, 1),
            others: 0,
            cursor: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, index: u32) -> &Own {
        &self.all[index as usize]
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut Own {
        &mut self.all[index as usize]
    }

    /// Adds a message and returns its index.
    pub(super) fn add(
        &mut self,
        slot: u32,
        hashes: FilterHashes,
        fresh: u8,
        geometry: (u64, u32),
        adds: u64,
        resend_at: u64,
    ) -> u32 {
        if self.all.is_empty() {
            self.reduced_to = geometry;
        }
        self.reduced.push(Reduced::of(self.profile, hashes, self.reduced_to));
        self.all.push(Own {
            slot,
            attempts: 0,
            possibly: false,
            resend_at,
            hashes,
            fresh,
            geometry,
            adds,
            senders: [0; WITNESSES_MAX],
            sender_count: 0,
            evidence: [Evidence::default(); WITNESSES_MAX],
            evidence_count: 0,
        });
        (self.all.len() - 1) as u32
    }

    /// Takes a message off the list; the slot whose index changed to `index`, if any.
    pub(super) fn remove(&mut self, index: u32) -> Option<u32> {
        self.all.swap_remove(index as usize);
        self.reduced.swap_remove(index as usize);
        self.all.get(index as usize).map(|own| own.slot)
    }

    /// Looks up to [`BUDGET`] messages up in a filter of `sender` (A2) and tells `found` what it
    /// means for those it has. `adds` is how many ids our own filter has seen by now.
    pub(super) fn review(
        &mut self,
        filter: &PeerFilter<'_>,
        sender: u64,
        adds: u64,
        senders_min: u8,
        mut found: impl FnMut(u32, Verdict),
    ) {
        self.follow(filter.geometry());
        let is_usual = filter.geometry() == self.reduced_to;
        let start = if self.cursor < self.all.len() { self.cursor } else { 0 };
        let end = self.all.len().min(start + BUDGET);
        // What is left of the budget is for those at the beginning, up to where this one began.
        let again = (BUDGET - (end - start)).min(start);
        self.cursor = if again > 0 { again } else { end };
        let mut error_rate = None;
        for at in (start..end).chain(0..again) {
            let hit = if is_usual {
                let reduced = self.reduced[at];
                filter.has_first(reduced.first)
                    && filter.has(u64::from(reduced.a), u64::from(reduced.b))
            } else {
                filter.contains(self.all[at].hashes)
            };
            if !hit || self.all[at].knows(sender) {
                continue;
            }
            // The whole filter is counted once a message, and only if there is a reason.
            let rate = match error_rate {
                Some(rate) => rate,
                None => *error_rate.insert(filter.error_rate()),
            };
            let Some(rate) = rate else { return };
            if let Some(verdict) = self.all[at].witness(filter, sender, adds, rate, senders_min) {
                found(self.all[at].slot, verdict);
            }
        }
    }

    /// Keeps the reduced hashes for the size that most filters have.
    fn follow(&mut self, geometry: (u64, u32)) {
        if geometry == self.reduced_to {
            self.others = 0;
            return;
        }
        self.others = if geometry == self.other { self.others + 1 } else { 1 };
        self.other = geometry;
        if self.others >= SWITCH_AFTER {
            self.others = 0;
            self.reduced_to = geometry;
            for (own, reduced) in self.all.iter().zip(&mut self.reduced) {
                *reduced = Reduced::of(self.profile, own.hashes, geometry);
            }
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.all.capacity() * size_of::<Own>() + self.reduced.capacity() * size_of::<Reduced>()
    }
}

impl Reduced {
    fn of(profile: Profile, hashes: FilterHashes, (bits, count): (u64, u32)) -> Self {
        let bits = bits.max(1);
        let (a, b) = (hashes.a % bits, hashes.b % bits);
        Self { first: Spots::of(profile, (a, b), (bits, count)), a: a as u32, b: b as u32 }
    }
}

impl Own {
    /// The sender has been counted, or enough others have.
    fn knows(&self, sender: u64) -> bool {
        let senders = &self.senders[..self.sender_count as usize];
        senders.len() == WITNESSES_MAX || senders.contains(&sender)
    }

    /// One more filter has the message. `None` if that is no news (A1).
    fn witness(
        &mut self,
        filter: &PeerFilter<'_>,
        sender: u64,
        adds: u64,
        error_rate: f64,
        senders_min: u8,
    ) -> Option<Verdict> {
        if (self.sender_count as usize) < WITNESSES_MAX {
            self.senders[self.sender_count as usize] = sender;
            self.sender_count += 1;
        }
        let geometry = filter.geometry();
        let chance = if geometry == self.geometry {
            // A mistake needs all bits that were clear here set by ids that we did not count.
            let unknown = (adds - self.adds) as f64 + MARGIN;
            let one = f64::from(geometry.1) * unknown / geometry.0 as f64;
            one.min(1.0).powi(i32::from(self.fresh))
        } else {
            error_rate
        };
        self.note(geometry, chance);
        let evidence = &self.evidence[..self.evidence_count as usize];
        let chance: f64 = evidence.iter().map(|one| one.chance).product();
        if chance <= CHANCE_MAX && self.sender_count >= senders_min {
            return Some(Verdict::Acknowledged);
        }
        (!std::mem::replace(&mut self.possibly, true)).then_some(Verdict::Possibly)
    }

    /// Filters of one size count once, with the best that any of them says.
    fn note(&mut self, geometry: (u64, u32), chance: f64) {
        let known = &mut self.evidence[..self.evidence_count as usize];
        if let Some(same) = known.iter_mut().find(|one| one.geometry == geometry) {
            same.chance = same.chance.min(chance);
        } else if (self.evidence_count as usize) < WITNESSES_MAX {
            self.evidence[self.evidence_count as usize] = Evidence { geometry, chance };
            self.evidence_count += 1;
        }
    }
}

const _: () = assert!(NONE as usize > crate::limits::OUTGOING_MAX, "every index is a real one");
