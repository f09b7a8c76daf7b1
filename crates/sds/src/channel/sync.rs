//! Sync messages: what tells everybody of the last message when nobody says anything any more.
//!
//! Source: LIP-109, Periodic Sync Message; SDS-R Periodic Sync Message.
//!
//! Each participant waits a random time; who speaks first silences the others for a while. After
//! some sync messages without news everybody has heard one, and the channel is silent until there
//! is news: it has no timer then (D5).

use super::{Channel, table::NEVER};
use crate::{
    output::Reason,
    time::Now,
    wire::{
        Body, FIELDS_LEN, MessageView, Profile, entry_len, proto::put_bytes_field, put_entry,
        write_head,
    },
};

/// How long a due request waits for a message to go with before a sync message is sent for it.
const PROMPT_MS: u64 = 2000;

/// Sync messages that only carry requests are at least so far apart.
const PROMPT_APART_MS: u64 = 5000;

/// Messages that may be cited by nobody, cited by a sync message in addition to the log's tail.
pub(super) const UNCITED_MAX: usize = 16;

/// See the head of the module.
#[derive(Debug)]
pub(super) struct Sync {
    /// When to send one; `NEVER` in a channel without news.
    pub(super) at: u64,
    /// Sent even if somebody else was heard: requests are due.
    prompt: bool,
    /// When something was heard or sent.
    heard_at: Option<u64>,
    /// When this participant sent its last one.
    sent_at: Option<u64>,
    without_news: u32,
}

impl Sync {
    pub(super) fn new() -> Self {
        Self { at: NEVER, prompt: false, heard_at: None, sent_at: None, without_news: 0 }
    }
}

impl Channel {
    /// Somebody said something that tells the others of the last messages, so that no sync message
    /// need do it now.
    pub(super) fn heard(&mut self, now: Now) {
        self.sync.heard_at = Some(now.mono_ms);
    }

    /// There is something that others may not have.
    pub(super) fn news(&mut self, now: Now) {
        self.sync.without_news = 0;
        if self.config.sync && self.sync.at == NEVER {
            self.sync.at = now.mono_ms + self.sync_delay();
        }
    }

    /// A sync message was heard or sent. After enough of them without news there are no more.
    fn count_sync(&mut self, now: Now) {
        self.sync.without_news += 1;
        // As many of them for each part of what is cited by nobody, which they cite in turns.
        let parts = 1 + (self.uncited.len() / UNCITED_MAX) as u32;
        self.sync.at = if self.sync.without_news >= parts * self.config.syncs_without_news_max() {
            NEVER
        } else {
            now.mono_ms + self.sync_delay()
        };
    }

    /// From half to one and a half times the window.
    fn sync_delay(&mut self) -> u64 {
        let window = self.config.sync_window_ms();
        window / 2 + self.rng.below(window + 1)
    }

    /// A request is due: if no message goes out soon, a sync message carries it.
    pub(super) fn sync_soon(&mut self, now_ms: u64) {
        if self.config.sync && !self.sync.prompt {
            self.sync.prompt = true;
            let jitter = self.rng.below(PROMPT_MS + 1);
            let soonest = self.sync.sent_at.map_or(0, |at| at + PROMPT_APART_MS);
            self.sync.at = self.sync.at.min(soonest.max(now_ms + jitter));
        }
    }

    /// Whether a sync message of another one, which was looked up, brings news, or shows that it
    /// lacks some: of the last messages of our log, as many as it cites.
    pub(super) fn heard_sync(&mut self, now: Now, message: &MessageView<'_>, unmet: usize) {
        let cited = message.causal.len().clamp(1, self.config.sync_causal);
        let is_cited = |slot: u32| self.table.get(slot).cited_by == self.look_ups;
        let is_behind = !self.log.tail(cited).all(is_cited);
        // It does ours' work only if it tells of the last messages that we know of, whatever else
        // it cites: one that is empty, or invented, must not silence those who could tell of them.
        let known = cited.saturating_sub(unmet).max(1);
        if self.log.tail(known).all(is_cited) {
            self.heard(now);
        }
        let unmet = unmet > 0;
        self.needed += u64::from(is_behind);
        if unmet || is_behind {
            self.news(now);
        } else if self.sync.at != NEVER && !self.sync.prompt {
            self.count_sync(now);
        } else {
            self.sync.without_news = self.sync.without_news.saturating_add(1);
        }
    }

    /// The time for a sync message has come, if it has.
    pub(super) fn run_sync(&mut self, now: Now) {
        if self.sync.at > now.mono_ms {
            return;
        }
        let prompt = std::mem::take(&mut self.sync.prompt) && self.has_due();
        let quiet_since = self.sync.heard_at.map_or(u64::MAX, |at| now.mono_ms.saturating_sub(at));
        if !prompt && quiet_since < self.config.sync_window_ms() {
            // LIP-109: "MAY choose to only send periodic sync messages if no other messages have
            // been broadcast in the channel after a random backoff period".
            self.sync.at = now.mono_ms + self.sync_delay();
            return;
        }
        self.count_sync(now);
        self.send_sync(now);
    }

