//! Faults on purpose: any channel, made slow, cut or lost.
//!
//! A channel is reliable and ordered, and so is a faulty one: nothing is reordered, lost or doubled
//! within it, since no transport here could do that. What a network can do to it is: deliver late,
//! deliver slowly, deliver nothing for a while in one direction or both, and break.
//!
//! Which message is delayed by how much, and after how many messages of a direction the connection
//! breaks, is decided by the seed and the message's place in its direction alone: a failing run can be
//! repeated, as far as the threads that use the channel do the same again.

mod link;

use crate::{
    Bounds, Bytes, Channel, Payload, Peer, Result, Statistics, Why, endpoint::Endpoint,
    queue::Queue,
};
use link::{Link, Weather};
use mainstay_base::Rng;
use std::{
    sync::{Arc, Condvar, Mutex},
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

/// What goes wrong, and how much.
///
/// ```
/// use mainstay_channel::Faults;
/// use std::time::Duration;
/// let faults = Faults {
///     delay: Duration::from_millis(2),
///     jitter: Duration::from_millis(3),
///     ..Faults::seeded(7)
/// };
/// assert_eq!(faults.seed, 7);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// Decides everything that is random.
    pub seed: u64,
    /// How late each message is, at least.
    pub delay: Duration,
    /// How much later it may be; later ones wait for it.
    pub jitter: Duration,
    /// How many bytes a second pass in each direction, if there is a limit.
    pub bytes_per_second: Option<u64>,
    /// The connection breaks after a random number of messages in either direction, this many on
    /// average; each direction counts its own.
    pub breaks_after: Option<u64>,
}

impl Faults {
    /// None yet.
    ///
    /// Example: see [`Faults`].
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            seed,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            bytes_per_second: None,
            breaks_after: None,
        }
    }
}

/// Which way a cut goes, seen from this end.
///
/// Example: see [`Faulty`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Nothing passes.
    Both,
    /// What is sent here does not arrive.
    Outgoing,
    /// What the peer sends does not arrive.
    Incoming,
}

/// A channel with faults on purpose.
///
/// ```
/// use mainstay_channel::{Channel, Cut, Faults, Faulty, memory};
/// use std::time::Duration;
/// let (a, b) = memory::pair();
/// let a = Faulty::new(a, Faults { delay: Duration::from_millis(5), ..Faults::seeded(1) });
/// a.cut(Cut::Outgoing);
/// a.send("held up".into())?;
/// assert_eq!(b.receive(Duration::from_millis(50))?, None);
/// b.send("the other way is free".into())?;
/// assert!(a.receive(Duration::from_secs(5))?.is_some());
/// a.heal();
/// assert_eq!(b.receive(Duration::from_secs(5))?.unwrap(), "held up");
/// # Ok::<(), mainstay_channel::Error>(())
/// ```
pub struct Faulty<C: Channel + 'static> {
    endpoint: Endpoint,
    inner: Arc<C>,
    weather: Arc<Weather>,
}

