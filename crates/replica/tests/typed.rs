//! Typed stores lead and follow, and their threads look after them meanwhile.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{
    mem,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use mainstay_channel::{Channel, Error as ChannelError, Why, memory};
use mainstay_replica::{
    FollowSettings, LeadSettings, Level, Sink, Source,
    drive::{self, Following, Leading},
};
use mainstay_store::{
    Directory, Durability::Interval, Error, ExpiringStore, FixedStore, LogOptions, LogStore,
    Options, RawLogStore, RawStore,
};

const LONG: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3_600);

fn stream<S>(ours: &S, copy: &S) -> (Leading, Following)
where
    S: Source<Tail: Send, Scan: Send> + Sink + Clone + Send + 'static,
{
    let leader = drive::lead(ours.clone(), LeadSettings::default(), |_| {}).unwrap();
    let (here, there) = memory::pair();
    leader.attach(Arc::new(here));
    let there = Mutex::new(Some(there));
    let gone = || ChannelError::ChannelClosed { why: Why::ClosedHere };
    let dial = move || {
        let there = there.lock().unwrap().take().ok_or_else(gone)?;
        Ok(Arc::new(there) as Arc<dyn Channel>)
    };
    let follower = drive::follow(copy.clone(), dial, FollowSettings::default(), |_| {}).unwrap();
    (leader, follower)
}

/// `$put` sets 7 for a key, so that the timer syncs it.
macro_rules! leads_and_follows {
    ($test:ident, $store:ty, $raw:ident, $options:ident, $put:expr) => {
        #[test]
        fn $test() {
            let dir = tempfile::tempdir().unwrap();
            let path = |name: &str| dir.path().join(name);
            let options = $options { interval: Duration::from_millis(5), ..$options::default() };
            let mut ours = <$store>::create(&path("ours"), &options).unwrap();
            let folder = Directory::lock(&path("copy")).unwrap();
            let copy =
                $raw::create_replica(folder, &$raw::identity(ours.shared()), &options).unwrap();
            let mut copy = <$store>::over(copy, &options).unwrap();
            for round in 0..4 {
                let (leader, follower) = stream(ours.shared(), copy.shared());
                let token = $put(&ours, round).unwrap();
                leader.wait_for(&[token], Level::Durable, 1, LONG).unwrap();
                let end = Instant::now() + LONG;
                while !ours.shared().is_durable(token).unwrap() {
                    assert!(Instant::now() < end, "round {round}: nobody syncs");
                    thread::sleep(Duration::from_millis(1));
                }
                for key in 0..=round {
                    assert_eq!(copy.get(&key).unwrap(), Some(7), "round {round}");
                }
                assert!(matches!($put(&copy, round), Err(Error::Follows)));
                assert!(matches!(ours.demote(), Err(Error::InUse)));
                drop((leader, follower));
                copy.promote(round as u16).unwrap();
                ours.demote().unwrap();
                mem::swap(&mut ours, &mut copy);
            }
            ours.close().unwrap();
            copy.close().unwrap();
            let copy = <$store>::open(&path("copy"), &options).unwrap();
            assert_eq!(copy.get(&3).unwrap(), Some(7));
        }
    };
}

leads_and_follows!(
    typed_stores_of_fixed_sizes_lead_and_follow_and_are_looked_after,
    FixedStore<u64, u64>,
    RawStore,
    Options,
    |store: &FixedStore<u64, u64>, key| store.put(&key, &7, Interval)
);
leads_and_follows!(
    typed_stores_of_any_sizes_lead_and_follow_and_are_looked_after,
    LogStore<u64, u64>,
    RawLogStore,
    LogOptions,
    |store: &LogStore<u64, u64>, key| store.put(&key, &7, Interval)
);
leads_and_follows!(
    typed_stores_of_records_that_end_lead_and_follow_and_are_looked_after,
    ExpiringStore<u64, u64>,
    RawStore,
    Options,
    |store: &ExpiringStore<u64, u64>, key| store.put(&key, &7, Some(HOUR), Interval)
);
