//! A record that rots while leader and follower compare what they have: it is told, and never sent.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use mainstay_replica::{
    Sink, Source,
    follower::{self, Told},
    leader,
    wire::Way,
};
use mainstay_store::{
    Directory, Durability::Memory, LogOptions, Options, RawLogStore, RawStore, Result,
};
use tempfile::TempDir;

use crate::{
    both::{SHARDS, VALUE},
    pair::{NOW, Pair},
};

const SEGMENT_BYTES: u64 = 16 << 10;
/// Both have so many records, of which many differ.
const KEYS: u32 = 300;
/// The one that rots. Its value differs from that of the follower, or does not.
const ROTTEN: [u32; 2] = [151, 150];

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// Of which there are no two.
fn value(number: u32, round: u32) -> Vec<u8> {
    let words = (0..VALUE as u32 / 4).map(|word| (number << 16 | round << 8 | word).to_be_bytes());
    words.flatten().collect()
}

/// A directory for which no disk has to be waited, where there is one.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// What both kinds do by methods of the same names.
trait InDirectory: Source + Sink + Clone {
    /// Where its records are.
    const FILES: &'static str;

    fn make(place: &Path) -> Self;
    fn make_replica(place: &Path, of: &Self) -> Self;
    fn put_one(&self, number: u32, round: u32);
    fn cut_log(&self);
    fn get_one(&self, number: u32) -> Result<Option<Vec<u8>>>;
}

macro_rules! in_directory {
    ($store:ty, $files:expr, $made:expr, $replica:expr) => {
        impl InDirectory for Arc<$store> {
            const FILES: &'static str = $files;

            fn make(place: &Path) -> Self {
                Arc::new($made(Directory::lock(place).unwrap()).unwrap())
            }

            fn make_replica(place: &Path, of: &Self) -> Self {
                let identity = Source::identity(of);
                Arc::new($replica(Directory::lock(place).unwrap(), &identity).unwrap())
            }

            fn put_one(&self, number: u32, round: u32) {
                self.put(&key(number), &value(number, round), Memory).unwrap();
            }

            fn cut_log(&self) {
                self.compact().unwrap();
            }

            fn get_one(&self, number: u32) -> Result<Option<Vec<u8>>> {
                Ok(self.get(&key(number))?.map(|value| value.to_vec()))
            }
        }
    };
}

fn options() -> Options {
    Options { shards: SHARDS, segment_bytes: SEGMENT_BYTES, threads: 1, ..Options::default() }
}

fn log_options() -> LogOptions {
    // Nothing is kept of what was read.
    let cache_bytes = 0;
    LogOptions {
        shards: SHARDS,
        segment_bytes: SEGMENT_BYTES,
        threads: 1,
        cache_bytes,
        dead_percent: 30,
        ..LogOptions::default()
    }
}

in_directory!(
    RawStore<Directory>,
    ".live",
    |folder| RawStore::create(folder, 4, VALUE, &options()),
    |folder, of| RawStore::create_replica(folder, of, &options())
);
in_directory!(
    RawLogStore<Directory>,
    ".log",
    |folder| RawLogStore::create(folder, &log_options()),
    |folder, of| RawLogStore::create_replica(folder, of, &log_options())
);

/// Flips a bit in the middle of a value, wherever a file has it.
fn rot(place: &Path, files: &str, value: &[u8]) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(place).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_str().unwrap().ends_with(files) {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let found = (0..bytes.len() - value.len()).filter(|at| bytes[*at..].starts_with(value));
        for at in found.map(|at| at + value.len() / 2) {
            file.write_all_at(&[bytes[at] ^ 16], at as u64).unwrap();
            count += 1;
        }
    }
    count
}

/// What came of it.
struct Seen {
    /// Messages there were before the record rotted.
    messages: usize,
    leader_told: bool,
    follower_told: bool,
    /// What the follower has in the end, or that it cannot say.
    found: Result<Option<Vec<u8>>>,
    is_equal: bool,
}

