//! What is to be kept: entries since the last change that was handed out.

use super::{
    Channel,
    table::{NEVER, Record, State, flag},
};
use crate::{
    config::Keep,
    output::Output,
    persist::{
        Change,
        codec::{self, EVICTED, Entry, Tag, UNACKNOWLEDGED},
    },
    planted,
    time::Now,
};

/// After a failure the change is tried again this much later; then twice as much, up to 64 times.
const RETRY_MS: u64 = 1000;

/// Changes since the last base may have so many times the bytes of the base, and this many more.
const BASE_FACTOR: usize = 2;
const BASE_AT_LEAST: usize = 256 << 10;

/// The flags of a record that are kept.
const KEPT_FLAGS: u8 = flag::DELIVERED | flag::LOST | flag::PRE_JOIN;

/// See the head of the module.
#[derive(Debug)]
pub(super) struct Changes {
    /// Entries for the next change.
    entries: Vec<u8>,
    /// The scalars changed.
    dirty: bool,
    /// The change that was handed out, and whether nobody has said yet what became of it.
    out: Vec<u8>,
    in_flight: bool,
    out_base: bool,
    /// The number of the last change handed out, and of the last one kept.
    number: u64,
    kept: u64,
    base_len: usize,
    since_base: usize,
    /// Entries were dropped because nobody took them for long: only a base says it all.
    force_base: bool,
    failures: u32,
    /// After a failure, not before this time.
    pub(super) retry_at: u64,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            dirty: false,
            out: Vec::new(),
            in_flight: false,
            out_base: false,
            number: 0,
            kept: 0,
            base_len: 0,
            since_base: 0,
            force_base: false,
            failures: 0,
            retry_at: NEVER,
        }
    }

    /// The number that the next change will have.
    pub(super) fn next(&self) -> u64 {
        self.number + 1
    }

    /// Outputs may go that wait for changes up to this one: if nothing is to be kept, all.
    pub(super) fn released(&self) -> u64 {
        if planted("output-before-kept") {
            return u64::MAX;
        }
        if self.is_busy() { self.kept } else { self.next() }
    }

    pub(super) fn memory(&self) -> usize {
        self.entries.capacity() + self.out.capacity()
    }

    /// Goes on behind what was loaded.
    pub(super) fn resume(&mut self, number: u64, bytes: usize) {
        self.number = number;
        self.kept = number;
        self.since_base = bytes;
    }

    /// Something is not kept yet.
    pub(super) fn is_busy(&self) -> bool {
        self.dirty || self.in_flight
    }

    fn is_pending(&self) -> bool {
        self.dirty
    }

    fn limit(&self) -> usize {
        BASE_FACTOR * self.base_len + BASE_AT_LEAST
    }

    /// Adds an entry. If nobody takes them, they do not pile up: a base will replace them.
    fn add(&mut self, entry: &Entry<'_>) {
        self.dirty = true;
        if self.force_base {
            return;
        }
        entry.write(&mut self.entries);
        if self.entries.len() > 2 * self.limit() {
            self.entries.clear();
            self.force_base = true;
        }
    }
}

impl Channel {
    fn keeps(&self) -> bool {
        self.config.keep != Keep::Nothing
    }

    /// All of the channel came from elsewhere: the next change is a base that has it.
    pub(crate) fn mark_imported(&mut self) {
        self.note_scalars();
        self.changes.force_base = true;
    }

    /// The message is in the log, or waits.
    pub(super) fn note_put(&mut self, slot: u32) {
        if self.keeps() {
            let attempts = self.attempts_of(slot);
            self.changes.add(&Self::entry_of(self.table.get(slot), attempts));
        }
    }

    /// The message is no more than an id.
    pub(super) fn note_tombstone(&mut self, slot: u32) {
        if self.keeps() {
            let record = self.table.get(slot);
            let (flags, lamport) = (record.flags & KEPT_FLAGS, record.lamport);
            let entry = Entry { flags, lamport, ..Entry::of(Tag::Tombstone, record.id()) };
            self.changes.add(&entry);
        }
    }

    /// Nothing of the message is known any more.
    pub(super) fn note_forgotten(&mut self, slot: u32) {
        self.note_bare(slot, Tag::Forgotten);
    }

    /// The message is acknowledged, or failed.
    pub(super) fn note_settled(&mut self, slot: u32) {
        self.note_bare(slot, Tag::Settled);
    }

    fn note_bare(&mut self, slot: u32, tag: Tag) {
        if self.keeps() {
            self.changes.add(&Entry::of(tag, self.table.get(slot).id()));
        }
    }

    /// Only the scalars changed.
    pub(super) fn note_scalars(&mut self) {
        self.changes.dirty |= self.keeps();
    }

    fn attempts_of(&self, slot: u32) -> Option<u8> {
        let own = self.table.get(slot).own;
        (own != super::table::NONE).then(|| self.outgoing.get(own).attempts)
    }

