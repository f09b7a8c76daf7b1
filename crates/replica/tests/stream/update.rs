//! Bringing a copy up to date while the original is long at what it does.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use mainstay_replica::update;
use mainstay_sim::Disk;
use mainstay_store::{Durability::Memory, Options, RawStore, limits::SEGMENT_BYTES_MIN};

use crate::slowed::Slow;

const RECORDS: u16 = 300;
const VALUE: usize = 100;

fn options() -> Options {
    Options { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

#[test]
fn an_original_that_is_long_at_comparing_equal_records_is_waited_for() {
    let store = Arc::new(RawStore::create(Disk::new(1), 2, VALUE, &options()).unwrap());
    let copy = RawStore::create_replica(Disk::new(2), &store.identity(), &options()).unwrap();
    let copy = Arc::new(copy);
    for number in 0..RECORDS {
        store.put(&number.to_le_bytes(), &[1; VALUE], Memory).unwrap();
    }
    update(&store, &copy, |_, _| {}).unwrap();
    // So often that the log no longer has what the copy lacks.
    for round in 0..RECORDS {
        store.put(&[0; 2], &[round as u8; VALUE], Memory).unwrap();
    }
    store.compact().unwrap();
    // A record at a time: whoever looks through it takes as many steps as it has records, and has nothing
    // to say at most of them.
    let looks = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&looks);
    let mut slow = Slow::new(Arc::clone(&store), move || {
        counted.fetch_add(1, Relaxed);
    });
    slow.records_max = 1;
    let updated = update(&slow, &copy, |_, _| {}).unwrap();
    // Behind the end of the log nobody knows whether the one that differs was the original's once.
    assert_eq!((updated.compared, updated.set_aside), (1, 1));
    // All but one were equal; they are summed one by one without a word.
    let looks = looks.load(Relaxed);
    assert!(looks >= 2 * u32::from(RECORDS), "{looks} looks");
    assert_eq!(copy.history(0).unwrap(), store.history(0).unwrap());
    let records = |store: &RawStore<Disk>| {
        let mut found = Vec::new();
        store.for_each(|key, value| found.push((key.to_vec(), value.to_vec()))).unwrap();
        found.sort_unstable();
        found
    };
    assert_eq!(records(&copy), records(&store));
}