/// A follower that lacks some of its leader's records compares what it has; of one of the two a record
/// rots after some messages.
fn compared<S: InDirectory>(rotten: u32, is_leaders: bool, after: usize) -> Seen {
    let (place, other) = (scratch(), scratch());
    let ours = S::make(place.path());
    let copy = S::make_replica(other.path(), &ours);
    (0..KEYS).for_each(|number| ours.put_one(number, 1));
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    drop(pair);
    (0..KEYS).filter(|number| number % 2 == 1).for_each(|number| ours.put_one(number, 2));
    let newest = |number| value(number, if number % 2 == 1 { 2 } else { 1 });
    // The log does not tell of these writes any more.
    for round in 0..60 {
        (KEYS..KEYS + 20).for_each(|number| ours.put_one(number, round));
    }
    ours.cut_log();
    let mut pair = Pair::new(&ours, &copy);
    let mut messages = 0;
    let rot_once = |pair: &Pair<S>, count: usize| {
        if count == after && !pair.closed {
            let (place, old) =
                if is_leaders { (&place, newest(rotten)) } else { (&other, value(rotten, 1)) };
            assert!(rot(place.path(), S::FILES, &old) > 0 || !is_leaders, "it is nowhere");
        }
    };
    for _ in 0..10_000 {
        let up = pair.follower_says();
        for bytes in &up {
            rot_once(&pair, messages);
            messages += 1;
            pair.leader.handle(NOW, leader::Input::Message { peer: 1, bytes });
        }
        let down = pair.leader_says();
        for bytes in &down {
            rot_once(&pair, messages);
            messages += 1;
            pair.follower.handle(NOW, follower::Input::Message(bytes));
        }
        if up.is_empty() && down.is_empty() {
            break;
        }
    }
    assert!(pair.ways().iter().all(|way| *way == Way::Older), "{:?}", pair.ways());
    let leader_told = pair.leader_told.iter().any(|told| matches!(told, leader::Told::Failed(_)));
    let is_told = |told: &Told| matches!(told, Told::Refused(_) | Told::Failed(_));
    let follower_told = pair.told.iter().any(is_told);
    let all = (0..KEYS).filter(|number| *number != rotten);
    let is_equal =
        all.into_iter().all(|number| copy.get_one(number).unwrap() == Some(newest(number)));
    Seen { messages, leader_told, follower_told, found: copy.get_one(rotten), is_equal }
}

/// Has a record of the leader rot after each message of all.
fn rots_at_the_leader<S: InDirectory>() {
    let all = compared::<S>(ROTTEN[0], true, usize::MAX);
    assert!(all.is_equal && !all.leader_told && all.messages > 8, "{}", all.messages);
    let (mut told, mut sent) = (0, 0);
    for rotten in ROTTEN {
        let newest = value(rotten, if rotten % 2 == 1 { 2 } else { 1 });
        for after in 0..all.messages {
            let seen = compared::<S>(rotten, true, after);
            assert_eq!(seen.leader_told, seen.follower_told, "{rotten} after {after} messages");
            // The one it had, or the one that was sent before it rotted: never another one.
            let found = seen.found.unwrap().unwrap();
            assert!(found == newest || found == value(rotten, 1), "{rotten} after {after}");
            if seen.leader_told {
                told += 1;
            } else {
                assert!(
                    seen.is_equal && found == newest,
                    "{rotten} after {after}: nobody was told"
                );
                sent += 1;
            }
        }
        let first = compared::<S>(rotten, true, 0);
        assert!(first.leader_told && first.follower_told, "{rotten} was rotten all the time");
    }
    println!("told {told} times; {sent} times it was sent before, as it was");
    assert!(told > 4 && sent > 0, "{told} {sent}");
}

#[test]
fn a_record_of_fixed_size_that_rots_during_a_comparison_is_told_and_never_sent() {
    rots_at_the_leader::<Arc<RawStore<Directory>>>();
}

#[test]
fn a_record_of_any_size_that_rots_during_a_comparison_is_told_and_never_sent() {
    rots_at_the_leader::<Arc<RawLogStore<Directory>>>();
}

/// Has a record of the follower rot, which its leader has as well: it is told, or made whole again.
fn rots_at_the_follower<S: InDirectory>() {
    let (mut told, mut whole) = (0, 0);
    for rotten in ROTTEN {
        let newest = value(rotten, if rotten % 2 == 1 { 2 } else { 1 });
        for after in 0..compared::<S>(rotten, true, usize::MAX).messages {
            let seen = compared::<S>(rotten, false, after);
            assert!(!seen.leader_told, "its leader's records are sound");
            match seen.found {
                Ok(found) => {
                    let found = found.unwrap();
                    assert!(found == newest, "{rotten} after {after}: {found:?}");
                    whole += 1;
                }
                // Whoever looks at it is told, if it rotted when all had been compared.
                Err(_) => told += 1,
            }
        }
    }
    println!("told {told} times, whole {whole} times");
    assert!(told > 0 && whole > 0, "{told} {whole}");
}

#[test]
fn a_record_of_fixed_size_that_rots_at_a_follower_during_a_comparison_is_told_or_replaced() {
    rots_at_the_follower::<Arc<RawStore<Directory>>>();
}

#[test]
fn a_record_of_any_size_that_rots_at_a_follower_during_a_comparison_is_told_or_replaced() {
    rots_at_the_follower::<Arc<RawLogStore<Directory>>>();
}
