//! What has passed through a channel.

#[cfg(any(feature = "shm", feature = "tcp"))]
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What has passed through one end of a channel.
///
/// ```
/// use mainstay_channel::{Channel, memory};
/// # use std::time::Duration;
/// let (a, b) = memory::pair();
/// a.send("ringing".into())?;
/// a.send("hung up".into())?;
/// b.receive(Duration::ZERO)?;
/// assert_eq!((a.statistics().messages_sent, a.statistics().bytes_sent), (2, 14));
/// assert_eq!((b.statistics().messages_received, b.statistics().messages_waiting), (1, 1));
/// # Ok::<(), mainstay_channel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Messages that `send` took.
    pub messages_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Of these, messages that have not left this end: taken by the peer, or by the network.
    pub messages_unsent: u64,
    /// Messages that `receive` gave.
    pub messages_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Messages that are here, to be received.
    pub messages_waiting: u64,
    /// How often a sender had to wait for room.
    pub waits_for_room: u64,
}

/// What has passed through an end beside the queues, counted by whoever does it.
#[cfg(any(feature = "shm", feature = "tcp"))]
#[derive(Default)]
pub(crate) struct Counters {
    sent: AtomicU64,
    bytes_sent: AtomicU64,
    received: AtomicU64,
    bytes_received: AtomicU64,
    waits: AtomicU64,
}

#[cfg(any(feature = "shm", feature = "tcp"))]
impl Counters {
    #[inline]
    pub(crate) fn sent(&self, len: usize) {
        self.sent.fetch_add(1, Relaxed);
        self.bytes_sent.fetch_add(len as u64, Relaxed);
    }

    #[inline]
    pub(crate) fn received(&self, len: usize) {
        self.received.fetch_add(1, Relaxed);
        self.bytes_received.fetch_add(len as u64, Relaxed);
    }

    /// A sender has to wait for room.
    pub(crate) fn waited(&self) {
        self.waits.fetch_add(1, Relaxed);
    }

    /// Adds all that was counted.
    pub(crate) fn add_to(&self, statistics: &mut Statistics) {
        statistics.messages_sent += self.sent.load(Relaxed);
        statistics.bytes_sent += self.bytes_sent.load(Relaxed);
        statistics.messages_received += self.received.load(Relaxed);
        statistics.bytes_received += self.bytes_received.load(Relaxed);
        statistics.waits_for_room += self.waits.load(Relaxed);
    }
}
