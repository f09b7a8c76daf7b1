//! All messages a channel knows of, by id: missing, waiting, in the log, and remembered.
//!
//! Ids come from strangers, so they are looked up under a hash with a secret key: FarmHash, which
//! everybody can compute, would let one make all ids collide. Records and their buffers are used
//! again, so that a channel in steady work allocates nothing.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::wire::{Body, EntryView};

/// No record, edge or index.
pub(super) const NONE: u32 = u32::MAX;

/// No time: later than all.
pub(super) const NEVER: u64 = u64::MAX;

/// Bodies kept for the next message at most.
const SPARE_BODIES_MAX: usize = 64;

/// A body larger than this is not kept.
const SPARE_BODY_LEN_MAX: usize = 64 << 10;

/// What a channel has of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing: others depend on it, and it is missing.
    Unknown,
    /// All of it, but not what it depends on.
    Buffered,
    /// All of it, in the log.
    Logged,
    /// Only that it counts as known: it was in the log, or was given up.
    Tombstone,
}

/// Bits of [`Record::flags`].
pub(super) mod flag {
    /// Its content was given to the application, or is the application's own.
    pub(crate) const DELIVERED: u8 = crate::persist::codec::Loaded::DELIVERED;
    /// Given up by time; delivered all the same if it comes.
    pub(crate) const LOST: u8 = 1 << 1;
    /// From before this participant joined; the same.
    pub(crate) const PRE_JOIN: u8 = 1 << 2;
    /// Some message of the log depends on it: everybody will hear of it.
    pub(crate) const CITED: u8 = 1 << 3;
    /// Its request is due and waits for a message to go with.
    pub(crate) const DUE: u8 = 1 << 4;
    /// Counts among the messages that are asked for.
    pub(crate) const WANTED: u8 = 1 << 5;
    /// Cited by a sync message, so it is wanted even if no message waits for it.
    pub(crate) const HEARD_OF: u8 = 1 << 6;
    /// Left the list of tombstones, and is kept only for those that pin it.
    pub(crate) const FORGOTTEN: u8 = 1 << 7;
}

/// One message.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) state: State,
    pub(super) flags: u8,
    /// Who needs the body even of a tombstone: the list of unacknowledged messages, and that of
    /// unconfirmed deliveries.
    pub(super) pins: u8,
    /// Changes whenever something that remembers the slot has to find out that it is void.
    pub(super) generation: u32,
    pub(super) lamport: u64,
    /// The number of its delivery, from 1 on; 0 if it was not delivered.
    pub(super) number: u64,
    hash: u64,

    /// Id, sender and hint, one after the other.
    names: Vec<u8>,
    id_len: u16,
    sender_len: u16,
    /// The message without filter and requests.
    pub(super) body: Vec<u8>,
    pub(super) parts: Body,

    /// The last message that cited it, by the number of its look-up.
    pub(super) cited_by: u64,

    /// Those that wait for it: the first edge, how many edges, how many of them still count.
    pub(super) edges: u32,
    pub(super) edge_count: u32,
    pub(super) waiters: u32,
    /// How many it waits for, which (slot and generation), and which time it is that it waits.
    pub(super) missing: u32,
    pub(super) waits_for: Vec<(u32, u32)>,
    pub(super) wait_epoch: u32,

    /// Its index among the unacknowledged messages.
    pub(super) own: u32,
    /// It left them without an acknowledgement, and one that comes late is told all the same.
    pub(super) failed: bool,
    /// When to ask for it, to fetch it, to give it up; how often the request was put off, and how
    /// often it was sent.
    pub(super) request_at: u64,
    pub(super) fetch_at: u64,
    pub(super) lost_at: u64,
    pub(super) tries: u32,
    pub(super) asked: u32,
    pub(super) fetches: u32,
    /// When to send it again for others, until when not to, how many requests were heard.
    pub(super) answer_at: u64,
    pub(super) answered_until: u64,
    pub(super) heard: u32,
}

impl Record {
    pub(super) fn id(&self) -> &[u8] {
        &self.names[..self.id_len as usize]
    }

    pub(super) fn sender(&self) -> &[u8] {
        let start = self.id_len as usize;
        &self.names[start..start + self.sender_len as usize]
    }

    pub(super) fn hint(&self) -> &[u8] {
        &self.names[self.id_len as usize + self.sender_len as usize..]
    }

    pub(super) fn entry(&self) -> EntryView<'_> {
        EntryView { id: self.id(), hint: self.hint(), sender: self.sender() }
    }

    pub(super) fn set_sender(&mut self, sender: &[u8]) {
        if self.sender() != sender {
            let start = self.id_len as usize;
            let end = start + self.sender_len as usize;
            self.names.splice(start..end, sender.iter().copied());
            self.sender_len = sender.len() as u16;
        }
    }

    pub(super) fn set_hint(&mut self, hint: &[u8]) {
        self.names.truncate(self.id_len as usize + self.sender_len as usize);
        self.names.extend_from_slice(hint);
    }

    pub(super) fn content(&self) -> &[u8] {
        let start = self.parts.content_at as usize;
        &self.body[start..start + self.parts.content_len as usize]
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether what depends on it need not wait for it.
    pub(super) fn is_met(&self) -> bool {
        matches!(self.state, State::Logged | State::Tombstone)
    }
}

