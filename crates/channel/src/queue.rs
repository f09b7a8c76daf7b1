//! One direction of a channel: a bounded queue with a blocking and an asynchronous face.
//!
//! Q1. It holds at most `messages` messages and `bytes` bytes, or one message that is longer.
//! Q2. Those who push and those who pop share no lock on the way that succeeds: each side has its
//!     own, and the ring between them is handed over slot by slot.
//! Q3. No wake-up is lost: whoever finds nothing to do registers under the lock of the *other* side
//!     and looks again there; whoever changes something holds that lock, and wakes after it.
//! Q4. Its fate is decided once. Closed by the writer: what is in it is still read. Closed by the
//!     reader, or aborted: nothing passes any more, and what was in it is dropped.

mod latch;
mod ring;

use crate::{Bounds, Error, Payload, Result, Why, waiters::Waiters};
use latch::{Held, Latch};
use ring::{Consumer, Producer, ring};
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// One direction of a channel.
pub(crate) struct Queue {
    bounds: Bounds,
    fate: AtomicU8,
    /// Why it has ended; set before `fate`.
    told: OnceLock<Box<Told>>,
    /// Those who wait for the end only.
    #[cfg(feature = "tcp")]
    ending: Latch<Waiters>,
    input: Line<Input>,
    output: Line<Output>,
}

/// Why a queue has ended, as each side of it is told.
struct Told {
    reader: Why,
    writer: Why,
}

/// On cache lines of its own.
#[repr(align(128))]
struct Line<T>(T);

// A mesh has many queues: each side has one line, and so has what they share.
const _: () = assert!(size_of::<Queue>() <= 3 * align_of::<Line<()>>());

/// What those who push share.
struct Input {
    locked: Latch<InputState>,
    /// As in the state; for the other side to read.
    messages: AtomicU64,
    bytes: AtomicU64,
    waits: AtomicU64,
}

struct InputState {
    ring: Producer<Payload>,
    messages: u64,
    bytes: u64,
    /// What the other side was last seen to have taken.
    taken_messages: u64,
    taken_bytes: u64,
    /// Those who wait for a message.
    readers: Waiters,
}

/// What those who pop share.
struct Output {
    locked: Latch<OutputState>,
    /// How much was popped; changed only by whoever holds the lock.
    messages: AtomicU64,
    bytes: AtomicU64,
}

struct OutputState {
    ring: Consumer<Payload>,
    /// Those who wait for room.
    writers: Waiters,
    /// Those who sleep until there is much room.
    sleepers: Waiters,
}

const OPEN: u8 = 0;
/// Nothing more comes; what is there may be read.
const WRITER_CLOSED: u8 = 1;
/// Nobody reads any more.
const READER_CLOSED: u8 = 2;
/// It is over for both.
const ABORTED: u8 = 3;

