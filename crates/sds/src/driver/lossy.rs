//! A transport made worse on purpose.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use mainstay_base::Rng;
use tokio::time::{Instant, sleep_until};

use super::{
    error::Result,
    transport::{Heard, Transport},
};

/// Messages that may be on their way to one member; more are lost.
const UNDER_WAY_MAX: usize = 4096;

/// What happens to messages. Chances are from 0 to 1.
///
/// ```
/// use mainstay_sds::driver::Faults;
/// use std::time::Duration;
/// let faults = Faults { loss: 0.3, delay_max: Duration::from_millis(50), ..Faults::none(7) };
/// assert_eq!(faults.duplicate, 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Decides all of it: the same seed loses the same messages.
    pub seed: u64,
    /// The chance that a message is lost.
    pub loss: f64,
    /// The chance that one comes twice.
    pub duplicate: f64,
    /// Each comes later by up to this much, so that they overtake one another.
    pub delay_max: Duration,
}

impl Faults {
    /// No faults yet.
    ///
    /// Example: see [`Faults`].
    #[must_use]
    pub fn none(seed: u64) -> Self {
        Self { seed, loss: 0.0, duplicate: 0.0, delay_max: Duration::ZERO }
    }
}

/// A transport whose member hears badly: each message that arrives is lost, comes twice, or comes
/// late, independently of what happens to it elsewhere.
///
/// Example: see [`Bus::join_lossy`](super::Bus::join_lossy).
#[derive(Debug)]
pub struct Lossy<T> {
    inner: T,
    faults: Faults,
    rng: Rng,
    /// What is under way, earliest first; the number keeps the order among equals.
    under_way: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    count: u64,
}

impl<T: Transport> Lossy<T> {
    /// Makes `inner` worse.
    ///
    /// Example: see [`Bus::join_lossy`](super::Bus::join_lossy).
    #[must_use]
    pub fn new(inner: T, faults: Faults) -> Self {
        let rng = Rng::seeded(faults.seed);
        Self { inner, faults, rng, under_way: BinaryHeap::new(), count: 0 }
    }

    fn happens(&mut self, chance: f64) -> bool {
        // 53 bits are what a double has.
        ((self.rng.next_u64() >> 11) as f64) < chance * (1_u64 << 53) as f64
    }

    fn arrived(&mut self, message: &[u8]) {
        if self.happens(self.faults.loss) {
            return;
        }
        let copies = 1 + usize::from(self.happens(self.faults.duplicate));
        for _ in 0..copies {
            let delay_ns_max = u64::try_from(self.faults.delay_max.as_nanos()).unwrap_or(u64::MAX);
            let delay = Duration::from_nanos(self.rng.below(delay_ns_max.saturating_add(1)));
            if self.under_way.len() < UNDER_WAY_MAX {
                self.count += 1;
                let due = Instant::now() + delay;
                self.under_way.push(Reverse((due, self.count, message.to_vec())));
            }
        }
    }
}

impl<T: Transport> Transport for Lossy<T> {
    fn message_len_max(&self) -> usize {
        self.inner.message_len_max()
    }

    fn broadcast(&mut self, message: &[u8]) -> impl Future<Output = Result<()>> + Send {
        self.inner.broadcast(message)
    }

    async fn receive(&mut self, message: &mut Vec<u8>) -> Result<Heard> {
        loop {
            let due = self.under_way.peek().map(|Reverse((due, ..))| *due);
            if let Some(due) = due
                && due <= Instant::now()
                && let Some(Reverse((.., bytes))) = self.under_way.pop()
            {
                *message = bytes;
                return Ok(Heard::Message);
            }
            // Both arms keep what they have when the other one is ready first.
            tokio::select! {
                received = self.inner.receive(message) => {
                    if received? == Heard::Newcomer {
                        return Ok(Heard::Newcomer);
                    }
                    let bytes = std::mem::take(message);
                    self.arrived(&bytes);
                    *message = bytes;
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Bus;

    async fn heard(faults: Faults, sent: u32) -> Vec<u32> {
        let bus = Bus::new();
        let mut alice = bus.join();
        let mut bob = bus.join_lossy(faults);
        let mut heard = Vec::new();
        let mut message = Vec::new();
        for number in 0..sent {
            alice.broadcast(&number.to_le_bytes()).await.unwrap();
            let pause = Duration::from_millis(5);
            while tokio::time::timeout(pause, bob.receive(&mut message)).await.is_ok() {
                heard.push(u32::from_le_bytes(message[..].try_into().unwrap()));
            }
        }
        let rest = Duration::from_secs(1);
        while tokio::time::timeout(rest, bob.receive(&mut message)).await.is_ok() {
            heard.push(u32::from_le_bytes(message[..].try_into().unwrap()));
        }
        heard
    }

    #[tokio::test(start_paused = true)]
    async fn without_faults_everything_arrives_once_and_in_order() {
        assert_eq!(heard(Faults::none(1), 100).await, (0..100).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn about_as_much_is_lost_and_doubled_as_was_asked_for_and_the_seed_decides_what() {
        let faults = Faults { loss: 0.3, duplicate: 0.1, ..Faults::none(7) };
        let first = heard(faults, 1000).await;
        assert!((700..840).contains(&first.len()), "{} of about 770", first.len());
        let mut once = first.clone();
        once.dedup();
        assert!((660..740).contains(&once.len()), "{} of about 700", once.len());
        assert_eq!(heard(faults, 1000).await, first);
        assert_ne!(heard(Faults { seed: 8, ..faults }, 1000).await, first);
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_messages_overtake_one_another_and_none_is_lost() {
        let faults = Faults { delay_max: Duration::from_millis(100), ..Faults::none(3) };
        let mut all = heard(faults, 200).await;
        assert!(!all.is_sorted());
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<_>>());
    }
}