/// The records and the way to them.
#[derive(Debug)]
pub(super) struct Table {
    records: Vec<Record>,
    free: Vec<u32>,
    ids: HashTable<u32>,
    hasher: FixedState,
    spare_bodies: Vec<Vec<u8>>,
}

impl Table {
    pub(super) fn new(key: u64) -> Self {
        Self {
            records: Vec::new(),
            free: Vec::new(),
            ids: HashTable::new(),
            hasher: FixedState::with_seed(key),
            spare_bodies: Vec::new(),
        }
    }

    /// The hash under the secret key: of ids here, of senders elsewhere.
    pub(super) fn hash(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name)
    }

    pub(super) fn find(&self, id: &[u8]) -> Option<u32> {
        let hash = self.hash(id);
        self.ids.find(hash, |&slot| self.records[slot as usize].id() == id).copied()
    }

    pub(super) fn get(&self, slot: u32) -> &Record {
        &self.records[slot as usize]
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Record {
        &mut self.records[slot as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// A record for an id that has none: unknown, with nothing planned.
    pub(super) fn insert(&mut self, entry: &EntryView<'_>) -> u32 {
        let hash = self.hash(entry.id);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.records.push(Record::empty());
            (self.records.len() - 1) as u32
        });
        let record = &mut self.records[slot as usize];
        record.reset(hash);
        record.names.extend_from_slice(entry.id);
        record.names.extend_from_slice(entry.sender);
        record.names.extend_from_slice(entry.hint);
        record.id_len = entry.id.len() as u16;
        record.sender_len = entry.sender.len() as u16;
        let records = &self.records;
        self.ids.insert_unique(hash, slot, |&slot| records[slot as usize].hash);
        slot
    }

    /// Forgets a record. Nothing refers to it any more but what compares generations.
    pub(super) fn remove(&mut self, slot: u32) {
        self.drop_body(slot);
        let record = &mut self.records[slot as usize];
        record.generation = record.generation.wrapping_add(1);
        let hash = record.hash;
        if let Ok(entry) = self.ids.find_entry(hash, |&found| found == slot) {
            entry.remove();
        }
        self.free.push(slot);
    }

    /// An empty buffer for a body, one that was used before if there is one.
    pub(super) fn fresh_body(&mut self) -> Vec<u8> {
        self.spare_bodies.pop().unwrap_or_default()
    }

    /// Gives the body of a record up.
    pub(super) fn drop_body(&mut self, slot: u32) {
        let mut body = std::mem::take(&mut self.records[slot as usize].body);
        let worth_it = (1..=SPARE_BODY_LEN_MAX).contains(&body.capacity());
        if worth_it && self.spare_bodies.len() < SPARE_BODIES_MAX {
            body.clear();
            self.spare_bodies.push(body);
        }
    }

    /// All records in use.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.ids.iter().copied()
    }

    /// Bytes of memory beside the struct itself.
    pub(super) fn memory(&self) -> usize {
        let owned = |record: &Record| {
            record.names.capacity() + record.body.capacity() + record.waits_for.capacity() * 8
        };
        self.records.capacity() * size_of::<Record>()
            + self.records.iter().map(owned).sum::<usize>()
            + self.spare_bodies.iter().map(Vec::capacity).sum::<usize>()
            + self.ids.capacity() * 5
            + self.free.capacity() * 4
    }
}

impl Record {
    fn empty() -> Self {
        Self {
            state: State::Unknown,
            flags: 0,
            pins: 0,
            generation: 0,
            lamport: 0,
            number: 0,
            hash: 0,
            names: Vec::new(),
            id_len: 0,
            sender_len: 0,
            body: Vec::new(),
            parts: Body::default(),
            cited_by: 0,
            edges: NONE,
            edge_count: 0,
            waiters: 0,
            missing: 0,
            waits_for: Vec::new(),
            wait_epoch: 0,
            own: NONE,
            failed: false,
            request_at: NEVER,
            fetch_at: NEVER,
            lost_at: NEVER,
            tries: 0,
            asked: 0,
            fetches: 0,
            answer_at: NEVER,
            answered_until: 0,
            heard: 0,
        }
    }

    /// As new, but with its buffers and its generation.
    fn reset(&mut self, hash: u64) {
        let mut names = std::mem::take(&mut self.names);
        names.clear();
        let mut waits_for = std::mem::take(&mut self.waits_for);
        waits_for.clear();
        let (generation, wait_epoch) = (self.generation, self.wait_epoch);
        *self = Self { hash, names, waits_for, generation, wait_epoch, ..Self::empty() };
    }
}