    /// Tells the others soon what this participant has: for one that just came, or came back, and
    /// so may have missed what nobody will say again.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now, Output, Reason};
    /// let mut channel = Channel::new("room", b"alice", Config::lip())?;
    /// assert_eq!(channel.poll_timeout(), None, "a channel without news has no timer");
    /// channel.announce(Now::zero());
    /// let at = channel.poll_timeout().unwrap();
    /// channel.handle_timeout(Now::zero().after(at));
    /// let Some(Output::Broadcast(broadcast)) = channel.poll_output() else { panic!() };
    /// assert_eq!(broadcast.reason, Reason::Sync);
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn announce(&mut self, now: Now) {
        if !self.config.sync {
            return;
        }
        self.sync.without_news = 0;
        self.sync.heard_at = None;
        let jitter = self.rng.below(PROMPT_MS + 1);
        self.sync.at = self.sync.at.min(now.mono_ms + jitter);
    }

    /// Tells the others what this participant has, now, whoever else has just spoken: for one that
    /// is about to leave, and whom nobody can ask any more. Does nothing in a channel without sync
    /// messages.
    ///
    /// # Errors
    /// [`Error::Undrained`](crate::Error::Undrained).
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now, Output, Reason};
    /// let mut channel = Channel::new("room", b"alice", Config::lip())?;
    /// channel.announce_now(Now::zero())?;
    /// let Some(Output::Broadcast(broadcast)) = channel.poll_output() else { panic!() };
    /// assert_eq!(broadcast.reason, Reason::Sync);
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn announce_now(&mut self, now: Now) -> crate::Result<()> {
        self.begin()?;
        if self.config.sync {
            self.send_sync(now);
            self.prune();
        }
        Ok(())
    }

    /// LIP-109, Periodic Sync Message: empty content; Lamport time, causal history and filter as in
    /// any message; in no buffer, log or filter, and never cited (D3).
    fn send_sync(&mut self, now: Now) {
        let Some(lamport) = self.next_lamport(now) else { return };
        self.scalars.lamport = lamport;
        self.note_scalars();
        let id = format!("sync-{:016x}", self.rng.next_u64());
        let profile = self.config.profile;
        let fields = profile.fields();
        // What does not fit is left out: a message that the transport does not carry says nothing.
        let names = self.own_id.len() + id.len() + self.name.len() + FIELDS_LEN;
        let mut room = self.config.message_len_max.saturating_sub(names);
        let filter_len = self.filter.field_len(fields.filter);
        let with_filter = filter_len <= room / 2;
        room -= if with_filter { filter_len } else { 0 };
        let requests = self.take_requests(now, self.config.sync_requests, room / 4);
        room -= requests.len;
        let tail: Vec<u32> = self.log.tail(self.config.sync_causal).collect();
        let tail_fits = self.fit(&tail, room - room / 3);
        // What nobody cites is looked for before the part of the tail that fits.
        let mut extra = [0; UNCITED_MAX];
        self.retain_uncited();
        // As many as fit, so that each has its turn: of more, always the same would be left out.
        let bare = |slot| entry_len(fields.causal, &self.table.get(slot).entry().bare());
        let longest = self.uncited.iter().map(|&(slot, _)| bare(slot)).max().unwrap_or(1);
        let most = UNCITED_MAX.min((room - tail_fits.len) / longest);
        let before = tail.len() - tail_fits.from;
        let count = self.uncited_before(before, &mut extra[..most], false);
        let extra = &extra[..count];
        let fits = self.fit(extra, room - tail_fits.len);
        let mut scratch = self.table.fresh_body();
        write_head(
            &mut scratch,
            profile,
            &self.own_id,
            id.as_bytes(),
            self.name.as_bytes(),
            lamport,
        );
        for (slots, fits) in [(extra, fits), (&tail, tail_fits)] {
            for (index, &slot) in slots.iter().enumerate().skip(fits.from) {
                let entry = self.table.get(slot).entry();
                let entry = if index < fits.hints_from { entry.bare() } else { entry };
                put_entry(&mut scratch, fields.causal, &entry);
            }
        }
        let parts = Body::finish(&mut scratch, profile, &self.own_id, self.name.as_bytes(), &[]);
        let Self { outputs, table, filter, .. } = self;
        outputs.broadcast(Reason::Sync, id.as_bytes(), |out| {
            parts.assemble(
                out,
                profile,
                &scratch,
                |out| {
                    if with_filter {
                        filter.write_field(out, fields.filter);
                    } else if profile == Profile::Nim {
                        put_bytes_field(out, fields.filter, &[]);
                    }
                },
                |out| requests.write(out, table, fields.requests),
            );
        });
        self.remember_sync(id.as_bytes());
        self.heard(now);
        self.sync.sent_at = Some(now.mono_ms);
        if self.has_due() {
            self.sync_soon(now.mono_ms);
        }
    }
}
