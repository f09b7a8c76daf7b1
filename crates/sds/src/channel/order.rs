//! The log, and who waits for whom.
//!
//! * The log is ordered by (Lamport time, message id) (LIP-109, Deliver Message; Resolve
//!   Conflicts). Nearly all insertions are at its end; those elsewhere move at most half of it.
//! * Who waits for a message is a linked list that hangs on the record of that message, so that
//!   what becomes deliverable is found in steps as many as there are dependencies.

use std::{cmp::Ordering, collections::VecDeque};

use super::table::{NONE, State, Table};

/// The messages delivered, in order.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<(u64, u32)>,
}

impl Log {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts a message where it belongs and says how many come after it.
    pub(super) fn insert(&mut self, table: &Table, slot: u32) -> usize {
        let lamport = table.get(slot).lamport;
        let before = |other: &(u64, u32)| compare(table, *other, (lamport, slot)).is_lt();
        if self.entries.back().is_none_or(before) {
            self.entries.push_back((lamport, slot));
            return 0;
        }
        let at = self.entries.partition_point(before);
        self.entries.insert(at, (lamport, slot));
        self.entries.len() - 1 - at
    }

    pub(super) fn pop_first(&mut self) -> Option<u32> {
        self.entries.pop_front().map(|(_, slot)| slot)
    }

    /// The message with `later` messages after it.
    pub(super) fn before_last(&self, later: usize) -> Option<u32> {
        let at = self.entries.len().checked_sub(later + 1)?;
        self.entries.get(at).map(|&(_, slot)| slot)
    }

    /// From the first to the last.
    pub(super) fn slots(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.entries.iter().map(|&(_, slot)| slot)
    }

    /// The latest `count`, in order.
    pub(super) fn tail(&self, count: usize) -> impl Iterator<Item = u32> + '_ {
        let start = self.entries.len().saturating_sub(count);
        self.entries.range(start..).map(|&(_, slot)| slot)
    }

    pub(super) fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<(u64, u32)>()
    }
}

/// The order of the log.
pub(super) fn compare(table: &Table, a: (u64, u32), b: (u64, u32)) -> Ordering {
    a.0.cmp(&b.0).then_with(|| table.get(a.1).id().cmp(table.get(b.1).id()))
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    next: u32,
    waiter: u32,
    epoch: u32,
}

/// All edges from a message to those that wait for it.
#[derive(Debug)]
pub(super) struct Edges {
    edges: Vec<Edge>,
    free: u32,
}

impl Edges {
    pub(super) fn new() -> Self {
        Self { edges: Vec::new(), free: NONE }
    }

    /// `waiter` waits for `dependency`.
    pub(super) fn add(&mut self, table: &mut Table, dependency: u32, waiter: u32) {
        let record = table.get(dependency);
        // Edges of messages that were evicted stay until they are most: then they go at once.
        if record.edge_count > 2 * record.waiters + 16 {
            self.purge(table, dependency);
        }
        let epoch = table.get(waiter).wait_epoch;
        let record = table.get_mut(dependency);
        let edge = Edge { next: record.edges, waiter, epoch };
        let at = if self.free == NONE {
            self.edges.push(edge);
            (self.edges.len() - 1) as u32
        } else {
            let at = self.free;
            self.free = self.edges[at as usize].next;
            self.edges[at as usize] = edge;
            at
        };
        record.edges = at;
        record.edge_count += 1;
        record.waiters += 1;
    }

    /// Takes one edge off `dependency`: a waiter that still waits, if it does.
    pub(super) fn pop(&mut self, table: &mut Table, dependency: u32) -> Option<Option<u32>> {
        let record = table.get_mut(dependency);
        let at = record.edges;
        if at == NONE {
            return None;
        }
        let Edge { next, waiter, epoch } = self.edges[at as usize];
        record.edges = next;
        record.edge_count -= 1;
        self.edges[at as usize].next = self.free;
        self.free = at;
        let waiting = Self::waits(table, waiter, epoch);
        if waiting {
            table.get_mut(dependency).waiters -= 1;
        }
        Some(waiting.then_some(waiter))
    }

    fn waits(table: &Table, waiter: u32, epoch: u32) -> bool {
        let waiter = table.get(waiter);
        waiter.wait_epoch == epoch && waiter.state == State::Buffered
    }

    fn purge(&mut self, table: &mut Table, dependency: u32) {
        let mut at = table.get(dependency).edges;
        let (mut kept, mut count) = (NONE, 0);
        while at != NONE {
            let Edge { next, waiter, epoch } = self.edges[at as usize];
            let list = if Self::waits(table, waiter, epoch) {
                count += 1;
                &mut kept
            } else {
                &mut self.free
            };
            self.edges[at as usize].next = *list;
            *list = at;
            at = next;
        }
        let record = table.get_mut(dependency);
        record.edges = kept;
        record.edge_count = count;
    }

    pub(super) fn memory(&self) -> usize {
        self.edges.capacity() * size_of::<Edge>()
    }
}

/// Messages that are ready to be delivered, the first in the order of the log on top.
#[derive(Debug, Default)]
pub(super) struct Ready {
    heap: Vec<u32>,
}

impl Ready {
    pub(super) fn push(&mut self, table: &Table, slot: u32) {
        self.heap.push(slot);
        let mut at = self.heap.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.is_less(table, at, parent) {
                break;
            }
            self.heap.swap(at, parent);
            at = parent;
        }
    }

    pub(super) fn pop(&mut self, table: &Table) -> Option<u32> {
        let last = self.heap.len().checked_sub(1)?;
        self.heap.swap(0, last);
        let first = self.heap.pop();
        let mut at = 0;
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let mut least = at;
            for child in [left, right] {
                if child < self.heap.len() && self.is_less(table, child, least) {
                    least = child;
                }
            }
            if least == at {
                return first;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }

    fn is_less(&self, table: &Table, a: usize, b: usize) -> bool {
        let key = |at: usize| (table.get(self.heap[at]).lamport, self.heap[at]);
        compare(table, key(a), key(b)).is_lt()
    }
}
