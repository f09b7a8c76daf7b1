//! The gauges as a recorder sees them.

#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mainstay_channel::{Channel, memory};
use mainstay_replica::{FollowSettings, LeadSettings, drive};
use mainstay_sim::Disk;
use mainstay_store::{Durability::Memory, Options, RawStore};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Keeps what was set, by name and labels.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Kept {
    /// The gauges of a name whose labels have this in them.
    fn get(&self, name: &str, label: &str) -> Vec<f64> {
        let kept = self.0.lock().unwrap();
        let wanted = kept.iter().filter(|(key, _)| key.starts_with(name) && key.contains(label));
        wanted.map(|(_, bits)| f64::from_bits(bits.load(Ordering::Relaxed))).collect()
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let labels: Vec<_> =
            key.labels().map(|one| format!("{}={}", one.key(), one.value())).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        let bits = Arc::clone(self.0.lock().unwrap().entry(name).or_default());
        Gauge::from_arc(bits)
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_lag_of_each_follower_and_shard_is_told_and_one_that_left_has_none() {
    let kept = Kept::default();
    metrics::set_global_recorder(kept.clone()).ok().unwrap();
    let options = Options { shards: 2, ..Options::default() };
    let ours = Arc::new(RawStore::create(Disk::new(1), 2, 3, &options).unwrap());
    let copy =
        Arc::new(RawStore::create_replica(Disk::new(2), &ours.identity(), &options).unwrap());
    let leader = drive::lead(Arc::clone(&ours), LeadSettings::default(), |_| {}).unwrap();
    let (here, there) = memory::pair();
    let (peer, here) = (here.peer().node.0, Arc::new(here));
    leader.attach(here.clone());

    // Nobody speaks at the other end yet.
    for key in [b"de", b"fr", b"it"] {
        ours.put(key, b"049", Memory).unwrap();
    }
    let label = format!("follower={peer} ");
    let lag = |name: &str| kept.get(name, &label).iter().sum::<f64>();
    wait_until("three writes are missing", || lag("mainstay_replica_lag_events") == 3.0);
    assert_eq!(kept.get("mainstay_replica_lag_events", &label).len(), 2, "one a shard");
    wait_until("their age is told", || lag("mainstay_replica_lag_seconds") > 0.0);

    let there = Mutex::new(Some(there));
    let dial = move || Ok(Arc::new(there.lock().unwrap().take().unwrap()) as Arc<dyn Channel>);
    let follower = drive::follow(copy, dial, FollowSettings::default(), |_| {}).unwrap();
    for name in ["events", "bytes", "seconds"] {
        let name = format!("mainstay_replica_lag_{name}");
        wait_until(&format!("{name} is 0"), || lag(&name) == 0.0);
    }
    for (name, value) in [("caught_up", 1.0), ("behind_events", 0.0), ("undurable_events", 0.0)] {
        let name = format!("mainstay_replica_{name}");
        wait_until(&name, || kept.get(&name, "shard=") == [value, value]);
    }
    assert_eq!(kept.get("mainstay_replica_connected", &format!("follower={peer}")), [1.0]);

    drop(follower);
    let connected = || kept.get("mainstay_replica_connected", &format!("follower={peer}"));
    wait_until("it has left", || connected() == [0.0]);
    assert!(lag("mainstay_replica_lag_events").is_nan());
    assert_eq!(kept.get("mainstay_replica_held_bytes", "store="), [0.0]);
}
