//! What only streams of stores of keys and values of any size have.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mainstay_replica::wire::{Reason, Refusal};
use mainstay_replica::{Error, LeadSettings, Leader, Updated, limits::WRITE_BYTES_MAX, update};
use mainstay_sim::Disk;
use mainstay_store::{
    Change, Durability::Memory, Identity, LogOptions, LogScan, Options, RawLogStore, RawStore,
    read_records,
};

type Store = Arc<RawLogStore<Disk>>;
/// Values, and when they end.
type Records = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

fn options() -> LogOptions {
    let segment_bytes = 64 << 10;
    LogOptions { shards: 2, segment_bytes, threads: 1, dead_percent: 30, ..LogOptions::default() }
}

fn store(seed: u64) -> Store {
    Arc::new(RawLogStore::create(Disk::new(seed), &options()).unwrap())
}

fn replica(of: &Store, seed: u64) -> Store {
    let disk = Disk::new(seed);
    Arc::new(RawLogStore::create_replica(disk, &of.identity(), &options()).unwrap())
}

/// Keys and values of all sizes.
fn put(store: &Store, numbers: impl IntoIterator<Item = u32>, value: u8) {
    for number in numbers {
        let key = vec![number as u8; 1 + number as usize % 40];
        let value = vec![value; number as usize * 37 % 3_000];
        let ttl = (number % 7 == 0).then(|| Duration::from_secs(3_600));
        store.put_for(&key, &value, ttl, Memory).unwrap();
    }
}

fn contents(store: &Store) -> Records {
    let mut records = Records::new();
    for shard in 0..2 {
        let show = |key: &[u8], record: &[u8]| {
            let (change, end) = read_records(record, 1).unwrap()[0];
            let Change::Put(_, value) = change else { panic!("a delete is shown") };
            records.insert(key.to_vec(), (value.to_vec(), end));
        };
        let all = (usize::MAX, u64::MAX);
        assert!(!store.scan(shard, &mut LogScan::default(), all, |_| true, show).unwrap());
    }
    records
}

fn bring(one: &Store, other: &Store) -> Updated {
    let updated = update(one, other, |_, _| {}).unwrap();
    assert_eq!(contents(one), contents(other));
    for shard in 0..2 {
        assert_eq!(one.history(shard).unwrap(), other.history(shard).unwrap());
    }
    updated
}

#[test]
fn n2_a_follower_of_any_sizes_gets_everything_then_every_write_its_deletes_and_ends() {
    let ours = store(1);
    put(&ours, 0..200, 1);
    let copy = replica(&ours, 2);
    assert_eq!(bring(&ours, &copy).compared, 0, "by the log");
    put(&ours, 150..250, 2);
    ours.delete(&[7; 8], Memory).unwrap();
    let changes = [Change::Put(b"one", b"1"), Change::Put(b"two", b"2"), Change::Put(b"4", b"")];
    ours.batch_across(&changes).unwrap();
    bring(&ours, &copy);
    assert!(bring(&ours, &copy).bytes < 2_000, "what is equal is not sent");
}

#[test]
fn n2_behind_the_end_of_a_log_of_any_sizes_only_what_differs_is_sent() {
    let ours = store(1);
    put(&ours, 0..250, 1);
    let copy = replica(&ours, 2);
    let whole = bring(&ours, &copy).bytes;
    for round in 0..100 {
        ours.put(b"often", &[round; 3_000], Memory).unwrap();
        ours.put(b"as often", &[round; 3_000], Memory).unwrap();
        ours.put(b"too", &[round; 3_000], Memory).unwrap();
    }
    // The time of its end alone is another one.
    ours.touch(&[14; 15], None, Memory).unwrap();
    ours.delete(&[9; 10], Memory).unwrap();
    ours.compact().unwrap();
    let again = bring(&ours, &copy);
    assert!(again.compared > 0, "the log is not there any more");
    assert!(again.bytes * 4 < whole, "{} of {whole} bytes", again.bytes);
}

#[test]
fn n5_what_the_leader_never_had_is_set_aside_with_its_end() {
    let ours = store(1);
    put(&ours, 0..20, 1);
    let disk = Disk::new(2);
    let copy = RawLogStore::create_replica(disk.clone(), &ours.identity(), &options()).unwrap();
    let copy = Arc::new(copy);
    bring(&ours, &copy);
    let lone = Arc::into_inner(copy).unwrap().promote(7).unwrap();
    lone.put_for(b"lost", b"found", Some(Duration::from_secs(900)), Memory).unwrap();
    let copy = Arc::new(lone.demote().unwrap());
    let ours = Arc::into_inner(ours).unwrap();
    ours.fence(copy.known_epoch()).unwrap();
    let ours = Arc::new(ours.promote(9).unwrap());
    put(&ours, 5..10, 3);
    let updated = bring(&ours, &copy);
    // And what the new leader has changed meanwhile in the same shard.
    assert!(updated.set_aside >= 1);
    let name = disk.names().into_iter().find(|name| name.starts_with("aside-")).unwrap();
    let file = disk.file(&name);
    let mut text = vec![0; mainstay_sim::Storage::len(&file).unwrap() as usize];
    mainstay_sim::Storage::read_at(&file, 0, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let is_told = text.contains(r#""key":"6c6f7374","value":"666f756e64","end":1"#);
    assert!(is_told, "{text}");
}

#[test]
fn stores_of_the_two_kinds_refuse_each_other_and_name_both() {
    let ours = store(1);
    let mut identity = ours.identity();
    (identity.key_len, identity.value_len) = (2, 3);
    let fixed = RawStore::create_replica(Disk::new(2), &identity, &Options::default()).unwrap();
    let refused = update(&ours, &Arc::new(fixed), |_, _| {}).unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    let (ours, theirs) = (Identity::ANY as u64, 2);
    let refusal = Refusal { reason: Reason::KeyLen, ours, theirs, text: "" };
    assert_eq!(refusal.to_string(), "the stores differ in the length of keys: any and 2");
}

#[test]
fn a_leader_takes_no_write_that_no_message_has_room_for() {
    let large = LogOptions { segment_bytes: 64 << 20, shards: 1, ..LogOptions::default() };
    let ours = RawLogStore::create(Disk::new(1), &large).unwrap();
    let ours = Arc::new(ours);
    let longest = WRITE_BYTES_MAX - 12 - 1;
    ours.put(b"a", &vec![1; longest + 1], Memory).unwrap();
    let leader = Leader::new(Arc::clone(&ours), LeadSettings::default(), Duration::ZERO);
    let refused = ours.put(b"b", &vec![1; longest + 1], Memory);
    let max = WRITE_BYTES_MAX as u64;
    assert!(
        matches!(refused, Err(mainstay_store::Error::BatchTooLong { max: found, .. }) if found == max),
        "{refused:?}"
    );
    ours.put(b"b", &vec![1; longest], Memory).unwrap();
    drop(leader);
    let copy = RawLogStore::create_replica(Disk::new(2), &ours.identity(), &large).unwrap();
    let copy = Arc::new(copy);
    let refused = update(&ours, &copy, |_, _| {}).unwrap_err();
    assert!(refused.to_string().contains("length of a record"), "{refused}");
    ours.put(b"a", b"", Memory).unwrap();
    update(&ours, &copy, |_, _| {}).unwrap();
    assert_eq!(copy.get(b"b").unwrap().map(|value| value.len()), Some(longest));
}