impl<C: Channel + 'static> Faulty<C> {
    /// Puts faults before `inner`, a channel with the default bounds. Each direction holds as much
    /// again.
    ///
    /// Example: see [`Faulty`].
    pub fn new(inner: C, faults: Faults) -> Self {
        Self::with_bounds(inner, faults, Bounds::default())
    }

    /// The same for a channel with these bounds.
    ///
    /// ```
    /// use mainstay_channel::{Bounds, Channel, Error, Faults, Faulty, memory};
    /// let bounds = Bounds { message_len: 4, ..Bounds::default() };
    /// let (a, _b) = memory::pair_with(bounds)?;
    /// let a = Faulty::with_bounds(a, Faults::seeded(1), bounds);
    /// assert!(matches!(a.send("hello".into()), Err(Error::TooLong { .. })));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_bounds(inner: C, faults: Faults, bounds: Bounds) -> Self {
        let inner = Arc::new(inner);
        let mut rng = Rng::seeded(faults.seed);
        let weather = Arc::new(Weather { state: Mutex::default(), changed: Condvar::new() });
        let (outgoing, incoming) = (Arc::new(Queue::new(bounds)), Arc::new(Queue::new(bounds)));
        let link = |seed| {
            let mut rng = Rng::seeded(seed);
            // Uniform from 1 to twice the average.
            let until_break = faults.breaks_after.map(|average| 1 + rng.below(2 * average.max(1)));
            Link {
                inner: Arc::clone(&inner),
                outgoing: Arc::clone(&outgoing),
                incoming: Arc::clone(&incoming),
                weather: Arc::clone(&weather),
                faults,
                rng,
                until_break,
                free_at: Instant::now(),
            }
        };
        let mut sender = link(rng.next_u64());
        let mut receiver = link(rng.next_u64());
        thread::spawn(move || sender.pump_out());
        thread::spawn(move || receiver.pump_in());
        let peer = inner.peer().clone();
        let endpoint = Endpoint { outgoing, incoming, peer, spins: None };
        Self { endpoint, inner, weather }
    }

    /// Lets nothing pass, in one direction or both, until it is healed. What was sent waits.
    ///
    /// Example: see [`Faulty`].
    pub fn cut(&self, cut: Cut) {
        let mut state = self.weather.state();
        state.outgoing_cut |= cut != Cut::Incoming;
        state.incoming_cut |= cut != Cut::Outgoing;
    }

    /// Ends all cuts.
    ///
    /// Example: see [`Faulty`].
    pub fn heal(&self) {
        let mut state = self.weather.state();
        (state.outgoing_cut, state.incoming_cut) = (false, false);
        drop(state);
        self.weather.changed.notify_all();
    }

    /// Breaks the connection: both ends lose it, and what is on its way.
    ///
    /// ```
    /// use mainstay_channel::{Channel, Faults, Faulty, memory};
    /// let (a, b) = memory::pair();
    /// let a = Faulty::new(a, Faults::seeded(1));
    /// a.lose();
    /// assert!(a.send("x".into()).is_err() && b.send("x".into()).is_err());
    /// ```
    pub fn lose(&self) {
        let why = Why::Lost { what: "on purpose".to_owned() };
        // This one first: as soon as the other has ended, the thread behind it aborts the inner
        // channel, and what that says to whoever receives would be another reason.
        self.endpoint.incoming.abort(why.clone(), why.clone());
        self.endpoint.outgoing.abort(why.clone(), why);
        self.inner.abort();
        self.weather.end();
    }
}

impl<C: Channel + 'static> Drop for Faulty<C> {
    fn drop(&mut self) {
        // What was sent is still delivered, as from any channel that is closed; and nobody is left who
        // could end a cut.
        Channel::close(self);
        self.heal();
    }
}