    /// `attempts` is how often an unacknowledged message was sent again.
    fn entry_of(record: &Record, attempts: Option<u8>) -> Entry<'_> {
        let tag = match record.state {
            State::Logged => Tag::Logged,
            State::Buffered => Tag::Buffered,
            State::Tombstone if record.body.is_empty() => Tag::Tombstone,
            State::Tombstone => Tag::Logged,
            State::Unknown => Tag::Forgotten,
        };
        let evicted = record.state == State::Tombstone && !record.body.is_empty();
        Entry {
            flags: record.flags & KEPT_FLAGS
                | if attempts.is_some() { UNACKNOWLEDGED } else { 0 }
                | if evicted { EVICTED } else { 0 },
            attempts: attempts.unwrap_or_default(),
            lamport: record.lamport,
            number: record.number,
            hint: record.hint(),
            body: &record.body,
            ..Entry::of(tag, record.id())
        }
    }

    /// Whether a change is to be handed out now.
    pub(super) fn has_change(&self) -> bool {
        self.changes.is_pending() && !self.changes.in_flight && self.changes.retry_at == NEVER
    }

    /// Hands a change out.
    pub(super) fn take_change(&mut self) -> Output<'_> {
        let changes = &mut self.changes;
        changes.number += 1;
        let number = changes.number;
        let base = changes.base_len == 0
            || changes.force_base
            || changes.since_base + changes.entries.len() > changes.limit();
        changes.force_base = false;
        changes.out.clear();
        let mut out = std::mem::take(&mut changes.out);
        codec::open(&mut out, self.config.profile, base, number, &self.scalars);
        if base {
            self.write_all(&mut out);
        } else {
            out.extend_from_slice(&self.changes.entries);
        }
        codec::seal(&mut out);
        let changes = &mut self.changes;
        changes.entries.clear();
        changes.dirty = false;
        changes.in_flight = true;
        changes.out_base = base;
        changes.out = out;
        Output::Persist(Change { number, base, bytes: &changes.out })
    }

    /// The whole channel as one change.
    pub(super) fn snapshot(&self, number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        codec::open(&mut out, self.config.profile, true, number, &self.scalars);
        self.write_all(&mut out);
        codec::seal(&mut out);
        out
    }

    /// Everything there is, in an order that loading restores: first what is remembered, oldest
    /// first, then the log, then what waits.
    fn write_all(&self, out: &mut Vec<u8>) {
        let mut write = |slot: u32| {
            Self::entry_of(self.table.get(slot), self.attempts_of(slot)).write(out);
        };
        let remembered = self.tombstones.iter();
        let current = |(slot, generation): &&(u32, u32)| {
            self.is_current(*slot, *generation) && self.table.get(*slot).state == State::Tombstone
        };
        remembered.filter(current).for_each(|&(slot, _)| write(slot));
        // Those that only their pins keep.
        self.pinned().for_each(&mut write);
        self.log.slots().for_each(&mut write);
        let waits = |slot: &u32| self.table.get(*slot).state == State::Buffered;
        self.table.slots().filter(waits).for_each(&mut write);
    }

    /// Messages that left the list of tombstones and are kept for those who need their bodies.
    fn pinned(&self) -> impl Iterator<Item = u32> + '_ {
        let pinned = |slot: &u32| self.table.get(*slot).has(flag::FORGOTTEN);
        self.table.slots().filter(pinned)
    }

    /// The change of that number, and all before it, are kept.
    ///
    /// Example: see [`Output::Persist`].
    pub fn persisted(&mut self, number: u64) {
        let changes = &mut self.changes;
        if number < changes.number || !changes.in_flight {
            return;
        }
        changes.in_flight = false;
        changes.kept = changes.number;
        changes.failures = 0;
        if changes.out_base {
            changes.base_len = changes.out.len();
            changes.since_base = 0;
        } else {
            changes.since_base += changes.out.len();
        }
    }

    /// The change of that number could not be kept, or nobody knows whether it was. The next one is
    /// handed out after a while; it is a base, and so has what this one had.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Keep, Now, Output};
    /// let mut config = Config::lip();
    /// config.keep = Keep::Relaxed;
    /// let mut channel = Channel::new("room", b"alice", config)?;
    /// channel.send(Now::zero(), b"m1", b"hello")?;
    /// let Some(Output::Persist(change)) = channel.poll_output() else { panic!() };
    /// let number = change.number;
    /// channel.persist_failed(Now::zero(), number);
    /// assert!(matches!(channel.poll_output(), Some(Output::Broadcast(_))), "nothing waits for it");
    /// let later = Now::zero().after(1000);
    /// channel.handle_timeout(later);
    /// assert!(matches!(channel.poll_output(), Some(Output::Persist(_))));
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn persist_failed(&mut self, now: Now, number: u64) {
        let changes = &mut self.changes;
        if number < changes.number || !changes.in_flight {
            return;
        }
        changes.in_flight = false;
        changes.dirty = true;
        // What a place has after a failure nobody knows: the next change replaces all of it.
        changes.entries.clear();
        changes.force_base = true;
        changes.retry_at = now.mono_ms + (RETRY_MS << changes.failures.min(6));
        changes.failures += 1;
    }

    /// The time to try once more has come.
    pub(super) fn retry_change(&mut self, now_ms: u64) {
        if self.changes.retry_at <= now_ms {
            self.changes.retry_at = NEVER;
        }
    }
}
