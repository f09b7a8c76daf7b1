//! One end of a channel that is made of two queues: in memory, over a network, or with faults.

use crate::{
    Bytes, Channel, Payload, Peer, Result, Statistics, Why, park::Parker, queue::Queue, spin::Spin,
};
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
    /// Where an answer may come within the time that sleeping takes.
    pub(crate) spins: Option<Spins>,
}

/// How long looking again pays, for those who send and those who receive.
pub(crate) struct Spins {
    sending: Spin,
    receiving: Spin,
}

impl Spins {
    pub(crate) fn new() -> Self {
        Self { sending: Spin::new(), receiving: Spin::new() }
    }
}

/// How long a sender that sleeps is left alone at most, at first and in the end, while there may be
/// room: see [`Queue::wait_for_much_room`].
const NAP_MIN: Duration = Duration::from_millis(1);
const NAP_MAX: Duration = Duration::from_millis(16);

impl Endpoint {
    #[inline]
    pub(crate) fn wait_to_send(&self, message: &mut Option<Payload>) -> Result<()> {
        if self.outgoing.push(message)? {
            return Ok(());
        }
        self.wait_for_room(message)
    }

    /// Once it is worth it: see [`Queue::has_some_room`].
    fn push_into_some_room(&self, message: &mut Option<Payload>) -> Result<Option<()>> {
        match self.outgoing.has_some_room() {
            true => self.outgoing.push(message).map(|done| done.then_some(())),
            false => Ok(None),
        }
    }

    #[cold]
    fn wait_for_room(&self, message: &mut Option<Payload>) -> Result<()> {
        if let Some(spins) = &self.spins
            && spins.sending.find(|| self.push_into_some_room(message))?.is_some()
        {
            return Ok(());
        }
        let mut nap = NAP_MIN;
        Parker::with(|parker| {
            loop {
                if self.outgoing.push(message)? {
                    return Ok(());
                }
                if self.outgoing.wait_for_much_room(message, parker.waker()) {
                    parker.park(Instant::now().checked_add(nap));
                    nap = (nap * 2).min(NAP_MAX);
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
        if let Some(spins) = &self.spins
            && let Some(message) = spins.receiving.find(|| self.incoming.pop())?
        {
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
        if self.outgoing.push(message)? {
            return Poll::Ready(Ok(()));
        }
        if let Some(spins) = &self.spins
            && spins.sending.find_at_once(|| self.push_into_some_room(message))?.is_some()
        {
            return Poll::Ready(Ok(()));
        }
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
        match self.outgoing.room_for(message.len())? {
            Some(room) => {
                room.put(Payload::One(message));
                Ok(())
            }
            None => self.wait_for_room(&mut Some(Payload::One(message))),
        }
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
