//! What passes in one direction, moved by a thread of its own, and when.

use super::Faults;
use crate::{Bytes, Channel, Payload, Result, Why, park::Parker, queue::Queue};
use mainstay_base::Rng;
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::{Duration, Instant},
};

/// How long a pump waits before it looks whether its channel still lives.
const LOOK: Duration = Duration::from_millis(20);

/// What both pumps look at.
pub(super) struct Weather {
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) outgoing_cut: bool,
    pub(super) incoming_cut: bool,
    pub(super) over: bool,
}

impl Weather {
    // No code that could panic runs in the middle of a change.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }

    /// Waits while `cut` says so and until `due`; false when it is over.
    fn pass(&self, due: Instant, cut: impl Fn(&State) -> bool) -> bool {
        let mut state = self.state();
        loop {
            if state.over {
                return false;
            }
            let now = Instant::now();
            let wait = if cut(&state) { LOOK } else { due.saturating_duration_since(now) };
            if wait.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One direction, moved by a thread of its own.
pub(super) struct Link<C> {
    pub(super) inner: Arc<C>,
    pub(super) outgoing: Arc<Queue>,
    pub(super) incoming: Arc<Queue>,
    pub(super) weather: Arc<Weather>,
    pub(super) faults: Faults,
    pub(super) rng: Rng,
    /// How many messages of this direction until the connection breaks, if it will.
    pub(super) until_break: Option<u64>,
    /// When the slow link has passed on what came before.
    pub(super) free_at: Instant,
}

impl<C: Channel> Link<C> {
    /// When a message that comes now has passed.
    fn due(&mut self, len: usize) -> Instant {
        let jitter_ns = u64::try_from(self.faults.jitter.as_nanos()).unwrap_or(u64::MAX);
        let late = self.faults.delay + Duration::from_nanos(self.rng.below(jitter_ns));
        let now = Instant::now();
        let passing = self.faults.bytes_per_second.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(len as f64 / rate.max(1) as f64)
        });
        self.free_at = self.free_at.max(now) + passing;
        self.free_at + late
    }

    pub(super) fn pump_out(&mut self) {
        loop {
            match self.next_to_send() {
                Ok(Some(message)) => {
                    let due = self.due(message.len());
                    if !self.weather.pass(due, |state| state.outgoing_cut) || self.lost() {
                        return;
                    }
                    if let Err(error) = self.inner.send(message) {
                        return self.ended(&error);
                    }
                }
                Ok(None) if self.weather.state().over => return,
                Ok(None) => {}
                Err(_) => {
                    if self.outgoing.is_aborted() {
                        self.inner.abort();
                    } else {
                        self.inner.close();
                    }
                    return self.weather.end();
                }
            }
        }
    }

    /// The next message that is to go out; none for a while means: look around.
    fn next_to_send(&self) -> Result<Option<Bytes>> {
        let deadline = Instant::now() + LOOK;
        Parker::with(|parker| {
            while Instant::now() < deadline {
                match self.outgoing.poll_pop(&mut parker.context()) {
                    Poll::Ready(popped) => return popped.map(|m| Some(m.into_bytes())),
                    Poll::Pending => parker.park(Some(deadline)),
                }
            }
            Ok(None)
        })
    }

    pub(super) fn pump_in(&mut self) {
        loop {
            match self.inner.receive(LOOK) {
                Ok(Some(message)) => {
                    let due = self.due(message.len());
                    if !self.weather.pass(due, |state| state.incoming_cut) || self.lost() {
                        return;
                    }
                    let mut message = Some(Payload::One(message));
                    let pushed = Parker::with(|parker| {
                        loop {
                            match self.incoming.poll_push(&mut parker.context(), &mut message) {
                                Poll::Ready(pushed) => break pushed,
                                Poll::Pending => parker.park(None),
                            }
                        }
                    });
                    if pushed.is_err() {
                        return;
                    }
                }
                Ok(None) if self.weather.state().over => return,
                Ok(None) => {}
                Err(error) => return self.ended(&error),
            }
        }
    }

    /// Counts a message. Whether the connection breaks with it; then it is broken.
    fn lost(&mut self) -> bool {
        let Some(left) = &mut self.until_break else { return false };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return false;
        }
        let why = Why::Lost { what: "on purpose".to_owned() };
        // In this order for the same reason as in [`Faulty::lose`].
        self.incoming.abort(why.clone(), why.clone());
        self.outgoing.abort(why.clone(), why);
        self.inner.abort();
        self.weather.end();
        true
    }

    /// The inner channel has ended: so does this one, in the same way.
    fn ended(&self, error: &crate::Error) {
        let why = match error {
            crate::Error::ChannelClosed { why } => why.clone(),
            other => Why::Lost { what: other.to_string() },
        };
        if why == Why::ClosedByPeer {
            self.outgoing.close_reader(why.clone(), why.clone());
            self.incoming.close_writer(why.clone(), why);
        } else {
            self.outgoing.abort(why.clone(), why.clone());
            self.incoming.abort(why.clone(), why);
        }
    }
}
