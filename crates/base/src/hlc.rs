//! A hybrid logical clock: versions that are close to wall time, never go back on a node, and are
//! total across nodes.
//!
//! K1. Every version a clock gives is above all it gave or observed before, whatever the wall
//!     clock does.
//! K2. Without observations from clocks that run ahead, a version is at most the wall time, plus
//!     one counter step for each tick since the wall clock last moved.
//! K3. A remote version that is further ahead of the wall clock than the limit is refused, and
//!     changes nothing: one wrong clock cannot drag the others along.
//!
//! Source: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks" (2014), in the
//! 64-bit form of its section 6.2: the low 16 bits of the time in nanoseconds are the counter, so
//! the physical part has a resolution of 65.5 us. A counter that overflows carries into the time.
//!
//! The wall clock is an argument: nothing here reads one.

use std::fmt;

/// How many low bits of a stamp count.
const COUNTER_BITS: u32 = 16;
/// The last wall time that is believed, in ns after 1970: in the year 2262. What is above leaves
/// room for 2^63 ticks.
const WALL_NS_MAX: u64 = 1 << 63;

/// How far a remote clock may run ahead unless told otherwise, in ns: a quarter of a second.
///
/// ```
/// use mainstay_base::hlc::{AHEAD_NS_MAX, Clock, NodeId, Stamp};
/// let mut clock = Clock::new(NodeId::new(1));
/// let now = 1_000_000_000_u64 << 16;
/// assert!(clock.observe(now, Stamp::from_ns(now + AHEAD_NS_MAX)).is_ok());
/// assert!(clock.observe(now, Stamp::from_ns(now + AHEAD_NS_MAX + (1 << 16))).is_err());
/// ```
pub const AHEAD_NS_MAX: u64 = 250_000_000;

/// Names a node among all that exchange versions. Zero is nobody.
///
/// ```
/// use mainstay_base::hlc::NodeId;
/// assert_eq!(NodeId::new(0xAB).to_string(), "00000000000000ab");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct NodeId(u64);

impl NodeId {
    /// The node of this number.
    ///
    /// Example: see [`NodeId`].
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    ///
    /// ```
    /// assert_eq!(mainstay_base::hlc::NodeId::new(7).number(), 7);
    /// ```
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A moment of a hybrid clock: time in the upper 48 bits, counter in the lower 16.
///
/// ```
/// use mainstay_base::hlc::Stamp;
/// let stamp = Stamp::from_bits((5 << 16) + 3);
/// assert_eq!((stamp.time_ns(), stamp.counter()), (5 << 16, 3));
/// assert_eq!(stamp.to_string(), "327680+3");
/// assert!(stamp > Stamp::from_ns(5 << 16));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Stamp(u64);

impl Stamp {
    /// Before every version.
    ///
    /// ```
    /// use mainstay_base::hlc::Stamp;
    /// assert!(Stamp::ZERO < Stamp::from_bits(1));
    /// ```
    pub const ZERO: Self = Self(0);

    /// The first moment at this time, which is rounded down.
    ///
    /// Example: see [`Stamp`].
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns >> COUNTER_BITS << COUNTER_BITS)
    }

    /// As it was stored or sent.
    ///
    /// Example: see [`Stamp`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// To be stored or sent. As a number it is ns after 1970, to within 65.5 us.
    ///
    /// ```
    /// use mainstay_base::hlc::Stamp;
    /// assert_eq!(Stamp::from_bits(7).bits(), 7);
    /// ```
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The time in it, in ns after 1970.
    ///
    /// Example: see [`Stamp`].
    #[must_use]
    pub const fn time_ns(self) -> u64 {
        Self::from_ns(self.0).0
    }

    /// The counter in it.
    ///
    /// Example: see [`Stamp`].
    #[must_use]
    pub const fn counter(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.time_ns(), self.counter())
    }
}

/// Which state of something: when, and by whom. Ordered by stamp, then by node: total.
///
/// ```
/// use mainstay_base::hlc::{NodeId, Stamp, Version};
/// let of = |bits, node| Version { stamp: Stamp::from_bits(bits), node: NodeId::new(node) };
/// assert!(of(1, 9) < of(2, 1) && of(2, 1) < of(2, 2));
/// assert_eq!(of(1, 2).to_string(), "0+1@0000000000000002");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Version {
    /// When.
    pub stamp: Stamp,
    /// By whom.
    pub node: NodeId,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.stamp, self.node)
    }
}

