//! Threads that wait on behalf of others: for descriptors where io_uring is refused, and for tasks of
//! any runtime. Each sleeps on the words of up to 120 states.
//!
//! B1. Who has been told is not waited for until it asks again: a state that changes at full speed
//!     costs its watchers one wake-up each, and its writers none beyond that.
//! B2. What was asked for is looked at after the state is armed for it (N1 in `watch.rs`), so no
//!     change is slept through.

use crate::{
    Error, Result,
    draft::now,
    memory::Memory,
    watch::{RECHECK, arm},
};
use mainstay_shm::{
    Shared32,
    fork::{Epoch, Hold},
    futex,
};
use rustix::event::{EventfdFlags, eventfd};
use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, atomic::Ordering::SeqCst},
    task::Waker,
    thread,
    time::{Duration, Instant},
};

/// Sleepers of one thread: one place of the kernel's 128 is for its own word.
const SLEEPERS_PER_THREAD: usize = 120;
/// How long a thread sleeps that nobody has asked for anything.
const IDLE: Duration = Duration::from_secs(3_600);

/// One who is waited for; until it is dropped.
#[derive(Debug)]
pub(crate) struct Sleeper {
    seat: Arc<Seat>,
    bridge: Arc<Bridge>,
}

#[derive(Debug)]
struct Seat {
    memory: Arc<Memory>,
    wanted: Mutex<Option<Wanted>>,
}

/// What is waited for: a version that is not `seen`, but not before `due`.
#[derive(Debug)]
struct Wanted {
    seen: u64,
    due: Option<Instant>,
    bell: Bell,
}

/// How one is told.
#[derive(Clone, Debug)]
pub(crate) enum Bell {
    /// By an eventfd.
    Event(Arc<OwnedFd>),
    /// By the waker of its task.
    Task(Waker),
}

impl Bell {
    /// An eventfd.
    pub(crate) fn event() -> Result<Arc<OwnedFd>> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        event.map(Arc::new).map_err(|error| refused("make an eventfd", error.into()))
    }

    fn ring(self) {
        match self {
            Self::Event(event) => {
                // Fails only when the counter is full, and then it is readable anyway.
                let _ = rustix::io::write(&event, &1_u64.to_le_bytes());
            }
            Self::Task(waker) => waker.wake(),
        }
    }
}

pub(crate) fn refused(action: &'static str, source: std::io::Error) -> Error {
    let hint = "use the blocking wait, or raise the limits on open files and threads";
    Error::Watch { action, source, hint }
}

/// A panic elsewhere leaves none of these half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sleeper {
    /// A seat at a thread that has one left, or at a new one.
    pub(crate) fn new(memory: &Arc<Memory>) -> Result<Self> {
        static BRIDGES: OnceLock<Mutex<Vec<Arc<Bridge>>>> = OnceLock::new();
        let seat = Arc::new(Seat { memory: Arc::clone(memory), wanted: Mutex::default() });
        // Or a child forked meanwhile would find the list locked for ever.
        let _hold = Hold::new();
        let mut bridges = locked(BRIDGES.get_or_init(Mutex::default));
        // A child has its parent's list, and none of the threads.
        bridges.retain(|bridge| bridge.epoch.is_current());
        let with_room = bridges.iter().find(|bridge| bridge.add(&seat));
        let bridge = match with_room {
            Some(bridge) => Arc::clone(bridge),
            None => {
                let bridge = Bridge::start()?;
                bridge.add(&seat);
                bridges.push(Arc::clone(&bridge));
                bridge
            }
        };
        Ok(Self { seat, bridge })
    }

    /// Rings once there is a version that is not `seen`, but not before `due`; instead of what was
    /// asked for before.
    pub(crate) fn wait_for(&self, seen: u64, due: Option<Instant>, bell: Bell) {
        *locked(&self.seat.wanted) = Some(Wanted { seen, due, bell });
        self.bridge.look_again();
    }

    /// Does not ring any more.
    pub(crate) fn cancel(&self) {
        *locked(&self.seat.wanted) = None;
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.cancel();
        // The thread lets go of the state.
        self.bridge.look_again();
    }
}

impl Seat {
    /// Rings when what is wanted is there; else returns until when to sleep, and on which value of
    /// the change word, if on any.
    fn attend(&self, now_is: Instant) -> Option<(Option<u32>, Duration)> {
        let mut wanted = locked(&self.wanted);
        let Wanted { seen, due, .. } = wanted.as_ref()?;
        let early = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now_is));
        if !early.is_zero() {
            return Some((None, early));
        }
        let change = arm(&self.memory);
        // Also when the state cannot be read any more: that is news.
        if now(&self.memory).is_ok_and(|plain| plain.version() == *seen) {
            return Some((Some(change), RECHECK));
        }
        let told = wanted.take();
        drop(wanted);
        told.map(|wanted| wanted.bell)?.ring();
        None
    }
}

/// One thread, and whom it waits for.
#[derive(Debug)]
struct Bridge {
    seats: Mutex<Vec<Weak<Seat>>>,
    /// Changed to make the thread look again.
    control: Shared32,
    epoch: Epoch,
}

impl Bridge {
    fn start() -> Result<Arc<Self>> {
        let (seats, control) = (Mutex::default(), Shared32::new(0));
        let bridge = Arc::new(Self { seats, control, epoch: Epoch::now() });
        let runs = Arc::clone(&bridge);
        thread::Builder::new()
            .name("mainstay-watch".into())
            .spawn(move || runs.run())
            .map_err(|source| refused("start a thread", source))?;
        Ok(bridge)
    }

    /// Takes a seat; false when all are taken.
    fn add(&self, seat: &Arc<Seat>) -> bool {
        let mut seats = locked(&self.seats);
        seats.retain(|known| known.strong_count() > 0);
        let has_room = seats.len() < SLEEPERS_PER_THREAD;
        if has_room {
            seats.push(Arc::downgrade(seat));
        }
        has_room
    }

    fn look_again(&self) {
        self.control.increment(SeqCst);
        futex::wake_all(&self.control);
    }

    fn run(&self) {
        loop {
            let control = self.control.load(SeqCst);
            let seats: Vec<Arc<Seat>> =
                locked(&self.seats).iter().filter_map(Weak::upgrade).collect();
            let mut words = vec![(&self.control, control)];
            let mut longest = IDLE;
            let now_is = Instant::now();
            for seat in &seats {
                let Some((change, until)) = seat.attend(now_is) else { continue };
                longest = longest.min(until);
                words.extend(change.map(|change| (&seat.memory.words().change, change)));
            }
            futex::wait_any(&words, longest);
        }
    }
}
