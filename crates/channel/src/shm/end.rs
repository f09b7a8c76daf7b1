//! One process's end of a channel in shared memory.
//!
//! M1. An end writes its own ring and its own words only; of the other's words it rings the bell
//!     and clears `waits`.
//! M2. A frame is whole in the ring before its last bytes are announced; what does not fit at once
//!     is kept here and written on as room appears, before anything else.
//! M3. No wake-up is lost: who sleeps has set `waits` and looked again; who changes something looks
//!     at `waits` after it. Both are sequentially consistent.
//! M4. The peer is dead when its lease is gone, and never because time has passed.
//! M5. In a child made by fork there is no channel, and it is told so.

use super::layout::{ABORTED, CLOSED, Header, OPEN, Side, Words, words};
use crate::{
    Bytes, Error, Payload, Result, Why,
    frame::{Decoder, Frame, HEADER_LEN, Kind, header},
    limits::LINGER,
    statistics::Counters,
    waiters::Waiters,
};
use mainstay_shm::{Atomic64, Backing, Mapping, fork::Epoch, futex, lease::Prober};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::Ordering::{Acquire, Relaxed, SeqCst},
    },
    task::Waker,
    time::{Duration, Instant},
};

/// How often a sleeper looks whether the peer still lives.
const LEASE_LOOK: Duration = Duration::from_millis(50);
/// How long a helper without work stays.
const HELPER_IDLE: Duration = Duration::from_secs(1);
/// What is read ahead of the user at most, unless one message is longer.
const AHEAD: usize = 16 << 10;

pub(super) struct End {
    pub(super) mapping: Mapping,
    pub(super) backing: Backing,
    pub(super) header: Header,
    pub(super) side: Side,
    epoch: Epoch,
    writer: Mutex<Writer>,
    reader: Mutex<Reader>,
    tasks: Mutex<Tasks>,
    why: OnceLock<Why>,
    pub(super) counters: Counters,
}

#[derive(Default)]
struct Writer {
    tail: u64,
    sent: u64,
    /// What is left of a frame that did not fit (M2).
    pending: VecDeque<Bytes>,
    /// Closed by the user; announced when nothing is pending.
    closing: bool,
}

struct Reader {
    head: u64,
    taken: u64,
    decoder: Decoder,
}

#[derive(Default)]
struct Tasks {
    waiters: Waiters,
    helped: bool,
}

/// What an attempt came to.
enum Fit {
    Whole,
    Begun,
    Full,
}

impl End {
    pub(super) fn new(mapping: Mapping, backing: Backing, header: Header, side: Side) -> Self {
        let len_max = usize::try_from(header.message_len).unwrap_or(usize::MAX);
        Self {
            mapping,
            backing,
            header,
            side,
            epoch: Epoch::now(),
            writer: Mutex::default(),
            reader: Mutex::new(Reader { head: 0, taken: 0, decoder: Decoder::new(len_max) }),
            tasks: Mutex::default(),
            why: OnceLock::new(),
            counters: Counters::default(),
        }
    }

