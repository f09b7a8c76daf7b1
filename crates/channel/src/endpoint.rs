//! One end of a channel that is made of two queues: in memory, over a network, or with faults.

use crate::{Bytes, Channel, Payload, Peer, Result, Statistics, Why, park::Parker, queue::Queue};
use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// Two queues and who is at the other end. The last one dropped closes the channel.
pub(crate) struct Endpoint {
    pub(crate) outgoing: Arc<Queue>,
    pub(crate) incoming: Arc<Queue>,
    pub(crate) peer: Peer,
    /// How often a thread looks again before it sleeps: worth it where an answer may come within
    /// the time that sleeping takes.
    pub(crate) spins: u32,
}

/// How many times one looks again where the other side is a thread of this process: some
/// microseconds, about what sleeping and waking costs.
pub(crate) const SPINS_MEMORY: u32 = 160;

impl Endpoint {
    /// Looks again for a short while; then the caller has to sleep.
    #[inline]
    fn spin<T>(&self, mut look: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
        const PAUSES: u32 = 100;
        for turn in 0..self.spins {
            if turn < PAUSES {
                (0..1 + turn / 4).for_each(|_| std::hint::spin_loop());
            } else {
                std::thread::yield_now();
            }
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn wait_to_send(&self, message: &mut Option<Payload>) -> Result<()> {
        let push = |message: &mut Option<Payload>| {
            self.outgoing.push(message).map(|done| done.then_some(()))
        };
        if push(message)?.is_some() || self.spin(|| push(message))?.is_some() {
            return Ok(());
        }
        Parker::with(|parker| {
            loop {
                match self.outgoing.poll_push(&mut parker.context(), message) {
                    Poll::Ready(sent) => return sent,
                    Poll::Pending => parker.park(None),
                }
            }
        })
    }

    #[cold]
    fn wait_to_receive(&self, timeout: Duration) -> Result<Option<Bytes>> {
        if timeout.is_zero() {
            return Ok(None);
        }
        let deadline = Instant::now().checked_add(timeout);
        if let Some(message) = self.spin(|| self.incoming.pop())? {
            return Ok(Some(message.into_bytes()));
        }
        Parker::with(|parker| {
            loop {
                if let Poll::Ready(popped) = self.incoming.poll_pop(&mut parker.context()) {
                    return popped.map(|message| Some(message.into_bytes()));
                }
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    return Ok(None);
                }
                parker.park(deadline);
            }
        })
    }
}

impl Channel for Endpoint {
    fn poll_send(&self, cx: &mut Context<'_>, message: &mut Option<Payload>) -> Poll<Result<()>> {
        self.outgoing.poll_push(cx, message)
    }

    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        self.incoming.poll_pop(cx).map_ok(Payload::into_bytes)
    }

    fn close(&self) {
        self.outgoing.close_writer(Why::ClosedHere, Why::ClosedByPeer);
        self.incoming.close_reader(Why::ClosedByPeer, Why::ClosedHere);
    }

    fn abort(&self) {
        self.outgoing.abort(Why::AbortedHere, Why::AbortedByPeer);
        self.incoming.abort(Why::AbortedByPeer, Why::AbortedHere);
    }

    fn is_open(&self) -> bool {
        self.outgoing.is_open() && self.incoming.is_open()
    }

    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn statistics(&self) -> Statistics {
        let (sent, received) = (self.outgoing.counts(), self.incoming.counts());
        Statistics {
            messages_sent: sent.pushed,
            bytes_sent: sent.bytes_pushed,
            messages_unsent: sent.pushed - sent.popped,
            messages_received: received.popped,
            bytes_received: received.bytes_popped,
            messages_waiting: received.pushed - received.popped,
            waits_for_room: sent.waits,
        }
    }

    #[inline]
    fn send(&self, message: Bytes) -> Result<()> {
        self.wait_to_send(&mut Some(Payload::One(message)))
    }

    fn send_vectored(&self, parts: &[Bytes]) -> Result<()> {
        self.wait_to_send(&mut Some(Payload::of_parts(parts)?))
    }

    fn try_send(&self, message: Bytes) -> Result<Option<Bytes>> {
        let mut message = Some(Payload::One(message));
        self.outgoing.push(&mut message)?;
        Ok(message.map(Payload::into_bytes))
    }

    #[inline]
    fn receive(&self, timeout: Duration) -> Result<Option<Bytes>> {
        match self.incoming.pop()? {
            Some(message) => Ok(Some(message.into_bytes())),
            None => self.wait_to_receive(timeout),
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.close();
    }
}

/// Makes a handle with a field `endpoint` a channel.
macro_rules! delegate {
    ($handle:ty) => {
        impl Channel for $handle {
            fn poll_send(
                &self,
                cx: &mut Context<'_>,
                message: &mut Option<Payload>,
            ) -> Poll<Result<()>> {
                self.endpoint.poll_send(cx, message)
            }

            fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
                self.endpoint.poll_receive(cx)
            }

            fn close(&self) {
                self.endpoint.close();
            }

            fn abort(&self) {
                self.endpoint.abort();
            }

            fn is_open(&self) -> bool {
                self.endpoint.is_open()
            }

            fn peer(&self) -> &Peer {
                self.endpoint.peer()
            }

            fn statistics(&self) -> Statistics {
                self.endpoint.statistics()
            }

            #[inline]
            fn send(&self, message: Bytes) -> Result<()> {
                self.endpoint.send(message)
            }

            fn send_vectored(&self, parts: &[Bytes]) -> Result<()> {
                self.endpoint.send_vectored(parts)
            }

            fn try_send(&self, message: Bytes) -> Result<Option<Bytes>> {
                self.endpoint.try_send(message)
            }

            #[inline]
            fn receive(&self, timeout: Duration) -> Result<Option<Bytes>> {
                self.endpoint.receive(timeout)
            }
        }
    };
}
pub(crate) use delegate;
