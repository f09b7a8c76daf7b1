//! Time passes: LIP-109, Periodic Outgoing Buffer Sweep; Periodic Incoming Buffer Sweep.
//!
//! Nothing is swept. Everything that is to happen to a message has a time of its own, so that a
//! channel is woken up when there is something to do and not otherwise.

use super::{
    Channel,
    agenda::Plan,
    table::{NEVER, State, flag},
};
use crate::{output::Reason, time::Now};

/// The time until a message is fetched again grows up to so many doublings.
const FETCH_DOUBLINGS_MAX: u32 = 4;

impl Channel {
    /// Does what is due. Early, late or needless calls do no harm.
    ///
    /// Example: see [`Channel`].
    pub fn handle_timeout(&mut self, now: Now) {
        self.set_after();
        self.run_agenda(now);
        self.run_sync(now);
        self.retry_change(now.mono_ms);
        self.prune();
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, by the monotonic clock;
    /// `None` if nothing is planned: a channel without news has no timer (D5).
    ///
    /// Example: see [`Channel`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let at = self.next_planned().min(self.sync.at).min(self.changes.retry_at);
        (at != NEVER).then_some(at)
    }

    pub(super) fn run_agenda(&mut self, now: Now) {
        while let Some(entry) = self.due_now(now.mono_ms) {
            match entry.plan {
                Plan::Resend => self.resend(now, entry.slot),
                Plan::Request => self.request_due(entry.at, entry.slot),
                Plan::Answer => self.answer(now, entry.slot),
                Plan::Fetch => self.fetch(now, entry.slot),
                Plan::Lose => self.lose(now, entry.slot),
            }
        }
    }

    /// LIP-109, Periodic Outgoing Buffer Sweep: "MUST rebroadcast unacknowledged outgoing messages
    /// after a set period". One that was sent often enough failed; it never counts as sent.
    fn resend(&mut self, now: Now, slot: u32) {
        let own = self.table.get(slot).own;
        let message = *self.outgoing.get(own);
        if message.attempts >= self.config.resend_attempts {
            self.outputs.failed(self.table.get(slot).id());
            self.table.get_mut(slot).failed = true;
            self.settle(slot);
            return;
        }
        let period =
            if message.possibly { self.config.resend_possibly_ms } else { self.config.resend_ms };
        let at = now.mono_ms + period;
        let message = self.outgoing.get_mut(own);
        message.attempts += 1;
        message.resend_at = at;
        self.plan(Plan::Resend, slot, at);
        self.broadcast(now, slot, Reason::Resend, false);
        self.heard(now);
    }

    /// LIP-109, Periodic Incoming Buffer Sweep: "MAY attempt to retrieve missing dependencies from
    /// the Store node".
    fn fetch(&mut self, now: Now, slot: u32) {
        let record = self.table.get_mut(slot);
        let doublings = record.fetches.min(FETCH_DOUBLINGS_MAX);
        record.fetches += 1;
        let at = now.mono_ms + (self.config.fetch_interval_ms << doublings);
        record.fetch_at = at;
        let Self { table, outputs, .. } = self;
        let record = table.get(slot);
        outputs.fetch(record.id(), record.hint(), record.sender());
        self.plan(Plan::Fetch, slot, at);
    }

    /// LIP-109, Periodic Incoming Buffer Sweep: "MAY mark them as irretrievably lost". What waits
    /// for it is delivered without it.
    pub(super) fn lose(&mut self, now: Now, slot: u32) {
        debug_assert_eq!(self.table.get(slot).state, State::Unknown, "only the missing get lost");
        self.found(now, slot);
        self.outputs.lost(self.table.get(slot).id());
        self.set_flag(slot, flag::LOST);
        self.bury(slot);
        self.release(slot);
        self.deliver_ready(now);
    }
}
