//! The queue of outputs: small records that point into one arena, which is used again when all
//! was polled, so that a channel in steady work allocates nothing.

use std::collections::VecDeque;

use crate::output::{Broadcast, Delivery, Missing, Output, Place, Reason};

#[derive(Clone, Copy, Debug)]
enum What {
    Broadcast(Reason),
    Deliver { lamport: Option<u64>, number: u64, later: u32, again: bool },
    Acknowledged,
    Possibly,
    Failed,
    Missing { before_joining: bool },
    Fetch,
    Lost,
    Evicted,
}

#[derive(Clone, Copy, Debug)]
struct Queued {
    what: What,
    /// Held back until the change of this number is kept.
    after: u64,
    at: usize,
    /// Up to four pieces, one after the other.
    lens: [u32; 4],
}

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    queue: VecDeque<Queued>,
    arena: Vec<u8>,
    /// The number that outputs queued now wait for.
    pub(super) after: u64,
}

/// An arena larger than this is given back when it is empty.
const ARENA_KEPT_MAX: usize = 1 << 20;

impl Outputs {
    pub(super) fn bytes(&self) -> usize {
        self.arena.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn memory(&self) -> usize {
        self.arena.capacity() + self.queue.capacity() * size_of::<Queued>()
    }

    /// Whether the first output waits for nothing but changes up to `kept`.
    pub(super) fn is_ready(&self, kept: u64) -> bool {
        self.queue.front().is_some_and(|first| first.after <= kept)
    }

    fn push(&mut self, what: What, pieces: &[&[u8]]) {
        if self.queue.is_empty() {
            self.arena.clear();
            self.arena.shrink_to(ARENA_KEPT_MAX);
        }
        let at = self.arena.len();
        let mut lens = [0; 4];
        for (piece, len) in pieces.iter().zip(&mut lens) {
            self.arena.extend_from_slice(piece);
            *len = piece.len() as u32;
        }
        self.queue.push_back(Queued { what, after: self.after, at, lens });
    }

    /// Queues bytes that `write` appends to the arena.
    pub(super) fn broadcast(
        &mut self,
        reason: Reason,
        id: &[u8],
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.push(What::Broadcast(reason), &[id]);
        let start = self.arena.len();
        write(&mut self.arena);
        let len = (self.arena.len() - start) as u32;
        if let Some(last) = self.queue.back_mut() {
            last.lens[1] = len;
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of a delivery, from two records")]
    pub(super) fn deliver(
        &mut self,
        id: &[u8],
        sender: &[u8],
        content: &[u8],
        next: &[u8],
        lamport: Option<u64>,
        number: u64,
        later: usize,
        again: bool,
    ) {
        let later = later as u32;
        self.push(What::Deliver { lamport, number, later, again }, &[id, sender, content, next]);
    }

    pub(super) fn acknowledged(&mut self, id: &[u8]) {
        self.push(What::Acknowledged, &[id]);
    }

    pub(super) fn possibly(&mut self, id: &[u8]) {
        self.push(What::Possibly, &[id]);
    }

    pub(super) fn failed(&mut self, id: &[u8]) {
        self.push(What::Failed, &[id]);
    }

    pub(super) fn missing(&mut self, id: &[u8], hint: &[u8], sender: &[u8], before_joining: bool) {
        self.push(What::Missing { before_joining }, &[id, hint, sender]);
    }

    pub(super) fn fetch(&mut self, id: &[u8], hint: &[u8], sender: &[u8]) {
        self.push(What::Fetch, &[id, hint, sender]);
    }

    pub(super) fn lost(&mut self, id: &[u8]) {
        self.push(What::Lost, &[id]);
    }

    pub(super) fn evicted(&mut self, id: &[u8], sender: &[u8]) {
        self.push(What::Evicted, &[id, sender]);
    }

    pub(super) fn pop(&mut self) -> Option<Output<'_>> {
        let Queued { what, at, lens, .. } = self.queue.pop_front()?;
        let mut rest = &self.arena[at..];
        let [first, second, third, fourth] = lens.map(|len| {
            let (piece, others) = rest.split_at(len as usize);
            rest = others;
            piece
        });
        Some(match what {
            What::Broadcast(reason) => {
                Output::Broadcast(Broadcast { id: first, bytes: second, reason })
            }
            What::Deliver { lamport, number, later, again } => {
                let place = match (lamport, later) {
                    (None, _) => Place::None,
                    (Some(_), 0) => Place::Last,
                    (Some(_), later) => Place::Before { id: fourth, later: later as usize },
                };
                let (id, sender, content) = (first, second, third);
                Output::Deliver(Delivery { id, sender, content, lamport, number, place, again })
            }
            What::Acknowledged => Output::Acknowledged { id: first },
            What::Possibly => Output::PossiblyAcknowledged { id: first },
            What::Failed => Output::Failed { id: first },
            What::Missing { before_joining } => {
                Output::Missing(Missing { id: first, hint: second, sender: third, before_joining })
            }
            What::Fetch => {
                let before_joining = false;
                Output::Fetch(Missing { id: first, hint: second, sender: third, before_joining })
            }
            What::Lost => Output::Lost { id: first },
            What::Evicted => Output::Evicted { id: first, sender: second },
        })
    }
}
