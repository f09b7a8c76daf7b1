//! A leader and its followers without a network: every message arrives, unless a test says no.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use mainstay_replica::{
    FollowSettings, Follower, LeadSettings, Leader, Level,
    follower::{self, Told},
    leader,
    wire::Way,
};
use mainstay_sim::Disk;
use mainstay_store::{Durability::Memory, Error, Options, RawStore, Role};

type Store = Arc<RawStore<Disk>>;
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

const VALUE: usize = 100;
const NOW: Duration = Duration::ZERO;

fn options() -> Options {
    Options { shards: 2, segment_bytes: 16 << 10, threads: 1, ..Options::default() }
}

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn store(seed: u64) -> (Disk, Store) {
    let disk = Disk::new(seed);
    let store = RawStore::create(disk.clone(), 4, VALUE, &options()).unwrap();
    (disk, Arc::new(store))
}

fn replica(of: &Store, seed: u64) -> (Disk, Store) {
    let disk = Disk::new(seed);
    let store = RawStore::create_replica(disk.clone(), &of.identity(), &options()).unwrap();
    (disk, Arc::new(store))
}

fn reopen(disk: &Disk) -> Store {
    Arc::new(RawStore::open(disk.clone(), &options()).unwrap())
}

fn put(store: &Store, numbers: impl IntoIterator<Item = u32>, value: u8) {
    for number in numbers {
        store.put(&key(number), &[value; VALUE], Memory).unwrap();
    }
}

fn contents(store: &Store) -> Records {
    let mut records = Records::new();
    store.for_each(|key, value| drop(records.insert(key.to_vec(), value.to_vec()))).unwrap();
    records
}

fn assert_equal(one: &Store, other: &Store) {
    assert_eq!(contents(one), contents(other));
    for shard in 0..2 {
        assert_eq!(one.history(shard).unwrap(), other.history(shard).unwrap());
    }
}

/// A leader and a follower with a channel between them.
struct Pair {
    leader: Leader<Store>,
    follower: Follower<Store>,
    told: Vec<Told>,
    leader_told: Vec<leader::Told>,
    /// Bytes to the follower.
    bytes: usize,
    closed: bool,
    now: Duration,
}

impl Pair {
    fn new(ours: &Store, copy: &Store) -> Self {
        Self::with(ours, copy, LeadSettings::default(), FollowSettings::default())
    }

    fn with(ours: &Store, copy: &Store, lead: LeadSettings, follow: FollowSettings) -> Self {
        let mut pair = Self {
            leader: Leader::new(Arc::clone(ours), lead, NOW),
            follower: Follower::new(Arc::clone(copy), follow, 7, NOW).unwrap(),
            told: Vec::new(),
            leader_told: Vec::new(),
            bytes: 0,
            closed: false,
            now: NOW,
        };
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        self.follower.handle(self.now, follower::Input::Tick);
        self.leader.handle(self.now, leader::Input::Tick);
        self.leader.handle(self.now, leader::Input::Connected { peer: 1 });
        self.follower.handle(self.now, follower::Input::Connected);
        self.closed = false;
    }

    fn follower_says(&mut self) -> Vec<Bytes> {
        let mut sent = Vec::new();
        while let Some(output) = self.follower.poll(self.now) {
            match output {
                follower::Output::Send(bytes) => sent.push(bytes),
                follower::Output::Sync => {
                    let done = self.follower.sink().sync().is_ok();
                    self.follower.handle(self.now, follower::Input::Synced(done));
                }
                follower::Output::Told(told) => self.told.push(told),
                follower::Output::Disconnect => self.closed = true,
                follower::Output::Connect => {}
            }
        }
        sent
    }

    fn leader_says(&mut self) -> Vec<Bytes> {
        let mut sent = Vec::new();
        for _ in 0..100_000 {
            match self.leader.poll(self.now) {
                Some(leader::Output::Send { bytes, .. }) => {
                    self.bytes += bytes.len();
                    sent.push(bytes);
                }
                Some(leader::Output::Told(told)) => self.leader_told.push(told),
                Some(leader::Output::Close { .. }) => self.closed = true,
                None if self.leader.deadline(self.now) > self.now => return sent,
                None => {}
            }
        }
        panic!("the leader talks without end");
    }

    /// Until nobody has anything to say.
    fn run(&mut self) {
        for _ in 0..10_000 {
            let up = self.follower_says();
            for bytes in &up {
                self.leader.handle(self.now, leader::Input::Message { peer: 1, bytes });
            }
            let down = self.leader_says();
            for bytes in &down {
                self.follower.handle(self.now, follower::Input::Message(bytes));
            }
            if up.is_empty() && down.is_empty() {
                return;
            }
        }
        panic!("they talk without end");
    }

