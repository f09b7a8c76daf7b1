//! Options that are refused before anything is made or opened.

use std::time::Duration;

use mainstay_sim::Disk;
use mainstay_store::{Error, LogOptions, Options, RawLogStore, RawStore, limits::INTERVAL_MIN};

#[test]
fn an_interval_in_which_threads_would_spin_is_refused_by_both_kinds() {
    let is_refused = |error: Option<Error>| {
        matches!(error, Some(Error::OutOfLimits { what: "interval", value: 0 | 999, .. }))
    };
    for interval in [Duration::ZERO, INTERVAL_MIN - Duration::from_micros(1)] {
        let (fixed, any) = (Disk::new(1), Disk::new(2));
        let short = Options { interval, ..Options::default() };
        let log_short = LogOptions { interval, ..LogOptions::default() };
        assert!(is_refused(RawStore::create(fixed.clone(), 4, 8, &short).err()));
        assert!(is_refused(RawLogStore::create(any.clone(), &log_short).err()));
        // Nothing is left in anybody's way; and it is so for openings as well.
        RawStore::create(fixed.clone(), 4, 8, &Options::default()).unwrap().close().unwrap();
        RawLogStore::create(any.clone(), &LogOptions::default()).unwrap().close().unwrap();
        assert!(is_refused(RawStore::open(fixed.clone(), &short).err()));
        assert!(is_refused(RawLogStore::open(any.clone(), &log_short).err()));
        let least = Options { interval: INTERVAL_MIN, ..Options::default() };
        RawStore::open(fixed, &least).unwrap();
        RawLogStore::open(any, &LogOptions { interval: INTERVAL_MIN, ..LogOptions::default() })
            .unwrap();
    }
}
