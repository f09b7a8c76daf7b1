//! What leaders and followers tell of themselves through the facade of the crate `metrics`, for
//! whatever recorder the program has installed; without the feature `metrics`, nothing.
//!
//! | gauge | at | of each | what |
//! |---|---|---|---|
//! | `mainstay_replica_connected` | leader | follower | 1 while it is there |
//! | `mainstay_replica_lag_events` | leader | follower, shard | writes that its readers do not see |
//! | `mainstay_replica_lag_bytes` | leader | follower, shard | bytes still to be sent or applied |
//! | `mainstay_replica_lag_seconds` | leader | follower, shard | age of the oldest of these writes |
//! | `mainstay_replica_held_bytes` | leader | | what is held for all followers |
//! | `mainstay_replica_caught_up` | follower | shard | 1 if it has had all, on this channel |
//! | `mainstay_replica_behind_events` | follower | shard | writes of the leader it has not made |
//! | `mainstay_replica_undurable_events` | follower | shard | writes a power cut could take |
//!
//! Each has the label `store`, the beginning of the store's id, besides `follower` (the node) and
//! `shard`. They are set once a second. The lag of a follower that is gone is not a number.

use std::time::Duration;

use mainstay_store::Identity;

#[cfg(feature = "metrics")]
pub(super) use told::{OfFollower, OfLeader};
#[cfg(not(feature = "metrics"))]
pub(super) use untold::{OfFollower, OfLeader};

/// How often the gauges are set.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nothing is set"))]
const EVERY: Duration = Duration::from_secs(1);

#[cfg(feature = "metrics")]
mod told {
    use std::collections::BTreeMap;

    use metrics::{Gauge, gauge};

    use super::{Duration, EVERY, Identity};
    use crate::{
        follower::Status,
        leader::{Lag, Leader},
        traits::Source,
    };

    fn name(identity: &Identity) -> String {
        identity.id[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    struct Lags {
        events: Gauge,
        bytes: Gauge,
        seconds: Gauge,
    }

    impl Lags {
        fn set(&self, lag: Option<Lag>) {
            let number = |of: fn(Lag) -> f64| lag.map_or(f64::NAN, of);
            self.events.set(number(|lag| lag.events as f64));
            self.bytes.set(number(|lag| lag.bytes as f64));
            self.seconds.set(number(|lag| lag.time.as_secs_f64()));
        }
    }

    struct Peer {
        connected: Gauge,
        lags: Vec<Lags>,
    }

    /// The gauges of a leader.
    pub(in crate::drive) struct OfLeader {
        store: String,
        shards: u32,
        held: Gauge,
        peers: BTreeMap<u64, Peer>,
        next: Duration,
    }

    impl OfLeader {
        pub(in crate::drive) fn new(identity: &Identity) -> Self {
            let (store, shards) = (name(identity), identity.shards);
            let held = gauge!("mainstay_replica_held_bytes", "store" => store.clone());
            Self { store, shards, held, peers: BTreeMap::new(), next: Duration::ZERO }
        }

        /// Sets them, if it is time to.
        pub(in crate::drive) fn tell<S: Source>(&mut self, core: &Leader<S>, now: Duration) {
            if now < self.next {
                return;
            }
            self.next = now + EVERY;
            self.held.set(core.held_bytes() as f64);
            for peer in core.followers() {
                let (store, shards) = (&self.store, self.shards);
                self.peers.entry(peer).or_insert_with(|| Peer::new(store, peer, shards));
            }
            self.peers.retain(|peer, gauges| {
                let mut is_there = false;
                for (shard, gauges) in (0..).zip(&gauges.lags) {
                    let lag = core.lag(*peer, shard, now);
                    is_there |= lag.is_some();
                    gauges.set(lag);
                }
                gauges.connected.set(f64::from(u8::from(is_there)));
                is_there
            });
        }
    }

    impl Peer {
        fn new(store: &str, peer: u64, shards: u32) -> Self {
            let (store, follower) = (store.to_owned(), peer.to_string());
            let of = |name: &'static str, shard: u32| {
                let shard = shard.to_string();
                gauge!(name, "store" => store.clone(), "follower" => follower.clone(), "shard" => shard)
            };
            let lags = |shard| Lags {
                events: of("mainstay_replica_lag_events", shard),
                bytes: of("mainstay_replica_lag_bytes", shard),
                seconds: of("mainstay_replica_lag_seconds", shard),
            };
            let lags = (0..shards).map(lags).collect();
            let name = "mainstay_replica_connected";
            let connected = gauge!(name, "store" => store.clone(), "follower" => follower.clone());
            Self { connected, lags }
        }
    }

    struct Shard {
        caught_up: Gauge,
        behind: Gauge,
        undurable: Gauge,
    }

    /// The gauges of a follower.
    pub(in crate::drive) struct OfFollower {
        shards: Vec<Shard>,
        next: Duration,
    }

    impl OfFollower {
        pub(in crate::drive) fn new(identity: &Identity) -> Self {
            let store = name(identity);
            let of = |name: &'static str, shard: u32| gauge!(name, "store" => store.clone(), "shard" => shard.to_string());
            let shard = |shard| Shard {
                caught_up: of("mainstay_replica_caught_up", shard),
                behind: of("mainstay_replica_behind_events", shard),
                undurable: of("mainstay_replica_undurable_events", shard),
            };
            Self { shards: (0..identity.shards).map(shard).collect(), next: Duration::ZERO }
        }

        /// Sets them, if it is time to.
        pub(in crate::drive) fn tell(&mut self, status: &[Status], now: Duration) {
            if now < self.next {
                return;
            }
            self.next = now + EVERY;
            for (gauges, status) in self.shards.iter().zip(status) {
                let at = status.at.map_or(0, |at| at.sequence);
                gauges.caught_up.set(f64::from(u8::from(status.is_caught_up)));
                gauges.behind.set(status.tip.saturating_sub(at) as f64);
                gauges.undurable.set(at.saturating_sub(status.durable) as f64);
            }
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod untold {
    use super::{Duration, Identity};
    use crate::{follower::Status, leader::Leader, traits::Source};

    pub(in crate::drive) struct OfLeader;

    impl OfLeader {
        pub(in crate::drive) fn new(_: &Identity) -> Self {
            Self
        }

        pub(in crate::drive) fn tell<S: Source>(&mut self, _: &Leader<S>, _: Duration) {}
    }

    pub(in crate::drive) struct OfFollower;

    impl OfFollower {
        pub(in crate::drive) fn new(_: &Identity) -> Self {
            Self
        }

        pub(in crate::drive) fn tell(&mut self, _: &[Status], _: Duration) {}
    }
}