impl Queue {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let (producer, consumer) = ring();
        let input = InputState {
            ring: producer,
            messages: 0,
            bytes: 0,
            taken_messages: 0,
            taken_bytes: 0,
            readers: Waiters::default(),
        };
        let output = OutputState {
            ring: consumer,
            writers: Waiters::default(),
            sleepers: Waiters::default(),
        };
        Self {
            bounds,
            fate: AtomicU8::new(OPEN),
            told: OnceLock::new(),
            #[cfg(feature = "tcp")]
            ending: Latch::new(Waiters::default()),
            input: Line(Input {
                locked: Latch::new(input),
                messages: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                waits: AtomicU64::new(0),
            }),
            output: Line(Output {
                locked: Latch::new(output),
                messages: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
            }),
        }
    }

    /// Takes the message if there is room; says whether it did.
    #[inline]
    pub(crate) fn push(&self, message: &mut Option<Payload>) -> Result<bool> {
        let len = message.as_ref().map_or(0, Payload::len);
        let Some(room) = self.room_for(len)? else { return Ok(false) };
        if let Some(message) = message.take() {
            room.put(message);
        }
        Ok(true)
    }

    /// The same without waking anybody: whoever pushes so wakes the readers before it waits for
    /// anything itself ([`Self::wake_readers`]). A reader on another processor that is woken for the
    /// first of many takes them one by one, and sleeps again in between.
    #[cfg(feature = "quic")]
    pub(crate) fn push_quietly(&self, message: &mut Option<Payload>) -> Result<bool> {
        let len = message.as_ref().map_or(0, Payload::len);
        let Some(mut room) = self.room_for(len)? else { return Ok(false) };
        if let Some(message) = message.take() {
            room.fill(message);
        }
        Ok(true)
    }

    /// The right to push one message of this length, if there is room for it now.
    #[inline]
    pub(crate) fn room_for(&self, len: usize) -> Result<Option<Room<'_>>> {
        if len > self.bounds.message_len {
            return Err(Error::TooLong { len, limit: self.bounds.message_len });
        }
        let mut input = self.input();
        if self.fate.load(Ordering::Acquire) != OPEN {
            drop(input);
            return Err(self.told_to_writer());
        }
        if !input.has_room(self.bounds, len) {
            // Acquire: the slots that were emptied before may be filled again.
            input.taken_messages = self.output.0.messages.load(Ordering::Acquire);
            input.taken_bytes = self.output.0.bytes.load(Ordering::Acquire);
            if !input.has_room(self.bounds, len) {
                return Ok(None);
            }
        }
        Ok(Some(Room { queue: self, input, len }))
    }

    /// Takes out who waits, gives the lock back, and wakes them.
    #[cold]
    fn wake_after<T>(mut held: Held<'_, T>, take: impl FnOnce(&mut T) -> [Option<Waiters>; 2]) {
        let waiters = take(&mut held);
        drop(held);
        waiters.into_iter().flatten().for_each(Waiters::wake);
    }

    /// Messages and bytes that were popped, for whoever holds the lock of those who pop.
    #[inline]
    fn popped(&self) -> (u64, u64) {
        let Output { messages, bytes, .. } = &self.output.0;
        (messages.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed))
    }

    /// The next message, if there is one.
    #[inline]
    pub(crate) fn pop(&self) -> Result<Option<Payload>> {
        let mut output = self.output();
        let fate = self.fate.load(Ordering::Acquire);
        if fate >= READER_CLOSED {
            drop(output);
            return Err(self.told_to_reader());
        }
        let Some(message) = output.ring.pop() else {
            if !output.sleepers.is_empty() {
                Self::wake_after(output, |output| [output.sleepers.take(), None]);
            }
            // The ring was looked at after the fate: nothing was pushed in between.
            return if fate == OPEN { Ok(None) } else { Err(self.told_to_reader()) };
        };
        let (messages, bytes) = self.popped();
        self.output.0.messages.store(messages + 1, Ordering::Release);
        self.output.0.bytes.store(bytes + message.len() as u64, Ordering::Release);
        if !output.writers.is_empty() || !output.sleepers.is_empty() {
            Self::wake_after(output, |output| [output.writers.take(), self.roused(output)]);
        }
        Ok(Some(message))
    }

    /// Whether a message may be as long as this.
    #[cfg(feature = "tcp")]
    pub(crate) fn check_len(&self, len: usize) -> Result<()> {
        let limit = self.bounds.message_len;
        if len > limit { Err(Error::TooLong { len, limit }) } else { Ok(()) }
    }

    /// Whether everything that was pushed so far was popped.
    #[cfg(feature = "tcp")]
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        let popped = self.output.0.messages.load(Ordering::Acquire);
        self.input.0.messages.load(Ordering::Acquire) == popped
    }

    /// As soon as there is something to pop, without popping it; an error when there never will be.
    #[cfg(feature = "tcp")]
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let fate = self.fate.load(Ordering::Acquire);
            if fate >= READER_CLOSED {
                return Poll::Ready(Err(self.told_to_reader()));
            }
            if !self.is_idle() {
                return Poll::Ready(Ok(()));
            }
            if fate != OPEN {
                return Poll::Ready(Err(self.told_to_reader()));
            }
            if self.wait_for_message(cx.waker()) {
                return Poll::Pending;
            }
        }
    }

    /// Has those who wait for a message look around.
    #[cfg(feature = "tcp")]
    pub(crate) fn wake_readers(&self) {
        let readers = self.input().readers.take();
        if let Some(readers) = readers {
            readers.wake();
        }
    }

    /// Pushes now, or has the task woken when there may be room.
    pub(crate) fn poll_push(
        &self,
        cx: &mut Context<'_>,
        message: &mut Option<Payload>,
    ) -> Poll<Result<()>> {
        loop {
            match self.push(message) {
                Ok(true) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
                Ok(false) => {
                    let len = message.as_ref().map_or(0, Payload::len);
                    if self.wait_for_room(len, cx.waker()) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Pops now, or has the task woken when there may be a message.
    pub(crate) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Result<Payload>> {
        loop {
            match self.pop() {
                Ok(Some(message)) => return Poll::Ready(Ok(message)),
                Err(error) => return Poll::Ready(Err(error)),
                Ok(None) if self.wait_for_message(cx.waker()) => return Poll::Pending,
                Ok(None) => {}
            }
        }
    }

    /// Registers a thread that sleeps until there is much room: it is woken when an eighth of the
    /// bound is free, or nothing is left, and otherwise has to look for itself now and then. Waking
    /// it for each message would mean a system call for each, on both sides.
    pub(crate) fn wait_for_much_room(&self, message: &Option<Payload>, waker: &Waker) -> bool {
        self.register(message.as_ref().map_or(0, Payload::len), |output| {
            output.sleepers.add(waker);
        })
    }

    /// Whether a sender that found it full had better go on now: there is room for some messages, or
    /// nothing to wait for. Taking each place as it becomes free would have both sides pull at the
    /// same few cache lines for every message, which takes twice as long (measured).
    pub(crate) fn has_some_room(&self) -> bool {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let popped = load(&self.output.0.messages);
        let held = load(&self.input.0.messages).saturating_sub(popped);
        let bound = self.bounds.messages as u64;
        held <= bound - bound / 32 || !self.is_open()
    }

    /// The sleepers, if there is enough room to wake them for.
    #[cold]
    fn roused(&self, output: &mut OutputState) -> Option<Waiters> {
        let (messages, bytes) = self.popped();
        let held = self.input.0.messages.load(Ordering::Acquire).saturating_sub(messages);
        let bytes = self.input.0.bytes.load(Ordering::Acquire).saturating_sub(bytes);
        if output.sleepers.is_empty() {
            return None;
        }
        let eighth = |bound: usize| (bound - bound / 8) as u64;
        let much = held <= eighth(self.bounds.messages) && bytes <= eighth(self.bounds.bytes);
        if much { output.sleepers.take() } else { None }
    }

    /// Q3. Registers for room; false when it is worth looking again.
    fn wait_for_room(&self, len: usize, waker: &Waker) -> bool {
        self.register(len, |output| output.writers.add(waker))
    }

    fn register(&self, len: usize, add: impl FnOnce(&mut OutputState)) -> bool {
        let mut output = self.output();
        let (messages, bytes) = self.popped();
        let held = self.input.0.messages.load(Ordering::Acquire).saturating_sub(messages);
        let bytes = self.input.0.bytes.load(Ordering::Acquire).saturating_sub(bytes);
        // What others have just pushed may not be counted yet: then there seems to be more room
        // than there is, and the caller looks again.
        let room = has_room(self.bounds, held, bytes, len);
        if room || self.fate.load(Ordering::Acquire) != OPEN {
            return false;
        }
        add(&mut output);
        self.input.0.waits.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Q3. Registers for a message; false when it is worth looking again.
    fn wait_for_message(&self, waker: &Waker) -> bool {
        let mut input = self.input();
        // What others have just popped may not be counted yet: then there seems to be a message
        // where there is none, and the caller looks again.
        let taken = self.output.0.messages.load(Ordering::Acquire);
        if input.messages != taken || self.fate.load(Ordering::Acquire) != OPEN {
            return false;
        }
        input.readers.add(waker);
        true
    }

    /// Nothing more will be pushed; what is there is still popped.
    pub(crate) fn close_writer(&self, writer_told: Why, reader_told: Why) {
        self.end(WRITER_CLOSED, writer_told, reader_told);
    }

    /// Nothing more will be popped.
    pub(crate) fn close_reader(&self, writer_told: Why, reader_told: Why) {
        self.end(READER_CLOSED, writer_told, reader_told);
    }

    /// Neither.
    pub(crate) fn abort(&self, writer_told: Why, reader_told: Why) {
        self.end(ABORTED, writer_told, reader_told);
    }

    /// Q4. A later end counts only where it is worse, and does not change what was told before.
    fn end(&self, fate: u8, writer_told: Why, reader_told: Why) {
        let _ = self.told.set(Box::new(Told { reader: reader_told, writer: writer_told }));
        // Under the lock of those who push: a push that was taken came before the end.
        let mut input = self.input();
        self.fate.fetch_max(fate, Ordering::AcqRel);
        let readers = input.readers.take();
        drop(input);
        let mut output = self.output();
        let (writers, sleepers) = (output.writers.take(), output.sleepers.take());
        let mut dropped = Vec::new();
        if self.fate.load(Ordering::Acquire) >= READER_CLOSED {
            let (mut messages, mut bytes) = self.popped();
            while let Some(message) = output.ring.pop() {
                messages += 1;
                bytes += message.len() as u64;
                dropped.push(message);
            }
            self.output.0.messages.store(messages, Ordering::Release);
            self.output.0.bytes.store(bytes, Ordering::Release);
        }
        drop(output);
        // Their owners may have something to do: not under the lock.
        drop(dropped);
        #[cfg(feature = "tcp")]
        let ending = self.ending.lock().take();
        #[cfg(not(feature = "tcp"))]
        let ending = None;
        for waiters in [readers, writers, sleepers, ending].into_iter().flatten() {
            waiters.wake();
        }
    }

    /// Ready as soon as the queue is not open any more.
    #[cfg(feature = "tcp")]
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_open() {
            let mut ending = self.ending.lock();
            // Whoever ends the queue takes this lock after it: one of the two sees the other.
            if self.is_open() {
                ending.add(cx.waker());
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.fate.load(Ordering::Acquire) == OPEN
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.fate.load(Ordering::Acquire) == ABORTED
    }

    /// Messages and bytes that were pushed, and popped.
    pub(crate) fn counts(&self) -> Counts {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        // What was popped first: it must not seem more than what was pushed.
        let (popped, bytes_popped) = (load(&self.output.0.messages), load(&self.output.0.bytes));
        Counts {
            popped,
            bytes_popped,
            pushed: load(&self.input.0.messages).max(popped),
            bytes_pushed: load(&self.input.0.bytes).max(bytes_popped),
            waits: load(&self.input.0.waits),
        }
    }

    pub(crate) fn told_to_writer(&self) -> Error {
        Error::closed(self.told.get().map_or(Why::ClosedByPeer, |told| told.writer.clone()))
    }

    fn told_to_reader(&self) -> Error {
        Error::closed(self.told.get().map_or(Why::ClosedByPeer, |told| told.reader.clone()))
    }

    #[inline]
    fn input(&self) -> Held<'_, InputState> {
        self.input.0.locked.lock()
    }

    #[inline]
    fn output(&self) -> Held<'_, OutputState> {
        self.output.0.locked.lock()
    }
}

/// Room for one message, for whoever holds this.
pub(crate) struct Room<'q> {
    queue: &'q Queue,
    input: Held<'q, InputState>,
    len: usize,
}

impl Room<'_> {
    /// Once, and then somebody has to be woken.
    #[inline]
    fn fill(&mut self, message: Payload) {
        let Self { queue, input, len } = self;
        input.ring.push(message);
        input.messages += 1;
        input.bytes += *len as u64;
        queue.input.0.messages.store(input.messages, Ordering::Release);
        queue.input.0.bytes.store(input.bytes, Ordering::Release);
    }

    #[inline]
    pub(crate) fn put(mut self, message: Payload) {
        self.fill(message);
        let mut input = self.input;
        if let Some(reader) = input.readers.take_only() {
            drop(input);
            reader.wake();
        } else if !input.readers.is_empty() {
            Queue::wake_after(input, |input| [input.readers.take(), None]);
        }
    }
}

/// What has passed through a queue.
pub(crate) struct Counts {
    pub(crate) pushed: u64,
    pub(crate) bytes_pushed: u64,
    pub(crate) popped: u64,
    pub(crate) bytes_popped: u64,
    pub(crate) waits: u64,
}

impl InputState {
    #[inline]
    fn has_room(&self, bounds: Bounds, len: usize) -> bool {
        let held = self.messages.saturating_sub(self.taken_messages);
        has_room(bounds, held, self.bytes.saturating_sub(self.taken_bytes), len)
    }
}

/// Q1.
#[inline]
fn has_room(bounds: Bounds, held: u64, bytes: u64, len: usize) -> bool {
    let fits = bytes.saturating_add(len as u64) <= bounds.bytes as u64;
    held < bounds.messages as u64 && (fits || held == 0)
}

#[cfg(test)]
mod tests;