impl<C: Channel + 'static> Channel for Faulty<C> {
    fn poll_send(&self, cx: &mut Context<'_>, message: &mut Option<Payload>) -> Poll<Result<()>> {
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
        self.inner.abort();
        self.weather.end();
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    const PATIENCE: Duration = Duration::from_secs(20);
    const MS: Duration = Duration::from_millis(1);

    fn pair(faults: Faults) -> (Faulty<memory::MemoryChannel>, memory::MemoryChannel) {
        let (a, b) = memory::pair();
        (Faulty::new(a, faults), b)
    }

    #[test]
    fn messages_are_late_and_in_order_and_all_of_them_come() {
        let (a, b) = pair(Faults { delay: 2 * MS, jitter: 3 * MS, ..Faults::seeded(3) });
        let start = Instant::now();
        (0..20_u8).for_each(|n| a.send(vec![n].into()).unwrap());
        for n in 0..20 {
            assert_eq!(b.receive(PATIENCE).unwrap().unwrap(), [n][..]);
            assert!(start.elapsed() >= 2 * MS);
        }
    }

    #[test]
    fn a_slow_link_takes_its_time() {
        let (a, b) = pair(Faults { bytes_per_second: Some(100_000), ..Faults::seeded(3) });
        let start = Instant::now();
        (0..10).for_each(|_| a.send(vec![0; 1_000].into()).unwrap());
        (0..10).for_each(|_| _ = b.receive(PATIENCE).unwrap().unwrap());
        assert!(start.elapsed() >= 95 * MS, "{:?}", start.elapsed());
    }

    #[test]
    fn the_same_seed_breaks_after_the_same_message() {
        let passed = |seed| {
            let (a, b) = pair(Faults { breaks_after: Some(20), ..Faults::seeded(seed) });
            let mut sent = 0;
            while a.send("x".into()).is_ok() && b.receive(PATIENCE).is_ok_and(|m| m.is_some()) {
                sent += 1;
                assert!(sent < 100, "it breaks");
            }
            assert!(!b.is_open());
            sent
        };
        assert_eq!(passed(5), passed(5));
        assert!((0..20).map(passed).collect::<std::collections::BTreeSet<_>>().len() > 5);
    }

    #[test]
    fn each_direction_counts_its_own_messages_until_the_break() {
        let faults = Faults { breaks_after: Some(20), ..Faults::seeded(5) };
        let until_break = |outgoing: bool| {
            let (a, b) = pair(faults);
            let (from, to): (&dyn Channel, &dyn Channel) =
                if outgoing { (&a, &b) } else { (&b, &a) };
            (0..100).find(|_| {
                from.send("x".into()).is_err() || !to.receive(PATIENCE).is_ok_and(|m| m.is_some())
            })
        };
        let (out, back) = (until_break(true).unwrap(), until_break(false).unwrap());
        assert!(out + back > out.max(back) + 1, "{out} and {back}: this seed shows nothing");
        // All but the last of both: however they meet, neither direction hastens the other's end.
        let (a, b) = pair(faults);
        thread::scope(|scope| {
            scope.spawn(|| (0..out).for_each(|_| a.send("x".into()).unwrap()));
            scope.spawn(|| (0..back).for_each(|_| b.send("x".into()).unwrap()));
            (0..out).for_each(|_| _ = b.receive(PATIENCE).unwrap().unwrap());
            (0..back).for_each(|_| _ = a.receive(PATIENCE).unwrap().unwrap());
        });
        assert!(a.is_open() && b.is_open());
        assert!(a.send("x".into()).is_ok() && b.receive(PATIENCE).is_err(), "one more breaks it");
    }

    #[test]
    fn whoever_waits_is_told_of_a_loss_and_of_an_abort() {
        for (is_loss, expected) in
            [(true, Why::Lost { what: "on purpose".to_owned() }), (false, Why::AbortedHere)]
        {
            let (a, b) = pair(Faults::seeded(1));
            thread::scope(|scope| {
                let here = scope.spawn(|| a.receive(PATIENCE));
                let there = scope.spawn(|| b.receive(PATIENCE));
                thread::sleep(50 * MS);
                if is_loss {
                    a.lose()
                } else {
                    a.abort()
                }
                let told = here.join().unwrap();
                assert!(
                    matches!(&told, Err(crate::Error::ChannelClosed { why }) if *why == expected),
                    "{told:?}"
                );
                assert!(there.join().unwrap().is_err());
            });
        }
    }

    #[test]
    fn what_was_sent_before_a_close_waits_for_the_end_of_a_cut_and_a_drop_ends_it() {
        let (a, b) = pair(Faults::seeded(1));
        a.cut(Cut::Both);
        a.send("last words".into()).unwrap();
        a.close();
        assert_eq!(b.receive(60 * MS).unwrap(), None);
        a.heal();
        assert_eq!(b.receive(PATIENCE).unwrap().unwrap(), "last words");
        assert!(b.receive(PATIENCE).is_err());
        let (a, b) = pair(Faults::seeded(1));
        a.cut(Cut::Outgoing);
        a.send("last words".into()).unwrap();
        drop(a);
        assert_eq!(b.receive(PATIENCE).unwrap().unwrap(), "last words");
        assert!(b.receive(PATIENCE).is_err());
    }

    #[test]
    fn a_message_over_the_bound_is_refused_and_costs_nothing_else() {
        let bounds = Bounds { message_len: 100, ..Bounds::default() };
        let (a, b) = memory::pair_with(bounds).unwrap();
        let a = Faulty::with_bounds(a, Faults::seeded(1), bounds);
        let refused = a.send(vec![0; 101].into());
        assert!(matches!(refused, Err(crate::Error::TooLong { len: 101, limit: 100 })));
        a.send(vec![0; 100].into()).unwrap();
        assert_eq!(b.receive(PATIENCE).unwrap().unwrap().len(), 100);
    }

    #[test]
    fn a_cut_holds_back_its_direction_only_and_loses_nothing() {
        let (a, b) = pair(Faults::seeded(1));
        a.cut(Cut::Incoming);
        b.send("held up".into()).unwrap();
        a.send("passes".into()).unwrap();
        assert_eq!(b.receive(PATIENCE).unwrap().unwrap(), "passes");
        assert_eq!(a.receive(60 * MS).unwrap(), None);
        a.cut(Cut::Both);
        a.send("held up too".into()).unwrap();
        assert_eq!(b.receive(60 * MS).unwrap(), None);
        a.heal();
        assert_eq!(a.receive(PATIENCE).unwrap().unwrap(), "held up");
        assert_eq!(b.receive(PATIENCE).unwrap().unwrap(), "held up too");
    }

    #[test]
    fn a_close_still_delivers_and_the_peers_close_is_passed_on() {
        let (a, b) = pair(Faults { delay: 5 * MS, ..Faults::seeded(1) });
        a.send("last words".into()).unwrap();
        a.close();
        assert_eq!(b.receive(PATIENCE).unwrap().unwrap(), "last words");
        assert!(b.receive(PATIENCE).is_err());
        let (a, b) = pair(Faults::seeded(1));
        b.send("last words".into()).unwrap();
        drop(b);
        assert_eq!(a.receive(PATIENCE).unwrap().unwrap(), "last words");
        assert!(a.receive(PATIENCE).is_err());
    }
}