/// A remote clock runs too far ahead to be followed.
///
/// Example: see [`Clock::observe`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "version {remote} is {ahead_ns} ns ahead of this node's clock, and {limit_ns} ns are allowed; \
     set the clocks of both nodes (NTP), or raise the limit; nothing was changed"
)]
pub struct ClockAhead {
    /// What was observed.
    pub remote: Stamp,
    /// How far it is ahead, in ns.
    pub ahead_ns: u64,
    /// How far it may be, in ns.
    pub limit_ns: u64,
}

/// The clock of one node.
///
/// ```
/// use mainstay_base::hlc::{Clock, NodeId};
/// let mut clock = Clock::new(NodeId::new(1));
/// let first = clock.tick(1_000_000_000);
/// let again = clock.tick(1_000_000_000);
/// let back = clock.tick(999_000_000); // somebody set the wall clock back
/// assert!(first < again && again < back);
/// assert!(1_000_000_000 - first.stamp.time_ns() < 1 << 16);
/// ```
#[derive(Clone, Debug)]
pub struct Clock {
    node: NodeId,
    last: Stamp,
    ahead_ns_max: u64,
}

impl Clock {
    /// The clock of `node`, with nothing seen yet.
    ///
    /// Example: see [`Clock`].
    #[must_use]
    pub const fn new(node: NodeId) -> Self {
        Self { node, last: Stamp::ZERO, ahead_ns_max: AHEAD_NS_MAX }
    }

    /// How far a remote clock may be ahead, in ns; [`AHEAD_NS_MAX`] unless told otherwise.
    ///
    /// ```
    /// use mainstay_base::hlc::{Clock, NodeId, Stamp};
    /// let mut clock = Clock::new(NodeId::new(1)).ahead_ns_max(0);
    /// assert!(clock.observe(0, Stamp::from_ns(1 << 16)).is_err());
    /// ```
    #[must_use]
    pub const fn ahead_ns_max(mut self, ns: u64) -> Self {
        self.ahead_ns_max = ns;
        self
    }

    /// Whose clock it is.
    ///
    /// ```
    /// use mainstay_base::hlc::{Clock, NodeId};
    /// assert_eq!(Clock::new(NodeId::new(1)).node(), NodeId::new(1));
    /// ```
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The last stamp given or observed.
    ///
    /// Example: see [`Clock::observe`].
    #[must_use]
    pub const fn last(&self) -> Stamp {
        self.last
    }

    /// A new version, above all before (K1). `now_ns`: the wall clock, in ns after 1970.
    ///
    /// Example: see [`Clock`].
    pub fn tick(&mut self, now_ns: u64) -> Version {
        let wall = Stamp::from_ns(now_ns.min(WALL_NS_MAX));
        self.last = wall.max(Stamp(self.last.0 + 1));
        Version { stamp: self.last, node: self.node }
    }

    /// Takes note of a version of another node, so that what is given from now on is above it.
    ///
    /// ```
    /// use mainstay_base::hlc::{Clock, NodeId, Stamp};
    /// let mut clock = Clock::new(NodeId::new(1));
    /// let remote = Stamp::from_ns(1_100_000_000);
    /// clock.observe(1_000_000_000, remote)?;
    /// assert_eq!(clock.last(), remote);
    /// assert!(clock.tick(1_000_000_000).stamp > remote);
    /// assert!(clock.observe(1_000_000_000, Stamp::from_ns(2_000_000_000)).is_err());
    /// # Ok::<(), mainstay_base::hlc::ClockAhead>(())
    /// ```
    ///
    /// # Errors
    /// [`ClockAhead`] when it is too far ahead of the wall clock (K3).
    pub fn observe(&mut self, now_ns: u64, remote: Stamp) -> Result<(), ClockAhead> {
        let ahead_ns = remote.time_ns().saturating_sub(Stamp::from_ns(now_ns.min(WALL_NS_MAX)).0);
        if ahead_ns > self.ahead_ns_max.min(WALL_NS_MAX / 2) {
            let limit_ns = self.ahead_ns_max;
            return Err(ClockAhead { remote, ahead_ns, limit_ns });
        }
        self.last = self.last.max(remote);
        Ok(())
    }

