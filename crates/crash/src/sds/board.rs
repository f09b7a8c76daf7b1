//! What the application has processed and sent: in memory outside of any pool or store, which no
//! death touches. A word is stored at once, so it is processed or it is not.

use crate::{
    cases::Docket,
    finding::{Check, Finding, ensure},
    shared::{Sharable, Text},
    verdict::Harm::{self, Lost, Torn},
};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// Messages of the other participant, at most.
pub(crate) const HEARD_MAX: usize = 600;
/// Messages of one's own, at most.
pub(crate) const SENT_MAX: usize = 128;

pub(crate) struct Board {
    pub(crate) docket: Docket,
    /// The number of the last delivery that was processed.
    processed: AtomicU64,
    /// Which message each delivery was, by its number less one; plus one, as 0 is none.
    deliveries: [AtomicU64; HEARD_MAX],
    /// Own messages that were begun, and which of them went out.
    begun: AtomicU64,
    out: [AtomicU64; SENT_MAX],
    /// The channel is being dropped: all of it may be gone.
    forgetting: AtomicU32,
    /// A life has begun.
    pub(crate) born: AtomicU32,
    /// What a check in another process has found: its harm plus one, and in words.
    harm: AtomicU32,
    what: Text,
}
// SAFETY: atomics, a docket and a text, which may be shared; all zero at first.
unsafe impl Sharable for Board {}

impl Board {
    /// For a new case.
    pub(crate) fn clear(&self) {
        let words = self.deliveries.iter().chain(&self.out).chain([&self.processed, &self.begun]);
        words.for_each(|word| word.store(0, SeqCst));
        self.forgetting.store(0, SeqCst);
        self.harm.store(0, SeqCst);
    }

    pub(crate) fn processed(&self) -> u64 {
        self.processed.load(SeqCst)
    }

    /// The application processes a delivery, if it has not yet. It is to be the next one, and a
    /// message that was not delivered before.
    pub(crate) fn process(&self, number: u64, message: usize) -> Check {
        let (done, message) = (self.processed(), message as u64 + 1);
        ensure(number > 0 && number <= done + 1, Lost, || {
            format!("delivery {number} came when {done} were processed")
        })?;
        let place = |number: u64| self.deliveries.get(number as usize - 1);
        if number <= done {
            let known = place(number).map_or(0, |word| word.load(SeqCst));
            return ensure(known == message, Torn, || {
                format!("delivery {number} was message {known}, and comes again as {message}")
            });
        }
        let mut before = self.deliveries[..done as usize].iter();
        ensure(before.all(|word| word.load(SeqCst) != message), Torn, || {
            format!("message {message} was delivered twice, now as delivery {number}")
        })?;
        let word = place(number).ok_or_else(|| Finding {
            harm: Torn,
            what: format!("there are more deliveries than messages: {number}"),
        })?;
        word.store(message, SeqCst);
        self.processed.store(number, SeqCst);
        Ok(())
    }

    /// How many own messages were begun.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(SeqCst)
    }

    /// The number of a new own message, if there may be one more.
    pub(crate) fn begin_to_send(&self) -> Option<usize> {
        let next = |begun: u64| (begun < SENT_MAX as u64).then_some(begun + 1);
        self.begun.fetch_update(SeqCst, SeqCst, next).ok().map(|begun| begun as usize)
    }

    pub(crate) fn went_out(&self, number: usize) {
        if let Some(word) = self.out.get(number) {
            word.store(1, SeqCst);
        }
    }

    /// The own messages that went out.
    pub(crate) fn sent(&self) -> impl Iterator<Item = usize> + '_ {
        let out = self.out.iter().enumerate();
        out.filter(|(_, word)| word.load(SeqCst) == 1).map(|(number, _)| number)
    }

    pub(crate) fn begin_to_forget(&self) {
        self.forgetting.store(1, SeqCst);
    }

    pub(crate) fn is_forgetting(&self) -> bool {
        self.forgetting.load(SeqCst) == 1
    }

    /// Another process hears of it.
    pub(crate) fn tell(&self, finding: &Finding) {
        self.what.set(&finding.what);
        self.harm.store(finding.harm as u32 + 1, SeqCst);
    }

    /// What a process has told that ended with a failure.
    pub(crate) fn told(&self, ended: &str) -> Finding {
        match self.harm.swap(0, SeqCst) {
            0 => Finding { harm: Harm::Stuck, what: ended.to_owned() },
            harm => Finding { harm: Harm::of(harm - 1), what: self.what.get() },
        }
    }
}