    fn ours(&self) -> Result<Words<'_>> {
        if !self.epoch.is_current() {
            let what = "it was made before this process was forked".to_owned();
            return Err(Error::closed(Why::Lost { what }));
        }
        words(&self.mapping, self.side)
    }

    fn theirs(&self) -> Result<Words<'_>> {
        words(&self.mapping, self.side.other())
    }

    /// Takes the message if there is room; says whether it did.
    pub(super) fn push(self: &Arc<Self>, message: &mut Option<Payload>) -> Result<bool> {
        let len = message.as_ref().map_or(0, Payload::len);
        let limit = usize::try_from(self.header.message_len).unwrap_or(usize::MAX);
        if len > limit {
            return Err(Error::TooLong { len, limit });
        }
        let (ours, theirs) = (self.ours()?, self.theirs()?);
        let mut writer = lock(&self.writer);
        if ours.ended.load(Relaxed) != OPEN || writer.closing || theirs.ended.load(Acquire) != OPEN
        {
            return Err(self.closed());
        }
        self.write_on(&mut writer, &ours, &theirs)?;
        if !writer.pending.is_empty() {
            return Ok(false);
        }
        let Some(payload) = message else { return Ok(true) };
        match self.fits(&writer, &theirs, len)? {
            Fit::Full => return Ok(false),
            Fit::Whole | Fit::Begun => {}
        }
        let frame = header(Kind::Message, payload.parts());
        let parts: &[Bytes] = payload.parts();
        let first = self.copy_in(&mut writer, &theirs, &frame)?;
        if first == HEADER_LEN {
            for part in parts {
                let done = if writer.pending.is_empty() {
                    self.copy_in(&mut writer, &theirs, part)?
                } else {
                    0
                };
                if done < part.len() {
                    writer.pending.push_back(part.slice(done..));
                }
            }
        }
        *message = None;
        writer.sent += 1;
        let is_pending = !writer.pending.is_empty();
        self.announce(&writer, &ours, &theirs);
        drop(writer);
        self.counters.sent(len);
        if is_pending {
            self.help(ours.bell.load(SeqCst).wrapping_sub(1));
        }
        Ok(true)
    }

    fn fits(&self, writer: &Writer, theirs: &Words<'_>, len: usize) -> Result<Fit> {
        let Some(in_ring) = writer.sent.checked_sub(theirs.taken.load(Acquire)) else {
            return Err(self.damaged("more messages taken than were sent"));
        };
        let free = self.free(writer, theirs)?;
        let frame = (len + HEADER_LEN) as u64;
        Ok(if in_ring >= self.header.messages {
            Fit::Full
        } else if frame <= free {
            Fit::Whole
        } else if frame > self.header.capacity / 2 && in_ring == 0 && free >= HEADER_LEN as u64 {
            // A message as long as this would wait for ever to fit as a whole.
            Fit::Begun
        } else {
            Fit::Full
        })
    }

    /// L1. How many bytes of our ring the peer has emptied.
    fn free(&self, writer: &Writer, theirs: &Words<'_>) -> Result<u64> {
        let held = writer.tail.checked_sub(theirs.head.load(Acquire));
        match held.and_then(|held| self.header.capacity.checked_sub(held)) {
            Some(free) => Ok(free),
            None => Err(self.damaged("more bytes read than were written")),
        }
    }

    /// Copies as much as fits, without announcing it; says how much that was.
    fn copy_in(&self, writer: &mut Writer, theirs: &Words<'_>, bytes: &[u8]) -> Result<usize> {
        let free = usize::try_from(self.free(writer, theirs)?).unwrap_or(usize::MAX);
        let fitting = &bytes[..bytes.len().min(free)];
        let (at, until_end) = self.place(writer.tail, self.side);
        let (first, second) = fitting.split_at(fitting.len().min(until_end));
        self.mapping.write(at, first)?;
        if !second.is_empty() {
            self.mapping.write(self.side.ring_at(self.header.capacity), second)?;
        }
        writer.tail += fitting.len() as u64;
        Ok(fitting.len())
    }

    /// Where in the memory a position of a ring is, and how far it is from there to the ring's end.
    fn place(&self, position: u64, side: Side) -> (usize, usize) {
        let offset = position & (self.header.capacity - 1);
        let until_end = self.header.capacity - offset;
        let narrow = |number| usize::try_from(number).unwrap_or(usize::MAX);
        (side.ring_at(self.header.capacity) + narrow(offset), narrow(until_end))
    }

    /// M2, M3. The peer may see what was written.
    fn announce(&self, writer: &Writer, ours: &Words<'_>, theirs: &Words<'_>) {
        ours.sent.store(writer.sent, Relaxed);
        ours.tail.store(writer.tail, SeqCst);
        ring_if_awaited(theirs);
    }

    /// M2. Goes on with what did not fit.
    fn write_on(&self, writer: &mut Writer, ours: &Words<'_>, theirs: &Words<'_>) -> Result<()> {
        let mut moved = false;
        while let Some(mut part) = writer.pending.pop_front() {
            let done = self.copy_in(writer, theirs, &part)?;
            moved |= done > 0;
            if done < part.len() {
                writer.pending.push_front(part.split_off(done));
                break;
            }
        }
        if moved {
            self.announce(writer, ours, theirs);
        }
        if writer.closing && writer.pending.is_empty() && ours.ended.load(Relaxed) == OPEN {
            ours.ended.store(CLOSED, SeqCst);
            ring(theirs);
        }
        Ok(())
    }

    /// The next message, if there is one.
    pub(super) fn pop(&self) -> Result<Option<Bytes>> {
        let (ours, theirs) = (self.ours()?, self.theirs()?);
        if ours.ended.load(Relaxed) != OPEN || theirs.ended.load(Acquire) == ABORTED {
            return Err(self.closed());
        }
        let mut reader = lock(&self.reader);
        loop {
            match reader.decoder.next_frame() {
                Ok(Some(Frame { kind: Kind::Message, payload })) => {
                    reader.taken += 1;
                    ours.taken.store(reader.taken, SeqCst);
                    drop(reader);
                    ring_if_awaited(&theirs);
                    self.counters.received(payload.len());
                    return Ok(Some(payload));
                }
                Ok(Some(Frame { kind, .. })) => {
                    return Err(self.broken(crate::frame::FrameError::Unexpected { kind }));
                }
                Ok(None) => {}
                Err(error) => return Err(self.broken(error)),
            }
            // Read before the tail: nothing is written after it is set.
            let ended = theirs.ended.load(Acquire);
            if !self.copy_out(&mut reader, &ours, &theirs)? {
                return if ended == OPEN { Ok(None) } else { Err(self.closed()) };
            }
        }
    }

    /// Moves bytes from the peer's ring to the decoder; false when there are none.
    fn copy_out(&self, reader: &mut Reader, ours: &Words<'_>, theirs: &Words<'_>) -> Result<bool> {
        // L1.
        let waiting = theirs.tail.load(Acquire).checked_sub(reader.head);
        let Some(waiting) = waiting.filter(|waiting| *waiting <= self.header.capacity) else {
            return Err(self.damaged("more bytes written than the ring holds"));
        };
        let len = usize::try_from(waiting).unwrap_or(usize::MAX).min(reader.decoder.wanted(AHEAD));
        if len == 0 {
            return Ok(false);
        }
        let (at, until_end) = self.place(reader.head, self.side.other());
        let start = self.side.other().ring_at(self.header.capacity);
        let first = len.min(until_end);
        reader.decoder.fill(len, |target| {
            let (one, two) = target.split_at_mut(first);
            self.mapping.read(at, one)?;
            if two.is_empty() { Ok(()) } else { self.mapping.read(start, two) }
        })?;
        reader.head += len as u64;
        ours.head.store(reader.head, SeqCst);
        ring_if_awaited(theirs);
        Ok(true)
    }

    /// Announces that somebody here is about to sleep; returns what the bell was.
    pub(super) fn about_to_sleep(&self) -> Result<u32> {
        let ours = self.ours()?;
        let seen = ours.bell.load(SeqCst);
        ours.waits.store(1, SeqCst);
        Ok(seen)
    }

    /// Sleeps until the bell rings, at most `time`; M4: looks after the peer now and then.
    pub(super) fn sleep(&self, seen: u32, time: Duration) -> Result<()> {
        let ours = self.ours()?;
        if !futex::wait(ours.bell, seen, time.min(LEASE_LOOK)) && time >= LEASE_LOOK {
            self.look_after_peer()?;
        }
        Ok(())
    }

    /// Sleeps until the bell rings, before there is a peer.
    pub(super) fn sleep_alone(&self, seen: u32, time: Duration) -> Result<()> {
        futex::wait(self.ours()?.bell, seen, time.min(LEASE_LOOK));
        Ok(())
    }

    /// Tells the creator that somebody has joined.
    pub(super) fn greet(&self) {
        if let Ok(theirs) = self.theirs() {
            ring(&theirs);
        }
    }

    /// M4.
    fn look_after_peer(&self) -> Result<()> {
        let theirs = self.theirs()?;
        let alive = Prober::new(&self.backing)?.is_alive(self.side.other().slot())?;
        if !alive && theirs.ended.load(Acquire) == OPEN {
            self.give_up(Why::Lost { what: "the peer's process is gone".to_owned() });
        }
        Ok(())
    }

    /// Has `waker` called at the next ring of the bell, which was `seen`.
    pub(super) fn wake_later(self: &Arc<Self>, waker: &Waker, seen: u32) {
        lock(&self.tasks).waiters.add(waker);
        self.help(seen);
    }

    /// Sees to it that a thread listens for the bell, from `seen` on, for tasks that cannot.
    fn help(self: &Arc<Self>, seen: u32) {
        let mut tasks = lock(&self.tasks);
        if tasks.helped {
            return;
        }
        let end = Arc::clone(self);
        let thread = std::thread::Builder::new().name("mainstay-shm".to_owned());
        tasks.helped = thread.spawn(move || end.listen(seen)).is_ok();
        if !tasks.helped {
            // Without a helper those who wait look again at once: slow, and not stuck.
            let waiters = std::mem::take(&mut tasks.waiters);
            drop(tasks);
            waiters.wake();
        }
    }

    fn listen(&self, mut heard: u32) {
        let mut idle_since = Instant::now();
        let mut closing_since = None;
        loop {
            let (Ok(ours), Ok(theirs)) = (self.ours(), self.theirs()) else { return };
            let seen = ours.bell.load(SeqCst);
            ours.waits.store(1, SeqCst);
            let mut writer = lock(&self.writer);
            let pending_before = writer.pending.len();
            let written = self.write_on(&mut writer, &ours, &theirs);
            let (pending, closing) = (writer.pending.len(), writer.closing);
            drop(writer);
            let mut tasks = lock(&self.tasks);
            if seen != heard || written.is_err() || (pending_before > 0 && pending == 0) {
                heard = seen;
                let waiters = tasks.waiters.take();
                drop(tasks);
                if let Some(waiters) = waiters {
                    waiters.wake();
                    idle_since = Instant::now();
                }
                if pending_before > 0 && pending == 0 {
                    ring(&ours);
                }
                continue;
            }
            let ended = ours.ended.load(Relaxed) != OPEN || theirs.ended.load(Acquire) != OPEN;
            let idle = tasks.waiters.is_empty() && (pending == 0 || ended);
            let over = closing && since(&mut closing_since) > LINGER;
            if (idle && (ended || idle_since.elapsed() > HELPER_IDLE)) || over {
                tasks.helped = false;
                return;
            }
            drop(tasks);
            if self.sleep(seen, LEASE_LOOK).is_err() {
                self.give_up(Why::Lost { what: "the shared memory cannot be used".to_owned() });
            }
        }
    }

    /// C4.
    pub(super) fn close(self: &Arc<Self>) {
        let (Ok(ours), Ok(theirs)) = (self.ours(), self.theirs()) else { return };
        let _ = self.why.set(self.why_of_peer(&theirs).unwrap_or(Why::ClosedHere));
        let mut writer = lock(&self.writer);
        writer.closing = true;
        // What is pending is written on by the helper, which then announces the end.
        let _ = self.write_on(&mut writer, &ours, &theirs);
        let is_pending = !writer.pending.is_empty();
        drop(writer);
        if is_pending {
            self.help(ours.bell.load(SeqCst).wrapping_sub(1));
        }
        ring(&ours);
        self.wake_tasks();
    }

    /// C5.
    pub(super) fn abort(&self) {
        self.give_up(Why::AbortedHere);
    }

    fn give_up(&self, why: Why) {
        let (Ok(ours), Ok(theirs)) = (self.ours(), self.theirs()) else { return };
        let _ = self.why.set(why);
        ours.ended.store(ABORTED, SeqCst);
        ring(&ours);
        ring(&theirs);
        self.wake_tasks();
    }

    fn wake_tasks(&self) {
        let waiters = lock(&self.tasks).waiters.take();
        if let Some(waiters) = waiters {
            waiters.wake();
        }
    }

    pub(super) fn is_open(&self) -> bool {
        let open = |words: Result<Words<'_>>| words.is_ok_and(|w| w.ended.load(Acquire) == OPEN);
        open(self.ours()) && open(self.theirs()) && !lock(&self.writer).closing
    }

    /// How many messages of ours the peer has not taken, and of the peer's we have not.
    pub(super) fn waiting(&self) -> (u64, u64) {
        let (Ok(ours), Ok(theirs)) = (self.ours(), self.theirs()) else { return (0, 0) };
        let left = |sender: &Words<'_>, taker: &Words<'_>| {
            let taken = taker.taken.load(Relaxed);
            sender.sent.load(Relaxed).saturating_sub(taken).min(self.header.messages)
        };
        (left(&ours, &theirs), left(&theirs, &ours))
    }

    fn why_of_peer(&self, theirs: &Words<'_>) -> Option<Why> {
        match theirs.ended.load(Acquire) {
            OPEN => None,
            CLOSED => Some(Why::ClosedByPeer),
            _ => Some(Why::AbortedByPeer),
        }
    }

    fn closed(&self) -> Error {
        let peer = self.theirs().ok().and_then(|theirs| self.why_of_peer(&theirs));
        let why = self.why.get().cloned().or(peer).unwrap_or(Why::ClosedHere);
        Error::closed(why)
    }

    fn damaged(&self, what: &str) -> Error {
        let what = format!("the shared memory is damaged: {what}");
        self.give_up(Why::Lost { what });
        self.closed()
    }

    fn broken(&self, error: crate::frame::FrameError) -> Error {
        self.give_up(Why::Protocol(error));
        self.closed()
    }
}

/// M3. After something has changed for them.
fn ring_if_awaited(theirs: &Words<'_>) {
    if theirs.waits.load(SeqCst) != 0 {
        theirs.waits.store(0, SeqCst);
        ring(theirs);
    }
}

fn ring(words: &Words<'_>) {
    words.bell.increment(SeqCst);
    futex::wake_all(words.bell);
}

fn since(start: &mut Option<Instant>) -> Duration {
    start.get_or_insert_with(Instant::now).elapsed()
}

// What these locks guard is whole whenever somebody could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