    /// Goes on after what an earlier life of this node gave, as far as it is known from what it
    /// stored. Unlike a remote version it is believed whatever the wall clock says.
    ///
    /// ```
    /// use mainstay_base::hlc::{Clock, NodeId, Stamp};
    /// let mut clock = Clock::new(NodeId::new(1));
    /// clock.resume(Stamp::from_ns(2_000_000_000));
    /// assert!(clock.tick(1_000_000_000).stamp > Stamp::from_ns(2_000_000_000));
    /// ```
    pub fn resume(&mut self, stored: Stamp) {
        self.last = self.last.max(stored.min(Stamp(WALL_NS_MAX)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_NS: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn a_counter_that_overflows_carries_into_the_time() {
        let mut clock = Clock::new(NodeId::new(1));
        let first = clock.tick(NOW_NS);
        let last = (0..1 << 16).fold(first, |before, _| {
            let next = clock.tick(NOW_NS);
            assert!(next > before);
            next
        });
        assert_eq!(last.stamp.time_ns(), first.stamp.time_ns() + (1 << 16));
        assert_eq!(last.stamp.counter(), 0);
    }

    #[test]
    fn k3_a_clock_at_the_limit_is_followed_and_one_past_it_is_not() {
        let mut clock = Clock::new(NodeId::new(1)).ahead_ns_max(1 << 20);
        let base = Stamp::from_ns(NOW_NS);
        assert!(clock.observe(NOW_NS, Stamp(base.0 + (1 << 20))).is_ok());
        let seen = clock.last();
        let refused = clock.observe(NOW_NS, Stamp(base.0 + (1 << 20) + (1 << 16))).unwrap_err();
        assert_eq!((refused.ahead_ns, refused.limit_ns), ((1 << 20) + (1 << 16), 1 << 20));
        assert_eq!(clock.last(), seen, "a refusal changes nothing");
        assert!(clock.observe(NOW_NS, Stamp(u64::MAX)).is_err());
    }

    #[test]
    fn the_end_of_time_neither_wraps_nor_goes_back() {
        let mut clock = Clock::new(NodeId::new(1)).ahead_ns_max(u64::MAX);
        let first = clock.tick(u64::MAX);
        assert!(clock.observe(u64::MAX, Stamp(u64::MAX)).is_err());
        assert!(clock.tick(u64::MAX) > first);
        clock.resume(Stamp(u64::MAX));
        assert!(clock.tick(0) > first);
    }

    /// What can happen to a clock.
    #[derive(Clone, Debug)]
    enum Step {
        Tick,
        /// The wall clock moves, also back.
        Move(i64),
        /// A version arrives, so much ahead.
        Observe(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Tick),
            1 => (-1_000_000_000_i64..1_000_000_000).prop_map(Step::Move),
            1 => (-1_000_000_000_i64..1_000_000_000).prop_map(Step::Observe),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        #[test]
        fn k1_versions_only_grow_and_k3_no_refused_clock_is_followed(steps in steps()) {
            let mut clock = Clock::new(NodeId::new(1));
            let mut now = NOW_NS;
            let mut highest = Stamp::ZERO;
            // K2: the highest time that a version may have, plus the ticks there were.
            let mut bound = Stamp::ZERO;
            for step in steps {
                match step {
                    Step::Move(by) => now = now.saturating_add_signed(by),
                    Step::Tick => {
                        let version = clock.tick(now);
                        prop_assert!(version.stamp > highest, "K1");
                        bound = Stamp(bound.0 + 1).max(Stamp::from_ns(now));
                        prop_assert!(version.stamp <= bound, "K2");
                        highest = version.stamp;
                    }
                    Step::Observe(ahead) => {
                        let remote = Stamp(now.saturating_add_signed(ahead));
                        let before = clock.last();
                        let late = remote.time_ns().saturating_sub(Stamp::from_ns(now).0);
                        match clock.observe(now, remote) {
                            Ok(()) => {
                                prop_assert!(late <= AHEAD_NS_MAX, "K3");
                                highest = highest.max(remote);
                                bound = bound.max(remote);
                                prop_assert_eq!(clock.last(), before.max(remote));
                            }
                            Err(_) => {
                                prop_assert!(late > AHEAD_NS_MAX, "K3");
                                prop_assert_eq!(clock.last(), before, "K3");
                            }
                        }
                    }
                }
            }
        }

        #[test]
        fn versions_of_different_nodes_are_never_equal(
            moves in proptest::collection::vec((0_u64..3, 0_u64..100_000), 1..100),
        ) {
            let mut clocks = [1, 2, 3].map(|node| Clock::new(NodeId::new(node)));
            let mut seen = std::collections::BTreeSet::new();
            let mut now = NOW_NS;
            for (which, by) in moves {
                now += by;
                prop_assert!(seen.insert(clocks[which as usize].tick(now)), "each is new");
            }
        }
    }
}