    /// Time passes.
    fn later(&mut self, time: Duration) {
        self.now += time;
        self.leader.handle(self.now, leader::Input::Tick);
        self.follower.handle(self.now, follower::Input::Tick);
        self.run();
    }

    fn ways(&self) -> Vec<Way> {
        let way = |told: &Told| match told {
            Told::Way { way, .. } => Some(*way),
            _ => None,
        };
        self.told.iter().filter_map(way).collect()
    }
}

#[test]
fn n2_an_empty_follower_gets_everything_then_every_write_and_its_deletes() {
    let (_, ours) = store(1);
    put(&ours, 0..300, 1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    assert_equal(&ours, &copy);
    put(&ours, 250..350, 2);
    ours.delete(&key(7), Memory).unwrap();
    pair.run();
    assert_equal(&ours, &copy);
    assert_eq!(pair.ways(), [Way::Resume, Way::Resume]);
}

#[test]
fn n2_a_follower_with_nothing_gets_records_instead_of_a_long_log() {
    let (_, ours) = store(1);
    for round in 0..20 {
        put(&ours, 0..100, round);
    }
    let (_, copy) = replica(&ours, 2);
    let lead = LeadSettings { replay_max: 100, ..LeadSettings::default() };
    let mut pair = Pair::with(&ours, &copy, lead, FollowSettings::default());
    pair.run();
    assert_equal(&ours, &copy);
    assert_eq!(pair.ways(), [Way::Unfinished, Way::Unfinished]);
    assert!(pair.bytes < 100 * (VALUE + 4) + 2_000, "{} bytes", pair.bytes);
}

#[test]
fn n2_reconnecting_sends_what_changed_and_nothing_else() {
    let (_, ours) = store(1);
    put(&ours, 0..2_000, 1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    let whole = pair.bytes;
    pair.follower.handle(NOW, follower::Input::Lost);
    pair.leader.handle(NOW, leader::Input::Lost { peer: 1 });
    pair.now += Duration::from_secs(2);
    pair.bytes = 0;
    pair.connect();
    pair.run();
    assert!(pair.bytes * 100 < whole, "{} of {whole} bytes for nothing", pair.bytes);
    put(&ours, 5..6, 9);
    pair.run();
    assert!(pair.bytes * 100 < whole, "{} of {whole} bytes for one write", pair.bytes);
    assert_equal(&ours, &copy);
}

#[test]
fn n2_a_follower_away_while_the_log_was_cut_has_no_ghosts_and_gets_only_what_differs() {
    let (_, ours) = store(1);
    put(&ours, 0..3_000, 1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    drop(pair);
    for number in 0..10 {
        ours.delete(&key(number), Memory).unwrap();
    }
    for round in 0..200 {
        put(&ours, 3_000..3_010, round);
    }
    ours.compact().unwrap();
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    assert_equal(&ours, &copy);
    assert_eq!(pair.ways(), [Way::Older, Way::Older]);
    assert!(pair.bytes < 10_000, "{} bytes for twenty records of {VALUE}", pair.bytes);
}

#[test]
fn n2_overflow_of_the_log_under_a_slow_follower_leads_to_comparing_and_not_to_silence() {
    let (_, ours) = store(1);
    put(&ours, 0..100, 1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    for round in 0..40 {
        put(&ours, 0..100, round);
    }
    ours.delete(&key(3), Memory).unwrap();
    ours.compact().unwrap();
    pair.run();
    assert_equal(&ours, &copy);
    assert_eq!(pair.ways()[2..], [Way::Cut, Way::Cut]);
}

#[test]
fn n6_a_follower_that_stands_still_holds_neither_the_leader_nor_its_memory() {
    let (_, ours) = store(1);
    put(&ours, 0..10, 1);
    let (_, still) = replica(&ours, 2);
    let (_, quick) = replica(&ours, 3);
    let window = 20_000;
    let follow = FollowSettings { window_bytes: window, ..FollowSettings::default() };
    let mut pair = Pair::with(&ours, &still, LeadSettings::default(), follow);
    pair.run();
    let mut other = Follower::new(Arc::clone(&quick), follow, 8, NOW).unwrap();
    other.handle(NOW, follower::Input::Tick);
    pair.leader.handle(NOW, leader::Input::Connected { peer: 2 });
    other.handle(NOW, follower::Input::Connected);
    let (mut flying, mut held) = (0, 0);
    for round in 0..200 {
        put(&ours, 0..10, round);
        for _ in 0..20 {
            while let Some(output) = other.poll(NOW) {
                if let follower::Output::Send(bytes) = output {
                    let input = leader::Input::Message { peer: 2, bytes: &bytes };
                    pair.leader.handle(NOW, input);
                }
            }
            while let Some(output) = pair.leader.poll(NOW) {
                held = held.max(pair.leader.held_bytes());
                match output {
                    leader::Output::Send { peer: 2, bytes, .. } => {
                        other.handle(NOW, follower::Input::Message(&bytes));
                    }
                    // It arrives, and nobody takes it.
                    leader::Output::Send { bytes, .. } => flying += bytes.len(),
                    _ => {}
                }
            }
        }
    }
    assert_equal(&ours, &quick);
    assert!(flying < window as usize + (80 << 10), "{flying} bytes to one who stands still");
    assert!(held < 200 << 10, "{held} bytes held");
    let lag = pair.leader.lag(1, 0, NOW).unwrap();
    assert!(lag.events > 100 && lag.bytes > 10_000, "{lag:?}");
}

#[test]
fn n5_what_a_follower_has_and_its_leader_lost_is_set_aside_and_given_up() {
    let (disk, ours) = store(1);
    put(&ours, 0..50, 1);
    ours.sync().unwrap();
    let (copy_disk, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    // The leader's last writes were not durable, and its power is cut.
    put(&ours, 50..60, 2);
    put(&ours, 0..5, 3);
    pair.run();
    assert_equal(&ours, &copy);
    let lost = contents(&copy);
    drop((pair, ours));
    disk.power_cut();
    let ours = reopen(&disk);
    put(&ours, 100..110, 4);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    assert_equal(&ours, &copy);
    let aside: Vec<String> =
        copy_disk.names().into_iter().filter(|name| name.starts_with("aside-")).collect();
    let mut lines = String::new();
    for name in &aside {
        use mainstay_storage::Storage;
        let file = copy_disk.file(name);
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        lines.push_str(&String::from_utf8(bytes).unwrap());
    }
    let now = contents(&copy);
    let gone = lost.iter().filter(|(key, value)| now.get(*key) != Some(value));
    for (key, value) in gone.clone() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{{\"key\":\"{}\",\"value\":\"{}\"}}\n", hex(key), hex(value));
        assert!(lines.contains(&line), "{line} is not in {aside:?}");
    }
    let is_diverged = pair.ways().contains(&Way::Diverged);
    assert_eq!(is_diverged, gone.count() > 0, "the seed of the disk decides what was lost");
    assert!(is_diverged, "choose another seed");
}

#[test]
fn n4_a_leader_restored_from_a_backup_is_told_and_nothing_is_taken_from_it() {
    let (disk, ours) = store(1);
    put(&ours, 0..20, 1);
    ours.sync().unwrap();
    drop(ours);
    let backup = disk.crash_images(1).next().unwrap();
    let ours = reopen(&disk);
    drop(ours);
    let ours = reopen(&disk);
    put(&ours, 20..40, 2);
    let (_, copy) = replica(&ours, 2);
    Pair::new(&ours, &copy).run();
    let before = contents(&copy);
    let restored = reopen(&backup);
    assert!(restored.epoch() < ours.epoch());
    put(&restored, 50..60, 3);
    let mut pair = Pair::new(&restored, &copy);
    pair.run();
    assert!(pair.closed);
    assert!(
        pair.told.iter().any(|told| matches!(told, Told::StaleLeader { .. }))
            || pair.leader.replaced_by().is_some()
    );
    assert_eq!(contents(&copy), before);
    assert!(matches!(restored.put(&key(1), &[1; VALUE], Memory), Err(Error::Replaced { .. })));
}

#[test]
fn n4_after_a_promotion_the_old_leader_is_fenced_and_can_follow() {
    let (disk, old) = store(1);
    put(&old, 0..30, 1);
    let (_, first) = replica(&old, 2);
    let (_, second) = replica(&old, 3);
    Pair::new(&old, &first).run();
    Pair::new(&old, &second).run();
    put(&old, 30..35, 2); // nobody got these
    let Ok(first) = Arc::try_unwrap(first) else { panic!("nobody else has it") };
    let new = Arc::new(first.promote(5).unwrap());
    put(&new, 40..50, 3);
    let mut pair = Pair::new(&new, &second);
    pair.run();
    assert_equal(&new, &second);
    let mut stale = Pair::new(&old, &second);
    stale.run();
    assert_eq!(stale.leader.replaced_by(), Some(new.epoch()));
    assert!(matches!(old.put(&key(1), &[1; VALUE], Memory), Err(Error::Replaced { .. })));
    assert_equal(&new, &second);
    drop((stale, old));
    let old = reopen(&disk);
    assert_eq!(old.role(), Role::Follower);
    let mut back = Pair::new(&new, &old);
    back.run();
    assert_equal(&new, &old);
    assert!(back.ways().contains(&Way::Diverged));
    assert!(back.told.iter().any(|told| matches!(told, Told::SetAside { .. })));
}

#[test]
fn n3_a_write_is_durable_on_a_follower_only_when_it_is_synced_there() {
    let (_, ours) = store(1);
    let (disk, copy) = replica(&ours, 2);
    let token = ours.put(&key(1), &[1; VALUE], Memory).unwrap();
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    let have = |pair: &Pair, level| pair.leader.have(token.shard, 1, level);
    assert_eq!(have(&pair, Level::Applied), 1);
    assert_eq!(have(&pair, Level::Durable), 0);
    pair.later(Duration::from_millis(50));
    assert_eq!(have(&pair, Level::Durable), 1);
    drop((pair, copy));
    disk.power_cut();
    assert_equal(&ours, &reopen(&disk));
}

#[test]
fn n1_a_follower_that_died_while_comparing_goes_on_and_is_at_no_place_until_then() {
    let (_, ours) = store(1);
    for round in 0..10 {
        put(&ours, 0..200, round);
    }
    let (disk, copy) = replica(&ours, 2);
    let lead = LeadSettings { replay_max: 1, ..LeadSettings::default() };
    let mut pair = Pair::with(&ours, &copy, lead, FollowSettings::default());
    // Some messages, and not the last ones.
    for _ in 0..4 {
        for bytes in pair.follower_says() {
            pair.leader.handle(NOW, leader::Input::Message { peer: 1, bytes: &bytes });
        }
        for bytes in pair.leader_says().into_iter().take(3) {
            pair.follower.handle(NOW, follower::Input::Message(&bytes));
        }
    }
    assert!((0..2).any(|shard| copy.history(shard).unwrap().position().is_none()));
    copy.sync().unwrap();
    drop((pair, copy));
    disk.power_cut();
    let copy = reopen(&disk);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    assert_equal(&ours, &copy);
}

#[test]
fn stores_that_do_not_fit_are_told_both_values() {
    let (_, ours) = store(1);
    let id = ours.identity();
    let others = [
        (mainstay_store::Identity { shards: 4, ..id }, "number of shards: 2 and 4"),
        (mainstay_store::Identity { shard_bits: 9, ..id }, "choose its shard: 0 and 9"),
        (mainstay_store::Identity { key_len: 8, ..id }, "length of keys: 4 and 8"),
        (mainstay_store::Identity { value_len: 9, ..id }, "length of values: 100 and 9"),
        (mainstay_store::Identity { id: [9; 16], ..id }, "different stores"),
    ];
    for (other, text) in others {
        let copy = RawStore::create_replica(Disk::new(2), &other, &options()).unwrap();
        let mut pair = Pair::new(&ours, &Arc::new(copy));
        pair.run();
        let Some(Told::Refused(error)) =
            pair.told.iter().find(|told| matches!(told, Told::Refused(_)))
        else {
            panic!("{:?}", pair.told)
        };
        assert!(error.to_string().contains(text), "{error}");
        assert!(pair.closed);
    }
}

#[test]
fn signs_of_life_are_never_answered_and_silence_ends_the_channel() {
    let (_, ours) = store(1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    pair.later(Duration::from_millis(100));
    pair.bytes = 0;
    for _ in 0..30 {
        pair.later(Duration::from_secs(1));
    }
    assert!(pair.follower.is_joined());
    assert!(pair.bytes < 30 * 40, "{} bytes in half a minute of silence", pair.bytes);
    // The leader says nothing any more.
    pair.follower.handle(pair.now + Duration::from_secs(8), follower::Input::Tick);
    assert!(!pair.follower.is_joined());
    pair.follower_says();
    assert!(pair.closed);
}

#[test]
fn garbage_ends_the_channel_with_a_reason_and_harms_nobody() {
    let (_, ours) = store(1);
    put(&ours, 0..10, 1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    pair.leader.handle(NOW, leader::Input::Message { peer: 1, bytes: b"hello?" });
    pair.run();
    assert!(pair.closed);
    assert!(pair.leader.followers().next().is_none());
    let refused = |told: &Told| matches!(told, Told::Refused(_));
    assert!(pair.told.iter().any(refused));
    assert_equal(&ours, &copy);
}
