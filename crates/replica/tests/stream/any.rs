//! What only streams of stores of keys and values of any size have.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mainstay_replica::{
    Error, LeadSettings, Leader, Updated, leader,
    limits::{MESSAGE_BYTES_MAX, WRITE_BYTES_MAX},
    update,
    wire::{Hello, Message, Reason, Refusal, decode, encode},
};
use mainstay_sim::Disk;
use mainstay_store::{
    Change, Durability::Memory, History, Identity, LogOptions, LogScan, Options, Position,
    RawLogStore, RawStore, read_records,
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
    let is_told = text.contains(r#""key_hex":"6c6f7374","value_hex":"666f756e64","ends":1"#);
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

/// Where no leader was.
const ELSEWHERE: Position = Position { epoch: 1, sequence: 9, sum: 9 };
/// Longer than any message.
const LONG: usize = MESSAGE_BYTES_MAX + (1 << 20);

fn with_long_values() -> (LogOptions, Store) {
    let large = LogOptions { segment_bytes: 64 << 20, shards: 1, ..LogOptions::default() };
    let ours = RawLogStore::create(Disk::new(1), &large).unwrap();
    (large, Arc::new(ours))
}

#[test]
fn a_value_longer_than_any_message_reaches_followers_by_comparing_and_by_the_log() {
    let (large, ours) = with_long_values();
    ours.put(b"a", &vec![1; LONG], Memory).unwrap();
    let copy = RawLogStore::create_replica(Disk::new(2), &ours.identity(), &large).unwrap();
    let copy = Arc::new(copy);
    ours.put(b"b", b"", Memory).unwrap();
    // A follower that was elsewhere compares.
    copy.mend(0, &[], &[], History::At(ELSEWHERE)).unwrap();
    let compared = update(&ours, &copy, |_, _| {}).unwrap();
    assert_eq!(compared.compared, 1);
    ours.put(b"c", &vec![3; LONG], Memory).unwrap();
    let logged = update(&ours, &copy, |_, _| {}).unwrap();
    assert_eq!(logged.compared, 0);
    assert!(logged.bytes < LONG as u64 + (1 << 20), "{} bytes", logged.bytes);
    for (key, value) in [(b"a", 1), (b"c", 3)] {
        let there = copy.get(key).unwrap().unwrap();
        assert!(there.len() == LONG && there.iter().all(|byte| *byte == value), "{key:?}");
    }
    assert_eq!(copy.get(b"b").unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(ours.history(0).unwrap(), copy.history(0).unwrap());
}

#[test]
fn a_follower_that_takes_no_parts_is_told_of_a_write_that_it_cannot_have() {
    let (_, ours) = with_long_values();
    let mut leader = Leader::new(Arc::clone(&ours), LeadSettings::default(), Duration::ZERO);
    leader.handle(Duration::ZERO, leader::Input::Connected { peer: 1 });
    let hello = Hello {
        identity: ours.identity(),
        write_bytes_max: ours.write_bytes_max(),
        takes_parts: false,
        ..Hello::default()
    };
    let mut refusals = Vec::new();
    for (message, value) in [
        (Message::Hello(hello), WRITE_BYTES_MAX - 100),
        (Message::Sync { shard: 0, at: Some(Position::START), is_empty: true }, 10),
        (Message::Ack { allowance: 1 << 40, acks: &[] }, LONG),
        (Message::Alive { tips: &[] }, 10),
    ] {
        let bytes = encode(1, &message);
        leader.handle(Duration::ZERO, leader::Input::Message { peer: 1, bytes: &bytes });
        while let Some(output) = leader.poll(Duration::ZERO) {
            let leader::Output::Send { bytes, .. } = output else { continue };
            let (_, message) = decode(&bytes).unwrap();
            assert!(!matches!(message, Message::Part { .. }));
            if let Message::Refused(refusal) = message {
                refusals.push((refusal.reason, refusal.theirs, refusal.ours > LONG as u64));
            }
        }
        ours.put(b"a", &vec![1; value], Memory).unwrap();
    }
    assert_eq!(refusals, [(Reason::WriteBytes, WRITE_BYTES_MAX as u64, true)]);
}

#[test]
fn the_longest_record_there_can_be_reaches_a_follower_by_comparing() {
    let ours = store(1);
    let most = ours.record_bytes_max() as usize - 1;
    ours.put(b"k", &vec![1; most], Memory).unwrap();
    let refused = ours.put(b"k", &vec![2; most + 1], Memory);
    assert!(matches!(refused, Err(mainstay_store::Error::BatchTooLong { .. })), "{refused:?}");
    let copy = replica(&ours, 2);
    for shard in 0..2 {
        copy.mend(shard, &[], &[], History::At(ELSEWHERE)).unwrap();
    }
    assert_eq!(bring(&ours, &copy).compared, 2);
}
